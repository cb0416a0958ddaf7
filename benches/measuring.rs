//! The real controller's process with 1,000 releases that are judged by three metrics each, every 30 s: what that takes of the
//! machine, and whether anything is asked more often than it says. `make metrics-process`.
//!
//! The API server is in memory, in this process, and so is what answers the questions over real connections.
//! `ROLLOUTS`, `SECONDS` (measured, after the first two intervals), `SHARED=1`: all Rollouts ask the same three questions;
//! `NAMESPACES`: among how many they are, for a watch is of one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod rig;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rig::{CONTROLLER, Process, serve, setting, until};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::install,
    sim::{Cluster, Gvr},
};
use tokio::{net::TcpListener, time::Instant};

/// Promised for 1,000 releases: of one core, in percent, and of memory, in MB.
const MOST: (f64, f64) = (5.0, 100.0);
const INTERVAL: u64 = 30;
const METRICS: usize = 3;

/// When each question was asked.
type Asked = Arc<Mutex<BTreeMap<String, Vec<Instant>>>>;

/// A metrics server that knows one answer.
async fn prometheus(asked: Asked) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asked = asked.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let asked = asked.clone();
                async move {
                    let body = request.collect().await.unwrap().to_bytes();
                    let question = String::from_utf8_lossy(&body).into_owned();
                    asked.lock().unwrap().entry(question).or_default().push(Instant::now());
                    let answer = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.999"]}]}}"#;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(answer.as_bytes()))))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn application(i: u64, namespace: &str, server: &str, is_shared: bool) -> [Value; 2] {
    let name = format!("web-{i}");
    let app = json!({"app": name});
    let meta = json!({"name": name, "namespace": namespace});
    let names = ["istio/request-success-rate", "istio/request-duration-p99", "linkerd/request-success-rate"];
    let metrics: Vec<Value> = (0..METRICS)
        .map(|n| {
            let mut metric = json!({"name": format!("m{n}"), "min": 0.0, "interval": format!("{INTERVAL}s"), "count": 1000,
                "provider": {"prometheus": {"address": server}}});
            if is_shared {
                metric["query"] = json!(format!("sum(rate(errors_{n}[{{{{ interval }}}}]))"));
            } else {
                metric["template"] = json!({"name": names[n]});
            }
            metric
        })
        .collect();
    [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": 2,
            "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}}),
        json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": meta,
            "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "strategy": {"analysis": {"metrics": metrics},
                    "canary": {"steps": [{"replicas": 1}, {"replicas": "100%"}]}}}}),
    ]
}

#[tokio::main]
async fn main() {
    let (count, seconds, is_shared) = (setting("ROLLOUTS", 1000), setting("SECONDS", 120), setting("SHARED", 0) > 0);
    let namespaces = setting("NAMESPACES", 1);
    let namespace = |i: u64| format!("shop-{}", i % namespaces);
    let asked = Asked::default();
    let server = prometheus(asked.clone()).await;
    let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
    for i in 0..namespaces {
        builder = builder.namespace(&namespace(i));
    }
    for object in (0..count).flat_map(|i| application(i, &namespace(i), &server, is_shared)) {
        builder = builder.object(object);
    }
    let cluster = builder.build().unwrap();
    let address = serve(&cluster).await;
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), address, "0,1", &["--leader-elect"]);
    let rollouts = Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts");
    let of = |holds: fn(&Value) -> bool| cluster.list(&rollouts, None).iter().filter(|r| holds(r)).count() as u64;
    let longest = Duration::from_secs(600);
    until("every Rollout is Healthy", longest, || of(|r| r["status"]["phase"] == "Healthy") == count).await;
    let users = cluster.client("user");
    stream::iter(0..count)
        .for_each_concurrent(16, |i| {
            let users: Api<Deployment> = Api::namespaced(users.clone(), &namespace(i));
            async move {
                let image =
                    json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}});
                let patch = Patch::Strategic(image);
                users.patch(&format!("web-{i}"), &PatchParams::default(), &patch).await.unwrap();
            }
        })
        .await;
    let is_measured = |r: &Value| {
        let metrics = r.pointer("/status/canaryStatus/analysis/step/metrics").and_then(Value::as_array);
        metrics
            .is_some_and(|metrics| metrics.len() == METRICS && metrics.iter().all(|m| m["passed"].as_i64() > Some(0)))
    };
    until("every metric was measured", longest, || of(is_measured) == count).await;
    // What came with the start of the releases is over by then.
    tokio::time::sleep(Duration::from_secs(2 * INTERVAL)).await;
    let writes = || -> u64 {
        let own = cluster.requests().into_iter().filter(|((who, _), _)| &**who == CONTROLLER);
        own.map(|(_, n)| n).sum()
    };
    let (from, used, requests) = (Instant::now(), process.processor_time(), writes());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (used, wall, requests) = (process.processor_time() - used, from.elapsed(), writes() - requests);
    let (memory, peak) = (process.memory("VmRSS") as f64 / 1024.0, process.memory("VmHWM") as f64 / 1024.0);
    let asked = asked.lock().unwrap().clone();
    let questions: usize = asked.values().map(|times| times.iter().filter(|at| **at >= from).count()).sum();
    let shortest = asked.values().flat_map(|times| times.windows(2).map(|pair| pair[1] - pair[0])).min().unwrap();
    let share = 100.0 * used.as_secs_f64() / wall.as_secs_f64();
    println!(
        "{count} releases in {namespaces} namespaces, {METRICS} metrics each at {INTERVAL} s{}, over {wall:.0?}:",
        if is_shared { ", the same" } else { "" }
    );
    println!("  processor {share:.1} % of one core; memory {memory:.1} MB, at most {peak:.1} MB");
    println!(
        "  {questions} questions, none sooner than {shortest:.1?} after the last; {requests} requests to the API server"
    );
    let intervals = wall.as_secs().div_ceil(INTERVAL) as usize + 1;
    let different = if is_shared { METRICS } else { METRICS * count as usize };
    assert!(questions <= different * intervals, "{questions} questions");
    assert!(shortest >= Duration::from_secs(INTERVAL * 9 / 10 - 1), "{shortest:?}");
    assert!(of(is_measured) == count, "{}", process.log());
    let part = count.max(1000) as f64 / 1000.0;
    if share > MOST.0 * part || memory > MOST.1 * part {
        println!("  more than the {} % and {} MB that are promised", MOST.0 * part, MOST.1 * part);
        // Nothing is dropped by an exit.
        drop((process, dir));
        std::process::exit(1);
    }
}
