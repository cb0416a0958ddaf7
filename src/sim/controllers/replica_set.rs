//! The ReplicaSet controller.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::json::{self, condition, controller_of, deleting, int, text};
use super::super::objects::DeleteOptions;
use super::super::registry::{PODS, REPLICA_SETS};
use super::super::selector::Labels;
use super::super::store::{Change, Key, Store};
use super::pods::{active, available, generation, owner_reference, pod_of, ready};
use super::{Access, Reconcile};

/// Pods made in one look: the real controller doubles its batches up to this.
const BURST: usize = 500;

pub(crate) struct Controller;

/// A ReplicaSet concerns itself; a pod its controller, or the ReplicaSets that may adopt it.
pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    if change.key.kind == REPLICA_SETS {
        keys.push(change.key.clone());
    }
    if change.key.kind != PODS {
        return;
    }
    for pod in [&change.before, &change.after].into_iter().flatten() {
        match controller_of(pod) {
            Some(owner) if text(owner, "/kind") == "ReplicaSet" => {
                let key = Key::new(REPLICA_SETS, &change.key.namespace, text(owner, "/name"));
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
            Some(_) => {}
            None => {
                for set in store.list(REPLICA_SETS, Some(&change.key.namespace)) {
                    if Labels::of_object(set.pointer("/spec/selector")).is_some_and(|s| s.selects(pod)) {
                        keys.push(Key::new(REPLICA_SETS, &change.key.namespace, json::name(set)));
                    }
                }
            }
        }
    }
}

impl Reconcile for Controller {
    fn reconcile(&mut self, access: &Access<'_>, key: &Key) -> Option<Duration> {
        let set = access.at(key)?;
        let mut pods: Vec<Arc<Value>> = claim(access, &set, key).into_iter().filter(|p| active(p)).collect();
        let wanted = int(&set, "/spec/replicas").unwrap_or(1).max(0) as usize;
        if !deleting(&set) {
            if pods.len() < wanted {
                let template = set.pointer("/spec/template").cloned().unwrap_or_default();
                for _ in pods.len()..wanted.min(pods.len() + BURST) {
                    let Some(pod) = access.create(PODS, &key.namespace, pod_of(&set, &template)) else { break };
                    pods.push(pod);
                }
            } else if pods.len() > wanted {
                let related = related_by_node(access, &set, key);
                let surplus = pods.len() - wanted;
                pods.sort_by(|a, b| deletion_order(a, b, &related));
                for pod in pods.drain(..surplus) {
                    access.delete(PODS, &key.namespace, json::name(&pod), &DeleteOptions::default());
                }
            }
        }
        let set = access.at(key)?;
        write_status(access, &set, &pods)
    }
}

/// The ReplicaSet's pods; orphans that match are adopted, owned ones that no longer match are released.
fn claim(access: &Access<'_>, set: &Value, key: &Key) -> Vec<Arc<Value>> {
    let Some(selector) = Labels::of_object(set.pointer("/spec/selector")) else { return Vec::new() };
    let mut mine = access.controlled_by(set, PODS);
    let uid = json::uid(set).to_owned();
    mine.retain(|pod| {
        if selector.selects(pod) {
            return true;
        }
        if !deleting(set) {
            access.update(PODS, &key.namespace, json::name(pod), |pod| {
                if let Some(Value::Array(refs)) = pod.pointer_mut("/metadata/ownerReferences") {
                    refs.retain(|r| text(r, "/uid") != uid);
                }
            });
        }
        false
    });
    if deleting(set) {
        return mine;
    }
    let orphans: Vec<Arc<Value>> = access
        .core
        .lock()
        .store
        .list(PODS, Some(&key.namespace))
        .filter(|p| controller_of(p).is_none() && active(p) && selector.selects(p))
        .cloned()
        .collect();
    for pod in orphans {
        let adopted = access.update(PODS, &key.namespace, json::name(&pod), |pod| {
            let refs = json::object_mut(pod, &["metadata"]).entry("ownerReferences").or_insert_with(|| json!([]));
            if let Value::Array(refs) = refs {
                refs.push(owner_reference(set));
            }
        });
        mine.extend(adopted);
    }
    mine
}

/// How many active pods of the same Deployment run on each node: pods on crowded nodes go first.
fn related_by_node(access: &Access<'_>, set: &Value, key: &Key) -> std::collections::BTreeMap<String, usize> {
    let owner = controller_of(set).map(|r| text(r, "/uid").to_owned());
    let state = access.core.lock();
    let sets = match &owner {
        Some(uid) => state.store.controlled_by(uid, REPLICA_SETS),
        None => state.store.at(key).cloned().into_iter().collect(),
    };
    let mut nodes = std::collections::BTreeMap::new();
    for set in sets {
        for pod in state.store.controlled_by(json::uid(&set), PODS).iter().filter(|p| active(p)) {
            *nodes.entry(text(pod, "/spec/nodeName").to_owned()).or_default() += 1;
        }
    }
    nodes
}

/// Less is deleted first, as the real controller ranks active pods.
pub(crate) fn deletion_order(a: &Value, b: &Value, related: &std::collections::BTreeMap<String, usize>) -> Ordering {
    let assigned = |p: &Value| !text(p, "/spec/nodeName").is_empty();
    let phase = |p: &Value| match text(p, "/status/phase") {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let cost = |p: &Value| {
        text(p, "/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost").parse::<i64>().unwrap_or(0)
    };
    let crowd = |p: &Value| Reverse(related.get(text(p, "/spec/nodeName")).copied().unwrap_or(0));
    let ready_since = |p: &Value| condition(p, "Ready").map(|c| text(c, "/lastTransitionTime").to_owned());
    let restarts = |p: &Value| {
        let all = json::items(p, "/status/containerStatuses");
        Reverse(all.iter().filter_map(|c| int(c, "/restartCount")).max().unwrap_or(0))
    };
    let created = |p: &Value| text(p, "/metadata/creationTimestamp").to_owned();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| ready(a).cmp(&ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| crowd(a).cmp(&crowd(b)))
        .then_with(|| if ready(a) && ready(b) { ready_since(b).cmp(&ready_since(a)) } else { Ordering::Equal })
        .then_with(|| restarts(a).cmp(&restarts(b)))
        .then_with(|| created(b).cmp(&created(a)))
        .then_with(|| json::name(a).cmp(json::name(b)))
}

fn write_status(access: &Access<'_>, set: &Value, pods: &[Arc<Value>]) -> Option<Duration> {
    let min_ready = int(set, "/spec/minReadySeconds").unwrap_or(0);
    let labels = json::object_of(set, "/spec/template/metadata/labels");
    let mut again: Option<Duration> = None;
    let (mut ready_count, mut available_count, mut labelled) = (0, 0, 0);
    for pod in pods {
        let have = json::object_of(pod, "/metadata/labels");
        if labels.is_none_or(|l| l.iter().all(|(k, v)| have.and_then(|h| h.get(k)) == Some(v))) {
            labelled += 1;
        }
        ready_count += i64::from(ready(pod));
        match available(access, pod, min_ready) {
            Ok(()) => available_count += 1,
            Err(Some(left)) => again = Some(again.map_or(left, |a| a.min(left))),
            Err(None) => {}
        }
    }
    let observed = generation(set);
    access.update_status(REPLICA_SETS, set, |set| {
        let mut status = json!({"replicas": pods.len(), "observedGeneration": observed});
        for (field, count) in
            [("fullyLabeledReplicas", labelled), ("readyReplicas", ready_count), ("availableReplicas", available_count)]
        {
            if count > 0 {
                json::set(&mut status, &[field], count);
            }
        }
        json::restore(&mut status, set.get("status").unwrap_or(&Value::Null), &["conditions"]);
        json::set(set, &["status"], status);
    });
    again
}
