//! `nova dev`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use nova_all_in_one::{AllInOne, Options};
use nova_telemetry::{LogFormat, Telemetry, TraceSettings};

use crate::args::Dev;
use crate::error::{Failed, chain};

/// Longest wait until a new cluster answers.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(dev: Dev) -> Result<(), Failed> {
    let begun = Instant::now();
    let trace = TraceSettings { otlp: dev.otlp.clone().unwrap_or_default(), ..TraceSettings::default() };
    let mut problems = trace.problems();
    if !(0.0..=1.0).contains(&dev.trace_ratio) {
        problems.push("trace-ratio: must be 0.0 to 1.0".into());
    }
    if !problems.is_empty() {
        return Err(Failed::Usage(problems.join("; ")));
    }
    let trace_ratio = if trace.otlp.is_empty() { 0.0 } else { dev.trace_ratio };
    let telemetry = Telemetry::start(&nova_telemetry::Options {
        service: "nova",
        format: LogFormat::Text,
        default_filter: "warn",
        trace,
    });
    let telemetry = telemetry.map_err(|error| Failed::Usage(chain(&error)))?;
    let stop = nova_service_kit::stop_on_signal();
    let options = Options {
        data: dev.data.clone(),
        port: dev.port,
        slots: dev.slots,
        allow_private: dev.allow_private,
        trace_ratio,
        ledger: dev.ledger.clone(),
        cluster: dev.cluster.clone(),
        coordinators: dev.coordinators.clone(),
    };
    let failed = |error: nova_all_in_one::RunError| Failed::Unreachable(chain(&error));
    let cluster = AllInOne::start(options, telemetry.metrics(), stop.clone()).await.map_err(failed)?;
    let (url, coordinator) = (cluster.url(), cluster.coordinators().join(", "));
    let mut running = tokio::spawn(cluster.run());
    tokio::select! {
        ready = ready(&url) => ready?,
        // A part that has ended says why; nobody would ever be ready.
        ended = &mut running => return ended.map_err(|error| Failed::unreachable(&error))?.map_err(failed),
    }
    let took = begun.elapsed().as_millis();
    if dev.announce {
        println!("ready {url}");
        let _ = std::io::stdout().flush();
    }
    if std::io::stderr().is_terminal() || !dev.announce {
        eprintln!("NovaFlow is ready after {took} ms.\n");
        eprintln!("  api          {url}/api/v1   (OpenAPI: {url}/api/v1/openapi.json)");
        eprintln!("  metrics      {url}/metrics");
        eprintln!("  coordinator  {coordinator}");
        eprintln!("  data         {}\n", dev.data.display());
        eprintln!(
            "Try:  nova --url {url} run examples/hello.yaml\nStop: Ctrl-C; what was accepted goes on with the next start."
        );
    }
    let result = running.await.map_err(|error| Failed::unreachable(&error))?;
    telemetry.shutdown();
    result.map_err(failed)
}

/// Waits until a request that needs everything is answered.
async fn ready(url: &str) -> Result<(), Failed> {
    let rest = crate::rest::Rest::new(url, "default")?;
    let end = Instant::now() + PATIENCE;
    loop {
        match rest.send(rest.request(reqwest::Method::GET, "/workers")).await {
            Ok((_, body)) if body["workers"].as_array().is_some_and(|workers| connected(workers)) => {
                if rest.is_ready().await {
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => {}
        }
        if Instant::now() > end {
            return Err(Failed::Unreachable("the cluster did not get ready in time; NOVA_LOG=info says why".into()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn connected(workers: &[serde_json::Value]) -> bool {
    workers.iter().any(|worker| worker["state"] == "CONNECTED")
}
