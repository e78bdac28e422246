//! The scenarios: each says what is run, how, how it is checked, and what figures come of it.

mod bursts;
pub(crate) mod fleet;
mod kills;
mod loops;
mod overload;
pub(crate) mod placement;
mod restart;
mod sleepers;
mod submit;

use crate::Error;
use crate::args::ScenarioName;
use crate::bench::Bench;

/// Runs the scenario that is asked for.
pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), Error> {
    match bench.args.scenario {
        ScenarioName::S1 | ScenarioName::S2 => loops::run(bench).await,
        ScenarioName::S3 => bursts::hello(bench).await,
        ScenarioName::S4 => bursts::fans(bench).await,
        ScenarioName::X1 => bursts::comparables(bench).await,
        ScenarioName::S5 => submit::run(bench).await,
        ScenarioName::S6 => sleepers::run(bench).await,
        ScenarioName::S7 => kills::run(bench).await,
        ScenarioName::S8 => restart::run(bench).await,
        ScenarioName::Overload => overload::run(bench).await,
        // Both have no target of this kind: they are run before one is started.
        ScenarioName::S9a | ScenarioName::S9b => Ok(()),
    }
}
