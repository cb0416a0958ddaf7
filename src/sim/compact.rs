//! What the API server's own types leave out when they are written: empty lists and maps, nulls, and zero values of
//! fields that are `omitempty` and no pointer.

use serde_json::Value;

use super::registry::Kind;

/// Maps of strings: whatever is in them stays.
const MAPS: [&str; 9] =
    ["labels", "annotations", "data", "binaryData", "matchLabels", "nodeSelector", "limits", "requests", "overhead"];
/// Lists that are written even if empty.
const LISTS: [&str; 1] = ["containers"];
const FLAGS: [&str; 9] = [
    "paused",
    "stdin",
    "stdinOnce",
    "tty",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "readOnly",
    "publishNotReadyAddresses",
];
const NUMBERS: [&str; 15] = [
    "minReadySeconds",
    "initialDelaySeconds",
    "hostPort",
    "nodePort",
    "healthCheckNodePort",
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "fullyLabeledReplicas",
    "currentReplicas",
    "updatedNumberScheduled",
    "numberAvailable",
];
const TEXTS: [&str; 13] = [
    "value",
    "message",
    "reason",
    "phase",
    "podIP",
    "hostIP",
    "nodeName",
    "serviceAccountName",
    "serviceAccount",
    "hostname",
    "subdomain",
    "workingDir",
    "subPath",
];

/// Leaves out what the metadata of any object does not keep.
pub(crate) fn metadata(object: &mut Value) {
    let Some(Value::Object(meta)) = object.get_mut("metadata") else { return };
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        if meta.get(field).is_some_and(hollow) {
            meta.remove(field);
        }
    }
}

/// Leaves out what an object of a built-in kind does not keep: pods, what makes them, and what finds them.
pub(crate) fn built_in(kind: &Kind, object: &mut Value) {
    let known = ["Pod", "Service", "ConfigMap", "Secret", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"];
    let Value::Object(map) = object else { return };
    if known.contains(&kind.kind.as_str()) {
        map.retain(|key, value| key == "metadata" || keeps(&kind.kind, "", key, value));
    }
}

fn keeps(kind: &str, parent: &str, key: &str, value: &mut Value) -> bool {
    match value {
        // Times are written as null.
        Value::Null => key.ends_with("Time") || key.ends_with("Timestamp"),
        Value::Bool(flag) => *flag || !FLAGS.contains(&key),
        Value::Number(n) => n.as_i64() != Some(0) || !NUMBERS.contains(&key) || always(kind, parent, key),
        Value::String(text) => !text.is_empty() || !TEXTS.contains(&key) || always(kind, parent, key),
        Value::Object(map) => {
            if MAPS.contains(&key) || (key == "selector" && kind == "Service") {
                return !map.is_empty();
            }
            map.retain(|k, v| keeps(kind, key, k, v));
            true
        }
        Value::Array(list) => {
            for item in list.iter_mut().filter_map(Value::as_object_mut) {
                item.retain(|k, v| keeps(kind, key, k, v));
            }
            !list.is_empty() || LISTS.contains(&key)
        }
    }
}

/// Fields that are written whatever they hold.
fn always(kind: &str, parent: &str, key: &str) -> bool {
    match key {
        "replicas" => parent == "spec" || matches!(kind, "ReplicaSet" | "StatefulSet"),
        "availableReplicas" => kind == "StatefulSet",
        // Conditions of a Service are of the common type, which writes both.
        "message" | "reason" => kind == "Service",
        _ => false,
    }
}

fn hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::*;
    use serde_json::json;

    #[test]
    fn zero_values_are_left_out() {
        let registry = Registry::new();
        for (api_version, kind, object, expected) in [
            (
                "apps/v1",
                "Deployment",
                json!({"spec": {"paused": false, "replicas": 0, "minReadySeconds": 0, "progressDeadlineSeconds": 0,
                    "selector": {}, "template": {"metadata": {"annotations": {}}, "spec": {"containers": [
                        {"name": "a", "env": [{"name": "X", "value": ""}], "args": [], "tty": false, "resources": {"limits": {}}}],
                        "volumes": [{"name": "v", "emptyDir": {}, "secret": null}], "nodeSelector": {"a": ""}}}},
                    "status": {"replicas": 0, "conditions": [{"type": "A", "message": "", "lastUpdateTime": null}]}}),
                json!({"spec": {"replicas": 0, "progressDeadlineSeconds": 0, "selector": {}, "template": {"metadata": {},
                    "spec": {"containers": [{"name": "a", "env": [{"name": "X"}], "resources": {}}],
                        "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": ""}}}},
                    "status": {"conditions": [{"type": "A", "lastUpdateTime": null}]}}),
            ),
            (
                "apps/v1",
                "ReplicaSet",
                json!({"status": {"replicas": 0, "readyReplicas": 0}}),
                json!({"status": {"replicas": 0}}),
            ),
            (
                "v1",
                "ConfigMap",
                json!({"data": {"a": ""}, "binaryData": {}, "immutable": false}),
                json!({"data": {"a": ""}, "immutable": false}),
            ),
        ] {
            let mut object = object;
            built_in(registry.find_kind(api_version, kind).unwrap(), &mut object);
            assert_eq!(object, expected, "{kind}");
        }
    }

    #[test]
    fn empty_metadata_is_left_out() {
        let mut object = json!({"metadata": {"labels": {}, "annotations": {"a": ""}, "finalizers": [], "name": ""}});
        metadata(&mut object);
        assert_eq!(object, json!({"metadata": {"annotations": {"a": ""}, "name": ""}}));
    }
}
