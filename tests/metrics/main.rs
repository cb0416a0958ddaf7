//! Metrics that decide, with the real controller on the in-memory cluster: the stories of `examples/`, how often servers are
//! asked, and what comes of a release in each situation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod situations;
#[path = "../stage/mod.rs"]
mod stage;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use stage::{NAME, NAMESPACE, Stage, play};
use tidegate::{
    analysis::{Answer, ask::Ask},
    gather::measures::Provider,
    sim::{Cluster, Gvr},
};

/// Plays a story of `tidegate demo`, which says all of this.
fn demo(name: &str, says: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(["demo", name]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for says in says {
        assert!(text.contains(says), "{says}: {text}");
    }
}

#[test]
fn a_good_version_is_promoted_and_a_bad_one_rolled_back() {
    demo(
        "metrics",
        &[
            "success-rate: 3 of 4 measured, 0 failed; value 0.9991 is not below min 0.99",
            "1 of 4 measured, 1 failed; value 0.93 is below min 0.99",
            "AnalysisFailed",
            "value 0.93 is below min 0.99 (2 of 2 measurements failed, 1 forgiven); query: 1 -",
        ],
    );
}

#[test]
fn in_a_bad_hour_of_everybody_only_the_version_that_is_worse_goes_back() {
    demo(
        "compare",
        &["errors 3.0 % of", "not worse by 2.0 points", "errors 10.0 % of", "AnalysisFailed", "10 of version 2"],
    );
}

/// A metrics server that notes when it was asked what.
#[derive(Clone)]
struct Server {
    clock: Arc<Mutex<Option<Cluster>>>,
    asked: Arc<Mutex<BTreeMap<String, Vec<Timestamp>>>>,
}

impl Provider for Server {
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer> {
        let now = self.clock.lock().unwrap().as_ref().map(|cluster| cluster.clock().now()).unwrap_or(ask.due);
        self.asked.lock().unwrap().entry(ask.query.clone()).or_default().push(now);
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Answer::Value(1.0)
        })
    }
}

const INTERVAL: i64 = 30;

/// A Deployment, and a Rollout whose release is measured behind its back: by a question that all share, and by one of its own.
fn application(name: &str) -> [Value; 2] {
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    let metric = |of: &str, query: &str| {
        json!({"name": of, "query": query, "min": 0.5, "interval": format!("{INTERVAL}s"),
            "provider": {"prometheus": {"address": "http://prometheus:9090"}}})
    };
    let metrics = [metric("shared", "up"), metric("own", "up{app={{ rollout }}}")];
    [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "shop", "image": "registry.example/shop:1"}]}}}}),
        json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": metadata, "spec": {
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "strategy": {"analysis": {"background": true, "metrics": metrics},
                "canary": {"steps": [{"replicas": 1}, {"replicas": "100%"}]}}}}),
    ]
}

/// Neither restarts of the controller nor those of others who take over make a question come early, and what three Rollouts want
/// to know is asked once.
#[test]
fn no_query_more_than_its_interval_says_through_restarts() {
    play(async {
        let server = Server { clock: Arc::default(), asked: Arc::default() };
        let names = [NAME, "web", "api"];
        let provider = server.clone();
        let adjust = move |options: &mut tidegate::controller::Options, _: &_| {
            let provider = provider.clone();
            options.provider = Arc::new(move |_| Arc::new(provider.clone()));
        };
        let objects = names.iter().flat_map(|name| application(name)).collect();
        let mut stage = Stage::on(Cluster::builder(), objects, adjust).await;
        *server.clock.lock().unwrap() = Some(stage.cluster.clone());
        for (i, name) in names.iter().enumerate() {
            stage.release_of(name, "2").await;
            tokio::time::sleep(Duration::from_secs(7 * (i as u64 + 1))).await;
        }
        let begun = stage.cluster.clock().now();
        // A leader that goes and one that comes are a controller that begins with nothing but what the cluster knows.
        for i in 0..40_u64 {
            tokio::time::sleep(Duration::from_millis(45_000 + 1_730 * i)).await;
            // Also while a question is on its way, and its answer is lost.
            let asked = || server.asked.lock().unwrap().values().map(Vec::len).sum::<usize>();
            if i % 2 == 0 {
                let before = asked();
                while asked() == before {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            stage.stop();
            tokio::time::sleep(Duration::from_secs([0, 1, 20, 70][i as usize % 4])).await;
            stage.start();
        }
        tokio::time::sleep(Duration::from_secs(120)).await;
        let passed = stage.cluster.clock().now().duration_since(begun).as_secs();
        let asked = server.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1 + names.len(), "{:?}", asked.keys());
        for (query, times) in &asked {
            let least = times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_millis()).min().unwrap();
            assert!(least >= i128::from(INTERVAL) * 900, "{query}: {least} ms apart");
            // Most of the moments, in spite of all that.
            let moments = passed / INTERVAL;
            assert!(times.len() as i64 > moments / 3, "{query}: {} of {moments} moments", times.len());
        }
        let rollouts = Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts");
        for name in names {
            let status = stage.cluster.get(&rollouts, NAMESPACE, name).unwrap()["status"].clone();
            let metrics = &status["canaryStatus"]["analysis"]["background"]["metrics"];
            assert!(metrics.as_array().unwrap().iter().all(|m| m["passed"].as_i64().unwrap() > 20), "{metrics:#}");
        }
    });
}
