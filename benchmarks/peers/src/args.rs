//! What can be typed.

use std::path::PathBuf;

use clap::Parser;

use crate::case::Scenario;
use crate::system::SystemName;

/// Runs the same work on NovaFlow and on other engines, one after the other, and prints the ratios.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "nova-peers",
    version,
    max_term_width = 100,
    after_help = "setup.sh beside this program's sources installs the other engines.\n\nExamples:\n  nova-peers restate-1 embedded --rounds 1 --scenarios s1\n  nova-peers temporal embedded --record r.json --append\n\nExit codes: 0 all results right, 1 a result is wrong or missing, 2 there is no measurement."
)]
pub struct Args {
    /// What is measured, in this order; left out: all.
    #[arg(value_enum)]
    pub systems: Vec<SystemName>,
    /// What is done, separated by commas; left out: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub scenarios: Vec<Scenario>,
    /// How often everything is measured, each time on a system that was started anew; the table has medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub rounds: u32,
    /// Where the record goes; left out: it is only printed as a table.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Add to a record of the same machine and commit that is there already; the table is that of all of it.
    #[arg(long, requires = "record")]
    pub append: bool,
    /// Print the table of a record, and measure nothing.
    #[arg(long, requires = "record", conflicts_with_all = ["append", "systems", "scenarios"])]
    pub table: bool,
    /// Measure although others use the machine.
    #[arg(long)]
    pub anyway: bool,
    /// The nova binary; left out: NOVA_BIN, else the one beside this program.
    #[arg(long, value_name = "PATH")]
    pub nova: Option<PathBuf>,
    /// Where setup.sh has put the other engines.
    #[arg(long, value_name = "DIR", env = "NOVA_PEERS", default_value = ".cache/peers")]
    pub peers: PathBuf,
    /// Where the data of all systems goes, which decides on the disk; left out: the directory for temporary files.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(["nova-peers"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn systems_and_scenarios_are_named() {
        let args = parse("restate-3 embedded-3 --scenarios s1,s4 --rounds 2").unwrap();
        assert_eq!(args.systems, [SystemName::Restate3, SystemName::Embedded3]);
        assert_eq!((args.scenarios, args.rounds), (vec![Scenario::S1, Scenario::S4], 2));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        for (words, named) in [
            ("restate-2", "restate-2"),
            ("--scenarios s9", "s9"),
            ("--rounds 0", "0"),
            ("--append", "--record"),
            ("--table", "--record"),
            ("--table --record r.json --append", "--append"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(named), "{words}: {error}");
        }
    }
}
