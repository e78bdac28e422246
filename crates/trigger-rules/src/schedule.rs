//! When a schedule is due.
//!
//! Slots are whole seconds. Where clocks are put forward or back, two kinds of schedules are told apart:
//!
//! * *fixed*: second, minute and hour are each one number. A time that is skipped is due at the first moment after the
//!   gap; a time that comes twice is due the first time only. So a daily job runs once a day.
//! * *repeating*: any other. Times that are skipped are not due; times that come twice are due twice. So a job of every
//!   ten minutes runs every ten minutes.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::limits;
use crate::spec::CatchUp;

/// Beyond this a search that fails is not in the gap of a skipped day.
const WIDEST_GAP_HOURS: u32 = 50;

/// A cron pattern in a time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    pattern: String,
    timezone: String,
    cron: Cron,
    zone: TimeZone,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.timezone == other.timezone
    }
}

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScheduleError {
    BadPattern(String),
    NeverDue,
    UnknownTimezone(String),
}

impl std::fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadPattern(why) => write!(f, "schedule is no cron pattern: {why}"),
            Self::NeverDue => {
                write!(f, "schedule is a pattern that no day of {} years fits", limits::MAX_YEARS_BETWEEN)
            }
            Self::UnknownTimezone(name) => {
                write!(f, "no time zone is called {name:?}; names are those of the IANA database, as Europe/Berlin")
            }
        }
    }
}

/// A slot as RFC 3339 in UTC.
#[must_use]
pub fn time_of(slot_ms: u64) -> String {
    let time = i64::try_from(slot_ms).ok().and_then(|slot| Timestamp::from_millisecond(slot).ok());
    time.unwrap_or(Timestamp::MAX).to_string()
}

/// What is to be done at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Slots to be fired now, in order.
    pub due: Vec<u64>,
    /// Everything up to here is decided: fired by `due` or left out. The next plan begins behind it.
    pub through_ms: u64,
    /// Missed slots that are left out. They are counted up to [`limits::MAX_MISSED`] only.
    pub left_out: usize,
    /// The first slot after now; none when the calendar ends.
    pub next_ms: Option<u64>,
}

impl Schedule {
    /// Reads a pattern of five fields, or six with seconds first, and a zone of the IANA database.
    pub(crate) fn new(pattern: &str, timezone: &str) -> Result<Self, ScheduleError> {
        let zone = TimeZoneDatabase::bundled().get(timezone);
        let zone = zone.map_err(|_| ScheduleError::UnknownTimezone(timezone.chars().take(64).collect()))?;
        if pattern.len() > limits::MAX_SCHEDULE {
            return Err(ScheduleError::BadPattern(format!("more than {} bytes", limits::MAX_SCHEDULE)));
        }
        // A year would let a schedule end; a trigger that is over is deleted instead.
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(pattern).map_err(|error| ScheduleError::BadPattern(error.to_string()))?;
        let schedule = Self { pattern: pattern.to_owned(), timezone: timezone.to_owned(), cron, zone };
        // The calendar repeats, so a pattern that is not due in these years never is. Without a zone: no gap hides a slot.
        let start = DateTime::constant(2000, 1, 1, 0, 0, 0, 0);
        match schedule.cron.find_next_occurrence(&start, true) {
            Ok(slot) if slot.year() <= start.year() + limits::MAX_YEARS_BETWEEN => Ok(schedule),
            _ => Err(ScheduleError::NeverDue),
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The name of the zone.
    #[must_use]
    pub fn timezone(&self) -> &str {
        &self.timezone
    }

    fn zoned(&self, at_ms: u64) -> Option<Zoned> {
        let seconds = i64::try_from(at_ms / 1_000).ok()?;
        Some(Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone()))
    }

    /// The first slot after a moment; none when the calendar ends.
    #[must_use]
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        let mut from = self.zoned(after_ms)?;
        // Zones that moved across the date line skipped a whole day, which is a wider gap than the search crosses; it
        // goes on behind it.
        for _ in 0..WIDEST_GAP_HOURS {
            match self.cron.find_next_occurrence(&from, false) {
                Ok(slot) => return u64::try_from(slot.timestamp().as_millisecond()).ok(),
                Err(_) => from = from.checked_add(SignedDuration::from_hours(1)).ok()?,
            }
        }
        None
    }

    /// The first `count` slots after a moment.
    #[must_use]
    pub fn upcoming(&self, after_ms: u64, count: usize) -> Vec<u64> {
        std::iter::successors(self.next_after(after_ms), |slot| self.next_after(*slot)).take(count).collect()
    }
}

impl Schedule {
    /// The slot before a moment, or at it.
    fn at_or_before(&self, at_ms: u64) -> Option<u64> {
        let mut from = self.zoned(at_ms)?;
        for _ in 0..WIDEST_GAP_HOURS {
            match self.cron.find_previous_occurrence(&from, true) {
                Ok(slot) => return u64::try_from(slot.timestamp().as_millisecond()).ok(),
                Err(_) => from = from.checked_sub(SignedDuration::from_hours(1)).ok()?,
            }
        }
        None
    }

    /// The newest slots in `(after, now]`, oldest first, at most `count`.
    fn newest(&self, after_ms: u64, now_ms: u64, count: usize) -> Vec<u64> {
        // Backwards, since a schedule of seconds may have missed millions.
        let before = |slot: &u64| self.at_or_before(slot.checked_sub(1_000)?);
        let slots = std::iter::successors(self.at_or_before(now_ms), before);
        let mut slots: Vec<u64> = slots.take_while(|slot| *slot > after_ms).take(count).collect();
        slots.reverse();
        slots
    }

    /// What is to be done now by a trigger whose last decided moment is `after_ms`. Slots are given once their moment
    /// has come, never earlier.
    #[must_use]
    pub fn plan(&self, after_ms: u64, now_ms: u64, catch_up: CatchUp) -> Plan {
        // A clock that went back must not make a slot come again.
        let now_ms = now_ms.max(after_ms);
        // One more, to see whether more were missed than can be made up for.
        let mut slots = self.newest(after_ms, now_ms, limits::MAX_MISSED + 1);
        let through_ms = slots.last().copied().unwrap_or(after_ms);
        let late = slots.partition_point(|slot| slot.saturating_add(limits::LATE_MS) < now_ms);
        let keep_from = match catch_up {
            CatchUp::None => late,
            CatchUp::Last if late == slots.len() => late.saturating_sub(1),
            CatchUp::Last => late,
            CatchUp::All => slots.len().saturating_sub(limits::MAX_MISSED),
        };
        let due = slots.split_off(keep_from);
        Plan { due, through_ms, left_out: slots.len(), next_ms: self.next_after(now_ms) }
    }
}
