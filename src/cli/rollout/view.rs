//! A Rollout as a person sees it: both strategies and both API versions in one form, however little is there.

mod words;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use self::words::{step_share, step_words};
use crate::api::{
    analysis::{AnalysisPhase, AnalysisStatus},
    conditions::{self, StepState, phases, reasons, types},
    keys,
    v1beta1::{Condition, GateStatus, NetworkRef, Rollout, RolloutStatus, Step, TrafficRoutingRef, Word, WorkloadRef},
};

/// Where a release stands, from `canaryStatus` or `blueGreenStatus`.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// Name of the field in `status`.
    pub field: &'static str,
    /// Name of the field within it that holds the canary revision.
    pub revision_field: &'static str,
    /// The current step, 1-based; 0 when none.
    pub step: i32,
    /// `currentStepState`, whatever it holds.
    pub state: &'a str,
    /// Revision that ran before.
    pub stable_revision: &'a str,
    /// Revision of the new template.
    pub canary_revision: &'a str,
    /// Label value of the new pods.
    pub pod_template_hash: &'a str,
    /// The user's id of the release.
    pub id: &'a str,
    /// Pods of the new version.
    pub replicas: i32,
    /// Of those, ready ones.
    pub ready: i32,
    /// Detail about the pods.
    pub message: &'a str,
    /// Where the winding-up stands.
    pub finalising_step: &'a str,
    /// Start of the current state.
    pub since: Option<&'a Time>,
    /// Who moved it by hand.
    pub words: &'a [Word],
    /// The metrics of the current step are not judged yet.
    pub is_measured: bool,
    /// What the metrics said.
    pub analysis: Option<&'a AnalysisStatus>,
    /// The gates of a step that is in place.
    pub gates: &'a [GateStatus],
}

/// A Rollout as a person sees it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The object.
    pub rollout: &'a Rollout,
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// `status.phase`; empty before the controller saw it.
    pub phase: &'a str,
    /// `status.message`.
    pub message: &'a str,
    /// The workload, in either spelling.
    pub workload: Option<&'a WorkloadRef>,
    /// `Canary`, `Partition` or `BlueGreen`.
    pub style: &'static str,
    /// The plan.
    pub steps: &'a [Step],
    /// What routes requests.
    pub routings: &'a [TrafficRoutingRef],
    /// The release that goes on, or the last one.
    pub release: Option<Release<'a>>,
    /// All conditions.
    pub conditions: &'a [Condition],
}

impl<'a> View<'a> {
    /// Reads a Rollout; never fails, since what is missing is shown as missing.
    pub fn of(rollout: &'a Rollout) -> Self {
        let status = rollout.status.as_ref();
        let strategy = &rollout.spec.strategy;
        let (steps, routings): (&[Step], &[TrafficRoutingRef]) = match (&strategy.blue_green, &strategy.canary) {
            (Some(blue_green), _) => (&blue_green.steps, &blue_green.traffic_routings),
            (None, Some(canary)) => (&canary.steps, &canary.traffic_routings),
            (None, None) => (&[], &[]),
        };
        let object_ref = rollout.spec.object_ref.as_ref();
        Self {
            rollout,
            name: rollout.metadata.name.as_deref().unwrap_or_default(),
            namespace: rollout.metadata.namespace.as_deref().unwrap_or_default(),
            phase: status.map(|s| s.phase.as_str()).unwrap_or_default(),
            message: status.map(|s| s.message.as_str()).unwrap_or_default(),
            workload: rollout.spec.workload_ref.as_ref().or_else(|| object_ref?.workload_ref.as_ref()),
            style: style(rollout),
            steps,
            routings,
            release: status.and_then(|s| release(s, strategy.blue_green.is_some())),
            conditions: status.map(|s| s.conditions.as_slice()).unwrap_or_default(),
        }
    }

    /// The step state, when it is one that the API knows.
    pub fn state(&self) -> Option<StepState> {
        StepState::parse(self.release?.state)
    }

    /// `1/2`, or nothing when no step is executed.
    pub fn step_of(&self) -> String {
        match self.release {
            Some(release) if release.step > 0 => format!("{}/{}", release.step, self.steps.len()),
            _ => String::new(),
        }
    }

    /// The step that is executed.
    pub fn current(&self) -> Option<&'a Step> {
        self.nth(self.release?.step)
    }

    fn nth(&self, index: i32) -> Option<&'a Step> {
        self.steps.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// The canary's share of requests in force, as the plan and the state say; empty when no request is shared.
    pub fn share(&self) -> String {
        let (Some(release), Some(state)) = (self.release, self.state()) else { return String::new() };
        let is_shared = self.phase == phases::PROGRESSING && state != StepState::Completed && !self.is_cancelling();
        if !is_shared || self.routings.is_empty() {
            return String::new();
        }
        // Until its routes are written, the step before decides.
        let in_force = if state > StepState::StepTrafficRouting { release.step } else { release.step - 1 };
        self.nth(in_force).map_or_else(|| "0%".to_owned(), step_share)
    }

    /// A condition that says why the release stands still and a person is needed.
    pub fn stalled(&self) -> Option<&'a Condition> {
        conditions::find(self.conditions, types::STALLED).filter(|c| c.status == "True")
    }

    /// Whether the release is taken back. The step and its state stay what they were when that began.
    pub fn is_cancelling(&self) -> bool {
        conditions::find(self.conditions, types::PROGRESSING).is_some_and(|c| c.reason == reasons::CANCELLING)
    }

    /// Whether the current step waits.
    pub fn is_paused(&self) -> bool {
        self.phase == phases::PROGRESSING && self.state() == Some(StepState::StepPaused) && !self.is_cancelling()
    }

    /// Whether the current step waits for a person, not for time.
    pub fn needs_approval(&self) -> bool {
        self.is_paused() && self.current().is_none_or(|step| step.pause.as_ref().is_none_or(|p| p.duration.is_none()))
    }

    /// Whether the release is frozen by `spec.strategy.paused`.
    pub fn is_frozen(&self) -> bool {
        self.rollout.spec.strategy.paused
    }

    /// All networkRefs, in either spelling.
    pub fn network_refs(routing: &TrafficRoutingRef) -> impl Iterator<Item = &NetworkRef> {
        routing.custom_network_refs.iter().chain(&routing.network_refs)
    }
}

fn style(rollout: &Rollout) -> &'static str {
    let strategy = &rollout.spec.strategy;
    if strategy.blue_green.is_some() {
        return "BlueGreen";
    }
    let annotation = rollout.metadata.annotations.as_ref().and_then(|a| a.get(keys::ROLLING_STYLE));
    let is_canary = match strategy.canary.as_ref().and_then(|c| c.enable_extra_workload_for_canary) {
        Some(extra) => extra,
        None => match annotation.map(|a| a.to_ascii_lowercase()).as_deref() {
            Some("canary") => true,
            Some("partition") => false,
            _ => rollout.spec.workload_ref.is_none(),
        },
    };
    if is_canary { "Canary" } else { "Partition" }
}

fn release(status: &RolloutStatus, prefers_blue_green: bool) -> Option<Release<'_>> {
    let canary = status.canary_status.as_ref().map(|s| Release {
        field: "canaryStatus",
        revision_field: "canaryRevision",
        step: s.current_step_index,
        state: &s.current_step_state,
        stable_revision: &s.stable_revision,
        canary_revision: &s.canary_revision,
        pod_template_hash: &s.pod_template_hash,
        id: &s.observed_rollout_id,
        replicas: s.canary_replicas,
        ready: s.canary_ready_replicas,
        message: &s.message,
        finalising_step: &s.finalising_step,
        since: s.last_update_time.as_ref(),
        words: &s.words,
        is_measured: is_measured(s.analysis.as_ref(), s.current_step_index),
        analysis: s.analysis.as_ref(),
        gates: &s.gates,
    });
    let blue_green = status.blue_green_status.as_ref().map(|s| Release {
        field: "blueGreenStatus",
        revision_field: "updatedRevision",
        step: s.current_step_index,
        state: &s.current_step_state,
        stable_revision: &s.stable_revision,
        canary_revision: &s.updated_revision,
        pod_template_hash: &s.pod_template_hash,
        id: &s.observed_rollout_id,
        replicas: s.updated_replicas,
        ready: s.updated_ready_replicas,
        message: &s.message,
        finalising_step: &s.finalising_step,
        since: s.last_update_time.as_ref(),
        words: &s.words,
        is_measured: is_measured(s.analysis.as_ref(), s.current_step_index),
        analysis: s.analysis.as_ref(),
        gates: &s.gates,
    });
    if prefers_blue_green { blue_green.or(canary) } else { canary.or(blue_green) }
}

fn is_measured(analysis: Option<&AnalysisStatus>, step: i32) -> bool {
    let run = analysis.and_then(|analysis| analysis.step.as_ref());
    run.is_some_and(|run| run.step_index == step && run.phase == AnalysisPhase::Running)
}

#[cfg(test)]
pub(super) mod fixtures;
#[cfg(test)]
mod tests;
