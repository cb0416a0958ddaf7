//! What the pods of a workload say of themselves.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::PodNames;
use crate::api::object::{self, at, text};

/// How many pods are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// For long enough.
    pub pods: i32,
    /// When the next one will be, if no readiness changes.
    pub next: Option<Timestamp>,
}

/// Pods with one of these names that have been ready for so many seconds and are not going.
pub fn ready_for<'a>(
    pods: impl IntoIterator<Item = &'a Value>,
    names: &PodNames,
    seconds: i64,
    now: Timestamp,
) -> Ready {
    let mut ready = Ready::default();
    for pod in pods.into_iter().filter(|p| names.contains(object::name(p)) && !object::is_deleting(p)) {
        let Some(since) = ready_since(pod) else { continue };
        let from = since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(since);
        if from <= now {
            ready.pods += 1;
        } else {
            ready.next = Some(ready.next.map_or(from, |next| next.min(from)));
        }
    }
    ready
}

fn ready_since(pod: &Value) -> Option<Timestamp> {
    let conditions = at(pod, &["status", "conditions"])?.as_array()?;
    let ready = conditions.iter().find(|c| text(c, &["type"]) == "Ready")?;
    if text(ready, &["status"]) != "True" {
        return None;
    }
    text(ready, &["lastTransitionTime"]).parse().ok()
}
