//! The rules of built-in kinds that a progressive delivery may run into.

use serde_json::Value;

use super::json::{int, items, text};
use super::registry::Kind;
use super::selector::Labels;
use super::status::FieldError;

/// Collects what is wrong with an object.
pub(crate) fn built_in(kind: &Kind, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    match kind.kind.as_str() {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload(kind, new, old, errors),
        "Service" => {
            if let Some(old) = old {
                let (before, after) = (text(old, "/spec/clusterIP"), text(new, "/spec/clusterIP"));
                let external = text(new, "/spec/type") == "ExternalName";
                if !before.is_empty() && before != after && !external {
                    errors.push(FieldError::invalid(
                        "spec.clusterIPs[0]",
                        format!("[\"{after}\"]"),
                        "may not change once set",
                    ));
                }
            }
        }
        _ => {}
    }
}

fn workload(kind: &Kind, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        if let Some(n) = int(new, &format!("/spec/{field}")).filter(|n| *n < 0) {
            errors.push(FieldError::invalid(format!("spec.{field}"), n, "must be greater than or equal to 0"));
        }
    }
    let selector = new.pointer("/spec/selector");
    let labels = new.pointer("/spec/template/metadata/labels");
    match Labels::of_object(selector) {
        None => errors.push(FieldError::required("spec.selector", "")),
        Some(s) if !s.matches(labels.and_then(Value::as_object)) => {
            let value = labels.map(Value::to_string).unwrap_or_else(|| "null".into());
            errors.push(FieldError::invalid(
                "spec.template.metadata.labels",
                value,
                "`selector` does not match template `labels`",
            ));
        }
        Some(_) => {}
    }
    if old.and_then(|o| o.pointer("/spec/selector")).is_some_and(|o| Some(o) != selector) {
        let value = selector.map(Value::to_string).unwrap_or_default();
        errors.push(FieldError::invalid("spec.selector", value, "field is immutable"));
    }
    if items(new, "/spec/template/spec/containers").is_empty() {
        errors.push(FieldError::required("spec.template.spec.containers", ""));
    }
    if kind.kind == "Deployment" {
        deployment(new, errors);
    }
}

fn deployment(new: &Value, errors: &mut Vec<FieldError>) {
    let min_ready = int(new, "/spec/minReadySeconds").unwrap_or(0);
    if let Some(deadline) = int(new, "/spec/progressDeadlineSeconds").filter(|d| *d <= min_ready) {
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        ));
    }
    let rolling = new.pointer("/spec/strategy/rollingUpdate");
    match text(new, "/spec/strategy/type") {
        "Recreate" if rolling.is_some() => errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        "RollingUpdate" => {
            let zero = |field: &str| match rolling.and_then(|r| r.get(field)) {
                Some(Value::Number(n)) => n.as_i64() == Some(0),
                Some(Value::String(s)) => s == "0%",
                _ => true,
            };
            if zero("maxSurge") && zero("maxUnavailable") {
                let value = rolling.and_then(|r| r.get("maxUnavailable")).map_or_else(|| "0".into(), Value::to_string);
                errors.push(FieldError::invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    value,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            if let Some(Value::String(s)) = rolling.and_then(|r| r.get("maxUnavailable"))
                && s.trim_end_matches('%').parse::<u32>().is_ok_and(|p| p > 100)
            {
                errors.push(FieldError::invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    format!("\"{s}\""),
                    "must not be greater than 100%",
                ));
            }
        }
        "Recreate" => {}
        other => errors.push(FieldError::unsupported(
            "spec.strategy.type",
            other,
            &["Recreate".to_owned(), "RollingUpdate".to_owned()],
        )),
    }
}
