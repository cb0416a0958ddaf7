//! `rollouts.kruise.io/v1alpha1`: `TrafficRouting` and `RolloutHistory`. (`Rollout` v1alpha1 shares the schema of
//! [`super::v1beta1::RolloutSpec`].)

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::v1beta1::{
    HttpRouteMatch, RefusedRoutes, RequestHeaderModifier, ServingScript, Settling, TrafficRoutingRef, Word,
};

/// A TrafficRouting routes requests for several Rollouts that share one gateway object.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rollouts.kruise.io",
    version = "v1alpha1",
    kind = "TrafficRouting",
    plural = "trafficroutings",
    singular = "trafficrouting",
    namespaced,
    status = "TrafficRoutingStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"STATUS","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"MESSAGE","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRoutingSpec {
    /// The Service and gateway objects; at most one entry is used.
    pub object_ref: Vec<TrafficRoutingRef>,
    /// Which requests go to the new versions.
    #[serde(default)]
    pub strategy: TrafficRoutingStrategy,
}

/// Which requests go to the new versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRoutingStrategy {
    /// Share of requests in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<i32>,
    /// Rewrites the headers of requests that go to the new versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<RequestHeaderModifier>,
    /// Which requests go to the new versions; entries are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpRouteMatch>,
}

/// What the controller observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRoutingStatus {
    /// The generation that this status was computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Initial`, `Healthy`, `Progressing`, `Finalizing` or `Terminating`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What is waited for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// A change of the network that is given time to take effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling: Option<Settling>,
    /// Routes that a gateway did not take; those before them are in place until something about them changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_routes: Option<RefusedRoutes>,
    /// The script of each object while routes are changed; afterwards those that served last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<ServingScript>,
}

/// A RolloutHistory keeps what one release of a Rollout consisted of, and which pods each step brought.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rollouts.kruise.io",
    version = "v1alpha1",
    kind = "RolloutHistory",
    plural = "rollouthistories",
    singular = "rollouthistory",
    namespaced,
    status = "RolloutHistoryStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"ROLLOUT","type":"string","jsonPath":".spec.rollout.name"}"#,
    printcolumn = r#"{"name":"ID","type":"string","jsonPath":".spec.rollout.rolloutID"}"#,
    printcolumn = r#"{"name":"OUTCOME","type":"string","jsonPath":".status.outcome"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutHistorySpec {
    /// The Rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutInfo>,
    /// The workload that it released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadInfo>,
    /// The Service that selects the workload's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ObjectInfo>,
    /// The objects that decided where requests went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_routing: Option<TrafficRoutingInfo>,
}

/// A Rollout as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutInfo {
    /// Id of the release.
    #[serde(default, rename = "rolloutID", skip_serializing_if = "String::is_empty")]
    pub rollout_id: String,
    /// Name of the Rollout.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub data: Option<Value>,
}

/// A workload as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadInfo {
    /// API version, such as `apps/v1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind, such as `Deployment`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name of the workload.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub data: Option<Value>,
}

/// An object of a known kind as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectInfo {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub data: Option<Value>,
}

/// The objects that decided where requests went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRoutingInfo {
    /// The Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<ObjectInfo>,
    /// The HTTPRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<ObjectInfo>,
    /// All others: networkRefs of any kind, and the TrafficRouting that is shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_refs: Vec<NetworkInfo>,
}

/// An object that routes, as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInfo {
    /// API version, such as `networking.istio.io/v1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Kind, such as `VirtualService`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub data: Option<Value>,
}

/// How the release ended, and which pods each step brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutHistoryStatus {
    /// Empty, or `completed` once the release has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// `Succeeded` or `Cancelled`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// The revision that was there before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_revision: String,
    /// The revision that the release brought, or tried to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub canary_revision: String,
    /// When the release began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// One entry a step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary_steps: Vec<CanaryStepInfo>,
    /// Who moved the release by hand, where that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
}

/// The pods of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStepInfo {
    /// The step, 1-based.
    #[serde(default)]
    pub canary_step_index: i32,
    /// Pods that the step brought.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodInfo>,
}

/// A pod as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodInfo {
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// The node it ran on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node_name: String,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
