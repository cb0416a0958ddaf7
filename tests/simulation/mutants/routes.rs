//! Bugs in what is written to routes, and when.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::{
    rehearsal::CANARY,
    rollout::{Effect, Plan, Snapshot, decide, plan::Purpose},
    traffic::routes::Change,
};

/// Takes every canary pod for ready.
pub fn routes_before_pods_are_ready(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    if let Some(canary) = &mut snapshot.canary {
        let canary = Arc::make_mut(canary);
        canary["status"]["availableReplicas"] = canary["spec"]["replicas"].clone();
        canary["status"]["readyReplicas"] = canary["spec"]["replicas"].clone();
        canary["status"]["observedGeneration"] = canary["metadata"]["generation"].clone();
    }
    for set in &mut snapshot.revisions {
        let set = Arc::make_mut(set);
        set["status"]["availableReplicas"] = set["spec"]["replicas"].clone();
        set["status"]["readyReplicas"] = set["spec"]["replicas"].clone();
    }
    let canary_sets: Vec<String> = snapshot
        .revisions
        .iter()
        .filter_map(|s| s["metadata"]["name"].as_str())
        .filter(|name| name.starts_with(CANARY))
        .map(str::to_owned)
        .collect();
    for slice in &mut snapshot.endpoint_slices {
        if let Some(endpoints) = Arc::make_mut(slice)["endpoints"].as_array_mut() {
            endpoints.extend(canary_sets.iter().map(|set| {
                json!({"conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": format!("{set}-faked")}})
            }));
        }
    }
    decide(&snapshot)
}

/// Applies a change to every operation of every route write.
fn with_route_operations(mut plan: Plan, change: impl Fn(&mut Vec<Value>)) -> Plan {
    for effect in &mut plan.effects {
        if let Effect::Routes { writes, .. } = effect {
            for write in writes.iter_mut().filter(|w| !w.is_definition) {
                if let Change::Patch { operations, .. } = &mut write.change {
                    change(operations);
                }
            }
        }
    }
    plan
}

/// Takes ten from the first weight that has them to spare.
pub fn loses_a_tenth(snapshot: &Snapshot) -> Plan {
    fn spend(value: &mut Value) -> bool {
        match value {
            Value::Object(map) => map.iter_mut().any(|(key, value)| match value.as_i64() {
                Some(weight) if key == "weight" && weight > 10 => {
                    *value = json!(weight - 10);
                    true
                }
                _ => spend(value),
            }),
            Value::Array(list) => list.iter_mut().any(spend),
            _ => false,
        }
    }
    with_route_operations(decide(snapshot), |operations| {
        for operation in
            operations.iter_mut().filter(|o| o["path"].as_str().is_some_and(|p| p.starts_with("/spec/http")))
        {
            let mut value = json!({"weight": operation["value"].clone()});
            let is_weight = operation["path"].as_str().is_some_and(|p| p.ends_with("/weight"));
            if if is_weight { spend(&mut value) } else { spend(&mut value["weight"]) } {
                operation["value"] = value["weight"].clone();
                return;
            }
        }
    })
}

pub fn labels_the_route(snapshot: &Snapshot) -> Plan {
    with_route_operations(decide(snapshot), |operations| {
        operations.push(json!({"op": "add", "path": "/metadata/labels/tidegate", "value": "was-here"}));
    })
}

/// Takes the bookkeeping off the DestinationRule, but leaves the subset.
pub fn forgets_one_restore(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    for effect in &mut plan.effects {
        if let Effect::Routes { purpose: Purpose::RestoreRoutes, writes, .. } = effect {
            for write in writes.iter_mut().filter(|w| w.is_definition) {
                if let Change::Patch { operations, .. } = &mut write.change {
                    operations.retain(|o| o["path"].as_str().is_some_and(|p| p.starts_with("/metadata")));
                }
            }
        }
    }
    plan
}

/// Two writes in the wrong order: requests go to a subset that is made afterwards.
pub fn routes_before_the_subset(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    for effect in &mut plan.effects {
        if let Effect::Routes { purpose: Purpose::RouteStep, writes, tried } = effect
            && !tried.is_empty()
        {
            *writes = std::mem::take(tried);
        }
    }
    plan
}
