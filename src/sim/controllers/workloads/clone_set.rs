//! OpenKruise's CloneSet controller, after the documentation of its API (v1beta1 and v1alpha1).
//!
//! Left out: volume claims, lifecycle hooks, priority and scatter of updates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::super::json::{self, deleting, flag, items, text};
use super::super::super::rng::{encode, hash};
use super::super::super::selector::Labels;
use super::super::super::store::{Change, Key, Store};
use super::super::pods::{active, generation, int_or_percent, pod_of};
use super::super::replica_set::deletion_order;
use super::revisions::{self, HASH_LABEL, REVISION_LABEL, Revision};
use super::{Dependent, Outcome, Owned, Workload, Write, count, in_place, label, running_and_ready, shell};

pub(crate) const KIND: Workload = Workload {
    group: "apps.kruise.io",
    plural: "clonesets",
    kind: "CloneSet",
    node_concerns: None,
    adopts: |_, _| true,
    decide,
};

/// Marks a pod that goes before others, or to be made again.
const SPECIFIED_DELETE: &str = "apps.kruise.io/specified-delete";
const INSTANCE: &str = "apps.kruise.io/cloneset-instance-id";
/// Where a pod is in its life: `Normal`, or `Updating` in place.
pub(crate) const LIFECYCLE: &str = "lifecycle.apps.kruise.io/state";

pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    shell::route(&KIND, store, change, keys);
}

/// How pods may be updated.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Policy {
    ReCreate,
    InPlaceIfPossible,
    InPlaceOnly,
}

impl Policy {
    pub fn of(text: &str) -> Self {
        match text {
            "InPlaceIfPossible" => Policy::InPlaceIfPossible,
            "InPlaceOnly" => Policy::InPlaceOnly,
            _ => Policy::ReCreate,
        }
    }
}

/// `partition` as a number of pods that stay old: a percentage rounds up, but less than 100 % lets at least one pod be
/// new.
pub(crate) fn partition(value: Option<&Value>, replicas: i64) -> i64 {
    let mut old = int_or_percent(value, replicas, true);
    let percent = value.and_then(Value::as_str);
    if replicas > 1 && old == replicas && percent.is_some_and(|p| p != "100%") {
        old = replicas - 1;
    }
    old.clamp(0, replicas)
}

/// `spec.updateStrategy`, which the two versions spell differently.
struct Strategy<'a> {
    on_delete: bool,
    policy: Policy,
    /// Where partition and bounds are.
    rolling: &'a Value,
}

impl<'a> Strategy<'a> {
    fn of(set: &'a Value) -> Self {
        let strategy = set.pointer("/spec/updateStrategy").unwrap_or(&Value::Null);
        let kind = text(strategy, "/type");
        if text(set, "/apiVersion").ends_with("/v1alpha1") {
            return Self { on_delete: kind == "OnDelete", policy: Policy::of(kind), rolling: strategy };
        }
        let rolling = strategy.get("rollingUpdate").unwrap_or(&Value::Null);
        Self { on_delete: kind == "OnDelete", policy: Policy::of(text(rolling, "/podUpdatePolicy")), rolling }
    }
}

/// How far the set is from what is wanted.
#[derive(Debug, Default, PartialEq)]
struct Distance {
    /// Pods to make, and how many of them of the current revision.
    make: i64,
    make_old: i64,
    /// Pods to remove beside those that are marked, and how many of them old.
    remove: i64,
    remove_old: i64,
    /// Ready pods that may be removed.
    removable: i64,
    /// Pods to update.
    update: i64,
    /// Unavailable pods that there may be while updating.
    unavailable: i64,
}

struct Set<'a> {
    owned: &'a Owned,
    strategy: Strategy<'a>,
    min_ready: i64,
    replicas: i64,
    pods: Vec<&'a Arc<Value>>,
    current: Revision,
    update: Revision,
}

fn decide(owned: &Owned) -> Outcome {
    let mut out = Outcome::default();
    let update = revisions::settle(owned, HASH_LABEL, &mut out.writes);
    let set = Set {
        owned,
        strategy: Strategy::of(&owned.workload),
        min_ready: owned.int("/spec/minReadySeconds").unwrap_or(0),
        replicas: owned.replicas(),
        pods: owned.pods.iter().filter(|p| active(p)).collect(),
        current: revisions::current(owned, &update),
        update,
    };
    if !deleting(&owned.workload) {
        set.act(&mut out);
    }
    out.status = Some(set.status());
    if let Some(left) = owned.next_available(set.min_ready) {
        out.look_again(left);
    }
    let mut live: BTreeSet<&str> = owned.pods.iter().map(|p| revisions::of_pod(p)).collect();
    live.extend([set.current.name.as_str(), set.update.name.as_str()]);
    revisions::truncate(owned, &live, false, &mut out.writes);
    out
}

impl Set<'_> {
    fn is_updated(&self, pod: &Value) -> bool {
        revisions::of_pod(pod) == self.update.name
    }

    fn ready(&self, pod: &Value, min_ready: i64) -> bool {
        running_and_ready(pod) && self.owned.available(pod, min_ready) && in_place::open(pod)
    }

    fn available(&self, pod: &Value) -> bool {
        self.normal_and_ready(pod, self.min_ready)
    }

    fn normal_and_ready(&self, pod: &Value, min_ready: i64) -> bool {
        matches!(label(pod, LIFECYCLE), "" | "Normal") && self.ready(pod, min_ready)
    }

    fn marked(&self, pod: &Value) -> bool {
        let names = items(&self.owned.workload, "/spec/scaleStrategy/podsToDelete");
        label(pod, SPECIFIED_DELETE) == "true" || names.iter().any(|n| n.as_str() == Some(json::name(pod)))
    }

    fn partition(&self) -> i64 {
        partition(self.strategy.rolling.get("partition"), self.replicas)
    }

    fn distance(&self) -> Distance {
        let (replicas, old_wanted) = (self.replicas, self.partition());
        let bound = |field: &str| self.strategy.rolling.get(field);
        let paused = flag(self.strategy.rolling, "/paused");
        let surge = if paused { 0 } else { int_or_percent(bound("maxSurge"), replicas, true) };
        let default = json!("20%");
        let most = int_or_percent(bound("maxUnavailable").or(Some(&default)), replicas, surge == 0);
        let scale = self.owned.workload.pointer("/spec/scaleStrategy/maxUnavailable");
        let scale_most = scale.map_or(i64::MAX, |m| int_or_percent(Some(m), replicas, true));

        let number = |holds: &dyn Fn(&Value) -> bool| self.pods.iter().filter(|p| holds(p)).count() as i64;
        let total = self.pods.len() as i64;
        let new = number(&|p| self.is_updated(p));
        let old = total - new;
        let marked_new = number(&|p| self.marked(p) && self.is_updated(p));
        let marked_old = number(&|p| self.marked(p) && !self.is_updated(p));
        let unavailable = number(&|p| !self.marked(p) && !self.available(p));

        // Pods only ever become new: how many are too old, and how many new ones are missing.
        let too_old = (old - old_wanted).max(0);
        let missing_new = (replicas - old_wanted - new).max(0);
        let marked = marked_new + marked_old;
        let for_marked = (unavailable + marked - most).clamp(0, marked);
        let for_update = too_old.min(missing_new);
        let (surge, surge_old) = if for_marked >= for_update {
            (surge.min(for_marked), surge.min((for_marked - marked_new).max(0)))
        } else {
            (surge.min(for_update), 0)
        };
        let mut distance = Distance::default();
        let (wanted, wanted_old) = (replicas + surge, old_wanted + surge_old);
        if wanted > total {
            distance.make = (wanted - total).min((scale_most - unavailable).max(0));
            distance.make_old = (wanted_old - old).max(0);
        }
        let surplus = total - marked - wanted;
        if surplus > 0 {
            distance.remove = surplus;
            distance.remove_old = (old - marked_old - wanted_old).max(0);
        }
        distance.removable = (most + total - replicas - unavailable).max(0);
        distance.update = too_old.min(missing_new);
        distance.unavailable = most + total - replicas;
        distance
    }

    fn act(&self, out: &mut Outcome) {
        let before = out.writes.len();
        for pod in &self.pods {
            if let Some(left) = in_place::refresh(self.owned, pod, &mut out.writes) {
                out.look_again(left);
            }
            if label(pod, LIFECYCLE) == "Updating" && in_place::completed(pod) {
                let patch = json!({"metadata": {"labels": {LIFECYCLE: "Normal"}}});
                out.writes.push(Write::patch(Dependent::Pod, pod, patch));
            }
        }
        let refreshed = out.writes.len() > before;
        let distance = self.distance();
        let scaled = self.scale(&distance, &mut out.writes);
        let waits = flag(self.strategy.rolling, "/paused") || self.strategy.on_delete;
        if !scaled && !refreshed && !waits {
            self.roll(&distance, &mut out.writes);
        }
    }

    fn scale(&self, distance: &Distance, writes: &mut Vec<Write>) -> bool {
        if distance.make > 0 {
            let old = distance.make_old.min(distance.make);
            writes.extend((0..distance.make).map(|n| {
                let revision = if n < old { &self.current } else { &self.update };
                Write::Create(Dependent::Pod, self.make(n, revision))
            }));
            return true;
        }
        let (mut new, mut old): (Vec<_>, Vec<_>) = self.pods.iter().copied().partition(|p| self.is_updated(p));
        let mut chosen: Vec<&Arc<Value>> = new.iter().chain(&old).copied().filter(|p| self.marked(p)).collect();
        if distance.remove > 0 {
            for pods in [&mut new, &mut old] {
                pods.retain(|p| !self.marked(p));
                pods.sort_by(|a, b| deletion_order(a, b, &BTreeMap::new()));
            }
            let of_old = distance.remove_old.min(distance.remove) as usize;
            let of_new = distance.remove as usize - of_old;
            chosen.extend(old.into_iter().take(of_old).chain(new.into_iter().take(of_new)));
        }
        let mut removable = distance.removable;
        let mut gone = Vec::new();
        for pod in chosen {
            // Whether it is ready counts here, and not for how long.
            if self.normal_and_ready(pod, 0) {
                if removable == 0 {
                    continue;
                }
                removable -= 1;
            }
            gone.push(pod);
        }
        writes.extend(gone.iter().map(|p| Write::delete(Dependent::Pod, p)));
        !gone.is_empty()
    }

    /// Updates old pods: in place where that is asked for and possible, else they are marked to be made again.
    fn roll(&self, distance: &Distance, writes: &mut Vec<Write>) {
        let mut waiting: Vec<&Arc<Value>> =
            self.pods.iter().copied().filter(|p| !self.is_updated(p) && !in_place::in_grace(p)).collect();
        waiting.sort_by(|a, b| deletion_order(a, b, &BTreeMap::new()));
        let mut unavailable = self.pods.iter().filter(|p| !self.available(p)).count() as i64;
        let new = self.pods.iter().filter(|p| self.is_updated(p) && !self.available(p)).count() as i64;
        // Pods that become new are unavailable for a while, whatever they were before.
        let most = (distance.unavailable - new).max(0).min(distance.update);
        for pod in waiting.into_iter().take(most as usize) {
            if self.available(pod) {
                if unavailable >= distance.unavailable {
                    break;
                }
                unavailable += 1;
            }
            self.renew(pod, writes);
        }
    }

    fn renew(&self, pod: &Value, writes: &mut Vec<Write>) {
        if self.strategy.policy != Policy::ReCreate {
            let from = self.owned.revisions.iter().find(|r| json::name(r) == revisions::of_pod(pod));
            let change = from.and_then(|from| in_place::change(&revisions::read(self.owned, from), &self.update));
            if let Some(change) = change {
                let mut labels = revision_labels(&self.update);
                json::set(&mut labels, &[LIFECYCLE], "Updating");
                let grace = json::int(self.strategy.rolling, "/inPlaceUpdateStrategy/gracePeriodSeconds").unwrap_or(0);
                in_place::start(self.owned, pod, &change, &labels, grace, writes);
                return;
            }
        }
        if self.strategy.policy != Policy::InPlaceOnly && !self.marked(pod) {
            let patch = json!({"metadata": {"labels": {SPECIFIED_DELETE: "true"}}});
            writes.push(Write::patch(Dependent::Pod, pod, patch));
        }
    }

    fn make(&self, n: i64, revision: &Revision) -> Value {
        let seed = format!("{}{}{n}", json::uid(&self.owned.workload), self.owned.now);
        let id = encode(hash(seed.as_bytes()), 5);
        let mut pod = pod_of(&self.owned.workload, &revision.template);
        json::set(&mut pod, &["metadata", "name"], format!("{}-{id}", self.owned.name()));
        for (key, value) in revision_labels(revision).as_object().into_iter().flatten() {
            json::set(&mut pod, &["metadata", "labels", key], value.clone());
        }
        json::set(&mut pod, &["metadata", "labels", INSTANCE], id);
        json::set(&mut pod, &["metadata", "labels", LIFECYCLE], "Normal");
        in_place::add_gate(&mut pod);
        pod
    }

    fn status(&self) -> Value {
        let number = |holds: &dyn Fn(&Value) -> bool| self.pods.iter().filter(|p| holds(p)).count() as i64;
        let (replicas, updated) = (self.pods.len() as i64, number(&|p| self.is_updated(p)));
        // The new revision is the current one as soon as all pods have it, ready or not.
        let current = if updated == replicas { &self.update } else { &self.current };
        let expected = if current.name == self.update.name { self.replicas } else { self.replicas - self.partition() };
        let selector = Labels::of_object(self.owned.workload.pointer("/spec/selector"));
        let mut status = json!({"replicas": replicas, "updatedReplicas": updated,
            "readyReplicas": number(&|p| self.ready(p, 0)),
            "availableReplicas": number(&|p| self.ready(p, self.min_ready)),
            "updatedReadyReplicas": number(&|p| self.is_updated(p) && self.ready(p, 0)),
            "currentRevision": current.name, "updateRevision": self.update.name,
            "labelSelector": selector.map(|s| s.to_query()).unwrap_or_default()});
        for (field, n) in [
            ("updatedAvailableReplicas", number(&|p| self.is_updated(p) && self.ready(p, self.min_ready))),
            ("expectedUpdatedReplicas", expected),
            ("observedGeneration", generation(&self.owned.workload)),
        ] {
            count(&mut status, field, n);
        }
        let old = self.owned.workload.get("status").unwrap_or(&Value::Null);
        for field in ["collisionCount", "conditions"] {
            json::restore(&mut status, old, &[field]);
        }
        status
    }
}

/// The labels that name a pod's revision: in full, and by its hash.
fn revision_labels(revision: &Revision) -> Value {
    json!({REVISION_LABEL: revision.name, "pod-template-hash": revision.hash})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_round_up_and_leave_room_for_one_new_pod() {
        for (value, replicas, expected) in [
            (json!(null), 10, 0),
            (json!(3), 10, 3),
            (json!(30), 10, 10),
            (json!("0%"), 10, 0),
            (json!("1%"), 10, 1),
            (json!("25%"), 10, 3),
            (json!("50%"), 5, 3),
            (json!("99%"), 10, 9),
            (json!("99%"), 3, 2),
            (json!("100%"), 3, 3),
            (json!("99%"), 1, 1),
            (json!("1%"), 1, 1),
            (json!("50%"), 0, 0),
        ] {
            assert_eq!(partition((!value.is_null()).then_some(&value), replicas), expected, "{value} of {replicas}");
        }
    }
}
