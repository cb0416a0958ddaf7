//! Idle costs nothing: with nothing changing there is no request but watches (invariant 12). `make idle` has 1,000 Rollouts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{CONTROLLER, install, options, start_controller},
    controller, rollout,
    sim::{Builder, Cluster, Gvr, Verb},
};
use tokio_util::sync::CancellationToken;

/// Rollouts of a namespace.
const NAMESPACE: usize = 25;

/// A workload with its Service and its route, and a Rollout of it.
fn released(builder: Builder, name: &str, namespace: &str) -> Builder {
    let app = json!({"app": name});
    let meta = json!({"name": name, "namespace": namespace});
    builder
        .object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
            "spec": {"replicas": 1, "selector": {"matchLabels": app}, "template": template(name, 1)}}))
        .object(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {"selector": app, "ports": [{"port": 80}]}}))
        .object(json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta,
            "spec": {"hosts": [name], "http": [{"route": [{"destination": {"host": name}}]}]}}))
        .object(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": meta,
            "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "strategy": {"canary": {"enableExtraWorkloadForCanary": true, "steps": [{"replicas": 1, "traffic": "20%"}, {"replicas": "100%"}],
                    "trafficRoutings": [{"service": name, "networkRefs": [
                        {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": name}]}]}}}}))
}

fn template(app: &str, version: u32) -> Value {
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": format!("main:{version}")}]}})
}

/// The controller's requests so far.
fn asked(cluster: &Cluster) -> BTreeMap<Verb, u64> {
    let own = cluster.requests().into_iter().filter(|((who, _), _)| &**who == CONTROLLER);
    own.map(|((_, verb), n)| (verb, n)).collect()
}

/// Somebody touches what a Rollout is about, at rest and while a step waits: the controller looks, finds that nothing is
/// to be done, and asks the API server for nothing.
#[tokio::test(start_paused = true)]
async fn a_look_that_changes_nothing_asks_for_nothing() {
    let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
    builder = builder.kind("networking.istio.io", &["v1"], "virtualservices", "VirtualService", true);
    let cluster = released(builder, "web", "default").build().unwrap();
    let (looks, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let counted = looks.clone();
    let decide: controller::Decide = Arc::new(move |snapshot| {
        counted.fetch_add(1, Ordering::Relaxed);
        rollout::decide(snapshot)
    });
    let options = controller::Options { decide, ..options(&cluster) };
    tokio::spawn(controller::run(cluster.client(CONTROLLER), options, stop.clone()));

    let patch = async |api_version: &str, kind: &str, patch: Value| {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::default_namespaced_with(cluster.client("user"), &resource);
        let (params, merge) = (PatchParams::default(), Patch::Merge(&patch));
        let answer = match patch.get("status") {
            Some(_) => api.patch_status("web", &params, &merge).await,
            None => api.patch("web", &params, &merge).await,
        };
        answer.unwrap();
    };
    let status = |path: &str| {
        let rollout = cluster.get(&Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts"), "default", "web").unwrap();
        rollout["status"].pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    for (stage, path, wanted) in
        [("at rest", "/phase", "Healthy"), ("while a step waits", "/canaryStatus/currentStepState", "StepPaused")]
    {
        if stage != "at rest" {
            patch("apps/v1", "Deployment", json!({"spec": {"template": template("web", 2)}})).await;
        }
        for _ in 0..600 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if status(path) == wanted {
                break;
            }
        }
        assert_eq!(status(path), wanted, "{stage}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        for (api_version, kind, touch) in [
            ("rollouts.kruise.io/v1beta1", "Rollout", json!({"metadata": {"annotations": {"touched": stage}}})),
            ("v1", "Service", json!({"metadata": {"annotations": {"touched": stage}}})),
            ("networking.istio.io/v1", "VirtualService", json!({"status": {"touched": stage}})),
        ] {
            let more_than_watches = || asked(&cluster).into_iter().filter(|(verb, _)| *verb != Verb::Watch);
            let (before, seen): (BTreeMap<_, _>, _) = (more_than_watches().collect(), looks.load(Ordering::Relaxed));
            patch(api_version, kind, touch).await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(looks.load(Ordering::Relaxed) > seen, "{stage}: nobody looks at the {kind}");
            assert_eq!(more_than_watches().collect::<BTreeMap<_, _>>(), before, "{stage}: {kind}");
        }
    }
    stop.cancel();
}

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
        builder = released(builder, &format!("web-{i}"), &format!("team-{}", i / NAMESPACE));
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
    let asked = || asked(&cluster);
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
