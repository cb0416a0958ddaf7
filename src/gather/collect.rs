//! From objects to a snapshot. Nothing is fetched here, so that a folder of files can stand in for the cluster.

mod config;
mod hold;
mod named;
mod others;
mod routes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value;

pub(super) use self::routes::routes;
use self::{
    config::{receivers, windows_for_all},
    hold::hold,
    named::{jobs, templates},
    others::{is_routed_by_others, line_of, others, rivals},
};
pub use self::{
    hold::hold_of_all,
    named::{named_cron_jobs, named_templates},
};
use super::pods;
use crate::{
    analysis::Sample,
    api::{
        keys,
        object::{self, ObjectRef},
        v1beta1::{Rollout, ServingScript},
    },
    lua::{Engine, NotFound, Script},
    rollout::{
        Hold, Snapshot, UnknownKind,
        calls::Reply,
        history::History,
        is_releasing,
        release::{self, Scope},
        windows::ForAll,
    },
    traffic::{
        ingress::{self, Ingress},
        memory::Memory,
        routes::{Missing, Network},
    },
    workload::{self, Style, canary::canary_name},
};

/// Objects by name.
pub trait Objects {
    /// One object.
    fn get(&self, target: &ObjectRef) -> Result<Arc<Value>, Lookup>;
    /// All objects of a kind in all namespaces; `None` while the kind is being read for the first time.
    fn list_all(&self, api_version: &str, kind: &str) -> Option<Vec<Arc<Value>>>;
    /// All objects of a kind in a namespace; `None` while the kind is being read for the first time, because a part of
    /// them would be taken for all.
    fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Option<Vec<Arc<Value>>>;
    /// Those of them that have this [`tie`], in the order of names.
    fn tied(&self, api_version: &str, kind: &str, namespace: &str, wanted: &str) -> Option<Vec<Arc<Value>>> {
        let mut objects = self.list(api_version, kind, namespace)?;
        objects.retain(|object| tie(object) == Some(wanted));
        Some(objects)
    }
    /// Pods that a label selector selects in the namespace of a Rollout; `None` while they are being read for the first
    /// time. They are followed for this Rollout from now on.
    fn pods(&self, rollout: &(String, String), selector: &str) -> Option<Vec<Arc<Value>>>;
    /// The last answer to each question that the last plan for a Rollout asked, by its id.
    fn samples(&self, _rollout: &(String, String)) -> BTreeMap<String, Sample> {
        BTreeMap::new()
    }
    /// What came of each request that the last plan for a Rollout wanted sent, by its id.
    fn replies(&self, _rollout: &(String, String)) -> BTreeMap<String, Reply> {
        BTreeMap::new()
    }
}

/// What an object is looked up by beside its name: the uid of the owner that controls it, the Service of an
/// EndpointSlice, the name of a Rollout's workload in either spelling.
pub fn tie(object: &Value) -> Option<&str> {
    let named = |path: &[&str]| Some(object::text(object, path)).filter(|name| !name.is_empty());
    match object::text(object, &["kind"]) {
        "ReplicaSet" | "ControllerRevision" | "RolloutHistory" | "Job" => object::controller_uid(object),
        "EndpointSlice" => object::label(object, keys::SERVICE_NAME),
        "Rollout" => {
            named(&["spec", "workloadRef", "name"]).or_else(|| named(&["spec", "objectRef", "workloadRef", "name"]))
        }
        _ => None,
    }
}

/// Why an object is not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is known to be missing.
    Missing(Missing),
    /// Its kind is still being read for the first time.
    Pending,
}

/// What the process knows beside the objects.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the ConfigMap with scripts.
    pub script_namespace: String,
    /// The ConfigMap's scripts replace built-in ones.
    pub config_map_wins: bool,
    /// A ConfigMap of the same name in a Rollout's namespace brings scripts for what has none.
    pub namespace_scripts: bool,
    /// How many releases of a Rollout are recorded; `None`: none, and none is read.
    pub history_limit: Option<usize>,
    /// How many releases may be in flight in the cluster; `None`: any number.
    pub max_in_flight: Option<usize>,
    /// The webhook says who approves and jumps. Otherwise whatever stands there, anybody may have written.
    pub names_people: bool,
}

/// API version and kind of the objects that are always needed.
pub const BASE_KINDS: [(&str, &str); 9] = [
    ("rollouts.kruise.io/v1beta1", "Rollout"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("v1", "Service"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("v1", "ConfigMap"),
    TRAFFIC_ROUTING,
    POLICY,
    BINDING,
];

/// API version and kind of the records of releases.
pub const HISTORY: (&str, &str) = ("rollouts.kruise.io/v1alpha1", "RolloutHistory");

/// API version and kind of what Rollouts may share.
pub const TRAFFIC_ROUTING: (&str, &str) = ("rollouts.kruise.io/v1alpha1", "TrafficRouting");

/// API version and kind of what pods run on.
pub const NODE: (&str, &str) = ("v1", "Node");

/// API version and kind of kept queries.
pub const METRIC_TEMPLATE: (&str, &str) = ("rollouts.kruise.io/v1beta1", "MetricTemplate");

/// API version and kind of the policies that hold.
pub const POLICY: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy");
/// Where the webhooks that hold on older servers are configured.
pub const WEBHOOKS: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
/// API version and kind of what puts these policies in force.
pub const BINDING: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding");

type ByName = BTreeMap<String, Arc<Value>>;

/// Everything that a decision about a Rollout may read; `None` while a kind is being read for the first time.
pub fn collect(
    objects: &impl Objects,
    mut rollout: Rollout,
    now: Timestamp,
    engine: &Engine,
    settings: &Settings,
) -> Option<Snapshot> {
    if !settings.names_people {
        if let Some(status) = &mut rollout.status {
            status.canary_status.iter_mut().for_each(|sub| sub.said_by = None);
            status.blue_green_status.iter_mut().for_each(|sub| sub.said_by = None);
        }
        if let Some(annotations) = &mut rollout.metadata.annotations {
            annotations.remove(keys::OVERRIDE_WINDOWS_BY);
        }
    }
    let namespace = rollout.metadata.namespace.clone().unwrap_or_default();
    let mut snapshot = Snapshot {
        now,
        rivals: Vec::new(),
        unknown: Vec::new(),
        workload: None,
        former_workload: None,
        former_revisions: Vec::new(),
        canary: None,
        revisions: Vec::new(),
        pods: Vec::new(),
        nodes: Vec::new(),
        stable_service: None,
        canary_service: None,
        endpoint_slices: Vec::new(),
        networks: Vec::new(),
        ingress: None,
        is_left_routed: false,
        traffic_routing: None,
        history: None,
        cron_jobs: BTreeMap::new(),
        jobs: Vec::new(),
        templates: BTreeMap::new(),
        samples: BTreeMap::new(),
        replies: BTreeMap::new(),
        receivers: Ok(Vec::new()),
        home: settings.script_namespace.clone(),
        line: None,
        windows: Ok(ForAll::default()),
        hold: Hold::InForce,
        engine: engine.clone(),
        rollout,
    };
    // A spec that names nothing needs nothing; the decision says what is wrong with it.
    let scope = release::scope(&snapshot.rollout).or_else(|_| release::bare_scope(&snapshot.rollout));
    let Ok(scope) = scope else { return Some(snapshot) };
    let rule = scope.kind.hold(&scope.workload.api_version);
    snapshot.hold = hold(objects, rule)?;
    snapshot.rivals = rivals(objects, &snapshot.rollout, &scope, &namespace)?;
    snapshot.unknown = unknown_kinds(objects, &scope, &namespace);

    snapshot.windows = windows_for_all(objects, settings)?;
    snapshot.receivers = receivers(objects, &snapshot.rollout, settings)?;
    if let Some(limit) = settings.max_in_flight {
        snapshot.line = Some(line_of(objects, &snapshot.rollout, limit)?);
    }

    let at = |api_version: &str, kind: &str, name: &str| {
        optional(objects.get(&ObjectRef::new(api_version, kind, &namespace, name)))
    };
    snapshot.workload = at(&scope.workload.api_version, &scope.workload.kind, &scope.workload.name)?;
    let former = snapshot.rollout.status.as_ref().and_then(|s| s.workload_ref.as_ref());
    if let Some(former) = former.filter(|f| **f != scope.workload && !is_releasing(&snapshot.rollout)) {
        let is_named = !others(objects, &snapshot.rollout, former, &namespace)?.is_empty();
        let object = at(&former.api_version, &former.kind, &former.name)?;
        snapshot.former_workload = object.filter(|_| !is_named);
        let kind = workload::kind(object::group(&former.api_version), &former.kind);
        if let Some((object, kind)) = snapshot.former_workload.as_ref().zip(kind) {
            let (api_version, kind) = kind.revisions;
            let uid = std::iter::once(object::uid(object));
            snapshot.former_revisions = all_tied(objects, api_version, kind, &namespace, uid)?;
        }
    }
    if scope.kind.styles.contains(&Style::Canary) {
        snapshot.canary = at("apps/v1", "Deployment", &canary_name(&scope.workload.name))?;
    }
    let owners: Vec<String> =
        [&snapshot.workload, &snapshot.canary].into_iter().flatten().map(|o| object::uid(o).to_owned()).collect();
    let (api_version, kind) = scope.kind.revisions;
    snapshot.revisions = all_tied(objects, api_version, kind, &namespace, owners.iter().map(String::as_str))?;

    if is_releasing(&snapshot.rollout)
        && let Some(selector) = snapshot.workload.as_ref().and_then(|w| pods::selector(w))
    {
        let key = (namespace.clone(), snapshot.rollout.metadata.name.clone().unwrap_or_default());
        let pods = objects.pods(&key, &selector);
        snapshot.pods = if scope.kind.counts_pods { pods? } else { pods.unwrap_or_default() };
        let revisions = snapshot.revisions.iter().map(|r| object::uid(r).to_owned());
        let owners: BTreeSet<String> = owners.into_iter().chain(revisions).collect();
        snapshot.pods.retain(|pod| object::controller_uid(pod).is_some_and(|uid| owners.contains(uid)));
        if scope.kind.reads_nodes {
            snapshot.nodes = nodes(objects, &snapshot.pods)?;
        }
    }

    if let Some(traffic) = &scope.traffic {
        let names = &traffic.names;
        snapshot.stable_service = at("v1", "Service", &names.stable_service)?;
        if traffic.has_canary_service() {
            snapshot.canary_service = at("v1", "Service", &names.canary_service)?;
        }
        let services = BTreeSet::from([names.stable_service.as_str(), names.canary_service.as_str()]);
        snapshot.endpoint_slices =
            all_tied(objects, "discovery.k8s.io/v1", "EndpointSlice", &namespace, services.into_iter())?;
        (snapshot.networks, snapshot.ingress) = routes(objects, traffic, &namespace, settings)?;
        if is_releasing(&snapshot.rollout) {
            let serving = snapshot.rollout.status.as_ref().map(|s| s.scripts.as_slice()).unwrap_or_default();
            know_working(&mut snapshot.networks, snapshot.ingress.as_mut(), serving, engine);
        }
        snapshot.is_left_routed = !is_releasing(&snapshot.rollout)
            && snapshot.networks.iter().any(Network::is_changed)
            && !is_routed_by_others(objects, &snapshot.rollout, traffic, &namespace)?;
    }
    if let Some(name) = &scope.shared {
        snapshot.traffic_routing = at(TRAFFIC_ROUTING.0, TRAFFIC_ROUTING.1, name)?;
    }
    if let Some(limit) = settings.history_limit.filter(|_| is_releasing(&snapshot.rollout)) {
        snapshot.history = Some(History { limit, records: records(objects, &snapshot.rollout, &namespace)? });
    }
    if is_releasing(&snapshot.rollout) {
        snapshot.templates = templates(objects, &snapshot.rollout, &namespace, settings)?;
    }
    if is_releasing(&snapshot.rollout) {
        (snapshot.cron_jobs, snapshot.jobs) = jobs(objects, &snapshot.rollout, &namespace)?;
    }
    let key = (namespace, snapshot.rollout.metadata.name.clone().unwrap_or_default());
    if is_releasing(&snapshot.rollout) {
        snapshot.samples = objects.samples(&key);
    }
    snapshot.replies = objects.replies(&key);
    Some(snapshot)
}

/// Objects of a namespace with any of these [`tie`]s, in the order of names.
fn all_tied<'a>(
    objects: &impl Objects,
    api_version: &str,
    kind: &str,
    namespace: &str,
    ties: impl Iterator<Item = &'a str>,
) -> Option<Vec<Arc<Value>>> {
    // Of nobody: whether the kind was read is said all the same.
    let ties: Vec<&str> = ties.chain(std::iter::once("")).collect();
    let found: Option<Vec<_>> = ties.iter().map(|tie| objects.tied(api_version, kind, namespace, tie)).collect();
    let mut found: Vec<Arc<Value>> = found?.into_iter().flatten().collect();
    found.sort_by(|a, b| object::name(a).cmp(object::name(b)));
    Some(found)
}

/// Kinds that hold the workload and what stands around it, and of which nothing can be known.
fn unknown_kinds(objects: &impl Objects, scope: &Scope, namespace: &str) -> Vec<UnknownKind> {
    const BEHIND_SERVICES: [(&str, &str); 2] = [("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice")];
    let has_canary = scope.kind.styles.contains(&Style::Canary);
    [(scope.workload.api_version.as_str(), scope.workload.kind.as_str()), scope.kind.revisions]
        .into_iter()
        .chain(has_canary.then_some(("apps/v1", "Deployment")))
        .chain(BEHIND_SERVICES.into_iter().filter(|_| scope.traffic.is_some()))
        .filter_map(|(api_version, kind)| {
            // By any name: it is the kind that is asked for.
            match objects.get(&ObjectRef::new(api_version, kind, namespace, "")) {
                Err(Lookup::Missing(why @ (Missing::Kind | Missing::Forbidden(_)))) => {
                    Some(UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned(), why })
                }
                _ => None,
            }
        })
        .collect()
}

/// The MetricTemplates that a Rollout names: of its own namespace, else of the controller's.
/// The nodes of pods, as far as they may be read.
fn nodes(objects: &impl Objects, pods: &[Arc<Value>]) -> Option<Vec<Arc<Value>>> {
    let names: BTreeSet<&str> = pods.iter().map(|pod| object::text(pod, &["spec", "nodeName"])).collect();
    let names = names.into_iter().filter(|name| !name.is_empty());
    let found = names.map(|name| optional(objects.get(&ObjectRef::new(NODE.0, NODE.1, "", name))));
    Some(found.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Keeps the texts of the scripts of a release, and finds those that the status says have served in it: a ConfigMap may
/// have another text by now.
pub(super) fn know_working(
    networks: &mut [Network],
    ingress: Option<&mut Ingress>,
    serving: &[ServingScript],
    engine: &Engine,
) {
    let memory = Memory::of(engine);
    let working = |script: &Result<Script, NotFound>, kind: &str, name: &str| {
        let version = script.as_ref().ok().map(|script| memory.keep(script));
        let served = serving.iter().find(|s| s.kind == kind && s.name == name)?;
        if version.as_ref() == Some(&served.version) { None } else { memory.text(&served.version) }
    };
    for network in networks {
        network.working = working(&network.script, &network.reference.kind, &network.reference.name);
    }
    if let Some(ingress) = ingress {
        ingress.working = working(&ingress.script, ingress::KIND, &ingress.name);
    }
}

/// The records of earlier releases of a Rollout.
fn records(objects: &impl Objects, rollout: &Rollout, namespace: &str) -> Option<Result<Vec<Arc<Value>>, Missing>> {
    // A list of nothing does not tell why.
    match objects.get(&ObjectRef::new(HISTORY.0, HISTORY.1, namespace, "")) {
        Err(Lookup::Pending) => return None,
        Err(Lookup::Missing(why @ (Missing::Kind | Missing::Forbidden(_)))) => return Some(Err(why)),
        Err(Lookup::Missing(Missing::Object)) | Ok(_) => {}
    }
    let uid = rollout.metadata.uid.as_deref().unwrap_or_default();
    objects.tied(HISTORY.0, HISTORY.1, namespace, uid).map(Ok)
}

pub(super) fn optional(found: Result<Arc<Value>, Lookup>) -> Option<Option<Arc<Value>>> {
    match found {
        Ok(object) => Some(Some(object)),
        Err(Lookup::Missing(_)) => Some(None),
        Err(Lookup::Pending) => None,
    }
}
