//! What facts about a cluster come to: plain functions, so that every finding can be provoked.

use std::collections::BTreeMap;

use nova_wire::v1;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and will not for ever, or not as well as it could.
    Warn,
    /// Something does not work, or what was promised is in danger.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub state: State,
    /// Which check.
    pub check: &'static str,
    /// Of what: a member, a topic, an api.
    pub subject: String,
    /// What was measured.
    pub found: String,
    /// What it should be.
    pub limit: String,
    /// What to do about it; empty when nothing is.
    pub advice: String,
}

/// From where on something is worth a warning.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A clock that is as far off the median, in milliseconds; ten times as much fails.
    pub skew_ms: u64,
    /// The median sync of the log, in milliseconds; ten times as much fails.
    pub sync_ms: u64,
    /// Free part of a disk, in percent; a quarter of it fails.
    pub free_percent: u64,
    /// Entries of the log that a member has not got within a second, or not applied.
    pub lag_entries: u64,
    /// Records of commands of one shard, and of events, that wait; ten times as many fail.
    pub lag_records: u64,
}

/// A reading of a member's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Its wall clock, less ours in the middle between question and answer, in milliseconds.
    pub offset_ms: i64,
    /// Between question and answer, in milliseconds.
    pub round_trip_ms: u64,
}

/// What is known of a member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where it was asked.
    pub address: String,
    /// Its number, if anybody told it.
    pub number: Option<u64>,
    /// What it said, or why it said nothing.
    pub first: Result<v1::DescribeResponse, String>,
    /// What it said a while later.
    pub later: Option<v1::DescribeResponse>,
    /// Its clock.
    pub clock: Option<Clock>,
}

impl Member {
    fn name(&self) -> String {
        match self.number {
            Some(number) => format!("member {number} at {}", self.address),
            None => self.address.clone(),
        }
    }

    fn answer(&self) -> Option<&v1::DescribeResponse> {
        self.first.as_ref().ok()
    }
}

/// How the history of an api follows the event topic.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where it is.
    pub url: String,
    /// Records behind, and seconds; or why it is not known.
    pub lag: Result<(u64, u64), String>,
}

/// What was found of a topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What is wrong, one sentence each; or why it is not known.
    pub problems: Result<Vec<String>, String>,
}

/// All that is known of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Members that were named, by us or by others.
    pub members: Vec<Member>,
    /// What the leader says of the shards.
    pub shards: Option<Result<Vec<v1::ShardView>, String>>,
    /// Workers, as the leader knows them.
    pub workers: Option<Vec<v1::WorkerView>>,
    /// Apis that were named.
    pub apis: Vec<Api>,
    /// Topics, where brokers were named.
    pub topics: Vec<Topic>,
}

/// An outbox above this many bytes of its 64 MiB is worth a warning; three quarters fail, for then submissions are refused.
const OUTBOX_BYTES: u64 = 16 << 20;
const OUTBOX_FULL: u64 = 48 << 20;
/// A sync that takes as long holds up more than an election, in milliseconds.
const LONGEST_SYNC_MS: u64 = 1_000;
/// Less free space than this is little on any disk.
const FREE_BYTES: u64 = 1 << 30;
/// Seconds that a history may be behind.
const HISTORY_AGE_S: u64 = 30;

struct Judge<'a> {
    facts: &'a Facts,
    limits: Limits,
    found: Vec<Finding>,
}

/// Judges all that is known.
#[must_use]
pub fn judge(facts: &Facts, limits: Limits) -> Vec<Finding> {
    let mut judge = Judge { facts, limits, found: Vec::new() };
    judge.reachable();
    judge.leader();
    judge.same_cluster();
    judge.versions();
    judge.recovered();
    judge.clocks();
    judge.syncs();
    judge.disks();
    judge.replication();
    judge.states();
    judge.shards();
    judge.workers();
    judge.histories();
    judge.topics();
    judge.found
}

/// Warns from the limit on, and fails from the other one on.
fn above(value: u64, warn: u64, fail: u64) -> State {
    match value {
        value if value >= fail => State::Fail,
        value if value >= warn => State::Warn,
        _ => State::Ok,
    }
}

impl Judge<'_> {
    fn say(
        &mut self,
        state: State,
        check: &'static str,
        subject: impl Into<String>,
        found: String,
        limit: &str,
        advice: &str,
    ) {
        let advice = if state == State::Ok { "" } else { advice };
        let (subject, limit, advice) = (subject.into(), limit.to_owned(), advice.to_owned());
        self.found.push(Finding { state, check, subject, found, limit, advice });
    }

    /// Those that answered.
    fn answers(&self) -> impl Iterator<Item = (&Member, &v1::DescribeResponse)> {
        self.facts.members.iter().filter_map(|member| Some((member, member.answer()?)))
    }

    /// The one that leads, as far as is known: of two that think so, the one of the later term.
    fn leads(&self) -> Option<(&Member, &v1::DescribeResponse)> {
        self.answers().filter(|(_, it)| it.leader == Some(it.member)).max_by_key(|(_, it)| it.term)
    }

    fn voters(&self) -> Vec<u64> {
        let newest = self.leads().or_else(|| self.answers().max_by_key(|(_, it)| it.committed));
        newest.map(|(_, it)| it.voters.clone()).unwrap_or_default()
    }

    fn reachable(&mut self) {
        let voters = self.voters();
        let answering = voters.iter().filter(|id| self.answers().any(|(_, it)| it.member == **id)).count();
        let majority = answering * 2 > voters.len();
        for member in &self.facts.members {
            let Err(why) = &member.first else {
                self.say(State::Ok, "reachable", member.name(), "it answers".into(), "it answers", "");
                continue;
            };
            let state = if majority { State::Warn } else { State::Fail };
            let advice = if majority {
                "start it; if it is lost with its disk: nova admin replace"
            } else {
                "start it: without a majority nothing is accepted; if the majority is lost for ever: nova admin recover"
            };
            self.say(state, "reachable", member.name(), why.clone(), "it answers", advice);
        }
        if self.facts.members.is_empty() {
            self.say(
                State::Fail,
                "reachable",
                "the coordinators",
                "none is named".into(),
                "one answers",
                "name them: --coordinator",
            );
        }
    }

    fn leader(&mut self) {
        let limit = "a member leads, and a majority follows it";
        let advice = "look for members that cannot be reached, slow disks and a network that is cut";
        let Some((leader, number)) = self.leads().map(|(it, answer)| (it.name(), answer.member)) else {
            return self.say(State::Fail, "leader", "the group", "nobody leads".into(), limit, advice);
        };
        let voters = self.voters();
        let follow = |id: &&u64| self.answers().any(|(_, it)| it.member == **id && it.leader == Some(number));
        let following = voters.iter().filter(follow).count();
        let state = if following * 2 > voters.len() { State::Ok } else { State::Warn };
        let found = format!("{leader} leads; {following} of {} voters say so", voters.len());
        self.say(state, "leader", "the group", found, limit, advice);
    }

    /// What must be equal for members to be of one group.
    fn same_cluster(&mut self) {
        let Some((_, leader)) = self.leads().or_else(|| self.answers().next()) else { return };
        let expected = (leader.cluster.clone(), leader.shards, leader.inboxes);
        let mut found = Vec::new();
        for (member, it) in self.answers() {
            let mut wrong = Vec::new();
            if it.cluster != expected.0 {
                wrong.push("another cluster".to_owned());
            }
            if it.shards != expected.1 {
                wrong.push(format!("{} shards instead of {}", it.shards, expected.1));
            }
            if it.inboxes != expected.2 {
                wrong.push(format!("{} inboxes instead of {}", it.inboxes, expected.2));
            }
            found.push((member.name(), wrong));
        }
        for (name, wrong) in found {
            let state = if wrong.is_empty() { State::Ok } else { State::Fail };
            let said = if wrong.is_empty() { "as the leader".into() } else { wrong.join(", ") };
            self.say(
                state,
                "settings",
                name,
                said,
                "cluster, shards and inboxes as the leader has them",
                "set them alike and restart the member",
            );
        }
    }

    fn versions(&mut self) {
        let mut builds: BTreeMap<(String, u32), Vec<u64>> = BTreeMap::new();
        for (_, it) in self.answers() {
            builds.entry((it.version.clone(), it.highest_level)).or_default().push(it.member);
        }
        let Some(level) = self.answers().map(|(_, it)| it.level).max() else { return };
        let build = |((version, highest), members): (&(String, u32), &Vec<u64>)| {
            let members: Vec<_> = members.iter().map(u64::to_string).collect();
            format!("{version} (knows level {highest}) on {}", members.join(", "))
        };
        let found: Vec<_> = builds.iter().map(build).collect();
        let state = if builds.len() > 1 { State::Warn } else { State::Ok };
        let raise = builds.len() == 1 && builds.keys().all(|(_, highest)| *highest > level);
        let more = if raise { ", and nova admin raise-level would raise it" } else { "" };
        let found = format!("{}; level {level} is in force{more}", found.join("; "));
        let advice = "finish the upgrade: members one after the other, each once the one before has caught up; then nova admin raise-level";
        self.say(state, "versions", "the group", found, "one build on all members", advice);
    }

    fn recovered(&mut self) {
        let warnings: Vec<_> = self
            .answers()
            .filter(|(_, it)| !it.unsafe_recovery.is_empty())
            .map(|(member, it)| (member.name(), it.unsafe_recovery.clone()))
            .collect();
        for (name, path) in warnings {
            let found = "the group was recovered without a majority, and nobody has taken notice".to_owned();
            let advice = format!("find out what was lost (docs/operations.md), then remove {path} there");
            self.say(State::Warn, "recovered", name, found, "nothing was lost, or somebody knows", &advice);
        }
    }

    fn clocks(&mut self) {
        let read: Vec<_> = self.facts.members.iter().filter_map(|it| Some((it.name(), it.clock?))).collect();
        let mut offsets: Vec<_> = read.iter().map(|(_, clock)| clock.offset_ms).collect();
        offsets.sort_unstable();
        let (Some(low), Some(high)) =
            (offsets.get(offsets.len().saturating_sub(1) / 2), offsets.get(offsets.len() / 2))
        else {
            return;
        };
        // Of two clocks nobody knows which is right: both are as far off.
        let median = (low + high) / 2;
        let of_two = if read.len() == 2 { 2 } else { 1 };
        let limit_ms = self.limits.skew_ms;
        for (name, clock) in read {
            let off = (clock.offset_ms - median) * of_two;
            // What the way there and back may account for is not held against it.
            let certain = off.unsigned_abs().saturating_sub(clock.round_trip_ms / 2);
            let state = above(certain, limit_ms, limit_ms * 10);
            let found = format!("{off:+} ms off the median, ± {} ms", clock.round_trip_ms.div_ceil(2));
            let limit = format!("below {limit_ms} ms; {} ms fail", limit_ms * 10);
            let advice = "set its clock right and keep it so (chrony, systemd-timesyncd): timers fire by the median of the members";
            self.say(state, "clock", name, found, &limit, advice);
        }
    }

    fn syncs(&mut self) {
        let warn = self.limits.sync_ms;
        let syncs: Vec<_> =
            self.answers().map(|(member, it)| (member.name(), it.sync_median_us, it.sync_longest_us)).collect();
        for (name, median_us, longest_us) in syncs {
            let state = above(median_us, warn * 1_000, warn * 10_000);
            let state = state.max(above(longest_us, LONGEST_SYNC_MS * 1_000, u64::MAX));
            let ms = |us: u64| us as f64 / 1_000.0;
            let found = format!("median {:.1} ms, longest {:.1} ms of its last syncs", ms(median_us), ms(longest_us));
            let limit = format!(
                "median below {warn} ms, longest below {LONGEST_SYNC_MS} ms; a median of {} ms fails",
                warn * 10
            );
            let advice = "every answer waits for a majority's syncs: give the log a disk of its own, with power-loss protection, and look who else writes there";
            self.say(state, "fsync", name, found, &limit, advice);
        }
    }

    fn disks(&mut self) {
        let percent = self.limits.free_percent;
        let disks: Vec<_> = self
            .answers()
            .filter(|(_, it)| it.disk_total_bytes > 0)
            .map(|(member, it)| (member.name(), it.disk_free_bytes, it.disk_total_bytes))
            .collect();
        for (name, free, total) in disks {
            let part = (u128::from(free) * 100 / u128::from(total)) as u64;
            let below = |percent: u64, bytes: u64| part < percent || free < bytes.min(total / 2);
            let state = if below(percent.div_ceil(4), FREE_BYTES / 4) {
                State::Fail
            } else if below(percent, FREE_BYTES) {
                State::Warn
            } else {
                State::Ok
            };
            let found = format!("{} MiB free of {} MiB, {part} %", free >> 20, total >> 20);
            let limit = format!("at least {percent} % and {} MiB free; a quarter of it fails", FREE_BYTES >> 20);
            let advice = "make room: a member whose log cannot grow stops; snapshots need room for two of them";
            self.say(state, "disk", name, found, &limit, advice);
        }
    }

    fn replication(&mut self) {
        let Some((_, leader)) = self.leads() else { return };
        let (number, goal) = (leader.member, leader.committed);
        let limit_entries = self.limits.lag_entries;
        let mut lags = Vec::new();
        for (member, before) in self.answers() {
            // What the leader had committed then, it should have by now.
            let now = member.later.as_ref().unwrap_or(before);
            lags.push((
                member.name(),
                before.member == number,
                goal.saturating_sub(now.last),
                now.committed.min(now.last).saturating_sub(now.applied),
                now.last > before.last,
            ));
        }
        for (name, leads, behind, unapplied, moves) in lags {
            if !leads {
                let stuck = behind > 0 && !moves;
                let state = if stuck { State::Fail } else { above(behind, limit_entries, u64::MAX) };
                let found = format!(
                    "{behind} entries of a while ago are missing{}",
                    if stuck { ", and none comes" } else { "" }
                );
                let limit = format!("below {limit_entries} entries");
                let advice = "look at its network and its disk; one that stays behind is no help when another fails";
                self.say(state, "replication", name.clone(), found, &limit, advice);
            }
            let state = above(unapplied, limit_entries.max(1), u64::MAX);
            let limit = format!("below {limit_entries} entries");
            let advice = "it has more to apply than it can: look at its processors";
            self.say(state, "apply", name, format!("{unapplied} committed entries are not applied"), &limit, advice);
        }
    }

    /// Members that have applied the same must have the same.
    fn states(&mut self) {
        // What the hash is of may be another thing in another build.
        let mut hashes: BTreeMap<(u64, String), BTreeMap<u64, Vec<u64>>> = BTreeMap::new();
        for (_, it) in self.answers().filter(|(_, it)| it.state_hash != 0) {
            let key = (it.state_index, it.version.clone());
            hashes.entry(key).or_default().entry(it.state_hash).or_default().push(it.member);
        }
        for ((index, _), hashes) in hashes.into_iter().filter(|(_, hashes)| hashes.len() > 1) {
            let all: Vec<_> = hashes.iter().map(|(hash, members)| format!("{hash:016x} on {members:?}")).collect();
            let advice = "stop what is not in the majority, keep its directory for the developers, and replace it: nova admin replace";
            let found = format!("after entry {index}: {}", all.join(", "));
            self.say(State::Fail, "state", "the group", found, "equal states after equal entries", advice);
        }
    }

    fn shards(&mut self) {
        let views = match &self.facts.shards {
            None => return,
            Some(Err(why)) => {
                let why = why.clone();
                return self.say(
                    State::Fail,
                    "shards",
                    "the leader",
                    why,
                    "it answers",
                    "a leader without a majority cannot read",
                );
            }
            Some(Ok(views)) => views,
        };
        let ownerless: Vec<_> = views
            .iter()
            .filter(|it| it.position.as_ref().is_none_or(|position| position.owner.is_none()))
            .map(|it| it.shard.to_string())
            .collect();
        let lag = views.iter().map(|it| (it.read_lag, it.shard)).max().unwrap_or_default();
        let outbox = views.iter().map(|it| (it.outbox_bytes, it.shard)).max().unwrap_or_default();
        let waiting: u64 =
            views.iter().filter_map(|it| it.position.as_ref()).map(|it| it.outbox_last - it.outbox_acked).sum();
        let state = if ownerless.is_empty() { State::Ok } else { State::Fail };
        let found = if ownerless.is_empty() {
            "each has an owner".into()
        } else {
            format!("shards {} have none", ownerless.join(", "))
        };
        self.say(
            state,
            "shards",
            "schedulers",
            found,
            "each shard has an owner",
            "start a scheduler, and look whether it reaches coordinators and brokers",
        );
        let limit = self.limits.lag_records;
        let found = format!("{} records wait in shard {}, the most of all", lag.0, lag.1);
        let text = format!("below {limit} records; {} fail", limit * 10);
        self.say(
            above(lag.0, limit, limit * 10),
            "commands",
            "schedulers",
            found,
            &text,
            "start more schedulers; at 20,000 unread records submissions are refused",
        );
        let found =
            format!("{waiting} messages wait in all; the fullest has {} KiB, shard {}", outbox.0 >> 10, outbox.1);
        let text = format!("below {} MiB; {} MiB fail", OUTBOX_BYTES >> 20, OUTBOX_FULL >> 20);
        self.say(
            above(outbox.0, OUTBOX_BYTES, OUTBOX_FULL),
            "outbox",
            "schedulers",
            found,
            &text,
            "the bus takes messages more slowly than they come: look at brokers and schedulers",
        );
    }

    fn workers(&mut self) {
        let Some(workers) = &self.facts.workers else { return };
        let open = workers.iter().filter(|it| it.session.is_some());
        let (mut count, mut slots, mut leases, mut draining) = (0, 0_u64, 0_u64, 0);
        for worker in open {
            count += 1;
            slots += u64::from(worker.capacity);
            leases += u64::from(worker.leases);
            draining += u32::from(worker.draining);
        }
        let state = if count > draining { State::Ok } else { State::Warn };
        let found = format!("{count} are connected, {draining} of them draining; {leases} of {slots} slots are used");
        self.say(
            state,
            "workers",
            "workers",
            found,
            "one that takes work",
            "start workers, or take a drain back: nova worker drain NAME --undo",
        );
    }

    fn histories(&mut self) {
        let limit = self.limits.lag_records;
        for Api { url, lag } in self.facts.apis.clone() {
            let (state, found) = match lag {
                Err(why) => (State::Fail, why),
                Ok((records, age)) => {
                    let state = above(records, limit, limit * 10).max(above(age, HISTORY_AGE_S, u64::MAX));
                    (state, format!("{records} records of events behind, complete {age} s ago"))
                }
            };
            let text = format!("below {limit} records and {HISTORY_AGE_S} s");
            self.say(
                state,
                "events",
                url,
                found,
                &text,
                "lists and results are as old as that: look at its disk and its brokers",
            );
        }
    }

    fn topics(&mut self) {
        for Topic { name, problems } in self.facts.topics.clone() {
            let (state, found) = match problems {
                Err(why) => (State::Fail, why),
                Ok(problems) if problems.is_empty() => (State::Ok, "as it should be".into()),
                Ok(problems) => (State::Fail, problems.join("; ")),
            };
            let advice = "wrong settings lose or reorder records (docs/reference/topics.md): set them right on the brokers; nova admin topics makes those that are missing";
            self.say(state, "topics", name, found, "as nova admin topics makes it", advice);
        }
    }
}

/// The worst of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|it| it.state).max().unwrap_or(State::Ok)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
