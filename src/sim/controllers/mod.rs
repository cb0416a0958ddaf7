//! The cluster's own controllers. Each is a function of the store: no client, no watch, no polling.
//!
//! One task runs them all. A committed write puts the keys that it concerns into a queue; after a short delay, from
//! the seed, the controller looks at the key. A new controller is one file and one row in [`TABLE`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::core::{Caller, Core, State, Verb};
use super::json;
use super::objects::{DeleteOptions, Deleted};
use super::registry::KindId;
use super::rng::Rng;
use super::store::{Change, Key, Store};

pub(crate) mod deployment;
pub(crate) mod endpoints;
pub(crate) mod gc;
pub(crate) mod kubelet;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod replica_set;
pub(crate) mod workloads;

use self::workloads::shell::Shell;
use self::workloads::{advanced_daemon_set, advanced_stateful_set, clone_set, daemon_set, stateful_set};

/// Names the keys that a change concerns.
type Route = fn(&Store, &Change, &mut Vec<Key>);

/// One controller.
pub(crate) struct Row {
    pub name: &'static str,
    route: Route,
    make: fn() -> Box<dyn Reconcile>,
    /// It reacts at once instead of after the controllers' delay.
    prompt: bool,
}

/// Brings one object to where it should be.
pub(crate) trait Reconcile: Send {
    /// Looks at a key; gives the delay after which to look again.
    fn reconcile(&mut self, cluster: &Access<'_>, key: &Key) -> Option<Duration>;
}

pub(crate) const TABLE: &[Row] = &[
    Row {
        name: "deployment-controller",
        route: deployment::route,
        make: || Box::new(deployment::Controller),
        prompt: false,
    },
    Row {
        name: "replicaset-controller",
        route: replica_set::route,
        make: || Box::new(replica_set::Controller),
        prompt: false,
    },
    Row {
        name: "statefulset-controller",
        route: stateful_set::route,
        make: || Box::new(Shell(&stateful_set::KIND)),
        prompt: false,
    },
    Row {
        name: "daemonset-controller",
        route: daemon_set::route,
        make: || Box::new(Shell(&daemon_set::KIND)),
        prompt: false,
    },
    Row {
        name: "cloneset-controller",
        route: clone_set::route,
        make: || Box::new(Shell(&clone_set::KIND)),
        prompt: false,
    },
    Row {
        name: "advanced-statefulset-controller",
        route: advanced_stateful_set::route,
        make: || Box::new(Shell(&advanced_stateful_set::KIND)),
        prompt: false,
    },
    Row {
        name: "advanced-daemonset-controller",
        route: advanced_daemon_set::route,
        make: || Box::new(Shell(&advanced_daemon_set::KIND)),
        prompt: false,
    },
    Row { name: "kubelet", route: kubelet::route, make: || Box::<kubelet::Kubelet>::default(), prompt: true },
    Row {
        name: "endpointslice-controller",
        route: endpoints::route,
        make: || Box::new(endpoints::Controller),
        prompt: false,
    },
    Row {
        name: "gameserverset-controller",
        route: advanced_stateful_set::route_like,
        make: || Box::new(Shell(&advanced_stateful_set::LIKE)),
        prompt: false,
    },
    Row { name: "garbage-collector", route: gc::route, make: || Box::new(gc::Collector), prompt: false },
];

/// Keys that wait for their controller. Equal moments come in the order of arrival.
pub(crate) struct Queue {
    due: BTreeMap<(Instant, u64), (usize, Key)>,
    waiting: BTreeMap<(usize, Key), (Instant, u64)>,
    disabled: BTreeSet<usize>,
    number: u64,
    rng: Rng,
    delay: RangeInclusive<Duration>,
    scratch: Vec<Key>,
}

impl Queue {
    pub fn new(seed: u64, delay: RangeInclusive<Duration>) -> Self {
        Self {
            due: BTreeMap::new(),
            waiting: BTreeMap::new(),
            disabled: BTreeSet::new(),
            number: 0,
            rng: Rng::new(seed ^ 0x5153),
            delay,
            scratch: Vec::new(),
        }
    }

    /// Queues what a change concerns.
    pub fn route(&mut self, store: &Store, change: &Change) {
        let mut keys = std::mem::take(&mut self.scratch);
        for (i, row) in TABLE.iter().enumerate() {
            (row.route)(store, change, &mut keys);
            for key in keys.drain(..) {
                let delay = if row.prompt { Duration::ZERO } else { self.rng.duration(&self.delay) };
                self.add(i, key, Instant::now() + delay);
            }
        }
        self.scratch = keys;
    }

    /// Queues a key for a moment, or moves it there if that is earlier.
    pub fn add(&mut self, row: usize, key: Key, at: Instant) {
        let id = (row, key);
        match self.waiting.get(&id) {
            Some((before, _)) if *before <= at => return,
            Some(place) => {
                self.due.remove(place);
            }
            None => {}
        }
        self.number += 1;
        self.due.insert((at, self.number), id.clone());
        self.waiting.insert(id, (at, self.number));
    }

    /// Stops or starts a controller; keys of a stopped one wait.
    pub fn enable(&mut self, name: &str, on: bool) {
        for (i, _) in TABLE.iter().enumerate().filter(|(_, r)| r.name == name) {
            if on {
                self.disabled.remove(&i);
            } else {
                self.disabled.insert(i);
            }
        }
    }

    /// Takes the next key that is due, or tells when there will be one.
    fn take(&mut self, now: Instant) -> Result<(usize, Key), Option<Instant>> {
        let place = self.due.iter().find(|(_, (row, _))| !self.disabled.contains(row)).map(|(place, _)| *place);
        let Some(place) = place else { return Err(None) };
        if place.0 > now {
            return Err(Some(place.0));
        }
        let id = self.due.remove(&place).ok_or(None)?;
        self.waiting.remove(&id);
        Ok(id)
    }
}

/// Runs the controllers until the cluster is gone.
pub(crate) async fn run(core: Weak<Core>) {
    let mut controllers: Vec<Box<dyn Reconcile>> = TABLE.iter().map(|row| (row.make)()).collect();
    loop {
        let Some(strong) = core.upgrade() else { return };
        let next = strong.lock().queue.take(Instant::now());
        match next {
            Ok((row, key)) => {
                let name = TABLE.get(row).map(|r| r.name).unwrap_or_default();
                if let Some(controller) = controllers.get_mut(row) {
                    let again = controller.reconcile(&Access { core: &strong, name }, &key);
                    if let Some(delay) = again {
                        strong.lock().queue.add(row, key, Instant::now() + delay);
                    }
                }
                drop(strong);
                // Others see the state between two steps, as in a real cluster.
                tokio::task::yield_now().await;
            }
            Err(until) => {
                let work = strong.work.clone();
                drop(strong);
                match until {
                    Some(until) => {
                        let _ = tokio::time::timeout_at(until, work.notified()).await;
                    }
                    None => work.notified().await,
                }
            }
        }
    }
}

/// What a controller may do to the store.
pub(crate) struct Access<'a> {
    pub core: &'a Core,
    pub name: &'static str,
}

impl Access<'_> {
    fn caller(&self, state: &State, kind: KindId, verb: Verb) -> Option<(Caller, Arc<super::registry::Kind>)> {
        let kind = state.store.registry.get(kind)?.clone();
        let mut caller = Caller::controller(self.name, &kind.storage);
        caller.verb = verb;
        Some((caller, kind))
    }

    pub fn at(&self, key: &Key) -> Option<Arc<Value>> {
        self.core.lock().store.at(key).cloned()
    }

    pub fn list(&self, kind: KindId, namespace: &str) -> Vec<Arc<Value>> {
        self.core.lock().store.list(kind, Some(namespace)).cloned().collect()
    }

    /// Objects of a kind that a controller object owns, in name order.
    pub fn controlled_by(&self, owner: &Value, kind: KindId) -> Vec<Arc<Value>> {
        self.core.lock().store.controlled_by(json::uid(owner), kind)
    }

    /// Creates an object; `None` if that failed (it exists, or its namespace goes away).
    pub fn create(&self, kind: KindId, namespace: &str, object: Value) -> Option<Arc<Value>> {
        self.core.run(|state| {
            let (caller, kind) = self.caller(state, kind, Verb::Create)?;
            self.core.create(state, &caller, &kind, namespace, object).ok()
        })
    }

    /// Changes the object as it is now. Nothing is written if `change` changes nothing.
    pub fn update(
        &self,
        kind: KindId,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Value>> {
        self.write(kind, namespace, name, None, change)
    }

    /// The same through the status subresource.
    pub fn update_status(&self, kind: KindId, object: &Value, change: impl FnOnce(&mut Value)) -> Option<Arc<Value>> {
        self.write(kind, json::namespace(object), json::name(object), Some("status"), change)
    }

    fn write(
        &self,
        kind: KindId,
        namespace: &str,
        name: &str,
        subresource: Option<&'static str>,
        change: impl FnOnce(&mut Value),
    ) -> Option<Arc<Value>> {
        self.core.run(|state| {
            let (mut caller, kind) = self.caller(state, kind, Verb::Update)?;
            caller.subresource = subresource;
            let make = |old: &Value| {
                let mut new = old.clone();
                change(&mut new);
                Ok((new, false))
            };
            self.core.update(state, &caller, &kind, namespace, name, make).ok()
        })
    }

    /// Deletes an object.
    pub fn delete(&self, kind: KindId, namespace: &str, name: &str, options: &DeleteOptions) -> bool {
        self.core.run(|state| {
            let Some((caller, kind)) = self.caller(state, kind, Verb::Delete) else { return false };
            let done = self.core.delete(state, &caller, &kind, namespace, name, options);
            matches!(done, Ok(Deleted::Gone(_) | Deleted::Waiting(_)))
        })
    }

    /// The present moment as objects record it.
    pub fn timestamp(&self) -> String {
        self.core.timestamp()
    }

    /// Seconds that have passed since a timestamp of an object.
    pub fn since(&self, timestamp: &str) -> Option<Duration> {
        let then: jiff::Timestamp = timestamp.parse().ok()?;
        Duration::try_from(self.core.clock.now().duration_since(then)).ok()
    }
}
