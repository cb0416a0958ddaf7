//! `apps/v1` DaemonSet: ControllerRevisions are its revisions; it is held by the type of its strategy.
//!
//! With `OnDelete` its own controller replaces a pod when somebody has deleted it, and this one deletes as many as a step
//! asks for. How many there are, and how many may be missing, is counted from the pods each time, so nothing has to be
//! remembered. A pod comes back on the same node, also on a cordoned one; where none would come back, it is left alone. A
//! node that goes takes its pod with it, and the numbers follow `desiredNumberScheduled`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{
    Gate, Goal, Kind, Move, PodNames, Revision, Style, Surroundings, Workload, count,
    hold::{By, Field, Rule, field::Scalar},
    nodes,
    partition::{await_pods, change, field, mark_and_set, own, shut_mark, take_off},
    pods::{is_ready, ready_for},
    replicas::{Round, scaled},
    revisions::{CONTROLLER_REVISION, kept_template, template_of},
};
use crate::api::{
    keys::{self, InProgressing, OriginalFields},
    object::{self, at, digest, int, text},
};

/// The row of `apps/v1` DaemonSet.
pub const KIND: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    workload_type: "daemonset",
    revision_label: keys::CONTROLLER_REVISION_HASH,
    styles: &[Style::Partition],
    revisions: CONTROLLER_REVISION,
    counts_pods: true,
    reads_nodes: true,
    goes_back_in_batches: false,
    holds: &[Rule {
        switch: keys::WORKLOAD_TYPE,
        policy: "tidegate-hold-daemonsets",
        group: "apps",
        version: "v1",
        resource: "daemonsets",
        path: "/mutate-apps-v1-daemonset",
        webhook: "mdaemonset-native.kb.io",
        by: By::Field(Field {
            path: &["updateStrategy", "type"],
            shut: Scalar::Text("OnDelete"),
            free: Scalar::Text("RollingUpdate"),
            remembers: keys::ORIGINAL_STRATEGY_TYPE,
            by_hand: None,
            pauses: None,
            surges: false,
        }),
    }],
    read: daemons,
    gate: &DaemonSet,
};

/// Reads a workload with a pod on each of some nodes.
pub(super) fn daemons(kind: &'static Kind, object: &Arc<Value>, surroundings: &Surroundings<'_>) -> Workload {
    let status = |field| count(object, &["status", field], 0);
    let (desired, updated) = (status("desiredNumberScheduled"), status("updatedNumberScheduled"));
    let template = at(object, &["spec", "template"]).map(object::without_nulls).unwrap_or(Value::Null);
    let mut its: Vec<&Arc<Value>> = surroundings
        .revisions
        .iter()
        .filter(|r| object::controller_uid(r) == Some(object::uid(object)))
        .filter(|r| object::label(r, keys::CONTROLLER_REVISION_HASH).is_some())
        .collect();
    its.sort_by_key(|r| (int(r, &["revision"]), object::name(r)));
    // Going back to an older template makes its revision the newest.
    let present = its.iter().rposition(|r| kept_template(r).as_ref() == Some(&template));
    let before = (0..its.len()).rev().find(|i| Some(*i) != present);
    let pods: Vec<&Arc<Value>> = surroundings.pods_of(object).collect();
    let revision = |(i, revision): (usize, &&Arc<Value>)| {
        let hash = object::label(revision, keys::CONTROLLER_REVISION_HASH).unwrap_or_default();
        let its = || pods.iter().filter(|pod| object::label(pod, keys::CONTROLLER_REVISION_HASH) == Some(hash));
        let is_present = Some(i) == present;
        let existing = match (pods.is_empty(), is_present) {
            (false, _) => its().count().try_into().unwrap_or(i32::MAX),
            (true, true) => updated,
            (true, false) if Some(i) == before => (status("currentNumberScheduled") - updated).max(0),
            (true, false) => 0,
        };
        Revision {
            hash: hash.to_owned(),
            number: int(revision, &["revision"]).unwrap_or(0),
            // What was deleted comes back as a new one.
            replicas: if is_present && !pods.is_empty() {
                existing.max(desired - old_pods(&pods, hash))
            } else {
                existing
            },
            existing,
            ready: its().filter(|pod| is_ready(pod)).count().try_into().unwrap_or(i32::MAX),
            is_present,
            pods: PodNames::Listed(its().map(|pod| object::name(pod).to_owned()).collect()),
        }
    };
    let revisions: Vec<Revision> = its.iter().enumerate().map(revision).collect();
    let current = revisions.iter().rev().find(|r| r.is_present).map(|r| r.hash.clone());
    Workload {
        kind,
        replicas: desired,
        template_name: current.unwrap_or_else(|| digest(&template)),
        revisions,
        existing: status("currentNumberScheduled"),
        ready: status("numberReady"),
        available: status("numberAvailable"),
        updated,
        max_unavailable: max_unavailable(object, desired),
        trouble: None,
        object: object.clone(),
    }
}

/// Pods of other revisions than one.
fn old_pods(pods: &[&Arc<Value>], hash: &str) -> i32 {
    let is_old = |pod: &&&Arc<Value>| object::label(pod, keys::CONTROLLER_REVISION_HASH) != Some(hash);
    pods.iter().filter(is_old).count().try_into().unwrap_or(i32::MAX)
}

/// At least one: a pod can come only where another went.
fn max_unavailable(object: &Value, desired: i32) -> i32 {
    at(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"])
        .and_then(|v| serde_json::from_value::<IntOrString>(v.clone()).ok())
        .and_then(|v| scaled(&v, desired, Round::Down))
        .map_or(1, |pods| pods.max(1))
}

/// The gate of a DaemonSet.
struct DaemonSet;

/// Old pods whose places new ones may take now: no more than leave enough old ones for the step, no ready one whose
/// absence nobody promised, and none in whose place no new one would come. And when time alone makes one more of all pods
/// count as ready.
fn to_replace(workload: &Workload, goal: &Goal<'_>) -> (Vec<Arc<Value>>, Option<Timestamp>) {
    let Some(new) = workload.current() else { return (Vec::new(), None) };
    let object = workload.object();
    let template = at(object, &["spec", "template"]).unwrap_or(&Value::Null);
    let closed = nodes::closed(goal.surroundings.nodes, template);
    let (left_alone, pods): (Vec<_>, Vec<_>) =
        goal.surroundings.pods_of(object).partition(|pod| closed.contains(text(pod, &["spec", "nodeName"])));
    let mut old: Vec<&Arc<Value>> = pods.iter().filter(|pod| !new.pods.contains(object::name(pod))).copied().collect();
    let room = |n: i32| usize::try_from(n).unwrap_or(0);
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    // Its own controller does not count them among those that are wanted, once it has noticed; where nodes may not be
    // read, it alone knows how many they are.
    let astray = count(object, &["status", "numberMisscheduled"], 0);
    let (unnoticed, unknown) = ((number(left_alone.len()) - astray).max(0), (astray - number(left_alone.len())).max(0));
    let wanted = workload.replicas - unnoticed;
    let surplus = room(number(old.len()) - unknown - (wanted - goal.target).max(0));

    let seconds = int(object, &["spec", "minReadySeconds"]).unwrap_or(0);
    let names = PodNames::Listed(pods.iter().map(|pod| object::name(pod).to_owned()).collect());
    let ready = ready_for(pods.iter().map(|pod| pod.as_ref()), &names, seconds, goal.now);
    let mut allowed = room(ready.pods - unknown - (wanted - workload.max_unavailable));

    let cost =
        |pod: &Value| object::annotation(pod, keys::DELETION_COST).and_then(|c| c.parse::<i64>().ok()).unwrap_or(0);
    let created = |pod: &Value| text(pod, &["metadata", "creationTimestamp"]).to_owned();
    old.sort_by_cached_key(|pod| {
        let is_pending = text(pod, &["status", "phase"]) == "Pending";
        let newest_first = std::cmp::Reverse(created(pod));
        (!is_pending, is_ready(pod), cost(pod), newest_first, object::name(pod).to_owned())
    });
    let may_go = |pod: &&Arc<Value>| {
        let goes = !is_ready(pod) || allowed > 0;
        if goes && is_ready(pod) {
            allowed -= 1;
        }
        goes
    };
    (old.into_iter().take(surplus).filter(may_go).cloned().collect(), ready.next)
}

impl Gate for DaemonSet {
    fn is_kept(&self, workload: &Workload) -> bool {
        let is_shut = field(workload.kind, workload.object()).is_some_and(|field| field.is_shut(workload.object()));
        is_shut && workload.mark().is_some_and(|mark| !mark.released)
    }

    fn shut(&self, workload: &Workload, rollout: &str) -> Vec<Value> {
        let Some(field) = field(workload.kind, workload.object()) else { return Vec::new() };
        mark_and_set(field, workload, &shut_mark(workload, rollout), field.shut)
    }

    fn open(&self, workload: &Workload, goal: &Goal<'_>) -> Move {
        if goal.target <= 0 {
            return Move::Done;
        }
        if !self.is_kept(workload) {
            return Move::Write(change(workload, self.shut(workload, goal.rollout)));
        }
        let (pods, next) = to_replace(workload, goal);
        if !pods.is_empty() {
            return Move::Replace(pods);
        }
        match await_pods(workload, goal) {
            Move::Wait { reason, until } => Move::Wait { reason, until: [until, next].into_iter().flatten().min() },
            other => other,
        }
    }

    fn release(&self, workload: &Workload, rollout: &str, _stays_paused: bool) -> Vec<Value> {
        let Some(field) = field(workload.kind, workload.object()) else { return Vec::new() };
        if workload.mark().is_some_and(|mark| mark.released) {
            return Vec::new();
        }
        let own_type = own(field, workload).unwrap_or_else(|| field.free.value());
        // The API server adds settings to a strategy that rolls, which the user's has not.
        let is_bare = at(workload.object(), &["spec", "updateStrategy", "rollingUpdate"]).is_none();
        let original = (is_bare && own_type != field.free.value())
            .then(|| OriginalFields { strategy: json!({"type": own_type}), ..OriginalFields::default() });
        let released =
            InProgressing { rollout_name: rollout.to_owned(), released: true, original, ..InProgressing::default() };
        mark_and_set(field, workload, &released, field.free)
    }

    fn template_of(&self, workload: &Workload, surroundings: &Surroundings<'_>, revision: &str) -> Option<Value> {
        template_of(workload, surroundings, revision)
    }

    fn take_off(&self, workload: &Workload) -> Vec<Value> {
        let Some(field) = field(workload.kind, workload.object()) else { return Vec::new() };
        let mut operations = take_off(field, workload);
        let own = workload.mark().and_then(|mark| mark.original).map(|original| original.strategy);
        let is_free = field.value(workload.object()) == Some(&field.free.value());
        if let Some(strategy) = own.filter(|strategy| strategy.is_object() && is_free) {
            operations.push(json!({"op": "add", "path": "/spec/updateStrategy", "value": strategy}));
        }
        operations
    }
}

#[cfg(test)]
pub(super) mod tests;
