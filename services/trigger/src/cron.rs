//! A trigger by time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use nova_trigger_rules::{Cron, Source, limits};
use serde_json::json;

use crate::context::{Context, Entry};
use crate::metrics as names;
use crate::submit::{Dead, Outlet, Start};
use crate::workflows::Target;

/// Pause before a trigger that waits for something looks again.
const HELD_PAUSE: Duration = Duration::from_millis(500);
/// A position further ahead than this, in milliseconds, was written by a clock that is wrong.
const FUTURE_MS: u64 = 60 * 60 * 1_000;

/// Runs until it is dropped, which it may be at any moment.
pub(crate) async fn run(context: Arc<Context>, entry: Arc<Entry>, cron: Cron) {
    let source = Source::of_cron(&entry.id, &cron);
    let outlet = context.submitter.outlet(&entry.namespace, &entry.id, &entry.workflow, source);
    let mut through = begin(&context, &outlet).await;
    'plan: loop {
        let now = context.clock.now_ms();
        let plan = cron.schedule.plan(through, now, cron.catch_up);
        context.cron_lag(&entry, plan.due.first().map_or(0, |slot| now.saturating_sub(*slot)));
        for slot in plan.due {
            let Some(target) = ready(&context, &entry, &outlet).await else {
                // What is missed while it waits is not for this plan to say.
                tokio::time::sleep(HELD_PAUSE).await;
                continue 'plan;
            };
            fire(&context, &entry, &outlet, &cron, &target, slot).await;
            through = slot;
            if context.clock.now_ms().saturating_sub(now) > limits::LATE_MS {
                continue 'plan;
            }
        }
        if plan.left_out > 0 {
            counter!(names::LEFT_OUT).increment(plan.left_out as u64);
            tracing::info!(trigger = %entry.id, slots = plan.left_out, "missed slots are left out");
        }
        through = plan.through_ms;
        context.cron_lag(&entry, 0);
        context.clock.sleep_until(plan.next_ms.unwrap_or(u64::MAX)).await;
    }
}

/// Everything up to here is decided.
async fn begin(context: &Context, outlet: &Outlet) -> u64 {
    let last = context.first_position(outlet).await;
    let now = context.clock.now_ms();
    match last {
        Some(last) => {
            if last > now.saturating_add(FUTURE_MS) {
                let ahead_ms = last - now;
                tracing::error!(source = %outlet.source, ahead_ms, "the position of a trigger lies in the future");
            }
            last
        }
        None => {
            // Slots from now on belong to it, also when this process does not live to see the first.
            context.submitter.mark(outlet, now, now);
            now
        }
    }
}

/// The version to start, if everything is there for it.
async fn ready(context: &Context, entry: &Entry, outlet: &Outlet) -> Option<Arc<Target>> {
    if context.load.is_busy(outlet.shard) {
        context.hold(entry, "its shard has enough to do".into());
        return None;
    }
    match context.target(entry).await {
        Ok(target) => {
            context.release(entry);
            Some(target)
        }
        Err(missing) => {
            context.hold(entry, missing.to_string());
            None
        }
    }
}

async fn fire(context: &Context, entry: &Entry, outlet: &Outlet, cron: &Cron, target: &Target, slot: u64) {
    context.submitter.room().await;
    let input = input(entry, cron, slot);
    match target.check(&input) {
        Ok(()) => {
            counter!(names::FIRED, "kind" => "cron").increment(1);
            context.submitter.start(outlet, target, Start { number: slot, at_ms: slot, input });
        }
        Err(reason) => {
            let dead = Dead {
                topic: format!("trigger:{}", outlet.source),
                partition: 0,
                offset: slot,
                code: "trigger.input.schema",
                reason,
                original: input,
                at_ms: context.clock.now_ms(),
            };
            context.submitter.put_aside("cron", vec![dead]).await;
            context.submitter.mark(outlet, slot, slot);
        }
    }
    // The next slot only after this one is in the log.
    let mut acknowledged = outlet.acknowledged.subscribe();
    // The outlet holds the sender.
    let _ = acknowledged.wait_for(|number| *number >= Some(slot)).await;
}

fn input(entry: &Entry, cron: &Cron, slot: u64) -> Bytes {
    let input = match &cron.input {
        Some(input) => input.to_string(),
        None => {
            let at = nova_trigger_rules::time_of(slot);
            json!({ "trigger": &*entry.id, "slot": at, "slotMs": slot }).to_string()
        }
    };
    input.into()
}
