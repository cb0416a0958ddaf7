//! `apps/v1` StatefulSet: it names its revisions itself; it is held by its `partition`.
//!
//! The partition counts from the first ordinal: pods before it stay at the version before. Pods that come by scaling up
//! during a step stand behind it and are new ones, because the scale of a StatefulSet is changed without the partition.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{
    Kind, Style, Surroundings, Workload, count,
    hold::{By, Field, Rule, field::Scalar},
    partition::{Partition, by_ordinal, none_first, refusal},
    pods::is_ready,
    replicas::{Round, scaled},
    revisions::{CONTROLLER_REVISION, revisions},
};
use crate::api::{
    keys,
    object::{self, at, digest, text},
};

/// The row of `apps/v1` StatefulSet.
pub const KIND: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    workload_type: "statefulset",
    revision_label: keys::CONTROLLER_REVISION_HASH,
    styles: &[Style::Partition],
    revisions: CONTROLLER_REVISION,
    counts_pods: true,
    reads_nodes: false,
    goes_back_in_batches: true,
    holds: &[Rule {
        switch: keys::WORKLOAD_TYPE,
        policy: "tidegate-hold-statefulsets",
        group: "apps",
        version: "v1",
        resource: "statefulsets",
        path: "/mutate-unified-workload",
        // As the original spells it.
        webhook: "munifiedworload.kb.io",
        by: By::Field(HELD_BY),
    }],
    read: ordinals,
    gate: &Partition { at: by_ordinal, refusal, stuck, first: none_first },
};

/// The number is more than the pods of any StatefulSet (contract 3.5).
pub(super) const HELD_BY: Field = Field {
    path: &["updateStrategy", "rollingUpdate", "partition"],
    shut: Scalar::Count(32767),
    free: Scalar::Count(0),
    remembers: keys::ORIGINAL_PARTITION,
    by_hand: Some((&["updateStrategy", "type"], "OnDelete")),
    pauses: None,
    surges: false,
};

/// Reads a workload whose pods are numbered.
pub(super) fn ordinals(kind: &'static Kind, object: &Arc<Value>, surroundings: &Surroundings<'_>) -> Workload {
    let replicas = count(object, &["spec", "replicas"], 1);
    let status = |field| count(object, &["status", field], 0);
    let revision = |field| text(object, &["status", field]);
    let (current, update) = (revision("currentRevision"), revision("updateRevision"));
    let mut revisions = revisions(
        surroundings.pods_of(object),
        keys::CONTROLLER_REVISION_HASH,
        &[(current, status("currentReplicas")), (update, status("updatedReplicas"))],
    );
    // Its own controller is on the way there.
    let opened = replicas - count(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], 0);
    if let Some(new) = revisions.last_mut().filter(|new| new.is_present && HELD_BY.rolls(object)) {
        new.replicas = new.replicas.max(opened);
        if current == update && surroundings.pods.is_empty() {
            new.ready = status("readyReplicas");
        }
    }
    let template = at(object, &["spec", "template"]).map(object::without_nulls).unwrap_or(Value::Null);
    Workload {
        kind,
        replicas,
        revisions,
        template_name: if update.is_empty() { digest(&template) } else { update.to_owned() },
        existing: status("replicas"),
        ready: status("readyReplicas"),
        available: status("availableReplicas"),
        updated: status("updatedReplicas"),
        max_unavailable: max_unavailable(object, replicas),
        trouble: None,
        object: object.clone(),
    }
}

/// Only where the server knows the field: without it, a release is over when every pod is available.
fn max_unavailable(object: &Value, replicas: i32) -> i32 {
    at(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"])
        .and_then(|v| serde_json::from_value::<IntOrString>(v.clone()).ok())
        .and_then(|v| scaled(&v, replicas, Round::Down))
        .map_or(0, |pods| pods.clamp(1, replicas.max(1)))
}

/// With `OrderedReady`, a pod that never becomes ready stops every update, also the one that would mend it. Only pods of
/// versions that were given up meanwhile are meant: those of the version before may be mending themselves.
pub(super) fn stuck(workload: &Workload, surroundings: &Surroundings<'_>) -> Vec<Arc<Value>> {
    let object = workload.object();
    if text(object, &["spec", "podManagementPolicy"]) == "Parallel" || !object::is_observed(object) {
        return Vec::new();
    }
    let known = ["currentRevision", "updateRevision"].map(|field| text(object, &["status", field]));
    let is_given_up = |pod: &Value| {
        let revision = object::label(pod, keys::CONTROLLER_REVISION_HASH).unwrap_or_default();
        !revision.is_empty() && !known.contains(&revision)
    };
    surroundings.pods_of(object).filter(|pod| is_given_up(pod) && !is_ready(pod)).cloned().collect()
}
