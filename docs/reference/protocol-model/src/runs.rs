//! The configurations, and how one is checked.

use stateright::{Checker, HasDiscoveries};
use std::time::Instant;

use super::*;

pub(super) fn configs() -> Vec<Nova> {
    use Kind::{Local, Task};
    let base = Nova {
        name: "",
        bug: Bug::None,
        kinds: vec![[Local, Task]],
        same_key: false,
        cancel: false,
        max_epoch: 2,
        max_time: 0,
        max_sessions: 3,
        max_term: 1,
        crashes: 0,
        repeats: 0,
        timeouts: 0,
        failures: false,
        calm_log: false,
        eager: false,
        mortal: 0,
        check_finish: true,
    };
    vec![
        // The log and the outbox, with a zombie owner and results that come twice.
        Nova { name: "log", repeats: 1, ..base.clone() },
        // Three owners: two zombies publish beside the third.
        Nova { name: "owners", max_epoch: 3, ..base.clone() },
        // Two submissions with one key.
        Nova { name: "key", kinds: vec![[Local, Task]; 2], same_key: true, ..base.clone() },
        // Sessions and time: silence, late results, a deposed leader that goes on, a worker that comes back.
        Nova { name: "time", kinds: vec![[Task, Local]], max_epoch: 1, max_time: 3, max_term: 2, mortal: 1, eager: true, ..base.clone() },
        // Two executions compete for two slots; cancel, attempt timeout.
        Nova { name: "cancel", kinds: vec![[Task, Local]; 2], cancel: true, timeouts: 1, max_epoch: 1, calm_log: true, ..base.clone() },
        // Crashes, failures and repeats without time.
        Nova { name: "retry", kinds: vec![[Task, Local]], crashes: 1, repeats: 1, failures: true, calm_log: true, ..base.clone() },
    ]
}

const MOST_STATES: usize = 150_000_000; // generated, with repeats: the checker's own measure

struct Found {
    property: &'static str,
    steps: usize,
    actions: Vec<Action>,
}

/// Whether all is as expected: a planted bug is found, and else every state was seen, all that should hold does, and each
/// situation in which it could break was reached.
pub(super) fn check(m: Nova, limit: Duration) -> bool {
    let (start, name, bug, properties) = (Instant::now(), m.name, m.bug, m.properties());
    // One thread finds a shortest counterexample; two are faster when there is none.
    let mut builder = m.checker().threads(if bug == Bug::None { 2 } else { 1 }).timeout(limit).target_state_count(MOST_STATES);
    if bug != Bug::None {
        builder = builder.finish_when(HasDiscoveries::AnyFailures);
    }
    let c = builder.spawn_bfs().join();
    let found: Vec<_> = c
        .discoveries()
        .into_iter()
        .map(|(property, path)| {
            let actions = path.into_actions();
            Found { property, steps: actions.len(), actions }
        })
        .collect();
    let reached = |f: &&Found| f.property.starts_with('(');
    let broken: Vec<_> = found.iter().filter(|f| !reached(f)).collect();
    let sometimes = properties.iter().filter(|p| p.name.starts_with('(')).count();
    let complete = start.elapsed() < limit && c.state_count() < MOST_STATES;
    let in_situations = found.iter().filter(reached).count();
    print!(
        "{name:7} {:24} {:>11} states  depth {:>2}  {:>4} s  ",
        format!("{bug:?}"),
        c.unique_state_count(),
        c.max_depth(),
        start.elapsed().as_secs()
    );
    // Of properties that break in equally many steps, always the same is named.
    match broken.iter().min_by_key(|f| (f.steps, f.property)) {
        Some(f) => println!("{} broken in {} steps", f.property, f.steps),
        None => println!(
            "{}, {} properties hold, {in_situations} of {sometimes} situations reached",
            if complete { "complete" } else { "cut off" },
            properties.len() - sometimes,
        ),
    }
    if std::env::var("SHOW").is_ok() {
        for f in &found {
            println!("  {}", f.property);
            for a in &f.actions {
                println!("    {a:?}");
            }
        }
    }
    if bug == Bug::None { broken.is_empty() && complete && in_situations == sometimes } else { !broken.is_empty() }
}
