//! What may be written, and what may run.

use serde_json::{Value, json};

use super::{Sight, record::Topic, routes};
use crate::{
    api::{
        keys,
        object::{self, at, int, text},
    },
    rehearsal::world::{CANARY, CANARY_SERVICE, NAMESPACE, SERVICE, WORKLOAD, is_canary, is_ready, version},
};

/// The controller writes only objects that the Rollout names or that carry its owner reference.
pub fn ours(sight: &Sight<'_>) -> Result<(), String> {
    if !sight.by_controller() {
        return Ok(());
    }
    let object = if sight.after().is_null() { sight.before() } else { sight.after() };
    let (resource, name) = (sight.resource(), sight.write.name.as_str());
    let named = [
        ("rollouts", WORKLOAD),
        ("deployments", WORKLOAD),
        ("services", SERVICE),
        ("virtualservices", WORKLOAD),
        ("destinationrules", WORKLOAD),
    ];
    let owners = at(object, &["metadata", "ownerReferences"]).and_then(Value::as_array);
    let is_named = named.contains(&(resource, name)) && !sight.before().is_null();
    let is_owned = [("deployments", CANARY), ("services", CANARY_SERVICE)].contains(&(resource, name))
        && owners.is_some_and(|o| {
            o.iter().any(|o| {
                text(o, &["kind"]) == "Rollout"
                    && text(o, &["name"]) == WORKLOAD
                    && o.get("controller") == Some(&json!(true))
            })
        });
    let is_event = resource == "events";
    let goes = sight.after().is_null() && resource != "rollouts" && !is_owned;
    if sight.write.namespace != NAMESPACE || goes || !(is_named || is_owned || is_event) {
        let verb = sight.write.verb.as_str();
        return Err(format!("{verb} {resource}/{name} in namespace {:?}", sight.write.namespace));
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
        ("virtualservices", WORKLOAD) => &["/spec/http"],
        ("destinationrules", WORKLOAD) => &["/spec/subsets"],
        _ => return Ok(()),
    };
    let rest = |object: &Value| {
        let mut object = plain(object);
        for pointer in pointers {
            remove(&mut object, pointer);
        }
        object
    };
    if rest(sight.before()) != rest(sight.after()) {
        return Err(format!("of {} more changed than {}", sight.write.name, pointers.join(", ")));
    }
    unrelated(sight)
}

/// Rules and subsets that are not the workload's stay equal, in their order.
fn unrelated(sight: &Sight<'_>) -> Result<(), String> {
    let list = |object: &Value, field: &str| at(object, &["spec", field]).and_then(Value::as_array).cloned();
    let rules = |object: &Value| -> Vec<Value> {
        let rules = list(object, "http").unwrap_or_default();
        let host = |r: &Value| r.pointer("/route/0/destination/host").and_then(Value::as_str) == Some(SERVICE);
        let other = |r: &Value| r.pointer("/route/0/destination/host").and_then(Value::as_str) == Some(CANARY_SERVICE);
        rules.into_iter().filter(|r| !host(r) && !other(r)).collect()
    };
    let subsets = |object: &Value| -> Vec<Value> {
        let subsets = list(object, "subsets").unwrap_or_default();
        subsets.into_iter().filter(|s| text(s, &["name"]) != "canary").collect()
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
    let Some(map) = object.as_object() else { return Value::Null };
    // The version that was asked for, and what the server says, are left out.
    let mut object: Value = map
        .iter()
        .filter(|(key, _)| !["apiVersion", "status"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for pointer in [
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
    let owner = after.pointer("/metadata/ownerReferences/0/name").and_then(Value::as_str);
    let replicas = |o: &Value| int(o, &["spec", "replicas"]).unwrap_or_default();
    if owner != Some(WORKLOAD) || replicas(after) <= replicas(sight.before()) {
        return Ok(());
    }
    let version = version(at(after, &["spec", "template"]).unwrap_or(&Value::Null));
    // Pods that ran before the word was taken back are scaled with the others.
    let was_there = replicas(sight.before()) > 0 && sight.record.revoked.contains_key(&version);
    if sight.record.may_run(&version) || was_there {
        return Ok(());
    }
    Err(format!(
        "ReplicaSet {} of version {version} grows from {} to {} pods before its steps are approved",
        sight.write.name,
        replicas(sight.before()),
        replicas(after)
    ))
}

/// Ready pods of the workload never fall below replicas − maxUnavailable while it is held. What rolls natively is the
/// Deployment controller's, which counts by statuses that lag behind and may take one pod too many.
pub fn ready(sight: &Sight<'_>) -> Result<(), String> {
    let falls = sight.resource() == "pods" && is_ready(sight.before()) && !is_ready(sight.after());
    if !falls || is_canary(sight.before()) || sight.is_excused(Topic::Pods) {
        return Ok(());
    }
    let is_held = sight.eyes.deployment(WORKLOAD).is_some_and(|w| at(&w, &["spec", "paused"]) == Some(&json!(true)));
    if !is_held {
        return Ok(());
    }
    let ready = sight.eyes.pods().iter().filter(|p| is_ready(p) && !is_canary(p)).count();
    let least = routes::least(sight);
    if i64::try_from(ready).unwrap_or(i64::MAX) < least {
        let name = object::name(sight.before());
        return Err(format!("pod {name} goes, and {ready} pods of the workload are ready; {least} are promised"));
    }
    Ok(())
}
