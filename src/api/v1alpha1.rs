//! `rollouts.kruise.io/v1alpha1`: `TrafficRouting`. (`Rollout` v1alpha1 shares the schema of
//! [`super::v1beta1::RolloutSpec`].)

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::v1beta1::{HttpRouteMatch, RequestHeaderModifier, TrafficRoutingRef};

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
}
