//! `apps/v1` Deployment: how far its pods are, which ReplicaSet is the stable revision, and the canary Deployment that
//! stands beside it in canary style.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use crate::{
    api::{
        keys::{self, InProgressing},
        object::{self, at, int, text},
        v1beta1::PatchPodTemplateMetadata,
    },
    workload::replicas::{Round, scaled},
};

/// One ReplicaSet of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSet {
    /// Name; its pods' names begin with it and a dash.
    pub name: String,
    /// The revision: the value of the `pod-template-hash` label.
    pub hash: String,
    /// Revision number within the Deployment.
    pub number: i64,
    /// Pods wanted.
    pub replicas: i32,
    /// The template, without the revision label.
    template: Value,
}

impl ReplicaSet {
    fn read(object: &Value) -> Option<ReplicaSet> {
        let hash = object::label(object, keys::POD_TEMPLATE_HASH)?.to_owned();
        let mut template = at(object, &["spec", "template"])?.clone();
        if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(keys::POD_TEMPLATE_HASH);
        }
        Some(ReplicaSet {
            name: object::name(object).to_owned(),
            hash,
            number: object::annotation(object, keys::DEPLOYMENT_REVISION).and_then(|n| n.parse().ok()).unwrap_or(0),
            replicas: count(object, &["spec", "replicas"], 1),
            template: object::without_nulls(&template),
        })
    }
}

fn count(object: &Value, path: &[&str], default: i32) -> i32 {
    int(object, path).and_then(|n| i32::try_from(n).ok()).unwrap_or(default)
}

/// A Deployment with its ReplicaSets.
#[derive(Clone, Debug)]
pub struct Deployment {
    object: Arc<Value>,
    /// Its ReplicaSets, oldest revision first.
    pub replica_sets: Vec<ReplicaSet>,
}

impl Deployment {
    /// Reads a Deployment; of `replica_sets` only those that it controls count.
    pub fn read(object: &Arc<Value>, replica_sets: &[Arc<Value>]) -> Deployment {
        let mut owned: Vec<ReplicaSet> = replica_sets
            .iter()
            .filter(|rs| object::controller_uid(rs) == Some(object::uid(object)))
            .filter_map(|rs| ReplicaSet::read(rs))
            .collect();
        owned.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        Deployment { object: object.clone(), replica_sets: owned }
    }

    /// The object as it was read.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// Pods wanted; the API server's default is 1.
    pub fn replicas(&self) -> i32 {
        count(&self.object, &["spec", "replicas"], 1)
    }

    /// `spec.paused`.
    pub fn is_paused(&self) -> bool {
        at(&self.object, &["spec", "paused"]).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The mark of a captured release; an unreadable one counts as one without details.
    pub fn in_progressing(&self) -> Option<InProgressing> {
        object::annotation(&self.object, keys::IN_PROGRESSING)
            .map(|text| serde_json::from_str(text).unwrap_or_default())
    }

    /// The user's id of the release.
    pub fn rollout_id(&self) -> Option<&str> {
        object::label(&self.object, keys::ROLLOUT_ID).filter(|id| !id.is_empty())
    }

    /// The pod template.
    pub fn template(&self) -> Value {
        at(&self.object, &["spec", "template"]).map(object::without_nulls).unwrap_or(Value::Null)
    }

    /// The ReplicaSet that was made from the present template.
    pub fn current(&self) -> Option<&ReplicaSet> {
        let template = self.template();
        self.replica_sets.iter().rev().find(|rs| rs.template == template)
    }

    /// The oldest ReplicaSet that has pods: what runs while a newer template is held.
    pub fn oldest_active(&self) -> Option<&ReplicaSet> {
        self.replica_sets.iter().find(|rs| rs.replicas > 0)
    }

    /// A ReplicaSet by its revision.
    pub fn revision(&self, hash: &str) -> Option<&ReplicaSet> {
        self.replica_sets.iter().find(|rs| rs.hash == hash)
    }

    /// Whether the present template is the one of a revision.
    pub fn is_at(&self, hash: &str) -> bool {
        let template = self.template();
        self.replica_sets.iter().any(|rs| rs.hash == hash && rs.template == template)
    }

    /// Pods that exist.
    pub fn existing(&self) -> i32 {
        count(&self.object, &["status", "replicas"], 0)
    }

    /// Pods that are ready.
    pub fn ready(&self) -> i32 {
        count(&self.object, &["status", "readyReplicas"], 0)
    }

    /// Pods that have been ready for `minReadySeconds`.
    pub fn available(&self) -> i32 {
        count(&self.object, &["status", "availableReplicas"], 0)
    }

    /// Pods of the present template.
    pub fn updated(&self) -> i32 {
        count(&self.object, &["status", "updatedReplicas"], 0)
    }

    fn max_unavailable(&self) -> i32 {
        if text(&self.object, &["spec", "strategy", "type"]) == "Recreate" {
            return self.replicas();
        }
        at(&self.object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"])
            .and_then(|v| serde_json::from_value::<IntOrString>(v.clone()).ok())
            .and_then(|v| scaled(&v, self.replicas(), Round::Down))
            .unwrap_or(0)
            .clamp(0, self.replicas())
    }

    /// The Deployment's own controller has finished: every pod is of the present template and as many as its strategy
    /// demands are available.
    pub fn is_rolled_out(&self) -> bool {
        object::is_observed(&self.object)
            && self.updated() >= self.replicas()
            && self.existing() <= self.updated()
            && self.has_enough()
    }

    /// As many pods are available as its strategy promises, and one at least.
    pub fn has_enough(&self) -> bool {
        self.available() + self.max_unavailable() >= self.replicas() && (self.replicas() == 0 || self.available() > 0)
    }

    /// What the Deployment's own controller says of trouble, if it does: the message of a failed `Progressing` or
    /// `ReplicaFailure` condition.
    pub fn trouble(&self) -> Option<String> {
        at(&self.object, &["status", "conditions"])?.as_array()?.iter().find_map(|c| {
            let bad = match text(c, &["type"]) {
                "Progressing" => "False",
                "ReplicaFailure" => "True",
                _ => return None,
            };
            (text(c, &["status"]) == bad).then(|| format!("{}: {}", text(c, &["reason"]), text(c, &["message"])))
        })
    }
}

/// Name of the canary Deployment of a workload.
pub fn canary_name(workload: &str) -> String {
    // 63 characters are the limit for the labels that Kubernetes derives from the name.
    let base: String = workload.chars().take(56).collect();
    format!("{}-canary", base.trim_end_matches(['-', '.']))
}

/// The template of canary pods: the workload's template with the Rollout's labels and annotations, and a label that
/// tells the canary Deployment's pods from the stable ones.
pub fn canary_template(workload: &Deployment, patch: Option<&PatchPodTemplateMetadata>) -> Value {
    let mut template = workload.template();
    let mut set = |map: &str, key: &str, value: &str| {
        let Some(template) = template.as_object_mut() else { return };
        let metadata = template.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else { return };
        let entry = metadata.entry(map).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(key.to_owned(), json!(value));
        }
    };
    for (key, value) in patch.iter().flat_map(|p| &p.labels) {
        set("labels", key, value);
    }
    for (key, value) in patch.iter().flat_map(|p| &p.annotations) {
        set("annotations", key, value);
    }
    set("labels", keys::CANARY_DEPLOYMENT, &canary_label(object::name(workload.object())));
    template
}

/// Value of [`keys::CANARY_DEPLOYMENT`]: label values are limited to 63 characters.
pub fn canary_label(workload: &str) -> String {
    let base: String = workload.chars().take(63).collect();
    base.trim_end_matches(['-', '.', '_']).to_owned()
}

/// The canary Deployment: the workload's spec with the canary template and a selector of its own, owned by the Rollout.
pub fn canary_deployment(
    workload: &Deployment,
    patch: Option<&PatchPodTemplateMetadata>,
    owner: Value,
    replicas: i32,
) -> Value {
    let stable = workload.object();
    let name = object::name(stable);
    let mut spec = at(stable, &["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    spec.remove("paused");
    spec.insert("replicas".to_owned(), json!(replicas));
    spec.insert("template".to_owned(), canary_template(workload, patch));
    let selector = spec.entry("selector").or_insert_with(|| json!({}));
    if let Some(selector) = selector.as_object_mut() {
        let labels = selector.entry("matchLabels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            // A selector label that the Rollout patches must select the patched pods.
            for (key, value) in patch.iter().flat_map(|p| &p.labels) {
                if labels.contains_key(key) {
                    labels.insert(key.clone(), json!(value));
                }
            }
            labels.insert(keys::CANARY_DEPLOYMENT.to_owned(), json!(canary_label(name)));
        }
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": canary_name(name),
            "namespace": object::namespace(stable),
            "labels": {keys::CANARY_DEPLOYMENT: canary_label(name)},
            "ownerReferences": [owner],
        },
        "spec": Value::Object(spec.into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn deployment(image: &str) -> Arc<Value> {
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
        let held = Deployment::read(&deployment("v3"), &sets);
        assert_eq!(held.oldest_active().unwrap().hash, "x");
        let d = Deployment::read(&deployment("v1"), &sets[..2]);
        assert_eq!((d.current().unwrap().hash.as_str(), d.oldest_active().unwrap().hash.as_str()), ("h1", "h1"));
        assert!(d.is_at("h1") && !d.is_at("h2"));
        assert!(Deployment::read(&deployment("v9"), &sets[..2]).current().is_none());
    }

    #[test]
    fn is_rolled_out_within_max_unavailable() {
        assert!(Deployment::read(&deployment("v1"), &[]).is_rolled_out(), "3 of 4 with 25 % unavailable");
        let mut object = (*deployment("v1")).clone();
        object["status"]["availableReplicas"] = json!(2);
        assert!(!Deployment::read(&Arc::new(object.clone()), &[]).is_rolled_out());
        object["status"]["availableReplicas"] = json!(4);
        object["status"]["replicas"] = json!(5);
        assert!(!Deployment::read(&Arc::new(object), &[]).is_rolled_out(), "an old pod is left");
    }

    #[test]
    fn canary_differs_in_selector_template_and_owner_only() {
        let stable = Deployment::read(&deployment("v2"), &[]);
        let patch = PatchPodTemplateMetadata {
            labels: [("version".to_owned(), "canary".to_owned())].into(),
            annotations: [("note".to_owned(), "x".to_owned())].into(),
        };
        let canary = canary_deployment(&stable, Some(&patch), json!({"uid": "r"}), 1);
        assert_eq!(canary["metadata"]["name"], "web-canary");
        assert_eq!(canary["spec"]["replicas"], 1);
        assert_eq!(canary["spec"].get("paused"), None);
        assert_eq!(
            canary["spec"]["template"]["metadata"]["labels"],
            json!({"app": "a", "version": "canary", "rollouts.kruise.io/canary-deployment": "web"})
        );
        assert_eq!(
            canary["spec"]["selector"]["matchLabels"],
            json!({"app": "a", "rollouts.kruise.io/canary-deployment": "web"})
        );
        assert_eq!(canary["spec"]["template"]["spec"], stable.template()["spec"]);
    }

    #[test]
    fn names_stay_within_limits() {
        assert_eq!(canary_name("web"), "web-canary");
        assert!(canary_name(&"x".repeat(200)).len() <= 63);
    }
}
