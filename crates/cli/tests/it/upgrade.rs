//! Members are upgraded one by one while work goes on, and the feature level keeps older builds away once it is raised.

use nova_testkit::{DevCluster, DevOptions, Dir, Execution, Nova, Rest, until};
use serde_json::{Value, json};

use crate::rig::{SOON, nova, text};

const CHAIN: &str = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: chain }, spec: { \
    defaults: { task: { retry: { maxAttempts: 10 } } }, \
    do: [ { id: a, type: task, kind: sleep, with: { ms: 50 } }, { id: b, type: task, kind: noop } ] } }";

async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::from(nova());
    let ended = command.args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(SOON, ended).await.expect("it ends").unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn members(at: &str) -> Vec<Value> {
    let (_, said, _) = run(&["admin", "members", "--coordinator", at, "-o", "json"]).await;
    serde_json::from_str::<Value>(&said).unwrap().as_array().unwrap().clone()
}

/// Submits until it is told to stop; gives what was accepted.
async fn load(rest: Rest, mut stop: tokio::sync::watch::Receiver<bool>) -> Vec<Execution> {
    let mut accepted = Vec::new();
    while !*stop.borrow_and_update() {
        let key = format!("key-{}", accepted.len());
        // In an election nobody accepts; the key makes a repeat harmless.
        if let Ok(execution) = rest.submit_once("chain", &json!({}), &key).await {
            accepted.push(execution);
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_upgraded_one_by_one_under_load_and_the_level_is_raised() {
    let binary = Nova::at(env!("CARGO_BIN_EXE_nova")).unwrap();
    let options = DevOptions { members: Some(3), ..DevOptions::default() };
    let mut cluster = DevCluster::start_in(&binary, &options, Dir::temporary().unwrap()).await.unwrap();
    let rest = cluster.rest().clone();
    rest.apply(CHAIN).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let loading = tokio::spawn(load(rest.clone(), stopped));
    let at = cluster.coordinators().join(",");
    let raise = ["admin", "raise-level", "--yes", "--coordinator", &at];
    let (code, said, error) = run(&raise).await;
    assert!(code == Some(0) && said.contains("feature level 2 is in force"), "{said}{error}");
    let (code, _, error) = run(&[&raise[..], &["--to", "1"]].concat()).await;
    assert!(code == Some(3) && error.contains("never goes down"), "{error}");

    for place in 0..3 {
        let member = &mut cluster.members().unwrap().processes()[place];
        assert!(member.stop(SOON).await.unwrap().unwrap().success());
        member.set_env("NOVA_PRETEND_LEVEL", "3");
        member.start().unwrap();
        member.ready(SOON).await.unwrap();
        if place < 2 {
            let (code, _, error) = run(&[&raise[..], &["--to", "3"]].concat()).await;
            assert!(code == Some(3) && error.contains("member 3 knows feature level 2"), "{error}");
            let (_, said, _) = run(&["doctor", "--json", "--coordinator", &at]).await;
            let said: Value = serde_json::from_str(&said).unwrap();
            let versions = said["findings"].as_array().unwrap().iter().find(|it| it["check"] == "versions").unwrap();
            assert_eq!(versions["state"], "warn", "{versions}");
        }
        // The next one goes only once this one has what the others have.
        until("a member that has caught up", SOON, || async {
            let all = members(&at).await;
            let goal = all.iter().filter_map(|it| it["committed"].as_u64()).max();
            let own = all.iter().find(|it| it["id"] == place + 1).and_then(|it| it["applied"].as_u64());
            let near = own.zip(goal).is_some_and(|(own, goal)| own + 200 > goal);
            if near { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await
        .unwrap();
    }
    let (code, said, error) = run(&raise).await;
    assert!(code == Some(0) && said.contains("feature level 3 is in force"), "{said}{error}");
    stop.send(true).unwrap();
    let accepted = loading.await.unwrap();
    assert!(accepted.len() > 20, "there was load all the while: {}", accepted.len());
    until("the end of all that was accepted", SOON, || async {
        let all = rest.list_all("chain").await.map_err(|error| error.chain())?;
        let open = |it: &&Execution| it.state != "COMPLETED";
        let known: std::collections::BTreeSet<_> = all.iter().map(|it| it.id.as_str()).collect();
        let missing = accepted.iter().filter(|it| !known.contains(it.id.as_str())).count();
        let open = all.iter().filter(open).count();
        if missing == 0 && open == 0 { Ok(()) } else { Err(format!("{missing} are missing, {open} are open")) }
    })
    .await
    .unwrap();

    // Each has noted it, and none starts as the build before.
    until("all know the level", SOON, || async {
        let all = members(&at).await;
        if all.iter().all(|it| it["level"] == 3) { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await
    .unwrap();
    let dir = cluster.dir().path().to_owned();
    let level = dir.join("coordinator-3/level");
    until("the level is noted", SOON, || {
        let found = std::fs::read_to_string(&level).unwrap_or_default();
        std::future::ready(if found == "3\n" { Ok(()) } else { Err(found) })
    })
    .await
    .unwrap();
    assert!(cluster.members().unwrap().processes()[2].stop(SOON).await.unwrap().unwrap().success());
    let config = dir.join("coordinator-3.toml");
    let (code, _, error) = run(&["serve", "coordinator", "--config", config.to_str().unwrap()]).await;
    let why = "the cluster is at feature level 3, and this build knows 2";
    assert!(code == Some(4) && error.contains(why) && error.contains(level.to_str().unwrap()), "{code:?} {error}");
    // Without the file the log itself keeps it away.
    std::fs::remove_file(&level).unwrap();
    let (code, _, error) = run(&["serve", "coordinator", "--config", config.to_str().unwrap()]).await;
    assert!(code == Some(4) && error.contains("is newer than 2"), "{code:?} {error}");

    // An old build is not taken in either, and the two that are left go on.
    let members = cluster.members().unwrap();
    let place = members.add(4).unwrap();
    let url = members.urls()[place].clone();
    until("the old build answers", SOON, || async {
        let (code, _, error) = run(&["admin", "members", "--coordinator", &url]).await;
        if code == Some(0) { Ok(()) } else { Err(error) }
    })
    .await
    .unwrap();
    let (code, _, error) = run(&["admin", "add-member", "--coordinator", &at, "4", &url]).await;
    assert!(code == Some(3) && error.contains("upgrade it first"), "{error}");
    assert_eq!(rest.run("chain", &json!({}), SOON).await.unwrap().state, "COMPLETED");
}
