//! On which nodes a DaemonSet's own controller makes pods.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use crate::api::object::{self, at, text};

/// Names of the nodes, among those that are known, where a pod of this template may stay but none comes in its place when
/// it goes: they have a taint that keeps pods from being scheduled and that daemons do not bear. So has a node that an
/// autoscaler is about to remove, or one that is not ready; a node that is only cordoned has not.
pub(super) fn closed<'a>(nodes: &'a [Arc<Value>], template: &Value) -> BTreeSet<&'a str> {
    let mut tolerations: Vec<Value> =
        at(template, &["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    tolerations.extend(of_daemons(template));
    let keeps_away =
        |taint: &&Value| text(taint, &["effect"]) == "NoSchedule" && !tolerations.iter().any(|t| bears(t, taint));
    let taints = |node: &'a Arc<Value>| at(node, &["spec", "taints"]).and_then(Value::as_array).into_iter().flatten();
    nodes.iter().filter(|node| taints(node).any(|taint| keeps_away(&taint))).map(|node| object::name(node)).collect()
}

/// What Kubernetes adds to every daemon, as far as it is about being scheduled.
fn of_daemons(template: &Value) -> impl Iterator<Item = Value> {
    let is_on_host = at(template, &["spec", "hostNetwork"]).and_then(Value::as_bool).unwrap_or(false);
    ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"]
        .into_iter()
        .chain(is_on_host.then_some("network-unavailable"))
        .map(|key| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoSchedule"}))
}

/// Whether a toleration bears a taint; one by an operator that is not known bears none.
fn bears(toleration: &Value, taint: &Value) -> bool {
    let is_same = |field: &str| text(toleration, &[field]) == text(taint, &[field]);
    let is_any = |field: &str| text(toleration, &[field]).is_empty();
    (is_any("effect") || is_same("effect"))
        && match text(toleration, &["operator"]) {
            "Exists" => is_any("key") || is_same("key"),
            "" | "Equal" => is_same("key") && is_same("value"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_closed_by_what_daemons_do_not_bear() {
        let taint = |key: &str, effect: &str| json!([{"key": key, "value": "x", "effect": effect}]);
        let bare = json!({"spec": {}});
        let bearing = |toleration: Value| json!({"spec": {"tolerations": [toleration]}});
        const REMOVED: &str = "ToBeDeletedByClusterAutoscaler";
        for (template, taints, is_closed) in [
            (&bare, json!(null), false),
            (&bare, taint("node.kubernetes.io/unschedulable", "NoSchedule"), false),
            (&bare, taint("node.kubernetes.io/disk-pressure", "NoSchedule"), false),
            (&bare, taint("node.kubernetes.io/not-ready", "NoSchedule"), true),
            (&bare, taint("node.kubernetes.io/network-unavailable", "NoSchedule"), true),
            (
                &json!({"spec": {"hostNetwork": true}}),
                taint("node.kubernetes.io/network-unavailable", "NoSchedule"),
                false,
            ),
            (&bare, taint(REMOVED, "NoSchedule"), true),
            (&bare, taint(REMOVED, "PreferNoSchedule"), false),
            // Its pods go by themselves.
            (&bare, taint(REMOVED, "NoExecute"), false),
            (&bearing(json!({"operator": "Exists"})), taint(REMOVED, "NoSchedule"), false),
            (&bearing(json!({"operator": "Exists", "effect": "NoExecute"})), taint(REMOVED, "NoSchedule"), true),
            (&bearing(json!({"key": REMOVED, "operator": "Exists"})), taint(REMOVED, "NoSchedule"), false),
            (&bearing(json!({"key": REMOVED, "value": "x"})), taint(REMOVED, "NoSchedule"), false),
            (&bearing(json!({"key": REMOVED, "value": "y"})), taint(REMOVED, "NoSchedule"), true),
            (&bearing(json!({"key": REMOVED, "operator": "Lt", "value": "9"})), taint(REMOVED, "NoSchedule"), true),
        ] {
            let nodes = [Arc::new(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}}))];
            assert_eq!(closed(&nodes, template).contains("n"), is_closed, "{template} {taints}");
        }
    }
}
