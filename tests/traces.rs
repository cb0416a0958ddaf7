//! Traces of releases: the real controller on the in-memory cluster with a receiver that reads what OTLP says, and the command's
//! own connection to a receiver that listens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, clippy::disallowed_methods)]

mod stage;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use http::{Request, Response};
use include_dir::{Dir, include_dir};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use rustls::{ServerConfig, sign::SingleCertAndKey};
use serde_json::Value;
use stage::{Stage, play};
use tidegate::{
    cli::traces::TraceArgs,
    controller::Options,
    rollout::trace,
    telemetry::{Metrics, Traces},
    webhook::certificates,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/notifications");

/// Takes what it is sent, or is away.
#[derive(Clone, Debug, Default)]
struct Receiver {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<Vec<String>>>,
    is_away: Arc<Mutex<bool>>,
}

fn read(body: &[u8]) -> (Vec<Span>, Vec<String>) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let of = request.resource_spans;
    let services =
        of.iter().map(|r| values(&r.resource.as_ref().unwrap().attributes)["service.name"].clone()).collect();
    (of.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect(), services)
}

impl HttpClient for Receiver {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            if *self.is_away.lock().unwrap() {
                return Err("connection refused".into());
            }
            assert_eq!(request.uri(), "http://collector:4318/v1/traces");
            let (spans, services) = read(request.body());
            self.spans.lock().unwrap().extend(spans);
            self.services.lock().unwrap().extend(services);
            Ok(Response::new(Bytes::new()))
        })
    }
}

fn values(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.clone().unwrap().value.unwrap() {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|a| (a.key.clone(), text(a))).collect()
}

struct Traced {
    stage: Stage,
    receiver: Receiver,
    metrics: Metrics,
}

impl Traced {
    async fn new() -> Traced {
        let (receiver, metrics) = (Receiver::default(), Metrics::with_exemplars());
        let (to, counted) = (receiver.clone(), metrics.clone());
        let adjust = move |options: &mut Options, stop: &CancellationToken| {
            let builder = SpanExporter::builder().with_http().with_http_client(to.clone());
            let exporter = builder.with_endpoint("http://collector:4318/v1/traces").build().unwrap();
            let (traces, sending) = Traces::start(exporter, counted.clone(), stop.clone());
            tokio::spawn(sending);
            (options.traces, options.metrics) = (Some(traces), counted.clone());
        };
        Traced { stage: Stage::new(&MANIFESTS, adjust).await, receiver, metrics }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.stage.until(what, is_so).await;
        // What it told is on its way.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Name and outcome of each span that was sent.
    fn sent(&self) -> Vec<String> {
        let spans = self.receiver.spans.lock().unwrap();
        spans.iter().map(|s| format!("{}: {}", s.name, values(&s.attributes)["tidegate.outcome"])).collect()
    }
}

fn waits(status: &Value) -> bool {
    status["currentStepState"] == "StepPaused" && status["phase"] == "Progressing"
}

#[test]
fn a_release_is_one_trace_also_across_a_restart() {
    play(async {
        let mut traced = Traced::new().await;
        traced.stage.release("2").await;
        traced.until("waits", waits).await;
        assert!(traced.sent().is_empty(), "nothing has ended");
        let open = traced.stage.status()["trace"].clone();
        let shown = format!("# {{trace_id={}}}", open["traceID"]);
        assert!(traced.metrics.encode().contains(&shown), "{open}");
        traced.stage.stop();
        tokio::time::sleep(Duration::from_secs(60)).await;
        traced.stage.start();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(traced.stage.status()["trace"], open);
        traced.stage.approve().await;
        traced.until("done", |s| s["phase"] == "Healthy").await;
        assert!(traced.stage.status().get("trace").is_none());
        assert_eq!(
            traced.sent(),
            ["step 1: completed", "step 2: completed", "wind up: completed", "release: completed"]
        );
        let spans = traced.receiver.spans.lock().unwrap().clone();
        let root = spans.last().unwrap();
        assert_eq!(root.trace_id.iter().map(|b| format!("{b:02x}")).collect::<String>(), open["traceID"]);
        assert!(root.parent_span_id.is_empty() && root.status.as_ref().unwrap().code() == StatusCode::Ok);
        // One after the other, and together the whole.
        let mut end = root.start_time_unix_nano;
        for span in &spans[..3] {
            assert_eq!((&span.trace_id, &span.parent_span_id), (&root.trace_id, &root.span_id));
            assert_eq!(span.start_time_unix_nano, end);
            end = span.end_time_unix_nano;
        }
        assert_eq!(end, root.end_time_unix_nano);
        assert!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano > 120_000_000_000);
        let first = values(&spans[0].attributes);
        let expected = [("k8s.namespace.name", "default"), ("tidegate.rollout", "shop"), ("tidegate.step", "1")];
        assert!(expected.iter().all(|(key, value)| first[*key] == *value) && !first["tidegate.revision"].is_empty());
        assert!(traced.receiver.services.lock().unwrap().iter().all(|name| name == "tidegate"));
        // The next release is another trace.
        traced.stage.release("3").await;
        traced.until("waits", waits).await;
        assert_ne!(traced.stage.status()["trace"]["traceID"], open["traceID"]);
    });
}

#[test]
fn a_receiver_that_is_away_holds_up_no_release() {
    play(async {
        let traced = Traced::new().await;
        *traced.receiver.is_away.lock().unwrap() = true;
        traced.stage.release("2").await;
        traced.until("waits", waits).await;
        traced.stage.approve().await;
        traced.until("done", |s| s["phase"] == "Healthy").await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        let failed = "tidegate_trace_spans_total{result=\"failed\"} 4\n";
        assert!(traced.metrics.encode().contains(failed), "{}", traced.metrics.encode());
        *traced.receiver.is_away.lock().unwrap() = false;
        traced.stage.release("1").await;
        traced.until("waits", waits).await;
        // What is rolled back is an error.
        traced.stage.release("2").await;
        traced.until("rolled back", |s| s["phase"] == "Healthy").await;
        assert_eq!(traced.sent(), ["step 1: rolled-back", "wind up: rolled-back", "release: rolled-back"]);
        let spans = traced.receiver.spans.lock().unwrap().clone();
        assert!(spans.iter().all(|span| span.status.as_ref().unwrap().code() == StatusCode::Error));
    });
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    traces: TraceArgs,
}

fn command(args: &[&str]) -> TraceArgs {
    Command::parse_from([&["tidegate"], args].concat()).traces
}

/// Answers one request; its head, in small letters, and what it tells.
async fn receive(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> (String, (Vec<Span>, Vec<String>)) {
    let mut got = Vec::new();
    loop {
        let mut part = [0; 4096];
        let n = stream.read(&mut part).await.unwrap();
        assert!(n > 0, "the request breaks off");
        got.extend_from_slice(&part[..n]);
        let Some(at) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(got[..at].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap();
        if got.len() == at + 4 + length {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream.flush().await.unwrap();
            return (head, read(&got[at + 4..]));
        }
    }
}

/// Sends a span as the process does that stops: what waits then is sent too. The metrics say what became of it.
async fn send(args: &[&str]) -> String {
    let (metrics, stop) = (Metrics::new(), CancellationToken::new());
    let (traces, sending) = command(args).start(&metrics, stop.clone()).unwrap().unwrap();
    let sending = tokio::spawn(sending);
    let span = trace::Span {
        trace: 1,
        id: 2,
        parent: None,
        name: "release".to_owned(),
        from: "2026-11-22T06:10:00Z".parse().unwrap(),
        to: "2026-11-22T06:20:00Z".parse().unwrap(),
        attributes: vec![("tidegate.step", "3".to_owned())],
        error: None,
        events: Vec::new(),
    };
    traces.tell(vec![span]);
    stop.cancel();
    sending.await.unwrap();
    metrics.encode()
}

const EXPORTED: &str = "tidegate_trace_spans_total{result=\"exported\"} 1\n";

#[tokio::test]
async fn the_command_sends_to_a_receiver_that_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    let served = tokio::spawn(async move { receive(listener.accept().await.unwrap().0).await });
    let metrics = send(&["--otlp-endpoint", &endpoint]).await;
    let (head, (spans, services)) = served.await.unwrap();
    assert!(
        head.starts_with("post /v1/traces http/1.1") && head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    assert_eq!((spans[0].name.as_str(), services), ("release", vec!["tidegate".to_owned()]));
    assert!(metrics.contains(EXPORTED), "{metrics}");
}

fn acceptor(own: &certificates::Certificates) -> TlsAcceptor {
    let key = Arc::new(certificates::certified_key(&own.cert, &own.key).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let resolver = SingleCertAndKey::from(key);
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::new(resolver))))
}

/// Where the process that sends, a second run of this test, finds the receiver and its authorities.
const SENDS_TO: &str = "TIDEGATE_TEST_OTLP_RECEIVER";

#[tokio::test]
async fn a_receiver_behind_tls_is_judged_by_its_authority_and_sent_the_headers_of_the_environment() {
    const SELF: &str = "a_receiver_behind_tls_is_judged_by_its_authority_and_sent_the_headers_of_the_environment";
    if let Ok(to) = std::env::var(SENDS_TO) {
        let (endpoint, ca) = to.split_once(' ').unwrap();
        let metrics = send(&["--otlp-endpoint", endpoint, "--otlp-certificate", ca]).await;
        assert!(metrics.contains(EXPORTED), "{metrics}");
        return;
    }
    let made = || certificates::renew(None, &["localhost".to_owned()], jiff::Timestamp::now()).unwrap().unwrap();
    let (own, other) = (made(), made());
    let acceptor = acceptor(&own);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (trusted, wrong) = (file("ca.pem", &own.ca), file("other.pem", &other.ca));

    // Of an authority that is not named, nothing is sent.
    let refused = tokio::spawn({
        let acceptor = acceptor.clone();
        async move {
            let (stream, _) = listener.accept().await.unwrap();
            let is_refused = match acceptor.accept(stream).await {
                Ok(mut stream) => !matches!(stream.read(&mut [0; 1]).await, Ok(1)),
                Err(_) => true,
            };
            (listener, is_refused)
        }
    });
    let metrics = send(&["--otlp-endpoint", &endpoint, "--otlp-certificate", &wrong]).await;
    assert!(metrics.contains("tidegate_trace_spans_total{result=\"failed\"} 1\n"), "{metrics}");
    let (listener, is_refused) = refused.await.unwrap();
    assert!(is_refused);

    let served = tokio::spawn(async move {
        loop {
            // Who was refused may have come twice.
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                return receive(stream).await;
            }
        }
    });
    // Only a process of its own has an environment of its own.
    let sender = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", SELF])
        .env(SENDS_TO, format!("{endpoint} {trusted}"))
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret,x-scope-orgid=shop")
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=releases")
        .stdout(std::process::Stdio::null())
        .spawn();
    let (head, (spans, services)) = served.await.unwrap();
    assert!(sender.unwrap().wait().unwrap().success());
    for line in ["post /v1/traces http/1.1", "authorization: bearer s3cret", "x-scope-orgid: shop"] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    assert_eq!((spans[0].name.as_str(), services), ("release", vec!["releases".to_owned()]));
}

#[test]
fn traces_are_opt_in_and_a_wrong_address_is_refused() {
    let start = |args: &[&str]| command(args).start(&Metrics::new(), CancellationToken::new()).map(|t| t.is_some());
    assert!(!start(&[]).unwrap());
    for (args, says) in [
        (&["--otlp-endpoint", "collector:4318"][..], "write a URL such as http://otel-collector.monitoring:4318"),
        (
            &["--otlp-endpoint", "http://c:4318", "--otlp-certificate", "/nowhere.pem"],
            "--otlp-certificate /nowhere.pem",
        ),
    ] {
        let error = start(args).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
