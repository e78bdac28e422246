//! One process, with a shell in the place of a service.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use nova_testkit::{Dir, Error, Launch, Process, Readiness, until};

const PATIENCE: Duration = Duration::from_secs(30);

fn shell(dir: &Path, script: &str, readiness: Readiness) -> Launch {
    Launch {
        name: "shell".into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("WORD".into(), "hello".into())],
        dir: dir.to_owned(),
        readiness,
    }
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn an_announcement_is_heard_at_each_start() {
    let dir = Dir::temporary().unwrap();
    let script = "echo starting $WORD; echo ready http://$WORD:$$; exec sleep 600";
    let mut process = Process::spawn(shell(dir.path(), script, Readiness::Announced)).unwrap();
    let first = process.ready(PATIENCE).await.unwrap().unwrap();
    assert_eq!(first, format!("http://hello:{}", process.pid().unwrap()));
    process.start().unwrap();
    let second = process.ready(PATIENCE).await.unwrap().unwrap();
    assert_eq!(second, format!("http://hello:{}", process.pid().unwrap()));
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_process_that_ends_early_is_told_with_its_output() {
    let dir = Dir::temporary().unwrap();
    let script = "echo no disk >&2; exit 3";
    let mut process = Process::spawn(shell(dir.path(), script, Readiness::Announced)).unwrap();
    let error = process.ready(PATIENCE).await.unwrap_err();
    assert!(
        matches!(&error, Error::Ended { status, tail, .. } if status.contains('3') && tail == "no disk"),
        "{error}"
    );
    assert!(matches!(process.check(), Err(Error::NotRunning { .. })));
}

#[tokio::test]
async fn one_that_does_not_get_ready_meets_the_deadline() {
    let dir = Dir::temporary().unwrap();
    let port = nova_testkit::free_port().unwrap();
    let readiness = Readiness::Http(format!("http://127.0.0.1:{port}"));
    let mut process = Process::spawn(shell(dir.path(), "exec sleep 600", readiness)).unwrap();
    assert!(matches!(process.ready(Duration::from_millis(100)).await, Err(Error::Deadline { .. })));
    process.check().unwrap();
}

#[tokio::test]
async fn kill_stop_and_drop_leave_nothing_running() {
    let dir = Dir::temporary().unwrap();
    // It ignores the polite signal, and stands still.
    let stubborn = shell(dir.path(), "trap '' TERM; echo ready here; while :; do sleep 1; done", Readiness::Announced);
    let mut process = Process::spawn(stubborn).unwrap();
    process.ready(PATIENCE).await.unwrap();
    let pid = process.pid().unwrap();
    process.pause().unwrap();
    process.kill();
    assert!(!alive(pid));
    assert!(matches!(process.usage(), Err(Error::NotRunning { .. })));

    process.start().unwrap();
    process.ready(PATIENCE).await.unwrap();
    let pid = process.pid().unwrap();
    assert!(matches!(process.stop(Duration::from_millis(50)).await, Err(Error::Deadline { .. })));
    assert!(!alive(pid));

    process.start().unwrap();
    let pid = process.pid().unwrap();
    drop(process);
    assert!(!alive(pid));

    let mut polite = Process::spawn(shell(dir.path(), "exec sleep 600", Readiness::Started)).unwrap();
    assert_eq!(polite.stop(PATIENCE).await.unwrap().unwrap().signal(), Some(15));
    assert_eq!(polite.pid(), None);
    assert_eq!(polite.stop(PATIENCE).await.unwrap(), None);
}

#[tokio::test]
async fn cpu_time_of_a_busy_process_grows() {
    let dir = Dir::temporary().unwrap();
    let process = Process::spawn(shell(dir.path(), "while :; do :; done", Readiness::Started)).unwrap();
    until("50 ms of CPU", PATIENCE, || async {
        let usage = process.usage().map_err(|error| error.chain())?;
        if usage.cpu >= Duration::from_millis(50) && usage.rss_bytes > 0 { Ok(()) } else { Err(format!("{usage:?}")) }
    })
    .await
    .unwrap();
}

#[test]
fn a_binary_that_is_not_there_is_told() {
    let error = nova_testkit::Nova::at("/nowhere/nova").unwrap_err();
    assert!(matches!(&error, Error::NoBinary { looked } if looked == &[Path::new("/nowhere/nova")]), "{error}");
    assert!(error.to_string().contains("cargo build -p nova-cli"));
}
