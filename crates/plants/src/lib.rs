//! Bugs on purpose, for tests that have to find them.
//!
//! Owns: which bugs there are. Where one is planted, code asks [`is`]; that is false, and compiled away, unless the
//! feature `planted` is on, as it is in tools that test.
//! Must not know: what a bug does.

#[cfg(feature = "planted")]
use std::sync::atomic::{AtomicU8, Ordering};

macro_rules! plants {
    ($($name:ident, $text:literal, $what:literal;)+) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Plant {
            $(#[doc = $what] $name,)+
        }

        impl Plant {
            /// All.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it does.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)+ }
            }
        }
    };
}

plants! {
    Forgets, "forgets", "a member that was killed comes back empty under its old number";
    Panics, "panics", "a task panics, and its process goes on";
    VoteNotSynced, "vote-not-synced", "a vote is answered before it is on disk";
    AckBeforeSync, "ack-before-sync", "a follower answers for entries that are not on disk";
    ReadIsApplied, "read-is-applied", "a scheduler that goes back begins where it had read to, not behind what was applied";
    KeyLookedUpEarly, "key-looked-up-early", "a key is looked up outside the log: two submissions at once do not see each other";
    StaleTokenAccepted, "stale-token-accepted", "a result counts whatever its token";
    LeaseByWallClock, "lease-by-wall-clock", "a worker measures its session by its wall clock";
    NoMargin, "no-margin", "a worker's session is not shortened by what clocks may drift";
    WindowOfOne, "window-of-one", "a worker drops a message only when it repeats the last one";
    NothingDropped, "nothing-dropped", "a worker takes what a superseded scheduler publishes once more";
    CancelAtDispatch, "cancel-at-dispatch", "a cancel is looked at only when a node would begin";
    UnorderedApply, "unordered-apply", "applying goes by the order of a hash map";
    TornTail, "torn-tail", "a log that is opened loses its last frame, as if it had not been synced";
    OnAfterFailedSync, "on-after-failed-sync", "a log goes on after a sync that failed";
    StaleRead, "stale-read", "a member answers reads without asking whether it leads";
    WatermarkTooFar, "watermark-too-far", "the watermark of an outbox is one too far";
    NoTimersInSnapshot, "no-timers-in-snapshot", "a snapshot has no timers";
    EpochNotChecked, "epoch-not-checked", "the epoch of a proposal is not compared";
    GapAccepted, "gap-accepted", "a proposal that begins behind a gap is taken";
    GivenAwayEarly, "given-away-early", "a task whose attempt lasts too long is given to another before its worker has stopped";
    NoQuorumForRenewals, "no-quorum-for-renewals", "renewals are answered without a quorum";
    JudgesAtOnce, "judges-at-once", "a new leader judges sessions at once";
    RegisterBeforeSeek, "register-before-seek", "a worker looks where its inbox ends after it has registered";
    OffersForgotten, "offers-forgotten", "what an owner was offered is not offered to the next one";
}

#[cfg(feature = "planted")]
static PLANTED: AtomicU8 = AtomicU8::new(u8::MAX);

/// Plants a bug in this process.
#[cfg(feature = "planted")]
pub fn plant(plant: Plant) {
    PLANTED.store(plant as u8, Ordering::Relaxed);
}

/// Whether a bug is planted.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(plant: Plant) -> bool {
    PLANTED.load(Ordering::Relaxed) == plant as u8
}

/// Whether a bug is planted: none is.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is(_: Plant) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::Plant;

    #[test]
    fn each_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Plant::ALL.len());
    }
}
