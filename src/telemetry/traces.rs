//! Sends traces by OTLP, beside the work: a receiver that is slow or away costs spans, and never a release.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanEvents, SpanExporter, SpanLinks},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::rollout::trace::{Said, Span};

/// Spans that wait to be sent; of more the newest are lost.
const MOST_WAITING: usize = 2048;
const MOST_AT_ONCE: usize = 256;
/// Tries of one batch.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long one try may take at most, whatever the receiver does.
const PATIENCE: Duration = Duration::from_secs(30);
/// What waits may still be sent for so long when the process stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where ended spans go. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Traces {
    waiting: mpsc::Sender<Span>,
    metrics: Metrics,
}

impl Traces {
    /// Sends what is told by `exporter`, until `stop`; the task ends when what waits was sent, or soon after.
    pub fn start(
        mut exporter: impl SpanExporter + 'static,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> (Traces, impl Future<Output = ()> + Send) {
        exporter.set_resource(&resource());
        let (waiting, told) = mpsc::channel(MOST_WAITING);
        (Traces { waiting, metrics: metrics.clone() }, send(exporter, told, metrics, stop))
    }

    /// These have ended. Never waits.
    pub fn tell(&self, spans: Vec<Span>) {
        for span in spans {
            if self.waiting.try_send(span).is_err() {
                self.metrics.traced("dropped", 1);
            }
        }
    }
}

async fn send(exporter: impl SpanExporter, mut told: mpsc::Receiver<Span>, metrics: Metrics, stop: CancellationToken) {
    let mut batch = Vec::new();
    while let Some(1..) = stop.run_until_cancelled(told.recv_many(&mut batch, MOST_AT_ONCE)).await {
        let mut pause = FIRST_PAUSE;
        for tries in 1.. {
            let Err(error) = attempt(&exporter, &batch, &metrics).await else { break };
            if tries == TRIES || stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                metrics.traced("failed", batch.len());
                tracing::warn!(%error, spans = batch.len(), "traces cannot be sent; these are lost");
                break;
            }
            pause *= 4;
        }
        batch.clear();
    }
    told.close();
    while told.recv_many(&mut batch, MOST_WAITING).await > 0 {}
    if !batch.is_empty()
        && !matches!(tokio::time::timeout(FAREWELL, attempt(&exporter, &batch, &metrics)).await, Ok(Ok(())))
    {
        metrics.traced("failed", batch.len());
    }
}

async fn attempt(exporter: &impl SpanExporter, batch: &[Span], metrics: &Metrics) -> Result<(), String> {
    let spans = batch.iter().map(data).collect();
    let sent: OTelSdkResult = match tokio::time::timeout(PATIENCE, exporter.export(spans)).await {
        Ok(sent) => sent,
        Err(_) => return Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
    };
    sent.map_err(|error| error.to_string())?;
    metrics.traced("exported", batch.len());
    Ok(())
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else this program.
fn resource() -> Resource {
    let found = Resource::builder().build();
    let name = found.get(&"service.name".into()).map(|name| name.to_string()).unwrap_or_default();
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if name.is_empty() || name.starts_with("unknown_service") {
        return builder.with_service_name("tidegate").build();
    }
    builder.build()
}

fn data(span: &Span) -> SpanData {
    let id = |id: u64| SpanId::from_bytes(id.to_be_bytes());
    let trace = TraceId::from_bytes(span.trace.to_be_bytes());
    let mut events = SpanEvents::default();
    events.events = span.events.iter().map(event).collect();
    SpanData {
        span_context: SpanContext::new(trace, id(span.id), TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: span.parent.map_or(SpanId::INVALID, id),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name.clone().into(),
        start_time: time(span.from),
        end_time: time(span.to),
        attributes: span.attributes.iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: span.error.clone().map_or(Status::Ok, Status::error),
        instrumentation_scope: InstrumentationScope::builder("tidegate")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn attribute((key, value): &(&'static str, String)) -> KeyValue {
    match value.parse::<i64>() {
        Ok(number) if *key == "tidegate.step" => KeyValue::new(*key, number),
        _ => KeyValue::new(*key, value.clone()),
    }
}

fn event(said: &Said) -> Event {
    let by = (!said.by.is_empty()).then(|| KeyValue::new("tidegate.by", said.by.clone()));
    Event::new(said.deed.clone(), time(said.at), by.into_iter().collect(), 0)
}

fn time(at: Timestamp) -> SystemTime {
    SystemTime::from(at)
}
