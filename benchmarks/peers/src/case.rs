//! What is measured: the scenarios, and for each of them the loads that are put on a system.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::system::SystemName;

/// A scenario, as `docs/performance.md` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// One step, with 32 and with 256 executions in flight.
    S1,
    /// Ten steps in sequence, one execution at a time.
    S2,
    /// 1,000 executions of five steps in sequence at once.
    S3,
    /// One execution of 1,000 steps at once, joined; one at a time.
    S4,
}

/// Where a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The engine hands it to a worker, and its result back to the workflow.
    Dispatched,
    /// The same, and each step is given what the one before it gave: in NovaFlow that is an expression, which is evaluated
    /// and committed before the step is handed out. Elsewhere it is a variable in the code of the workflow.
    Chained,
    /// In the process that runs the workflow; the engine stores its result.
    Inside,
}

/// What one execution does. The first step gives 1, the second 2; the result is the number of the execution and the sum of
/// what they gave, so that it proves all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Steps in sequence.
    Chain { steps: u64 },
    /// Steps at once.
    Fan { steps: u64 },
}

impl Work {
    /// The right result of the execution of `number`.
    pub(crate) fn result(self, number: u64) -> u64 {
        let (Self::Chain { steps } | Self::Fan { steps }) = self;
        number + steps * (steps + 1) / 2
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// Each is followed by the next until this much time has passed; those in flight are waited for and counted.
    For(Duration),
    /// So many.
    Count(u64),
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub scenario: Scenario,
    pub form: Form,
    pub work: Work,
    pub in_flight: u32,
    pub amount: Amount,
}

/// Long enough for a steady rate, and for the whole comparison to end before the machine has changed.
const LONG: Amount = Amount::For(Duration::from_secs(6));
const SHORT: Amount = Amount::For(Duration::from_secs(4));

/// The measurements of a scenario on a system.
pub(crate) fn cases(scenario: Scenario, system: SystemName) -> Vec<Case> {
    let one = |in_flight, work, amount| Case { scenario, form: Form::Dispatched, work, in_flight, amount };
    let cases = match scenario {
        Scenario::S1 => [32, 256].map(|in_flight| one(in_flight, Work::Chain { steps: 1 }, LONG)).to_vec(),
        Scenario::S2 => vec![one(1, Work::Chain { steps: 10 }, LONG)],
        Scenario::S3 => vec![one(1_000, Work::Chain { steps: 5 }, Amount::Count(1_000))],
        Scenario::S4 => vec![one(1, Work::Fan { steps: 1_000 }, SHORT)],
    };
    // Of steps that run at once none is given what another gave, and all systems dispatch them.
    let forms = if scenario == Scenario::S4 { &[Form::Dispatched] } else { system.forms() };
    forms.iter().flat_map(|form| cases.iter().map(|case| Case { form: *form, ..*case })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_proves_every_step() {
        for steps in [1, 10, 1_000] {
            let sum = (1..=steps).sum::<u64>();
            assert_eq!(Work::Chain { steps }.result(7), 7 + sum);
            assert_eq!(Work::Fan { steps }.result(7), 7 + sum);
        }
    }

    #[test]
    fn systems_do_the_same_work() {
        for scenario in Scenario::value_variants() {
            let works = |system| -> Vec<_> {
                let cases = cases(*scenario, system).into_iter().filter(|case| case.form == Form::Dispatched);
                cases.map(|case| (case.work, case.in_flight)).collect()
            };
            for system in SystemName::value_variants() {
                assert_eq!(works(*system), works(SystemName::Embedded), "{scenario:?} {system:?}");
            }
        }
    }
}
