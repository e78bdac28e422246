//! Single values: words, numbers, spans of time, policies.

use nova_expression::{TimeError, parse_duration_ms};
use nova_program::{Backoff, Jitter, Retry, Timeouts};

use super::Reader;
use crate::limits;
use crate::problem::codes;
use crate::report::did_you_mean;
use crate::syntax::Word;
use crate::tree::{Kind, Spot, Tree};
use crate::words;

/// Which limits in time a node may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutForm {
    /// A worker runs it: `queue`, `attempt`, `total`.
    Work,
    /// Anything else: `total`.
    Total,
}

impl Reader<'_> {
    pub(crate) fn word<'t>(&mut self, tree: &'t Tree, what: &str) -> Option<Word<'t>> {
        match &tree.kind {
            Kind::Text(text) => Some(Word { text: &text.value, at: tree.at }),
            _ => {
                self.wrong(tree, what, "text");
                None
            }
        }
    }

    /// Text without `${ }`, for what must be fixed when the document is saved.
    pub(crate) fn fixed_word<'t>(&mut self, tree: &'t Tree, what: &str) -> Option<Word<'t>> {
        let word = self.word(tree, what)?;
        if word.text.contains("${") {
            let message = format!("{what} must be fixed: there may be no '${{ }}' in it");
            self.report.error(codes::WRONG_TYPE, tree.at, message);
            return None;
        }
        Some(word)
    }

    /// An id of a node or a name of a case.
    pub(crate) fn id<'t>(&mut self, tree: &'t Tree, what: &str) -> Option<Word<'t>> {
        let word = self.word(tree, what)?;
        let mut chars = word.text.chars();
        let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || (self.low_code && c.is_ascii_digit()));
        let rest = chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !first || !rest || word.text.len() > 63 {
            let help = "a letter, then letters, digits, '_' or '-', at most 63 in all".to_owned();
            self.report.error_with(codes::BAD_ID, tree.at, format!("'{}' is no {what}", short(word.text)), Some(help));
            return None;
        }
        if words::NOT_IDS.contains(&word.text) {
            let message = format!("'{}' cannot be {}: the language uses the word itself", word.text, article(what));
            self.report.error(codes::BAD_ID, tree.at, message);
            return None;
        }
        Some(word)
    }

    /// A name outside of the document: of a workflow, a namespace, a pool, a kind.
    pub(crate) fn name<'t>(&mut self, tree: &'t Tree, what: &str, code: &'static str) -> Option<Word<'t>> {
        let word = self.fixed_word(tree, what)?;
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let inner = |c: char| edge(c) || matches!(c, '-' | '.' | '_');
        let fits = word.text.len() <= 63
            && word.text.starts_with(edge)
            && word.text.ends_with(edge)
            && word.text.chars().all(inner);
        if !fits {
            let help = "lower-case letters, digits and '-', '.', '_' between them, at most 63 in all".to_owned();
            self.report.error_with(code, tree.at, format!("'{}' is no {what}", short(word.text)), Some(help));
            return None;
        }
        Some(word)
    }

    pub(crate) fn one_of<'t>(&mut self, tree: &'t Tree, what: &str, known: &[&str], later: &[&str]) -> Option<&'t str> {
        let word = self.word(tree, what)?;
        if known.contains(&word.text) {
            return Some(word.text);
        }
        if later.contains(&word.text) {
            let message = format!("'{}' as {what} is not yet supported here", word.text);
            self.report.error(codes::NEEDS_FEATURE, tree.at, message);
            return None;
        }
        let help =
            did_you_mean(word.text, known.iter().copied()).or_else(|| Some(format!("one of: {}", known.join(", "))));
        let message = format!("'{}' is not possible for {what}", short(word.text));
        self.report.error_with(codes::WRONG_TYPE, tree.at, message, help);
        None
    }

    pub(crate) fn whole(&mut self, tree: &Tree, what: &str, least: u64, most: u64) -> Option<u64> {
        match tree.kind {
            Kind::Int(number) => match u64::try_from(number).ok().filter(|number| (least..=most).contains(number)) {
                Some(number) => Some(number),
                None => {
                    let message = format!("{what} is {number}; it must lie between {least} and {most}");
                    self.report.error(codes::LIMIT, tree.at, message);
                    None
                }
            },
            _ => {
                self.wrong(tree, what, "a whole number");
                None
            }
        }
    }

    /// A span of time; `zero` says whether nothing is a span.
    pub(crate) fn duration(&mut self, tree: &Tree, what: &str, zero: bool, most: u64) -> Option<u64> {
        let help = "durations are text with units, such as '500ms', '10s', '1h30m' or '7d'".to_owned();
        let Kind::Text(text) = &tree.kind else {
            let message = format!("{what} must be a duration, not {}", tree.kind_name());
            self.report.error_with(codes::WRONG_TYPE, tree.at, message, Some(help));
            return None;
        };
        let shown = short(&text.value);
        match parse_duration_ms(&text.value) {
            Ok(0) if !zero => {
                self.report.error(codes::LIMIT, tree.at, format!("{what} must be longer than nothing"));
                None
            }
            Ok(ms) if ms <= most => Some(ms),
            Ok(_) | Err(TimeError::Range) => {
                let message =
                    format!("{what} is '{shown}'; at most {} days are possible, to the millisecond", most / 86_400_000);
                self.report.error(codes::LIMIT, tree.at, message);
                None
            }
            Err(TimeError::Form) => {
                self.report.error_with(
                    codes::WRONG_TYPE,
                    tree.at,
                    format!("{what} is '{shown}', which is no duration"),
                    Some(help),
                );
                None
            }
        }
    }

    pub(crate) fn timeouts(&mut self, tree: &Tree, form: TimeoutForm) -> Timeouts {
        let mut timeouts = Timeouts::default();
        if !matches!(tree.kind, Kind::Map(_)) {
            timeouts.total_ms = self.duration(tree, "timeout", false, limits::TIMEOUT_MS);
            return timeouts;
        }
        let Some(mut fields) = self.fields(tree, "timeout") else { return timeouts };
        let slots = [
            ("queue", &mut timeouts.queue_ms, true),
            ("attempt", &mut timeouts.attempt_ms, true),
            ("total", &mut timeouts.total_ms, false),
        ];
        for (name, slot, work) in slots {
            let Some(tree) = fields.take(name) else { continue };
            if work && form == TimeoutForm::Total {
                let message =
                    format!("timeout.{name} is for nodes that a worker runs; this one has only timeout.total");
                self.report.error(codes::WRONG_PLACE, tree.at, message);
            } else {
                *slot = self.duration(tree, &format!("timeout.{name}"), false, limits::TIMEOUT_MS);
            }
        }
        self.finish(&fields, "timeout", &["queue", "attempt", "total"], &["heartbeat"]);
        timeouts
    }

    pub(crate) fn retry(&mut self, tree: &Tree) -> Option<Retry> {
        let backoff = Backoff { initial_ms: 1_000, factor_milli: 2_000, max_delay_ms: 30_000, jitter: Jitter::Full };
        let mut retry = Retry { max_attempts: 3, backoff, only: Vec::new(), never: Vec::new() };
        match &tree.kind {
            Kind::Int(_) => {
                retry.max_attempts = self.whole(tree, "retry", 1, limits::ATTEMPTS)? as u32;
                return Some(retry);
            }
            Kind::List(_) => {
                self.report.error(codes::NEEDS_FEATURE, tree.at, "a list of retry policies is not yet supported here");
                return None;
            }
            Kind::Map(_) => {}
            _ => {
                self.wrong(tree, "retry", "a number of attempts or a map of fields");
                return None;
            }
        }
        let mut fields = self.fields(tree, "retry")?;
        if let Some(tree) = fields.take("maxAttempts") {
            retry.max_attempts = self.whole(tree, "retry.maxAttempts", 1, limits::ATTEMPTS).unwrap_or(1) as u32;
        }
        if let Some(tree) = fields.take("initial") {
            retry.backoff.initial_ms = self.duration(tree, "retry.initial", true, limits::DELAY_MS).unwrap_or(0);
        }
        let longest = fields.take("maxDelay");
        if let Some(tree) = longest {
            retry.backoff.max_delay_ms = self.duration(tree, "retry.maxDelay", true, limits::DELAY_MS).unwrap_or(0);
        } else {
            // A first delay above the default bound is meant as it is written.
            retry.backoff.max_delay_ms = retry.backoff.max_delay_ms.max(retry.backoff.initial_ms);
        }
        if let Some(tree) = fields.take("factor") {
            retry.backoff.factor_milli = self.factor(tree).unwrap_or(1_000);
        }
        if let Some(tree) = fields.take("jitter") {
            retry.backoff.jitter = match self.one_of(tree, "retry.jitter", &["none", "full", "equal"], &[]) {
                Some("none") => Jitter::None,
                Some("equal") => Jitter::Equal,
                _ => Jitter::Full,
            };
        }
        for (name, codes) in [("only", &mut retry.only), ("never", &mut retry.never)] {
            if let Some(tree) = fields.take(name) {
                *codes = self.error_codes(tree, &format!("retry.{name}"));
            }
        }
        let known = ["maxAttempts", "initial", "factor", "maxDelay", "jitter", "only", "never"];
        self.finish(&fields, "retry", &known, &["when", "budget"]);
        Some(retry)
    }

    fn factor(&mut self, tree: &Tree) -> Option<u32> {
        let factor = match tree.kind {
            Kind::Int(number) => number as f64,
            Kind::Double(number) => number,
            _ => {
                self.wrong(tree, "retry.factor", "a number");
                return None;
            }
        };
        if !(1.0..=100.0).contains(&factor) {
            self.report.error(
                codes::LIMIT,
                tree.at,
                format!("retry.factor is {factor}; it must lie between 1 and 100"),
            );
            return None;
        }
        Some((factor * 1_000.0).round() as u32)
    }

    fn error_codes(&mut self, tree: &Tree, what: &str) -> Vec<Box<str>> {
        let Kind::List(items) = &tree.kind else {
            self.wrong(tree, what, "a list of error codes");
            return Vec::new();
        };
        let mut all = Vec::new();
        for item in items {
            let Some(word) = self.word(item, what) else { continue };
            let segment = |part: &str| {
                !part.is_empty()
                    && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
            };
            if word.text.len() <= 128 && word.text.split('.').all(segment) {
                all.push(word.text.into());
            } else {
                let message = format!("'{}' is no error code", short(word.text));
                let help = "lower-case words with points between them, such as 'http.5xx'".to_owned();
                self.report.error_with(codes::WRONG_TYPE, item.at, message, Some(help));
            }
        }
        all
    }

    pub(crate) fn labels(&mut self, tree: &Tree, what: &str) -> Vec<(String, String)> {
        let Some(fields) = self.fields(tree, what) else { return Vec::new() };
        if fields.all().len() > 32 {
            self.report.error(
                codes::LIMIT,
                tree.at,
                format!("{what} has {} entries, at most 32 are allowed", fields.all().len()),
            );
        }
        let mut labels = Vec::new();
        for (key, value) in fields.all() {
            let text = match &value.kind {
                Kind::Text(text) => text.value.clone(),
                Kind::Int(number) => number.to_string(),
                Kind::Bool(it) => it.to_string(),
                _ => {
                    self.wrong(value, what, "text");
                    continue;
                }
            };
            if key.name.is_empty() || key.name.len() > 256 || text.len() > 256 {
                self.report.error(
                    codes::LIMIT,
                    key.at,
                    format!("{what} has an entry over 256 bytes, or without a name"),
                );
            }
            labels.push((key.name.clone(), text));
        }
        labels.sort();
        labels
    }

    /// Entries of a map whose keys are names of variables.
    pub(crate) fn entries<'t>(&mut self, tree: &'t Tree, what: &str) -> Vec<(Word<'t>, &'t Tree)> {
        let Some(fields) = self.fields(tree, what) else { return Vec::new() };
        let mut entries = Vec::new();
        for (key, value) in fields.all() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let fits = key.name.len() <= 63
                && key.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && key.name.chars().all(plain);
            if fits {
                entries.push((Word { text: &key.name, at: key.at }, value));
            } else {
                let help = "a letter, then letters, digits or '_', at most 63 in all".to_owned();
                let message = format!("'{}' is no name of a variable", short(&key.name));
                self.report.error_with(codes::BAD_ID, key.at, message, Some(help));
            }
        }
        entries
    }

    pub(crate) fn list<'t>(&mut self, tree: &'t Tree, what: &str) -> &'t [Tree] {
        match &tree.kind {
            Kind::List(items) => items,
            _ => {
                self.wrong(tree, what, "a list");
                &[]
            }
        }
    }

    /// A place in a field that must not be there, told with its reason.
    pub(crate) fn misplaced(&mut self, at: Spot, message: impl Into<String>) {
        self.report.error(codes::WRONG_PLACE, at, message);
    }
}

/// At most forty characters of what somebody wrote.
pub(crate) fn short(text: &str) -> String {
    if text.chars().count() <= 40 {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(40).collect::<String>())
    }
}

fn article(what: &str) -> String {
    if what.starts_with(['a', 'e', 'i', 'o', 'u']) { format!("an {what}") } else { format!("a {what}") }
}
