//! Members and data are lost, and an operator brings the cluster back with the commands of the manual.

use std::path::Path;
use std::process::Output;

use futures::future::join_all;
use nova_testkit::{DevCluster, DevOptions, Dir, Execution, Members, MembersOptions, Nova, Rest, until};
use serde_json::{Value, json};

use crate::rig::{NOOP, SOON, nova, text};

const SLOW: &str = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: slow }, spec: { \
    defaults: { task: { retry: { maxAttempts: 10 } } }, \
    do: [ { id: a, type: task, kind: sleep, with: { ms: 1500 } } ], output: { n: \"${ input.n }\" } } }";

fn binary() -> Nova {
    Nova::at(env!("CARGO_BIN_EXE_nova")).unwrap()
}

async fn run(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::from(nova());
    tokio::time::timeout(2 * SOON, command.args(arguments).kill_on_drop(true).output()).await.expect("it ends").unwrap()
}

async fn done(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs what is refused, and gives why.
async fn refused(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    text(&output.stderr)
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `nova dev` on coordinators that run elsewhere.
async fn dev(dir: &Path, cluster: &str, coordinators: &[String], slots: u32) -> DevCluster {
    let mut flags: Vec<String> = vec!["--cluster".into(), cluster.into(), "--slots".into(), slots.to_string()];
    flags.extend(coordinators.iter().flat_map(|url| ["--coordinator".to_owned(), url.clone()]));
    let options = DevOptions { flags, ..DevOptions::default() };
    DevCluster::start_in(&binary(), &options, Dir::kept(dir).unwrap()).await.unwrap()
}

fn options(cluster: &str, first: u64) -> MembersOptions {
    MembersOptions { cluster: cluster.into(), shards: 8, first, ..MembersOptions::default() }
}

async fn members(dir: &Path) -> Members {
    let mut members = Members::start(&binary(), &options("dev", 1), dir).unwrap();
    members.ready(SOON).await.unwrap();
    members
}

/// Starts executions, each with its own key.
async fn submit(rest: &Rest, numbers: std::ops::Range<u64>) -> Vec<(u64, Execution)> {
    let all = numbers
        .map(|n| async move { (n, rest.submit_once("slow", &json!({ "n": n }), &format!("key-{n}")).await.unwrap()) });
    join_all(all).await
}

async fn all_end(rest: &Rest, executions: &[(u64, Execution)]) {
    for (n, execution) in executions {
        let ended = rest.wait(&execution.id, SOON).await.unwrap();
        assert_eq!((ended.state.as_str(), ended.output), ("COMPLETED", Some(json!({ "n": n }))), "{:?}", ended.error);
    }
}

/// Waits until a submission is taken and ends.
async fn works(rest: &Rest) {
    let looked = until("an execution that ends", SOON, || async {
        let ended = rest.run("noop", &json!({}), SOON).await.map_err(|error| error.to_string())?;
        if ended.state == "COMPLETED" { Ok(()) } else { Err(ended.state) }
    });
    looked.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_member_is_replaced_under_load_and_the_new_one_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = members(dir.path()).await;
    let dev = dev(&dir.path().join("dev"), "dev", members.urls(), 256).await;
    let rest = dev.rest();
    rest.apply(SLOW).await.unwrap();
    rest.apply(NOOP).await.unwrap();
    let leader = members.leader(SOON).await.unwrap();
    let (lost, old) = ((leader + 1) % 3, ((leader + 1) % 3 + 1).to_string());
    let at = members.urls().join(",");
    let replace = |old: &str, with: &str| {
        let (old, with, at) = (old.to_owned(), with.to_owned(), at.clone());
        async move {
            refused(3, &["admin", "replace", "--yes", "--coordinator", &at, "--member", &old, "--with", &with]).await
        }
    };
    let url = members.urls()[lost].clone();
    assert!(replace(&old, &format!("4@{url}")).await.contains("is alive"));
    assert!(replace("9", &format!("4@{url}")).await.contains("there is no member 9"));
    assert!(replace(&old, &format!("{}@{url}", leader + 1)).await.contains("not at"), "another member's number");

    members.processes()[lost].kill();
    std::fs::remove_dir_all(members.data(lost as u64 + 1)).unwrap();
    let executions = submit(rest, 0..40).await;
    let nobody = ["admin", "replace", "-y", "--coordinator", &at, "--member", &old, "--with", "4@http://127.0.0.1:9"];
    assert!(refused(4, &nobody).await.contains("start it with an empty directory"));
    let new = members.add(4).unwrap();
    let with = format!("4@{}", members.urls()[new]);
    until("the new process answers", SOON, || async {
        let asked = run(&["admin", "members", "--coordinator", &members.urls()[new]]).await;
        if asked.status.success() { Ok(()) } else { Err(text(&asked.stderr)) }
    })
    .await
    .unwrap();
    let said = done(&["admin", "replace", "-y", "--coordinator", &at, "--member", &old, "--with", &with]).await;
    assert!(said.contains(&format!("member {old} at {url} is taken out")), "{said}");
    assert!(said.contains("and votes"), "{said}");
    // Once more is no harm; another new one under the number of the lost one is refused.
    let said = done(&["admin", "replace", "-y", "--coordinator", &at, "--member", &old, "--with", &with]).await;
    assert!(said.contains("is out already"), "{said}");
    let used = format!("{old}@{url}");
    let used = ["admin", "replace", "-y", "--coordinator", &at, "--member", "4", "--with", &used];
    assert!(refused(3, &used).await.contains("was used before"));
    all_end(rest, &executions).await;

    // With another one gone, the new one is needed for a majority.
    let other = (0..3).find(|place| ![lost, leader].contains(place)).unwrap();
    members.processes()[other].kill();
    works(rest).await;
}

/// A cluster that works, and its backup.
struct BackedUp {
    /// Accepted before.
    before: Vec<(u64, Execution)>,
    /// Accepted behind it.
    after: Vec<(u64, Execution)>,
    /// Of those before, the ones that were open for certain.
    open: Vec<(u64, Execution)>,
}

async fn back_up(rest: &Rest, at: &str, file: &Path) -> BackedUp {
    rest.apply(SLOW).await.unwrap();
    rest.apply(NOOP).await.unwrap();
    let trigger =
        json!({ "id": "nightly", "type": "cron", "schedule": "0 3 * * *", "timezone": "UTC", "workflow": "noop" });
    rest.trigger(&trigger).await.unwrap();
    let before = submit(rest, 0..40).await;
    let (said, running) = {
        // While others are taken.
        let load = submit(rest, 100..140);
        let backup = ["admin", "backup", "--coordinator", at, "--to", shown(file), "-o", "json"];
        let (said, load) = tokio::join!(done(&backup), load);
        (said, load)
    };
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["cluster"], &said["shards"]), (&json!("dev"), &json!(8)), "{said}");
    assert!(said["index"].as_u64().unwrap() > 0 && said["bytes"].as_u64().unwrap() > 0, "{said}");
    let verified: Value =
        serde_json::from_str(&done(&["admin", "verify", "--from", shown(file), "-o", "json"]).await).unwrap();
    assert_eq!(verified, said);
    let again = refused(3, &["admin", "backup", "--coordinator", at, "--to", shown(file)]).await;
    assert!(again.contains("is there already"), "{again}");
    let after = submit(rest, 200..210).await;
    let ended: Vec<String> = {
        let listed = rest.list_all("slow").await.unwrap();
        listed.into_iter().filter(Execution::has_ended).map(|it| it.id).collect()
    };
    let open: Vec<_> = before.iter().filter(|(_, it)| !ended.contains(&it.id)).cloned().collect();
    assert!(open.len() >= 20, "two slots end few of them: {}", open.len());
    drop(running);
    BackedUp { before, after, open }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_becomes_a_new_cluster_when_all_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nova.backup");
    let mut old = members(&dir.path().join("old")).await;
    let mut first = dev(&dir.path().join("old"), "dev", old.urls(), 2).await;
    let backed_up = back_up(first.rest(), &old.urls().join(","), &file).await;
    first.kill();
    old.processes().iter_mut().for_each(nova_testkit::Process::kill);
    drop((first, old));
    std::fs::remove_dir_all(dir.path().join("old")).unwrap();

    let mut new = Members::prepare(&binary(), &options("dev2", 1), &dir.path().join("new")).unwrap();
    let all: Vec<_> = (1..).zip(new.urls()).map(|(id, url)| format!("{id}@{url}")).collect();
    let all = all.join(",");
    let data = new.data(1);
    let restore = |from: &Path, cluster: &str| {
        let (from, cluster) = (shown(from).to_owned(), cluster.to_owned());
        ["admin", "restore", "--from", &from, "--cluster", &cluster, "--data", shown(&data), "--member", &all]
            .map(str::to_owned)
    };
    let refusal = async |arguments: [String; 10]| refused(3, &arguments.each_ref().map(String::as_str)).await;
    // What is damaged, or newer, or somebody's, is refused by its name, and nothing is made.
    let good = std::fs::read(&file).unwrap();
    let bad = dir.path().join("bad.backup");
    for (at, byte, why) in [(0, 1, "is no backup"), (8, 9, "format 9, newer than 1"), (good.len() / 2, 0, "is damaged")]
    {
        let mut bytes = good.clone();
        bytes[at] = if byte == 0 { !bytes[at] } else { byte };
        std::fs::write(&bad, bytes).unwrap();
        let said = refusal(restore(&bad, "dev2")).await;
        assert!(said.contains(shown(&bad)) && said.contains(why), "{why}: {said}");
        assert!(!data.exists());
    }
    let said = refusal(restore(&file, "dev")).await;
    assert!(said.contains("was used in cluster dev"), "{said}");
    done(&restore(&file, "dev2").each_ref().map(String::as_str)).await;
    let said = refusal(restore(&file, "dev2")).await;
    assert!(said.contains("is not empty"), "{said}");

    for process in new.processes() {
        process.start().unwrap();
    }
    new.ready(SOON).await.unwrap();
    let second = dev(&dir.path().join("new"), "dev2", new.urls(), 256).await;
    let rest = second.rest();
    all_end(rest, &backed_up.open).await;
    for (n, execution) in &backed_up.open {
        let repeat = rest.submit_once("slow", &json!({ "n": n }), &format!("key-{n}")).await.unwrap();
        assert!(repeat.repeated && repeat.id == execution.id, "{repeat:?}");
    }
    // Behind the backup nothing is known: the same key begins anew.
    for (n, execution) in &backed_up.after {
        let fresh = rest.submit_once("slow", &json!({ "n": n }), &format!("key-{n}")).await.unwrap();
        assert!(!fresh.repeated && fresh.id != execution.id, "{fresh:?}");
    }
    let url = rest.url();
    let triggers = done(&["--url", url, "list", "triggers"]).await;
    assert!(triggers.contains("nightly"), "{triggers}");
    works(rest).await;
    // Two of three are a majority, whichever of them was restored.
    new.processes()[0].kill();
    works(rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_its_old_name_a_backup_catches_up_with_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nova.backup");
    let mut old = members(&dir.path().join("old")).await;
    let mut first = dev(&dir.path().join("dev"), "dev", old.urls(), 2).await;
    let backed_up = back_up(first.rest(), &old.urls().join(","), &file).await;
    assert!(first.process().stop(SOON).await.unwrap().unwrap().success());
    old.processes().iter_mut().for_each(nova_testkit::Process::kill);
    drop((first, old));
    std::fs::remove_dir_all(dir.path().join("old")).unwrap();

    let new_options = MembersOptions { count: 1, ..options("dev", 4) };
    let mut new = Members::prepare(&binary(), &new_options, &dir.path().join("new")).unwrap();
    let data = new.data(4);
    let member = format!("4@{}", new.urls()[0]);
    done(&[
        "admin",
        "restore",
        "--from",
        shown(&file),
        "--cluster",
        "dev",
        "--data",
        shown(&data),
        "--member",
        &member,
    ])
    .await;
    new.processes()[0].start().unwrap();
    new.ready(SOON).await.unwrap();
    let second = dev(&dir.path().join("dev"), "dev", new.urls(), 256).await;
    all_end(second.rest(), &backed_up.before).await;
    all_end(second.rest(), &backed_up.after).await;
    for (n, execution) in &backed_up.after {
        let repeat = second.rest().submit_once("slow", &json!({ "n": n }), &format!("key-{n}")).await.unwrap();
        assert!(repeat.repeated && repeat.id == execution.id, "{repeat:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_goes_on_alone_and_others_join() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = members(dir.path()).await;
    let dev = dev(&dir.path().join("dev"), "dev", members.urls(), 8).await;
    let rest = dev.rest();
    rest.apply(SLOW).await.unwrap();
    rest.apply(NOOP).await.unwrap();
    let leader = members.leader(SOON).await.unwrap();
    let left = (leader + 1) % 3;
    let executions = submit(rest, 0..40).await;
    let data = members.data(left as u64 + 1);
    for lost in (0..3).filter(|place| *place != left) {
        members.processes()[lost].kill();
        std::fs::remove_dir_all(members.data(lost as u64 + 1)).unwrap();
    }
    let own = members.urls()[left].clone();
    let recover = |member: u64| {
        let member = format!("{member}@{own}");
        ["admin", "recover", "--data", shown(&data), "--member", &member, "--i-accept-data-loss"].map(str::to_owned)
    };
    let refusal = async |arguments: [String; 7]| refused(3, &arguments.each_ref().map(String::as_str)).await;
    let said = refusal(recover(4)).await;
    assert!(said.contains("in use by another process"), "{said}");
    members.processes()[left].kill();
    let said = refused(2, &["admin", "recover", "--data", shown(&data), "--member", &format!("4@{own}")]).await;
    assert!(said.contains("Nothing was done: say --i-accept-data-loss"), "{said}");
    assert!(said.contains(&format!("is that of member {}; its last entry is ", left + 1)), "{said}");
    let said = refusal(recover(leader as u64 + 1)).await;
    assert!(said.contains("was used before"), "{said}");
    assert!(!data.join("audit.jsonl").exists(), "what was refused left no trace");
    let said = done(&recover(4).each_ref().map(String::as_str)).await;
    assert!(said.contains("goes on alone as member 4"), "{said}");
    let audit: Value = serde_json::from_str(std::fs::read_to_string(data.join("audit.jsonl")).unwrap().trim()).unwrap();
    assert_eq!((&audit["what"], &audit["remains"]["member"]), (&json!("unsafe-recovery"), &json!(4)), "{audit}");
    let said = refusal(recover(5)).await;
    assert!(said.contains("the only one of its group"), "{said}");

    members.renumber(left, 4).unwrap();
    members.processes()[left].start().unwrap();
    members.ready(SOON).await.unwrap();
    all_end(rest, &executions).await;
    let warned = members.processes()[left].errors().unwrap();
    assert!(warned.contains("recovered without a majority") && warned.contains("entries may be lost"), "{warned}");

    for number in [5, 6] {
        let place = members.add(number).unwrap();
        let url = members.urls()[place].clone();
        done(&["admin", "add-member", "--coordinator", &own, &number.to_string(), &url]).await;
    }
    // The new ones have all that the one that was left had.
    members.processes()[left].kill();
    let alone = members.urls()[left + 1..].iter().chain(&members.urls()[3..]).cloned().collect::<Vec<_>>().join(",");
    until("one of the new ones leads", SOON, || async {
        let all: Value =
            serde_json::from_str(&done(&["admin", "members", "--coordinator", &alone, "-o", "json"]).await).unwrap();
        let leads = |it: &Value| it["id"].is_u64() && it["id"] == it["leader"];
        if all.as_array().unwrap().iter().any(leads) { Ok(()) } else { Err(all.to_string()) }
    })
    .await
    .unwrap();
}
