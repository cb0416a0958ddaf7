//! The hold of a Deployment, by `spec.paused`. Its twin is the admission policy `tidegate-hold-deployments`.
//!
//! A mark is *open* while the controller has unpaused the Deployment to roll in place up to a step, by the fields
//! `strategy`, `minReadySeconds` and `progressDeadlineSeconds`. From then on until it is released the three *keep* it
//! there, also while it is paused: a paused Deployment's own controller still scales its sets within `strategy`, and
//! pods that have become available are the last that it takes away. They keep it while `minReadySeconds` is
//! [`HELD_READY`] and the strategy is a `RollingUpdate`.
//!
//! An update is **held** when
//!
//! 1. the template differs and the new object wants pods (`spec.replicas` is not 0), or
//! 2. the old object has a mark that is not released, is paused or open, and the new one
//!    - has no mark, or
//!    - is not paused, and its mark is neither released nor open, or is open like the old one's while the old object is
//!      paused or one of the three fields differs, or
//!    - has the old one's mark, and one of the three fields differs from those that keep the old one.
//!
//! A held update gets the old object's three fields, where they keep it, and the label, if the writer dropped it. What
//! the writer wanted the three to be is said in the annotation [`WANTED_FIELDS`], unless it is what was there already;
//! the controller gives it back in the end. Where the template is the same and the old mark is open, the update gets
//! that mark, and what it unpauses stays unpaused. Else it gets `spec.paused: true`, and the old mark, else the new one,
//! without its release and with `was` for `open`, else a new mark that remembers the writer's own `paused`.

use serde_json::Value;

use super::{
    HELD_READY, MARK, annotation, is_open, is_released, mark, object_at, object_at_map, shut_mark, template, wants_pods,
};
use crate::api::keys::{IN_PROGRESSING, WANTED_FIELDS};

/// A new mark that remembers that the writer wanted the Deployment paused.
pub const MARK_PAUSED: &str = r#"{"rolloutName":"","paused":true}"#;

/// What a managed `apps/v1` Deployment that is updated from `old` to `new` becomes, where it is held; its label is the
/// rule's matter.
pub(super) fn hold(old: &Value, new: &Value) -> Option<Value> {
    let template_changed = template(old) != template(new) && wants_pods(new);
    let kept = !mark(old).is_empty() && !is_released(mark(old)) && (is_paused(old) || is_open(mark(old)));
    let keeps = kept && is_rolling(old) && opening(old).1 == HELD_READY;
    let moved = opening(old) != opening(new);
    let is_same = mark(old) == mark(new);
    let reopened = is_open(mark(new)) && is_same && (is_paused(old) || moved);
    let slips = mark(new).is_empty()
        || (!is_paused(new) && ((!is_released(mark(new)) && !is_open(mark(new))) || reopened))
        || (keeps && is_same && moved);
    if !(template_changed || (kept && slips)) {
        return None;
    }

    let stays = keeps && !template_changed && is_open(mark(old));
    let kept_mark =
        if stays { mark(old).to_owned() } else { shut_mark(old, new, if is_paused(new) { MARK_PAUSED } else { MARK }) };
    let mut held = new.clone();
    let metadata = object_at(&mut held, "metadata")?;
    let annotations = object_at_map(metadata, "annotations")?;
    annotations.insert(IN_PROGRESSING.to_owned(), Value::String(kept_mark));
    let known = || annotation(new, WANTED_FIELDS).or(annotation(old, WANTED_FIELDS)).map(str::to_owned);
    let wanted = if moved { Some(wanted_fields(new)) } else { known() };
    if let Some(wanted) = wanted.filter(|_| keeps) {
        annotations.insert(WANTED_FIELDS.to_owned(), Value::String(wanted));
    }
    let spec = object_at(&mut held, "spec")?;
    spec.insert("paused".to_owned(), Value::Bool(!stays || is_paused(old) || is_paused(new)));
    for field in ["strategy", "minReadySeconds", "progressDeadlineSeconds"].into_iter().filter(|_| keeps) {
        if let Some(value) = old.pointer("/spec").and_then(|spec| spec.get(field)) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    Some(held)
}

/// The three fields of an object as the annotation says them. Kept as text because the policy has no serialiser.
fn wanted_fields(object: &Value) -> String {
    let (strategy, ready, deadline) = opening(object);
    let bound = |field: &str| {
        let value = strategy.and_then(|s| s.get("rollingUpdate")?.get(field)).filter(|value| !value.is_null());
        value.map_or_else(|| r#""25%""#.to_owned(), Value::to_string)
    };
    let strategy = match strategy.and_then(|s| s.get("type")).and_then(Value::as_str) {
        Some("Recreate") => r#"{"type":"Recreate"}"#.to_owned(),
        _ => format!(
            r#"{{"type":"RollingUpdate","rollingUpdate":{{"maxUnavailable":{},"maxSurge":{}}}}}"#,
            bound("maxUnavailable"),
            bound("maxSurge")
        ),
    };
    format!(r#"{{"strategy":{strategy},"minReadySeconds":{ready},"progressDeadlineSeconds":{deadline}}}"#)
}

/// The fields by which an unpaused Deployment is kept from rolling on, with the API server's defaults.
fn opening(object: &Value) -> (Option<&Value>, i64, i64) {
    let spec = |field: &str| object.get("spec").and_then(|spec| spec.get(field));
    let seconds = |field: &str, default| spec(field).and_then(Value::as_i64).unwrap_or(default);
    (spec("strategy"), seconds("minReadySeconds", 0), seconds("progressDeadlineSeconds", 600))
}

fn is_rolling(object: &Value) -> bool {
    object.pointer("/spec/strategy/type").and_then(Value::as_str) == Some("RollingUpdate")
}

fn is_paused(object: &Value) -> bool {
    object.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false)
}

#[cfg(test)]
mod tests;
