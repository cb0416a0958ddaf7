//! Revisions of workloads that name them themselves.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{PodNames, Revision, Surroundings, Workload, pods::is_ready};
use crate::api::object;

/// The objects that keep the templates of such workloads.
pub(super) const CONTROLLER_REVISION: (&str, &str) = ("apps/v1", "ControllerRevision");

/// The template that a ControllerRevision keeps.
pub(super) fn kept_template(revision: &Value) -> Option<Value> {
    let mut template = object::without_nulls(object::at(revision, &["data", "spec", "template"])?);
    // How the workload's own controller goes back to it.
    template.as_object_mut()?.remove("$patch");
    Some(template)
}

/// The template of a revision, by its name or the last part of it.
pub(super) fn template_of(workload: &Workload, surroundings: &Surroundings<'_>, hash: &str) -> Option<Value> {
    let uid = object::uid(workload.object());
    let is_named = |name: &str| name.strip_suffix(hash).is_some_and(|rest| rest.is_empty() || rest.ends_with('-'));
    let mut its = surroundings.revisions.iter().filter(|r| object::controller_uid(r) == Some(uid));
    its.find(|r| is_named(object::name(r))).and_then(|r| kept_template(r))
}

/// The revisions of a workload that names them itself, oldest first; the last of `known` is that of the present
/// template. Counted by the pods; by the numbers beside the names while the pods are not followed.
pub fn revisions<'a>(pods: impl Iterator<Item = &'a Arc<Value>>, label: &str, known: &[(&str, i32)]) -> Vec<Revision> {
    let mut by_hash: BTreeMap<&str, Vec<&Arc<Value>>> = BTreeMap::new();
    for pod in pods {
        by_hash.entry(object::label(pod, label).unwrap_or_default()).or_default().push(pod);
    }
    let are_followed = !by_hash.is_empty();
    let present = known.last().map(|(hash, _)| *hash).filter(|hash| !hash.is_empty());
    let first = known.first().map(|(hash, _)| *hash).filter(|hash| !hash.is_empty() && Some(*hash) != present);
    let between =
        by_hash.keys().copied().filter(|hash| !hash.is_empty() && Some(*hash) != present && Some(*hash) != first);
    let hashes: Vec<&str> = first.into_iter().chain(between).chain(present).collect();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let revision = |(number, hash): (i64, &str)| {
        let pods = by_hash.get(hash).map(Vec::as_slice).unwrap_or_default();
        let told = known.iter().rev().find(|(name, _)| *name == hash).map_or(0, |(_, pods)| *pods);
        let existing = if are_followed { count(pods.len()) } else { told };
        Revision {
            hash: hash.to_owned(),
            number,
            replicas: existing,
            existing,
            ready: count(pods.iter().filter(|pod| is_ready(pod)).count()),
            is_present: Some(hash) == present,
            pods: PodNames::Listed(pods.iter().map(|pod| object::name(pod).to_owned()).collect()),
        }
    };
    (0..).zip(hashes).map(revision).collect()
}
