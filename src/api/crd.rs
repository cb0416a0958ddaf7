//! The custom resource definitions, made from the types of this module.
//!
//! What a derive cannot say is added here and by [`super::rules`]: both versions of `Rollout`, list types, Kubernetes'
//! conventions for what is optional, and the validations of the API.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::{analysis, rules, v1alpha1, v1beta1};

/// Why the definitions could not be made: a type and a table of this crate do not fit each other.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A type did not serialise.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A rule names a field that the types do not have.
    #[error("no field `{0}` in the schema")]
    NoField(String),
}

/// All definitions of the group.
pub fn all() -> Result<Vec<Value>, Error> {
    let mut rollout = serde_json::to_value(v1beta1::Rollout::crd())?;
    let mut routing = serde_json::to_value(v1alpha1::TrafficRouting::crd())?;
    let mut history = serde_json::to_value(v1alpha1::RolloutHistory::crd())?;
    let mut template = serde_json::to_value(analysis::MetricTemplate::crd())?;
    for crd in [&mut rollout, &mut routing, &mut history, &mut template] {
        settle(crd)?;
    }
    rules::traffic_routing(schema(&mut routing, 0)?)?;
    rules::metric_template(schema(&mut template, 0)?)?;
    // One schema, two versions: what is written through the one is read through the other without a loss.
    let versions = versions(&mut rollout)?;
    let mut older = versions.first().cloned().ok_or_else(|| Error::NoField("versions".to_owned()))?;
    set(&mut older, json!({"name": "v1alpha1", "storage": false}));
    versions.insert(0, older);
    for (index, step_in) in [(0, ".status.canaryStatus"), (1, ".status")] {
        if let Some(version) = self::versions(&mut rollout)?.get_mut(index) {
            set(version, json!({"additionalPrinterColumns": rollout_columns(step_in)}));
        }
        let schema = schema(&mut rollout, index)?;
        rules::rollout(schema)?;
        if index == 0 {
            rules::rollout_v1alpha1(schema)?;
            for path in ANALYSES {
                undescribe(at(schema, path)?);
            }
        } else {
            rules::rollout_v1beta1(schema)?;
        }
    }
    Ok(vec![rollout, routing, history, template])
}

/// Where v1alpha1 has what only we brought. Its words are in v1beta1, which `kubectl explain` shows: a definition that is
/// larger than 256 KiB as JSON could not be applied any more, and a schema cannot say a thing once for two places.
const ANALYSES: [&str; 5] = [
    "spec.strategy.analysis",
    "spec.strategy.canary.steps[].analysis",
    "spec.strategy.blueGreen.steps[].analysis",
    "status.canaryStatus.analysis",
    "status.blueGreenStatus.analysis",
];

/// Takes the words away from all fields below a schema.
fn undescribe(schema: &mut Value) {
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(key) {
            unset(child, "description");
            undescribe(child);
        }
    }
    for child in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        unset(child, "description");
        undescribe(child);
    }
}

/// The name under which a definition is kept, such as `rollouts.kruise.io_rollouts.yaml`.
pub fn file_name(crd: &Value) -> String {
    let text = |pointer| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}_{}.yaml", text("/spec/group"), text("/spec/names/plural"))
}

fn rollout_columns(step_in: &str) -> Value {
    json!([
        {"name": "STATUS", "type": "string", "jsonPath": ".status.phase", "description": "Phase of the Rollout"},
        {"name": "CANARY_STEP", "type": "integer", "jsonPath": format!("{step_in}.currentStepIndex"), "description": "The current step, 1-based"},
        {"name": "CANARY_STATE", "type": "string", "jsonPath": format!("{step_in}.currentStepState"), "description": "Where the current step stands"},
        {"name": "MESSAGE", "type": "string", "jsonPath": ".status.message", "description": "What is waited for"},
        {"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

/// Makes a derived definition what an API server expects of a hand-made one.
fn settle(crd: &mut Value) -> Result<(), Error> {
    if let Some(spec) = crd.get_mut("spec") {
        // Said although it is the default: `kubectl apply` over a definition that names a conversion webhook, such as
        // OpenKruise's, must take the webhook away.
        set(spec, json!({"conversion": {"strategy": "None", "webhook": null}}));
        if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
            let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            names.insert("listKind".to_owned(), format!("{kind}List").into());
            names.retain(|_, v| v.as_array().is_none_or(|a| !a.is_empty()));
        }
    }
    let schema = schema(crd, 0)?;
    tidy(schema);
    // A derive describes the spec with the words for the whole.
    let about = at(schema, "spec")?.get("description").cloned();
    let what = about.unwrap_or_default();
    set(schema, json!({"description": what}));
    set(at(schema, "spec")?, json!({"description": "What is wanted."}));
    if let Ok(status) = at(schema, "status") {
        set(status, json!({"description": "What the controller observed."}));
    }
    Ok(())
}

fn tidy(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    // Absent is the one way to say nothing; an API server drops a null for a field that has a default.
    map.remove("nullable");
    if map.get("format").and_then(Value::as_str).is_some_and(|f| !["int32", "int64", "date-time"].contains(&f)) {
        map.remove("format");
    }
    for key in ["minimum", "maximum"] {
        if let Some(bound) = map.get(key).and_then(Value::as_f64) {
            #[allow(clippy::cast_possible_truncation)]
            map.insert(key.to_owned(), json!(bound as i64));
        }
    }
    if map.get("default").and_then(Value::as_f64) == Some(0.0) {
        // As an API server stores it.
        map.insert("default".to_owned(), json!(0));
    }
    if map.contains_key("x-kubernetes-int-or-string") {
        map.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    if map.get("type").is_some_and(|t| t == "array") {
        map.entry("x-kubernetes-list-type").or_insert_with(|| json!("atomic"));
    }
    if let Some(text) = map.get("description").and_then(Value::as_str) {
        // Line breaks of the source are no line breaks of `kubectl explain`.
        let text = text.split("\n\n").map(|p| p.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
        map.insert("description".to_owned(), text.into());
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(key) {
            tidy(child);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(tidy);
    }
}

fn versions(crd: &mut Value) -> Result<&mut Vec<Value>, Error> {
    crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut).ok_or_else(|| Error::NoField("versions".to_owned()))
}

fn schema(crd: &mut Value, version: usize) -> Result<&mut Value, Error> {
    crd.pointer_mut(&format!("/spec/versions/{version}/schema/openAPIV3Schema"))
        .ok_or_else(|| Error::NoField(format!("versions[{version}]")))
}

/// The schema at a path such as `spec.strategy.canary.steps[].replicas`; `""` is the root.
pub(super) fn at<'a>(schema: &'a mut Value, path: &str) -> Result<&'a mut Value, Error> {
    let mut here = schema;
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let (name, is_item) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
        here = here
            .get_mut("properties")
            .and_then(|p| p.get_mut(name))
            .and_then(|field| if is_item { field.get_mut("items") } else { Some(field) })
            .ok_or_else(|| Error::NoField(path.to_owned()))?;
    }
    Ok(here)
}

/// Sets the keys of `what` in the object `value`.
pub(super) fn set(value: &mut Value, what: Value) {
    if let (Some(map), Value::Object(what)) = (value.as_object_mut(), what) {
        map.extend(what);
    }
}

/// Removes a key from the object `value`.
pub(super) fn unset(value: &mut Value, key: &str) {
    value.as_object_mut().map(|map: &mut Map<String, Value>| map.remove(key));
}
