//! Traffic proof: requests through a gateway that show that it routes a step as it says. Ours; the original has none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::v1beta1::Header;

/// Requests that the controller sends through the gateway before a step's routes count as taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Where GET requests are sent to: the gateway, `http://` or `https://`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^ ]+$"))]
    pub url: String,
    /// Headers of these requests, such as `Host`. Headers and query parameters that a step's first match asks for are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,
    /// Statuses of good answers. Absent: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub expect_status: Vec<i32>,
    /// How many requests are sent; every answer has to be good. Absent: 5, or as many as are needed at the step's share for
    /// one of them to reach the new version 99 times out of 100, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub count: Option<i32>,
    /// Seconds in which each answer has to be there. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 30))]
    pub timeout_seconds: Option<i32>,
    /// A ConfigMap of the Rollout's namespace whose `ca.crt` judges the gateway's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_config_map: Option<String>,
}

/// What the traffic proof of the present step said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProofStatus {
    /// The step, 1-based.
    #[serde(default)]
    pub step: i32,
    /// Whether it was given.
    #[serde(default)]
    pub phase: ProofPhase,
    /// The requests, and what was answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Tells these requests from others.
    #[serde(default)]
    pub key: String,
    /// Tries in vain.
    #[serde(default)]
    pub tries: i32,
    /// When they are sent next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Time>,
}

/// Where a traffic proof stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProofPhase {
    /// Requests are being sent.
    #[default]
    Asked,
    /// Every answer was good.
    Proven,
    /// Not every answer was good, or there was none.
    Unproven,
    /// The requests cannot be sent as they are configured.
    Mistaken,
}
