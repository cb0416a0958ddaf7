//! The Rollout's spec, read once into a form that cannot be wrong: one spelling, resolved defaults, checked values.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{
    gates::{self, Gate},
    hooks::{self, Hook},
    proof::{self, Proof},
    windows::Windows,
};
use crate::{
    analysis::metric::{self, Analysis},
    api::{
        self, GROUP, keys,
        object::{self, digest},
        v1alpha1::TrafficRouting,
        v1beta1::{
            IngressRef, NetworkRef, OnStepFailure, PatchPodTemplateMetadata, Rollout, RolloutStrategy, Step,
            TrafficRoutingRef, WorkloadRef,
        },
    },
    traffic::{Names, Strategy, ingress::LONGEST_NAME as LONGEST_INGRESS_NAME},
    workload::{
        self, Kind, Style,
        replicas::{Round, percent, scaled},
    },
};

/// A field of the spec that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

pub(super) fn wrong<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError { field: field.into(), problem: problem.into() })
}

/// What the Rollout reaches: known even when its steps are wrong, so that everything can always be put back.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// The workload.
    pub workload: WorkloadRef,
    /// Its kind.
    pub kind: &'static Kind,
    /// How the new version comes up.
    pub style: Style,
    /// Where requests are routed, if the Rollout routes any.
    pub traffic: Option<Traffic>,
    /// Name of the TrafficRouting that it shares with others.
    pub shared: Option<String>,
}

impl Scope {
    /// `Kind name` of the workload.
    pub fn workload_name(&self) -> String {
        format!("{} {}", self.workload.kind, self.workload.name)
    }
}

/// Where requests are routed.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Stable and canary Service; the same when no canary Service is made.
    pub names: Names,
    /// The objects that decide, each with its kind's script.
    pub networks: Vec<NetworkRef>,
    /// The Ingress that decides, by its class's script.
    pub ingress: Option<IngressRef>,
    /// The user's grace period in seconds.
    pub grace: Option<i64>,
}

impl Traffic {
    /// Whether the controller makes a canary Service.
    pub fn has_canary_service(&self) -> bool {
        self.names.canary_service != self.names.stable_service
    }
}

/// What to wait for after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// A person's approval, because the step says nothing else.
    Approval,
    /// Seconds.
    Seconds(i64),
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct ReleaseStep {
    /// Canary pods.
    pub replicas: IntOrString,
    /// What it asks of the gateways.
    pub strategy: Strategy,
    /// What to wait for.
    pub pause: Pause,
    /// Its gates.
    pub gates: Vec<Gate>,
    /// Seconds in which it has to be in place.
    pub deadline: Option<i64>,
    /// What happens when it is not.
    pub on_failure: OnStepFailure,
    /// What is measured once it is.
    pub analysis: Option<Analysis>,
}

/// The plan of a release.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// Steps, in order; never empty.
    pub steps: Vec<ReleaseStep>,
    /// Tolerated unready canary pods.
    pub failure_threshold: Option<IntOrString>,
    /// Labels and annotations of canary pods.
    pub patch: Option<PatchPodTemplateMetadata>,
    /// `strategy.paused`.
    pub is_paused: bool,
    /// What is measured during the whole release.
    pub background: Option<Analysis>,
    /// Servers that are asked before it goes on.
    pub hooks: Vec<Hook>,
    /// Requests that have to be answered well before a step counts as routed.
    pub proof: Option<Proof>,
    /// When its steps may begin.
    pub windows: Windows,
    /// Changes when the plan changes in a way that the current step must be executed again.
    pub hash: String,
}

impl Release {
    /// The step with a 1-based index.
    pub fn step(&self, index: i32) -> Option<&ReleaseStep> {
        usize::try_from(index).ok()?.checked_sub(1).and_then(|i| self.steps.get(i))
    }

    /// Number of steps.
    pub fn count(&self) -> i32 {
        i32::try_from(self.steps.len()).unwrap_or(i32::MAX)
    }

    /// The index after one, or -1 after the last.
    pub fn next(&self, index: i32) -> i32 {
        if index < self.count() { index + 1 } else { -1 }
    }
}

impl ReleaseStep {
    /// Nothing is left to try after it. Not a count that happens to be all: that the plan gives one pod of one is no
    /// reason to ask nobody. A blue-green release has its old set left.
    pub fn is_all(&self, style: Style) -> bool {
        style != Style::BlueGreen && matches!(&self.replicas, IntOrString::String(share) if percent(share) == Some(100))
    }

    /// New pods for a workload of `total` pods (contract 5.4): rounded up; in place, a share below 100 % leaves one
    /// stable pod where there is more than one.
    pub fn target(&self, style: Style, total: i32) -> i32 {
        let pods = scaled(&self.replicas, total, Round::Up).unwrap_or(total).clamp(0, total);
        if style == Style::Partition
            && total > 1
            && matches!(&self.replicas, IntOrString::String(share) if percent(share) != Some(100))
        {
            return pods.min(total - 1);
        }
        pods
    }
}

/// Reads which workload the Rollout names.
fn workload_ref(rollout: &Rollout) -> Result<(WorkloadRef, &'static Kind), SpecError> {
    let spec = &rollout.spec;
    let by_object_ref = spec.object_ref.as_ref().and_then(|o| o.workload_ref.as_ref());
    let workload = match (&spec.workload_ref, by_object_ref) {
        (Some(a), Some(b)) if a != b => {
            return wrong("spec.workloadRef", "differs from spec.objectRef.workloadRef; keep one of them");
        }
        (Some(workload), _) | (None, Some(workload)) => workload.clone(),
        (None, None) => return wrong("spec.workloadRef", "is missing; name the workload by apiVersion, kind and name"),
    };
    for (field, value) in [("apiVersion", &workload.api_version), ("kind", &workload.kind), ("name", &workload.name)] {
        if value.is_empty() {
            return wrong(format!("spec.workloadRef.{field}"), "is empty");
        }
    }
    let group = object::group(&workload.api_version);
    let Some(kind) = workload::kind(group, &workload.kind) else {
        return wrong(
            "spec.workloadRef",
            format!(
                "{} of {} cannot be released step by step; use {}",
                workload.kind,
                workload.api_version,
                workload::known()
            ),
        );
    };
    if kind.hold(&workload.api_version).is_none() {
        let known: Vec<String> = kind.holds.iter().map(|h| format!("{}/{}", h.group, h.version)).collect();
        let problem = format!("{} is not known for a {}; use {}", workload.api_version, kind.kind, known.join(" or "));
        return wrong("spec.workloadRef.apiVersion", problem);
    }
    Ok((workload, kind))
}

/// The workload alone: what is left to put in order when the rest of the spec is wrong.
///
/// # Errors
/// When no workload is named.
pub fn bare_scope(rollout: &Rollout) -> Result<Scope, SpecError> {
    let (workload, kind) = workload_ref(rollout)?;
    let style = kind.style(Style::Canary).unwrap_or(Style::Partition);
    Ok(Scope { workload, kind, style, traffic: None, shared: shared(rollout).unwrap_or_default() })
}

/// Reads what the Rollout reaches.
///
/// # Errors
/// When the workload, the style or the traffic part is wrong; names the field.
pub fn scope(rollout: &Rollout) -> Result<Scope, SpecError> {
    let (workload, kind) = workload_ref(rollout)?;
    let strategy = &rollout.spec.strategy;
    let (wanted, path, routings, no_service) = match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), None) => {
            (canary_style(rollout)?, "canary", &canary.traffic_routings, canary.disable_generate_canary_service)
        }
        (None, Some(blue)) => {
            (Style::BlueGreen, "blueGreen", &blue.traffic_routings, blue.disable_generate_canary_service)
        }
        _ => return wrong("spec.strategy", "needs exactly one of canary and blueGreen"),
    };
    let field = format!("spec.strategy.{path}.trafficRoutings");
    let traffic = match routings.as_slice() {
        [] => None,
        [routing] => Some(traffic(rollout.metadata.namespace.clone(), &format!("{field}[0]"), routing, no_service)?),
        more => return wrong(field, format!("has {} entries; at most one is supported", more.len())),
    };
    let Some(style) = kind.style(wanted) else {
        return wrong(
            format!("spec.strategy.{path}"),
            format!("a {} cannot be released in this style; use canary", workload.kind),
        );
    };
    Ok(Scope { workload, kind, style, traffic, shared: shared(rollout)? })
}

fn canary_style(rollout: &Rollout) -> Result<Style, SpecError> {
    let field = rollout.spec.strategy.canary.as_ref().and_then(|c| c.enable_extra_workload_for_canary);
    let annotation = rollout.metadata.annotations.iter().flatten().find(|(k, _)| *k == keys::ROLLING_STYLE);
    Ok(match (field, annotation.map(|(_, v)| v.to_ascii_lowercase()).as_deref()) {
        (Some(true), _) | (None, Some("canary")) => Style::Canary,
        (Some(false), _) | (None, Some("partition")) => Style::Partition,
        // The two API versions have opposite defaults; the spelling tells which one the author wrote.
        (None, None | Some("")) if rollout.spec.workload_ref.is_some() => Style::Partition,
        (None, None | Some("")) => Style::Canary,
        (None, Some(other)) => {
            return wrong(
                format!("metadata.annotations[{}]", keys::ROLLING_STYLE),
                format!("is {other:?}; use canary or partition"),
            );
        }
    })
}

/// The TrafficRouting that a Rollout shares: by the field, or by the annotation that came before it (D-30).
///
/// # Errors
/// When both are there and differ.
pub fn shared(rollout: &Rollout) -> Result<Option<String>, SpecError> {
    let strategy = &rollout.spec.strategy;
    let (path, by_field) = match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), _) => ("canary", canary.traffic_routing_ref.as_ref()),
        (None, Some(blue)) => ("blueGreen", blue.traffic_routing_ref.as_ref()),
        (None, None) => ("", None),
    };
    let by_annotation = rollout.metadata.annotations.as_ref().and_then(|a| a.get(keys::TRAFFIC_ROUTING));
    match (by_field.filter(|n| !n.is_empty()), by_annotation.filter(|n| !n.is_empty())) {
        (Some(a), Some(b)) if a != b => wrong(
            format!("spec.strategy.{path}.trafficRoutingRef"),
            format!("is {a:?}, but annotation {} is {b:?}; keep one of them", keys::TRAFFIC_ROUTING),
        ),
        (field, annotation) => Ok(field.or(annotation).cloned()),
    }
}

/// Where a TrafficRouting routes: no canary Service is made, as none of its Rollouts is more its own than another.
///
/// # Errors
/// When its spec is wrong; names the field.
pub fn routing_traffic(routing: &TrafficRouting) -> Result<Traffic, SpecError> {
    let Some(reference) = routing.spec.object_ref.first() else {
        return wrong("spec.objectRef", "is empty; name the Service and the objects that route to it");
    };
    let reference = TrafficRoutingRef { create_canary_service: Some(false), ..reference.clone() };
    traffic(routing.metadata.namespace.clone(), "spec.objectRef[0]", &reference, None)
}

fn traffic(
    namespace: Option<String>,
    field: &str,
    routing: &TrafficRoutingRef,
    disable_canary_service: Option<bool>,
) -> Result<Traffic, SpecError> {
    if routing.service.is_empty() {
        return wrong(format!("{field}.service"), "is empty; name the Service that selects the workload's pods");
    }
    if routing.create_canary_service == Some(true) && disable_canary_service == Some(true) {
        return wrong(format!("{field}.createCanaryService"), "contradicts disableGenerateCanaryService; keep one");
    }
    if let Some(ingress) = &routing.ingress {
        let problem = match ingress.name.len() {
            0 => "is empty; name the Ingress".to_owned(),
            1..=LONGEST_INGRESS_NAME => String::new(),
            _ => format!(
                "is longer than {LONGEST_INGRESS_NAME} characters, so that none are left for the canary Ingress"
            ),
        };
        if !problem.is_empty() {
            return wrong(format!("{field}.ingress.name"), problem);
        }
    }
    if routing.grace_period_seconds.is_some_and(|s| s < 0) {
        return wrong(format!("{field}.gracePeriodSeconds"), "is negative");
    }
    let mut networks: Vec<NetworkRef> = Vec::new();
    if let Some(gateway) = &routing.gateway {
        match gateway.http_route_name.as_deref() {
            None | Some("") => return wrong(format!("{field}.gateway.httpRouteName"), "is empty"),
            Some(name) => networks.push(NetworkRef {
                api_version: "gateway.networking.k8s.io/v1".to_owned(),
                kind: "HTTPRoute".to_owned(),
                name: name.to_owned(),
            }),
        }
    }
    for reference in routing.network_refs.iter().chain(&routing.custom_network_refs) {
        if reference.api_version.is_empty() || reference.kind.is_empty() || reference.name.is_empty() {
            return wrong(format!("{field}.networkRefs"), "every entry needs apiVersion, kind and name");
        }
        let same = |other: &NetworkRef| {
            object::group(&other.api_version) == object::group(&reference.api_version)
                && (&other.kind, &other.name) == (&reference.kind, &reference.name)
        };
        if !networks.iter().any(same) {
            networks.push(reference.clone());
        }
    }
    if networks.is_empty() && routing.ingress.is_none() {
        return wrong(field, "names no object that routes; add networkRefs, ingress or gateway");
    }
    let makes_service = routing.create_canary_service != Some(false) && disable_canary_service != Some(true);
    let stable = routing.service.clone();
    Ok(Traffic {
        names: Names {
            canary_service: if makes_service { format!("{stable}-canary") } else { stable.clone() },
            stable_service: stable,
            namespace,
        },
        networks,
        ingress: routing.ingress.clone(),
        grace: routing.grace_period_seconds.map(i64::from),
    })
}

/// Reads the plan.
pub fn release(rollout: &Rollout) -> Result<Release, SpecError> {
    let strategy = &rollout.spec.strategy;
    let (path, steps, threshold, patch, routings) = match (&strategy.canary, &strategy.blue_green) {
        (Some(c), None) => {
            let patch = c.patch_pod_template_metadata.clone();
            ("canary", &c.steps, &c.failure_threshold, patch, &c.traffic_routings)
        }
        (None, Some(b)) => ("blueGreen", &b.steps, &b.failure_threshold, None, &b.traffic_routings),
        _ => return wrong("spec.strategy", "needs exactly one of canary and blueGreen"),
    };
    if steps.is_empty() {
        return wrong(format!("spec.strategy.{path}.steps"), "is empty; a release needs at least one step");
    }
    let steps = steps
        .iter()
        .enumerate()
        .map(|(i, step)| release_step(&format!("spec.strategy.{path}.steps[{i}]"), step, strategy))
        .collect::<Result<Vec<_>, _>>()?;
    if strategy.on_step_failure == Some(OnStepFailure::Rollback) && steps.iter().all(|step| step.deadline.is_none()) {
        return wrong(
            "spec.strategy.onStepFailure",
            "is Rollback, but no step has a deadline; set stepDeadlineSeconds",
        );
    }
    if let Some(IntOrString::String(text)) = threshold
        && percent(text).is_none()
    {
        return wrong(format!("spec.strategy.{path}.failureThreshold"), format!("{text:?} is no percentage"));
    }
    let general =
        strategy.analysis.as_ref().map(|a| Ok::<_, SpecError>((a.background, analysis("spec.strategy.analysis", a)?)));
    let (background, general) = match general.transpose()? {
        Some((true, analysis)) => (Some(analysis), None),
        Some((false, analysis)) => (None, Some(analysis)),
        None => (None, None),
    };
    let steps = steps
        .into_iter()
        .map(|step| ReleaseStep { analysis: step.analysis.or_else(|| general.clone()), ..step })
        .collect();
    Ok(Release {
        background,
        hash: plan_hash(rollout),
        steps,
        failure_threshold: threshold.clone(),
        patch,
        is_paused: strategy.paused,
        hooks: hooks::read(rollout)?,
        proof: proof(path, routings)?,
        windows: Windows::of(rollout)?,
    })
}

fn release_step(field: &str, step: &Step, of: &RolloutStrategy) -> Result<ReleaseStep, SpecError> {
    let strategy = Strategy::from_step(step)
        .map_err(|problem| SpecError { field: field.to_owned(), problem: problem.to_string() })?;
    let replicas = match (&step.replicas, strategy.weight) {
        (Some(IntOrString::Int(count)), _) if *count < 0 => {
            return wrong(format!("{field}.replicas"), format!("{count} is negative"));
        }
        (Some(IntOrString::String(text)), _) if percent(text).is_none_or(|p| p > 100) => {
            return wrong(format!("{field}.replicas"), format!("{text:?} is neither a number nor 0% to 100%"));
        }
        (Some(replicas), _) => replicas.clone(),
        (None, Some(weight)) => IntOrString::String(format!("{weight}%")),
        (None, None) => return wrong(field, "needs replicas, or a weight (traffic) to derive them from"),
    };
    if strategy.asks() && scaled(&replicas, 100, Round::Up) == Some(0) {
        return wrong(format!("{field}.replicas"), "is 0, but the step sends requests to the canary; it needs a pod");
    }
    let pause = match step.pause.as_ref().and_then(|p| p.duration) {
        None => Pause::Approval,
        Some(seconds) if seconds < 0 => {
            return wrong(format!("{field}.pause.duration"), format!("{seconds} is negative"));
        }
        Some(seconds) => Pause::Seconds(i64::from(seconds)),
    };
    let deadline = match (step.step_deadline_seconds, of.step_deadline_seconds) {
        (Some(seconds), _) if seconds < 0 => {
            return wrong(format!("{field}.stepDeadlineSeconds"), format!("{seconds} is negative"));
        }
        (None, Some(seconds)) if seconds < 0 => {
            return wrong("spec.strategy.stepDeadlineSeconds", format!("{seconds} is negative"));
        }
        (own, general) => own.or(general).map(i64::from).filter(|seconds| *seconds > 0),
    };
    let on_failure = step.on_step_failure.or(of.on_step_failure).unwrap_or_default();
    let analysis = step.analysis.as_ref().map(|a| analysis(&format!("{field}.analysis"), a)).transpose()?;
    let gates = gates::read(field, step)?;
    Ok(ReleaseStep { replicas, strategy, pause, gates, deadline, on_failure, analysis })
}

fn proof(path: &str, routings: &[TrafficRoutingRef]) -> Result<Option<Proof>, SpecError> {
    let proof = routings.first().and_then(|routing| routing.proof.as_ref());
    let field = format!("spec.strategy.{path}.trafficRoutings[0].proof");
    proof.map(|proof| proof::spec::read(&field, proof)).transpose()
}

fn analysis(field: &str, analysis: &api::analysis::Analysis) -> Result<Analysis, SpecError> {
    metric::read(field, analysis).map_err(|(field, problem)| SpecError { field, problem })
}

/// Hash of the plan without pauses, deadlines, tolerance, metrics, hooks and traffic proofs: those may change without executing a step again.
fn plan_hash(rollout: &Rollout) -> String {
    let mut strategy = serde_json::to_value(&rollout.spec.strategy).unwrap_or(Value::Null);
    if let Some(map) = strategy.as_object_mut() {
        for field in ["paused", "stepDeadlineSeconds", "onStepFailure", "analysis", "hooks"] {
            map.remove(field);
        }
    }
    for style in ["canary", "blueGreen"] {
        let Some(map) = strategy.get_mut(style).and_then(Value::as_object_mut) else { continue };
        map.remove("failureThreshold");
        for routing in map.get_mut("trafficRoutings").and_then(Value::as_array_mut).into_iter().flatten() {
            routing.as_object_mut().and_then(|routing| routing.remove("proof"));
        }
        for step in map.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(step) = step.as_object_mut() {
                for field in ["pause", "gates", "stepDeadlineSeconds", "onStepFailure", "analysis"] {
                    step.remove(field);
                }
            }
        }
    }
    digest(&strategy)
}

/// The Rollout as owner of the objects that it makes.
pub fn owner_reference(rollout: &Rollout) -> Value {
    serde_json::json!({
        "apiVersion": format!("{GROUP}/v1beta1"),
        "kind": "Rollout",
        "name": rollout.metadata.name.clone().unwrap_or_default(),
        "uid": rollout.metadata.uid.clone().unwrap_or_default(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
mod tests;
