//! `apps/v1` Deployment: its ReplicaSets are its revisions; it is held by `paused`.

mod gate;
mod opening;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{
    Kind, PodNames, Revision, Style, Surroundings, Workload, count,
    hold::{By, Rule},
    replicas::{Round, scaled},
};
use crate::api::{
    keys,
    object::{self, at, digest, text},
};

/// The row of `apps/v1` Deployment.
pub const KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    workload_type: "deployment",
    revision_label: keys::POD_TEMPLATE_HASH,
    styles: &[Style::Canary, Style::Partition, Style::BlueGreen],
    revisions: ("apps/v1", "ReplicaSet"),
    counts_pods: false,
    reads_nodes: false,
    goes_back_in_batches: false,
    holds: &[Rule {
        switch: keys::WORKLOAD_TYPE,
        policy: "tidegate-hold-deployments",
        group: "apps",
        version: "v1",
        resource: "deployments",
        path: "/mutate-apps-v1-deployment",
        webhook: "mdeployment.kb.io",
        by: By::Paused,
    }],
    read: |_, object, surroundings| read(object, surroundings),
    gate: &gate::Deployment,
};

/// The row where it has to be named: the extra Deployment of canary style is read like any other.
static ROW: Kind = KIND;

/// Reads a Deployment with its ReplicaSets.
pub fn read(object: &Arc<Value>, surroundings: &Surroundings<'_>) -> Workload {
    let template = template_of(object);
    let mut revisions: Vec<Revision> = surroundings
        .revisions
        .iter()
        .filter(|set| object::controller_uid(set) == Some(object::uid(object)))
        .filter_map(|set| revision(set, &template))
        .collect();
    revisions.sort_by(|a, b| (a.number, &a.hash).cmp(&(b.number, &b.hash)));
    let replicas = count(object, &["spec", "replicas"], 1);
    Workload {
        kind: &ROW,
        replicas,
        revisions,
        template_name: digest(&template),
        existing: count(object, &["status", "replicas"], 0),
        ready: count(object, &["status", "readyReplicas"], 0),
        available: count(object, &["status", "availableReplicas"], 0),
        updated: count(object, &["status", "updatedReplicas"], 0),
        max_unavailable: max_unavailable(object, replicas),
        trouble: trouble(object),
        object: object.clone(),
    }
}

fn template_of(object: &Value) -> Value {
    at(object, &["spec", "template"]).map(object::without_nulls).unwrap_or(Value::Null)
}

/// The template of a ReplicaSet as its Deployment had it.
fn plain_template(set: &Value) -> Value {
    let mut own = template_of(set);
    if let Some(labels) = own.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(keys::POD_TEMPLATE_HASH);
    }
    own
}

fn revision(set: &Value, template: &Value) -> Option<Revision> {
    let hash = object::label(set, keys::POD_TEMPLATE_HASH)?.to_owned();
    let own = plain_template(set);
    let replicas = count(set, &["spec", "replicas"], 1);
    Some(Revision {
        number: object::annotation(set, keys::DEPLOYMENT_REVISION).and_then(|n| n.parse().ok()).unwrap_or(0),
        replicas,
        existing: count(set, &["status", "replicas"], 0),
        // What is about to go stands in for no pod of another version, though its status still counts it.
        ready: count(set, &["status", "readyReplicas"], 0).min(replicas),
        is_present: own == *template,
        pods: PodNames::Prefixed(format!("{}-", object::name(set))),
        hash,
    })
}

/// A strategy's `maxSurge` and `maxUnavailable` in pods, as the Deployment controller resolves them.
fn budget(strategy: &Value, replicas: i32) -> (i32, i32) {
    if text(strategy, &["type"]) == "Recreate" {
        return (0, replicas);
    }
    let pods = |field: &str, round: Round| {
        let value = at(strategy, &["rollingUpdate", field])
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .unwrap_or(IntOrString::String("25%".to_owned()));
        scaled(&value, replicas, round).unwrap_or(0).max(0)
    };
    match (pods("maxSurge", Round::Up), pods("maxUnavailable", Round::Down).min(replicas)) {
        (0, 0) => (0, 1.min(replicas)),
        budget => budget,
    }
}

fn max_unavailable(object: &Value, replicas: i32) -> i32 {
    at(object, &["spec", "strategy"]).map_or(0, |strategy| budget(strategy, replicas).1)
}

/// The message of a failed `Progressing` or `ReplicaFailure` condition.
fn trouble(object: &Value) -> Option<String> {
    at(object, &["status", "conditions"])?.as_array()?.iter().find_map(|c| {
        let bad = match text(c, &["type"]) {
            "Progressing" => "False",
            "ReplicaFailure" => "True",
            _ => return None,
        };
        (text(c, &["status"]) == bad).then(|| format!("{}: {}", text(c, &["reason"]), text(c, &["message"])))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    fn view(object: &Arc<Value>, revisions: &[Arc<Value>]) -> Workload {
        read(object, &Surroundings { revisions, ..Surroundings::default() })
    }

    fn rs(name: &str, hash: &str, number: i64, replicas: i64, image: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name, "labels": {"pod-template-hash": hash},
                "annotations": {"deployment.kubernetes.io/revision": number.to_string()},
                "ownerReferences": [{"controller": true, "uid": "d"}]},
            "spec": {"replicas": replicas, "template": {
                "metadata": {"creationTimestamp": null, "labels": {"app": "a", "pod-template-hash": hash}},
                "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
    }

    pub fn deployment(image: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 2},
            "spec": {"replicas": 4, "paused": true, "strategy": {"rollingUpdate": {"maxUnavailable": "25%"}},
                "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
            "status": {"observedGeneration": 2, "replicas": 4, "updatedReplicas": 4, "availableReplicas": 3},
        }))
    }

    #[test]
    fn finds_the_revision_of_a_template() {
        let sets = [rs("web-2", "h2", 2, 0, "v2"), rs("web-1", "h1", 1, 4, "v1"), rs("other", "x", 0, 1, "v3")];
        let held = view(&deployment("v3"), &sets);
        assert_eq!(held.oldest_active().unwrap().hash, "x");
        let d = view(&deployment("v1"), &sets[..2]);
        assert_eq!((d.current().unwrap().hash.as_str(), d.oldest_active().unwrap().hash.as_str()), ("h1", "h1"));
        assert!(d.is_at("h1") && !d.is_at("h2"));
        assert!(view(&deployment("v9"), &sets[..2]).current().is_none());
    }

    #[test]
    fn is_rolled_out_within_max_unavailable() {
        assert!(view(&deployment("v1"), &[]).is_rolled_out(), "3 of 4 with 25 % unavailable");
        let mut object = (*deployment("v1")).clone();
        object["status"]["availableReplicas"] = json!(2);
        assert!(!view(&Arc::new(object.clone()), &[]).is_rolled_out());
        object["status"]["availableReplicas"] = json!(4);
        object["status"]["replicas"] = json!(5);
        assert!(!view(&Arc::new(object), &[]).is_rolled_out(), "an old pod is left");
    }
}
