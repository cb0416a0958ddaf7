//! The StatefulSet controller (`apps/v1`), as in Kubernetes 1.36.
//!
//! Volume claims are named in the pods, but no PersistentVolumeClaim is made.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::super::json::{self, deleting, items, text};
use super::super::super::store::{Change, Key, Store};
use super::super::pods::{generation, int_or_percent, pod_of};
use super::revisions::{self, HASH_LABEL, REVISION_LABEL, Revision};
use super::{Dependent, Outcome, Owned, Workload, Write, count, running_and_ready, shell};

pub(crate) const KIND: Workload = Workload {
    group: "apps",
    plural: "statefulsets",
    kind: "StatefulSet",
    node_concerns: None,
    adopts: |set, pod| parent_and_ordinal(json::name(pod)).is_some_and(|(parent, _)| parent == json::name(set)),
    decide,
};

pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    shell::route(&KIND, store, change, keys);
}

/// `web-3` as `web` and 3.
pub(crate) fn parent_and_ordinal(pod: &str) -> Option<(&str, i64)> {
    let (parent, ordinal) = pod.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit());
    Some((parent, ordinal.parse().ok().filter(|_| digits)?))
}

/// The place of one ordinal: the pod that is there, or the revision that it is to be made of.
struct Place<'a> {
    ordinal: i64,
    pod: Option<&'a Arc<Value>>,
    revision: &'a Revision,
}

struct Set<'a> {
    owned: &'a Owned,
    min_ready: i64,
    /// One pod after the other, each when those before it are available.
    ordered: bool,
    update: &'a Revision,
}

fn decide(owned: &Owned) -> Outcome {
    let mut out = Outcome::default();
    let update = revisions::settle(owned, HASH_LABEL, &mut out.writes);
    let current = revisions::current(owned, &update);
    let min_ready = owned.int("/spec/minReadySeconds").unwrap_or(0);
    let ordered = owned.text("/spec/podManagementPolicy") != "Parallel";
    let set = Set { owned, min_ready, ordered, update: &update };

    let start = owned.int("/spec/ordinals/start").unwrap_or(0);
    let ordinals = start..start + owned.replicas();
    let ordinal = |pod: &Value| parent_and_ordinal(json::name(pod)).map(|(_, n)| n);
    let places: Vec<Place<'_>> = ordinals
        .clone()
        .map(|n| Place {
            ordinal: n,
            pod: owned.pods.iter().find(|p| ordinal(p) == Some(n)),
            revision: if n < first_updated(owned, start) { &current } else { &update },
        })
        .collect();
    let mut condemned: Vec<(i64, &Arc<Value>)> =
        owned.pods.iter().filter_map(|p| Some((ordinal(p).filter(|n| !ordinals.contains(n))?, p))).collect();
    condemned.sort_by_key(|(n, _)| std::cmp::Reverse(*n));

    let replaced = if deleting(&owned.workload) { 0 } else { set.act(&places, &condemned, &mut out.writes) };
    out.status = Some(set.status(&current, replaced));
    if min_ready > 0
        && let Some(left) = owned.next_available(min_ready)
    {
        out.look_again(left);
    }
    let mut live: BTreeSet<&str> = owned.pods.iter().map(|p| revisions::of_pod(p)).collect();
    live.extend([current.name.as_str(), update.name.as_str()]);
    revisions::truncate(owned, &live, false, &mut out.writes);
    out
}

/// Pods below this ordinal are made of the current revision. Without `rollingUpdate`, those that are still of it count.
fn first_updated(owned: &Owned, start: i64) -> i64 {
    let rolling = owned.text("/spec/updateStrategy/type") == "RollingUpdate";
    match owned.int("/spec/updateStrategy/rollingUpdate/partition") {
        Some(partition) => start + partition,
        None if rolling => start + owned.int("/status/currentReplicas").unwrap_or(0),
        None => start,
    }
}

impl Set<'_> {
    fn unavailable(&self, pod: Option<&Arc<Value>>) -> bool {
        pod.is_none_or(|p| deleting(p) || !self.owned.available(p, self.min_ready))
    }

    /// Makes, removes and replaces pods; gives the number of replaced ones.
    fn act(&self, places: &[Place<'_>], condemned: &[(i64, &Arc<Value>)], writes: &mut Vec<Write>) -> i64 {
        for place in places {
            let blocks = match place.pod {
                None => {
                    writes.push(Write::Create(Dependent::Pod, self.make(place)));
                    true
                }
                Some(pod) if matches!(text(pod, "/status/phase"), "Failed" | "Succeeded") => {
                    if !deleting(pod) {
                        writes.push(Write::delete(Dependent::Pod, pod));
                    }
                    true
                }
                Some(pod) => deleting(pod) || !running_and_ready(pod) || self.unavailable(Some(pod)),
            };
            if blocks && self.ordered {
                return 0;
            }
        }
        let first_unavailable = places
            .iter()
            .filter_map(|p| p.pod)
            .chain(condemned.iter().rev().map(|(_, p)| *p))
            .find(|p| self.unavailable(Some(p)));
        for (_, pod) in condemned {
            let is_first = first_unavailable.is_some_and(|f| json::uid(f) == json::uid(pod));
            let waits = deleting(pod) || (self.unavailable(Some(pod)) && !is_first);
            if self.ordered && waits {
                return 0;
            }
            if !deleting(pod) {
                writes.push(Write::delete(Dependent::Pod, pod));
            }
            if self.ordered {
                return 0;
            }
        }
        if self.owned.text("/spec/updateStrategy/type") == "OnDelete" {
            return 0;
        }
        self.replace(places, writes)
    }

    /// Removes pods of other revisions, highest ordinal first.
    fn replace(&self, places: &[Place<'_>], writes: &mut Vec<Write>) -> i64 {
        let rolling = self.owned.workload.pointer("/spec/updateStrategy/rollingUpdate");
        let partition = rolling.and_then(|r| r.get("partition")).and_then(Value::as_i64).unwrap_or(0);
        let targets = places.iter().skip(usize::try_from(partition).unwrap_or(0)).rev();
        let outdated = |p: &Place<'_>| p.pod.is_some_and(|p| revisions::of_pod(p) != self.update.name && !deleting(p));
        let Some(most) = rolling.and_then(|r| r.get("maxUnavailable")) else {
            for place in targets {
                if outdated(place) {
                    writes.extend(place.pod.map(|p| Write::delete(Dependent::Pod, p)));
                    return 1;
                }
                if self.unavailable(place.pod) {
                    return 0;
                }
            }
            return 0;
        };
        // The server has the feature `MaxUnavailableStatefulSet`: unavailable pods count wherever they are.
        let most = int_or_percent(Some(most), self.owned.replicas(), false).max(1);
        let unavailable = places.iter().filter(|p| self.unavailable(p.pod)).count() as i64;
        let room = usize::try_from(most - unavailable).unwrap_or(0);
        let gone: Vec<Write> = targets
            .filter(|p| outdated(p))
            .take(room)
            .filter_map(|p| p.pod.map(|p| Write::delete(Dependent::Pod, p)))
            .collect();
        let replaced = gone.len() as i64;
        writes.extend(gone);
        replaced
    }

    fn make(&self, place: &Place<'_>) -> Value {
        make_pod(self.owned, place.ordinal, place.revision)
    }

    fn status(&self, current: &Revision, replaced: i64) -> Value {
        let pods = &self.owned.pods;
        let number = |holds: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| holds(p)).count() as i64;
        let of = |revision: &Revision| number(&|p| !deleting(p) && revisions::of_pod(p) == revision.name);
        let (replicas, ready) = (number(&|_| true), number(&running_and_ready));
        let available = number(&|p| running_and_ready(p) && self.owned.available(p, self.min_ready));
        let updated = of(self.update);
        let (mut of_current, mut current) = (of(current) - replaced, current);
        let wanted = self.owned.replicas();
        let rolls = self.owned.text("/spec/updateStrategy/type") == "RollingUpdate";
        if rolls && [updated, ready, replicas].iter().all(|n| *n == wanted) {
            (of_current, current) = (updated, self.update);
        }
        let mut status = json!({"observedGeneration": generation(&self.owned.workload), "replicas": replicas,
            "availableReplicas": available, "currentRevision": current.name, "updateRevision": self.update.name,
            "collisionCount": self.owned.int("/status/collisionCount").unwrap_or(0)});
        for (field, n) in [("readyReplicas", ready), ("currentReplicas", of_current), ("updatedReplicas", updated)] {
            count(&mut status, field, n);
        }
        status
    }
}

/// The pod of an ordinal.
pub(crate) fn make_pod(owned: &Owned, ordinal: i64, revision: &Revision) -> Value {
    let mut pod = pod_of(&owned.workload, &revision.template);
    let name = format!("{}-{ordinal}", owned.name());
    json::set(&mut pod, &["spec", "hostname"], name.clone());
    let service = owned.text("/spec/serviceName");
    if !service.is_empty() {
        json::set(&mut pod, &["spec", "subdomain"], service);
    }
    for (key, value) in [
        (REVISION_LABEL, revision.name.clone()),
        ("statefulset.kubernetes.io/pod-name", name.clone()),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
    ] {
        json::set(&mut pod, &["metadata", "labels", key], value);
    }
    let claims = items(&owned.workload, "/spec/volumeClaimTemplates");
    if !claims.is_empty() {
        let named = |v: &Value| claims.iter().any(|c| json::name(c) == text(v, "/name"));
        let mut volumes: Vec<Value> = items(&pod, "/spec/volumes").iter().filter(|v| !named(v)).cloned().collect();
        volumes.extend(claims.iter().map(|claim| {
            let claim = json::name(claim);
            json!({"name": claim, "persistentVolumeClaim": {"claimName": format!("{claim}-{name}")}})
        }));
        json::set(&mut pod, &["spec", "volumes"], volumes);
    }
    json::set(&mut pod, &["metadata", "name"], name);
    pod
}
