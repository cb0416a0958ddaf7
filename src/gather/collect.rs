//! From objects to a snapshot. Nothing is fetched here, so that a folder of files can stand in for the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::pods;
use crate::{
    analysis::{Sample, templates::is_built_in},
    api::{
        analysis::Metric,
        keys,
        notifications::{Notifications, Receiver},
        object::{self, ObjectRef},
        v1beta1::{IngressRef, NetworkRef, Rollout, Step, WorkloadRef},
        windows::ClusterWindows,
    },
    lua::{Engine, NotFound, Script, library},
    rollout::{
        Hold, Snapshot, UnknownKind,
        calls::{Reply, short},
        history::History,
        is_releasing,
        jobs::{CRON_JOB, JOB},
        line::{self, Line, Standing},
        notifications::config,
        release::{self, Scope, Traffic},
        windows::ForAll,
    },
    traffic::{
        ingress::{self, Ingress},
        memory::Memory,
        routes::{Missing, Network},
    },
    workload::{
        Style,
        canary::canary_name,
        hold::{Rule, rules},
    },
    yaml,
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

const POLICY: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy");
/// Where the webhooks that hold on older servers are configured.
pub(super) const WEBHOOKS: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
const BINDING: (&str, &str) = ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding");

type ByName = BTreeMap<String, Arc<Value>>;

/// Everything that a decision about a Rollout may read; `None` while a kind is being read for the first time.
pub fn collect(
    objects: &impl Objects,
    mut rollout: Rollout,
    now: Timestamp,
    engine: &Engine,
    settings: &Settings,
) -> Option<Snapshot> {
    if !settings.names_people
        && let Some(status) = &mut rollout.status
    {
        status.canary_status.iter_mut().for_each(|sub| sub.said_by = None);
        status.blue_green_status.iter_mut().for_each(|sub| sub.said_by = None);
    }
    let namespace = rollout.metadata.namespace.clone().unwrap_or_default();
    let mut snapshot = Snapshot {
        now,
        rivals: Vec::new(),
        unknown: Vec::new(),
        workload: None,
        former_workload: None,
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
        know_working(&mut snapshot, engine);
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

fn templates(
    objects: &impl Objects,
    rollout: &Rollout,
    namespace: &str,
    settings: &Settings,
) -> Option<BTreeMap<String, Arc<Value>>> {
    let mut found = BTreeMap::new();
    for name in named_templates(rollout) {
        for namespace in [namespace, &settings.script_namespace] {
            let (api_version, kind) = METRIC_TEMPLATE;
            if let Some(object) = optional(objects.get(&ObjectRef::new(api_version, kind, namespace, name)))? {
                found.insert(name.to_owned(), object);
                break;
            }
        }
    }
    Some(found)
}

/// The CronJobs that gates of a Rollout name, and the Jobs that were made for it.
fn jobs(objects: &impl Objects, rollout: &Rollout, namespace: &str) -> Option<(ByName, Vec<Arc<Value>>)> {
    let mut templates = BTreeMap::new();
    for name in named_cron_jobs(rollout) {
        let object = optional(objects.get(&ObjectRef::new(CRON_JOB.0, CRON_JOB.1, namespace, name)))?;
        templates.extend(object.map(|object| (name.to_owned(), object)));
    }
    if named_cron_jobs(rollout).next().is_none() {
        return Some((templates, Vec::new()));
    }
    let uid = rollout.metadata.uid.as_deref().unwrap_or_default();
    Some((templates, objects.tied(JOB.0, JOB.1, namespace, uid)?))
}

/// Names of the CronJobs that gates and metrics of a Rollout name.
pub fn named_cron_jobs(rollout: &Rollout) -> impl Iterator<Item = &str> {
    let gates = steps(rollout).flat_map(|step| &step.gates);
    let of_gates = gates.filter_map(|gate| Some(gate.job.as_ref()?.cron_job.as_str()));
    let by_job = |metric: &&Metric| metric.provider.as_ref().is_some_and(|provider| provider.job.is_some());
    of_gates.chain(metrics(rollout).filter(by_job).filter_map(|metric| metric.query.as_deref()))
}

fn steps(rollout: &Rollout) -> impl Iterator<Item = &Step> {
    let strategy = &rollout.spec.strategy;
    let canary = strategy.canary.iter().flat_map(|s| &s.steps);
    canary.chain(strategy.blue_green.iter().flat_map(|s| &s.steps))
}

/// All metrics of a Rollout.
fn metrics(rollout: &Rollout) -> impl Iterator<Item = &Metric> {
    let analyses = steps(rollout).filter_map(|step| step.analysis.as_ref()).chain(&rollout.spec.strategy.analysis);
    analyses.flat_map(|analysis| &analysis.metrics)
}

/// Names of the MetricTemplates that a Rollout names, without built-in ones.
pub fn named_templates(rollout: &Rollout) -> impl Iterator<Item = &str> {
    let names = metrics(rollout).filter_map(|m| Some(m.template.as_ref()?.name.as_str()));
    names.filter(|name| !is_built_in(name))
}

/// Keeps the texts of the scripts of a release, and finds those that the status says have served in it: a ConfigMap may
/// have another text by now.
fn know_working(snapshot: &mut Snapshot, engine: &Engine) {
    if !is_releasing(&snapshot.rollout) {
        return;
    }
    let memory = Memory::of(engine);
    let serving = snapshot.rollout.status.as_ref().map(|s| s.scripts.as_slice()).unwrap_or_default();
    let working = |script: &Result<Script, NotFound>, kind: &str, name: &str| {
        let version = script.as_ref().ok().map(|script| memory.keep(script));
        let served = serving.iter().find(|s| s.kind == kind && s.name == name)?;
        if version.as_ref() == Some(&served.version) { None } else { memory.text(&served.version) }
    };
    for network in &mut snapshot.networks {
        network.working = working(&network.script, &network.reference.kind, &network.reference.name);
    }
    if let Some(ingress) = &mut snapshot.ingress {
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

/// The objects that route, with their scripts, and the Ingress beside which a canary stands.
pub(super) fn routes(
    objects: &impl Objects,
    traffic: &Traffic,
    namespace: &str,
    settings: &Settings,
) -> Option<(Vec<Network>, Option<Ingress>)> {
    let scripts = scripts(objects, settings)?;
    let mut networks = Vec::new();
    for reference in &traffic.networks {
        networks.push(network(objects, reference, namespace, scripts.as_ref(), settings)?);
    }
    let Some(reference) = &traffic.ingress else { return Some((networks, None)) };
    match ingress(objects, reference, namespace, scripts.as_ref())? {
        Route::InPlace(network) => {
            networks.push(network);
            Some((networks, None))
        }
        Route::Beside(ingress) => Some((networks, Some(ingress))),
    }
}

pub(super) fn optional(found: Result<Arc<Value>, Lookup>) -> Option<Option<Arc<Value>>> {
    match found {
        Ok(object) => Some(Some(object)),
        Err(Lookup::Missing(_)) => Some(None),
        Err(Lookup::Pending) => None,
    }
}

fn network(
    objects: &impl Objects,
    reference: &NetworkRef,
    namespace: &str,
    scripts: Option<&BTreeMap<String, String>>,
    settings: &Settings,
) -> Option<Network> {
    let target = ObjectRef::new(&reference.api_version, &reference.kind, namespace, &reference.name);
    let object = match objects.get(&target) {
        Err(Lookup::Pending) => return None,
        Err(Lookup::Missing(missing)) => Err(missing),
        Ok(object) => Ok(object),
    };
    let group = object::group(&reference.api_version);
    let script = library::resolve(group, &reference.kind, scripts, settings.config_map_wins);
    let acceptance = library::resolve_accepted(group, &reference.kind, scripts, settings.config_map_wins);
    Some(Network {
        reference: reference.clone(),
        namespace: namespace.to_owned(),
        object,
        script,
        working: None,
        acceptance,
    })
}

/// How an Ingress routes during a release.
enum Route {
    /// It is changed itself.
    InPlace(Network),
    /// A canary Ingress stands beside it.
    Beside(Ingress),
}

fn ingress(
    objects: &impl Objects,
    reference: &IngressRef,
    namespace: &str,
    scripts: Option<&BTreeMap<String, String>>,
) -> Option<Route> {
    let get = |name: &str| match objects.get(&ObjectRef::new(ingress::API_VERSION, ingress::KIND, namespace, name)) {
        Err(Lookup::Pending) => None,
        Err(Lookup::Missing(missing)) => Some(Err(missing)),
        Ok(object) => Some(Ok(object)),
    };
    let stable = get(&reference.name)?;
    let script = library::resolve_ingress(&reference.class_type, scripts);
    let in_place = Network {
        reference: NetworkRef {
            api_version: ingress::API_VERSION.to_owned(),
            kind: ingress::KIND.to_owned(),
            name: reference.name.clone(),
        },
        namespace: namespace.to_owned(),
        object: stable.clone(),
        script: script.clone(),
        working: None,
        // What an Ingress reports are addresses.
        acceptance: None,
    };
    // Without its script, what it has changed must still be put back.
    if in_place.is_changed() || script.as_ref().is_ok_and(ingress::is_in_place) {
        return Some(Route::InPlace(in_place));
    }
    let canary = get(&ingress::canary_name(&reference.name))?;
    let class = stable.as_ref().map(|s| object::text(s, &["spec", "ingressClassName"])).unwrap_or_default();
    let controller = match class {
        "" => None,
        class => optional(objects.get(&ObjectRef::new(ingress::API_VERSION, ingress::CLASS_KIND, "", class)))?,
    };
    let controller = controller.map(|c| object::text(&c, &["spec", "controller"]).to_owned()).filter(|c| !c.is_empty());
    Some(Route::Beside(Ingress {
        name: reference.name.clone(),
        namespace: namespace.to_owned(),
        stable,
        canary,
        script,
        working: None,
        controller,
    }))
}

/// Who is in flight and who waits; all Rollouts are looked at for one that waits only.
fn line_of(objects: &impl Objects, rollout: &Rollout, limit: usize) -> Option<Line> {
    let mut line = Line { limit, in_flight: Vec::new(), waiting: Vec::new() };
    if !rollout.status.as_ref().is_some_and(line::is_waiting) {
        return Some(line);
    }
    for other in objects.list_all("rollouts.kruise.io/v1beta1", "Rollout")? {
        if Some(object::uid(&other)) == rollout.metadata.uid.as_deref() {
            continue;
        }
        match line::standing(&other) {
            Some(Standing::InFlight) => line.in_flight.push(line::place(&other)),
            Some(Standing::Waiting(since)) => line.waiting.push((since, line::place(&other))),
            None => {}
        }
    }
    Some(line)
}

/// The administrator's change windows.
fn windows_for_all(objects: &impl Objects, settings: &Settings) -> Option<Result<ForAll, String>> {
    let target = ObjectRef::new("v1", "ConfigMap", &settings.script_namespace, keys::SCRIPT_CONFIG_MAP);
    let map = match objects.get(&target) {
        Ok(map) => map,
        Err(Lookup::Pending) => return None,
        Err(Lookup::Missing(Missing::Forbidden(why))) => return Some(Err(why)),
        Err(Lookup::Missing(Missing::Object | Missing::Kind)) => return Some(Ok(ForAll::default())),
    };
    let text = object::text(&map, &["data", keys::CHANGE_WINDOWS]);
    if text.is_empty() {
        return Some(Ok(ForAll::default()));
    }
    let read = yaml::from_str::<ClusterWindows>(text).map_err(|e| e.to_string());
    let read = read.and_then(|windows| ForAll::try_from(&windows).map_err(|e| e.to_string()));
    let place = format!("ConfigMap {}/{}", settings.script_namespace, keys::SCRIPT_CONFIG_MAP);
    Some(read.map_err(|why| format!("{place}, key {}: {why}", keys::CHANGE_WINDOWS)))
}

/// Who is told of a Rollout.
fn receivers(objects: &impl Objects, rollout: &Rollout, settings: &Settings) -> Option<Result<Vec<Receiver>, String>> {
    let target = ObjectRef::new("v1", "ConfigMap", &settings.script_namespace, keys::SCRIPT_CONFIG_MAP);
    let Some(map) = optional(objects.get(&target))? else { return Some(Ok(Vec::new())) };
    let text = object::text(&map, &["data", keys::NOTIFICATIONS]);
    if text.is_empty() {
        return Some(Ok(Vec::new()));
    }
    let read = yaml::from_str::<Notifications>(text).map_err(|e| e.to_string());
    let read = read.and_then(|read| config::check(&read).map(|()| read.receivers));
    let annotation = rollout.metadata.annotations.as_ref().and_then(|a| a.get(keys::NOTIFY)).map(String::as_str);
    let place = format!("ConfigMap {}/{}, key {}", settings.script_namespace, target.name, keys::NOTIFICATIONS);
    Some(read.map(|all| config::receivers_of(&all, annotation)).map_err(|why| format!("{place}: {}", short(&why))))
}

/// The data of the administrator's ConfigMap.
fn scripts(objects: &impl Objects, settings: &Settings) -> Option<Option<BTreeMap<String, String>>> {
    let target = ObjectRef::new("v1", "ConfigMap", &settings.script_namespace, keys::SCRIPT_CONFIG_MAP);
    Some(optional(objects.get(&target))?.map(|map| {
        let data = object::at(&map, &["data"]).and_then(Value::as_object).into_iter().flatten();
        data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }))
}

/// Other Rollouts for the same workload that go before this one: one in the middle of a release before all others, an
/// enabled one before one that is disabled or being deleted, an older one before a younger; of two equally old ones the
/// first by name.
fn rivals(objects: &impl Objects, rollout: &Rollout, scope: &Scope, namespace: &str) -> Option<Vec<String>> {
    let mine = rank(rollout);
    let others = others(objects, rollout, &scope.workload, namespace)?.into_iter();
    let before = others.filter(|other| rank(other) < mine);
    let mut rivals: Vec<String> = before.filter_map(|other| other.metadata.name).collect();
    rivals.sort();
    Some(rivals)
}

/// Other Rollouts that name a workload and are not letting go of it.
fn others(objects: &impl Objects, rollout: &Rollout, workload: &WorkloadRef, namespace: &str) -> Option<Vec<Rollout>> {
    let namesakes = objects.tied("rollouts.kruise.io/v1beta1", "Rollout", namespace, &workload.name)?;
    let own = rollout.metadata.name.as_deref();
    Some(
        namesakes
            .iter()
            .filter(|other| Some(object::name(other)) != own)
            .filter_map(|other| Rollout::deserialize(&**other).ok())
            .filter(|other| rank(other).0 < IDLE)
            .filter(|other| {
                let scope_of = if is_releasing(other) { release::bare_scope } else { release::scope };
                scope_of(other).is_ok_and(|other| {
                    object::group(&other.workload.api_version) == object::group(&workload.api_version)
                        && (&other.workload.kind, &other.workload.name) == (&workload.kind, &workload.name)
                })
            })
            .collect(),
    )
}

/// Whether another Rollout, or a TrafficRouting, may have changed one of these networkRefs.
fn is_routed_by_others(objects: &impl Objects, rollout: &Rollout, traffic: &Traffic, namespace: &str) -> Option<bool> {
    let is_same = |a: &NetworkRef, b: &NetworkRef| {
        object::group(&a.api_version) == object::group(&b.api_version) && (&a.kind, &a.name) == (&b.kind, &b.name)
    };
    let shares = |other: Option<Traffic>| {
        other.is_some_and(|other| other.networks.iter().any(|a| traffic.networks.iter().any(|b| is_same(a, b))))
    };
    let rollouts = objects.list("rollouts.kruise.io/v1beta1", "Rollout", namespace)?;
    let mut others = rollouts
        .iter()
        .filter_map(|other| serde_json::from_value::<Rollout>((**other).clone()).ok())
        .filter(|other| other.metadata.name != rollout.metadata.name && is_releasing(other));
    // Of a spec that is wrong nobody knows what it named before.
    if others.any(|other| release::scope(&other).map_or(true, |scope| shares(scope.traffic))) {
        return Some(true);
    }
    let (api_version, kind) = TRAFFIC_ROUTING;
    let routings = objects.list(api_version, kind, namespace)?;
    let mut routings = routings.iter().filter_map(|r| serde_json::from_value((**r).clone()).ok());
    Some(routings.any(|routing| shares(release::routing_traffic(&routing).ok())))
}

const IDLE: u8 = 2;

/// The lowest goes first.
fn rank(rollout: &Rollout) -> (u8, Option<Timestamp>, Option<&str>) {
    let metadata = &rollout.metadata;
    let tier = if is_releasing(rollout) {
        0
    } else if !rollout.spec.disabled && metadata.deletion_timestamp.is_none() {
        1
    } else {
        IDLE
    };
    (tier, metadata.creation_timestamp.as_ref().map(|t| t.0), metadata.name.as_deref())
}

/// Whether the API server holds changed workloads of any kind; `None` while that is being read.
pub fn hold_of_all(objects: &impl Objects) -> Option<Hold> {
    let all = rules().map(|rule| hold(objects, Some(rule))).collect::<Option<Vec<Hold>>>()?;
    Some(all.into_iter().find(|hold| *hold != Hold::InForce).unwrap_or(Hold::InForce))
}

/// Whether the API server holds changed workloads of a kind, by a policy or by our webhook; `None` while that is being
/// read.
fn hold(objects: &impl Objects, rule: Option<&Rule>) -> Option<Hold> {
    let Some(rule) = rule else { return Some(Hold::InForce) };
    let Some(lack) = policy_lack(objects, rule)? else { return Some(Hold::InForce) };
    let webhooks = optional(objects.get(&ObjectRef::new(WEBHOOKS.0, WEBHOOKS.1, "", crate::workload::hold::WEBHOOKS)))?;
    Some(if webhooks.is_some_and(|w| is_served(&w, rule)) { Hold::InForce } else { Hold::Unavailable(lack) })
}

/// Our webhook for the kind is configured, and trusted: without a CA the API server reaches nobody.
fn is_served(configuration: &Value, rule: &Rule) -> bool {
    let webhooks = object::at(configuration, &["webhooks"]).and_then(Value::as_array).into_iter().flatten();
    webhooks
        .filter(|w| object::text(w, &["name"]) == rule.webhook)
        .any(|w| !object::text(w, &["clientConfig", "caBundle"]).is_empty())
}

/// What is missing for the policy of a rule to be in force.
fn policy_lack(objects: &impl Objects, rule: &Rule) -> Option<Option<String>> {
    const LOST: &str = "a template changed while the controller is down is not held and rolls out at once";
    let policy = rule.policy;
    for (api_version, kind) in [POLICY, BINDING] {
        return Some(Some(match objects.get(&ObjectRef::new(api_version, kind, "", policy)) {
            Ok(_) => continue,
            Err(Lookup::Pending) => return None,
            Err(Lookup::Missing(Missing::Object)) => format!(
                "{kind} {policy} is not installed, so {LOST}; install it with `tidegate policy | kubectl apply -f -`"
            ),
            Err(Lookup::Missing(Missing::Kind)) => format!(
                "this API server does not serve {api_version} {kind} (Kubernetes 1.36 and later do), so {LOST}; install \
                 the webhooks: `tidegate webhooks`"
            ),
            Err(Lookup::Missing(Missing::Forbidden(why))) => {
                format!("the controller may not read {kind} ({why}), so perhaps {LOST}")
            }
        }));
    }
    Some(None)
}
