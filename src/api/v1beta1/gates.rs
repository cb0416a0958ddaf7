//! What has to be passed before a step is left.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::analysis::OnFailure;

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
