//! Sending spans: from a bounded queue, by a thread of its own, with a limit of time. Who makes a span never waits: what
//! does not fit into the queue is dropped, and so is what the receiver does not take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::counter;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};

use crate::metrics as names;
use crate::settings::{BATCH_SPANS, TraceSettings};

/// No receiver needs to be there yet. Within a runtime.
pub(crate) fn provider(
    service: &'static str,
    settings: &TraceSettings,
) -> Result<SdkTracerProvider, ExporterBuildError> {
    let otlp = Otlp::builder().with_tonic().with_endpoint(&*settings.otlp).with_timeout(settings.timeout()).build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue_spans)
        .with_max_export_batch_size(BATCH_SPANS)
        .with_scheduled_delay(settings.send_every())
        .build();
    let exporter = Exporter { otlp, lost: AtomicBool::new(false) };
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_sampler(sampler())
        .with_resource(resource)
        .build())
}

/// Whether an execution is traced is decided where it is submitted; spans are only made for those that are.
pub(crate) fn sampler() -> Sampler {
    Sampler::ParentBased(Box::new(Sampler::AlwaysOn))
}

/// Counts what is sent, and says once that the receiver is gone and once that it is back.
#[derive(Debug)]
struct Exporter {
    otlp: Otlp,
    lost: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        match self.otlp.export(batch).await {
            Ok(()) => {
                counter!(names::SPANS_SENT).increment(count);
                if self.lost.swap(false, Ordering::Relaxed) {
                    tracing::info!("the receiver of traces takes spans again");
                }
            }
            Err(error) => {
                counter!(names::SPANS_LOST).increment(count);
                if !self.lost.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the receiver of traces takes no spans; they are dropped");
                }
            }
        }
        // What is lost is told here: the caller would say it again with each batch.
        Ok(())
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(limit)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use opentelemetry::trace::{Tracer, TracerProvider as _};

    use super::provider;
    use crate::settings::TraceSettings;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_receiver_that_never_answers_holds_nobody_up() {
        // It is connected by the system, and nobody ever reads.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let otlp = format!("http://{}", silent.local_addr().unwrap());
        let settings = TraceSettings { otlp, queue_spans: 512, timeout_ms: 2_000, send_every_ms: 10 };
        let provider = provider("test", &settings).unwrap();
        let tracer = provider.tracer("test");
        let begun = Instant::now();
        for _ in 0..50_000 {
            drop(tracer.start("span"));
        }
        // A hundred queues full; had each waited for a request, it would be minutes.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let begun = Instant::now();
        let _ = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(Duration::from_secs(1))).await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
