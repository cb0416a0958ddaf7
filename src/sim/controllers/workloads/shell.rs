//! Runs the controllers of workloads on the store of the in-memory cluster.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::super::json::{self, controller_of, int, text};
use super::super::super::objects::DeleteOptions;
use super::super::super::patch::merge::merge;
use super::super::super::registry::{CONTROLLER_REVISIONS, KindId, NODES, PODS};
use super::super::super::selector::Labels;
use super::super::super::store::{Change, Key, Store};
use super::super::{Access, Reconcile};
use super::{Dependent, Outcome, Owned, Workload, Write};

/// How long after a failed write the workload is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// A workload concerns itself; a pod or a revision its controller, or those that may adopt it; a node those that
/// say so.
pub(crate) fn route(of: &Workload, store: &Store, change: &Change, keys: &mut Vec<Key>) {
    let concerned = matches!(change.key.kind, PODS | CONTROLLER_REVISIONS)
        || (of.node_concerns.is_some() && change.key.kind == NODES);
    if !concerned && change.key.kind.is_built_in() && of.group != "apps" {
        return;
    }
    let Some(kind) = store.registry.find(of.group, of.plural).map(|k| k.id) else { return };
    let namespace = &change.key.namespace;
    if change.key.kind == kind {
        keys.push(change.key.clone());
    } else if store.list(kind, None).next().is_none() {
        // Most clusters have few of these kinds: nothing is looked at for the others.
    } else if change.key.kind == NODES {
        let (Some(concerns), Some(node)) = (of.node_concerns, &change.after) else { return };
        let concerned = store.list(kind, None).filter(|w| concerns(store, w, change.before.as_deref(), node));
        keys.extend(concerned.map(|w| Key::new(kind, json::namespace(w), json::name(w))));
    } else if concerned {
        for object in [&change.before, &change.after].into_iter().flatten() {
            match controller_of(object) {
                Some(owner) if of.is_named_by(owner) => {
                    let key = Key::new(kind, namespace, text(owner, "/name"));
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                Some(_) => {}
                None => keys.extend(
                    store
                        .list(kind, Some(namespace))
                        .filter(|w| Labels::of_object(w.pointer("/spec/selector")).is_some_and(|s| s.selects(object)))
                        .map(|w| Key::new(kind, namespace, json::name(w))),
                ),
            }
        }
    }
}

/// The controller of one kind.
pub(crate) struct Shell(pub &'static Workload);

impl Reconcile for Shell {
    fn reconcile(&mut self, access: &Access<'_>, key: &Key) -> Option<Duration> {
        let owned = gather(self.0, access, key)?;
        let workload = owned.workload.clone();
        let Outcome { writes, status, again } = self.0.look(owned);
        let mut failed = false;
        for write in writes {
            if !execute(access, &key.namespace, &workload, write) {
                failed = true;
                break;
            }
        }
        if let Some(status) = status {
            access.update_status(key.kind, &workload, |w| {
                let collisions = int(w, "/status/collisionCount");
                json::set(w, &["status"], status);
                // A collision of this very look is newer than the status that was worked out before it.
                if collisions != int(&workload, "/status/collisionCount") {
                    json::set(w, &["status", "collisionCount"], collisions);
                }
            });
        }
        if failed { Some(again.map_or(RETRY, |a| a.min(RETRY))) } else { again }
    }
}

fn gather(of: &Workload, access: &Access<'_>, key: &Key) -> Option<Owned> {
    let state = access.core.lock();
    let workload = state.store.at(key)?.clone();
    let candidates = |kind: KindId| -> Vec<Arc<Value>> {
        let mut all = state.store.controlled_by(json::uid(&workload), kind);
        all.extend(state.store.list(kind, Some(&key.namespace)).filter(|o| controller_of(o).is_none()).cloned());
        all
    };
    let nodes = if of.node_concerns.is_some() { state.store.list(NODES, None).cloned().collect() } else { Vec::new() };
    let (pods, revisions) = (candidates(PODS), candidates(CONTROLLER_REVISIONS));
    Some(Owned { workload: workload.clone(), revisions, pods, nodes, now: access.core.clock.now() })
}

fn execute(access: &Access<'_>, namespace: &str, workload: &Value, write: Write) -> bool {
    let kind = |of| match of {
        Dependent::Pod => PODS,
        Dependent::Revision => CONTROLLER_REVISIONS,
    };
    match write {
        Write::Create(of, object) => {
            let done = access.create(kind(of), namespace, object).is_some();
            if !done && of == Dependent::Revision {
                count_collision(access, workload);
            }
            done
        }
        Write::Patch { of, name, uid, patch } => {
            let same = |o: &Value| json::uid(o) == uid;
            access.update(kind(of), namespace, &name, |o| {
                if same(o) {
                    merge(o, &patch);
                }
            });
            true
        }
        Write::PatchStatus { of, name, uid, patch } => {
            let key = Key::new(kind(of), namespace, &name);
            if let Some(object) = access.at(&key).filter(|o| json::uid(o) == uid) {
                access.update_status(kind(of), &object, |o| merge(o, &patch));
            }
            true
        }
        Write::Delete { of, name, uid } => {
            let options = DeleteOptions { uid: Some(uid), ..DeleteOptions::default() };
            access.delete(kind(of), namespace, &name, &options);
            true
        }
    }
}

/// The revision's name is taken by another template's: count it, so that the next hash differs.
fn count_collision(access: &Access<'_>, workload: &Value) {
    let kind = {
        let state = access.core.lock();
        state.store.registry.find_kind(text(workload, "/apiVersion"), text(workload, "/kind")).map(|k| k.id)
    };
    if let Some(kind) = kind {
        access.update_status(kind, workload, |w| {
            let collisions = int(w, "/status/collisionCount").unwrap_or(0);
            json::set(w, &["status", "collisionCount"], collisions + 1);
        });
    }
}
