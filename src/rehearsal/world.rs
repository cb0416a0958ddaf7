//! What is on stage: the workload, its Service and gateway, the Rollout, and neighbours that nobody may touch.

mod eyes;
mod rollouts;

use serde_json::{Value, json};

use self::rollouts::int_or_text;
pub use self::{
    eyes::{Eyes, is_canary, is_ready},
    rollouts::{release, revision, rollout, steps, strategy},
};
use super::script::{Gateway, Managed, Script, Setup};
use crate::{
    api::{keys, object},
    cli::demo::world::install,
    sim::{Builder, Cluster, Delays, NEVER_READY},
};

/// Where everything is.
pub const NAMESPACE: &str = "default";
/// Name of the workload, and of the Rollout and of the objects that route.
pub const WORKLOAD: &str = "web";
/// Name of the canary Deployment.
pub const CANARY: &str = "web-canary";
/// Name of the Service.
pub const SERVICE: &str = "web";
/// Name of the generated canary Service.
pub const CANARY_SERVICE: &str = "web-canary";
/// Name of the generated canary Ingress.
pub const CANARY_INGRESS: &str = "web-canary";
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
    let (api_version, kind, _) = setup.workload.resource();
    let bounds = json!({"maxSurge": int_or_text(&setup.surge), "maxUnavailable": int_or_text(&setup.unavailable)});
    let numbered = json!({"replicas": replicas, "serviceName": SERVICE});
    let own = match setup.workload {
        Managed::Deployment => {
            json!({"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": bounds}})
        }
        Managed::CloneSet => {
            let mut rolling = bounds;
            json_patch::merge(&mut rolling, &json!({"podUpdatePolicy": "ReCreate"}));
            json!({"replicas": replicas, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}})
        }
        Managed::StatefulSet | Managed::AdvancedStatefulSet | Managed::StatefulSetLike => numbered,
        Managed::DaemonSet | Managed::AdvancedDaemonSet => {
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}})
        }
    };
    let mut spec = json!({"selector": {"matchLabels": {"app": WORKLOAD}}, "template": version.template()});
    json_patch::merge(&mut spec, &own);
    let mut labels = json!({"app": WORKLOAD});
    if setup.workload == Managed::StatefulSetLike {
        json_patch::merge(&mut labels, &json!({keys::WORKLOAD_TYPE: "statefulset"}));
    }
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": WORKLOAD, "labels": labels, "annotations": {"team": "web"}}, "spec": spec})
}

/// The Service of the workload.
pub fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "labels": {"team": "web"}},
        "spec": {"selector": {"app": WORKLOAD}, "ports": [{"name": "http", "port": 80, "targetPort": 80}]}})
}

/// The object that routes, if the setup has one.
pub fn route(setup: &Setup) -> Option<Value> {
    let (api_version, kind, _) = setup.gateway.resource()?;
    let spec = match setup.gateway {
        Gateway::None => return None,
        Gateway::IstioSubset | Gateway::IstioService => {
            let mut destination = json!({"host": SERVICE});
            if setup.gateway == Gateway::IstioSubset {
                json_patch::merge(&mut destination, &json!({"subset": "base"}));
            }
            json!({"hosts": ["*"], "gateways": ["gate"], "http": [
                {"match": [{"uri": {"prefix": "/other"}}], "timeout": "5s", "route": [
                    {"destination": {"host": NEIGHBOUR}, "weight": 30},
                    {"destination": {"host": "third"}, "weight": 70}]},
                {"route": [{"destination": destination}]}]})
        }
        Gateway::HttpRoute => json!({"parentRefs": [{"name": "gate"}], "rules": [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/other"}}], "backendRefs": [
                {"name": NEIGHBOUR, "port": 80, "weight": 30}, {"name": "third", "port": 80, "weight": 70}]},
            {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "timeouts": {"request": "10s"},
                "backendRefs": [{"name": SERVICE, "port": 80}]}]}),
        Gateway::Ingress => {
            let path = |path: &str, service: &str| {
                json!({"path": path, "pathType": "Prefix",
                    "backend": {"service": {"name": service, "port": {"number": 80}}}})
            };
            json!({"ingressClassName": "nginx", "rules": [
                {"http": {"paths": [path("/other", NEIGHBOUR), path("/", SERVICE)]}}]})
        }
    };
    Some(json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": WORKLOAD, "labels": {"team": "web"}}, "spec": spec}))
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

/// A kind that Kubernetes does not bring, without a schema.
fn definition(workload: Managed) -> Option<Value> {
    let (api_version, kind, plural) = workload.resource();
    let (group, version) = api_version.split_once('/')?;
    let mut subresources = json!({"status": {}});
    if !workload.is_on_nodes() {
        let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector"});
        json_patch::merge(&mut subresources, &json!({"scale": scale}));
    }
    (group != "apps").then(|| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                    "listKind": format!("{kind}List")},
                "versions": [{"name": version, "served": true, "storage": true, "subresources": subresources,
                    "schema": {"openAPIV3Schema": {
                        "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
    })
}

/// What every cluster of a setup has, whatever the script.
fn stage(setup: &Setup) -> anyhow::Result<Builder> {
    let mut builder = install(Cluster::builder())?.namespace("kruise-rollout").tracks_from_first_apply();
    match setup.gateway {
        Gateway::IstioSubset | Gateway::IstioService => {
            for (plural, kind) in [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule")] {
                builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
            }
        }
        Gateway::HttpRoute => {
            builder = builder.kind("gateway.networking.k8s.io", &["v1", "v1beta1"], "httproutes", "HTTPRoute", true);
        }
        Gateway::None | Gateway::Ingress => {}
    }
    if let Some(definition) = definition(setup.workload) {
        builder = builder.definition(definition);
    }
    if setup.workload.is_on_nodes() {
        builder = builder.nodes(u32::try_from(setup.replicas)?);
    }
    Ok(builder.object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NEIGHBOUR},
        "spec": {"selector": {"app": NEIGHBOUR}, "ports": [{"port": 80}]}})))
}

/// The cluster of a script, without the Rollout.
pub fn cluster(script: &Script) -> anyhow::Result<Cluster> {
    let setup = &script.setup;
    let mut builder = stage(setup)?.seed(script.seed);
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

impl Gateway {
    /// API version, kind and plural of the object that routes.
    pub fn resource(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Gateway::None => None,
            Gateway::IstioSubset | Gateway::IstioService => {
                Some(("networking.istio.io/v1", "VirtualService", "virtualservices"))
            }
            Gateway::HttpRoute => Some(("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")),
            Gateway::Ingress => Some(("networking.k8s.io/v1", "Ingress", "ingresses")),
        }
    }
}
