//! What OpenKruise's conversion webhook does: its kinds may be served in two versions whose shapes differ.

use serde_json::{Value, json};

use super::json::{self, flag, text};
use super::registry::Kind;

/// Turns an object of one version into one of another. What is not one of these kinds stays as it is.
pub(crate) fn convert(kind: &Kind, from: &str, to: &str, object: &mut Value) {
    if kind.group != "apps.kruise.io" {
        return;
    }
    match (kind.plural.as_str(), from, to) {
        ("clonesets", "v1alpha1", "v1beta1") => clone_set_up(object),
        ("clonesets", "v1beta1", "v1alpha1") => clone_set_down(object),
        ("daemonsets", "v1alpha1", "v1beta1") => rename_status(object, "daemonSetHash", "updateRevision"),
        ("daemonsets", "v1beta1", "v1alpha1") => rename_status(object, "updateRevision", "daemonSetHash"),
        _ => {}
    }
}

fn rename_status(object: &mut Value, from: &str, to: &str) {
    if let Some(value) = json::remove(object, &["status", from]) {
        json::set(object, &["status", to], value);
    }
}

fn negate(object: &mut Value, from: &str, to: &str) {
    let strategy = ["spec", "scaleStrategy"];
    if let Some(Value::Bool(on)) = json::remove(object, &[&strategy[..], &[from]].concat()) {
        json::set(object, &[&strategy[..], &[to]].concat(), !on);
    }
}

/// v1alpha1 has strategy and policy in one field, and the parameters beside it.
fn clone_set_up(object: &mut Value) {
    negate(object, "disablePVCReuse", "enablePVCReuse");
    let Some(old) = json::remove(object, &["spec", "updateStrategy"]) else { return };
    let policy = text(&old, "/type").to_owned();
    let new = if policy == "OnDelete" {
        json!({"type": "OnDelete"})
    } else {
        let mut rolling = old;
        json::remove(&mut rolling, &["type"]);
        let policy = if policy.is_empty() { "ReCreate" } else { policy.as_str() };
        json::set(&mut rolling, &["podUpdatePolicy"], policy);
        json!({"type": "RollingUpdate", "rollingUpdate": rolling})
    };
    json::set(object, &["spec", "updateStrategy"], new);
}

fn clone_set_down(object: &mut Value) {
    negate(object, "enablePVCReuse", "disablePVCReuse");
    let Some(mut old) = json::remove(object, &["spec", "updateStrategy"]) else { return };
    let mut new = json::remove(&mut old, &["rollingUpdate"]).filter(Value::is_object).unwrap_or_else(|| json!({}));
    let policy = json::remove(&mut new, &["podUpdatePolicy"]);
    let policy = if text(&old, "/type") == "OnDelete" { Some("OnDelete".into()) } else { policy };
    json::set(&mut new, &["type"], policy.unwrap_or_else(|| "ReCreate".into()));
    if !flag(&new, "/paused") {
        json::remove(&mut new, &["paused"]);
    }
    json::set(object, &["spec", "updateStrategy"], new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_sets_go_both_ways() {
        for (alpha, beta) in [
            (
                json!({"type": "ReCreate", "partition": "20%", "maxSurge": 1}),
                json!({"type": "RollingUpdate", "rollingUpdate": {"podUpdatePolicy": "ReCreate", "partition": "20%", "maxSurge": 1}}),
            ),
            (
                json!({"type": "InPlaceIfPossible", "paused": true, "inPlaceUpdateStrategy": {"gracePeriodSeconds": 5}}),
                json!({"type": "RollingUpdate", "rollingUpdate": {"podUpdatePolicy": "InPlaceIfPossible", "paused": true, "inPlaceUpdateStrategy": {"gracePeriodSeconds": 5}}}),
            ),
            (json!({"type": "OnDelete"}), json!({"type": "OnDelete"})),
        ] {
            let set = |strategy: &Value, reuse: &str, on: bool| json!({"spec": {"replicas": 1, "updateStrategy": strategy, "scaleStrategy": {reuse: on}}});
            let (alpha, beta) = (set(&alpha, "disablePVCReuse", true), set(&beta, "enablePVCReuse", false));
            let (mut up, mut down) = (alpha.clone(), beta.clone());
            clone_set_up(&mut up);
            clone_set_down(&mut down);
            assert_eq!((up, down), (beta, alpha));
        }
    }
}
