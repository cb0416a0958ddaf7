//! Idle costs nothing: with nothing changing there is no request but watches (invariant 12). `make idle` has 1,000 Rollouts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use tidegate::{
    cli::demo::world::{CONTROLLER, install, start_controller},
    sim::{Cluster, Gvr, Verb},
};
use tokio_util::sync::CancellationToken;

/// Rollouts of a namespace.
const NAMESPACE: usize = 25;

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_nothing_ask_for_nothing() {
    let count: usize = std::env::var("ROLLOUTS").map_or(50, |n| n.parse().unwrap());
    let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
    builder = builder.kind("networking.istio.io", &["v1"], "virtualservices", "VirtualService", true);
    // The controllers of the cluster look at whole namespaces.
    let namespaces = (0..count.div_ceil(NAMESPACE)).map(|i| format!("team-{i}"));
    for namespace in namespaces {
        builder = builder.namespace(&namespace);
    }
    for i in 0..count {
        let name = format!("web-{i}");
        let app = json!({"app": name});
        let meta = |name: &str| json!({"name": name, "namespace": format!("team-{}", i / NAMESPACE)});
        builder = builder
            .object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(&name),
                "spec": {"replicas": 1, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                         "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}}))
            .object(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(&name),
                "spec": {"selector": app, "ports": [{"port": 80}]}}))
            .object(json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta(&name),
                "spec": {"hosts": [name], "http": [{"route": [{"destination": {"host": name}}]}]}}))
            .object(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": meta(&name),
                "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                    "strategy": {"canary": {"enableExtraWorkloadForCanary": true, "steps": [{"replicas": 1, "traffic": "20%"}, {"replicas": "100%"}],
                        "trafficRoutings": [{"service": name, "networkRefs": [
                            {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": name}]}]}}}}));
    }
    let cluster = builder.build().unwrap();
    let stop = CancellationToken::new();
    start_controller(&cluster, cluster.client(CONTROLLER), stop.clone());
    let rollouts = Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts");
    let healthy = || cluster.list(&rollouts, None).iter().filter(|r| r["status"]["phase"] == "Healthy").count();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if healthy() == count {
            break;
        }
    }
    assert_eq!(healthy(), count);
    // What was decided last has been seen.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let asked = || -> BTreeMap<Verb, u64> {
        let own = cluster.requests().into_iter().filter(|((who, _), _)| &**who == CONTROLLER);
        own.map(|((_, verb), n)| (verb, n)).collect()
    };
    let (before, writes) = (asked(), cluster.writes());
    tokio::time::sleep(Duration::from_secs(600)).await;
    let more: BTreeMap<String, u64> = asked()
        .into_iter()
        .map(|(verb, n)| (format!("{verb:?}"), n - before.get(&verb).copied().unwrap_or(0)))
        .filter(|(_, n)| *n > 0)
        .collect();
    eprintln!("{count} Rollouts, ten minutes at rest: {more:?}");
    assert!(more.keys().all(|verb| verb == "Watch"), "{more:?}");
    assert_eq!(cluster.writes(), writes);
    stop.cancel();
}
