//! Moments, spans, and what is drawn from the seed.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::{Call, Function};
use crate::error::EvalError;
use crate::time::parse_duration;
use crate::value::Value;

pub(super) fn call(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match call.function {
        Function::Timestamp => timestamp(call),
        Function::Duration => match call.arg(0) {
            span @ Value::Duration(_) => Ok(span.clone()),
            Value::Text(text) => parse_duration(text)
                .map(Value::Duration)
                .map_err(|error| EvalError::wrong_type(call.at, format!("duration('{}'): {error}", shown(text)))),
            other => Err(call.misfit("text", other)),
        },
        Function::Now => {
            let ms = i64::try_from(call.scope.now_ms()).unwrap_or(i64::MAX);
            let now = Timestamp::from_millisecond(ms)
                .map_err(|_| EvalError::overflow(call.at, "the time is out of range"))?;
            Ok(Value::Timestamp(now))
        }
        // 53 bits, as many as a double holds.
        Function::Random => Ok(Value::Double((call.scope.draw() >> 11) as f64 / (1u64 << 53) as f64)),
        Function::Uuid => Ok(Value::from(uuid(call.scope.draw(), call.scope.draw()))),
        _ => part(call),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn timestamp(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match call.arg(0) {
        at @ Value::Timestamp(_) => Ok(at.clone()),
        Value::Int(seconds) => Timestamp::from_second(*seconds)
            .map(Value::Timestamp)
            .map_err(|_| EvalError::overflow(call.at, "the timestamp is out of range")),
        Value::Text(text) => text.parse().map(Value::Timestamp).map_err(|_| {
            let message =
                format!("timestamp('{}'): not a moment in RFC 3339, such as '2026-11-20T08:00:00Z'", shown(text));
            EvalError::wrong_type(call.at, message)
        }),
        other => Err(call.misfit("text or seconds since 1970", other)),
    }
}

/// A part of a moment in a zone (UTC when none is named), or of a span.
fn part(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let at = match call.arg(0) {
        Value::Timestamp(at) => *at,
        Value::Duration(span) if call.args.len() == 1 => {
            let number = match call.function {
                Function::Hours => span.as_secs() / 3600,
                Function::Minutes => span.as_secs() / 60,
                Function::Seconds => span.as_secs(),
                Function::Milliseconds => i64::from(span.subsec_millis()),
                _ => return Err(call.misfit("a timestamp", call.arg(0))),
            };
            return Ok(Value::Int(number));
        }
        other => return Err(call.misfit("a timestamp", other)),
    };
    let zone = if call.args.len() == 2 { zone(call, call.text(1)?)? } else { TimeZone::UTC };
    let at = at.to_zoned(zone);
    let number = match call.function {
        Function::FullYear => i64::from(at.year()),
        // Months, days of the month and of the year count from 0 as CEL has it; getDate counts from 1.
        Function::Month => i64::from(at.month()) - 1,
        Function::Date => i64::from(at.day()),
        Function::DayOfMonth => i64::from(at.day()) - 1,
        Function::DayOfYear => i64::from(at.day_of_year()) - 1,
        Function::DayOfWeek => i64::from(at.weekday().to_sunday_zero_offset()),
        Function::Hours => i64::from(at.hour()),
        Function::Minutes => i64::from(at.minute()),
        Function::Seconds => i64::from(at.second()),
        _ => i64::from(at.millisecond()),
    };
    Ok(Value::Int(number))
}

fn zone(call: &Call<'_, '_>, name: &str) -> Result<TimeZone, EvalError> {
    if let Some(offset) = offset(name) {
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(name).map_err(|_| EvalError::wrong_type(call.at, format!("'{}' is not a time zone", shown(name))))
}

/// `+02:00`, `-05:30`.
fn offset(text: &str) -> Option<Offset> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if !(0..=23).contains(&hours) || !(0..=59).contains(&minutes) {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// Version 4 in form; drawn from the seed, so the same evaluation gives the same one.
fn uuid(high: u64, low: u64) -> String {
    let bits = (u128::from(high) << 64) | u128::from(low);
    let bits = bits & !(0xf << 76) | (0x4 << 76);
    let bits = bits & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
