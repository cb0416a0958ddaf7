//! The `scale` subresource.

use kube::core::Status;
use serde_json::{Value, json};

use super::json::{self, int, text};
use super::registry::Kind;
use super::selector::Labels;
use super::status::{self, FieldError};

/// The `autoscaling/v1` Scale of an object.
pub(crate) fn view(kind: &Kind, object: &Value) -> Value {
    let Some(scale) = &kind.scale else { return Value::Null };
    let selector = match &scale.selector {
        Some(path) => text(object, path).to_owned(),
        None => Labels::of_object(object.pointer("/spec/selector")).map(|s| s.to_query()).unwrap_or_default(),
    };
    let mut status = json!({"replicas": int(object, &scale.status_replicas).unwrap_or(0)});
    if !selector.is_empty() {
        json::set(&mut status, &["selector"], selector);
    }
    let mut meta = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        json::restore(&mut meta, object.get("metadata").unwrap_or(&Value::Null), &[field]);
    }
    let spec = match int(object, &scale.spec_replicas) {
        None | Some(0) => json!({}),
        Some(replicas) => json!({"replicas": replicas}),
    };
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status})
}

/// The object with the replicas of a Scale.
pub(crate) fn set(kind: &Kind, name: &str, object: &Value, scale: &Value) -> Result<Value, Box<Status>> {
    let Some(paths) = &kind.scale else { return Ok(object.clone()) };
    let replicas = int(scale, "/spec/replicas").unwrap_or(0);
    if replicas < 0 {
        let field = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(status::invalid_as("Scale", "autoscaling", name, vec![field]));
    }
    let version = text(scale, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(object, "/metadata/resourceVersion") {
        return Err(status::modified(kind, name));
    }
    let mut new = object.clone();
    let path: Vec<&str> = paths.spec_replicas.trim_start_matches('/').split('/').collect();
    json::set(&mut new, &path, replicas);
    Ok(new)
}
