//! What `/metrics` tells of each service, while work ends, runs and waits.

use std::collections::BTreeMap;

use nova_testkit::until;
use serde_json::json;

use crate::rig::{Dev, NOOP, SOON, root};

/// A page: kinds by family, values by series.
struct Page {
    kinds: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Page {
    async fn of(dev: &Dev) -> Self {
        let text = dev.http.get(format!("{}/metrics", dev.url)).send().await.unwrap().text().await.unwrap();
        let mut page = Self { kinds: BTreeMap::new(), values: BTreeMap::new() };
        for line in text.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')) {
                page.kinds.insert(name.to_owned(), kind.to_owned());
            } else if let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
                page.values.insert(series.to_owned(), value.parse().unwrap());
            }
        }
        page
    }

    fn get(&self, series: &str) -> f64 {
        self.values.get(series).copied().unwrap_or(f64::NAN)
    }

    /// What is not as it should be.
    fn problems(&self, wanted: &[Wanted]) -> Vec<String> {
        let unmet = |(series, word, limit): &&Wanted| {
            let value = self.get(series);
            !match *word {
                "=" => value == *limit,
                ">" => value > *limit,
                ">=" => value >= *limit,
                other => panic!("{other}"),
            }
        };
        wanted.iter().filter(unmet).map(|it| format!("{it:?}, and is {}", self.get(it.0))).collect()
    }
}

/// A series, and what holds of its value.
type Wanted = (&'static str, &'static str, f64);

/// Executions that end, one that runs, and one whose task nobody takes.
const ENDED: f64 = 5.0;

const COORDINATOR: &[Wanted] = &[
    ("nova_raft_term", ">", 0.0),
    ("nova_raft_is_leader", "=", 1.0),
    ("nova_raft_leader_member", "=", 1.0),
    ("nova_raft_last_index", ">", 0.0),
    ("nova_raft_committed_index", ">", 0.0),
    ("nova_raft_applied_index", ">", 0.0),
    ("nova_raft_log_entries_total", ">", 0.0),
    ("nova_raft_log_sync_seconds_count", ">", 0.0),
    ("nova_raft_log_sync_seconds_sum", ">", 0.0),
    ("nova_coordinator_requests_waiting", ">=", 0.0),
    ("nova_coordinator_entries_in_flight", ">=", 0.0),
    ("nova_coordinator_entry_bodies_count", ">", 0.0),
    ("nova_coordinator_commit_seconds_count", ">", 0.0),
    ("nova_coordinator_apply_seconds_count", ">", 0.0),
    ("nova_executions_open", "=", 2.0),
    ("nova_queue_tasks", "=", 1.0),
    ("nova_queue_oldest_seconds", ">", 0.0),
    ("nova_leases", "=", 1.0),
    ("nova_slots", "=", 256.0),
    ("nova_worker_sessions", "=", 1.0),
    ("nova_timers", ">=", 0.0),
    ("nova_offers", "=", 0.0),
    ("nova_offers_oldest_seconds", "=", 0.0),
    ("nova_outbox_messages", "=", 0.0),
    ("nova_outbox_bytes", "=", 0.0),
    ("nova_outbox_oldest_seconds", "=", 0.0),
    ("nova_bus_commands_lag_records", "=", 0.0),
];

const SCHEDULER: &[Wanted] = &[
    ("nova_scheduler_shards", "=", 8.0),
    ("nova_scheduler_shards_halted", "=", 0.0),
    ("nova_scheduler_commands_lag_records", "=", 0.0),
    ("nova_scheduler_buffered_records", "=", 0.0),
    ("nova_scheduler_oldest_record_seconds", "=", 0.0),
    ("nova_scheduler_proposals_in_flight", ">=", 0.0),
    ("nova_scheduler_proposal_records_count", ">=", ENDED),
    ("nova_scheduler_propose_seconds_count", ">=", ENDED),
    ("nova_scheduler_evaluations_total", ">=", ENDED),
    ("nova_scheduler_evaluate_seconds_count", ">=", ENDED),
    ("nova_scheduler_publishing_bytes", "=", 0.0),
];

const WORKER: &[Wanted] = &[
    ("nova_worker_running", "=", 1.0),
    ("nova_worker_slots", "=", 256.0),
    ("nova_worker_oldest_attempt_seconds", ">", 0.0),
    ("nova_worker_attempts_total{kind=\"echo\",outcome=\"completed\"}", ">=", ENDED),
    ("nova_worker_attempts_total{kind=\"echo\",outcome=\"failed\"}", "=", 0.0),
    ("nova_worker_attempt_seconds_count{kind=\"echo\"}", ">=", ENDED),
    ("nova_worker_inbox_lag_records", "=", 0.0),
    ("nova_worker_results_waiting_bytes", "=", 0.0),
    ("nova_worker_sessions_total", ">=", 1.0),
    ("nova_worker_renewal_seconds_count", ">", 0.0),
];

const API: &[Wanted] = &[
    ("nova_api_requests_total{route=\"/api/v1/executions\",status=\"201\"}", "=", ENDED + 1.0),
    ("nova_api_request_seconds_count{route=\"/api/v1/executions\"}", "=", ENDED + 1.0),
    ("nova_api_submissions_total{outcome=\"accepted\"}", "=", ENDED + 2.0),
    ("nova_api_submissions_total{outcome=\"rejected\"}", "=", 0.0),
    ("nova_api_submit_seconds_count", "=", ENDED + 2.0),
    ("nova_api_unanswered", "=", 0.0),
    ("nova_api_waiting", "=", 1.0),
    ("nova_api_oldest_waiting_seconds", ">", 0.0),
    ("nova_api_replies_lag_records", "=", 0.0),
    ("nova_api_submit_batch_records_count", ">", 0.0),
    ("nova_history_lag_records", "=", 0.0),
    ("nova_history_age_seconds", ">=", 0.0),
    ("nova_history_write_seconds_count", ">", 0.0),
    ("nova_history_events_total", ">", 0.0),
];

/// While a trigger fires each second.
const TRIGGER: &[Wanted] = &[
    ("nova_trigger_triggers{kind=\"cron\"}", "=", 1.0),
    ("nova_trigger_triggers{kind=\"kafka\"}", "=", 0.0),
    ("nova_trigger_invalid_triggers", "=", 0.0),
    ("nova_trigger_held_triggers", "=", 0.0),
    ("nova_trigger_fired_total{kind=\"cron\"}", ">", 0.0),
    ("nova_trigger_acknowledge_seconds_count", ">", 0.0),
    ("nova_trigger_submissions_waiting_bytes", "=", 0.0),
    ("nova_trigger_kafka_lag_records", "=", 0.0),
    ("nova_trigger_cron_lag_seconds", ">=", 0.0),
    ("nova_trigger_partitions_halted", "=", 0.0),
];

/// A page on which all that is wanted holds.
async fn page(dev: &Dev, wanted: &[&[Wanted]]) -> Page {
    let good = until("a page", SOON, || async {
        let page = Page::of(dev).await;
        let mut problems: Vec<_> = wanted.iter().flat_map(|wanted| page.problems(wanted)).collect();
        // They are set one after the other, while the page is made.
        let [last, committed, applied] =
            ["nova_raft_last_index", "nova_raft_committed_index", "nova_raft_applied_index"].map(|it| page.get(it));
        if last < committed || committed < applied {
            problems.push(format!("the log ends at {last}, {committed} is committed, {applied} is applied"));
        }
        if problems.is_empty() { Ok(page) } else { Err(problems.join("\n")) }
    });
    good.await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_tells_backlog_age_work_in_flight_and_latency_of_each_service() {
    let dev = Dev::start();
    dev.apply(&std::fs::read_to_string(root().join("examples/hello.yaml")).unwrap()).await;
    dev.apply(&NOOP.replace("name: noop", "name: unwanted").replace("kind: noop", "kind: nobodys")).await;
    dev.apply(&NOOP.replace("name: noop", "name: slow").replace("kind: noop", "kind: sleep, with: { ms: 600000 }"))
        .await;
    for _ in 0..ENDED as u32 {
        assert_eq!(dev.run("hello", json!({ "name": "Ada" })).await["state"], "COMPLETED");
    }
    let (status, body) = dev.submit(&json!({ "workflow": "unwanted" }), &[]).await;
    assert_eq!(status, 201, "{body:#}");
    let slow = dev.http.post(dev.path("/executions")).header("prefer", "wait=60").json(&json!({ "workflow": "slow" }));
    let waiting = tokio::spawn(slow.send());

    let tick = json!({ "id": "tick", "workflow": "hello", "type": "cron", "schedule": "* * * * * *" });
    let made = dev.http.post(dev.path("/triggers")).json(&tick).send().await.unwrap();
    assert_eq!(made.status(), 201);
    page(&dev, &[TRIGGER]).await;
    let gone = dev.http.delete(dev.path("/triggers/tick")).send().await.unwrap();
    assert!(gone.status().is_success(), "{}", gone.status());
    let page = page(&dev, &[COORDINATOR, SCHEDULER, WORKER, API]).await;
    waiting.abort();

    let document = std::fs::read_to_string(root().join("docs/reference/telemetry.md")).unwrap();
    for (name, kind) in &page.kinds {
        assert!(document.contains(&format!("| `{name}` | {kind} |")), "{name} ({kind}) is not in the document");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        let unit = ["_seconds", "_records", "_bodies"].iter().any(|unit| name.ends_with(unit));
        assert!(unit || kind != "histogram", "{name} has no unit, and no buckets");
    }
}
