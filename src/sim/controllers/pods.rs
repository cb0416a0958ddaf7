//! What controllers of pods share.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::json::{self, condition, deleting, int, text};
use super::Access;

/// True while a pod counts for its controller: not ended, not being deleted.
pub(crate) fn active(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") && !deleting(pod)
}

pub(crate) fn ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|c| text(c, "/status") == "True")
}

/// When a pod became, or becomes, available: `Ok` for available, `Err(Some)` for the time left, `Err(None)` if it is
/// not ready.
pub(crate) fn availability(now: Timestamp, pod: &Value, min_ready: i64) -> Result<(), Option<Duration>> {
    let Some(condition) = condition(pod, "Ready").filter(|c| text(c, "/status") == "True") else { return Err(None) };
    if min_ready <= 0 {
        return Ok(());
    }
    let need = Duration::from_secs(min_ready.unsigned_abs());
    let since: Timestamp = text(condition, "/lastTransitionTime").parse().map_err(|_| None)?;
    match Duration::try_from(now.duration_since(since)) {
        Ok(passed) if passed >= need => Ok(()),
        Ok(passed) => Err(Some(need - passed)),
        Err(_) => Err(None),
    }
}

/// [`availability`] by the cluster's clock.
pub(crate) fn available(access: &Access<'_>, pod: &Value, min_ready: i64) -> Result<(), Option<Duration>> {
    availability(access.core.clock.now(), pod, min_ready)
}

/// A pod of a template, with a generated name.
pub(crate) fn pod_of(owner: &Value, template: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "generateName": format!("{}-", json::name(owner)), "namespace": json::namespace(owner),
        "ownerReferences": [owner_reference(owner)]}});
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = json::at(template, "/metadata").and_then(|m| m.get(field)) {
            json::set(&mut pod, &["metadata", field], value.clone());
        }
    }
    json::restore(&mut pod, template, &["spec"]);
    pod
}

/// A reference from a controlled object to its controller.
pub(crate) fn owner_reference(owner: &Value) -> Value {
    json!({"apiVersion": owner.get("apiVersion"), "kind": owner.get("kind"), "name": json::name(owner),
        "uid": json::uid(owner), "controller": true, "blockOwnerDeletion": true})
}

/// Sets `status.conditions` for a type, keeping the time of the last transition if the status stays.
pub(crate) fn set_condition(
    object: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: &str,
    update_time: bool,
) {
    let mut new =
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    if update_time {
        json::set(&mut new, &["lastUpdateTime"], now);
    }
    let list = json::object_mut(object, &["status"]).entry("conditions").or_insert_with(|| json!([]));
    let Value::Array(list) = list else { return };
    match list.iter_mut().find(|c| text(c, "/type") == kind) {
        Some(old) => {
            if text(old, "/status") == status {
                let since = text(old, "/lastTransitionTime").to_owned();
                json::set(&mut new, &["lastTransitionTime"], since);
            }
            *old = new;
        }
        None => list.push(new),
    }
}

/// A count or a percentage of `total`.
pub(crate) fn int_or_percent(value: Option<&Value>, total: i64, round_up: bool) -> i64 {
    match value {
        Some(Value::Number(n)) => n.as_i64().unwrap_or(0),
        Some(Value::String(s)) => {
            let percent: i64 = s.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent * total;
            if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) }
        }
        _ => 0,
    }
}

/// `metadata.generation`, 0 if absent.
pub(crate) fn generation(object: &Value) -> i64 {
    int(object, "/metadata/generation").unwrap_or(0)
}
