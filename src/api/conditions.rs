//! Condition types, reasons, phases and step states: the words that platforms poll for and alerts match.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::v1beta1::Condition;

/// Condition types of a Rollout.
pub mod types {
    /// A release is going on, or how the last one ended.
    pub const PROGRESSING: &str = "Progressing";
    /// The last release ended with the new version (`True`) or was cancelled (`False`).
    pub const SUCCEEDED: &str = "Succeeded";
    /// The Rollout is being deleted.
    pub const TERMINATING: &str = "Terminating";
    /// Something that a person must mend keeps the release where it is. Absent when nothing does.
    pub const STALLED: &str = "Stalled";
    /// A script of the ConfigMap was changed during the release and its new text does not work: the old one goes on. Absent
    /// when every script is what the ConfigMap says.
    pub const SCRIPT_REJECTED: &str = "ScriptRejected";
    /// What the cluster cannot promise, such as holding a change while the controller is down.
    pub const DEGRADED: &str = "Degraded";
}

/// Reasons of conditions and events.
pub mod reasons {
    /// A release was captured and is being prepared.
    pub const INITIALIZING: &str = "Initializing";
    /// Steps are being executed.
    pub const IN_ROLLING: &str = "InRolling";
    /// `strategy.paused` is true.
    pub const PAUSED: &str = "Paused";
    /// The template went back to the stable one.
    pub const CANCELLING: &str = "Cancelling";
    /// All steps are done; traffic and workload are being put in order.
    pub const FINALISING: &str = "Finalising";
    /// Done.
    pub const COMPLETED: &str = "Completed";
    /// The Rollout is being deleted.
    pub const IN_TERMINATING: &str = "InTerminating";

    /// The Rollout's spec cannot be followed; the message names field and remedy.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The workload does not exist.
    pub const WORKLOAD_NOT_FOUND: &str = "WorkloadNotFound";
    /// The workload is set up to be rolled by nobody but its owner.
    pub const NOT_OURS_TO_ROLL: &str = "NotOursToRoll";
    /// OpenKruise Rollouts has begun a release that was not taken over yet.
    pub const NOT_ADOPTED: &str = "NotAdopted";
    /// A Service that a trafficRouting names does not exist.
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    /// A networkRef does not exist, or its kind is not installed.
    pub const NETWORK_REF_NOT_FOUND: &str = "NetworkRefNotFound";
    /// The TrafficRouting that the Rollout shares does not exist, or is going.
    pub const TRAFFIC_ROUTING_NOT_FOUND: &str = "TrafficRoutingNotFound";
    /// No script is known for a networkRef's kind.
    pub const SCRIPT_NOT_FOUND: &str = "ScriptNotFound";
    /// A script changed during a release, and its new text serves from now on.
    pub const SCRIPT_CHANGED: &str = "ScriptChanged";
    /// A script changed during a release, and its new text does not work: the old one goes on.
    pub const SCRIPT_REJECTED: &str = "ScriptRejected";
    /// A script failed, exceeded its budget, or returned what cannot be written.
    pub const SCRIPT_FAILED: &str = "ScriptFailed";
    /// A script's result breaks a rule that every route must keep.
    pub const ROUTE_REFUSED: &str = "RouteRefused";
    /// The controller may not read a kind that it needs.
    pub const READ_REFUSED: &str = "ReadRefused";
    /// A gateway does not take a route; the route before it comes back.
    pub const GATEWAY_REFUSED: &str = "GatewayRefused";
    /// The API server refused a write of ours.
    pub const WRITE_REFUSED: &str = "WriteRefused";
    /// A write of ours would have broken a rule that every write must keep, and was not made.
    pub const WRITE_GUARDED: &str = "WriteGuarded";
    /// The API server could not be reached, or answered with an error of its own.
    pub const API_UNAVAILABLE: &str = "ApiUnavailable";
    /// An object with the name that we need exists and is not ours.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// Another Rollout names the same workload.
    pub const WORKLOAD_SHARED: &str = "WorkloadShared";
    /// Two Rollouts or tools changed the same object.
    pub const APPROVAL_IGNORED: &str = "ApprovalIgnored";
    /// The cluster cannot hold changed workloads by itself.
    pub const HOLD_UNAVAILABLE: &str = "HoldUnavailable";
    /// A change came through without being held and was stopped late.
    pub const LATE_HOLD: &str = "LateHold";

    /// A release that has ended could not be recorded.
    pub const NO_HISTORY: &str = "NoHistory";

    /// Pods of the new version cannot become ready; the message names one, its container and what it said last.
    pub const PODS_FAILING: &str = "PodsFailing";
    /// A step was not in place by its deadline.
    pub const STEP_FAILED: &str = "StepFailed";
    /// The template is one that was rolled back because a step failed.
    pub const REVISION_FAILED: &str = "RevisionFailed";

    /// A metric was out of its bounds too often, or its data were missing for too long.
    pub const ANALYSIS_FAILED: &str = "AnalysisFailed";
    /// Answers of a metrics server cannot be judged; a person has to.
    pub const ANALYSIS_INCONCLUSIVE: &str = "AnalysisInconclusive";
    /// Metrics cannot be asked for: something is wrong with the question, or there have been no data for too long.
    pub const ANALYSIS_STUCK: &str = "AnalysisStuck";
    /// One measurement that was not good.
    pub const METRIC_NOT_GOOD: &str = "MetricNotGood";
    /// All metrics of a step passed.
    pub const ANALYSIS_PASSED: &str = "AnalysisPassed";
    /// The change windows for all Rollouts cannot be read, or none of them will ever be open.
    pub const CHANGE_WINDOWS_INVALID: &str = "ChangeWindowsInvalid";
    /// A hook lets the release go on.
    pub const HOOK_ALLOWED: &str = "HookAllowed";
    /// A hook wants the release to wait.
    pub const HOOK_HELD: &str = "HookHeld";
    /// A hook refuses that the release goes on.
    pub const HOOK_REFUSED: &str = "HookRefused";
    /// A hook does not answer.
    pub const HOOK_UNREACHABLE: &str = "HookUnreachable";
    /// A hook cannot be asked as it is configured.
    pub const HOOK_STUCK: &str = "HookStuck";
    /// The Job of a gate has failed, or cannot be made.
    pub const GATE_FAILED: &str = "GateFailed";
    /// The gateway answers as the traffic proof of a step wants it.
    pub const TRAFFIC_PROVEN: &str = "TrafficProven";
    /// It does not, or the requests cannot be sent.
    pub const TRAFFIC_UNPROVEN: &str = "TrafficUnproven";
    /// People could not be told of something.
    pub const NOTIFICATION_FAILED: &str = "NotificationFailed";
    /// A gate of a step was passed.
    pub const GATE_PASSED: &str = "GatePassed";
    /// A step begins outside the change windows because a person said so.
    pub const CHANGE_WINDOW_OVERRIDDEN: &str = "ChangeWindowOverridden";

    /// A step was entered.
    pub const STEP_STARTED: &str = "StepStarted";
    /// The canary pods of a step are ready.
    pub const STEP_UPGRADED: &str = "StepUpgraded";
    /// Routes of a step were written.
    pub const TRAFFIC_ROUTED: &str = "TrafficRouted";
    /// A step waits for a person or for time.
    pub const STEP_PAUSED: &str = "StepPaused";
    /// A person approved a step.
    pub const APPROVED: &str = "Approved";
    /// The template went back to stable; the release is cancelled.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// A newer template arrived during a release.
    pub const RESTARTED: &str = "Restarted";
    /// Routes, Services and workload equal what they were before the release.
    pub const RESTORED: &str = "Restored";
}

/// Values of `status.phase`.
pub mod phases {
    /// The workload was not seen yet.
    pub const INITIAL: &str = "Initial";
    /// Nothing to release.
    pub const HEALTHY: &str = "Healthy";
    /// A release is going on.
    pub const PROGRESSING: &str = "Progressing";
    /// The Rollout is being deleted.
    pub const TERMINATING: &str = "Terminating";
    /// `spec.disabled` is true and nothing of ours is left.
    pub const DISABLED: &str = "Disabled";
    /// `spec.disabled` is true and a release is being wound up.
    pub const DISABLING: &str = "Disabling";
    /// Of a TrafficRouting: no Rollout needs it any more, and its routes are being put back.
    pub const FINALIZING: &str = "Finalizing";
}

/// Values of `currentStepState`, in the order in which a step passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepState {
    /// Traffic is prepared for the pods that come.
    BeforeStepUpgrade,
    /// Canary pods are brought up.
    StepUpgrade,
    /// Routes are changed.
    StepTrafficRouting,
    /// Metrics are judged.
    StepMetricsAnalysis,
    /// The step waits for a person or for time.
    StepPaused,
    /// The step is approved.
    StepReady,
    /// All steps are done.
    Completed,
}

impl StepState {
    const ALL: [StepState; 7] = [
        StepState::BeforeStepUpgrade,
        StepState::StepUpgrade,
        StepState::StepTrafficRouting,
        StepState::StepMetricsAnalysis,
        StepState::StepPaused,
        StepState::StepReady,
        StepState::Completed,
    ];

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            StepState::BeforeStepUpgrade => "BeforeStepUpgrade",
            StepState::StepUpgrade => "StepUpgrade",
            StepState::StepTrafficRouting => "StepTrafficRouting",
            StepState::StepMetricsAnalysis => "StepMetricsAnalysis",
            StepState::StepPaused => "StepPaused",
            StepState::StepReady => "StepReady",
            StepState::Completed => "Completed",
        }
    }

    /// The state that a wire value names. People write this field, so anything may be in it.
    pub fn parse(text: &str) -> Option<StepState> {
        StepState::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// Sets a condition. Nothing changes when status, reason and message are the same; `lastTransitionTime` is kept while
/// status is the same.
pub fn set(conditions: &mut Vec<Condition>, r#type: &str, status: bool, reason: &str, message: &str, now: Timestamp) {
    let status = if status { "True" } else { "False" };
    let old = conditions.iter().position(|c| c.r#type == r#type).map(|i| conditions.remove(i));
    let unchanged = old.as_ref().is_some_and(|c| c.status == status && c.reason == reason && c.message == message);
    let condition = match old {
        Some(old) if unchanged => old,
        old => Condition {
            r#type: r#type.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_update_time: Some(Time(now)),
            last_transition_time: old
                .filter(|c| c.status == status)
                .and_then(|c| c.last_transition_time)
                .or(Some(Time(now))),
        },
    };
    // Sorted by type, so that an unchanged set is an unchanged list.
    let at = conditions.partition_point(|c| c.r#type.as_str() < r#type);
    conditions.insert(at, condition);
}

/// Removes a condition.
pub fn remove(conditions: &mut Vec<Condition>, r#type: &str) {
    conditions.retain(|c| c.r#type != r#type);
}

/// Finds a condition.
pub fn find<'a>(conditions: &'a [Condition], r#type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.r#type == r#type)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Type, status, reason, second of the last update and of the last transition.
    fn shown(conditions: &[Condition]) -> Vec<(&str, &str, &str, i64, i64)> {
        let second = |t: &Option<Time>| t.as_ref().unwrap().0.as_second();
        conditions
            .iter()
            .map(|c| {
                let times = (second(&c.last_update_time), second(&c.last_transition_time));
                (c.r#type.as_str(), c.status.as_str(), c.reason.as_str(), times.0, times.1)
            })
            .collect()
    }

    #[test]
    fn times_follow_what_changed() {
        let mut conditions = Vec::new();
        set(&mut conditions, "B", true, "First", "m", at(1));
        assert_eq!(shown(&conditions), [("B", "True", "First", 1, 1)]);
        set(&mut conditions, "B", true, "First", "m", at(2));
        assert_eq!(shown(&conditions), [("B", "True", "First", 1, 1)], "nothing changed");
        set(&mut conditions, "B", true, "Second", "m", at(3));
        assert_eq!(shown(&conditions), [("B", "True", "Second", 3, 1)], "the status is the same");
        set(&mut conditions, "B", true, "Second", "n", at(4));
        assert_eq!(shown(&conditions), [("B", "True", "Second", 4, 1)], "the message is another");
        set(&mut conditions, "B", false, "Second", "n", at(5));
        assert_eq!(shown(&conditions), [("B", "False", "Second", 5, 5)], "the status is another");
    }

    #[test]
    fn conditions_stay_sorted_and_are_one_a_type() {
        let mut conditions = Vec::new();
        for name in ["C", "A", "B", "C", "A"] {
            set(&mut conditions, name, true, "", "", at(1));
        }
        assert_eq!(conditions.iter().map(|c| c.r#type.as_str()).collect::<Vec<_>>(), ["A", "B", "C"]);
        remove(&mut conditions, "B");
        assert!(find(&conditions, "B").is_none() && find(&conditions, "C").is_some());
        remove(&mut conditions, "B");
        assert_eq!(conditions.len(), 2);
    }

    #[test]
    fn a_condition_without_times_gets_them() {
        let mut conditions = vec![Condition { r#type: "A".into(), status: "True".into(), ..Condition::default() }];
        set(&mut conditions, "A", true, "R", "", at(7));
        assert_eq!(shown(&conditions), [("A", "True", "R", 7, 7)]);
    }

    #[test]
    fn step_states_read_back() {
        for state in StepState::ALL {
            assert_eq!(StepState::parse(state.as_str()), Some(state));
        }
        assert_eq!(StepState::parse("stepready"), None);
    }
}
