//! The hold: what the API server does to an update of a managed Deployment, so that a changed template does not roll
//! out by itself. The same rule is the admission policy that `tidegate policy` prints; this is its twin for places
//! without that API. Pure.
//!
//! # The rule
//!
//! A Deployment is managed while it carries the label [`WORKLOAD_TYPE`]; an update is looked at when the old *or* the
//! new object carries it. The *mark* of an object is its annotation [`IN_PROGRESSING`]; an empty one counts as none.
//! A mark is *released* when it contains `,"released":true`, and *open* when it contains `,"open":{`: the controller
//! has unpaused the Deployment to roll in place up to a step, by the fields `strategy`, `minReadySeconds` and
//! `progressDeadlineSeconds`.
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
//!
//! # What follows
//!
//! - The controller opens a Deployment up to a step by a write that changes the mark's `open`; nobody else can.
//! - A tool that writes its whole manifest again and again (a PUT, or an apply with `paused: false`) can neither open
//!   a held Deployment nor take the mark away from it, with or without the controller running.
//! - The controller opens a Deployment by *one* write that sets `paused: false` and a released mark
//!   ([`InProgressing::released`]), and takes the mark (and the label) away by a *later* write, once the Deployment is
//!   open. What the user wanted `paused` to be may come back in that later write.
//! - A person's way out without the controller: remove the label by itself, then unpause.
//!
//! [`InProgressing::released`]: crate::api::keys::InProgressing::released

use serde_json::{Map, Value};

use crate::api::keys::{IN_PROGRESSING, WORKLOAD_TYPE};

/// How a released mark is told apart; it follows `rolloutName`, hence the comma.
pub const RELEASED: &str = r#","released":true"#;

/// How an open mark is told apart; see [`InProgressing::open`](crate::api::keys::InProgressing::open).
pub const OPEN: &str = r#","open":{"#;
/// What stands in its place when the Deployment was shut again; see [`InProgressing::was`](crate::api::keys::InProgressing::was).
pub const WAS: &str = r#","was":{"#;

/// A new mark, and one that remembers that the writer wanted the Deployment paused. Kept as text because the policy has
/// no serialiser.
pub const MARK: &str = r#"{"rolloutName":""}"#;
/// See [`MARK`].
pub const MARK_PAUSED: &str = r#"{"rolloutName":"","paused":true}"#;

/// Name of the admission policy that says this rule, and of its binding.
pub const POLICY: &str = "tidegate-hold-deployments";

/// The object that is stored when an `apps/v1` Deployment is updated from `old` to `new`, where the hold makes it
/// differ from `new`. Applying it twice changes nothing more.
pub fn hold(old: &Value, new: &Value) -> Option<Value> {
    let label = label(new).or_else(|| label(old))?;
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
    object_at_map(metadata, "labels")?.insert(WORKLOAD_TYPE.to_owned(), label.clone());
    object_at(&mut held, "spec")?.insert("paused".to_owned(), Value::Bool(true));
    (held != *new).then_some(held)
}

fn label(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("labels")?.get(WORKLOAD_TYPE)
}

fn mark(object: &Value) -> &str {
    object.pointer("/metadata/annotations").and_then(|a| a.get(IN_PROGRESSING)).and_then(Value::as_str).unwrap_or("")
}

fn is_released(mark: &str) -> bool {
    mark.contains(RELEASED)
}

fn is_open(mark: &str) -> bool {
    mark.contains(OPEN)
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

fn template(object: &Value) -> Option<&Value> {
    object.pointer("/spec/template")
}

/// An absent number is the API server's default, 1.
fn wants_pods(object: &Value) -> bool {
    object.pointer("/spec/replicas").and_then(Value::as_i64) != Some(0)
}

fn object_at<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    object_at_map(value.as_object_mut()?, key)
}

/// The object under `key`, made when there is none. `None` when something else is there, which no API server accepts.
fn object_at_map<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = map.entry(key).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut()
}

#[cfg(test)]
mod tests;
