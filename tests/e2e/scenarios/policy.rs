//! The admission policies and their Rust twins decide alike.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DynamicObject, PostParams};
use serde_json::{Map, Value, json};
use tidegate::{
    api::keys::{IN_PROGRESSING, ORIGINAL_PARTITION, ORIGINAL_STRATEGY_TYPE, WANTED_FIELDS},
    workload::{
        self,
        hold::{By, HELD_DEADLINE, HELD_READY, Rule},
    },
};

use crate::rig::{
    Rig,
    kruise::definitions,
    poll::{SOON, until},
    random::Random,
};

const OLD: usize = 50;
const NEW: usize = 20;

/// A kind in one version.
struct Row {
    api_version: &'static str,
    kind: &'static str,
    /// What its spec has beside the template and `replicas`.
    spec: fn() -> Value,
    /// Values of the field that it is held by.
    values: fn() -> Vec<Value>,
    /// What the API server puts in.
    default: fn(&mut Value),
}

const ROWS: &[Row] = &[
    Row { api_version: "apps/v1", kind: "Deployment", spec: || json!({}), values: Vec::new, default: |_| {} },
    Row {
        api_version: "apps/v1",
        kind: "StatefulSet",
        spec: || json!({"serviceName": "web", "updateStrategy": {"type": "RollingUpdate"}}),
        values: || [0, 2, 7, 32767].map(Value::from).to_vec(),
        default: |object| {
            let strategy = &mut object["spec"]["updateStrategy"];
            if strategy["type"].is_null() {
                strategy["type"] = json!("RollingUpdate");
            }
            if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"]["partition"].is_null() {
                strategy["rollingUpdate"]["partition"] = json!(0);
            }
        },
    },
    Row {
        api_version: "apps/v1",
        kind: "DaemonSet",
        spec: || json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}),
        values: || ["OnDelete", "RollingUpdate"].map(Value::from).to_vec(),
        default: |object| {
            // Not a field of this kind: the server drops it.
            object["spec"].as_object_mut().unwrap().remove("replicas");
            let strategy = &mut object["spec"]["updateStrategy"];
            if strategy["type"].is_null() {
                strategy["type"] = json!("RollingUpdate");
            }
        },
    },
];

/// OpenKruise's kinds in the version that the rig serves: it has nothing that converts between the two. The older
/// version's policies are made by the same text with another path.
const KRUISE: &[Row] = &[
    Row {
        api_version: "apps.kruise.io/v1beta1",
        kind: "CloneSet",
        spec: || json!({}),
        values: || vec![json!(0), json!(7), json!("20%"), json!("100%")],
        default: partition_0,
    },
    Row {
        api_version: "apps.kruise.io/v1beta1",
        kind: "StatefulSet",
        spec: || json!({"serviceName": "web"}),
        values: || [0, 2, 7, 32767].map(Value::from).to_vec(),
        default: partition_0,
    },
    Row {
        api_version: "apps.kruise.io/v1beta1",
        kind: "DaemonSet",
        spec: || json!({}),
        values: || [0, 2, 7, 32767].map(Value::from).to_vec(),
        default: |object| drop(object["spec"].as_object_mut().unwrap().remove("replicas")),
    },
    // One that nobody knows by name.
    Row {
        api_version: "games.example.com/v1beta1",
        kind: "GameServerSet",
        spec: || json!({}),
        values: || [0, 2, 7, 32767].map(Value::from).to_vec(),
        default: |_| {},
    },
];

fn partition_0(object: &mut Value) {
    let rolling = &mut object["spec"]["updateStrategy"]["rollingUpdate"];
    if rolling["partition"].is_null() {
        rolling["partition"] = json!(0);
    }
}

impl Row {
    fn rule(&self) -> &'static Rule {
        let group = tidegate::api::object::group(self.api_version);
        workload::kind(group, self.kind).and_then(|kind| kind.hold(self.api_version)).expect("a rule")
    }

    /// Another value of the field that it is held by, or none.
    fn change_value(&self, random: &mut Random, object: &mut Value) {
        let By::Field(field) = &self.rule().by else { return };
        if self.kind == "StatefulSet" && self.api_version == "apps/v1" && random.one_in(6) {
            object["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
            return;
        }
        let values = (self.values)();
        let value = Some(random.pick(&values)).filter(|_| !random.one_in(6));
        let operations = field.set(object, value.cloned());
        json_patch::patch(object, &serde_json::from_value::<json_patch::Patch>(json!(operations)).unwrap()).unwrap();
        if let (Some((path, _)), true) = (field.by_hand, value.is_some()) {
            let rolls = if self.api_version == "apps.kruise.io/v1alpha1" && self.kind == "CloneSet" {
                "InPlaceIfPossible"
            } else {
                "RollingUpdate"
            };
            let operations = tidegate::workload::hold::field::set(object, path, Some(json!(rolls)));
            json_patch::patch(object, &serde_json::from_value::<json_patch::Patch>(json!(operations)).unwrap())
                .unwrap();
        }
    }
}

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
const MARKS: [&str; 15] = [
    r#"{"rolloutName":"web","open":{"maxSurge":"100%","maxUnavailable":0,"partition":0},"original":{}}"#,
    r#"{"rolloutName":"web","open":{"partition":7}}"#,
    r#"{"rolloutName":"web","open":{"partition":2}}"#,
    r#"{"rolloutName":"web","was":{"partition":7}}"#,
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
    for key in [ORIGINAL_PARTITION, ORIGINAL_STRATEGY_TYPE, WANTED_FIELDS] {
        match random.below(3) {
            0 => drop(annotations(object).remove(key)),
            1 => drop(annotations(object).insert(key.into(), json!(random.pick(&["", "3", "20%", "OnDelete"])))),
            _ => {}
        }
    }
}

fn old(row: &Row, random: &mut Random, i: usize) -> Value {
    let app = json!({"app": format!("old-{i}")});
    let mut object = json!({
        "apiVersion": row.api_version, "kind": row.kind, "metadata": {"name": format!("old-{i}")},
        "spec": {"replicas": random.below(3), "selector": {"matchLabels": app},
                 "template": {"metadata": {"labels": app}, "spec": {"containers": [{"name": "main", "image": "main:1"}]}}},
    });
    json_patch::merge(&mut object["spec"], &(row.spec)());
    if row.kind == "Deployment" {
        object["spec"]["paused"] = json!(random.one_in(2));
    }
    row.change_value(random, &mut object);
    match row.kind {
        "CloneSet" => change_bounds(random, &mut object),
        "Deployment" => change_strategy(random, &mut object),
        _ => {}
    }
    if !random.one_in(5) {
        labels(&mut object).insert(row.rule().switch.into(), json!("deployment"));
    }
    mark(random, &mut object);
    object
}

/// By what two sets of pods are kept beside each other.
fn change_bounds(random: &mut Random, object: &mut Value) {
    let rolling = &mut object["spec"]["updateStrategy"]["rollingUpdate"];
    rolling["maxSurge"] = json!(random.pick(&["0%", "100%"]));
    rolling["maxUnavailable"] = json!(random.below(2));
    for (field, held) in [("minReadySeconds", HELD_READY), ("progressDeadlineSeconds", HELD_DEADLINE)] {
        object["spec"][field] = json!(if random.one_in(3) { 5 } else { held });
    }
}

/// By what a Deployment is kept at a step.
fn change_strategy(random: &mut Random, object: &mut Value) {
    let (surge, unavailable) = (random.pick(&["1", "100%"]), random.pick(&["40%", "25%"]));
    let surge = surge.parse::<i64>().map_or_else(|_| json!(surge), Value::from);
    object["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    let is_held = !random.one_in(3);
    for (field, held, own) in
        [("minReadySeconds", HELD_READY, 5), ("progressDeadlineSeconds", HELD_DEADLINE, 600 + random.below(2) as i64)]
    {
        object["spec"][field] = json!(if is_held { held } else { own });
    }
}

/// What somebody might write over `live`: any number of small changes, or a whole manifest without what others added.
fn new(row: &Row, random: &mut Random, live: &Value) -> Value {
    let mut object = live.clone();
    if random.one_in(6) {
        object["metadata"] = json!({"name": live["metadata"]["name"], "namespace": live["metadata"]["namespace"]});
    }
    for _ in 0..random.below(4) {
        match random.below(17) {
            11 | 12 if row.kind == "CloneSet" => change_bounds(random, &mut object),
            11 if row.kind == "Deployment" => change_strategy(random, &mut object),
            0 | 1 => {
                object["spec"]["template"]["spec"]["containers"][0]["image"] =
                    json!(format!("main:{}", random.below(3)))
            }
            2 => object["spec"]["template"]["metadata"]["annotations"] = json!({"restarted": "now"}),
            3 => {
                object["spec"]["template"]["spec"]["volumes"] =
                    json!([{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}])
            }
            4 | 5 | 11..=13 if row.kind != "Deployment" => row.change_value(random, &mut object),
            4 | 5 => object["spec"]["paused"] = json!(random.one_in(2)),
            6 => object["spec"]["replicas"] = json!(random.below(3)),
            7 => drop(labels(&mut object).remove(row.rule().switch)),
            8 => drop(
                labels(&mut object).insert(row.rule().switch.into(), json!(random.pick(&["deployment", "other", ""]))),
            ),
            9 | 10 => mark(random, &mut object),
            12 if random.one_in(3) => object["spec"]["strategy"] = json!({"type": "Recreate"}),
            12 => object["spec"]["minReadySeconds"] = json!(random.below(2)),
            13 if object["spec"]["minReadySeconds"] != HELD_READY => {
                object["spec"]["progressDeadlineSeconds"] = json!(600 + random.below(2))
            }
            _ => drop(annotations(&mut object).insert("note".into(), json!("x"))),
        }
    }
    // `paused: false` is not stored, so a writer may leave it out as well.
    if object["spec"]["paused"] == false && random.one_in(2) {
        object["spec"].as_object_mut().unwrap().remove("paused");
    }
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    (row.default)(&mut object);
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
    let mut annotations = map("annotations");
    // The API server's own count of a DaemonSet's templates.
    annotations.remove("deprecated.daemonset.template.generation");
    json!({"spec": spec, "labels": map("labels"), "annotations": annotations})
}

/// The policy of a kind is in force: the server takes some seconds to act on a new one.
async fn is_in_force(rig: &Rig, row: &Row, namespace: &str) -> Result<()> {
    let labels = json!({"app": "probe"});
    let mut probe = json!({
        "apiVersion": row.api_version, "kind": row.kind,
        "metadata": {"name": "probe", "namespace": namespace, "labels": {row.rule().switch: "x"}},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                 "spec": {"containers": [{"name": "main", "image": "probe:1"}]}}},
    });
    json_patch::merge(&mut probe["spec"], &(row.spec)());
    rig.objects.apply(&probe).await?;
    let api = rig.objects.api(row.api_version, row.kind, namespace);
    let dry = kube::api::PatchParams { dry_run: true, ..Default::default() };
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "probe:2"}]);
    let image = kube::api::Patch::Json::<()>(serde_json::from_value(image)?);
    until("the policy holds a changed workload", SOON, async || {
        let answer: Value = serde_json::to_value(api.patch("probe", &dry, &image).await?)?;
        ensure!(answer["metadata"]["annotations"][IN_PROGRESSING].is_string(), "not held yet: {}", row.kind);
        Ok(())
    })
    .await
}

pub async fn policy_equals_its_twin(rig: Arc<Rig>) -> Result<()> {
    rig.installed().await?;
    rig.objects.apply_crds(&definitions("v1beta1")?).await?;
    for row in ROWS.iter().chain(KRUISE) {
        compare(&rig, row).await.with_context(|| format!("{} {}", row.api_version, row.kind))?;
    }
    let known = workload::hold::rules().filter(|rule| rule.version != "v1alpha1").count();
    let compared = ROWS.len() + KRUISE.len();
    ensure!(compared == known, "{compared} of {known} policies are compared");
    Ok(())
}

async fn compare(rig: &Rig, row: &Row) -> Result<()> {
    let namespace = row.rule().policy.replace("tidegate-hold", "policy");
    rig.objects.namespace(&namespace).await?;
    let mut random = Random::for_scenario("policy_equals_its_twin");
    let api = rig.objects.api(row.api_version, row.kind, &namespace);
    is_in_force(rig, row, &namespace).await?;
    let mut pairs = Vec::new();
    for i in 0..OLD {
        let object = old(row, &mut random, i);
        let created = api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        let live = serde_json::to_value(created)?;
        pairs.extend((0..NEW).map(|_| (i, new(row, &mut random, &live))));
    }
    let dry = PostParams { dry_run: true, ..Default::default() };
    let held = stream::iter(pairs)
        .map(async |(i, new)| {
            let name = format!("old-{i}");
            // Controllers add annotations of their own meanwhile; what is stored right now is the old object.
            loop {
                let old: Value = serde_json::to_value(api.get(&name).await?)?;
                let mut object = new.clone();
                object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
                let typed: DynamicObject = serde_json::from_value(object.clone())?;
                let answer = match api.replace(&name, &dry, &typed).await {
                    Err(kube::Error::Api(status)) if status.code == 409 => continue,
                    answer => serde_json::to_value(answer.with_context(|| format!("old: {old}\nnew: {object}"))?)?,
                };
                let twin = row.rule().hold(&old, &object);
                let expected = decided(twin.as_ref().unwrap_or(&object));
                let got = decided(&answer);
                if got != expected {
                    return Err(anyhow!(
                        "the policy and its twin differ\nold: {old}\nnew: {object}\npolicy: {got}\ntwin: {expected}"
                    ));
                }
                return Ok::<bool, anyhow::Error>(twin.is_some());
            }
        })
        .buffer_unordered(16)
        .try_fold(0, async |n, held| Ok(n + usize::from(held)))
        .await?;
    eprintln!(
        "e2e: policy_equals_its_twin: {} pairs of {} {} alike, {held} of them held",
        OLD * NEW,
        row.api_version,
        row.kind
    );
    ensure!(held > OLD * NEW / 10 && held < OLD * NEW * 9 / 10, "{held} held: the pairs prove little");
    Ok(())
}
