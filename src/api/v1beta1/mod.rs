//! `rollouts.kruise.io/v1beta1`: the stored version of `Rollout`.
//!
//! The schema is a superset: the spellings of both API versions and of the published articles are accepted in both
//! versions, so that serving one as the other never loses a field. [`crate::rollout::release`] reads them into one form.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    analysis::Analysis,
    hooks::Hook,
    windows::{ChangeWindow, Freeze},
};

mod gates;
mod matches;
mod progress;
mod routing;
mod status;

pub use gates::{Gate, GateJob, GateStatus};
pub use matches::{
    Header, HeaderMatch, HttpRouteMatch, PathMatch, PathMatchType, QueryParamMatch, RequestHeaderModifier,
    ValueMatchType,
};
pub use progress::{BlueGreenStatus, CanaryStatus, Settling, Word};
pub use routing::{GatewayRef, IngressRef, NetworkRef, TrafficRoutingRef};
pub use status::{Condition, RefusedRoutes, RejectedScript, RolloutStatus, ServingScript, Slot};

/// A Rollout names a workload and the steps by which a new version of it takes over.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rollouts.kruise.io",
    version = "v1beta1",
    kind = "Rollout",
    plural = "rollouts",
    singular = "rollout",
    namespaced,
    status = "RolloutStatus",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// The workload to release, in the Rollout's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadRef>,
    /// The spelling of v1alpha1 for `workloadRef`. With this spelling an absent `rolling-style` annotation means
    /// canary style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef>,
    /// Stop managing the workload. A release that is going on is finished natively with the new version.
    #[serde(default)]
    pub disabled: bool,
    /// Deprecated in v1alpha1 and without effect; kept so that no field is lost.
    #[serde(default, rename = "rolloutID", skip_serializing_if = "Option::is_none")]
    pub rollout_id: Option<String>,
    /// How a new version takes over.
    pub strategy: RolloutStrategy,
    /// Steps begin only inside one of these. None: at any time. A step that has begun is finished, and a rollback never
    /// waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub change_windows: Vec<ChangeWindow>,
    /// No step begins inside one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub freezes: Vec<Freeze>,
}

/// v1alpha1's way to name the workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// The workload to release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_ref: Option<WorkloadRef>,
}

/// Names a workload in the Rollout's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// API version, such as `apps/v1`.
    pub api_version: String,
    /// Kind, such as `Deployment`.
    pub kind: String,
    /// Name of the workload.
    pub name: String,
}

/// How a new version takes over: exactly one of `canary` and `blueGreen`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStrategy {
    /// Freeze the release where it is. A rollback goes through all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Seconds in which a step has to be in place: its pods ready and its routes written. Time in which the release is
    /// paused does not count. A step that is late has failed; see `onStepFailure`. Absent or 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub step_deadline_seconds: Option<i32>,
    /// What happens when a step fails. Default `Pause`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_step_failure: Option<OnStepFailure>,
    /// Metrics that decide: at every step that has no analysis of its own, or, in the background, about the whole release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// Servers of yours that are asked before a release goes on, or told that it went back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub hooks: Vec<Hook>,
    /// Canary or partition style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryStrategy>,
    /// Blue-green style.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreenStrategy>,
}

/// What happens when a step is not in place by its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnStepFailure {
    /// The release stays at the step. Should the step come into place later, it waits for a person's approval, whatever
    /// its `pause` says.
    #[default]
    Pause,
    /// The workload's template is set back to the stable revision's, which cancels the release. The same template is not
    /// tried again by itself.
    Rollback,
}

/// Canary or partition style.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStrategy {
    /// The plan, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub steps: Vec<Step>,
    /// The Service and gateway objects that decide where requests go; at most one entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic_routings: Vec<TrafficRoutingRef>,
    /// How many canary pods may be unready for a step to count as done: a number, or a percentage of the step's
    /// target. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<IntOrString>,
    /// Labels and annotations for the pods of the extra canary Deployment (canary style only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch_pod_template_metadata: Option<PatchPodTemplateMetadata>,
    /// `true`: canary style, an extra Deployment beside the stable one (`apps/v1` Deployment only). `false`: partition
    /// style, in place. Absent: the `rolling-style` annotation decides, else partition for `workloadRef` and canary for
    /// `objectRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_extra_workload_for_canary: Option<bool>,
    /// Name of a TrafficRouting that several Rollouts share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_routing_ref: Option<String>,
    /// Do not create `<service>-canary`; the canary is told apart by a subset or pod label of the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_generate_canary_service: Option<bool>,
}

/// Blue-green style.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreenStrategy {
    /// The plan, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub steps: Vec<Step>,
    /// The Service and gateway objects that decide where requests go; at most one entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic_routings: Vec<TrafficRoutingRef>,
    /// How many new pods may be unready for a step to count as done. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<IntOrString>,
    /// Name of a TrafficRouting that several Rollouts share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_routing_ref: Option<String>,
    /// Do not create `<service>-canary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_generate_canary_service: Option<bool>,
}

/// One step of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Share of requests for the new version, such as `20%`. Without a value requests are not split by share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<String>,
    /// The spelling of v1alpha1 for `traffic`: percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<i32>,
    /// Rewrites the headers of requests that go to the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<RequestHeaderModifier>,
    /// Which requests go to the new version; entries are alternatives. When both `matches` and `traffic` are given,
    /// `matches` win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub matches: Vec<HttpRouteMatch>,
    /// Number of pods of the new version after this step: a number, or a percentage of the workload's replicas, rounded
    /// up. Absent: `weight` or `traffic` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<IntOrString>,
    /// Seconds in which this step has to be in place; 0 is no limit. Absent: the strategy's `stepDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub step_deadline_seconds: Option<i32>,
    /// What happens when this step fails. Absent: the strategy's `onStepFailure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_step_failure: Option<OnStepFailure>,
    /// Metrics that are judged once the step is in place, before it waits for anything else. Absent: the strategy's
    /// `analysis`, unless that is a background one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// What has to be passed before this step is left, each by its name, beside `pause`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub gates: Vec<Gate>,
    /// What to wait for after this step. Absent, or without a duration: a person's approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
}

/// What to wait for after a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Seconds to wait; `0` goes on at once; absent waits for an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<i32>,
}

/// Labels and annotations merged into a pod template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PatchPodTemplateMetadata {
    /// Labels to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
