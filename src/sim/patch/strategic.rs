//! Strategic merge patch: a merge patch that knows which lists of the built-in types merge by a key.

use kube::core::Status;
use serde_json::{Map, Value};

use super::super::registry::Kind;
use super::super::status;

/// Applies a patch to a built-in object. Understands `$patch` (`delete`, `replace`), `$retainKeys`,
/// `$setElementOrder` and `$deleteFromPrimitiveList`.
pub(crate) fn patch(kind: &Kind, target: &Value, patch: &Value) -> Result<Value, Box<Status>> {
    if kind.custom {
        return Err(status::strategic_patch_of_custom());
    }
    let Value::Object(patch) = patch else {
        return Err(status::bad_request("the patch is not an object"));
    };
    let mut result = target.clone();
    merge_object(&kind.kind, "", &mut result, patch)?;
    Ok(result)
}

/// The key by which the elements of a list merge.
fn merge_key(kind: &str, parent: &str, field: &str) -> Option<&'static str> {
    Some(match field {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "conditions" => "type",
        "ownerReferences" => "uid",
        "hostAliases" | "podIPs" | "hostIPs" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "resourceClaims" => "name",
        "ports" if kind == "Service" => "port",
        "ports" if parent == "containers" || parent == "initContainers" => "containerPort",
        _ => return None,
    })
}

fn merges_scalars(field: &str) -> bool {
    field == "finalizers"
}

fn merge_object(kind: &str, field: &str, target: &mut Value, patch: &Map<String, Value>) -> Result<(), Box<Status>> {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("replace") => {
            let mut new = patch.clone();
            new.remove("$patch");
            *target = Value::Object(new);
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(status::bad_request(format!("unknown patch type found: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return Ok(()) };
    if let Some(Value::Array(retain)) = patch.get("$retainKeys") {
        map.retain(|k, _| retain.iter().any(|r| r == k));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(have)), Some(gone)) = (map.get_mut(list), value.as_array()) {
                have.retain(|v| !gone.contains(v));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        match value {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(inner) => {
                let slot = map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
                merge_object(kind, key, slot, inner)?;
                if inner.get("$patch").and_then(Value::as_str) == Some("delete") {
                    map.remove(key);
                }
            }
            Value::Array(list) => {
                let order = patch.get(&format!("$setElementOrder/{key}")).and_then(Value::as_array);
                merge_list(kind, field, key, map, list, order.map_or(&[], Vec::as_slice))?;
            }
            scalar => {
                map.insert(key.clone(), scalar.clone());
            }
        }
    }
    Ok(())
}

fn merge_list(
    kind: &str,
    parent: &str,
    field: &str,
    map: &mut Map<String, Value>,
    list: &[Value],
    order: &[Value],
) -> Result<(), Box<Status>> {
    let strip = |v: &Value| {
        let mut v = v.clone();
        if let Value::Object(m) = &mut v {
            m.retain(|k, _| !k.starts_with('$'));
        }
        v
    };
    let replace = list.iter().any(|v| v.get("$patch").and_then(Value::as_str) == Some("replace"));
    if merges_scalars(field) && !replace {
        let have = map.entry(field.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(have) = have {
            for item in list {
                if !have.contains(item) {
                    have.push(item.clone());
                }
            }
            return Ok(());
        }
    }
    let Some(key) = merge_key(kind, parent, field).filter(|_| !replace) else {
        let new = list.iter().filter(|v| v.get("$patch").is_none()).map(strip).collect();
        map.insert(field.to_owned(), Value::Array(new));
        return Ok(());
    };
    let slot = map.entry(field.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(have) = slot else { return Ok(()) };
    let server: Vec<Value> = have.iter().filter_map(|h| h.get(key)).cloned().collect();
    let mut named: Vec<Value> = order.iter().filter_map(|o| o.get(key)).cloned().collect();
    for item in list {
        let Some(id) = item.get(key) else {
            let message = format!("map: {} does not contain declared merge key: {key}", go(item));
            return Err(status::failure(500, "", message));
        };
        if order.is_empty() {
            named.push(id.clone());
        }
        let at = have.iter().position(|h| h.get(key) == Some(id));
        let delete = item.get("$patch").and_then(Value::as_str) == Some("delete");
        match (at, delete, item) {
            (Some(i), true, _) => {
                have.remove(i);
            }
            (None, true, _) => {}
            (Some(i), false, Value::Object(inner)) => {
                if let Some(slot) = have.get_mut(i) {
                    merge_object(kind, field, slot, inner)?;
                }
            }
            (_, false, _) => {
                let mut new = Value::Object(Map::new());
                if let Value::Object(inner) = item {
                    merge_object(kind, field, &mut new, inner)?;
                }
                have.push(new);
            }
        }
    }
    arrange(have, key, &named, &server);
    Ok(())
}

/// Brings a merged list into the server's order: what the patch names keeps the patch's order, the rest keeps its own,
/// and each named element comes before the first other one that stood behind it on the server. New ones come first.
fn arrange(list: &mut Vec<Value>, key: &str, named: &[Value], server: &[Value]) {
    let place = |v: &Value, order: &[Value]| v.get(key).and_then(|id| order.iter().position(|o| o == id));
    let (mut left, mut right): (Vec<Value>, Vec<Value>) =
        std::mem::take(list).into_iter().partition(|v| place(v, named).is_some());
    left.sort_by_key(|v| place(v, named));
    let mut from = 0;
    for item in left {
        let mine = place(&item, server);
        let behind = |other: &Value| place(other, server) > mine;
        let at = right.iter().skip(from).position(behind).map_or(right.len(), |i| from + i);
        right.insert(at, item);
        from = at + 1;
    }
    *list = right;
}

/// A flat map as Go prints it.
fn go(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go(v))).collect();
            format!("map[{}]", fields.join(" "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::registry::{DEPLOYMENTS, Registry};
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_merge_by_their_keys() {
        let registry = Registry::new();
        let kind = registry.get(DEPLOYMENTS).unwrap();
        let containers = |c: Value| json!({"spec": {"template": {"spec": {"containers": c}}}});
        for (target, change, expected) in [
            (
                containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
                containers(json!([{"name": "b", "image": "2"}])),
                containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])),
            ),
            (
                containers(json!([{"name": "a"}, {"name": "b"}])),
                containers(json!([{"$patch": "delete", "name": "a"}, {"name": "c"}])),
                containers(json!([{"name": "c"}, {"name": "b"}])),
            ),
            (
                containers(json!([{"name": "a"}, {"name": "b"}])),
                containers(json!([{"name": "z"}, {"$patch": "replace"}])),
                containers(json!([{"name": "z"}])),
            ),
            (
                containers(
                    json!([{"name": "a", "ports": [{"containerPort": 80}], "env": [{"name": "X", "value": "1"}]}]),
                ),
                containers(
                    json!([{"name": "a", "ports": [{"containerPort": 81}], "env": [{"name": "X", "value": "2"}]}]),
                ),
                containers(
                    json!([{"name": "a", "ports": [{"containerPort": 81}, {"containerPort": 80}], "env": [{"name": "X", "value": "2"}]}]),
                ),
            ),
            (
                json!({"status": {"conditions": [{"type": "Available", "status": "True"}]}}),
                json!({"status": {"conditions": [{"type": "Available", "status": "False"}, {"type": "P"}]}}),
                json!({"status": {"conditions": [{"type": "Available", "status": "False"}, {"type": "P"}]}}),
            ),
            (
                containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])),
                json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "n"}, {"name": "a"}],
                    "containers": [{"name": "n"}]}}}}),
                containers(json!([{"name": "b"}, {"name": "c"}, {"name": "n"}, {"name": "a"}])),
            ),
            (
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
            ),
            (
                json!({"metadata": {"finalizers": ["a/b"], "labels": {"x": "1", "y": "2"}}}),
                json!({"metadata": {"finalizers": ["c/d"], "labels": {"$patch": "replace", "z": "3"}}}),
                json!({"metadata": {"finalizers": ["a/b", "c/d"], "labels": {"z": "3"}}}),
            ),
            (
                json!({"metadata": {"finalizers": ["a/b", "c/d"]}, "spec": {"selector": {"a": "b"}}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}, "spec": {"selector": null}}),
                json!({"metadata": {"finalizers": ["c/d"]}, "spec": {}}),
            ),
        ] {
            assert_eq!(patch(kind, &target, &change).unwrap(), expected, "{target} {change}");
        }
    }

    #[test]
    fn a_missing_merge_key_is_refused() {
        let registry = Registry::new();
        let kind = registry.get(DEPLOYMENTS).unwrap();
        let change = json!({"spec": {"containers": [{"image": "x"}]}});
        assert_eq!(patch(kind, &json!({}), &change).unwrap_err().code, 500);
    }
}
