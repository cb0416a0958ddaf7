//! The patch of an approval, and why there is none.

use json_patch::{Patch, PatchOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf};
use serde_json::Value;

use crate::{
    api::{
        conditions::{StepState, phases},
        v1beta1::Rollout,
    },
    cli::rollout::{table::cell, view::View},
};

/// Why there is nothing to approve. Each text says where the release is and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPaused {
    /// Someone said so before.
    #[error("already approved (step {step} of {steps})")]
    AlreadyApproved {
        /// The step, 1-based.
        step: i32,
        /// Steps of the plan.
        steps: usize,
    },
    /// No release goes on.
    #[error("no release is going on (status {phase}): change the workload's pod template to start one")]
    NoRelease {
        /// `status.phase`.
        phase: String,
    },
    /// The Rollout does not manage its workload.
    #[error("the rollout is {phase}: there is no step to approve; set spec.disabled to false to use it again")]
    Disabled {
        /// `status.phase`.
        phase: String,
    },
    /// The object is on its way out.
    #[error("the rollout is being deleted: there is no step to approve")]
    Deleting,
    /// All steps are behind.
    #[error("all {steps} steps are done and the release is being finished: there is nothing left to approve")]
    Finished {
        /// Steps of the plan.
        steps: usize,
    },
    /// The release is being taken back.
    #[error(
        "the release is being cancelled, requests and pods return to the stable version: there is no step to approve"
    )]
    Cancelling,
    /// Another step than the one that was asked for.
    #[error("it is at step {step} of {steps} ({state}), not at step {asked}")]
    OtherStep {
        /// The step that `--step` names.
        asked: i32,
        /// The step that it is at.
        step: i32,
        /// Steps of the plan.
        steps: usize,
        /// State of that step.
        state: String,
    },
    /// The step is in place, and its metrics are not judged yet.
    #[error(
        "step {step} of {steps} is still being measured{detail}: wait for the verdict, or go on without it by --unmeasured"
    )]
    Measured {
        /// The step, 1-based.
        step: i32,
        /// Steps of the plan.
        steps: usize,
        /// What it waits for, in parentheses.
        detail: String,
    },
    /// The step is still being carried out.
    #[error(
        "step {step} of {steps} is {state}, not StepPaused{detail}: it can be approved once it waits, see `rollout status --until=paused`"
    )]
    Busy {
        /// The step, 1-based.
        step: i32,
        /// Steps of the plan.
        steps: usize,
        /// Its state.
        state: String,
        /// What it waits for, in parentheses.
        detail: String,
    },
}

/// An approval that names the step it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// For the `status` subresource.
    pub patch: Patch,
    /// The step, 1-based.
    pub step: i32,
    /// Steps of the plan.
    pub steps: usize,
}

/// The JSON patch that approves the step at which the Rollout waits. Its `test` operations name step, state and
/// revision, so that the server refuses it when the release went on meanwhile.
///
/// # Errors
/// When no step waits.
pub fn approval_patch(rollout: &Rollout) -> Result<Patch, NotPaused> {
    approval(rollout, None, false).map(|a| a.patch)
}

/// As [`approval_patch`], and only for the step that is asked for; `unmeasured`: also while its metrics are not judged.
///
/// # Errors
/// When no step waits, or another one.
pub fn approval(rollout: &Rollout, asked: Option<i32>, unmeasured: bool) -> Result<Approval, NotPaused> {
    let view = View::of(rollout);
    let steps = view.steps.len();
    let phase = cell(view.phase);
    if rollout.metadata.deletion_timestamp.is_some() || view.phase == phases::TERMINATING {
        return Err(NotPaused::Deleting);
    }
    if [phases::DISABLED, phases::DISABLING].contains(&view.phase) {
        return Err(NotPaused::Disabled { phase });
    }
    let Some(release) = view.release.filter(|r| view.phase == phases::PROGRESSING && r.step > 0) else {
        return Err(NotPaused::NoRelease { phase });
    };
    if view.is_cancelling() {
        return Err(NotPaused::Cancelling);
    }
    let (step, state) = (release.step, view.state());
    if state == Some(StepState::Completed) {
        return Err(NotPaused::Finished { steps });
    }
    if let Some(asked) = asked.filter(|asked| *asked != step) {
        return Err(NotPaused::OtherStep { asked, step, steps, state: release.state.to_owned() });
    }
    let detail = || {
        let why = view.stalled().map_or(view.message, |c| c.message.as_str());
        if why.is_empty() { String::new() } else { format!(" ({why})") }
    };
    match state {
        Some(StepState::StepPaused) => {}
        Some(StepState::StepReady) => return Err(NotPaused::AlreadyApproved { step, steps }),
        Some(StepState::StepMetricsAnalysis) if release.is_measured && unmeasured => {}
        Some(StepState::StepMetricsAnalysis) if release.is_measured => {
            return Err(NotPaused::Measured { step, steps, detail: detail() });
        }
        _ => {
            let detail = detail();
            return Err(NotPaused::Busy { step, steps, state: cell(release.state), detail });
        }
    }
    let path = |field: &str| PointerBuf::from_tokens(["status", release.field, field]);
    let test = |field: &str, value: Value| PatchOperation::Test(TestOperation { path: path(field), value });
    let mut operations = vec![test("currentStepIndex", step.into()), test("currentStepState", release.state.into())];
    // Another writer may leave the revision out; a test of an absent field would always fail.
    if !release.canary_revision.is_empty() {
        operations.push(test(release.revision_field, release.canary_revision.into()));
    }
    operations.push(PatchOperation::Replace(ReplaceOperation {
        path: path("currentStepState"),
        value: StepState::StepReady.as_str().into(),
    }));
    Ok(Approval { patch: Patch(operations), step, steps })
}
