//! The global `obj` that a script reads, and the value that it returns.
//!
//! Field names, `-1` for a step without a share and `101` for its counterpart are the original controller's contract
//! with its scripts. `patchPodMetadata`, `serviceNamespace` and `data.{apiVersion,kind,metadata}` are additions:
//! scripts written before them do not see them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::strategy::Strategy;
use crate::api::v1beta1::PatchPodTemplateMetadata;

/// An object that routes traffic, as it was before the release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Such as `networking.istio.io/v1`.
    pub api_version: String,
    /// Such as `VirtualService`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Its namespace; absent for a cluster-scoped object, or when a file does not say.
    pub namespace: Option<String>,
    /// Its `spec`.
    pub spec: Value,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, without Tidegate's own.
    pub annotations: BTreeMap<String, String>,
}

/// The Services between which a step shares requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The user's Service.
    pub stable_service: String,
    /// The Service of the canary; equal to `stable_service` when no canary Service is made.
    pub canary_service: String,
    /// Namespace of both. Absent: a script takes any namespace for it.
    pub namespace: Option<String>,
}

/// The parts of an object that a script owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// The new `spec`, an object.
    pub spec: Value,
    /// The new labels.
    pub labels: BTreeMap<String, String>,
    /// The new annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Why the value that a script returned cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The script must return a table.
    #[error("the script returned {0}, not a table with the key spec; end it with `return obj.data`")]
    NotATable(&'static str),
    /// The script of an Ingress class must return a table.
    #[error("the script returned {0}, not a table of annotations; end it with `return annotations`")]
    NotAnnotations(&'static str),
    /// The result has no `spec`, or one that is no object.
    #[error("spec of the script's result is {0}, not a table with string keys")]
    Spec(&'static str),
    /// `labels` or `annotations` is no object.
    #[error("{field} of the script's result is {found}, not a table of strings")]
    NotAMap {
        /// `labels` or `annotations`.
        field: &'static str,
        /// What it is instead.
        found: &'static str,
    },
    /// A label or annotation is no string.
    #[error("{field}[{key:?}] of the script's result is {found}, not a string; use tostring(…)")]
    NotAString {
        /// `labels` or `annotations`.
        field: &'static str,
        /// Its key.
        key: String,
        /// What it is instead.
        found: &'static str,
    },
}

/// Why a document is not an object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct ObjectError {
    field: String,
    expected: &'static str,
}

impl Original {
    /// Takes a Kubernetes object apart.
    ///
    /// # Errors
    /// When `apiVersion` or `kind` is missing, `spec` is no object, or labels or annotations are not strings. The error
    /// names the field.
    pub fn from_object(object: &Value) -> Result<Self, ObjectError> {
        let text = |field: &str| {
            let err = ObjectError { field: field.to_owned(), expected: "a non-empty string" };
            object
                .pointer(&format!("/{}", field.replace('.', "/")))
                .and_then(Value::as_str)
                .filter(|s| !s.is_empty())
                .ok_or(err)
        };
        let spec = object.get("spec").filter(|s| s.is_object()).cloned();
        Ok(Original {
            api_version: text("apiVersion")?.to_owned(),
            kind: text("kind")?.to_owned(),
            name: text("metadata.name").unwrap_or_default().to_owned(),
            namespace: text("metadata.namespace").ok().map(str::to_owned),
            spec: spec.ok_or_else(|| ObjectError { field: "spec".into(), expected: "an object" })?,
            labels: string_map(object, "labels")?,
            annotations: string_map(object, "annotations")?,
        })
    }

    /// The group of `apiVersion`; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The parts that a script may change.
    pub fn into_parts(self) -> Parts {
        Parts { spec: self.spec, labels: self.labels, annotations: self.annotations }
    }

    /// A copy of the parts that a script may change.
    pub fn parts(&self) -> Parts {
        Parts { spec: self.spec.clone(), labels: self.labels.clone(), annotations: self.annotations.clone() }
    }
}

fn string_map(object: &Value, field: &str) -> Result<BTreeMap<String, String>, ObjectError> {
    let path = format!("metadata.{field}");
    match object.pointer(&format!("/metadata/{field}")) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(k, v)| match v {
                Value::String(s) => Ok((k.clone(), s.clone())),
                _ => Err(ObjectError { field: format!("{path}[{k:?}]"), expected: "a string" }),
            })
            .collect(),
        Some(_) => Err(ObjectError { field: path, expected: "an object of strings" }),
    }
}

/// The global `obj` of a script that changes a networkRef.
pub fn script_input(
    original: &Original,
    names: &Names,
    patch_pod_metadata: Option<&PatchPodTemplateMetadata>,
    strategy: &Strategy,
) -> Value {
    let canary = strategy.weight.map_or(-1, i64::from);
    let mut metadata = Map::new();
    insert_text(&mut metadata, "name", Some(&original.name));
    insert_text(&mut metadata, "namespace", original.namespace.as_deref());

    let mut data = Map::new();
    data.insert("spec".into(), original.spec.clone());
    insert_map(&mut data, "labels", &original.labels);
    insert_map(&mut data, "annotations", &original.annotations);
    insert_text(&mut data, "apiVersion", Some(&original.api_version));
    insert_text(&mut data, "kind", Some(&original.kind));
    if !metadata.is_empty() {
        data.insert("metadata".into(), Value::Object(metadata));
    }

    let mut obj = Map::new();
    obj.insert("data".into(), Value::Object(data));
    obj.insert("canaryWeight".into(), json!(canary));
    obj.insert("stableWeight".into(), json!(100 - canary));
    obj.insert("canaryService".into(), json!(names.canary_service));
    obj.insert("stableService".into(), json!(names.stable_service));
    insert_text(&mut obj, "serviceNamespace", names.namespace.as_deref());
    if !strategy.matches.is_empty() {
        obj.insert("matches".into(), json!(strategy.matches));
    }
    if let Some(modifier) = &strategy.request_header_modifier {
        obj.insert("requestHeaderModifier".into(), json!(modifier));
    }
    if let Some(patch) = patch_pod_metadata {
        let mut fields = Map::new();
        insert_map(&mut fields, "labels", &patch.labels);
        insert_map(&mut fields, "annotations", &patch.annotations);
        if !fields.is_empty() {
            obj.insert("patchPodMetadata".into(), Value::Object(fields));
        }
    }
    Value::Object(obj)
}

fn insert_text(map: &mut Map<String, Value>, key: &str, text: Option<&str>) {
    if let Some(text) = text.filter(|t| !t.is_empty()) {
        map.insert(key.into(), json!(text));
    }
}

/// An empty map is nil to a script, as an absent one is.
fn insert_map(map: &mut Map<String, Value>, key: &str, entries: &BTreeMap<String, String>) {
    if !entries.is_empty() {
        map.insert(key.into(), json!(entries));
    }
}

/// Takes the value that a script returned apart. Keys other than `spec`, `labels` and `annotations` are ignored; an
/// absent `labels` or `annotations` means none.
///
/// # Errors
/// When the value is no table with an object `spec`, or a label or annotation is no string. The error names the key.
pub fn output(value: Value) -> Result<Parts, OutputError> {
    let Value::Object(mut map) = value else {
        return Err(OutputError::NotATable(type_of(&value)));
    };
    let spec = map.remove("spec").unwrap_or(Value::Null);
    if !spec.is_object() {
        return Err(OutputError::Spec(type_of(&spec)));
    }
    Ok(Parts {
        spec,
        labels: strings(map.remove("labels"), "labels")?,
        annotations: strings(map.remove("annotations"), "annotations")?,
    })
}

pub(super) fn strings(value: Option<Value>, field: &'static str) -> Result<BTreeMap<String, String>, OutputError> {
    match value {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        // A script's empty table has no type of its own.
        Some(Value::Array(list)) if list.is_empty() => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map
            .into_iter()
            // A null is what Lua's assignment of nil leaves behind: no entry.
            .filter(|(_, v)| !v.is_null())
            .map(|(key, v)| match v {
                Value::String(s) => Ok((key, s)),
                other => Err(OutputError::NotAString { field, key, found: type_of(&other) }),
            })
            .collect(),
        Some(other) => Err(OutputError::NotAMap { field, found: type_of(&other) }),
    }
}

/// In the words of a script's author.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1beta1::{HeaderMatch, HttpRouteMatch};

    fn original() -> Original {
        Original::from_object(&json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "vs", "namespace": "shop", "labels": {"a": "b"}, "annotations": {}},
            "spec": {"http": []}, "status": {"x": 1}
        }))
        .unwrap()
    }

    fn names() -> Names {
        Names { stable_service: "app".into(), canary_service: "app-canary".into(), namespace: None }
    }

    #[test]
    fn input_of_a_weight_step() {
        let strategy = Strategy { weight: Some(20), ..Strategy::default() };
        assert_eq!(
            script_input(&original(), &names(), None, &strategy),
            json!({
                "data": {
                    "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                    "metadata": {"name": "vs", "namespace": "shop"},
                    "spec": {"http": []}, "labels": {"a": "b"}
                },
                "canaryWeight": 20, "stableWeight": 80, "canaryService": "app-canary", "stableService": "app"
            })
        );
    }

    #[test]
    fn input_of_a_match_step() {
        let header = HeaderMatch { name: "version".into(), value: "canary".into(), ..HeaderMatch::default() };
        let strategy = Strategy {
            matches: vec![HttpRouteMatch { headers: vec![header], ..HttpRouteMatch::default() }],
            ..Strategy::default()
        };
        let patch = PatchPodTemplateMetadata {
            labels: BTreeMap::from([("version".into(), "canary".into())]),
            ..Default::default()
        };
        let names = Names { namespace: Some("shop".into()), ..names() };
        let input = script_input(&original(), &names, Some(&patch), &strategy);
        assert_eq!(input["canaryWeight"], json!(-1));
        assert_eq!(input["stableWeight"], json!(101));
        assert_eq!(input["matches"], json!([{"headers": [{"type": "Exact", "name": "version", "value": "canary"}]}]));
        assert_eq!(input["patchPodMetadata"], json!({"labels": {"version": "canary"}}));
        assert_eq!(input["serviceNamespace"], json!("shop"));
        assert_eq!(input.get("requestHeaderModifier"), None);
    }

    #[test]
    fn output_takes_the_three_parts() {
        let parts = output(json!({"spec": {"a": 1}, "labels": {"k": "v", "gone": null}, "other": 1})).unwrap();
        assert_eq!(
            parts,
            Parts {
                spec: json!({"a": 1}),
                labels: BTreeMap::from([("k".into(), "v".into())]),
                annotations: BTreeMap::new()
            }
        );
    }

    #[test]
    fn output_names_what_is_wrong() {
        for (value, text) in [
            (json!("x"), "the script returned a string, not a table with the key spec; end it with `return obj.data`"),
            (json!({}), "spec of the script's result is nil, not a table with string keys"),
            (json!({"spec": [1]}), "spec of the script's result is a list, not a table with string keys"),
            (json!({"spec": {}, "labels": 1}), "labels of the script's result is a number, not a table of strings"),
            (
                json!({"spec": {}, "annotations": {"w": 20}}),
                "annotations[\"w\"] of the script's result is a number, not a string; use tostring(…)",
            ),
        ] {
            assert_eq!(output(value).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn objects_are_checked() {
        for (object, text) in [
            (json!({"kind": "X", "spec": {}}), "apiVersion must be a non-empty string"),
            (json!({"apiVersion": "v1", "spec": {}}), "kind must be a non-empty string"),
            (json!({"apiVersion": "v1", "kind": "X"}), "spec must be an object"),
            (
                json!({"apiVersion": "v1", "kind": "X", "spec": {}, "metadata": {"labels": {"n": 1}}}),
                "metadata.labels[\"n\"] must be a string",
            ),
        ] {
            assert_eq!(Original::from_object(&object).unwrap_err().to_string(), text);
        }
    }
}
