//! The rules of built-in kinds that a progressive delivery may run into.

use serde_json::Value;

use super::json::{self, int, items, text};
use super::registry::Kind;
use super::selector::Labels;
use super::status::FieldError;

/// Collects what is wrong with an object.
pub(crate) fn built_in(kind: &Kind, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    match kind.kind.as_str() {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => workload(kind, new, old, errors),
        "Service" => {
            let without = text(new, "/spec/clusterIP") == "None" || text(new, "/spec/type") == "ExternalName";
            if !without && items(new, "/spec/ports").is_empty() {
                errors.push(FieldError::required("spec.ports", ""));
            }
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

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Checks the name and the labels of an object. Names that must be DNS labels (Services, Namespaces) are held to the
/// wider rule of subdomains.
pub(crate) fn metadata(object: &Value, errors: &mut Vec<FieldError>) {
    let name = json::name(object);
    let part = |p: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ends(p.chars().next()) && ends(p.chars().last()) && p.chars().all(inside)
    };
    if !name.split('.').all(part) {
        errors.push(FieldError::invalid("metadata.name", format!("\"{name}\""), SUBDOMAIN));
    } else if name.len() > 253 {
        errors.push(FieldError::invalid("metadata.name", format!("\"{name}\""), "must be no more than 253 bytes"));
    }
    for value in json::object_of(object, "/metadata/labels").into_iter().flatten().filter_map(|(_, v)| v.as_str()) {
        let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let fine = ends(value.chars().next()) && ends(value.chars().last()) && value.chars().all(inside);
        if !fine {
            errors.push(FieldError::invalid("metadata.labels", format!("\"{value}\""), LABEL_VALUE));
        } else if value.len() > 63 {
            let why = "must be no more than 63 bytes";
            errors.push(FieldError::invalid("metadata.labels", format!("\"{value}\""), why));
        }
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
    let wanted = Labels::of_object(selector);
    if wanted.is_none() {
        errors.push(FieldError::required("spec.selector", ""));
    }
    if !wanted.is_some_and(|s| s.matches(labels.and_then(Value::as_object))) {
        let value = labels.map(Value::to_string).unwrap_or_else(|| "null".into());
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", value, why));
    }
    if old.and_then(|o| o.pointer("/spec/selector")).is_some_and(|o| Some(o) != selector) {
        let value = selector.map_or_else(|| "null".into(), Value::to_string);
        errors.push(FieldError::invalid("spec.selector", value, "field is immutable"));
    }
    if items(new, "/spec/template/spec/containers").is_empty() {
        errors.push(FieldError::required("spec.template.spec.containers", ""));
    }
    for (i, container) in items(new, "/spec/template/spec/containers").iter().enumerate() {
        if text(container, "/image").is_empty() {
            errors.push(FieldError::required(format!("spec.template.spec.containers[{i}].image"), ""));
        }
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
