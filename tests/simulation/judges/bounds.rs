//! What may be written, and what may run.

use serde_json::{Value, json};
use tidegate::api::keys;

use super::Sight;
use crate::world::{
    CANARY, CANARY_SERVICE, LEAST_READY, NAMESPACE, ROLLOUT, ROUTE, RULE, SERVICE, WORKLOAD, is_ready, version,
};

fn workload(sight: &Sight<'_>) -> (String, String) {
    (sight.resource().to_owned(), sight.write.name.clone())
}

/// The controller writes only objects that the Rollout names or that carry its owner reference.
pub fn ours(sight: &Sight<'_>) -> Result<(), String> {
    if !sight.by_controller() {
        return Ok(());
    }
    let object = if sight.after().is_null() { sight.before() } else { sight.after() };
    let (resource, name) = workload(sight);
    let named = [
        ("rollouts", ROLLOUT),
        ("deployments", WORKLOAD),
        ("services", SERVICE),
        ("virtualservices", ROUTE),
        ("destinationrules", RULE),
    ];
    let is_named = named.contains(&(resource.as_str(), name.as_str())) && !sight.before().is_null();
    let is_owned = [("deployments", CANARY), ("services", CANARY_SERVICE)].contains(&(&resource, &name))
        && object["metadata"]["ownerReferences"].as_array().is_some_and(|o| {
            o.iter().any(|o| o["kind"] == "Rollout" && o["name"] == ROLLOUT && o["controller"] == true)
        });
    let is_event = resource == "events";
    let goes = sight.after().is_null() && resource != "rollouts" && !is_owned;
    if sight.write.namespace != NAMESPACE || goes || !(is_named || is_owned || is_event) {
        return Err(format!(
            "{} {resource}/{name} in namespace {:?}",
            sight.write.verb.as_str(),
            sight.write.namespace
        ));
    }
    Ok(())
}

/// The controller changes only the fields that it has to.
pub fn leaves(sight: &Sight<'_>) -> Result<(), String> {
    if !sight.by_controller() || sight.before().is_null() || sight.after().is_null() {
        return Ok(());
    }
    let pointers: &[&str] = match (sight.resource(), sight.write.name.as_str()) {
        ("rollouts", _) => &["/status", "/metadata/finalizers"],
        ("deployments", WORKLOAD) => &["/spec/paused"],
        ("services", SERVICE) => &["/spec/selector/pod-template-hash"],
        ("virtualservices", ROUTE) => &["/spec/http"],
        ("destinationrules", RULE) => &["/spec/subsets"],
        _ => return Ok(()),
    };
    let rest = |object: &Value| {
        let mut object = object.clone();
        for pointer in pointers {
            remove(&mut object, pointer);
        }
        plain(&object)
    };
    let (before, after) = (rest(sight.before()), rest(sight.after()));
    if before != after {
        return Err(format!("of {} more changed than {}", sight.write.name, pointers.join(", ")));
    }
    unrelated(sight)
}

/// Rules and subsets that are not the story's stay equal, in their order.
fn unrelated(sight: &Sight<'_>) -> Result<(), String> {
    let rules = |object: &Value| -> Vec<Value> {
        let all = object["spec"]["http"].as_array().into_iter().flatten();
        all.filter(|r| !r["route"].to_string().contains(SERVICE)).cloned().collect()
    };
    let subsets = |object: &Value| -> Vec<Value> {
        let all = object["spec"]["subsets"].as_array().into_iter().flatten();
        all.filter(|s| s["name"] != "canary").cloned().collect()
    };
    if rules(sight.before()) != rules(sight.after()) {
        return Err("a rule that routes elsewhere changed".to_owned());
    }
    if subsets(sight.before()) != subsets(sight.after()) {
        return Err("a subset that is not the canary's changed".to_owned());
    }
    Ok(())
}

fn remove(object: &mut Value, pointer: &str) {
    if let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(map) = object.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        map.remove(key);
    }
}

/// An object without what the server keeps, and without our marks.
pub fn plain(object: &Value) -> Value {
    let mut object = object.clone();
    for pointer in [
        "/status",
        "/metadata/resourceVersion",
        "/metadata/generation",
        "/metadata/managedFields",
        "/metadata/uid",
        "/metadata/creationTimestamp",
        "/metadata/deletionTimestamp",
        "/metadata/deletionGracePeriodSeconds",
    ] {
        remove(&mut object, pointer);
    }
    // The version that was asked for.
    object["apiVersion"] = json!(null);
    for (map, keys) in [
        ("/metadata/annotations", &[keys::ORIGINAL_SPEC, keys::IN_PROGRESSING, keys::DEPLOYMENT_REVISION][..]),
        ("/metadata/labels", &[keys::WORKLOAD_TYPE][..]),
    ] {
        if let Some(map) = object.pointer_mut(map).and_then(Value::as_object_mut) {
            map.retain(|key, _| !keys.contains(&key.as_str()));
        }
        if object.pointer(map).is_some_and(|m| m == &json!({})) {
            remove(&mut object, map);
        }
    }
    object
}

/// No ReplicaSet of the workload grows with a template whose steps are not approved.
pub fn held(sight: &Sight<'_>) -> Result<(), String> {
    if sight.resource() != "replicasets" {
        return Ok(());
    }
    let after = sight.after();
    let is_workloads = after["metadata"]["ownerReferences"][0]["name"] == WORKLOAD;
    let replicas = |o: &Value| o["spec"]["replicas"].as_i64().unwrap_or_default();
    let version = version(&after["spec"]["template"]["spec"]);
    if is_workloads && replicas(after) > replicas(sight.before()) && !sight.record.may_run(version) {
        return Err(format!(
            "ReplicaSet {} of version {version} grows from {} to {} pods before its steps are approved",
            sight.write.name,
            replicas(sight.before()),
            replicas(after)
        ));
    }
    Ok(())
}

/// Ready pods never fall below replicas − maxUnavailable.
pub fn ready(sight: &Sight<'_>) -> Result<(), String> {
    if sight.resource() != "pods" {
        return Ok(());
    }
    let ready = sight.eyes.pods().iter().filter(|p| is_ready(p)).count();
    if ready < LEAST_READY {
        return Err(format!("{ready} pods are ready; {LEAST_READY} are promised"));
    }
    Ok(())
}
