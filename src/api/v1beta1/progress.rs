//! Where a release stands: the contract keeps one form for canary and partition style, and one for blue-green.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GateStatus;
use crate::api::analysis::AnalysisStatus;

/// Where a release in canary or partition style stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// Generation of the workload while its revision matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_workload_generation: Option<i64>,
    /// The release's id: the workload's `rollout-id` label, else the canary revision.
    #[serde(default, rename = "observedRolloutID", skip_serializing_if = "String::is_empty")]
    pub observed_rollout_id: String,
    /// Hash of the plan that this status was computed for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout_hash: String,
    /// Revision of the pods that ran before; the value of their revision label.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_revision: String,
    /// Value of the label that selects the new pods.
    #[serde(default)]
    pub pod_template_hash: String,
    /// Revision of the new template.
    #[serde(default)]
    pub canary_revision: String,
    /// Pods of the new version.
    #[serde(default)]
    pub canary_replicas: i32,
    /// Of those, ready ones.
    #[serde(default)]
    pub canary_ready_replicas: i32,
    /// The current step, 1-based.
    #[serde(default)]
    pub current_step_index: i32,
    /// The step to come; -1 after the last. A person may write it to jump.
    #[serde(default)]
    pub next_step_index: i32,
    /// `BeforeStepUpgrade` to `Completed`. A person writes `StepReady` to approve.
    #[serde(default)]
    pub current_step_state: String,
    /// Where the winding-up stands; empty before it.
    #[serde(default)]
    pub finalising_step: String,
    /// Detail about the pods.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Start of the current state, or the last change of the network: the base of pauses and grace periods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// The step that waits for an approval. An approval counts only while this equals `currentStepIndex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_step_index: Option<i32>,
    /// A change of the network that is given time to reach the data planes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling: Option<Settling>,
    /// When the current step began, while it has a deadline and is not in place yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_start_time: Option<Time>,
    /// The gates of a step that is in place. Whoever passes one sets its `isPassed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// The step that a person has approved, while the next one is not let in yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_step_index: Option<i32>,
    /// The step that was not in place by its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step_index: Option<i32>,
    /// Revision whose step failed and that was rolled back for it. It is not tried again by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed_revision: String,
    /// What the metrics said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStatus>,
    /// Who approved the current step, or jumped from it: told by the webhook, taken up by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said_by: Option<Word>,
    /// Who moved this release by hand, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

/// What a person said to a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Word {
    /// The step at which it was said, 1-based.
    #[serde(default)]
    pub step: i32,
    /// `Approved` or `Jumped`.
    #[serde(default)]
    pub deed: String,
    /// The step that was jumped to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<i32>,
    /// The user, as the API server knows him.
    #[serde(default)]
    pub by: String,
    /// When the controller took it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

impl Word {
    /// Value of [`deed`](Self::deed): the step is good.
    pub const APPROVED: &str = "Approved";
    /// Value of [`deed`](Self::deed): another step comes next.
    pub const JUMPED: &str = "Jumped";
}

/// A change of the network that is given time to reach the data planes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settling {
    /// Which change.
    pub what: String,
    /// When it was first seen in place.
    pub since: Option<Time>,
}

/// Where a release in blue-green style stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreenStatus {
    /// Generation of the workload while its revision matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_workload_generation: Option<i64>,
    /// The release's id.
    #[serde(default, rename = "observedRolloutID", skip_serializing_if = "String::is_empty")]
    pub observed_rollout_id: String,
    /// Hash of the plan that this status was computed for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rollout_hash: String,
    /// Revision of the pods that ran before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_revision: String,
    /// Value of the label that selects the new pods.
    #[serde(default)]
    pub pod_template_hash: String,
    /// Revision of the new template.
    #[serde(default)]
    pub updated_revision: String,
    /// Pods of the new version.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Of those, ready ones.
    #[serde(default)]
    pub updated_ready_replicas: i32,
    /// The current step, 1-based.
    #[serde(default)]
    pub current_step_index: i32,
    /// The step to come; -1 after the last.
    #[serde(default)]
    pub next_step_index: i32,
    /// `BeforeStepUpgrade` to `Completed`.
    #[serde(default)]
    pub current_step_state: String,
    /// Where the winding-up stands.
    #[serde(default)]
    pub finalising_step: String,
    /// Detail about the pods.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Start of the current state, or the last change of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// The step that waits for an approval. An approval counts only while this equals `currentStepIndex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_step_index: Option<i32>,
    /// A change of the network that is given time to reach the data planes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling: Option<Settling>,
    /// When the current step began, while it has a deadline and is not in place yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_start_time: Option<Time>,
    /// The gates of a step that is in place. Whoever passes one sets its `isPassed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStatus>,
    /// The step that a person has approved, while the next one is not let in yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_step_index: Option<i32>,
    /// The step that was not in place by its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step_index: Option<i32>,
    /// Revision whose step failed and that was rolled back for it. It is not tried again by itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed_revision: String,
    /// What the metrics said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisStatus>,
    /// Who approved the current step, or jumped from it: told by the webhook, taken up by the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said_by: Option<Word>,
    /// Who moved this release by hand, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}
