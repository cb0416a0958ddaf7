//! The extra Deployment of canary style, beside the stable one.

use serde_json::{Map, Value, json};

use super::Workload;
use crate::api::{
    keys,
    object::{self, at},
    v1beta1::PatchPodTemplateMetadata,
};

/// Name of the canary Deployment of a workload.
pub fn canary_name(workload: &str) -> String {
    // 63 characters are the limit for the labels that Kubernetes derives from the name.
    let base: String = workload.chars().take(56).collect();
    format!("{}-canary", base.trim_end_matches(['-', '.']))
}

/// The template of canary pods: the workload's template with the Rollout's labels and annotations, and a label that
/// tells the canary Deployment's pods from the stable ones.
pub fn canary_template(workload: &Workload, patch: Option<&PatchPodTemplateMetadata>) -> Value {
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
    workload: &Workload,
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
    use crate::workload::{
        Surroundings,
        deployment::{read, tests::deployment},
    };

    #[test]
    fn canary_differs_in_selector_template_and_owner_only() {
        let stable = read(&deployment("v2"), &Surroundings::default());
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
