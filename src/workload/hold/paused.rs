//! The hold of a Deployment, by `spec.paused`. Its twin is the admission policy `tidegate-hold-deployments`.
//!
//! A mark is *open* while the controller has unpaused the Deployment to roll in place up to a step, by the fields
//! `strategy`, `minReadySeconds` and `progressDeadlineSeconds`.
//!
//! An update is **held** when
//!
//! 1. the template differs and the new object wants pods (`spec.replicas` is not 0), or
//! 2. the old object has a mark that is not released, is paused or open, and the new one
//!    - has no mark, or
//!    - is not paused, and its mark is neither released nor open, or is open like the old one's while the old object is
//!      paused or one of the three fields differs.
//!
//! A held update gets `spec.paused: true`; the old mark, else the new one, without its release and with `was` for
//! `open`, else a new mark that remembers the writer's own `paused`; and the label, if the writer dropped it. Nothing
//! else changes: what the writer wanted the three fields to be is what the controller will put back.

use serde_json::Value;

use super::{MARK, OPEN, RELEASED, WAS, is_open, is_released, mark, object_at, object_at_map, template, wants_pods};
use crate::api::keys::IN_PROGRESSING;

/// A new mark that remembers that the writer wanted the Deployment paused.
pub const MARK_PAUSED: &str = r#"{"rolloutName":"","paused":true}"#;

/// What a managed `apps/v1` Deployment that is updated from `old` to `new` becomes, where it is held; its label is the
/// rule's matter.
pub(super) fn hold(old: &Value, new: &Value) -> Option<Value> {
    let template_changed = template(old) != template(new) && wants_pods(new);
    let kept = !mark(old).is_empty() && !is_released(mark(old)) && (is_paused(old) || is_open(mark(old)));
    let reopened = is_open(mark(new)) && mark(old) == mark(new) && (is_paused(old) || opening(old) != opening(new));
    let slips =
        mark(new).is_empty() || (!is_paused(new) && ((!is_released(mark(new)) && !is_open(mark(new))) || reopened));
    if !(template_changed || (kept && slips)) {
        return None;
    }

    let mark = [mark(old), mark(new)].into_iter().find(|m| !m.is_empty()).map_or_else(
        || if is_paused(new) { MARK_PAUSED } else { MARK }.to_owned(),
        |kept| kept.replace(RELEASED, "").replace(OPEN, WAS),
    );
    let mut held = new.clone();
    let metadata = object_at(&mut held, "metadata")?;
    object_at_map(metadata, "annotations")?.insert(IN_PROGRESSING.to_owned(), Value::String(mark));
    object_at(&mut held, "spec")?.insert("paused".to_owned(), Value::Bool(true));
    Some(held)
}

/// The fields by which an unpaused Deployment is kept from rolling on, with the API server's defaults.
fn opening(object: &Value) -> (Option<&Value>, i64, i64) {
    let spec = |field: &str| object.get("spec").and_then(|spec| spec.get(field));
    let seconds = |field: &str, default| spec(field).and_then(Value::as_i64).unwrap_or(default);
    (spec("strategy"), seconds("minReadySeconds", 0), seconds("progressDeadlineSeconds", 600))
}

fn is_paused(object: &Value) -> bool {
    object.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false)
}

#[cfg(test)]
mod tests;
