//! The work of the comparison as a Restate service: what users of Restate would write.
//!
//! Each handler of `Bench` is one execution; each step gives one more than it got. In `chain` a step runs in this
//! process and its result is stored (`ctx.run`, which the SDK cannot join many of); in `chain_called` and `fan` it is a
//! call of another service, which Restate dispatches and stores like any execution.

use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// Number of the execution, and how many steps it has.
#[derive(Serialize, Deserialize)]
struct Work {
    number: u64,
    steps: u64,
}

struct Bench;

#[service]
impl Bench {
    /// One step after the other in this process; gives the number of the execution and the sum of what they gave.
    #[handler]
    async fn chain(&self, ctx: Context<'_>, work: Json<Work>) -> Result<u64, HandlerError> {
        let Work { number, steps } = work.into_inner();
        let mut sum = number;
        for got in 0..steps {
            sum += ctx.run(|| async move { Ok(got + 1) }).name("step").await?;
        }
        Ok(sum)
    }

    /// The same with each step dispatched.
    #[handler]
    async fn chain_called(&self, ctx: Context<'_>, work: Json<Work>) -> Result<u64, HandlerError> {
        let Work { number, steps } = work.into_inner();
        let mut sum = number;
        for got in 0..steps {
            sum += ctx.service_client::<StepClient>().add_one(got).call().await?;
        }
        Ok(sum)
    }

    /// The same with all steps at once.
    #[handler]
    async fn fan(&self, ctx: Context<'_>, work: Json<Work>) -> Result<u64, HandlerError> {
        let Work { number, steps } = work.into_inner();
        let mut calls = DurableFuturesUnordered::new();
        for got in 0..steps {
            calls.push(ctx.service_client::<StepClient>().add_one(got).call());
        }
        let mut sum = number;
        while let Some((_, value)) = calls.next().await? {
            sum += value?;
        }
        Ok(sum)
    }
}

struct Step;

#[service]
impl Step {
    #[handler]
    async fn add_one(&self, _ctx: Context<'_>, value: u64) -> Result<u64, HandlerError> {
        Ok(value + 1)
    }
}

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let address = address.expect("usage: nova-peers-restate-service ADDRESS:PORT");
    let endpoint = Endpoint::builder().bind(Bench).bind(Step).build();
    HttpServer::new(endpoint).listen_and_serve(address).await;
}
