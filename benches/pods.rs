//! What pods cost a controller at rest: memory and requests, in a cluster without pods and in one with 50,000.
//!
//! `cargo bench --bench pods`; each cluster is in a process of its own. Linux only: memory is what `/proc` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods, missing_docs)]

use std::{fs, process::Command, time::Duration};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{CONTROLLER, install, start_controller},
    sim::{Cluster, Fault, Gvr, Rule},
};
use tokio_util::sync::CancellationToken;

const PODS: [usize; 2] = [0, 50_000];
/// Pods of the one workload that has a Rollout.
const RELEASED: i64 = 4;

/// Resident memory, in KiB.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

fn pod(i: usize) -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": format!("registry.example/{name}:1.2.3"),
        "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{i}"), "namespace": "others", "labels": {"app": format!("app-{}", i % 500)}},
        "spec": {"nodeName": "node-1", "containers": [container("main"), container("sidecar")]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

async fn rest(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Requests for pods by the controller.
fn asked(cluster: &Cluster) -> u64 {
    cluster.fault_counts().iter().filter(|((who, _), _)| &**who == CONTROLLER).map(|(_, n)| n).sum()
}

async fn measure(pods: usize) {
    let template = |image: &str| json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "main", "image": image}]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"replicas": RELEASED, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template("db:1")}});
    let rollout = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "db"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db"},
            "strategy": {"canary": {"steps": [{"replicas": 1}, {"replicas": "100%"}]}}}});
    let builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout").namespace("others").history(10);
    let cluster = builder.object(set).build().unwrap();
    rest(60).await;
    for i in 0..pods {
        cluster.create(pod(i)).unwrap();
    }
    // The cluster's own controllers come to rest.
    rest(600).await;
    let zero = Duration::ZERO..=Duration::ZERO;
    cluster.add_fault(Rule::new(CONTROLLER, Fault::Latency(zero)).resource("pods"));
    let before = resident();
    let stop = CancellationToken::new();
    let controller = start_controller(&cluster, cluster.client(CONTROLLER), stop.clone());
    cluster.create(rollout).unwrap();
    let status = || {
        let rollout = cluster.get(&Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts"), "default", "db");
        rollout.map(|r| r["status"].clone()).unwrap_or_default()
    };
    rest(600).await;
    assert_eq!(status()["phase"], "Healthy", "{}", status());
    let at_rest = (resident() - before, asked(&cluster));
    assert_eq!(at_rest.1, 0, "nobody asks for pods between releases");

    // A release of the one workload: its four pods are followed, and no others.
    let sets: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::default_namespaced(cluster.client("user"));
    let change = json!({"spec": {"template": template("db:2")}});
    sets.patch("db", &PatchParams::default(), &Patch::Strategic(change)).await.unwrap();
    rest(120).await;
    assert_eq!(status()["currentStepState"], "StepPaused", "{}", status());
    let in_release = (resident() - before, asked(&cluster));
    stop.cancel();
    controller.await.unwrap();

    println!("| {pods} | {} | {} | {} | {} |", at_rest.0, at_rest.1, in_release.0, in_release.1);
}

fn main() {
    let pods = std::env::args().find_map(|arg| arg.strip_prefix("pods=").and_then(|n| n.parse().ok()));
    if let Some(pods) = pods {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(measure(pods));
        return;
    }
    println!("| pods | at rest, KiB | requests for pods | in a release of 4 pods, KiB | requests for pods |");
    println!("|---|---|---|---|---|");
    for pods in PODS {
        let this = std::env::current_exe().unwrap();
        assert!(Command::new(this).arg(format!("pods={pods}")).status().unwrap().success());
    }
}
