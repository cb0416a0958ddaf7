//! `rollouts.kruise.io/v1beta1`: the stored version of `Rollout`.
//!
//! The schema is a superset: the spellings of both API versions and of the published articles are accepted in both
//! versions, so that serving one as the other never loses a field. [`crate::rollout::release`] reads them into one form.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{MicroTime, Time},
    util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    analysis::{Analysis, AnalysisStatus, OnFailure},
    hooks::{Hook, HooksStatus},
    notifications::NotificationsStatus,
    windows::{ChangeWindow, Freeze, WindowOverride},
};

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

/// All parts of one entry must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// Path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Headers of the request; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Query parameters of the request; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub query_params: Vec<QueryParamMatch>,
}

/// How a path is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// `Exact`, `PathPrefix` or `RegularExpression`.
    #[serde(default)]
    pub r#type: PathMatchType,
    /// The path, prefix or expression.
    #[serde(default = "root_path")]
    #[schemars(length(max = 1024))]
    pub value: String,
}

fn root_path() -> String {
    "/".to_owned()
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Its beginning.
    #[default]
    PathPrefix,
    /// By the gateway's own kind of regular expression.
    RegularExpression,
}

/// How a header or query parameter is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    /// The whole value.
    #[default]
    Exact,
    /// By the gateway's own kind of regular expression.
    RegularExpression,
}

/// One header that must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// `Exact` or `RegularExpression`.
    #[serde(default)]
    pub r#type: ValueMatchType,
    /// Name of the header; case does not matter.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"))]
    pub name: String,
    /// Value or expression.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// One query parameter that must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryParamMatch {
    /// `Exact` or `RegularExpression`.
    #[serde(default)]
    pub r#type: ValueMatchType,
    /// Name of the parameter.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Value or expression.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// Rewrites request headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestHeaderModifier {
    /// Headers to overwrite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub set: Vec<Header>,
    /// Headers to add to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub add: Vec<Header>,
    /// Names of headers to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub remove: Vec<String>,
}

/// A header with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name of the header.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// The Service that selects the workload's pods, and the objects that route to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRoutingRef {
    /// Name of the Service that selects the workload's pods.
    pub service: String,
    /// Seconds to wait after each change of the network. Absent: until there is evidence that the change took effect,
    /// and 3 seconds where there can be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub grace_period_seconds: Option<i32>,
    /// `false`: do not create `<service>-canary` (the same as `disableGenerateCanaryService: true`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_canary_service: Option<bool>,
    /// An Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressRef>,
    /// A Gateway API route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRef>,
    /// Objects of any gateway or mesh that a script knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom_network_refs: Vec<NetworkRef>,
    /// Another spelling of `customNetworkRefs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_refs: Vec<NetworkRef>,
}

/// An Ingress and its class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressRef {
    /// Class whose script is used; empty is `nginx`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class_type: String,
    /// Name of the Ingress.
    pub name: String,
}

/// A Gateway API route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Name of the HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route_name: Option<String>,
}

/// An object of a gateway or mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRef {
    /// API version, such as `networking.istio.io/v1`.
    pub api_version: String,
    /// Kind, such as `VirtualService`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
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
    /// The script that serves each object that routes, during a release; after it, those that served last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<ServingScript>,
}

/// The script that serves an object that routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServingScript {
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `BuiltIn` or `ConfigMap`.
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

/// Where a gate of a step stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Its name in the step.
    pub name: String,
    /// The step may be left, as far as this gate is concerned. A person or a tool writes it.
    #[serde(default)]
    pub is_passed: bool,
    /// When the controller saw that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// A gate of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// What has to be found good, such as `load test`.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// A Job that passes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<GateJob>,
}

/// A Job that passes a gate when it succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateJob {
    /// CronJob of the namespace whose template it is made from; one that is suspended will do.
    #[schemars(length(min = 1, max = 253))]
    pub cron_job: String,
    /// How long it may run. Default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub timeout: Option<String>,
    /// What follows when it fails. Default `pause`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
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
