//! A Rollout in the words of one API version.
//!
//! Both versions have one schema, so nothing needs to be left out: only what the versions say differently is put into
//! the other's words, and everything else stays where it is. Saying it in a version's words twice is saying it once.
//!
//! | v1alpha1 | v1beta1 |
//! |---|---|
//! | `objectRef.workloadRef` | `workloadRef` |
//! | `steps[].weight: 20` | `steps[].traffic: "20%"` |
//! | a step without `replicas` | `replicas` as its weight |
//! | `trafficRoutings[].networkRefs` | `trafficRoutings[].customNetworkRefs` |
//! | `trafficRoutings[].createCanaryService: false` | `disableGenerateCanaryService: true` |
//! | annotation `rolling-style`: `canary` (default), `partition` | `canary.enableExtraWorkloadForCanary`: true, false (default) |
//! | annotation `trafficrouting` | `trafficRoutingRef` |
//! | `status.canaryStatus.currentStepIndex`, `…State` | the same, and copies in `status` |
//!
//! Annotations stay beside the fields that say the same; where they differ the field of v1beta1 counts.

use serde_json::{Map, Value, json};

use super::{GROUP, keys};

const STYLES: [&str; 2] = ["canary", "blueGreen"];

/// The Rollout in the words of v1beta1.
pub fn to_v1beta1(rollout: &Value) -> Value {
    let mut out = rollout.clone();
    let style = annotation(rollout, keys::ROLLING_STYLE).map(str::to_ascii_lowercase);
    let shared = annotation(rollout, keys::TRAFFIC_ROUTING).filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(spec) = child(&mut out, "spec") {
        let by_object_ref = move_workload(spec);
        for name in STYLES {
            let Some(strategy) = strategy(spec, name) else { continue };
            if name == "canary" && !strategy.contains_key("enableExtraWorkloadForCanary") {
                match (style.as_deref(), by_object_ref) {
                    (Some("canary"), _) | (None | Some(""), true) => {
                        strategy.insert("enableExtraWorkloadForCanary".to_owned(), json!(true));
                    }
                    (Some("partition"), _) => {
                        strategy.insert("enableExtraWorkloadForCanary".to_owned(), json!(false));
                    }
                    _ => {}
                }
            }
            if let Some(shared) = &shared {
                strategy.entry("trafficRoutingRef").or_insert_with(|| json!(shared));
            }
            items(strategy, "steps").for_each(step_to_v1beta1);
            let mut no_service = false;
            for routing in items(strategy, "trafficRoutings") {
                no_service |= routing.get("createCanaryService") == Some(&json!(false));
                routing.remove("createCanaryService");
                join(routing, "networkRefs", "customNetworkRefs");
            }
            if no_service {
                strategy.insert("disableGenerateCanaryService".to_owned(), json!(true));
            }
        }
    }
    if let Some(status) = child(&mut out, "status") {
        for key in ["currentStepIndex", "currentStepState"] {
            let value = ["canaryStatus", "blueGreenStatus"].iter().find_map(|s| status.get(*s)?.get(key)).cloned();
            if let Some(value) = value {
                status.entry(key).or_insert(value);
            }
        }
    }
    with_version(out, "v1beta1")
}

/// The Rollout in the words of v1alpha1.
pub fn to_v1alpha1(rollout: &Value) -> Value {
    let mut out = rollout.clone();
    let mut annotations = Vec::new();
    if let Some(spec) = child(&mut out, "spec") {
        let by_workload_ref = spec.contains_key("workloadRef");
        let has_style = annotation(rollout, keys::ROLLING_STYLE).is_some_and(|style| !style.is_empty());
        if let Some(workload) = spec.remove("workloadRef") {
            let reference = spec.entry("objectRef").or_insert_with(|| json!({}));
            if let Some(reference) = reference.as_object_mut() {
                reference.insert("workloadRef".to_owned(), workload);
            }
        }
        for name in STYLES {
            let Some(strategy) = strategy(spec, name) else { continue };
            match strategy.remove("enableExtraWorkloadForCanary").and_then(|v| v.as_bool()) {
                Some(extra) => {
                    annotations.push((keys::ROLLING_STYLE, if extra { "canary" } else { "partition" }.to_owned()))
                }
                None if name == "canary" && by_workload_ref && !has_style => {
                    annotations.push((keys::ROLLING_STYLE, "partition".to_owned()));
                }
                None => {}
            }
            if let Some(Value::String(shared)) = strategy.remove("trafficRoutingRef") {
                annotations.push((keys::TRAFFIC_ROUTING, shared));
            }
            items(strategy, "steps").for_each(step_to_v1alpha1);
        }
    }
    if let Some(metadata) = child(&mut out, "metadata").filter(|_| !annotations.is_empty()) {
        let map = metadata.entry("annotations").or_insert_with(|| json!({}));
        for (key, value) in annotations {
            if let Some(map) = map.as_object_mut() {
                map.insert(key.to_owned(), value.into());
            }
        }
    }
    with_version(out, "v1alpha1")
}

/// Moves the workload to v1beta1's place; whether it was in v1alpha1's.
fn move_workload(spec: &mut Map<String, Value>) -> bool {
    if spec.contains_key("workloadRef") {
        return false;
    }
    let workload = spec.get_mut("objectRef").and_then(Value::as_object_mut).and_then(|o| o.remove("workloadRef"));
    if spec.get("objectRef").and_then(Value::as_object).is_some_and(Map::is_empty) {
        spec.remove("objectRef");
    }
    workload.is_some_and(|workload| spec.insert("workloadRef".to_owned(), workload).is_none())
}

fn step_to_v1beta1(step: &mut Map<String, Value>) {
    if let (Some(weight), false) = (step.get("weight").and_then(Value::as_i64), step.contains_key("traffic")) {
        step.remove("weight");
        step.insert("traffic".to_owned(), format!("{weight}%").into());
    }
    if let Some(share) = step.get("traffic").cloned() {
        step.entry("replicas").or_insert(share);
    }
}

fn step_to_v1alpha1(step: &mut Map<String, Value>) {
    let share = step.get("traffic").and_then(Value::as_str).and_then(|t| t.strip_suffix('%')?.parse::<u8>().ok());
    if let (Some(share), false) = (share, step.contains_key("weight")) {
        step.remove("traffic");
        step.insert("weight".to_owned(), share.into());
    }
}

/// Puts the list `from` before the list `to`.
fn join(map: &mut Map<String, Value>, from: &str, to: &str) {
    let Some(Value::Array(mut list)) = map.remove(from) else { return };
    if let Some(Value::Array(more)) = map.get(to) {
        list.extend(more.iter().filter(|m| !list.contains(m)).cloned().collect::<Vec<_>>());
    }
    map.insert(to.to_owned(), list.into());
}

fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    value.get_mut(key)?.as_object_mut()
}

fn strategy<'a>(spec: &'a mut Map<String, Value>, style: &str) -> Option<&'a mut Map<String, Value>> {
    spec.get_mut("strategy")?.get_mut(style)?.as_object_mut()
}

fn items<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn annotation<'a>(rollout: &'a Value, key: &str) -> Option<&'a str> {
    rollout.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

fn with_version(mut rollout: Value, version: &str) -> Value {
    if let Some(map) = rollout.as_object_mut() {
        map.insert("apiVersion".to_owned(), format!("{GROUP}/{version}").into());
    }
    rollout
}
