//! What the controller observed, whatever the style.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BlueGreenStatus, CanaryStatus, WorkloadRef};
use crate::api::{
    hooks::HooksStatus, notifications::NotificationsStatus, proof::ProofStatus, trace::TraceStatus,
    windows::WindowOverride,
};

/// What the controller observed and where the release stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// `Initial`, `Healthy`, `Progressing`, `Terminating`, `Disabled` or `Disabling`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What is waited for, and what would move it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation that this status was computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The workload that carries our label. It differs from the spec's while the one that was named before is let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadRef>,
    /// Copy of the release's current step, 1-based; 0 when there is none.
    #[serde(default)]
    pub current_step_index: i32,
    /// Copy of the release's step state.
    #[serde(default)]
    pub current_step_state: String,
    /// Conditions, one a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The release in canary or partition style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_status: Option<CanaryStatus>,
    /// The release in blue-green style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green_status: Option<BlueGreenStatus>,
    /// The release's place among those that may be in flight at the same time. Absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<Slot>,
    /// The last time that a person let a release begin steps outside its change windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change_window_override: Option<WindowOverride>,
    /// What hooks said in this release, or in the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksStatus>,
    /// What people were told of this release, or of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<NotificationsStatus>,
    /// The step, 1-based, whose routes every gateway has taken last in this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed_step_index: Option<i32>,
    /// Routes that a gateway did not take; those before them are in place until something about them changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_routes: Option<RefusedRoutes>,
    /// What the traffic proof of the present step said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofStatus>,
    /// The script that serves each object that routes, during a release; after it, those that served last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<ServingScript>,
    /// The trace of the release that goes on, where the controller sends traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceStatus>,
}

/// The script that serves an object that routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServingScript {
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `BuiltIn`, `ConfigMap` (the controller's), or `NamespaceConfigMap` (the namespace's own).
    pub source: String,
    /// The script: the path of a built-in one, or ConfigMap and key.
    pub script: String,
    /// The beginning of the SHA-256 of its text.
    pub version: String,
    /// What it makes of the object otherwise than the text that it took the place of in this release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub differences: String,
    /// A newer text that does not work, and is not used in this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedScript>,
}

/// A text of a script that does not work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedScript {
    /// The beginning of the SHA-256 of its text; empty when it is gone.
    pub version: String,
    /// ConfigMap, key, and the error.
    pub message: String,
}

/// A place among the releases that may be in flight at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// Since when the release waits for it; those who came first go first.
    pub since: MicroTime,
    /// The release may go on: it counts as being in flight until it has ended.
    #[serde(default)]
    pub is_taken: bool,
}

/// Routes that a gateway did not take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRoutes {
    /// Tells these routes from others: a digest of the objects, their scripts and what the step asks.
    pub version: String,
    /// Which object, and what its gateway says.
    pub message: String,
}

/// One observation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed.
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word for machines.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// When any part last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}
