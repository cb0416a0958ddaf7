//! `rollout approve`: says that the step that waits is good.

use json_patch::{Patch, PatchOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf};
use kube::{
    Api, Client,
    api::{DynamicObject, PatchParams},
};
use serde_json::Value;

use super::{
    output::{Io, Whole, object},
    resources::{self, RESOURCE, Usage},
    view::View,
};
use crate::api::{
    conditions::{StepState, phases},
    v1beta1::Rollout,
};

/// Arguments of `rollout approve`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Args {
    /// rollout/NAME, or rollout NAME; several at once
    #[arg(required = true, value_name = "RESOURCE")]
    pub resources: Vec<String>,
    /// Approve only if the Rollout is at this step (1-based)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub step: Option<i32>,
    /// Approve also a step whose metrics are not judged yet: the release goes on without their verdict
    #[arg(long)]
    pub unmeasured: bool,
    /// client: only say what would be approved; server: let the API server check it without keeping it
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    pub dry_run: DryRun,
    /// Print the object instead of a sentence
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
}

/// Where an approval is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// It is done.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// Sent, checked, not kept.
    Server,
}

/// Forms of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// The object after the approval.
    Json,
    /// The object after the approval.
    Yaml,
    /// `rollout.rollouts.kruise.io/NAME`.
    Name,
}

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
    let phase = super::table::cell(view.phase);
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
            return Err(NotPaused::Busy { step, steps, state: super::table::cell(release.state), detail });
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

/// Approves each of the Rollouts; a failure of one does not keep the others. True when all are approved.
///
/// # Errors
/// A wrong command line, or a closed output.
pub async fn run(args: &Args, client: Client, namespace: &str, io: &mut Io<'_>) -> anyhow::Result<bool> {
    let names = resources::some_names(&args.resources)?;
    if args.step.is_some() && names.len() > 1 {
        return Err(Usage("--step goes with one Rollout: each has steps of its own".to_owned()).into());
    }
    let api = resources::api(&client, namespace);
    let mut all = true;
    for name in &names {
        match approve(&api, namespace, name, args).await {
            Ok(done) => {
                io.print(&done.text)?;
                if let Some(note) = done.note {
                    io.note(&note)?;
                }
            }
            Err(error) => {
                all = false;
                io.note(&format!("error: {error:#}"))?;
            }
        }
    }
    Ok(all)
}

struct Done {
    text: String,
    note: Option<String>,
}

async fn approve(api: &Api<DynamicObject>, namespace: &str, name: &str, args: &Args) -> anyhow::Result<Done> {
    let read = api.get(name).await.map_err(|e| resources::failure(&e, namespace, name))?;
    let rollout = resources::typed(&read)?;
    let approval = match approval(&rollout, args.step, args.unmeasured) {
        Ok(approval) => approval,
        Err(already @ NotPaused::AlreadyApproved { .. }) => return done(&read, name, &already.to_string(), args, None),
        Err(why) => anyhow::bail!("{RESOURCE} {name:?} cannot be approved: {why}"),
    };
    let Approval { patch, step, steps } = approval;
    let note = View::of(&rollout).is_frozen().then(|| {
        format!("note: rollout/{name} is frozen by spec.strategy.paused; it goes on when that is set to false")
    });
    let of = format!("(step {step} of {steps})");
    if args.dry_run == DryRun::Client {
        let mut value = serde_json::to_value(&read)?;
        json_patch::patch(&mut value, &patch)?;
        return done(&serde_json::from_value(value)?, name, &format!("approved {of} (dry run)"), args, note);
    }
    let params = PatchParams {
        dry_run: args.dry_run == DryRun::Server,
        field_manager: Some("tidegate-approve".to_owned()),
        ..PatchParams::default()
    };
    match api.patch_status(name, &params, &kube::api::Patch::<DynamicObject>::Json(patch)).await {
        Ok(written) => {
            let operation =
                if params.dry_run { format!("approved {of} (server dry run)") } else { format!("approved {of}") };
            done(&written, name, &operation, args, note)
        }
        // A failed test is 422; 409 means that others wrote all the while.
        Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {
            lost_race(api, namespace, name, step, args, &status.message).await
        }
        Err(error) => Err(resources::failure(&error, namespace, name)),
    }
}

/// The release moved between our read and our write. If someone else approved this step, that is what was wanted.
async fn lost_race(
    api: &Api<DynamicObject>,
    namespace: &str,
    name: &str,
    step: i32,
    args: &Args,
    refusal: &str,
) -> anyhow::Result<Done> {
    let read = api.get(name).await.map_err(|e| resources::failure(&e, namespace, name))?;
    let why = match approval(&resources::typed(&read)?, Some(step), args.unmeasured) {
        Err(already @ NotPaused::AlreadyApproved { .. }) => return done(&read, name, &already.to_string(), args, None),
        Err(why) => why.to_string(),
        Ok(_) => format!("it waits at step {step} again; look at it and approve again (the server said: {refusal})"),
    };
    anyhow::bail!("{RESOURCE} {name:?} changed while step {step} was being approved, nothing was approved: {why}")
}

fn done(
    result: &DynamicObject,
    name: &str,
    operation: &str,
    args: &Args,
    note: Option<String>,
) -> anyhow::Result<Done> {
    let text = match args.output {
        None => format!("{RESOURCE}/{name} {operation}\n"),
        Some(Output::Json) => object(result, Whole::Json)?,
        Some(Output::Yaml) => object(result, Whole::Yaml)?,
        Some(Output::Name) => object(result, Whole::Name)?,
    };
    Ok(Done { text, note })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::view::fixtures::*, *};

    #[test]
    fn the_patch_names_the_step_that_it_approves() {
        let patch = approval_patch(&typed(&at(1, "StepPaused"))).unwrap();
        assert_eq!(
            serde_json::to_value(patch).unwrap(),
            json!([
                {"op": "test", "path": "/status/canaryStatus/currentStepIndex", "value": 1},
                {"op": "test", "path": "/status/canaryStatus/currentStepState", "value": "StepPaused"},
                {"op": "test", "path": "/status/canaryStatus/canaryRevision", "value": "rev2"},
                {"op": "replace", "path": "/status/canaryStatus/currentStepState", "value": "StepReady"}
            ])
        );
        let patch = approval_patch(&typed(&blue_green(2, "StepPaused"))).unwrap();
        assert_eq!(
            serde_json::to_value(patch).unwrap(),
            json!([
                {"op": "test", "path": "/status/blueGreenStatus/currentStepIndex", "value": 2},
                {"op": "test", "path": "/status/blueGreenStatus/currentStepState", "value": "StepPaused"},
                {"op": "test", "path": "/status/blueGreenStatus/updatedRevision", "value": "u"},
                {"op": "replace", "path": "/status/blueGreenStatus/currentStepState", "value": "StepReady"}
            ])
        );
    }

    #[test]
    fn the_patch_applies_to_what_was_read_and_to_nothing_later() {
        let patch = approval_patch(&typed(&at(1, "StepPaused"))).unwrap();
        let mut same = at(1, "StepPaused");
        json_patch::patch(&mut same, &patch).unwrap();
        assert_eq!(
            same,
            with(at(1, "StepPaused"), &json!({"status": {"canaryStatus": {"currentStepState": "StepReady"}}}))
        );
        for later in [
            at(2, "StepPaused"),
            at(1, "StepReady"),
            with(at(1, "StepPaused"), &json!({"status": {"canaryStatus": {"canaryRevision": "rev3"}}})),
        ] {
            assert!(json_patch::patch(&mut later.clone(), &patch).is_err());
        }
    }

    fn measured() -> Value {
        let run = json!({"stepIndex": 1, "phase": "Running"});
        with(at(1, "StepMetricsAnalysis"), &json!({"status": {"canaryStatus": {"analysis": {"step": run}}}}))
    }

    #[test]
    fn a_step_that_is_being_measured_is_approved_only_on_purpose() {
        let Approval { patch, .. } = approval(&typed(&measured()), None, true).unwrap();
        assert!(json_patch::patch(&mut measured(), &patch).is_ok());
        assert!(json_patch::patch(&mut at(1, "StepPaused"), &patch).is_err(), "the verdict came in between");
    }

    #[test]
    fn what_cannot_be_approved_says_where_it_is_and_what_would_help() {
        let phase = |phase: &str| with(at(1, "StepPaused"), &json!({"status": {"phase": phase}}));
        let stalled = with(
            at(1, "StepTrafficRouting"),
            &json!({"status": {"conditions": [
            {"type": "Stalled", "status": "True", "reason": "ScriptFailed", "message": "script: line 3"}]}}),
        );
        let cancelling = with(
            at(1, "StepPaused"),
            &json!({"status": {"conditions": [
            {"type": "Progressing", "status": "True", "reason": "Cancelling", "message": "x"}]}}),
        );
        for (value, message) in [
            (at(2, "StepReady"), "already approved (step 2 of 2)"),
            (
                at(1, "StepUpgrade"),
                "step 1 of 2 is StepUpgrade, not StepPaused (Rollout is in step(1/2)): it can be approved once it waits, see `rollout status --until=paused`",
            ),
            (
                stalled,
                "step 1 of 2 is StepTrafficRouting, not StepPaused (script: line 3): it can be approved once it waits, see `rollout status --until=paused`",
            ),
            (
                measured(),
                "step 1 of 2 is still being measured (Rollout is in step(1/2)): wait for the verdict, or go on without it by --unmeasured",
            ),
            (
                at(1, "StepMetricsAnalysis"),
                "step 1 of 2 is StepMetricsAnalysis, not StepPaused (Rollout is in step(1/2)): it can be approved once it waits, see `rollout status --until=paused`",
            ),
            (
                at(1, "Nonsense"),
                "step 1 of 2 is Nonsense, not StepPaused (Rollout is in step(1/2)): it can be approved once it waits, see `rollout status --until=paused`",
            ),
            (
                at(2, "Completed"),
                "all 2 steps are done and the release is being finished: there is nothing left to approve",
            ),
            (
                phase("Healthy"),
                "no release is going on (status Healthy): change the workload's pod template to start one",
            ),
            (
                with(at(1, "StepPaused"), &json!({"status": null})),
                "no release is going on (status -): change the workload's pod template to start one",
            ),
            (
                phase("Disabled"),
                "the rollout is Disabled: there is no step to approve; set spec.disabled to false to use it again",
            ),
            (phase("Terminating"), "the rollout is being deleted: there is no step to approve"),
            (
                cancelling,
                "the release is being cancelled, requests and pods return to the stable version: there is no step to approve",
            ),
        ] {
            assert_eq!(approval_patch(&typed(&value)).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_named_step_is_approved_only_there() {
        assert!(approval(&typed(&at(1, "StepPaused")), Some(1), false).is_ok());
        let message = approval(&typed(&at(2, "StepPaused")), Some(1), false).unwrap_err().to_string();
        assert_eq!(message, "it is at step 2 of 2 (StepPaused), not at step 1");
        let message = approval(&typed(&at(2, "StepReady")), Some(1), false).unwrap_err();
        assert!(matches!(message, NotPaused::OtherStep { asked: 1, step: 2, .. }), "{message}");
    }
}
