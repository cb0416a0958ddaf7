use serde_json::json;

use super::{fixtures::*, *};

#[test]
fn the_share_in_force_is_that_of_the_last_routed_step() {
    for (step, state, share) in [
        (1, "BeforeStepUpgrade", "0%"),
        (1, "StepTrafficRouting", "0%"),
        (1, "StepMetricsAnalysis", "20%"),
        (1, "StepPaused", "20%"),
        (1, "StepReady", "20%"),
        (2, "StepUpgrade", "20%"),
        (2, "StepPaused", "match"),
        (2, "Completed", ""),
        (9, "StepPaused", "0%"),
        (1, "WhoKnows", ""),
    ] {
        assert_eq!(View::of(&typed(&at(step, state))).share(), share, "{step} {state}");
    }
    let healthy = with(at(1, "StepPaused"), &json!({"status": {"phase": "Healthy"}}));
    assert_eq!(View::of(&typed(&healthy)).share(), "");
    let unrouted = with(at(1, "StepPaused"), &json!({"spec": {"strategy": {"canary": {"trafficRoutings": null}}}}));
    assert_eq!(View::of(&typed(&unrouted)).share(), "");
}

#[test]
fn styles_follow_both_spellings() {
    let style = |value: &serde_json::Value| View::of(&typed(value)).style;
    let base = at(1, "StepPaused");
    assert_eq!(style(&base), "Canary");
    let annotated =
        with(base.clone(), &json!({"metadata": {"annotations": {"rollouts.kruise.io/rolling-style": "Partition"}}}));
    assert_eq!(style(&annotated), "Partition");
    let explicit = with(annotated, &json!({"spec": {"strategy": {"canary": {"enableExtraWorkloadForCanary": true}}}}));
    assert_eq!(style(&explicit), "Canary");
    let beta = with(
        base,
        &json!({"metadata": {"annotations": null}, "spec": {"objectRef": null,
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
    );
    assert_eq!(style(&beta), "Partition");
    assert_eq!(style(&blue_green(1, "StepPaused")), "BlueGreen");
}

#[test]
fn steps_in_words() {
    let words = |step: serde_json::Value| step_words(&serde_json::from_value(step).unwrap());
    assert_eq!(words(json!({"weight": 20})), "20% of requests, then approval");
    assert_eq!(
        words(json!({"replicas": "50%", "traffic": "5%", "pause": {"duration": 60}})),
        "50% of pods, 5% of requests, then 60 s"
    );
    assert_eq!(words(json!({"replicas": 1, "pause": {"duration": 0}})), "1 pod, then on");
    assert_eq!(
        words(json!({"replicas": 2, "matches": [
            {"path": {"value": "/api"}, "headers": [{"name": "a", "value": "b"}]},
            {"queryParams": [{"type": "RegularExpression", "name": "c", "value": "d.*"}]}, {}]})),
        "2 pods, requests with path /api (PathPrefix) and header a=b or query c~d.* or anything, then approval"
    );
}

#[test]
fn a_release_that_is_taken_back_waits_for_nobody_and_shares_nothing() {
    let value = with(
        at(1, "StepPaused"),
        &json!({"status": {"conditions": [{"type": "Progressing", "status": "True", "reason": "Cancelling", "message": ""}]}}),
    );
    let rollout = typed(&value);
    let view = View::of(&rollout);
    assert!(view.is_cancelling() && !view.is_paused() && !view.needs_approval());
    assert_eq!(view.share(), "");
}

#[test]
fn only_a_pause_without_time_needs_a_person() {
    assert!(View::of(&typed(&at(1, "StepPaused"))).needs_approval());
    assert!(!View::of(&typed(&at(1, "StepReady"))).needs_approval());
    assert!(View::of(&typed(&blue_green(1, "StepPaused"))).needs_approval());
    assert!(!View::of(&typed(&blue_green(2, "StepPaused"))).needs_approval());
}
