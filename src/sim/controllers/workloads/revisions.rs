//! ControllerRevisions: finding, making, numbering and forgetting them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::super::json::{self, int, text};
use super::super::super::rng::{encode, hash};
use super::super::pods::owner_reference;
use super::{Dependent, Owned, Write};

/// The label of pods that names their revision.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";
/// The label of a StatefulSet's ControllerRevision that holds the hash in its name.
pub(crate) const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// A recorded template.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Revision {
    pub name: String,
    /// The end of its name.
    pub hash: String,
    pub template: Value,
}

/// The template as a ControllerRevision records it.
fn data(template: &Value) -> Value {
    let mut template = template.clone();
    json::set(&mut template, &["$patch"], "replace");
    json!({"spec": {"template": template}})
}

/// The revision that an object records.
pub(crate) fn read(owned: &Owned, object: &Value) -> Revision {
    let mut template = object.pointer("/data/spec/template").cloned().unwrap_or_default();
    json::remove(&mut template, &["$patch"]);
    let name = json::name(object).to_owned();
    let hash = name.strip_prefix(owned.name()).unwrap_or(&name).trim_start_matches('-').to_owned();
    Revision { name, hash, template }
}

/// The revision of the present template: the recorded one, numbered as the newest, or a new one. Its hash is a label
/// under `hash_label`.
pub(crate) fn settle(owned: &Owned, hash_label: &str, writes: &mut Vec<Write>) -> Revision {
    let template = owned.workload.pointer("/spec/template").cloned().unwrap_or_default();
    let data = data(&template);
    let number = |r: &Value| int(r, "/revision").unwrap_or(0);
    let recorded = owned.revisions.iter().rfind(|r| r.get("data") == Some(&data));
    let others = owned.revisions.iter().filter(|r| r.get("data") != Some(&data)).map(|r| number(r));
    let next = others.max().unwrap_or(0) + 1;
    if let Some(recorded) = recorded {
        if number(recorded) < next {
            writes.push(Write::patch(Dependent::Revision, recorded, json!({"revision": next})));
        }
        return read(owned, recorded);
    }
    let collisions = owned.int("/status/collisionCount").unwrap_or(0);
    let id = encode(hash(format!("{template}{collisions}").as_bytes()), 10);
    let name = format!("{}-{id}", owned.name());
    let mut object = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": json::namespace(&owned.workload), "ownerReferences": [owner_reference(&owned.workload)]},
        "data": data, "revision": next});
    json::restore(&mut object, &owned.workload, &["metadata", "annotations"]);
    for (key, value) in json::object_of(&template, "/metadata/labels").into_iter().flatten() {
        json::set(&mut object, &["metadata", "labels", key], value.clone());
    }
    json::set(&mut object, &["metadata", "labels", hash_label], id.clone());
    writes.push(Write::Create(Dependent::Revision, object));
    Revision { name, hash: id, template }
}

/// The revision that `status.currentRevision` names, else `update`.
pub(crate) fn current(owned: &Owned, update: &Revision) -> Revision {
    let name = owned.text("/status/currentRevision");
    owned.revisions.iter().find(|r| json::name(r) == name).map_or_else(|| update.clone(), |r| read(owned, r))
}

/// Forgets the oldest revisions beyond the limit that no pod has. `live` are names; with `count_live` those that are in
/// use take up room as well.
pub(crate) fn truncate(owned: &Owned, live: &BTreeSet<&str>, count_live: bool, writes: &mut Vec<Write>) {
    let limit = owned.int("/spec/revisionHistoryLimit").unwrap_or(10);
    let idle: Vec<_> = owned.revisions.iter().filter(|r| !live.contains(json::name(r))).collect();
    // The newest template's revision is live, and is not history.
    let history = if count_live { owned.revisions.len().saturating_sub(1) } else { idle.len() };
    let surplus = usize::try_from(history as i64 - limit).unwrap_or(0);
    if limit >= 0 {
        writes.extend(idle.iter().take(surplus).map(|r| Write::delete(Dependent::Revision, r)));
    }
}

/// The name of the revision that a pod is labelled with.
pub(crate) fn of_pod(pod: &Value) -> &str {
    text(pod, "/metadata/labels/controller-revision-hash")
}
