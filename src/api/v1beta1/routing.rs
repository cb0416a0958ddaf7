//! The Service and gateway objects that decide where requests go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::proof::Proof;

/// The Service that selects the workload's pods, and the objects that route to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficRoutingRef {
    /// Name of the Service that selects the workload's pods.
    pub service: String,
    /// Seconds to wait after each change of the network. Absent: until there is evidence that the change took effect,
    /// and where there can be none, 3 seconds, or as many as the script of the gateway says that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub grace_period_seconds: Option<i32>,
    /// `false`: do not create `<service>-canary` (the same as `disableGenerateCanaryService: true`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_canary_service: Option<bool>,
    /// Requests through the gateway that have to be answered well before a step counts as routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
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
