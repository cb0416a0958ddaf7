//! A Rollout as a person sees it: both strategies and both API versions in one form, however little is there.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};

use crate::api::{
    analysis::{AnalysisPhase, AnalysisStatus},
    conditions::{self, StepState, phases, reasons, types},
    keys,
    v1beta1::{
        Condition, HttpRouteMatch, NetworkRef, Rollout, RolloutStatus, Step, TrafficRoutingRef, Word, WorkloadRef,
    },
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
    });
    if prefers_blue_green { blue_green.or(canary) } else { canary.or(blue_green) }
}

/// What a step asks of the gateways: `20%`, `match` (these requests and no others), or `0%`.
pub fn step_share(step: &Step) -> String {
    if !step.matches.is_empty() {
        return "match".to_owned();
    }
    match (&step.traffic, step.weight) {
        (Some(traffic), _) => traffic.clone(),
        (None, Some(weight)) => format!("{weight}%"),
        (None, None) => "0%".to_owned(),
    }
}

fn is_measured(analysis: Option<&AnalysisStatus>, step: i32) -> bool {
    let run = analysis.and_then(|analysis| analysis.step.as_ref());
    run.is_some_and(|run| run.step_index == step && run.phase == AnalysisPhase::Running)
}

/// A step in words: pods, requests, and what it waits for.
pub fn step_words(step: &Step) -> String {
    let mut words = Vec::new();
    match &step.replicas {
        Some(IntOrString::Int(1)) => words.push("1 pod".to_owned()),
        Some(IntOrString::Int(pods)) => words.push(format!("{pods} pods")),
        Some(IntOrString::String(percent)) => words.push(format!("{percent} of pods")),
        None => {}
    }
    if step.matches.is_empty() {
        if step.traffic.is_some() || step.weight.is_some() {
            words.push(format!("{} of requests", step_share(step)));
        }
    } else {
        let matches: Vec<String> = step.matches.iter().map(match_words).collect();
        words.push(format!("requests with {}", matches.join(" or ")));
    }
    words.push(match step.pause.as_ref().and_then(|p| p.duration) {
        None => "then approval".to_owned(),
        Some(0) => "then on".to_owned(),
        Some(seconds) => format!("then {seconds} s"),
    });
    words.join(", ")
}

fn match_words(entry: &HttpRouteMatch) -> String {
    let equals = |kind: &crate::api::v1beta1::ValueMatchType| match kind {
        crate::api::v1beta1::ValueMatchType::Exact => "=",
        crate::api::v1beta1::ValueMatchType::RegularExpression => "~",
    };
    let mut parts = Vec::new();
    if let Some(path) = &entry.path {
        parts.push(format!("path {} ({:?})", path.value, path.r#type));
    }
    parts.extend(entry.headers.iter().map(|h| format!("header {}{}{}", h.name, equals(&h.r#type), h.value)));
    parts.extend(entry.query_params.iter().map(|q| format!("query {}{}{}", q.name, equals(&q.r#type), q.value)));
    if parts.is_empty() { "anything".to_owned() } else { parts.join(" and ") }
}

#[cfg(test)]
pub(super) mod fixtures {
    use serde_json::{Value, json};

    use crate::api::v1beta1::Rollout;

    /// The story's Rollout, v1alpha1-shaped, at a step of its release.
    pub fn at(step: i32, state: &str) -> Value {
        json!({
            "apiVersion": "rollouts.kruise.io/v1beta1",
            "kind": "Rollout",
            "metadata": {
                "name": "rollouts-demo", "namespace": "shop", "uid": "u-1", "generation": 1, "resourceVersion": "7",
                "creationTimestamp": "2026-11-22T05:00:00Z",
                "annotations": {"rollouts.kruise.io/rolling-style": "canary"}
            },
            "spec": {
                "disabled": false,
                "objectRef": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-deployment"}},
                "strategy": {"canary": {
                    "steps": [
                        {"weight": 20},
                        {"replicas": 1, "matches": [{"headers": [{"type": "Exact", "name": "version", "value": "canary"}]}]}
                    ],
                    "trafficRoutings": [{
                        "service": "nginx-service",
                        "createCanaryService": false,
                        "networkRefs": [
                            {"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "name": "nginx-vs"},
                            {"apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule", "name": "nginx-dr"}
                        ]
                    }],
                    "patchPodTemplateMetadata": {"labels": {"version": "canary"}}
                }}
            },
            "status": {
                "phase": "Progressing",
                "message": format!("Rollout is in step({step}/2)"),
                "observedGeneration": 1,
                "currentStepIndex": step,
                "currentStepState": state,
                "conditions": [{"type": "Progressing", "status": "True", "reason": "InRolling",
                    "message": "Rollout is in Progressing", "lastTransitionTime": "2026-11-22T05:10:00Z"}],
                "canaryStatus": {
                    "stableRevision": "stable1", "podTemplateHash": "canary1", "canaryRevision": "rev2",
                    "canaryReplicas": 1, "canaryReadyReplicas": 1,
                    "currentStepIndex": step, "nextStepIndex": if step < 2 { step + 1 } else { -1 },
                    "currentStepState": state, "finalisingStep": "",
                    "lastUpdateTime": "2026-11-22T05:12:00Z"
                }
            }
        })
    }

    /// The same with a merge patch applied.
    pub fn with(mut value: Value, patch: &Value) -> Value {
        json_patch::merge(&mut value, patch);
        value
    }

    /// Read as the commands read it.
    pub fn typed(value: &Value) -> Rollout {
        super::super::resources::typed(&serde_json::from_value(value.clone()).unwrap()).unwrap()
    }

    /// A Rollout whose only release is in blue-green style.
    pub fn blue_green(step: i32, state: &str) -> Value {
        with(
            at(step, state),
            &json!({
                "spec": {"objectRef": null, "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                         "strategy": {"canary": null, "blueGreen": {"steps": [{"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%", "pause": {"duration": 60}}],
                                      "trafficRoutings": [{"service": "web", "gateway": {"httpRouteName": "web-route"}}]}}},
                "status": {"canaryStatus": null, "blueGreenStatus": {
                    "stableRevision": "s", "podTemplateHash": "h", "updatedRevision": "u", "updatedReplicas": 3, "updatedReadyReplicas": 2,
                    "currentStepIndex": step, "nextStepIndex": 2, "currentStepState": state, "finalisingStep": ""}}
            }),
        )
    }
}

#[cfg(test)]
mod tests {
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
        let annotated = with(
            base.clone(),
            &json!({"metadata": {"annotations": {"rollouts.kruise.io/rolling-style": "Partition"}}}),
        );
        assert_eq!(style(&annotated), "Partition");
        let explicit =
            with(annotated, &json!({"spec": {"strategy": {"canary": {"enableExtraWorkloadForCanary": true}}}}));
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
}
