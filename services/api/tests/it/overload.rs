//! More is submitted than is decided.

use nova_api::Config;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::rig::{Answer, Client, World};

const MOST: usize = 8;
const LINES: usize = 3 * MOST;

async fn world() -> World {
    World::new(Config { max_undecided: MOST, ..Config::default() }).await
}

/// Clients of one namespace that wait for an answer.
async fn flood(world: &World, namespace: &'static str, count: usize) -> Vec<JoinHandle<Answer>> {
    let mut waiting = Vec::new();
    for _ in 0..count {
        let mut client = Client::new(world).await;
        waiting.push(tokio::spawn(async move { client.submit(namespace).await }));
    }
    waiting
}

fn refused(answer: &Answer) {
    assert_eq!(answer.status, 429, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let seconds: u64 = answer.header("retry-after").expect("it says when to come again").parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&"too_busy".into(), &429.into()), "{problem}");
    assert!(nova_api::PROBLEM_CODES.contains(&"too_busy") && problem["detail"].is_string(), "{problem}");
}

#[tokio::test]
async fn a_flood_is_turned_away_and_another_tenant_is_not() {
    let mut world = world().await;
    let waiting = flood(&world, "flood", MOST).await;
    let submitted = world.submitted(MOST).await;
    let mut client = Client::new(&world).await;
    // Again and again over the same connection: a refusal does not cost it.
    for _ in 0..3 {
        refused(&client.submit("flood").await);
    }
    let quiet = flood(&world, "quiet", 1).await;
    let with_quiet = world.submitted(MOST + 1).await;
    let of_quiet: Vec<_> = with_quiet.iter().filter(|it| it.submit.namespace == "quiet").collect();
    assert_eq!(of_quiet.len(), 1);
    world.accept(of_quiet[0]).await;
    for answer in quiet {
        assert_eq!(answer.await.unwrap().status, 201);
    }
    // What was taken is not lost, and makes room.
    for it in &submitted {
        world.accept(it).await;
    }
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    let again = tokio::spawn(async move { client.submit("flood").await });
    let submitted = world.submitted(MOST + 2).await;
    let last = submitted
        .iter()
        .filter(|it| it.submit.namespace == "flood")
        .max_by_key(|it| it.submit.reply_to.map(|to| to.request));
    world.accept(last.expect("it was submitted")).await;
    assert_eq!(again.await.unwrap().status, 201);
}

#[tokio::test]
async fn a_batch_waits_for_room_line_by_line() {
    let mut world = world().await;
    let mut client = Client::new(&world).await;
    let body = [r#"{"workflow":"w"}"#; LINES].join("\n");
    let answer = tokio::spawn(async move { client.post("/batch", "flood", &body).await });
    for round in 0..3 {
        // No more than these are there before some of them are decided.
        let submitted = world.submitted((round + 1) * MOST).await;
        assert_eq!(submitted.len(), (round + 1) * MOST);
        let mut submitted: Vec<_> = submitted.into_iter().collect();
        submitted.sort_by_key(|it| it.submit.reply_to.map(|to| to.request));
        for it in &submitted[round * MOST..] {
            world.accept(it).await;
        }
    }
    let answer = answer.await.unwrap();
    let right = answer.body.lines().filter(|line| line.contains(r#""state":"RUNNING""#)).count();
    assert_eq!((answer.status, right), (200, LINES), "{}", answer.body);
}

#[tokio::test]
async fn a_batch_that_finds_no_room_in_time_is_refused_line_by_line() {
    let world = World::new(Config { max_undecided: MOST, patience_ms: 300, ..Config::default() }).await;
    let mut client = Client::new(&world).await;
    let body = [r#"{"workflow":"w"}"#; MOST + 2].join("\n");
    let answer = client.post("/batch", "flood", &body).await;
    let codes: Vec<_> = answer.body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    assert_eq!((answer.status, codes.len()), (200, MOST + 2), "{}", answer.body);
    // Those that were handed over may have been taken; the others were not, or found the room of those that were given up.
    assert!(codes.iter().all(|line| matches!(line["problem"]["status"].as_u64(), Some(429 | 504))), "{codes:?}");
    assert!(codes[..MOST].iter().all(|line| line["problem"]["code"] == "OUTCOME_UNKNOWN"), "{codes:?}");
}
