//! Requests, as a data plane would route them: gateway object → Service → EndpointSlice → pod.
//!
//! [`route`] gives every pod that a request may reach with its expected share, and every way in which it may fail.
//! A gateway kind is one row in [`GATEWAYS`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::json::{self, flag, items, text};
use super::registry::Gvr;
use super::rng::Rng;
use super::{View, json::object_of};

mod gateway_api;
mod ingress;
mod istio;

/// A request from outside.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `Host` or `:authority`; empty matches every route.
    pub host: String,
    /// Path, with a leading slash.
    pub path: String,
    /// Method; empty is GET.
    pub method: String,
    /// Headers; names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Query parameters.
    pub query: BTreeMap<String, String>,
    /// Port on the gateway or the Service; 0 matches every port.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
}

/// What a request speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP or gRPC.
    #[default]
    Http,
    /// TLS that is passed through; the SNI is [`Request::host`].
    Tls,
    /// Plain TCP.
    Tcp,
}

impl Request {
    /// `GET /` without headers.
    pub fn get() -> Self {
        Self { path: "/".into(), method: "GET".into(), ..Self::default() }
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_lowercase(), value.to_owned());
        self
    }

    /// With a path.
    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// With a host.
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }
}

/// Where a route sends a request, before pods are looked up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Destination {
    pub namespace: String,
    pub service: String,
    /// Name of the subset, for messages, and the labels that its pods carry.
    pub subset: Option<(String, BTreeMap<String, String>)>,
    /// Weight beside the route's other destinations.
    pub weight: f64,
}

/// Why a request got no answer from a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The gateway object is not there, or of a kind that is not known.
    NoGateway(String),
    /// No route of the gateway object matches.
    NoRoute,
    /// The route's weights sum to 0.
    NoWeight,
    /// The Service is not there.
    NoService(String),
    /// No DestinationRule knows the subset: service and subset.
    NoSubset(String, String),
    /// No pod is ready: service and subset.
    NoEndpoints(String, String),
    /// An endpoint is called ready, but its pod is gone or does not serve.
    DeadPod(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoGateway(what) => write!(f, "no gateway object: {what}"),
            Failure::NoRoute => f.write_str("no route matches the request"),
            Failure::NoWeight => f.write_str("the weights of the route sum to 0"),
            Failure::NoService(name) => write!(f, "Service {name} is not there"),
            Failure::NoSubset(service, subset) => write!(f, "no DestinationRule of {service} has a subset {subset}"),
            Failure::NoEndpoints(service, subset) if subset.is_empty() => {
                write!(f, "Service {service} has no ready endpoint")
            }
            Failure::NoEndpoints(service, subset) => {
                write!(f, "subset {subset} of Service {service} has no ready endpoint")
            }
            Failure::DeadPod(name) => write!(f, "pod {name} is called ready, but does not serve"),
        }
    }
}

/// A pod that a request may reach.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Probability, 0 to 1.
    pub share: f64,
    /// Name of the Service on the way.
    pub service: String,
    /// Name of the subset on the way; empty if there is none.
    pub subset: String,
    /// The pod.
    pub pod: Arc<Value>,
}

/// All that may become of a request. The shares of hits and failures sum to 1; a redirect is neither and sums to 0.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Pods reached.
    pub hits: Vec<Hit>,
    /// Failures with their probability, 0 to 1.
    pub failures: Vec<(f64, Failure)>,
    /// The gateway answers by itself: a redirect or a direct response.
    pub answered: bool,
}

impl Outcome {
    fn failed_by(failure: Failure) -> Self {
        Self { failures: vec![(1.0, failure)], ..Self::default() }
    }

    /// Probability that the request fails, 0 to 1.
    pub fn failed(&self) -> f64 {
        self.failures.iter().map(|(share, _)| share).sum()
    }

    /// Probability that it reaches a pod of which `is` is true, 0 to 1.
    pub fn share(&self, is: impl Fn(&Value) -> bool) -> f64 {
        self.hits.iter().filter(|h| is(&h.pod)).map(|h| h.share).sum()
    }

    /// Probability by the value of a pod label; pods without it under the empty string.
    pub fn by_label(&self, label: &str) -> BTreeMap<String, f64> {
        let mut shares = BTreeMap::new();
        for hit in &self.hits {
            let value = object_of(&hit.pod, "/metadata/labels").and_then(|l| l.get(label)).and_then(Value::as_str);
            *shares.entry(value.unwrap_or_default().to_owned()).or_insert(0.0) += hit.share;
        }
        shares
    }

    /// One request: the pod that it reaches. `None` if the gateway answers by itself.
    ///
    /// # Errors
    /// Why it failed.
    pub fn sample(&self, rng: &mut Rng) -> Result<Option<&Hit>, &Failure> {
        let mut left = rng.below(1 << 53) as f64 / (1u64 << 53) as f64;
        for hit in &self.hits {
            if left < hit.share {
                return Ok(Some(hit));
            }
            left -= hit.share;
        }
        match self.failures.last() {
            Some((_, failure)) => {
                for (share, failure) in &self.failures {
                    if left < *share {
                        return Err(failure);
                    }
                    left -= share;
                }
                Err(failure)
            }
            // What is left is rounding.
            None => Ok(self.hits.last()),
        }
    }
}

/// What a gateway object does with a request.
pub(crate) enum Routed {
    /// It goes to one of these, by weight.
    To(Vec<Destination>),
    /// The gateway answers.
    Answered,
    Failed(Failure),
}

/// One kind of gateway object.
struct Gateway {
    group: &'static str,
    resource: &'static str,
    route: fn(&View, &Value, &Request) -> Routed,
}

const GATEWAYS: &[Gateway] = &[
    Gateway { group: "networking.istio.io", resource: "virtualservices", route: istio::route },
    Gateway { group: "gateway.networking.k8s.io", resource: "httproutes", route: gateway_api::http },
    Gateway { group: "gateway.networking.k8s.io", resource: "grpcroutes", route: gateway_api::grpc },
    Gateway { group: "gateway.networking.k8s.io", resource: "tlsroutes", route: gateway_api::stream },
    Gateway { group: "gateway.networking.k8s.io", resource: "tcproutes", route: gateway_api::stream },
    Gateway { group: "gateway.networking.k8s.io", resource: "udproutes", route: gateway_api::stream },
    Gateway { group: "networking.k8s.io", resource: "ingresses", route: ingress::route },
    Gateway { group: "", resource: "services", route: service },
];

/// A Service without a gateway: kube-proxy.
fn service(_: &View, object: &Value, _: &Request) -> Routed {
    Routed::To(vec![Destination {
        namespace: json::namespace(object).to_owned(),
        service: json::name(object).to_owned(),
        subset: None,
        weight: 1.0,
    }])
}

/// Routes a request through a gateway object as the cluster is now.
pub fn route(view: &View, gateway: &Gvr, namespace: &str, name: &str, request: &Request) -> Outcome {
    let known = GATEWAYS.iter().find(|g| g.group == gateway.group && g.resource == gateway.resource);
    let what = || format!("{}/{} {namespace}/{name}", gateway.group, gateway.resource);
    let (Some(known), Some(object)) = (known, view.get(gateway, namespace, name)) else {
        return Outcome::failed_by(Failure::NoGateway(what()));
    };
    let destinations = match (known.route)(view, &object, request) {
        Routed::To(list) => list,
        Routed::Answered => return Outcome { answered: true, ..Outcome::default() },
        Routed::Failed(failure) => return Outcome::failed_by(failure),
    };
    let total: f64 = destinations.iter().map(|d| d.weight).sum();
    if total <= 0.0 {
        return Outcome::failed_by(Failure::NoWeight);
    }
    let mut outcome = Outcome::default();
    for destination in destinations.iter().filter(|d| d.weight > 0.0) {
        reach(view, destination, destination.weight / total, &mut outcome);
    }
    outcome
}

/// Spreads a share evenly over the ready endpoints of a destination.
fn reach(view: &View, to: &Destination, share: f64, outcome: &mut Outcome) {
    let services = Gvr::new("", "v1", "services");
    if view.get(&services, &to.namespace, &to.service).is_none() {
        outcome.failures.push((share, Failure::NoService(to.service.clone())));
        return;
    }
    let (pods, slices) = (Gvr::new("", "v1", "pods"), Gvr::new("discovery.k8s.io", "v1", "endpointslices"));
    let mut reached: Vec<Result<Arc<Value>, String>> = Vec::new();
    for slice in view.list(&slices, Some(&to.namespace)) {
        if text(&slice, "/metadata/labels/kubernetes.io~1service-name") != to.service {
            continue;
        }
        for endpoint in items(&slice, "/endpoints").iter().filter(|e| flag(e, "/conditions/ready")) {
            let name = text(endpoint, "/targetRef/name");
            let pod = view.get(&pods, &to.namespace, name).filter(|p| json::uid(p) == text(endpoint, "/targetRef/uid"));
            // A data plane takes the labels from the pod; those of a pod that is gone are not known any more.
            let chosen = match (&pod, &to.subset) {
                (Some(pod), Some((_, labels))) => {
                    let have = object_of(pod, "/metadata/labels");
                    labels.iter().all(|(k, v)| have.and_then(|h| h.get(k)).and_then(Value::as_str) == Some(v))
                }
                _ => true,
            };
            if chosen {
                reached.push(pod.filter(|p| serves(p)).ok_or_else(|| name.to_owned()));
            }
        }
    }
    let subset = to.subset.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
    if reached.is_empty() {
        outcome.failures.push((share, Failure::NoEndpoints(to.service.clone(), subset)));
        return;
    }
    let each = share / reached.len() as f64;
    for pod in reached {
        match pod {
            Ok(pod) => outcome.hits.push(Hit { share: each, service: to.service.clone(), subset: subset.clone(), pod }),
            Err(name) => outcome.failures.push((each, Failure::DeadPod(name))),
        }
    }
}

/// True while a pod answers requests: also while it terminates, until it is stopped.
fn serves(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running"
        && json::condition(pod, "Ready").is_some_and(|c| text(c, "/status") == "True")
}
