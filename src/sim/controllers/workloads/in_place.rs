//! Updating a pod in place, as OpenKruise does: new images and metadata for the same pod.
//!
//! The pod has a readiness gate that is closed meanwhile; an annotation records which images its containers had, and the
//! update is complete when the kubelet reports others.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::super::clock::rfc3339;
use super::super::super::json::{self, condition, items, text};
use super::revisions::Revision;
use super::{Dependent, Owned, Write};

/// The readiness gate of pods that may be updated in place.
pub(crate) const GATE: &str = "InPlaceUpdateReady";
const STATE: &str = "apps.kruise.io/inplace-update-state";
const GRACE: &str = "apps.kruise.io/inplace-update-grace";

/// What an update in place changes.
pub(crate) struct Change {
    /// Container to image.
    images: Map<String, Value>,
    /// A merge patch of labels and annotations.
    metadata: Value,
}

/// The way from one template to another, if images and metadata are all that differs.
pub(crate) fn change(from: &Revision, to: &Revision) -> Option<Change> {
    let without_images = |template: &Value| {
        let mut spec = template.get("spec").cloned().unwrap_or_default();
        if let Some(Value::Array(containers)) = spec.get_mut("containers") {
            containers.iter_mut().for_each(|c| json::set(c, &["image"], Value::Null));
        }
        spec
    };
    if without_images(&from.template) != without_images(&to.template) {
        return None;
    }
    let (old, new) = (items(&from.template, "/spec/containers"), items(&to.template, "/spec/containers"));
    let changed = old.iter().zip(new).filter(|(a, b)| a.get("image") != b.get("image"));
    let images = changed.map(|(_, c)| (text(c, "/name").to_owned(), text(c, "/image").into())).collect();
    let mut metadata = json!({});
    for field in ["labels", "annotations"] {
        let of =
            |r: &Revision| json::object_of(&r.template, &format!("/metadata/{field}")).cloned().unwrap_or_default();
        let (old, new) = (of(from), of(to));
        for key in old.keys().filter(|k| !new.contains_key(*k)) {
            json::set(&mut metadata, &[field, key], Value::Null);
        }
        for (key, value) in new.iter().filter(|(k, v)| old.get(*k) != Some(v)) {
            json::set(&mut metadata, &[field, key], value.clone());
        }
    }
    Some(Change { images, metadata })
}

/// Gives a new pod the readiness gate.
pub(crate) fn add_gate(pod: &mut Value) {
    let mut gates = items(pod, "/spec/readinessGates").to_vec();
    if !gates.iter().any(|g| text(g, "/conditionType") == GATE) {
        gates.push(json!({"conditionType": GATE}));
        json::set(pod, &["spec", "readinessGates"], gates);
    }
}

pub(crate) fn has_gate(pod: &Value) -> bool {
    items(pod, "/spec/readinessGates").iter().any(|g| text(g, "/conditionType") == GATE)
}

fn annotation<'a>(pod: &'a Value, key: &str) -> &'a str {
    let annotations = json::object_of(pod, "/metadata/annotations");
    annotations.and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// Whether the pod waits, unready, for the end of its grace time before it gets its images.
pub(crate) fn in_grace(pod: &Value) -> bool {
    !annotation(pod, GRACE).is_empty()
}

/// Whether no update in place is under way.
pub(crate) fn completed(pod: &Value) -> bool {
    if in_grace(pod) {
        return false;
    }
    let state: Value = serde_json::from_str(annotation(pod, STATE)).unwrap_or_default();
    let last = json::object_of(&state, "/lastContainerStatuses");
    last.into_iter().flatten().all(|(name, before)| {
        let now = items(pod, "/status/containerStatuses").iter().find(|c| text(c, "/name") == name);
        let wanted = items(pod, "/spec/containers").iter().find(|c| text(c, "/name") == name);
        now.is_some_and(|now| {
            text(now, "/imageID") != text(before, "/imageID")
                || wanted.is_some_and(|w| w.get("image") == now.get("image"))
        })
    })
}

/// Whether the gate, if the pod has one, is open.
pub(crate) fn open(pod: &Value) -> bool {
    condition(pod, GATE).is_none_or(|c| text(c, "/status") == "True")
}

/// The conditions of a pod with the gate open or closed. Closed, the pod is unready at once; that it is ready again is for
/// the kubelet to say.
fn gate(owned: &Owned, pod: &Value, open: bool) -> Option<Write> {
    let status = if open { "True" } else { "False" };
    if !has_gate(pod) || condition(pod, GATE).is_some_and(|c| text(c, "/status") == status) {
        return None;
    }
    let now = rfc3339(owned.now);
    let mut conditions: Vec<Value> =
        items(pod, "/status/conditions").iter().filter(|c| text(c, "/type") != GATE).cloned().collect();
    let mut new = json!({"type": GATE, "status": status, "lastTransitionTime": now});
    if !open {
        json::set(&mut new, &["reason"], "StartInPlaceUpdate");
        for ready in conditions.iter_mut().filter(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True") {
            *ready = json!({"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady",
                "message": format!("the status of pod readiness gate \"{GATE}\" is not \"True\", but False"),
                "lastTransitionTime": now});
        }
    }
    conditions.push(new);
    Some(Write::PatchStatus {
        of: Dependent::Pod,
        name: json::name(pod).to_owned(),
        uid: json::uid(pod).to_owned(),
        patch: json!({"status": {"conditions": conditions}}),
    })
}

/// Starts an update in place: the gate is closed, then the pod gets its new revision's labels, and its images at once or
/// after the grace time.
pub(crate) fn start(owned: &Owned, pod: &Value, change: &Change, labels: &Value, grace: i64, writes: &mut Vec<Write>) {
    writes.extend(gate(owned, pod, false));
    let mut patch = json!({"metadata": change.metadata});
    for (key, value) in labels.as_object().into_iter().flatten() {
        json::set(&mut patch, &["metadata", "labels", key], value.clone());
    }
    let revision = text(labels, "/controller-revision-hash");
    let state = json!({"revision": revision, "updateTimestamp": rfc3339(owned.now)});
    if grace > 0 {
        let spec = json!({"revision": revision, "containerImages": change.images, "graceSeconds": grace});
        json::set(&mut patch, &["metadata", "annotations", GRACE], spec.to_string());
        json::set(&mut patch, &["metadata", "annotations", STATE], state.to_string());
    } else {
        set_images(pod, &change.images, state, &mut patch);
    }
    writes.push(Write::patch(Dependent::Pod, pod, patch));
}

fn set_images(pod: &Value, images: &Map<String, Value>, mut state: Value, patch: &mut Value) {
    let mut containers = items(pod, "/spec/containers").to_vec();
    for container in &mut containers {
        let name = text(container, "/name").to_owned();
        let Some(image) = images.get(&name) else { continue };
        json::set(container, &["image"], image.clone());
        let status = items(pod, "/status/containerStatuses").iter().find(|c| text(c, "/name") == name);
        let id = status.map(|c| text(c, "/imageID")).unwrap_or_default();
        json::set(&mut state, &["lastContainerStatuses", &name, "imageID"], id);
    }
    json::set(patch, &["spec", "containers"], containers);
    json::set(patch, &["metadata", "annotations", STATE], state.to_string());
}

/// What goes on by itself in a pod: the grace time ends, or the update is complete and the gate opens. Gives the time
/// until the next of it.
pub(crate) fn refresh(owned: &Owned, pod: &Value, writes: &mut Vec<Write>) -> Option<Duration> {
    if in_grace(pod) {
        let spec: Value = serde_json::from_str(annotation(pod, GRACE)).unwrap_or_default();
        let mut state: Value = serde_json::from_str(annotation(pod, STATE)).unwrap_or_default();
        let grace = Duration::from_secs(json::int(&spec, "/graceSeconds").unwrap_or(0).unsigned_abs());
        let since: Option<jiff::Timestamp> = text(&state, "/updateTimestamp").parse().ok();
        let passed = since.and_then(|s| Duration::try_from(owned.now.duration_since(s)).ok()).unwrap_or(grace);
        if passed < grace {
            return Some(grace - passed);
        }
        let images = json::object_of(&spec, "/containerImages").cloned().unwrap_or_default();
        let mut patch = json!({"metadata": {"annotations": {GRACE: null}}});
        json::set(&mut state, &["updateTimestamp"], rfc3339(owned.now));
        set_images(pod, &images, state, &mut patch);
        writes.push(Write::patch(Dependent::Pod, pod, patch));
    } else if completed(pod) {
        writes.extend(gate(owned, pod, true));
    }
    None
}
