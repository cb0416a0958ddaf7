//! What the real process takes of the machine, and asks of the API server, with 1,000 Rollouts at rest: `make idle-process`.
//!
//! `ROLLOUTS`, `HISTORY` (old ReplicaSets of each Deployment) and `SECONDS` (how long it is watched) may be set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod rig;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::install,
    sim::{Cluster, Gvr, Verb},
};

use self::rig::{CONTROLLER, Process, serve, setting, until};

/// Promised for 1,000 Rollouts.
const MOST: u64 = 60 << 10;
/// As a team has them.
const NAMESPACE: u64 = 50;

/// A pod template of ordinary size.
fn template(app: &Value, image: &str) -> Value {
    let env: Vec<Value> =
        (0..12).map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("value of {i}")})).collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "failureThreshold": 3});
    json!({"metadata": {"labels": app, "annotations": {"prometheus.io/scrape": "true"}}, "spec": {"containers": [{
        "name": "main", "image": image, "env": env, "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": probe, "livenessProbe": probe, "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "config", "mountPath": "/config"}]}],
        "volumes": [{"name": "config", "configMap": {"name": "config"}}]}})
}

/// A Deployment with its Service, VirtualService and Rollout, and what is left of earlier releases.
fn application(i: u64, history: u64) -> Vec<Value> {
    let (name, namespace) = (format!("web-{i}"), format!("team-{}", i / NAMESPACE));
    let app = json!({"app": name});
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(&name),
        "spec": {"replicas": 1, "selector": {"matchLabels": app}, "template": template(&app, "main:1")}});
    let applied = json!({"kubectl.kubernetes.io/last-applied-configuration": deployment.to_string()});
    deployment["metadata"]["annotations"] = applied;
    let former = (0..history).map(|old| {
        let mut set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta(&format!("{name}-{old}")),
            "spec": {"replicas": 0, "selector": {"matchLabels": app}, "template": template(&app, &format!("main:old-{old}"))}});
        set["metadata"]["labels"] = app.clone();
        set
    });
    let mut objects: Vec<Value> = former.collect();
    objects.extend([
        deployment,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(&name),
            "spec": {"selector": app, "ports": [{"port": 80}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta(&name),
            "spec": {"hosts": [name], "http": [{"route": [{"destination": {"host": name}}]}]}}),
        json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": meta(&name),
            "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "strategy": {"canary": {"enableExtraWorkloadForCanary": true,
                    "steps": [{"replicas": 1, "traffic": "20%"}, {"replicas": "100%"}],
                    "trafficRoutings": [{"service": name, "networkRefs": [
                        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": name}]}]}}}}),
    ]);
    objects
}

#[tokio::main]
async fn main() {
    let (count, history, seconds) = (setting("ROLLOUTS", 1000), setting("HISTORY", 2), setting("SECONDS", 60));
    let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
    builder = builder.kind("networking.istio.io", &["v1"], "virtualservices", "VirtualService", true);
    for namespace in 0..count.div_ceil(NAMESPACE) {
        builder = builder.namespace(&format!("team-{namespace}"));
    }
    for object in (0..count).flat_map(|i| application(i, history)) {
        builder = builder.object(object);
    }
    let cluster = builder.build().unwrap();
    let address = serve(&cluster).await;
    let dir = tempfile::tempdir().unwrap();
    let args = ["--leader-elect", "--webhook-addr", "127.0.0.1:0"];
    let process = Process::start(dir.path(), address, "0,1", &args);
    let rollouts = Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts");
    let healthy =
        || cluster.list(&rollouts, None).iter().filter(|r| r["status"]["phase"] == "Healthy").count() as u64 == count;
    until("every Rollout is Healthy", Duration::from_secs(300), healthy).await;
    let started = process.processor_time();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = || -> BTreeMap<Verb, u64> {
        let own = cluster.requests().into_iter().filter(|((who, _), _)| &**who == CONTROLLER);
        own.map(|((_, verb), n)| (verb, n)).collect()
    };
    let (before, used) = (asked(), process.processor_time());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let more: BTreeMap<String, u64> = asked()
        .into_iter()
        .map(|(verb, n)| (format!("{verb:?}"), n - before.get(&verb).copied().unwrap_or(0)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let (memory, peak) = (process.memory("VmRSS"), process.memory("VmHWM"));
    let used = process.processor_time() - used;
    println!("{count} Rollouts with {history} old ReplicaSets each, {seconds} s at rest:");
    println!("  memory {:.1} MB, at most {:.1} MB", memory as f64 / 1024.0, peak as f64 / 1024.0);
    println!("  processor {used:?}, and {started:?} until all were Healthy");
    println!("  requests {more:?} (updates: the Lease)");
    let idle = more.keys().all(|verb| ["Watch", "Update"].contains(&verb.as_str()));
    // Renewed every two seconds.
    assert!(idle && more.get("Update").is_none_or(|n| *n <= seconds / 2 + 1), "{more:?}\n{}", process.log());
    assert!(memory < MOST * count.max(1000) / 1000, "{memory} KiB of at most {MOST}");
}
