use serde_json::{Value, json};

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
        (phase("Healthy"), "no release is going on (status Healthy): change the workload's pod template to start one"),
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
