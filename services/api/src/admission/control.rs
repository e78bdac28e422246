//! How many submissions may be under way, told by how long answers take: numbers in, yes or no out.
//!
//! ```text
//!        answers take longer than the target, several looks in a row
//! open ────────────────────────────────────────────────────────────▶ limited ⟲ each look: limit × target / time taken
//!   ▲                                                                   │
//!   └────────── for a while nobody was refused and answers were quick ──┘
//! ```
//!
//! What is limited is what is not done yet, never a rate: by Little's law a limit of *rate × target* is the rate that the
//! cluster has just now, whatever that is, and answers that take as long as the target. It knows no clock: time is given.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the answers of the last while are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Looks in a row with slow answers until there is a limit: one stalled sync is no overload.
const SLOW_LOOKS: u32 = 3;
/// Looks in a row without a refusal and with quick answers until there is none any more.
const CALM_LOOKS: u32 = 20;
/// The least that may be under way. Where refusals alone keep all cores busy, answers are slow however few are under way;
/// to take ever less would only add refusals.
const LEAST: f64 = 256.0;
/// A cluster that takes so many times what it took when it was calm is slow.
const CALM_TIMES: u32 = 3;
/// How far what counts as calm may rise with one look: a cluster that became slower for good is known after minutes.
const CALM_RISES: f64 = 1.002;
/// How much a limit moves in one look.
const SMALLER: f64 = 0.7;
const LARGER: f64 = 1.1;
/// Weight of the newest look in a rate.
const NEWEST: f64 = 0.3;
/// A namespace that asked within this time counts when shares are made.
const ACTIVE: Duration = Duration::from_secs(1);
/// Longest time that somebody is sent away for: a recovered cluster must not stand idle until they come back.
const LONGEST_S: f64 = 10.0;
/// Refusals per second that need not wait for their turn. More must, one for each decision: what they cost is taken from
/// the work, and who waits for an answer asks nothing else on that connection.
const QUICK_REFUSALS: f64 = 1_000.0;
/// Longest wait of a refusal.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

/// What is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Answers that take no longer than this are quick, however quick they were before.
    pub quick: Duration,
    /// The most that may be under way, limited or not: what an api holds in memory while the cluster stands still.
    pub most: usize,
}

/// Why a submission is refused, and when to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Whole seconds, as HTTP wants it; at least 1.
    pub retry_after_s: u64,
}

#[derive(Debug)]
struct Tenant {
    in_flight: usize,
    asked_at: Instant,
    /// Submissions since the last look, refused or not.
    asked: u32,
    /// What it would have under way if answers took as long as the target.
    wants: f64,
}

/// What happened since the last look.
#[derive(Debug, Default)]
struct Seen {
    decided: u32,
    taken: Duration,
    refused: u32,
}

/// The controller.
#[derive(Debug)]
pub(crate) struct Control {
    limits: Limits,
    /// What answers took when the cluster was calm; none: nothing was decided yet.
    calm: Option<Duration>,
    limit: Option<f64>,
    in_flight: usize,
    tenants: BTreeMap<Box<str>, Tenant>,
    /// What each of them may have under way: see [`level`].
    level: f64,
    seen: Seen,
    looked_at: Instant,
    /// Looks in a row that speak for a change.
    streak: u32,
    /// Decided and refused per second.
    rate: f64,
    refused_rate: f64,
    refusals: u64,
    /// When the next refusal may be told.
    turn: Instant,
    /// What answers took in the last look that had any.
    taken: Duration,
}

impl Control {
    /// Without a limit.
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            calm: None,
            limit: None,
            in_flight: 0,
            tenants: BTreeMap::new(),
            level: f64::INFINITY,
            seen: Seen::default(),
            looked_at: now,
            streak: 0,
            rate: 0.0,
            refused_rate: 0.0,
            refusals: 0,
            turn: now,
            taken: Duration::ZERO,
        }
    }

    /// The limit; none: answers are quick.
    pub(crate) fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// Whether somebody may be refused now.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.is_some() || self.in_flight >= self.limits.most
    }

    /// What answers took in the last look that had any.
    pub(crate) fn taken(&self) -> Duration {
        self.taken
    }

    /// Whether a submission of the namespace would be refused; nothing is taken yet.
    pub(crate) fn knock(&mut self, namespace: &str, now: Instant) -> Result<(), Refusal> {
        self.look(now);
        if !self.is_full_for(namespace) {
            return Ok(());
        }
        self.seen.refused += 1;
        // One that it does not know has nothing under way, and is refused only where all are.
        if let Some(tenant) = self.tenants.get_mut(namespace) {
            tenant.asked(now);
        }
        Err(self.refusal())
    }

    /// Takes a submission, which counts until it has [`ended`](Self::ended).
    pub(crate) fn admit(&mut self, namespace: &str, now: Instant) -> Result<(), Refusal> {
        self.knock(namespace, now)?;
        self.in_flight += 1;
        if let Some(tenant) = self.tenants.get_mut(namespace) {
            tenant.in_flight += 1;
            tenant.asked(now);
        } else {
            self.tenants.insert(namespace.into(), Tenant { in_flight: 1, asked_at: now, asked: 1, wants: 0.0 });
        }
        Ok(())
    }

    /// A submission was decided after this time; none: it was given up.
    pub(crate) fn ended(&mut self, namespace: &str, taken: Option<Duration>, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(tenant) = self.tenants.get_mut(namespace) {
            tenant.in_flight = tenant.in_flight.saturating_sub(1);
        }
        if let Some(taken) = taken {
            self.seen.decided += 1;
            self.seen.taken += taken;
        }
        self.look(now);
    }

    fn is_full_for(&self, namespace: &str) -> bool {
        let own = self.tenants.get(namespace).map_or(0, |tenant| tenant.in_flight);
        match self.limit {
            Some(_) => own as f64 >= self.level || self.in_flight >= 2 * self.limits.most,
            // Nothing is slow that is known, and yet there is no end of it: all may stand still.
            None => self.in_flight >= self.limits.most && own >= self.limits.most / (self.tenants.len() + 1),
        }
    }

    /// All who are refused come again. They are told times over which the cluster can take them, one after the other, so
    /// that they do not come as one wave: `refused / decided` seconds for each second of refusals, and what is under way.
    fn refusal(&mut self) -> Refusal {
        let rate = self.rate.max(1.0);
        let refused = self.refused_rate.max(f64::from(self.seen.refused));
        let seconds = (self.in_flight as f64 / rate + refused / rate).ceil().clamp(1.0, LONGEST_S) as u64;
        self.refusals += 1;
        Refusal { retry_after_s: 1 + self.refusals % seconds }
    }

    /// When somebody who is refused is to be told: at once, or when it is his turn, which is taken by that. Who only looks
    /// whether there is room takes none.
    pub(crate) fn turn(&mut self, now: Instant) -> Instant {
        let at = self.turn.clamp(now, now + REFUSED_WITHIN);
        self.turn = at + Duration::from_secs_f64(1.0 / self.rate.max(QUICK_REFUSALS));
        at
    }

    /// Looks at the answers, if it is time to.
    pub(crate) fn look(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.looked_at);
        if passed < LOOK {
            return;
        }
        let seen = std::mem::take(&mut self.seen);
        self.looked_at = now;
        self.tenants.retain(|_, it| it.in_flight > 0 || now.saturating_duration_since(it.asked_at) < ACTIVE);
        let target = self.target().as_secs_f64();
        for tenant in self.tenants.values_mut() {
            let wants = f64::from(std::mem::take(&mut tenant.asked)) / passed.as_secs_f64() * target;
            tenant.wants += NEWEST * (wants - tenant.wants);
        }
        let per_second = |count: u32| f64::from(count) / passed.as_secs_f64();
        self.refused_rate += NEWEST * (per_second(seen.refused) - self.refused_rate);
        if seen.decided == 0 {
            // While all stands still nothing is learned. Idle, there is nothing to limit.
            self.streak = if self.in_flight == 0 && self.limit.is_some() { self.streak + 1 } else { 0 };
        } else {
            self.rate = match self.rate {
                none if none <= 0.0 => per_second(seen.decided),
                before => before + NEWEST * (per_second(seen.decided) - before),
            };
            self.taken = seen.taken / seen.decided;
            self.adapt(seen.refused > 0);
        }
        if self.limit.is_some() && self.streak >= CALM_LOOKS {
            (self.limit, self.streak) = (None, 0);
        }
        if let Some(limit) = self.limit {
            self.level = level(limit, self.tenants.values().map(|it| it.wants.max(it.in_flight as f64)).collect());
        }
    }

    /// What answers may take.
    pub(crate) fn target(&self) -> Duration {
        self.limits.quick.max(self.calm.unwrap_or_default() * CALM_TIMES)
    }

    fn adapt(&mut self, refused: bool) {
        let (target, most) = (self.target(), (self.limits.most as f64).max(LEAST));
        let slow = self.taken > target;
        let Some(limit) = self.limit else {
            // Under a limit they take as long as they are let to, which says nothing.
            let calm = self.calm.map_or(self.taken, |calm| calm.mul_f64(CALM_RISES).min(self.taken));
            self.calm = Some(calm);
            self.streak = if slow { self.streak + 1 } else { 0 };
            if self.streak >= SLOW_LOOKS {
                let wanted = 2.0 * self.rate * target.as_secs_f64();
                self.limit = Some(wanted.min(self.in_flight as f64).clamp(LEAST, most));
                self.streak = 0;
            }
            return;
        };
        let factor = (target.as_secs_f64() / self.taken.as_secs_f64().max(1e-6)).clamp(SMALLER, LARGER);
        if factor < 1.0 || refused {
            self.limit = Some((limit * factor).clamp(LEAST, most));
        }
        self.streak = if slow || refused { 0 } else { self.streak + 1 };
    }
}

impl Tenant {
    fn asked(&mut self, now: Instant) {
        self.asked += 1;
        self.asked_at = now;
    }
}

/// Max-min fairness: the height to which each may fill up so that all together come to the limit. Who wants less than
/// that gets all of it, and what it leaves is for the others.
fn level(limit: f64, mut wants: Vec<f64>) -> f64 {
    wants.sort_unstable_by(f64::total_cmp);
    let mut left = limit;
    for (index, wanted) in wants.iter().enumerate() {
        let even = left / (wants.len() - index) as f64;
        if *wanted >= even {
            return even.max(1.0);
        }
        left -= wanted;
    }
    // All have what they want, and who wants more may have the rest too.
    left + wants.last().copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
