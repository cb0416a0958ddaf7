//! An in-memory Kubernetes API with a virtual clock, workload controllers and faults from a seed.
//!
//! [`Builder::build`] starts a [`Cluster`]; [`Cluster::client`] gives an ordinary `kube::Client` that talks to it, so
//! that a whole controller runs in it unchanged. Under tokio's paused clock on a current-thread runtime everything is
//! a function of the seed: no wall clock is read and nothing iterates in random order.
//!
//! Served are the built-in kinds that a release meets and those of CustomResourceDefinitions, with create, get, list,
//! watch, update, the four patches, delete, deletecollection, status and scale, dry run, managed fields, finalizers and
//! owner references. What is not supported is answered with 501 and named. `docs/in-memory-cluster.md` says where it
//! differs from a real server; an end-to-end scenario compares the two.
//!
//! Deployments, ReplicaSets, StatefulSets, DaemonSets, OpenKruise's kinds, pods, EndpointSlices, namespaces and garbage are
//! looked after by built-in controllers.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Weak};

use kube::core::Status;
use serde_json::Value;

mod admission;
mod base;
mod builder;
mod clock;
mod compact;
mod controllers;
mod core;
mod crd;
mod defaults;
mod discovery;
mod faults;
mod json;
mod kruise;
mod objects;
mod patch;
mod registry;
mod rng;
mod scale;
mod selector;
mod server;
mod status;
mod store;
pub mod traffic;
mod validate;
mod watch;

#[cfg(test)]
mod tests;

pub use self::admission::{AdmissionRequest, Mutator, Operation, hold_workloads};
pub use self::base::Base;
pub use self::builder::{Builder, Delays};
pub use self::clock::Clock;
pub use self::controllers::kubelet::{FAILS, NEVER_READY, READY_AFTER};
pub use self::controllers::workloads::remote::play_kruise;
pub use self::core::{Verb, Write};
pub use self::faults::{Fault, Rule};
pub use self::registry::Gvr;
pub use self::rng::Rng;
pub use self::server::Connection;

use self::core::{Caller, Core, State};

/// An in-memory cluster. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    core: Arc<Core>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Prepares a cluster.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A client in the `default` namespace. Faults, counts and judges know it by its identity.
    ///
    /// It belongs to the present process of that identity: after a crash it stays dead, see [`Cluster::revive`].
    pub fn client(&self, identity: &str) -> kube::Client {
        kube::Client::new(self.connection(identity), "default")
    }

    /// The tower service behind [`Cluster::client`].
    pub fn connection(&self, identity: &str) -> Connection {
        let epoch = self.core.lock().faults.epoch(identity);
        Connection { core: self.core.clone(), identity: Arc::from(identity), epoch }
    }

    /// The cluster's clock.
    pub fn clock(&self) -> Clock {
        self.core.clock
    }

    /// A way to read that does not keep the cluster alive: for judges.
    pub fn view(&self) -> View {
        View { core: Arc::downgrade(&self.core), past: Arc::default() }
    }

    /// Calls a function after every committed write. It must not write; it reads through a [`View`].
    pub fn on_write(&self, observer: Box<dyn FnMut(&Write) + Send>) {
        self.core.observe(observer);
    }

    /// An object of `group/version/plural`, or `None`. Cluster-scoped: the namespace is empty.
    pub fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
        get(&self.core, gvr, namespace, name)
    }

    /// All objects of a resource in name order, of one namespace or of all.
    pub fn list(&self, gvr: &Gvr, namespace: Option<&str>) -> Vec<Arc<Value>> {
        list(&self.core, gvr, namespace)
    }

    /// Creates an object as the user would, by its `apiVersion` and `kind`. Without a namespace it goes into `default`.
    ///
    /// # Errors
    /// What the API server answers.
    pub fn create(&self, object: Value) -> Result<Arc<Value>, Box<Status>> {
        let (version, name) = (json::text(&object, "/apiVersion").to_owned(), json::text(&object, "/kind").to_owned());
        self.core.run(|state| {
            let kind = state.store.registry.find_kind(&version, &name).cloned().ok_or_else(|| {
                status::failure(404, "NotFound", format!("no matches for kind \"{name}\" in version \"{version}\""))
            })?;
            let namespace = match json::namespace(&object) {
                _ if !kind.namespaced => "",
                "" => "default",
                given => given,
            };
            let caller = Caller::user(Verb::Create, registry::split_api_version(&version).1);
            let namespace = namespace.to_owned();
            self.core.create(state, &caller, &kind, &namespace, object)
        })
    }

    /// Number of requests by identity and verb.
    pub fn requests(&self) -> BTreeMap<(Arc<str>, Verb), u64> {
        self.core.lock().requests.clone()
    }

    /// Number of committed writes.
    pub fn writes(&self) -> u64 {
        self.core.lock().writes()
    }

    /// Adds a fault. The first rule that fits a request decides its answer; delays come on top.
    pub fn add_fault(&self, rule: Rule) {
        self.core.lock().faults.add(rule);
    }

    /// Takes back all rules and the armed crash of a client.
    pub fn clear_faults(&self, identity: &str) {
        self.core.lock().faults.clear(identity);
    }

    /// How often each fault struck, by identity and [`Fault::name`] (and `crash`).
    pub fn fault_counts(&self) -> BTreeMap<(Arc<str>, &'static str), u64> {
        self.core.lock().faults.counts().clone()
    }

    /// The client's process dies once `n` more of its writes are committed (0: now): it gets no answer any more, not
    /// even to that write.
    pub fn crash_after(&self, identity: &str, n: u64) {
        self.core.lock().faults.crash_after(identity, n);
    }

    /// Resolves when the client's process has crashed.
    pub fn crashed(&self, identity: &str) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.core.lock().faults.crashed(identity);
        async move {
            let _ = receiver.wait_for(|crashed| *crashed).await;
        }
    }

    /// Starts a new process of a crashed client: gives its client. Clients of the old process stay dead, so that no
    /// forgotten task of it writes.
    pub fn revive(&self, identity: &str) -> kube::Client {
        self.core.lock().faults.revive(identity);
        self.client(identity)
    }

    /// Ends all watches of a client at once. To go on from a version before this moment is 410: the client has to list
    /// again.
    pub fn break_watches(&self, identity: &str) {
        let mut state = self.core.lock();
        // The version moves on as by a write elsewhere, so that every version that the client knows is too old.
        let (version, watch) = (state.store.skip_version(), state.next_watch());
        state.faults.break_watches(identity, version, watch);
    }

    /// Forgets the history of a resource: watches from older versions get 410, whoever asks.
    pub fn compact(&self, gvr: &Gvr) {
        let mut state = self.core.lock();
        if let Some(kind) = state.store.registry.find(&gvr.group, &gvr.resource).map(|k| k.id) {
            state.store.compact(kind);
        }
    }

    /// Stops or starts a built-in controller: `deployment-controller`, `replicaset-controller`,
    /// `statefulset-controller`, `daemonset-controller`, `cloneset-controller`,
    /// `advanced-statefulset-controller`, `advanced-daemonset-controller`, `kubelet`, `endpointslice-controller` or `garbage-collector`. What happens meanwhile waits for it.
    pub fn enable_controller(&self, name: &str, on: bool) {
        self.core.lock().queue.enable(name, on);
        self.core.work.notify_one();
    }
}

/// Reads of a cluster that do not keep it alive; empty once it is gone.
#[derive(Clone)]
pub struct View {
    core: Weak<Core>,
    past: Arc<Past>,
}

/// Objects as they once were, by group, resource, namespace and name; `None` were not there.
pub type Past = BTreeMap<(String, String, String, String), Option<Arc<Value>>>;

impl View {
    /// The same, but with some objects as they once were: for who learns late.
    pub fn with_past(&self, past: Past) -> View {
        View { core: self.core.clone(), past: Arc::new(past) }
    }

    /// As [`Cluster::get`].
    pub fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let is_it = |(group, resource, of, named): &(String, String, String, String)| {
            (group, resource, of.as_str(), named.as_str()) == (&gvr.group, &gvr.resource, namespace, name)
        };
        match self.past.iter().find(|(key, _)| is_it(key)) {
            Some((_, then)) => then.clone(),
            None => get(&*self.core.upgrade()?, gvr, namespace, name),
        }
    }

    /// As [`Cluster::list`].
    pub fn list(&self, gvr: &Gvr, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let mut objects = self.core.upgrade().map(|core| list(&core, gvr, namespace)).unwrap_or_default();
        for ((group, resource, of, name), then) in self.past.iter() {
            if (group, resource) == (&gvr.group, &gvr.resource) && namespace.is_none_or(|n| n == of) {
                objects.retain(|o| json::namespace(o) != of || json::name(o) != name);
                objects.extend(then.clone());
            }
        }
        objects
    }
}

fn find<'a>(state: &'a State, gvr: &Gvr) -> Option<&'a Arc<registry::Kind>> {
    state.store.registry.find(&gvr.group, &gvr.resource).filter(|k| k.version(&gvr.version).is_some())
}

fn shown(core: &Core, kind: &registry::Kind, gvr: &Gvr, object: &Arc<Value>) -> Arc<Value> {
    if kind.storage == gvr.version {
        return object.clone();
    }
    core.view_version(kind, &Caller::controller("", &gvr.version), object)
}

fn get(core: &Core, gvr: &Gvr, namespace: &str, name: &str) -> Option<Arc<Value>> {
    let state = core.lock();
    let kind = find(&state, gvr)?;
    let object = state.store.get(kind.id, namespace, name)?;
    Some(shown(core, kind, gvr, object))
}

fn list(core: &Core, gvr: &Gvr, namespace: Option<&str>) -> Vec<Arc<Value>> {
    let state = core.lock();
    let Some(kind) = find(&state, gvr) else { return Vec::new() };
    state.store.list(kind.id, namespace).map(|object| shown(core, kind, gvr, object)).collect()
}
