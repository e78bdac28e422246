//! Which options go together.

use super::{Args, Loops, ScenarioName, TargetName, Victim};
use crate::Error;
use ScenarioName::{Overload, S1, S2, S3, S4, S5, S6, S7, S8, S9a, S9b, X1};

impl Args {
    /// That the options go together.
    ///
    /// # Errors
    /// [`Error::Options`] with all that does not.
    pub fn check(&self) -> Result<(), Error> {
        let mut problems = self.unused();
        let mut check = |good: bool, what: &str| {
            if !good {
                problems.push(what.to_owned());
            }
        };
        check(
            self.target.on_kafka() || self.log.is_none(),
            "--log: only coordinators of kafka-1 and kafka-3 can be given another log",
        );
        let (closed, open) = (self.loops() != Loops::Open, self.loops() != Loops::Closed);
        if matches!(self.scenario, S1 | S2) {
            check(closed || self.concurrency.is_none(), "--concurrency: there is no closed loop with --loops open");
            check(open || self.rate.is_none(), "--rate: there is no open loop with --loops closed");
            let rate_known = closed || self.rate.is_some() || self.scenario == S2;
            check(rate_known, "--rate: the open loop of s1 needs one when no closed loop finds it");
            let whole = !closed || self.in_flight().is_multiple_of(self.batch());
            check(whole, "--batch: must divide the executions in flight (--concurrency)");
            let most = self.rate.map(|rate| rate * (self.seconds() + self.warmup_seconds()));
            let enough = most.is_none_or(|most| most >= u64::from(self.batch()));
            check(enough, "--batch: more than the open loop sends at all");
        }
        if self.scenario == S3 {
            check(1_000_u32.is_multiple_of(self.batch()), "--batch: must divide the 1,000 executions of s3");
        }
        if self.scenario == X1 {
            check(20_u32.is_multiple_of(self.batch()), "--batch: must divide 20, as 40, 100 and 1,000 executions do");
        }
        if self.scenario == S7 {
            self.check_victim(&mut check);
        }
        if self.scenario == S9a {
            let coordinators_only = matches!(self.target, TargetName::Embedded | TargetName::Embedded3);
            check(
                coordinators_only,
                "--target: s9a puts load on coordinators alone: embedded is one, embedded-3 three",
            );
        }
        if self.scenario == S9b {
            check(self.target == TargetName::Embedded, "--target: s9b starts no process, it has no target");
        }
        let folder = |file: &Option<std::path::PathBuf>| {
            let folder = file.as_deref().and_then(|file| file.parent()).filter(|it| !it.as_os_str().is_empty());
            folder.is_none_or(|folder| folder.is_dir())
        };
        check(folder(&self.json), "--json: its directory is not there");
        if problems.is_empty() { Ok(()) } else { Err(Error::Options(problems.join("; "))) }
    }

    fn check_victim(&self, check: &mut impl FnMut(bool, &str)) {
        match (self.target, self.victim()) {
            (TargetName::Embedded, _) => check(
                false,
                "--target: embedded is one process with nobody to go on without it; s8 measures how it comes back, s7 needs embedded-3, kafka-1 or kafka-3",
            ),
            (TargetName::Embedded3, Victim::Scheduler | Victim::Worker) => check(
                false,
                "--victim: scheduler and worker of embedded-3 are in one process; kafka-1 and kafka-3 have several",
            ),
            (_, victim) => check(
                !self.gently || victim == Victim::Scheduler,
                "--gently: only of --victim scheduler it is measured how one leaves and joins",
            ),
        }
    }

    /// Options that were given and that the scenario does not look at.
    fn unused(&self) -> Vec<String> {
        let given: [(&str, bool, &[ScenarioName]); 15] = [
            ("work", self.work.is_some(), &[S1, S2, S3, S5, Overload]),
            ("seconds", self.seconds.is_some(), &[S1, S2, S5, S6, Overload, S9a]),
            ("warmup", self.warmup.is_some(), &[S1, S2, S3, S4, S5, S6, S7, Overload, X1]),
            ("loops", self.loops.is_some(), &[S1, S2]),
            ("concurrency", self.concurrency.is_some(), &[S1, S2, Overload]),
            ("rate", self.rate.is_some(), &[S1, S2, S5, S6, S7]),
            ("batch", self.batch.is_some(), &[S1, S2, S3, X1]),
            ("keyed", self.keyed, &[S1, S2, S5]),
            ("parked", self.parked.is_some(), &[S1, S2, S5, S6, S8]),
            ("wakes", self.wakes.is_some(), &[S6]),
            ("steps", self.steps.is_some(), &[Overload]),
            ("kills", self.kills.is_some(), &[S7]),
            ("victim", self.victim.is_some(), &[S7]),
            ("gently", self.gently, &[S7]),
            ("tasks", self.tasks.is_some(), &[S9b]),
        ];
        let workers = ("workers", self.workers.is_some(), &[S9a, S9b][..]);
        let unused = given.into_iter().chain([workers]);
        let unused = unused.filter(|(_, given, users)| *given && !users.contains(&self.scenario));
        unused.map(|(name, ..)| format!("--{name}: {} does not use it", self.scenario.name())).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, ValueEnum};

    use super::*;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(["nova-loadtest"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn the_command_is_well_formed_and_has_defaults() {
        Args::command().debug_assert();
        let args = parse("s1").unwrap();
        assert_eq!((args.target, args.in_flight(), args.rate, args.batch()), (TargetName::Embedded, 256, None, 1));
        args.check().unwrap();
        for target in TargetName::value_variants() {
            let args = parse(&format!("s2 --target {}", target.name())).unwrap();
            assert_eq!((args.target, args.in_flight()), (*target, 1));
            args.check().unwrap();
        }
        let of = |words: &str| {
            let args = parse(words).unwrap();
            (args.seconds(), args.repeat(), args.parked())
        };
        assert_eq!((of("s1"), of("s3"), of("s5")), ((10, 1, 0), (10, 3, 0), (300, 1, 0)));
        assert_eq!((of("s6"), of("s8"), of("s9a")), ((10, 1, 100_000), (10, 1, 1_000_000), (30, 1, 0)));
    }

    #[test]
    fn every_scenario_has_a_target_that_it_runs_on() {
        for scenario in ScenarioName::value_variants() {
            let target = if *scenario == S7 { "embedded-3" } else { "embedded" };
            parse(&format!("{} --target {target}", scenario.name())).unwrap().check().unwrap();
        }
    }

    #[test]
    fn values_out_of_their_limits_are_refused() {
        for wrong in [
            "s10",
            "s1 --seconds 0",
            "s1 --concurrency 0",
            "s1 --batch 1001",
            "s1 --log tape",
            "s1 --rate 0",
            "s7 --victim api",
            "s6 --parked 0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for wrong in [
            "s1 --log sled",
            "s1 --loops open",
            "s1 --loops open --rate 9 --concurrency 2",
            "s1 --loops closed --rate 9",
            "s1 --batch 100",
            "s2 --batch 10",
            "s1 --loops open --rate 9 --batch 1000",
            "s1 --json /no/such/place/x.json",
            "s1 --kills 3",
            "s1 --steps 3",
            "s3 --batch 3",
            "s3 --seconds 5",
            "s4 --work echo",
            "s7",
            "s7 --target embedded",
            "s7 --target embedded-3 --victim worker",
            "s7 --target kafka-1 --victim worker --gently",
            "s1 --gently",
            "s3 --keyed",
            "s8 --rate 5",
            "s9a --target kafka-1",
            "s9b --target embedded-3",
            "s9b --parked 5",
            "x1 --batch 1000",
        ] {
            let error = parse(wrong).unwrap().check().unwrap_err();
            assert!(matches!(error, Error::Options(_)), "{wrong}: {error}");
        }
        for right in [
            "s1 --target kafka-1 --log sled",
            "s1 --loops open --rate 100",
            "s1 --batch 64 --keyed",
            "s2 --loops open",
            "s1 --parked 1000",
            "s3 --batch 1000",
            "s7 --target kafka-3 --victim worker --kills 5",
            "s7 --target kafka-1 --victim scheduler --gently",
            "s9b --tasks 1000 --workers 10",
            "overload --seconds 5 --concurrency 64 --steps 10",
        ] {
            parse(right).unwrap().check().unwrap();
        }
    }

    #[test]
    fn what_a_scenario_does_not_use_is_named() {
        let Err(Error::Options(text)) = parse("s4 --kills 3 --rate 7").unwrap().check() else {
            panic!("it is refused")
        };
        assert_eq!(text, "--rate: s4 does not use it; --kills: s4 does not use it");
    }
}
