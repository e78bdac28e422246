//! A cluster of numbers: submissions come evenly, wait in one queue, and are decided at a steady rate.

use std::collections::VecDeque;

use super::*;

const TARGET: Duration = Duration::from_millis(100);
const MOST: usize = 10_000;
const LIMITS: Limits = Limits { quick: TARGET, most: MOST };
/// What a decision takes when nothing waits.
const ALONE: Duration = Duration::from_millis(5);

struct World {
    control: Control,
    now: Instant,
    queue: VecDeque<(&'static str, Instant)>,
    /// Submissions and decisions that are owed, in parts of one.
    due: BTreeMap<&'static str, f64>,
    done: f64,
    /// What a decision takes when nothing waits.
    alone: Duration,
}

/// What became of the submissions of one tenant.
#[derive(Clone, Copy, Debug, Default)]
struct Of {
    refused: u32,
    decided: u32,
    slowest: Duration,
    taken: Duration,
    retry_after: (u64, u64),
    /// Of a refusal.
    longest_wait: Duration,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let control = Control::new(LIMITS, now);
        Self { control, now, queue: VecDeque::new(), due: BTreeMap::new(), done: 0.0, alone: ALONE }
    }

    /// So many milliseconds with so many decisions and submissions per second.
    fn run(&mut self, ms: u32, capacity: f64, load: &[(&'static str, f64)]) -> BTreeMap<&'static str, Of> {
        let mut seen: BTreeMap<_, Of> = load.iter().map(|(name, _)| (*name, Of::default())).collect();
        for _ in 0..ms {
            self.now += Duration::from_millis(1);
            for (name, per_second) in load {
                let due = self.due.entry(name).or_default();
                *due += per_second / 1e3;
                while *due >= 1.0 {
                    *due -= 1.0;
                    match self.control.admit(name, self.now) {
                        Ok(()) => self.queue.push_back((name, self.now)),
                        Err(refusal) => {
                            let wait = self.control.turn(self.now) - self.now;
                            seen.entry(name).or_default().refuse(refusal, wait);
                        }
                    }
                }
            }
            self.done = (self.done + capacity / 1e3).min(self.queue.len() as f64);
            while self.done >= 1.0 && self.queue.front().is_some_and(|(_, at)| self.now - *at >= self.alone) {
                self.done -= 1.0;
                let (name, at) = self.queue.pop_front().expect("it was looked at");
                let taken = self.now - at;
                self.control.ended(name, Some(taken), self.now);
                let of = seen.entry(name).or_default();
                of.decided += 1;
                of.taken += taken;
                of.slowest = of.slowest.max(taken);
            }
            self.control.look(self.now);
            assert_eq!(self.control.in_flight, self.queue.len());
        }
        seen
    }
}

impl Of {
    fn refuse(&mut self, refusal: Refusal, wait: Duration) {
        self.longest_wait = self.longest_wait.max(wait);
        let seconds = refusal.retry_after_s;
        let (least, most) = if self.refused == 0 { (seconds, seconds) } else { self.retry_after };
        self.retry_after = (least.min(seconds), most.max(seconds));
        self.refused += 1;
    }

    fn mean(&self) -> Duration {
        self.taken / self.decided.max(1)
    }
}

/// About the target; but the least that may be under way may be worth more than that.
fn slowest(capacity: f64) -> Duration {
    Duration::from_secs_f64(LEAST / capacity).max(TARGET) * 2
}

#[test]
fn what_can_be_done_is_never_refused() {
    let mut world = World::new();
    for load in [10.0, 1_000.0, 5_000.0, 9_900.0] {
        let seen = world.run(3_000, 10_000.0, &[("a", load)]);
        assert_eq!((seen["a"].refused, world.control.limit()), (0, None), "{load}: {seen:?}");
    }
}

#[test]
fn at_three_times_the_knee_the_knee_is_done_and_answers_take_about_the_target() {
    for capacity in [200.0, 1_000.0, 10_000.0] {
        let mut world = World::new();
        world.run(4_000, capacity, &[("a", 3.0 * capacity)]);
        let seen = world.run(10_000, capacity, &[("a", 3.0 * capacity)])["a"];
        assert!(f64::from(seen.decided) >= 9.9 * capacity, "{capacity}: {seen:?}");
        assert!(
            seen.mean() >= TARGET / 2 && seen.slowest <= slowest(capacity),
            "{capacity}: {seen:?} {:?}",
            seen.mean()
        );
        assert!(f64::from(seen.refused) >= 19.0 * capacity, "{capacity}: {seen:?}");
    }
}

#[test]
fn who_is_sent_away_is_told_times_over_which_all_can_come_again() {
    let mut world = World::new();
    world.run(4_000, 1_000.0, &[("a", 3_000.0)]);
    // Two are refused for each that is done, and a tenth of a second is under way.
    let seen = world.run(1_000, 1_000.0, &[("a", 3_000.0)])["a"];
    assert_eq!(seen.retry_after, (1, 3), "{seen:?}");
    // However many there are, nobody is sent away for long.
    let seen = world.run(3_000, 1_000.0, &[("a", 300_000.0)])["a"];
    assert_eq!(seen.retry_after.1, LONGEST_S as u64, "{seen:?}");
}

#[test]
fn refusals_wait_for_their_turn_where_there_are_more_of_them_than_decisions() {
    let mut world = World::new();
    let mut waits = |per_second: f64| {
        world.run(3_000, 2_000.0, &[("a", per_second)]);
        let seen = world.run(2_000, 2_000.0, &[("a", per_second)])["a"];
        assert!(seen.refused > 0, "{per_second}: {seen:?}");
        seen.longest_wait
    };
    // They come in bursts, so a few milliseconds are none.
    assert!(waits(3_000.0) <= Duration::from_millis(5));
    assert_eq!(waits(20_000.0), REFUSED_WITHIN);
    assert!(waits(3_000.0) <= REFUSED_WITHIN);
    assert!(waits(3_000.0) <= Duration::from_millis(5), "the line is gone");
}

#[test]
fn who_only_looks_whether_there_is_room_takes_no_turn() {
    let mut world = World::new();
    world.run(4_000, 1_000.0, &[("a", 3_000.0)]);
    let now = world.now + REFUSED_WITHIN * 2;
    // As batches do that wait.
    let looks = (0..1_000).filter(|_| world.control.admit("a", now).is_err()).count();
    assert!(looks > 500, "{looks}");
    assert_eq!(world.control.turn(now), now);
}

#[test]
fn while_nothing_is_decided_refusals_wait_no_longer_than_they_may() {
    let mut world = World::new();
    let seen = world.run(5_000, 0.0, &[("a", 10_000.0)])["a"];
    assert!(seen.refused > 10_000 && seen.longest_wait <= REFUSED_WITHIN, "{seen:?}");
}

#[test]
fn after_an_overload_all_is_as_before() {
    let mut world = World::new();
    world.run(10_000, 1_000.0, &[("a", 3_000.0)]);
    assert!(world.control.is_limited());
    // What stands in the queue is the target's worth.
    world.run(500, 1_000.0, &[("a", 500.0)]);
    let seen = world.run(5_000, 1_000.0, &[("a", 500.0)])["a"];
    assert!(seen.refused == 0 && seen.slowest <= ALONE * 2, "{seen:?}");
    assert!(world.control.limit().is_none() && !world.control.is_limited());
}

#[test]
fn the_limit_goes_with_what_the_cluster_can_do() {
    let mut world = World::new();
    let mut done = |capacity: f64| {
        world.run(6_000, capacity, &[("a", 30_000.0)]);
        let seen = world.run(2_000, capacity, &[("a", 30_000.0)])["a"];
        assert!(f64::from(seen.decided) >= 1.9 * capacity, "{capacity}: {seen:?}");
        assert!(seen.slowest <= slowest(capacity), "{capacity}: {seen:?}");
    };
    done(10_000.0);
    done(1_000.0);
    done(10_000.0);
}

#[test]
fn a_cluster_that_is_slow_by_itself_is_not_overloaded() {
    let mut world = World { alone: Duration::from_millis(300), ..World::new() };
    let seen = world.run(5_000, 1_000.0, &[("a", 500.0)])["a"];
    assert_eq!((seen.refused, world.control.limit()), (0, None), "{seen:?}");
    let seen = world.run(10_000, 1_000.0, &[("a", 3_000.0)])["a"];
    assert!(seen.decided >= 9_000 && seen.refused > 15_000, "{seen:?}");
    assert!(world.control.target() >= Duration::from_millis(900), "{:?}", world.control.target());
}

#[test]
fn a_stall_is_no_overload() {
    let mut world = World::new();
    world.run(1_000, 10_000.0, &[("a", 2_000.0)]);
    world.run(250, 0.0, &[("a", 2_000.0)]);
    let seen = world.run(2_000, 10_000.0, &[("a", 2_000.0)])["a"];
    assert_eq!((seen.refused, world.control.limit()), (0, None), "{seen:?}");
}

#[test]
fn while_nothing_is_decided_no_more_is_taken_than_can_be_held() {
    let mut world = World::new();
    world.run(5_000, 0.0, &[("a", 10_000.0)]);
    assert_eq!(world.control.in_flight, MOST);
    assert!(world.control.is_limited());
    assert!(world.control.admit("b", world.now).is_ok(), "another tenant has a share of it");
}

#[test]
fn a_flood_is_refused_and_not_those_beside_it() {
    let mut world = World::new();
    let load = [("flood", 3_000.0), ("quiet", 50.0), ("some", 200.0)];
    world.run(3_000, 1_000.0, &load);
    let seen = world.run(5_000, 1_000.0, &load);
    assert_eq!((seen["quiet"].refused, seen["some"].refused), (0, 0), "{seen:?}");
    assert!(seen["flood"].refused > 10_000, "{seen:?}");
    // What they do not use is the flood's.
    assert!(seen["flood"].decided >= 5 * 700, "{seen:?}");
}

#[test]
fn floods_share_alike() {
    let mut world = World::new();
    let load = [("a", 3_000.0), ("b", 1_500.0), ("quiet", 50.0)];
    world.run(5_000, 1_000.0, &load);
    let seen = world.run(10_000, 1_000.0, &load);
    let [a, b] = ["a", "b"].map(|name| f64::from(seen[name].decided));
    assert!(seen["quiet"].refused == 0, "{seen:?}");
    assert!((0.8..1.25).contains(&(a / b)) && a + b >= 9_000.0, "{seen:?}");
}

#[test]
fn who_wants_little_has_all_of_it() {
    for (wants, height) in [
        (vec![], 100.0),
        (vec![500.0], 100.0),
        (vec![500.0, 5.0], 95.0),
        (vec![60.0, 10.0, 70.0], 45.0),
        (vec![10.0, 20.0], 90.0),
    ] {
        assert!((level(100.0, wants.clone()) - height).abs() < 1e-9, "{wants:?}");
    }
}

#[test]
fn names_are_forgotten() {
    let mut world = World::new();
    world.run(100, 10_000.0, &[("a", 1_000.0), ("b", 1_000.0)]);
    assert_eq!(world.control.tenants.len(), 2);
    world.run(2_000, 10_000.0, &[("a", 1_000.0)]);
    assert_eq!(world.control.tenants.len(), 1);
}

#[test]
fn what_is_given_up_makes_room_and_says_nothing_about_the_cluster() {
    let mut control = Control::new(LIMITS, Instant::now());
    let now = control.looked_at;
    control.admit("a", now).unwrap();
    control.ended("a", None, now + Duration::from_secs(9));
    assert_eq!((control.in_flight, control.taken(), control.limit()), (0, Duration::ZERO, None));
}
