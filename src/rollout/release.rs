//! The Rollout's spec, read once into a form that cannot be wrong: one spelling, resolved defaults, checked values.

mod scope;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

pub use self::scope::{Scope, Traffic, bare_scope, routing_traffic, scope, shared};
use super::{
    gates::{self, Gate},
    hooks::{self, Hook},
    proof::{self, Proof},
    windows::Windows,
};
use crate::{
    analysis::metric::{self, Analysis},
    api::{
        self, GROUP,
        object::digest,
        v1beta1::{OnStepFailure, PatchPodTemplateMetadata, Rollout, RolloutStrategy, Step, TrafficRoutingRef},
    },
    traffic::Strategy,
    workload::{
        Style,
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
