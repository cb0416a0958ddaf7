//! What judges and people see of the cluster.

use std::sync::Arc;

use serde_json::Value;

use super::{CANARY, CANARY_INGRESS, NAMESPACE, WORKLOAD, version};
use crate::{
    api::{
        keys,
        object::{self, at, int, text},
    },
    rehearsal::script::{Managed, Setup},
    sim::{Cluster, Gvr, View},
};

/// A resource by its API version and plural.
pub fn gvr(api_version: &str, plural: &str) -> Gvr {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Gvr::new(group, version, plural)
}

/// What judges and people look at.
#[derive(Clone)]
pub struct Eyes {
    /// Reads without keeping the cluster alive.
    pub view: View,
    rollouts: Gvr,
    workloads: Gvr,
    deployments: Gvr,
    /// Objects that keep the templates of the workload's versions.
    revisions: Gvr,
    services: Gvr,
    pods: Gvr,
    /// What routes: the gateway's objects, or else Services.
    pub routes: Gvr,
    rules: Gvr,
    /// The label that switches the hold of the workload on.
    pub switch: &'static str,
}

impl Eyes {
    /// Of a cluster.
    pub fn new(cluster: &Cluster, setup: &Setup) -> Eyes {
        let (api_version, _, plural) = setup.workload.resource();
        let is_deployment = setup.workload == Managed::Deployment;
        Eyes {
            view: cluster.view(),
            rollouts: gvr("rollouts.kruise.io/v1beta1", "rollouts"),
            workloads: gvr(api_version, plural),
            deployments: gvr("apps/v1", "deployments"),
            revisions: gvr("apps/v1", if is_deployment { "replicasets" } else { "controllerrevisions" }),
            services: gvr("v1", "services"),
            pods: gvr("v1", "pods"),
            routes: setup
                .gateway
                .resource()
                .map_or_else(|| gvr("v1", "services"), |(api_version, _, plural)| gvr(api_version, plural)),
            switch: setup.workload.switch(),
            rules: gvr("networking.istio.io/v1", "destinationrules"),
        }
    }

    pub fn rollout(&self) -> Option<Arc<Value>> {
        self.view.get(&self.rollouts, NAMESPACE, WORKLOAD)
    }

    pub fn workload(&self) -> Option<Arc<Value>> {
        self.view.get(&self.workloads, NAMESPACE, WORKLOAD)
    }

    /// Pods that the workload wants.
    pub fn replicas(&self) -> Option<i64> {
        let workload = self.workload()?;
        // Of a DaemonSet only its own controller knows.
        int(&workload, &["spec", "replicas"]).or_else(|| int(&workload, &["status", "desiredNumberScheduled"]))
    }

    pub fn canary(&self) -> Option<Arc<Value>> {
        self.view.get(&self.deployments, NAMESPACE, CANARY)
    }

    /// The version that the server names so; empty if there is none.
    pub fn version_of(&self, revision: &str) -> String {
        let full = format!("{WORKLOAD}-{revision}");
        let template =
            |o: &Value| at(o, &["spec", "template"]).or_else(|| at(o, &["data", "spec", "template"])).map(version);
        let objects = self.view.list(&self.revisions, Some(NAMESPACE));
        let found = objects.iter().find(|o| [revision, &full].contains(&object::name(o)));
        found.and_then(|o| template(o)).unwrap_or_default()
    }

    pub fn service(&self, name: &str) -> Option<Arc<Value>> {
        self.view.get(&self.services, NAMESPACE, name)
    }

    pub fn route(&self) -> Option<Arc<Value>> {
        self.view.get(&self.routes, NAMESPACE, WORKLOAD).filter(|_| self.routes.resource != "services")
    }

    pub fn canary_ingress(&self) -> Option<Arc<Value>> {
        self.view.get(&gvr("networking.k8s.io/v1", "ingresses"), NAMESPACE, CANARY_INGRESS)
    }

    pub fn rule(&self) -> Option<Arc<Value>> {
        self.view.get(&self.rules, NAMESPACE, WORKLOAD)
    }

    /// All pods, those that are going included.
    pub fn pods(&self) -> Vec<Arc<Value>> {
        self.view.list(&self.pods, Some(NAMESPACE))
    }
}

/// Whether a pod is ready and not going.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = at(pod, &["status", "conditions"]).and_then(Value::as_array);
    !object::is_deleting(pod)
        && conditions.is_some_and(|c| c.iter().any(|c| text(c, &["type"]) == "Ready" && text(c, &["status"]) == "True"))
}

/// Whether a pod belongs to the canary Deployment.
pub fn is_canary(pod: &Value) -> bool {
    object::label(pod, keys::CANARY_DEPLOYMENT).is_some()
}
