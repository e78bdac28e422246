use jiff::Timestamp;
use nova_trigger_rules::{CatchUp, Kind, Plan, Schedule, TriggerSpec, limits};
use proptest::prelude::*;
use serde_json::json;

fn schedule(pattern: &str, zone: &str) -> Schedule {
    let document = json!({ "id": "t", "workflow": "w", "type": "cron", "schedule": pattern, "timezone": zone });
    match TriggerSpec::from_value(&document).expect("a good document").kind {
        Kind::Cron(cron) => cron.schedule,
        Kind::Kafka(_) => unreachable!("it says cron"),
    }
}

fn ms(time: &str) -> u64 {
    let time: Timestamp = time.parse().expect("a time");
    u64::try_from(time.as_millisecond()).expect("after 1970")
}

fn text(slots: &[u64]) -> Vec<String> {
    slots.iter().map(|slot| Timestamp::from_millisecond(*slot as i64).unwrap().to_string()).collect()
}

fn upcoming(pattern: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    text(&schedule(pattern, zone).upcoming(ms(after), count))
}

#[test]
fn five_fields_are_minutes_and_six_have_seconds() {
    assert_eq!(
        upcoming("*/5 * * * *", "UTC", "2026-01-01T00:03:00Z", 2),
        ["2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"]
    );
    assert_eq!(
        upcoming("*/20 * * * * *", "UTC", "2026-01-01T00:00:20Z", 2),
        ["2026-01-01T00:00:40Z", "2026-01-01T00:01:00Z"]
    );
    // After, never at; fractions of a second do not matter.
    assert_eq!(upcoming("* * * * * *", "UTC", "2026-01-01T00:00:00.001Z", 1), ["2026-01-01T00:00:01Z"]);
    assert_eq!(upcoming("* * * * * *", "UTC", "2026-01-01T00:00:00.999Z", 1), ["2026-01-01T00:00:01Z"]);
}

#[test]
fn a_zone_is_heeded() {
    assert_eq!(upcoming("0 9 * * *", "Europe/Berlin", "2026-01-01T12:00:00Z", 1), ["2026-01-02T08:00:00Z"]);
    assert_eq!(upcoming("0 9 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", 1), ["2026-07-02T07:00:00Z"]);
    assert_eq!(upcoming("0 9 * * *", "Asia/Kathmandu", "2026-07-01T12:00:00Z", 1), ["2026-07-02T03:15:00Z"]);
}

/// 2026-03-29: at 01:00Z clocks in Berlin go from 02:00 to 03:00.
#[test]
fn a_fixed_time_that_is_skipped_is_due_behind_the_gap() {
    let slots = upcoming("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
    assert_eq!(slots, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
}

#[test]
fn repeating_times_that_are_skipped_are_not_due() {
    let slots = upcoming("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 4);
    // Local 01:30, 03:00, 03:30, 04:00: half an hour apart in true time.
    assert_eq!(slots, ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:00:00Z"]);
    let slots = upcoming("30 2,4 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
    assert_eq!(slots, ["2026-03-29T02:30:00Z", "2026-03-30T00:30:00Z"]);
}

/// 2026-10-25: at 01:00Z clocks in Berlin go from 03:00 back to 02:00.
#[test]
fn a_fixed_time_that_comes_twice_is_due_once() {
    let slots = upcoming("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
    assert_eq!(slots, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    // Also when asked between the two.
    let slots = upcoming("30 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z", 1);
    assert_eq!(slots, ["2026-10-26T01:30:00Z"]);
}

#[test]
fn repeating_times_that_come_twice_are_due_twice() {
    let slots = upcoming("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 5);
    let wanted = [
        "2026-10-25T00:00:00Z",
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:00:00Z",
        "2026-10-25T01:30:00Z",
        "2026-10-26T01:00:00Z",
    ];
    assert_eq!(slots, wanted);
}

#[test]
fn leap_days_and_last_days() {
    let leap = upcoming("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 2);
    assert_eq!(leap, ["2104-02-29T00:00:00Z", "2108-02-29T00:00:00Z"]);
    let last = upcoming("0 0 L * *", "UTC", "2024-02-01T00:00:00Z", 2);
    assert_eq!(last, ["2024-02-29T00:00:00Z", "2024-03-31T00:00:00Z"]);
}

#[test]
fn a_day_that_a_zone_skipped_is_crossed() {
    // Apia had no 30th of December 2011: noon of the 29th, then of the 31st, 24 hours apart.
    let slots = upcoming("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3);
    assert_eq!(slots, ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z", "2011-12-31T22:00:00Z"]);
    let zone = schedule("0 12 * * *", "Pacific/Apia");
    let plan = zone.plan(ms("2011-12-28T00:00:00Z"), ms("2012-01-02T00:00:00Z"), CatchUp::All);
    let mut forward = zone.upcoming(ms("2011-12-28T00:00:00Z"), 50);
    forward.retain(|slot| *slot <= ms("2012-01-02T00:00:00Z"));
    assert_eq!(text(&plan.due), text(&forward));
}

fn plan(pattern: &str, after: &str, now: &str, catch_up: CatchUp) -> (Vec<String>, Plan) {
    let plan = schedule(pattern, "UTC").plan(ms(after), ms(now), catch_up);
    (text(&plan.due), plan)
}

#[test]
fn nothing_is_due_before_its_moment() {
    let (due, plan) = plan("0 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:59:59.999Z", CatchUp::All);
    assert!(due.is_empty());
    assert_eq!(plan.next_ms, Some(ms("2026-01-01T01:00:00Z")));
    assert_eq!(plan.through_ms, ms("2026-01-01T00:00:00Z"));
}

#[test]
fn a_slot_that_is_only_late_is_fired_whatever_the_policy() {
    for catch_up in [CatchUp::None, CatchUp::Last, CatchUp::All] {
        let (due, plan) = plan("0 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T01:01:00Z", catch_up);
        assert_eq!(due, ["2026-01-01T01:00:00Z"]);
        assert_eq!(plan.left_out, 0);
        assert_eq!(plan.through_ms, ms("2026-01-01T01:00:00Z"));
    }
}

#[test]
fn missed_slots_follow_the_policy() {
    let (after, now) = ("2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z");
    let (due, none) = plan("0 * * * *", after, now, CatchUp::None);
    assert!(due.is_empty());
    assert_eq!((none.left_out, none.through_ms), (3, ms("2026-01-01T03:00:00Z")));
    let (due, last) = plan("0 * * * *", after, now, CatchUp::Last);
    assert_eq!((due, last.left_out), (vec!["2026-01-01T03:00:00Z".to_owned()], 2));
    let (due, all) = plan("0 * * * *", after, now, CatchUp::All);
    assert_eq!(due, ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"]);
    assert_eq!(all.left_out, 0);
}

#[test]
fn last_is_satisfied_by_a_slot_that_is_not_missed() {
    let (due, plan) = plan("0 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T03:00:30Z", CatchUp::Last);
    assert_eq!((due, plan.left_out), (vec!["2026-01-01T03:00:00Z".to_owned()], 2));
}

#[test]
fn all_is_bounded_and_quick_whatever_was_missed() {
    let (due, plan) = plan("* * * * * *", "1971-01-01T00:00:00Z", "2026-01-01T00:00:00Z", CatchUp::All);
    assert_eq!(due.len(), limits::MAX_MISSED);
    assert_eq!(due.last().map(String::as_str), Some("2026-01-01T00:00:00Z"));
    assert!(plan.left_out > 0);
}

#[test]
fn a_clock_that_goes_back_repeats_nothing() {
    let (due, plan) = plan("0 * * * *", "2026-01-01T05:00:00Z", "2026-01-01T03:10:00Z", CatchUp::All);
    assert!(due.is_empty());
    assert_eq!(plan.next_ms, Some(ms("2026-01-01T06:00:00Z")));
}

const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Asia/Beirut",
];
const PATTERNS: [&str; 14] = [
    "*/5 * * * *",
    "30 2 * * *",
    "0 0 * * *",
    "15 1 * * *",
    "0 3 * * SUN",
    "0,30 1-3 * * *",
    "0 2 * * *",
    "*/7 2 * * *",
    "0 */6 * * *",
    "59 23 L * *",
    "30 0 * * 1#2",
    "0 12 15W * *",
    "*/40 59 * * * *",
    "0 30 2 * * *",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Slots only grow, and the plan finds by going back exactly those that going forward meets.
    #[test]
    fn plans_hold_what_the_calendar_holds(
        zone in prop::sample::select(&ZONES[..]),
        pattern in prop::sample::select(&PATTERNS[..]),
        random in 1_262_304_000_u64..1_893_456_000,
        before in 0_u64..200_000,
        length in 0_u64..400_000,
    ) {
        let schedule = schedule(pattern, zone);
        // Shortly before clocks change.
        let tz = jiff::tz::TimeZoneDatabase::bundled().get(zone).unwrap();
        let change = tz.following(Timestamp::from_second(random as i64).unwrap()).next();
        let start = change.map_or(random, |change| change.timestamp().as_second() as u64 - before);
        let (after, now) = (start * 1_000, (start + length) * 1_000);
        let mut forward = Vec::new();
        let mut at = after;
        while let Some(next) = schedule.next_after(at) {
            prop_assert!(next > at);
            at = next;
            if next > now { break }
            forward.push(next);
        }
        let plan = schedule.plan(after, now, CatchUp::All);
        let kept = forward.len().saturating_sub(limits::MAX_MISSED);
        prop_assert_eq!(text(&plan.due), text(&forward[kept..]));
        prop_assert_eq!(plan.next_ms, schedule.next_after(now));
    }

    /// However the time is cut into plans, each slot is in exactly one of them.
    #[test]
    fn plans_that_follow_each_other_share_no_slot_and_lose_none(
        zone in prop::sample::select(&ZONES[..]),
        pattern in prop::sample::select(&PATTERNS[..]),
        start in 1_262_304_000_u64..1_893_456_000,
        steps in prop::collection::vec(1_u64..50_000_000, 1..12),
    ) {
        let schedule = schedule(pattern, zone);
        let (mut through, mut now) = (start * 1_000, start * 1_000);
        let mut parts = Vec::new();
        for step in steps {
            now += step;
            let plan = schedule.plan(through, now, CatchUp::All);
            prop_assume!(plan.left_out == 0);
            through = plan.through_ms;
            parts.extend(plan.due);
        }
        let mut whole = schedule.upcoming(start * 1_000, parts.len() + 1);
        whole.retain(|slot| *slot <= now);
        prop_assert_eq!(text(&parts), text(&whole));
    }
}
