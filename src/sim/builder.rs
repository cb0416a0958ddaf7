//! What a cluster is made of.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::core::Status;
use serde_json::Value;

use super::admission::{AdmissionRequest, Mutator, hold_workloads};
use super::core::{Core, Observer, Write};
use super::rng::Rng;
use super::{Base, Cluster, controllers};

/// How long things take in the cluster. Each moment is drawn from its range by the seed.
#[derive(Debug, Clone)]
pub struct Delays {
    /// From a change to the built-in controller's look at it.
    pub controller: RangeInclusive<Duration>,
    /// From a pod's creation until it runs.
    pub pod_start: RangeInclusive<Duration>,
    /// From there until it is ready.
    pub pod_ready: RangeInclusive<Duration>,
    /// From a pod's deletion until it is gone; its grace period if that is shorter.
    pub pod_stop: RangeInclusive<Duration>,
}

impl Default for Delays {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            controller: ms(1)..=ms(20),
            pod_start: ms(500)..=ms(2000),
            pod_ready: ms(500)..=ms(3000),
            pod_stop: ms(500)..=ms(2000),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub seed: u64,
    pub start: Timestamp,
    pub delays: Delays,
    pub nodes: u32,
    pub history: usize,
    /// The server's feature `MaxUnavailableStatefulSet`.
    pub stateful_max_unavailable: bool,
    /// Objects that nobody has applied have no managed fields.
    pub tracks_from_first_apply: bool,
}

/// Prepares a [`Cluster`].
#[must_use]
pub struct Builder {
    options: Options,
    mutators: Vec<Mutator>,
    observers: Vec<Observer>,
    namespaces: Vec<String>,
    base: Option<Base>,
    definitions: Vec<Value>,
    objects: Vec<Value>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            // 2026-01-01T00:00:00Z
            start: Timestamp::constant(1_767_225_600, 0),
            delays: Delays::default(),
            nodes: 3,
            history: 10_000,
            stateful_max_unavailable: false,
            tracks_from_first_apply: false,
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            options: Options::default(),
            base: None,
            mutators: Vec::new(),
            observers: Vec::new(),
            namespaces: ["default", "kube-system", "kube-public", "kube-node-lease"].map(String::from).to_vec(),
            definitions: Vec::new(),
            objects: Vec::new(),
        }
    }
}

impl Builder {
    /// A cluster with seed 0 that starts at 2026-01-01T00:00:00Z with the namespaces of a fresh cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// The seed of names, UIDs, delays and faults.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self
    }

    /// What the clock shows at the start.
    pub fn start(mut self, start: Timestamp) -> Self {
        self.options.start = start;
        self
    }

    /// How long things take.
    pub fn delays(mut self, delays: Delays) -> Self {
        self.options.delays = delays;
        self
    }

    /// Number of nodes at the start, `node-1` and so on.
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.options.nodes = nodes;
        self
    }

    /// Number of changes of a kind that watches may look back; older versions get 410.
    pub fn history(mut self, changes: usize) -> Self {
        self.options.history = changes;
        self
    }

    /// A server with the feature gate `MaxUnavailableStatefulSet`, which is off by default up to Kubernetes 1.36: without
    /// it, the field is dropped from every StatefulSet.
    pub fn stateful_set_max_unavailable(mut self) -> Self {
        self.options.stateful_max_unavailable = true;
        self
    }

    /// Managed fields are kept only of objects that somebody has applied, as of those that an API server has kept since
    /// before it knew of managed fields: the first apply takes what is there for another manager's. For clusters in
    /// which nobody looks at them, since they are half of what most writes cost.
    pub fn tracks_from_first_apply(mut self) -> Self {
        self.options.tracks_from_first_apply = true;
        self
    }

    /// A function that sees, changes or refuses the writes of clients.
    pub fn admission(
        mut self,
        mutator: impl Fn(&AdmissionRequest<'_>) -> Result<Option<Value>, Box<Status>> + Send + Sync + 'static,
    ) -> Self {
        self.mutators.push(Box::new(mutator));
        self
    }

    /// Managed workloads are held by the rules of [`crate::workload::hold`], as on a server with our admission policies.
    pub fn hold(self) -> Self {
        self.admission(hold_workloads)
    }

    /// A function that sees every committed write, right after it. It may read the cluster through a [`View`].
    pub fn on_write(mut self, observer: Box<dyn FnMut(&Write) + Send>) -> Self {
        self.observers.push(observer);
        self
    }

    /// A further namespace.
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespaces.push(name.to_owned());
        self
    }

    /// What is there before everything else.
    pub fn base(mut self, base: &Base) -> Self {
        self.base = Some(base.clone());
        self
    }

    /// A CustomResourceDefinition (`apiextensions.k8s.io/v1`, conversion `None`).
    pub fn definition(mut self, definition: Value) -> Self {
        self.definitions.push(definition);
        self
    }

    /// A kind without a schema: everything in it is kept. Versions: the first is the stored one.
    pub fn kind(self, group: &str, versions: &[&str], plural: &str, kind: &str, namespaced: bool) -> Self {
        let list: Vec<Value> = versions
            .iter()
            .enumerate()
            .map(|(i, v)| {
                serde_json::json!({"name": v, "served": true, "storage": i == 0, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
            })
            .collect();
        let definition = serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" },
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": list}});
        self.definition(definition)
    }

    /// An object that is there from the start, written as by a user. Without a namespace it goes into `default`.
    pub fn object(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// Starts the cluster. Call it inside a tokio runtime: the built-in controllers are one task of it, which ends
    /// when the last [`Cluster`] and client is dropped.
    ///
    /// # Errors
    /// The API server's answer to the first object that it refused.
    pub fn build(self) -> Result<Cluster, Box<Status>> {
        let core = Arc::new(Core::new(self.options, self.mutators, self.observers));
        let cluster = Cluster { core: core.clone() };
        if let Some(base) = self.base {
            core.run(|state| base.put_into(&core, state));
        }
        for name in self.namespaces {
            cluster.create(serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))?;
        }
        add_nodes(&cluster)?;
        for object in self.definitions.into_iter().chain(self.objects) {
            cluster.create(object)?;
        }
        tokio::spawn(controllers::run(Arc::downgrade(&core)));
        Ok(cluster)
    }
}

/// Nodes draw their UIDs apart, so that their number changes nothing else that a seed decides.
fn add_nodes(cluster: &Cluster) -> Result<(), Box<Status>> {
    let options = &cluster.core.options;
    let apart = Rng::new(options.seed ^ 0x6e6f_6465);
    let rng = std::mem::replace(&mut cluster.core.lock().store.rng, apart);
    for n in 1..=options.nodes {
        let name = format!("node-{n}");
        let labels = serde_json::json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
        cluster.create(
            serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}),
        )?;
    }
    cluster.core.lock().store.rng = rng;
    Ok(())
}
