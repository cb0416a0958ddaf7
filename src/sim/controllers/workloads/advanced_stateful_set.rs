//! OpenKruise's Advanced StatefulSet controller, after the documentation of its API (v1beta1 and v1alpha1, of one shape).
//!
//! Left out: volume claims and their resizing, lifecycle hooks, priority of updates.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::super::json::{self, deleting, flag, items, text};
use super::super::super::selector::Labels;
use super::super::super::store::{Change, Key, Store};
use super::super::pods::{generation, int_or_percent};
use super::clone_set::{LIFECYCLE, Policy};
use super::revisions::{self, HASH_LABEL, REVISION_LABEL, Revision};
use super::stateful_set::{make_pod, parent_and_ordinal};
use super::{Dependent, Outcome, Owned, Workload, Write, count, in_place, running_and_ready, shell};

pub(crate) const KIND: Workload = Workload {
    group: "apps.kruise.io",
    plural: "statefulsets",
    kind: "StatefulSet",
    node_concerns: None,
    adopts: |set, pod| parent_and_ordinal(json::name(pod)).is_some_and(|(parent, _)| parent == json::name(set)),
    decide,
};

/// A kind that nobody knows by name, with the same controller: see `tests/e2e/crds/gameserversets.yaml`.
pub(crate) const LIKE: Workload =
    Workload { group: "games.example.com", plural: "gameserversets", kind: "GameServerSet", ..KIND };

pub(crate) fn route_like(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    shell::route(&LIKE, store, change, keys);
}

pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    shell::route(&KIND, store, change, keys);
}

/// The place of one ordinal that is not reserved.
struct Place<'a> {
    ordinal: i64,
    pod: Option<&'a Arc<Value>>,
}

struct Set<'a> {
    owned: &'a Owned,
    rolling: &'a Value,
    rolls: bool,
    policy: Policy,
    min_ready: i64,
    ordered: bool,
    current: Revision,
    update: Revision,
    places: Vec<Place<'a>>,
    /// Pods of other or reserved ordinals, highest first.
    condemned: Vec<(i64, &'a Arc<Value>)>,
}

/// Ordinals that get no pod: numbers, or ranges such as `"3-5"`.
fn reserved(set: &Value) -> BTreeSet<i64> {
    let of = |entry: &Value| -> Vec<i64> {
        if let Some(n) = entry.as_i64() {
            return vec![n];
        }
        let text = entry.as_str().unwrap_or_default();
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (from.trim().parse::<i64>(), to.trim().parse::<i64>()) {
            (Ok(from), Ok(to)) => (from..=to.min(from + 10_000)).collect(),
            _ => Vec::new(),
        }
    };
    items(set, "/spec/reserveOrdinals").iter().flat_map(of).collect()
}

fn decide(owned: &Owned) -> Outcome {
    let mut out = Outcome::default();
    let update = revisions::settle(owned, HASH_LABEL, &mut out.writes);
    let current = revisions::current(owned, &update);
    let rolling = owned.workload.pointer("/spec/updateStrategy/rollingUpdate").unwrap_or(&Value::Null);
    let reserved = reserved(&owned.workload);
    let start = owned.int("/spec/ordinals/start").unwrap_or(0);
    let ordinal = |pod: &Value| parent_and_ordinal(json::name(pod)).map(|(_, n)| n);
    let places: Vec<Place<'_>> = (start..)
        .filter(|n| !reserved.contains(n))
        .take(usize::try_from(owned.replicas()).unwrap_or(0))
        .map(|n| Place { ordinal: n, pod: owned.pods.iter().find(|p| ordinal(p) == Some(n)) })
        .collect();
    let placed: BTreeSet<i64> = places.iter().map(|p| p.ordinal).collect();
    let mut condemned: Vec<(i64, &Arc<Value>)> =
        owned.pods.iter().filter_map(|p| Some((ordinal(p).filter(|n| !placed.contains(n))?, p))).collect();
    condemned.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let set = Set {
        owned,
        rolling,
        rolls: owned.text("/spec/updateStrategy/type") != "OnDelete",
        policy: Policy::of(text(rolling, "/podUpdatePolicy")),
        min_ready: json::int(rolling, "/minReadySeconds").unwrap_or(0),
        ordered: owned.text("/spec/podManagementPolicy") != "Parallel",
        current,
        update,
        places,
        condemned,
    };
    let replaced = if deleting(&owned.workload) { 0 } else { set.act(&mut out) };
    out.status = Some(set.status(replaced));
    if let Some(left) = owned.next_available(set.min_ready) {
        out.look_again(left);
    }
    let mut live: BTreeSet<&str> = owned.pods.iter().map(|p| revisions::of_pod(p)).collect();
    live.extend([set.current.name.as_str(), set.update.name.as_str()]);
    revisions::truncate(owned, &live, false, &mut out.writes);
    out
}

impl<'a> Set<'a> {
    fn partition(&self) -> i64 {
        json::int(self.rolling, "/partition").unwrap_or(0)
    }

    fn unordered(&self) -> bool {
        self.rolling.get("unorderedUpdate").is_some_and(Value::is_object)
    }

    fn is_updated(&self, pod: &Value) -> bool {
        revisions::of_pod(pod) == self.update.name
    }

    fn available(&self, pod: &Value) -> bool {
        !deleting(pod) && running_and_ready(pod) && self.owned.available(pod, self.min_ready)
    }

    /// The revision of a pod that is to be made: old ones below the partition, or, with unordered updates, as many old ones
    /// as the partition says.
    fn revision_for(&self, place: &Place<'_>) -> &Revision {
        let old = if !self.rolls {
            false
        } else if self.unordered() {
            let others = self.places.iter().filter(|p| p.ordinal != place.ordinal);
            let old = others.filter(|p| p.pod.is_some_and(|p| !self.is_updated(p))).count();
            (old as i64) < self.partition()
        } else {
            let before = self.places.iter().filter(|p| p.ordinal < place.ordinal).count();
            (before as i64) < self.partition()
        };
        if old { &self.current } else { &self.update }
    }

    /// Makes, removes and updates pods; gives the number of updated ones.
    fn act(&self, out: &mut Outcome) -> i64 {
        let scale = self.owned.workload.pointer("/spec/scaleStrategy/maxUnavailable");
        let mut room = scale.map(|m| int_or_percent(Some(m), self.owned.replicas(), false).max(1));
        // One more pod is not available; whether that was the last that may be.
        let mut exhausted = || {
            room.as_mut().is_some_and(|left| {
                *left -= 1;
                *left <= 0
            })
        };
        for place in &self.places {
            let Some(pod) = place.pod else {
                let mut pod = make_pod(self.owned, place.ordinal, self.revision_for(place));
                json::set(&mut pod, &["metadata", "labels", LIFECYCLE], "Normal");
                if self.policy != Policy::ReCreate {
                    in_place::add_gate(&mut pod);
                }
                out.writes.push(Write::Create(Dependent::Pod, pod));
                if self.ordered || exhausted() {
                    return 0;
                }
                continue;
            };
            if text(pod, "/status/phase") == "Failed" && !deleting(pod) {
                out.writes.push(Write::delete(Dependent::Pod, pod));
            }
            if let Some(left) = in_place::refresh(self.owned, pod, &mut out.writes) {
                out.look_again(left);
            }
            if !self.available(pod) && (self.ordered || exhausted()) {
                return 0;
            }
        }
        let unhealthy = |p: &Value| !running_and_ready(p) || deleting(p);
        let first = self.places.iter().filter_map(|p| p.pod).chain(self.condemned.iter().rev().map(|(_, p)| *p));
        let first = first.into_iter().find(|p| unhealthy(p)).map(|p| json::uid(p));
        for (_, pod) in &self.condemned {
            if self.ordered && (deleting(pod) || (!self.available(pod) && first != Some(json::uid(pod)))) {
                return 0;
            }
            if !deleting(pod) {
                out.writes.push(Write::delete(Dependent::Pod, pod));
            }
            if self.ordered {
                return 0;
            }
        }
        if !self.rolls || flag(self.rolling, "/paused") {
            return 0;
        }
        self.roll(&mut out.writes)
    }

    /// Places in the order in which they are updated, as many as the partition allows.
    fn to_update(&self) -> Vec<&Place<'a>> {
        let most = usize::try_from(self.owned.replicas() - self.partition()).unwrap_or(0);
        let down = self.places.iter().rev();
        if !self.unordered() {
            return down.take(most).collect();
        }
        let is_done = |place: &&Place<'_>| match place.pod {
            Some(pod) => deleting(pod) || self.is_updated(pod),
            None => self.revision_for(place).name == self.update.name,
        };
        let (done, waiting): (Vec<_>, Vec<_>) = down.partition(is_done);
        done.into_iter().chain(waiting).take(most).collect()
    }

    fn roll(&self, writes: &mut Vec<Write>) -> i64 {
        let one = json!(1);
        let most = self.rolling.get("maxUnavailable").unwrap_or(&one);
        let most = int_or_percent(Some(most), self.owned.replicas(), false).max(1);
        let (mut unavailable, mut replaced) = (0, 0);
        for place in self.to_update() {
            let fine = place.pod.is_some_and(|pod| {
                if !self.is_updated(pod) && !deleting(pod) && self.renew(pod, writes) {
                    replaced += i64::from(revisions::of_pod(pod) == self.current.name);
                }
                self.is_updated(pod) && self.available(pod) && in_place::completed(pod)
            });
            unavailable += i64::from(!fine);
            if unavailable >= most {
                break;
            }
        }
        replaced
    }

    /// Updates a pod in place where that is asked for and possible, else removes it; `false` if it has to stay as it is.
    fn renew(&self, pod: &Value, writes: &mut Vec<Write>) -> bool {
        if self.policy != Policy::ReCreate {
            let from = self.owned.revisions.iter().find(|r| json::name(r) == revisions::of_pod(pod));
            let change = from.and_then(|from| in_place::change(&revisions::read(self.owned, from), &self.update));
            if let Some(change) = change {
                let labels = json!({REVISION_LABEL: self.update.name});
                let grace = json::int(self.rolling, "/inPlaceUpdateStrategy/gracePeriodSeconds").unwrap_or(0);
                in_place::start(self.owned, pod, &change, &labels, grace, writes);
                return true;
            }
        }
        if self.policy != Policy::InPlaceOnly {
            writes.push(Write::delete(Dependent::Pod, pod));
        }
        self.policy != Policy::InPlaceOnly
    }

    fn status(&self, replaced: i64) -> Value {
        let pods = &self.owned.pods;
        let number = |holds: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| holds(p)).count() as i64;
        let of = |revision: &Revision| number(&|p| !deleting(p) && revisions::of_pod(p) == revision.name);
        let available = |p: &Value| running_and_ready(p) && self.owned.available(p, self.min_ready);
        let (replicas, ready, updated) = (pods.len() as i64, number(&running_and_ready), of(&self.update));
        let (mut of_current, mut current) = (of(&self.current) - replaced, &self.current);
        // A pod that is made in the same pass counts already: of none it is only complete where none is wanted.
        let has_any = replicas > 0 || self.owned.replicas() == 0;
        if self.rolls && has_any && updated == replicas && ready == replicas {
            (of_current, current) = (updated, &self.update);
        }
        let selector = Labels::of_object(self.owned.workload.pointer("/spec/selector"));
        let mut status = json!({"replicas": replicas, "readyReplicas": ready, "availableReplicas": number(&available),
            "currentReplicas": of_current, "updatedReplicas": updated,
            "currentRevision": current.name, "updateRevision": self.update.name,
            "labelSelector": selector.map(|s| s.to_query()).unwrap_or_default(),
            "collisionCount": self.owned.int("/status/collisionCount").unwrap_or(0)});
        for (field, n) in [
            ("updatedReadyReplicas", number(&|p| self.is_updated(p) && running_and_ready(p))),
            ("updatedAvailableReplicas", number(&|p| self.is_updated(p) && available(p))),
            ("observedGeneration", generation(&self.owned.workload)),
        ] {
            count(&mut status, field, n);
        }
        status
    }
}
