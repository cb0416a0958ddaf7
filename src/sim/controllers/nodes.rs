//! Where pods may run.

use serde_json::Value;

use super::super::json::{self, flag, items, text};

/// Whether a pod's node name, node selector and required node affinity admit a node.
pub(crate) fn selected(pod_spec: &Value, node: &Value) -> bool {
    let wanted = text(pod_spec, "/nodeName");
    if !wanted.is_empty() && wanted != json::name(node) {
        return false;
    }
    let labels = json::object_of(node, "/metadata/labels");
    let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    let selector = json::object_of(pod_spec, "/nodeSelector");
    if !selector.into_iter().flatten().all(|(k, v)| label(k) == v.as_str()) {
        return false;
    }
    let required = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let Some(required) = json::at(pod_spec, required) else { return true };
    items(required, "/nodeSelectorTerms").iter().any(|term| {
        let (expressions, fields) = (items(term, "/matchExpressions"), items(term, "/matchFields"));
        let name = |key: &str| (key == "metadata.name").then(|| json::name(node));
        let empty = expressions.is_empty() && fields.is_empty();
        !empty && expressions.iter().all(|r| holds(r, &label)) && fields.iter().all(|r| holds(r, &name))
    })
}

fn holds<'a>(requirement: &Value, get: &dyn Fn(&str) -> Option<&'a str>) -> bool {
    let value = get(text(requirement, "/key"));
    let values = items(requirement, "/values");
    let among = |v: &str| values.iter().any(|x| x.as_str() == Some(v));
    let bound = values.first().and_then(Value::as_str).and_then(|v| v.parse::<i64>().ok());
    let number = value.and_then(|v| v.parse::<i64>().ok());
    match text(requirement, "/operator") {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number.zip(bound).is_some_and(|(n, b)| n > b),
        "Lt" => number.zip(bound).is_some_and(|(n, b)| n < b),
        _ => false,
    }
}

/// Whether tolerations bear all taints of a node that have one of these effects.
pub(crate) fn tolerated(tolerations: &[Value], node: &Value, effects: &[&str]) -> bool {
    items(node, "/spec/taints")
        .iter()
        .filter(|taint| effects.contains(&text(taint, "/effect")))
        .all(|taint| tolerations.iter().any(|t| tolerates(t, taint)))
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
    (effect.is_empty() || effect == text(taint, "/effect"))
        && (key.is_empty() || key == text(taint, "/key"))
        && match text(toleration, "/operator") {
            "Exists" => true,
            "" | "Equal" => text(toleration, "/value") == text(taint, "/value"),
            _ => false,
        }
}

/// The taint of a cordoned node. The real one gets it from a controller that is not played here; the scheduler looks at
/// `spec.unschedulable` as well.
pub(crate) fn cordoned(tolerations: &[Value], node: &Value) -> bool {
    let taint = serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    flag(node, "/spec/unschedulable") && !tolerations.iter().any(|t| tolerates(t, &taint))
}

/// Whether the scheduler may put a pod on a node.
pub(crate) fn may_run(pod_spec: &Value, node: &Value) -> bool {
    let tolerations = items(pod_spec, "/tolerations");
    selected(pod_spec, node)
        && tolerated(tolerations, node, &["NoSchedule", "NoExecute"])
        && !cordoned(tolerations, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_and_affinities_choose_nodes() {
        let node = json!({"metadata": {"name": "n1", "labels": {"zone": "a", "size": "8"}}});
        let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let expression = |key: &str, operator: &str, values: Value| {
            affinity(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
        };
        for (spec, expected) in [
            (json!({}), true),
            (json!({"nodeName": "n1"}), true),
            (json!({"nodeName": "n2"}), false),
            (json!({"nodeSelector": {"zone": "a"}}), true),
            (json!({"nodeSelector": {"zone": "a", "disk": "ssd"}}), false),
            (expression("zone", "In", json!(["a", "b"])), true),
            (expression("zone", "NotIn", json!(["a"])), false),
            (expression("disk", "NotIn", json!(["ssd"])), true),
            (expression("disk", "DoesNotExist", json!([])), true),
            (expression("size", "Gt", json!(["7"])), true),
            (expression("size", "Lt", json!(["8"])), false),
            (affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])), true),
            (affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}])), false),
            (affinity(json!([{}])), false),
        ] {
            assert_eq!(selected(&spec, &node), expected, "{spec}");
        }
    }

    #[test]
    fn taints_need_tolerations() {
        let node =
            |key: &str, effect: &str| json!({"spec": {"taints": [{"key": key, "value": "x", "effect": effect}]}});
        let any = json!([{"operator": "Exists"}]);
        let equal = json!([{"key": "a", "value": "x"}]);
        let other = json!([{"key": "a", "value": "y", "effect": "NoSchedule"}]);
        for (tolerations, effect, expected) in [
            (&json!([]), "NoSchedule", false),
            (&json!([]), "PreferNoSchedule", true),
            (&any, "NoExecute", true),
            (&equal, "NoSchedule", true),
            (&other, "NoSchedule", false),
        ] {
            let spec = json!({"tolerations": tolerations});
            assert_eq!(may_run(&spec, &node("a", effect)), expected, "{tolerations} {effect}");
        }
        let cordoned = json!({"spec": {"unschedulable": true}});
        assert!(!may_run(&json!({}), &cordoned));
        let daemon = json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]});
        assert!(may_run(&daemon, &cordoned));
    }
}
