//! `nova serve <service>`: one service as its own process.

use std::sync::Arc;

use nova_client::Coordinators;
use nova_service_kit::config::{ConfigError, load, print};
use nova_service_kit::{observe, stop_on_signal};
use nova_telemetry::{LogFormat, Telemetry, TraceSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::args::{Serve, Service};
use crate::error::{Failed, chain};

fn config<C: Serialize + DeserializeOwned>(
    serve: &Serve,
    prefix: &str,
    problems: impl Fn(&C) -> Vec<String>,
) -> Result<Option<C>, Failed> {
    // The name that all who send traces know; the service's own name for it, `…_TRACE__OTLP`, comes later and wins.
    let otlp = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().map(|url| (format!("{prefix}TRACE__OTLP"), url));
    let environment = otlp.into_iter().chain(std::env::vars());
    let loaded = load(serve.config.as_deref(), prefix, environment, &serve.overrides, problems);
    let config: C = loaded.map_err(|error| match error {
        ConfigError::Invalid { problems } => {
            Failed::Usage(format!("the config is not valid:\n  {}", problems.join("\n  ")))
        }
        other => Failed::Usage(chain(&other)),
    })?;
    if serve.print_config {
        print!("{}", print(&config).map_err(|error| Failed::Usage(error.to_string()))?);
        return Ok(None);
    }
    Ok(Some(config))
}

fn telemetry(service: &'static str, trace: &TraceSettings) -> Result<Telemetry, Failed> {
    let format = match std::env::var("NOVA_LOG_FORMAT").as_deref() {
        Ok("text") => LogFormat::Text,
        _ => LogFormat::Json,
    };
    let options = nova_telemetry::Options { service, format, default_filter: "info", trace: trace.clone() };
    Telemetry::start(&options).map_err(|error| Failed::Usage(chain(&error)))
}

fn observed(
    address: String,
    service: &'static str,
    telemetry: &Telemetry,
    ready: observe::Ready,
    stop: &CancellationToken,
) {
    let (metrics, stop) = (telemetry.metrics(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = observe::serve(&address, service, metrics, ready, stop.clone()).await {
            eprintln!("error: cannot listen on {address}: {error}");
            stop.cancel();
        }
    });
}

fn stopped(error: impl std::error::Error + 'static) -> Failed {
    Failed::Unreachable(chain(&error))
}

pub async fn run(serve: Serve) -> Result<(), Failed> {
    match serve.service {
        Service::Coordinator => coordinator(&serve).await,
        Service::Scheduler => scheduler(&serve).await,
        Service::Worker => worker(&serve).await,
        Service::Api => api(&serve).await,
        Service::Trigger => trigger(&serve).await,
    }
}

async fn coordinator(serve: &Serve) -> Result<(), Failed> {
    let Some(config) = config(serve, "NOVA_COORDINATOR_", nova_coordinator::Config::problems)? else { return Ok(()) };
    let telemetry = telemetry("coordinator", &config.trace)?;
    let stop = stop_on_signal();
    let address = config.observe.clone();
    let own = config.listen.clone();
    let coordinator = nova_coordinator::Coordinator::start(config, stop.clone()).await.map_err(stopped)?;
    let ready: observe::Ready = Arc::new(move || {
        let address = format!("http://{own}");
        Box::pin(async move {
            let mut member = Coordinators::member(&address).map_err(|error| error.to_string())?;
            let asked = member.describe(nova_wire::v1::DescribeRequest { without_hash: true }).await;
            let answer = asked.map_err(|status| status.to_string())?;
            answer.into_inner().leader.map(drop).ok_or_else(|| "no leader is known".into())
        })
    });
    observed(address, "coordinator", &telemetry, ready, &stop);
    coordinator.run().await.map_err(stopped)?;
    telemetry.shutdown();
    Ok(())
}

fn bus_ready(bus: &nova_bus::SharedBus) -> observe::Ready {
    let bus = Arc::clone(bus);
    Arc::new(move || {
        let bus = Arc::clone(&bus);
        Box::pin(async move { bus.health().await.map_err(|error| error.to_string()) })
    })
}

async fn scheduler(serve: &Serve) -> Result<(), Failed> {
    let Some(config) = config(serve, "NOVA_SCHEDULER_", nova_scheduler::Config::problems)? else { return Ok(()) };
    let telemetry = telemetry("scheduler", &config.trace)?;
    let stop = stop_on_signal();
    let bus = config.bus.connect().map_err(stopped)?;
    observed(config.observe.clone(), "scheduler", &telemetry, bus_ready(&bus), &stop);
    let coordinators = Coordinators::new(config.coordinators.clone());
    nova_scheduler::Scheduler::new(&config, coordinators, bus).run(stop).await;
    telemetry.shutdown();
    Ok(())
}

async fn worker(serve: &Serve) -> Result<(), Failed> {
    let Some(config) = config(serve, "NOVA_WORKER_", nova_worker::Config::problems)? else { return Ok(()) };
    let telemetry = telemetry("worker", &config.trace)?;
    let stop = stop_on_signal();
    let bus = config.bus.connect().map_err(stopped)?;
    observed(config.observe.clone(), "worker", &telemetry, bus_ready(&bus), &stop);
    let coordinators = Coordinators::new(config.coordinators.clone());
    nova_worker::Worker::new(config, coordinators, bus).map_err(stopped)?.run(stop).await.map_err(stopped)?;
    telemetry.shutdown();
    Ok(())
}

async fn trigger(serve: &Serve) -> Result<(), Failed> {
    let Some(config) = config(serve, "NOVA_TRIGGER_", nova_trigger::Config::problems)? else { return Ok(()) };
    let telemetry = telemetry("trigger", &config.trace)?;
    let stop = stop_on_signal();
    let bus = config.bus.connect().map_err(stopped)?;
    observed(config.observe.clone(), "trigger", &telemetry, bus_ready(&bus), &stop);
    let coordinators = Coordinators::new(config.coordinators.clone());
    nova_trigger::Trigger::new(&config, coordinators, bus).run(stop).await;
    telemetry.shutdown();
    Ok(())
}

async fn api(serve: &Serve) -> Result<(), Failed> {
    let Some(config) = config(serve, "NOVA_API_", nova_api::Config::problems)? else { return Ok(()) };
    let telemetry = telemetry("api", &config.trace)?;
    let stop = stop_on_signal();
    let bus = config.bus.connect().map_err(stopped)?;
    let coordinators = Coordinators::new(config.coordinators.clone());
    let api = nova_api::Api::start(config, coordinators, bus, telemetry.metrics(), stop).await.map_err(stopped)?;
    api.run().await.map_err(stopped)?;
    telemetry.shutdown();
    Ok(())
}
