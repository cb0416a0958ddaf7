//! Pods say which release and which step brought them, where the user gave the release an id.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tidegate::cli::demo::world::CONTROLLER;

use crate::{
    stage::{Stage, play, pods, version},
    stories::partition,
};

const ID: &str = "rollouts.kruise.io/rollout-id";

fn styles() -> [(&'static str, Value); 3] {
    let steps = json!([{"replicas": 1}, {"replicas": "60%"}]);
    let canary = json!({"enableExtraWorkloadForCanary": true, "steps": steps,
        "patchPodTemplateMetadata": {"labels": {"version": "canary"}}});
    [
        ("canary", json!({"canary": canary})),
        ("partition", partition(steps.clone())),
        ("blueGreen", json!({"blueGreen": {"steps": [{"replicas": "40%"}, {"replicas": "100%"}]}})),
    ]
}

/// New pods by release and batch; writes of pods by the controller.
async fn stage(strategy: &Value) -> (Stage, Arc<AtomicUsize>) {
    let spec = json!({"replicas": 5, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    let stage = Stage::new(&spec, strategy).await;
    let writes = Arc::<AtomicUsize>::default();
    stage.cluster.on_write(Box::new({
        let writes = writes.clone();
        move |write| {
            if write.gvr.resource == "pods" && &*write.identity == CONTROLLER {
                writes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    (stage, writes)
}

fn told(stage: &Stage) -> String {
    let mut count = BTreeMap::<String, usize>::new();
    for pod in pods(&stage.view).iter().filter(|p| version(&p["spec"]) != "base") {
        let label = |key: &str| pod["metadata"]["labels"][key].as_str().unwrap_or("-").to_owned();
        *count.entry(format!("{}/{}", label(ID), label("rollouts.kruise.io/rollout-batch-id"))).or_default() += 1;
    }
    count.iter().map(|(which, n)| format!("{n} of {which}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn d_36_d_37_pods_say_release_and_batch_in_every_style() {
    for ((style, strategy), (map, second)) in styles().iter().zip([("labels", 2), ("annotations", 2), ("labels", 3)]) {
        play(async move {
            let (stage, writes) = stage(strategy).await;
            stage.patch_deployment(json!({"metadata": {map: {ID: "r1"}}})).await;
            stage.release("canary").await;
            stage.paused_at(1).await;
            let first = if *style == "blueGreen" { 2 } else { 1 };
            assert_eq!(told(&stage), format!("{first} of r1/1"), "{style}");
            stage.approve().await;
            stage.paused_at(2).await;
            assert_eq!(told(&stage), format!("{first} of r1/1, {second} of r1/2"), "{style}");
            assert_eq!(stage.sub()["observedRolloutID"], "r1");
            let before = writes.load(Ordering::Relaxed);
            assert_eq!(before as i32, first + second, "one write a pod");
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert_eq!(writes.load(Ordering::Relaxed), before);
            // Another id and nothing else: the pods are labelled anew, and none is made anew.
            stage.patch_deployment(json!({"metadata": {map: {ID: "r2"}}})).await;
            stage.until("labelled anew", |s| told(s) == format!("{first} of r2/1, {second} of r2/2")).await;
            assert_eq!(stage.sub()["observedRolloutID"], "r2");
        });
    }
}

#[test]
fn without_an_id_no_pod_is_written() {
    for (style, strategy) in styles() {
        play(async move {
            let (stage, writes) = stage(&strategy).await;
            stage.release("canary").await;
            for step in [1, 2] {
                stage.paused_at(step).await;
                stage.approve().await;
            }
            stage.ends().await;
            assert_eq!(writes.load(Ordering::Relaxed), 0, "{style}");
        });
    }
}
