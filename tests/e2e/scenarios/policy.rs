//! The admission policy and its Rust twin decide alike.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DynamicObject, PostParams};
use serde_json::{Map, Value, json};
use tidegate::{
    api::keys::{IN_PROGRESSING, WORKLOAD_TYPE},
    workload::hold::hold,
};

use crate::rig::{Rig, random::Random};

const OLD: usize = 50;
const NEW: usize = 20;

fn labels(object: &mut Value) -> &mut Map<String, Value> {
    if object["metadata"]["labels"].is_null() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"].as_object_mut().unwrap()
}

fn annotations(object: &mut Value) -> &mut Map<String, Value> {
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"].as_object_mut().unwrap()
}

/// Marks that the controller, the policy, the original controller or a person may have written.
const MARKS: [&str; 11] = [
    r#"{"rolloutName":"web","open":{"maxSurge":0},"original":{}}"#,
    r#"{"rolloutName":"web","open":{"maxSurge":1},"original":{}}"#,
    r#"{"rolloutName":"web","was":{"maxSurge":1}}"#,
    r#"{"rolloutName":"rollouts-demo"}"#,
    r#"{"rolloutName":"rollouts-demo","paused":true}"#,
    r#"{"rolloutName":"rollouts-demo","released":true}"#,
    r#"{"rolloutName":"rollouts-demo","paused":true,"released":true}"#,
    r#"{"rolloutName":""}"#,
    r#"{"rolloutName":"","released":true}"#,
    "",
    "not json",
];

fn mark(random: &mut Random, object: &mut Value) {
    match random.below(4) {
        0 => drop(annotations(object).remove(IN_PROGRESSING)),
        _ => drop(annotations(object).insert(IN_PROGRESSING.into(), json!(random.pick(&MARKS)))),
    }
}

fn old(random: &mut Random, i: usize) -> Value {
    let app = json!({"app": format!("old-{i}")});
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("old-{i}")},
        "spec": {"replicas": random.below(3), "paused": random.one_in(2), "selector": {"matchLabels": app},
                 "template": {"metadata": {"labels": app}, "spec": {"containers": [{"name": "main", "image": "main:1"}]}}},
    });
    if !random.one_in(5) {
        labels(&mut object).insert(WORKLOAD_TYPE.into(), json!("deployment"));
    }
    mark(random, &mut object);
    object
}

/// What somebody might write over `live`: any number of small changes, or a whole manifest without what others added.
fn new(random: &mut Random, live: &Value) -> Value {
    let mut object = live.clone();
    if random.one_in(6) {
        object["metadata"] = json!({"name": live["metadata"]["name"], "namespace": live["metadata"]["namespace"]});
    }
    for _ in 0..random.below(4) {
        match random.below(15) {
            0 | 1 => {
                object["spec"]["template"]["spec"]["containers"][0]["image"] =
                    json!(format!("main:{}", random.below(3)))
            }
            2 => object["spec"]["template"]["metadata"]["annotations"] = json!({"restarted": "now"}),
            3 => {
                object["spec"]["template"]["spec"]["volumes"] =
                    json!([{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}])
            }
            4 | 5 => object["spec"]["paused"] = json!(random.one_in(2)),
            6 => object["spec"]["replicas"] = json!(random.below(3)),
            7 => drop(labels(&mut object).remove(WORKLOAD_TYPE)),
            8 => {
                drop(labels(&mut object).insert(WORKLOAD_TYPE.into(), json!(random.pick(&["deployment", "other", ""]))))
            }
            9 | 10 => mark(random, &mut object),
            11 => object["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] = json!(random.pick(&["40%", "25%"])),
            12 => object["spec"]["minReadySeconds"] = json!(random.below(2)),
            13 => object["spec"]["progressDeadlineSeconds"] = json!(600 + random.below(2)),
            _ => drop(annotations(&mut object).insert("note".into(), json!("x"))),
        }
    }
    // `paused: false` is not stored, so a writer may leave it out as well.
    if object["spec"]["paused"] == false && random.one_in(2) {
        object["spec"].as_object_mut().unwrap().remove("paused");
    }
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    object
}

/// What the hold decides about; an absent map and an empty one are the same to the API server.
fn decided(object: &Value) -> Value {
    let map = |name: &str| object["metadata"][name].as_object().cloned().unwrap_or_default();
    let mut spec = object["spec"].clone();
    if spec["paused"].is_null() {
        spec["paused"] = json!(false);
    }
    if spec["minReadySeconds"] == 0 {
        spec.as_object_mut().unwrap().remove("minReadySeconds");
    }
    json!({"spec": spec, "labels": map("labels"), "annotations": map("annotations")})
}

pub async fn policy_equals_its_twin(rig: Arc<Rig>) -> Result<()> {
    rig.installed().await?;
    let space = rig.space("policy-twin").await?;
    let mut random = Random::for_scenario("policy_equals_its_twin");
    let api = rig.objects.api("apps/v1", "Deployment", &space.name);
    let mut pairs = Vec::new();
    for i in 0..OLD {
        let created = api.create(&PostParams::default(), &serde_json::from_value(old(&mut random, i))?).await?;
        let live = serde_json::to_value(created)?;
        pairs.extend((0..NEW).map(|_| (i, new(&mut random, &live))));
    }
    let dry = PostParams { dry_run: true, ..Default::default() };
    let held = stream::iter(pairs)
        .map(async |(i, new)| {
            let name = format!("old-{i}");
            // The Deployment controller adds annotations of its own meanwhile; what is stored right now is the old object.
            loop {
                let old: Value = serde_json::to_value(api.get(&name).await?)?;
                let mut object = new.clone();
                object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
                let typed: DynamicObject = serde_json::from_value(object.clone())?;
                let answer = match api.replace(&name, &dry, &typed).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => continue,
                    answer => serde_json::to_value(answer.with_context(|| format!("{object}"))?)?,
                };
                let twin = hold(&old, &object);
                let expected = decided(twin.as_ref().unwrap_or(&object));
                let got = decided(&answer);
                ensure!(
                    got == expected,
                    "the policy and its twin differ\nold: {old}\nnew: {object}\npolicy: {got}\ntwin: {expected}"
                );
                return Ok::<bool, anyhow::Error>(twin.is_some());
            }
        })
        .buffer_unordered(16)
        .try_fold(0, async |n, held| Ok(n + usize::from(held)))
        .await?;
    eprintln!("e2e: policy_equals_its_twin: {} pairs alike, {held} of them held", OLD * NEW);
    ensure!(held > OLD * NEW / 10 && held < OLD * NEW * 9 / 10, "{held} held: the pairs prove little");
    Ok(())
}
