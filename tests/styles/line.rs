//! A limit on the releases in flight: whoever comes first goes first, and nobody loses count when the controller goes.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{CONTROLLER, install, options},
    controller::{self, Options},
    sim::{Cluster, View},
};
use tokio_util::sync::CancellationToken;

use crate::stage::gvr;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn deployment(name: &str, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image}]}}}})
}

fn rollout(name: &str) -> Value {
    json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": name, "namespace": "default"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "strategy": {"canary": {"enableExtraWorkloadForCanary": false, "steps": [
                {"replicas": "50%", "pause": {"duration": 30}}, {"replicas": "100%"}]}}}})
}

fn status(view: &View, name: &str) -> Value {
    let rollout = view.get(&gvr("rollouts.kruise.io", "rollouts"), "default", name);
    rollout.map(|r| r["status"].clone()).unwrap_or_default()
}

async fn until(what: &str, view: &View, is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let all: Vec<Value> = NAMES.iter().map(|name| status(view, name)).collect();
    panic!("never: {what}\n{:#}", json!(all));
}

async fn change(cluster: &Cluster, name: &str, image: &str) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client("user"), "default", &resource);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_releases_are_in_flight_than_may_be_also_over_a_restart() {
    let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout").seed(7);
    for name in NAMES {
        builder = builder.object(deployment(name, "app:1"));
    }
    let cluster = builder.build().unwrap();
    let view = cluster.view();
    // Which Rollouts were let in, in their order, and the most at a time.
    let seen = Arc::<Mutex<(Vec<String>, usize)>>::default();
    cluster.on_write(Box::new({
        let (seen, view) = (seen.clone(), view.clone());
        move |write| {
            if write.gvr.resource != "rollouts" {
                return;
            }
            let taken: BTreeSet<&str> =
                NAMES.into_iter().filter(|name| status(&view, name)["slot"]["isTaken"] == true).collect();
            let mut seen = seen.lock().unwrap();
            seen.1 = seen.1.max(taken.len());
            for name in taken {
                if !seen.0.iter().any(|known| known == name) {
                    seen.0.push(name.to_owned());
                }
            }
        }
    }));
    let start = || {
        let stop = CancellationToken::new();
        let options = Options { max_in_flight: Some(2), ..options(&cluster) };
        (tokio::spawn(controller::run(cluster.client(CONTROLLER), options, stop.clone())), stop)
    };
    let (task, stop) = start();
    for name in NAMES {
        cluster.create(rollout(name)).unwrap();
    }
    until("all healthy", &view, || NAMES.iter().all(|n| status(&view, n)["phase"] == "Healthy")).await;
    for name in ["d", "b", "a", "e", "c"] {
        change(&cluster, name, "app:2").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    until("c waits as the third in line", &view, || {
        status(&view, "c")["message"].as_str().is_some_and(|m| {
            m.contains("2 of at most 2 releases are in flight (default/b, default/d)") && m.contains("number 3 in line")
        })
    })
    .await;
    stop.cancel();
    task.await.unwrap();
    let (_task, _stop) = start();
    // The one ahead of it is taken back, which needs no place.
    change(&cluster, "e", "app:1").await;
    until("all done", &view, || {
        NAMES.iter().all(|name| {
            let status = status(&view, name);
            status["phase"] == "Healthy"
                && status["slot"].is_null()
                && (*name == "e" || status["conditions"].to_string().contains("Succeeded"))
        })
    })
    .await;
    let (order, most) = seen.lock().unwrap().clone();
    assert_eq!((order, most), (["d", "b", "a", "c"].map(str::to_owned).to_vec(), 2));
}
