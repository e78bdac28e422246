//! Logs, metrics and traces of a process.
//!
//! Owns: where they go and in what form; the spans of traced executions, and which messages carry their context.
//! Must not know: what a log line says, what is measured, what else stands in a message.

mod export;
mod metrics;
mod settings;
pub mod trace;

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::trace::SdkTracerProvider;
pub use settings::TraceSettings;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer};

/// Buckets of all histograms in seconds.
const SECONDS: [f64; 14] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets of all histograms that count.
const COUNTS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// How often recorded values are sorted into the buckets of histograms.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A member that is away is told of once by what replicates to it, and not with each heartbeat; and openraft asks every few
/// entries whether a snapshot is due, which is news only when one is.
const QUIETER: &str = "openraft::core::heartbeat=error,openraft::core::sm=warn,openraft::core::raft_core=warn,\
     openraft::engine::engine_impl=warn,openraft::engine::handler::snapshot_handler=warn";

/// What a process tells about itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the service in traces.
    pub service: &'static str,
    /// How log lines look.
    pub format: LogFormat,
    /// What is logged when the environment (`NOVA_LOG`) does not say: `info`, `warn,nova_scheduler=debug`.
    pub default_filter: &'static str,
    /// Where spans go.
    pub trace: TraceSettings,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The metrics recorder cannot be built.
    #[error("cannot record metrics")]
    Metrics(#[from] BuildError),
    /// Another recorder is installed.
    #[error("metrics are recorded already")]
    Recorder,
    /// The thread that keeps metrics small cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The exporter of traces cannot be built.
    #[error("cannot export traces")]
    Traces(#[from] ExporterBuildError),
    /// Another subscriber is installed.
    #[error("logs are written already")]
    Logs(#[from] TryInitError),
}

/// Keeps telemetry going; spans that wait are sent when it is shut down.
#[derive(Debug)]
pub struct Telemetry {
    prometheus: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logs, metrics and, when asked for, traces. Once per process; within a runtime when traces are on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: &Options) -> Result<Self, StartError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_records".into()), &COUNTS)?
            .set_buckets_for_metric(Matcher::Suffix("_bodies".into()), &COUNTS)?
            .build_recorder();
        let prometheus = recorder.handle();
        ::metrics::set_global_recorder(recorder).map_err(|_| StartError::Recorder)?;
        keep_up(prometheus.clone())?;
        let default = || EnvFilter::new(format!("{},{QUIETER}", options.default_filter));
        let filter = EnvFilter::try_from_env("NOVA_LOG").unwrap_or_else(|_| default());
        let lines = match options.format {
            LogFormat::Text => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).boxed(),
            LogFormat::Json => tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).boxed(),
        };
        let on = !options.trace.otlp.is_empty();
        let traces = on.then(|| export::provider(options.service, &options.trace)).transpose()?;
        // Of spans made in `tracing` only those are sent that say they are part of an execution.
        let sent = traces.as_ref().map(|provider| {
            let ours = filter_fn(|meta| meta.is_span() && meta.target() == trace::TARGET);
            tracing_opentelemetry::layer().with_tracer(provider.tracer("nova")).with_filter(ours)
        });
        tracing_subscriber::registry().with(lines.with_filter(filter)).with(sent).try_init()?;
        if let Some(provider) = &traces {
            trace::send_with(provider.tracer("nova"));
        }
        Ok(Self { prometheus, traces })
    }

    /// All metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> MetricsPage {
        MetricsPage(self.prometheus.clone())
    }

    /// Sends what waits, for at most two seconds.
    pub fn shutdown(&self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(Duration::from_secs(2))
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Histograms keep every value until it is sorted into its bucket; where nobody asks for the page, that is done here.
fn keep_up(prometheus: PrometheusHandle) -> Result<(), StartError> {
    let keeping = move || {
        loop {
            std::thread::sleep(UPKEEP_EVERY);
            prometheus.run_upkeep();
        }
    };
    std::thread::Builder::new().name("metrics".into()).spawn(keeping).map(drop).map_err(StartError::Thread)
}

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct MetricsPage(PrometheusHandle);

impl MetricsPage {
    /// As it is now.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}
