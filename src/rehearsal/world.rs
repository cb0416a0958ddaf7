//! What is on stage: the workload, its Service and gateway, the Rollout, and neighbours that nobody may touch.

use std::sync::Arc;

use serde_json::{Value, json};

use super::script::{Gateway, Route, Script, Setup, Step, Style};
use crate::{
    api::{
        keys,
        object::{self, at, text},
    },
    cli::demo::world::install,
    sim::{Builder, Cluster, Delays, Gvr, NEVER_READY, View},
};

/// Where everything is.
pub const NAMESPACE: &str = "default";
/// Name of the workload, and of the Rollout, the VirtualService and the DestinationRule.
pub const WORKLOAD: &str = "web";
/// Name of the canary Deployment.
pub const CANARY: &str = "web-canary";
/// Name of the Service.
pub const SERVICE: &str = "web";
/// Name of the generated canary Service.
pub const CANARY_SERVICE: &str = "web-canary";
/// A Service that other rules route to.
pub const NEIGHBOUR: &str = "other";

/// Marks a template that was touched without another version.
const TOUCHED: &str = "example.com/touched";
/// A template whose pods crash-loop.
pub const CRASHES: &str = "tidegate.test/crash-loop";

/// What the pods of a version are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Number of the image.
    pub number: i64,
    /// Number of the annotation; 0 is none.
    pub touched: i64,
}

impl Version {
    /// The one that runs at the start.
    pub const FIRST: Version = Version { number: 1, touched: 0 };

    /// The version of a name.
    pub fn of(name: &str) -> Option<Version> {
        let (number, touched) = name.strip_prefix('v')?.split_once('+').unwrap_or((name.strip_prefix('v')?, "0"));
        Some(Version { number: number.parse().ok()?, touched: touched.parse().ok()? })
    }

    /// Whether its pods become ready.
    pub fn runs(&self) -> bool {
        self.number < 5
    }

    fn name(&self) -> String {
        if self.touched == 0 { format!("v{}", self.number) } else { format!("v{}+{}", self.number, self.touched) }
    }

    /// The pod template.
    pub fn template(&self) -> Value {
        let mut annotations = serde_json::Map::new();
        if self.touched > 0 {
            annotations.insert(TOUCHED.to_owned(), json!(self.touched.to_string()));
        }
        match self.number {
            5 | 6 => {
                annotations.insert(NEVER_READY.to_owned(), json!("true"));
            }
            7.. => {
                annotations.insert(CRASHES.to_owned(), json!("true"));
                annotations.insert(NEVER_READY.to_owned(), json!("true"));
            }
            _ => {}
        }
        let mut metadata = json!({"labels": {"app": WORKLOAD, "version": "base"}});
        if !annotations.is_empty()
            && let Some(map) = metadata.as_object_mut()
        {
            map.insert("annotations".to_owned(), annotations.into());
        }
        json!({"metadata": metadata, "spec": {"containers": [{"name": "main", "image": format!("app:v{}", self.number)}]}})
    }
}

/// The version of a pod or a pod template, as [`Version`] names it.
pub fn version(pod: &Value) -> String {
    let image = pod.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default();
    let image = image.strip_prefix("app:").unwrap_or(image);
    match object::annotation(pod, TOUCHED) {
        Some(touched) => format!("{image}+{touched}"),
        None => image.to_owned(),
    }
}

/// The name of a version, as [`version`] reads it.
pub fn name_of(version: &Version) -> String {
    version.name()
}

/// The workload of a setup with a version.
pub fn workload(setup: &Setup, version: &Version, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": WORKLOAD, "labels": {"app": WORKLOAD}, "annotations": {"team": "web"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": WORKLOAD}}, "template": version.template(),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {
                "maxSurge": int_or_text(&setup.surge), "maxUnavailable": int_or_text(&setup.unavailable)}}}})
}

/// The Service of the workload.
pub fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "labels": {"team": "web"}},
        "spec": {"selector": {"app": WORKLOAD}, "ports": [{"name": "http", "port": 80, "targetPort": 80}]}})
}

/// The object that routes, if the setup has one.
pub fn route(setup: &Setup) -> Option<Value> {
    let destination = match setup.gateway {
        Gateway::None => return None,
        Gateway::IstioSubset => json!({"host": SERVICE, "subset": "base"}),
        Gateway::IstioService => json!({"host": SERVICE}),
    };
    Some(json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": WORKLOAD, "labels": {"team": "web"}},
        "spec": {"hosts": ["*"], "gateways": ["gate"], "http": [
            {"match": [{"uri": {"prefix": "/other"}}], "timeout": "5s", "route": [
                {"destination": {"host": NEIGHBOUR}, "weight": 30},
                {"destination": {"host": "third"}, "weight": 70}]},
            {"route": [{"destination": destination}]}]}}))
}

/// The subsets, if the setup has any.
pub fn rule(setup: &Setup) -> Option<Value> {
    (setup.gateway == Gateway::IstioSubset).then(|| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": WORKLOAD, "annotations": {"note": "kept"}},
            "spec": {"host": SERVICE, "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}},
                "subsets": [{"name": "base", "labels": {"version": "base"}}]}})
    })
}

fn int_or_text(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n))
}

fn step(step: &Step, is_old_api: bool) -> Value {
    let mut object = serde_json::Map::new();
    if !step.replicas.is_empty() {
        object.insert("replicas".to_owned(), int_or_text(&step.replicas));
    }
    let header = |kind: &str, value: &str| json!([{"headers": [{"type": kind, "name": "version", "value": value}]}]);
    match step.route {
        Route::None => {}
        Route::Weight(weight) if is_old_api => {
            object.insert("weight".to_owned(), json!(weight));
        }
        Route::Weight(weight) => {
            object.insert("traffic".to_owned(), json!(format!("{weight}%")));
        }
        Route::Exact => {
            object.insert("matches".to_owned(), header("Exact", "canary"));
        }
        Route::Regex => {
            object.insert("matches".to_owned(), header("RegularExpression", "^canary.*$"));
        }
    }
    if let Some(seconds) = step.pause {
        object.insert("pause".to_owned(), json!({"duration": seconds}));
    }
    object.into()
}

/// The plan as the Rollout spells it.
pub fn steps(steps: &[Step], is_old_api: bool) -> Value {
    steps.iter().map(|s| step(s, is_old_api)).collect()
}

/// The Rollout of a setup with a plan.
pub fn rollout(setup: &Setup, plan: &[Step]) -> Value {
    let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": WORKLOAD});
    let mut canary = json!({"steps": steps(plan, setup.is_old_api)});
    let mut merge = |patch: Value| json_patch::merge(&mut canary, &patch);
    if let Some(threshold) = &setup.threshold {
        merge(json!({"failureThreshold": int_or_text(threshold)}));
    }
    let network = |kind: &str| json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "name": WORKLOAD});
    let (networks, makes_service) = match setup.gateway {
        Gateway::None => (Vec::new(), true),
        Gateway::IstioSubset => (vec![network("VirtualService"), network("DestinationRule")], false),
        Gateway::IstioService => (vec![network("VirtualService")], true),
    };
    if !networks.is_empty() {
        let mut routing = json!({"service": SERVICE});
        if let Some(grace) = setup.grace {
            json_patch::merge(&mut routing, &json!({"gracePeriodSeconds": grace}));
        }
        let refs = if setup.is_old_api { "networkRefs" } else { "customNetworkRefs" };
        json_patch::merge(&mut routing, &json!({refs: networks}));
        if setup.is_old_api {
            json_patch::merge(&mut routing, &json!({"createCanaryService": makes_service}));
        } else {
            merge(json!({"disableGenerateCanaryService": !makes_service}));
        }
        merge(json!({"trafficRoutings": [routing]}));
    }
    if setup.gateway == Gateway::IstioSubset {
        merge(json!({"patchPodTemplateMetadata": {"labels": {"version": "canary"}}}));
    }
    let (version, reference) = if setup.is_old_api {
        ("v1alpha1", json!({"objectRef": {"workloadRef": workload}}))
    } else {
        ("v1beta1", json!({"workloadRef": workload}))
    };
    let mut annotations = json!({});
    match (setup.style, setup.is_old_api) {
        (Style::Canary, true) => annotations = json!({keys::ROLLING_STYLE: "canary"}),
        (Style::Canary, false) => merge(json!({"enableExtraWorkloadForCanary": true})),
    }
    let mut spec = json!({"strategy": {"canary": canary}});
    json_patch::merge(&mut spec, &reference);
    json!({"apiVersion": format!("rollouts.kruise.io/{version}"), "kind": "Rollout",
        "metadata": {"name": WORKLOAD, "annotations": annotations}, "spec": spec})
}

/// What every cluster has, whatever the script.
fn stage() -> anyhow::Result<Builder> {
    let mut builder = install(Cluster::builder())?.namespace("kruise-rollout");
    for (plural, kind) in [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule")] {
        builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
    }
    Ok(builder.object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NEIGHBOUR},
        "spec": {"selector": {"app": NEIGHBOUR}, "ports": [{"port": 80}]}})))
}

/// The cluster of a script, without the Rollout.
pub fn cluster(script: &Script) -> anyhow::Result<Cluster> {
    let setup = &script.setup;
    let mut builder = stage()?.seed(script.seed);
    if setup.is_slow {
        let (low, high) = (std::time::Duration::from_secs(10), std::time::Duration::from_secs(40));
        builder = builder.delays(Delays { pod_ready: low..=high, ..Delays::default() });
    }
    let objects = [Some(workload(setup, &Version::FIRST, setup.replicas)), Some(service()), route(setup), rule(setup)];
    for object in objects.into_iter().flatten() {
        builder = builder.object(object);
    }
    builder.build().map_err(|status| anyhow::anyhow!("the cluster refuses what it is made of: {}", status.message))
}

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
    deployments: Gvr,
    replica_sets: Gvr,
    services: Gvr,
    pods: Gvr,
    /// VirtualServices.
    pub routes: Gvr,
    rules: Gvr,
}

impl Eyes {
    /// Of a cluster.
    pub fn new(cluster: &Cluster) -> Eyes {
        Eyes {
            view: cluster.view(),
            rollouts: gvr("rollouts.kruise.io/v1beta1", "rollouts"),
            deployments: gvr("apps/v1", "deployments"),
            replica_sets: gvr("apps/v1", "replicasets"),
            services: gvr("v1", "services"),
            pods: gvr("v1", "pods"),
            routes: gvr("networking.istio.io/v1", "virtualservices"),
            rules: gvr("networking.istio.io/v1", "destinationrules"),
        }
    }

    pub fn rollout(&self) -> Option<Arc<Value>> {
        self.view.get(&self.rollouts, NAMESPACE, WORKLOAD)
    }

    pub fn deployment(&self, name: &str) -> Option<Arc<Value>> {
        self.view.get(&self.deployments, NAMESPACE, name)
    }

    pub fn replica_sets(&self) -> Vec<Arc<Value>> {
        self.view.list(&self.replica_sets, Some(NAMESPACE))
    }

    pub fn service(&self, name: &str) -> Option<Arc<Value>> {
        self.view.get(&self.services, NAMESPACE, name)
    }

    pub fn route(&self) -> Option<Arc<Value>> {
        self.view.get(&self.routes, NAMESPACE, WORKLOAD)
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
