//! The committed counts, and how new ones compare with them.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

/// A change up to this is let pass, in percent. Counts of the same code differ by less than a tenth of one
/// (`benchmarks/README.md`); the rest is room for a compiler that decides otherwise about a call nearby.
pub const TOLERANCE_PERCENT: u64 = 3;

const HEAD: &str = "\
# Instructions per operation of each part, as `make guard` counts them. It fails when one moves by more than 3 %.
# `NOVA_UPDATE=1 make guard` writes what is counted now: commit it with the change that moved it, and say why there.
";

/// What was counted with. Counts of two compilers, or of two kinds of processors, cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Release of the compiler.
    pub rustc: String,
    /// What of the processor chooses code.
    pub processor: String,
    /// The C library: how it copies memory is counted too, which hardly differs between its versions.
    pub libc: String,
    /// Version of valgrind.
    pub valgrind: String,
}

/// The counts of a build.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// With what they were made.
    pub made: Made,
    /// Instructions per operation, by part.
    pub instructions: BTreeMap<String, u64>,
}

/// The file is not one that this program wrote.
#[derive(Debug, thiserror::Error)]
#[error("the baseline cannot be read")]
pub struct ReadError(#[from] toml::de::Error);

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Within the tolerance.
    Same,
    /// More than before.
    Worse,
    /// Less than before: the baseline no longer guards what was gained.
    Better,
    /// The baseline does not have it.
    New,
    /// Only the baseline has it.
    Gone,
}

impl Judgement {
    /// Of these counts.
    #[must_use]
    pub fn of(before: Option<u64>, now: Option<u64>) -> Self {
        match (before, now) {
            (None, _) => Self::New,
            (Some(_), None) => Self::Gone,
            (Some(before), Some(now)) if now * 100 > before * (100 + TOLERANCE_PERCENT) => Self::Worse,
            (Some(before), Some(now)) if now * 100 < before * (100 - TOLERANCE_PERCENT) => Self::Better,
            _ => Self::Same,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Worse => "WORSE",
            Self::Better => "better",
            Self::New => "new",
            Self::Gone => "gone",
        }
    }
}

impl Baseline {
    /// Reads what [`Baseline::write`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        Ok(toml::from_str(text)?)
    }

    /// As a file for readers.
    #[must_use]
    pub fn write(&self) -> String {
        let Made { rustc, processor, libc, valgrind } = &self.made;
        let mut text = format!(
            "{HEAD}\n[made]\nrustc = \"{rustc}\"\nprocessor = \"{processor}\"\nlibc = \"{libc}\"\nvalgrind = \"{valgrind}\"\n\n[instructions]\n"
        );
        for (part, count) in &self.instructions {
            let _ = writeln!(text, "{part} = {count}");
        }
        text
    }

    /// Compares counts with these, by part.
    #[must_use]
    pub fn compare(&self, now: &BTreeMap<String, u64>) -> Vec<(String, Judgement)> {
        let mut parts: Vec<&String> = self.instructions.keys().chain(now.keys()).collect();
        parts.sort_unstable();
        parts.dedup();
        let judge =
            |part: &String| (part.clone(), Judgement::of(self.instructions.get(part).copied(), now.get(part).copied()));
        parts.into_iter().map(judge).collect()
    }

    /// The comparison as a table.
    #[must_use]
    pub fn table(&self, now: &BTreeMap<String, u64>) -> String {
        let number = |count: Option<&u64>| count.map_or_else(|| "-".into(), u64::to_string);
        let mut text = format!("{:<20} {:>12} {:>12} {:>9}\n", "part", "baseline", "now", "change");
        for (part, judgement) in self.compare(now) {
            let (before, now) = (self.instructions.get(&part), now.get(&part));
            let change = match (before, now) {
                (Some(before), Some(now)) => format!("{:+.2} %", (*now as f64 / *before as f64 - 1.0) * 100.0),
                _ => "-".into(),
            };
            let (before, now) = (number(before), number(now));
            let line = format!("{part:<20} {before:>12} {now:>12} {change:>9}  {}", judgement.text());
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Made {
        let text = |text: &str| text.to_owned();
        Made { rustc: text("1.95.0"), processor: text("x"), libc: text("glibc 2.36"), valgrind: text("valgrind-3") }
    }

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(part, count)| ((*part).to_owned(), *count)).collect()
    }

    #[test]
    fn more_than_three_percent_is_a_change_in_both_directions() {
        let judge = |now| Judgement::of(Some(10_000), Some(now));
        assert_eq!(judge(10_300), Judgement::Same);
        assert_eq!(judge(10_301), Judgement::Worse);
        assert_eq!(judge(10_500), Judgement::Worse);
        assert_eq!(judge(9_700), Judgement::Same);
        assert_eq!(judge(9_699), Judgement::Better);
        assert_eq!(Judgement::of(None, Some(1)), Judgement::New);
        assert_eq!(Judgement::of(Some(1), None), Judgement::Gone);
    }

    #[test]
    fn parts_that_come_and_go_are_told() {
        let baseline = Baseline { made: made(), instructions: counts(&[("kept", 1_000), ("lost", 5)]) };
        let now = counts(&[("kept", 1_050), ("made", 7)]);
        let expected = [("kept", Judgement::Worse), ("lost", Judgement::Gone), ("made", Judgement::New)];
        assert_eq!(baseline.compare(&now), expected.map(|(part, judgement)| (part.to_owned(), judgement)));
        let table = "\
part                     baseline          now    change
kept                         1000         1050   +5.00 %  WORSE
lost                            5            -         -  gone
made                            -            7         -  new
";
        assert_eq!(baseline.table(&now), table);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let baseline = Baseline { made: made(), instructions: counts(&[("a-part", 1), ("b", u64::from(u32::MAX))]) };
        assert_eq!(Baseline::read(&baseline.write()).unwrap(), baseline);
        assert!(Baseline::read("[instructions]\na = 1").is_err(), "nobody knows what made it");
        assert!(Baseline::read(&baseline.write().replace("a-part = 1", "a-part = -1")).is_err());
        assert!(Baseline::read(&baseline.write().replace("rustc", "gcc")).is_err());
    }

    /// Whoever moves the project to another Rust counts anew: otherwise the guard would compare nothing from then on.
    #[test]
    fn the_committed_counts_are_of_the_rust_of_the_project_and_of_all_parts() {
        let committed = Baseline::read(include_str!("../baseline.toml")).unwrap();
        let rust = env!("CARGO_PKG_RUST_VERSION");
        assert!(committed.made.rustc.starts_with(rust), "{} is not {rust}", committed.made.rustc);
        let parts: Vec<_> = committed.instructions.keys().map(String::as_str).collect();
        let mut all: Vec<_> = crate::parts::all().iter().map(|part| part.name).collect();
        all.sort_unstable();
        assert_eq!(parts, all, "NOVA_UPDATE=1 make guard");
    }
}
