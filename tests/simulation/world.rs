//! The cluster of the story, with neighbours that nobody may touch.

use std::sync::{Arc, OnceLock};

use include_dir::{Dir, include_dir};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{install, manifests},
    sim::{Builder, Cluster, Gvr, View},
};

use crate::{case::Case, scenario::THIRD};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/istio");

pub const NAMESPACE: &str = "default";
pub const ROLLOUT: &str = "rollouts-demo";
pub const WORKLOAD: &str = "nginx-deployment";
pub const CANARY: &str = "nginx-deployment-canary";
pub const SERVICE: &str = "nginx-service";
pub const CANARY_SERVICE: &str = "nginx-service-canary";
pub const ROUTE: &str = "nginx-vs";
pub const RULE: &str = "nginx-dr";
/// Pods of the workload, and how many of them must always be ready (25 % may be unavailable, rounded down).
pub const REPLICAS: usize = 5;
pub const LEAST_READY: usize = 4;

/// The example's objects, and the Rollout apart.
fn example() -> &'static (Vec<Value>, Value) {
    static OBJECTS: OnceLock<(Vec<Value>, Value)> = OnceLock::new();
    OBJECTS.get_or_init(|| {
        let all = manifests(&MANIFESTS).expect("examples/istio can be read");
        let (mut rollout, others): (Vec<Value>, Vec<Value>) = all.into_iter().partition(|o| o["kind"] == "Rollout");
        (others, rollout.pop().expect("examples/istio has a Rollout"))
    })
}

/// A builder of the case's cluster, without the Rollout.
pub fn builder(case: &Case) -> Builder {
    let mut builder =
        install(Cluster::builder()).expect("installing works").namespace("kruise-rollout").seed(case.seed);
    for (plural, kind) in
        [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule"), ("gateways", "Gateway")]
    {
        builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
    }
    for object in &example().0 {
        builder = builder.object(shaped(object.clone(), case));
    }
    builder
        .object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": THIRD}}))
        .object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other-service"},
            "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}}))
        .object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "other"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "other"}}, "template": {
                "metadata": {"labels": {"app": "other"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}))
}

fn shaped(mut object: Value, case: &Case) -> Value {
    match object["kind"].as_str() {
        Some("VirtualService") => {
            object["metadata"]["labels"] = json!({"team": "web"});
            let rules = object["spec"]["http"].as_array_mut().expect("http rules");
            if case.scenario.generated_service {
                for rule in rules.iter_mut() {
                    rule["route"][0]["destination"].as_object_mut().expect("a destination").remove("subset");
                }
            }
            rules.insert(
                0,
                json!({"match": [{"uri": {"prefix": "/other"}}], "timeout": "5s", "route": [
                    {"destination": {"host": "other-service"}, "weight": 30},
                    {"destination": {"host": "third-service"}, "weight": 70}]}),
            );
        }
        Some("DestinationRule") => object["metadata"]["annotations"] = json!({"note": "kept"}),
        _ => {}
    }
    object
}

/// The case's Rollout.
pub fn rollout(case: &Case) -> Value {
    let mut rollout = example().1.clone();
    if case.scenario.generated_service {
        let routing = &mut rollout["spec"]["strategy"]["canary"]["trafficRoutings"][0];
        routing["createCanaryService"] = json!(true);
        routing["networkRefs"].as_array_mut().expect("networkRefs").truncate(1);
    }
    rollout
}

/// A resource by its API version and plural.
pub fn gvr(api_version: &str, plural: &str) -> Gvr {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Gvr::new(group, version, plural)
}

/// What judges and people look at.
#[derive(Clone)]
pub struct Eyes {
    view: View,
}

impl Eyes {
    pub fn new(cluster: &Cluster) -> Self {
        Eyes { view: cluster.view() }
    }

    fn get(&self, api_version: &str, plural: &str, name: &str) -> Option<Arc<Value>> {
        self.view.get(&gvr(api_version, plural), NAMESPACE, name)
    }

    pub fn rollout(&self) -> Option<Arc<Value>> {
        self.get("rollouts.kruise.io/v1beta1", "rollouts", ROLLOUT)
    }

    pub fn deployment(&self, name: &str) -> Option<Arc<Value>> {
        self.get("apps/v1", "deployments", name)
    }

    pub fn replica_set(&self, name: &str) -> Option<Arc<Value>> {
        self.get("apps/v1", "replicasets", name)
    }

    pub fn service(&self, name: &str) -> Option<Arc<Value>> {
        self.get("v1", "services", name)
    }

    pub fn route(&self) -> Option<Arc<Value>> {
        self.get("networking.istio.io/v1", "virtualservices", ROUTE)
    }

    pub fn rule(&self) -> Option<Arc<Value>> {
        self.get("networking.istio.io/v1", "destinationrules", RULE)
    }

    fn list(&self, api_version: &str, plural: &str) -> Vec<Arc<Value>> {
        self.view.list(&gvr(api_version, plural), Some(NAMESPACE))
    }

    pub fn slices(&self) -> Vec<Arc<Value>> {
        self.list("discovery.k8s.io/v1", "endpointslices")
    }

    /// Pods of the story, those that are going included.
    pub fn pods(&self) -> Vec<Arc<Value>> {
        let mut pods = self.list("v1", "pods");
        pods.retain(|p| p["metadata"]["labels"]["app"] == "nginx");
        pods
    }
}

/// Whether a pod is ready and not going.
pub fn is_ready(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_none()
        && pod["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// The version of a pod template (or of a pod): the ConfigMap that it mounts.
pub fn version(pod_spec: &Value) -> &str {
    pod_spec["volumes"][0]["configMap"]["name"].as_str().unwrap_or_default()
}
