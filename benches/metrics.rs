//! What 1,000 Rollouts with three metrics at 30 s cost: asking, reading and judging. `cargo bench --bench metrics`.
//!
//! Client and server share this process, so the figure is an upper bound of both; decisions and status writes that follow
//! an answer are measured by `decide` and `sim`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs, clippy::disallowed_methods)]

use std::{convert::Infallible, fs, hint::black_box, sync::Arc, time::Instant};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tidegate::{
    analysis::{Answer, Sample, ask::Ask, judge, metric, query, templates},
    api::analysis as api,
    gather::measures::{Provider, http::Web, servers::Servers},
};

const ROLLOUTS: usize = 1_000;
const METRICS: usize = 3;
const INTERVAL: f64 = 30.0;
const ROUNDS: usize = 5;

async fn serve() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(async |request: Request<Incoming>| {
                let _ = request.collect().await;
                let body = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.999"]}]}}"#;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(body.as_bytes()))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn metric(i: usize, address: &str) -> metric::Metric {
    let names = ["istio/request-success-rate", "istio/request-duration-p99", "linkerd/request-success-rate"];
    let prometheus = api::Prometheus { address: address.to_owned(), ..api::Prometheus::default() };
    let metric = api::Metric {
        name: format!("m{i}"),
        provider: Some(api::MetricProvider { prometheus: Some(prometheus), ..api::MetricProvider::default() }),
        template: Some(api::TemplateRef { name: names[i].to_owned(), ..api::TemplateRef::default() }),
        min: Some(0.0),
        interval: Some("30s".to_owned()),
        ..api::Metric::default()
    };
    let analysis = api::Analysis { metrics: vec![metric], ..api::Analysis::default() };
    metric::read("a", &analysis).unwrap().metrics.remove(0)
}

/// Seconds of processor time of this process, and its largest size in MiB.
fn used() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    (ticks / 100.0, peak.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0)
}

fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let address = serve().await;
        let servers = Arc::new(Servers { http: Arc::new(Web::default()), logins: None, allowed: Vec::new() });
        let metrics: Vec<metric::Metric> = (0..METRICS).map(|i| metric(i, &address)).collect();
        let mut states = vec![api::MetricStatus::default(); ROLLOUTS * METRICS];
        let (before, _) = used();
        let begun = Instant::now();
        for round in 0..ROUNDS {
            let at = Timestamp::from_second(1_800_000_000 + 30 * i64::try_from(round).unwrap()).unwrap();
            let asks = (0..ROLLOUTS * METRICS).map(|i| {
                let metric = &metrics[i % METRICS];
                let mut values = query::Values::new();
                values.insert("namespace".into(), query::Value::Text(format!("shop-{}", i / METRICS)));
                values.insert("canary-pods".into(), query::Value::Pattern(format!("web-{}-[^-]+", i / METRICS)));
                let rendered = templates::resolve(metric, &values, |_| None).unwrap();
                Ask::new(&rendered.provider, "shop", &rendered.query, metric.interval, at)
            });
            let answers: Vec<(Ask, Answer)> = stream::iter(asks)
                .map(|ask| {
                    let servers = servers.clone();
                    async move {
                        let answer = servers.ask(&ask).await;
                        (ask, answer)
                    }
                })
                .buffered(16)
                .collect()
                .await;
            for (i, (ask, answer)) in answers.into_iter().enumerate() {
                assert_eq!(answer, Answer::Value(0.999));
                let (metric, state) = (&metrics[i % METRICS], &mut states[i]);
                black_box(judge::take_in(state, metric, &ask.query, &[Sample { at, answer }]));
                black_box(judge::phase(state, metric, false));
            }
        }
        let (after, peak) = used();
        let (cpu, wall) = ((after - before) / ROUNDS as f64, begun.elapsed().as_secs_f64() / ROUNDS as f64);
        println!(
            "{} questions an interval: {:.3} s of processor time, {:.1} % of one core at {INTERVAL} s, {:.0} µs a question; \
             asked within {wall:.2} s; at most {peak:.0} MiB",
            ROLLOUTS * METRICS,
            cpu,
            100.0 * cpu / INTERVAL,
            1e6 * cpu / (ROLLOUTS * METRICS) as f64,
        );
    });
}
