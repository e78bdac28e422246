//! Spans of time as text.

use jiff::{SignedDuration, Timestamp};

/// Why a text is not a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// It does not look like one.
    #[error("not a duration: write numbers with units, such as '500ms', '10s', '1h30m' or '7d'")]
    Form,
    /// It is out of range.
    #[error("the duration is out of range")]
    Range,
}

const UNITS: [(&str, i128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
];

/// Reads a span such as `-1h30m`, `90s`, `1.5s`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<SignedDuration, TimeError> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return Err(TimeError::Form);
    }
    let mut nanos = 0i128;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or(TimeError::Form)?;
        let (number, after) = rest.split_at(len);
        let (unit, scale) = UNITS.iter().find(|(unit, _)| after.starts_with(unit)).ok_or(TimeError::Form)?;
        nanos = nanos.checked_add(scaled(number, *scale)?).ok_or(TimeError::Range)?;
        rest = &after[unit.len()..];
    }
    let nanos = if negative { -nanos } else { nanos };
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| TimeError::Range)?;
    // Far beyond any timeout, and small enough that sums of two never overflow.
    if seconds.unsigned_abs() > 400_000_000_000 {
        return Err(TimeError::Range);
    }
    Ok(SignedDuration::new(seconds, nanos.rem_euclid(1_000_000_000) as i32))
}

fn scaled(number: &str, scale: i128) -> Result<i128, TimeError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.contains('.') {
        return Err(TimeError::Form);
    }
    if whole.len() > 18 || fraction.len() > 9 {
        return Err(TimeError::Range);
    }
    let whole: i128 = whole.parse().map_err(|_| TimeError::Form)?;
    let mut value = whole.checked_mul(scale).ok_or(TimeError::Range)?;
    if !fraction.is_empty() {
        let digits: i128 = fraction.parse().map_err(|_| TimeError::Form)?;
        value += digits * scale / 10i128.pow(fraction.len() as u32);
    }
    Ok(value)
}

/// Reads a span of whole milliseconds that is not negative: `500ms`, `10s`, `1h30m`, `7d`.
///
/// # Errors
/// When the text is no span, is negative, or is finer than a millisecond.
pub fn parse_duration_ms(text: &str) -> Result<u64, TimeError> {
    let span = parse_duration(text)?;
    if span.is_negative() || span.subsec_nanos() % 1_000_000 != 0 {
        return Err(TimeError::Range);
    }
    u64::try_from(span.as_millis()).map_err(|_| TimeError::Range)
}

/// Writes a span in seconds: `90s`, `1.5s`.
#[must_use]
pub fn duration_to_text(span: SignedDuration) -> String {
    let nanos = span.as_nanos();
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// Reads a moment in RFC 3339, or in local time when a zone is given, as milliseconds since 1970.
///
/// # Errors
/// With a sentence for people.
pub fn moment_to_ms(text: &str, zone: Option<&str>) -> Result<u64, String> {
    let at = match zone {
        None => text.parse::<Timestamp>().map_err(|_| {
            format!("'{text}' is not a moment in RFC 3339, such as '2026-11-20T08:00:00Z'; for local time give a zone")
        })?,
        Some(zone) => {
            let local: jiff::civil::DateTime =
                text.parse().map_err(|_| format!("'{text}' is not a local time, such as '2026-11-20T08:00:00'"))?;
            // A local time that does not exist or exists twice is taken as the calendar standard says: the gap is
            // jumped, the first of two is meant.
            local
                .in_tz(zone)
                .map_err(|_| format!("'{zone}' is not a time zone, or the time is out of range"))?
                .timestamp()
        }
    };
    u64::try_from(at.as_millisecond()).map_err(|_| format!("'{text}' lies before 1970"))
}

/// Writes a moment, given in milliseconds since 1970, in RFC 3339; none when it is out of range.
#[must_use]
pub fn moment_to_text(ms: u64) -> Option<String> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok().map(|at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::{TimeError, duration_to_text, moment_to_ms, parse_duration, parse_duration_ms};

    #[test]
    fn spans_are_read_and_written() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("1.5s", 1_500)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        let again = duration_to_text(parse_duration("-1h0.25s").expect("a span"));
        assert_eq!(again, "-3600.25s");
        assert_eq!(duration_to_text(parse_duration("90s").expect("a span")), "90s");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", "10", "s", "1.s", ".5s", "1..5s", "1e20s", "1 s", "10sec", "-1s"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration_ms("999999999999999999d"), Err(TimeError::Range));
    }

    #[test]
    fn moments_need_a_zone_of_their_own_or_a_given_one() {
        assert_eq!(moment_to_ms("1970-01-01T00:00:01Z", None), Ok(1_000));
        assert_eq!(moment_to_ms("1970-01-01T00:00:01+00:00", None), Ok(1_000));
        assert!(moment_to_ms("1970-01-01T00:00:01", None).is_err());
        assert!(moment_to_ms("1969-12-31T23:59:59Z", None).is_err());
        assert_eq!(moment_to_ms("1970-01-01T00:00:01", Some("UTC")), Ok(1_000));
    }
}
