//! Hooks: HTTP servers of the user's that are asked before a release goes on, or told that it went back. Ours; the original
//! has none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::{OnFailure, SecretRef};

/// A server that has a say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Name of the hook, in status, events and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub name: String,
    /// Where a POST request is sent to: `http://` or `https://`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^ ]+$"))]
    pub url: String,
    /// At which moments. A hook of `OnRollback` is told, and its answer does not matter.
    #[schemars(length(min = 1, max = 4))]
    pub when: Vec<HookMoment>,
    /// The steps, 1-based, of `BeforeStep` and `AfterStep`. Absent: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub steps: Vec<i32>,
    /// How long one answer may take. Default `10s`, at most `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub timeout: Option<String>,
    /// Tries after the first one, ever less often, until a hook that does not answer counts as unreachable. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub retries: Option<i32>,
    /// The longest time between two tries. Default `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub interval: Option<String>,
    /// What follows when it could not be reached for `unreachableTimeout`. Default `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unreachable: Option<OnUnreachable>,
    /// Default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub unreachable_timeout: Option<String>,
    /// What follows when it refuses. Default `pause`: the release waits there and asks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_refusal: Option<OnFailure>,
    /// A Secret of the Rollout's namespace: login, `ca.crt`, and `signing-key` for signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A ConfigMap of the Rollout's namespace whose `ca.crt` judges the server's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_config_map: Option<String>,
}

/// When a hook is asked or told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HookMoment {
    /// Before anything of a step is done.
    #[default]
    BeforeStep,
    /// When a step is in place and its metrics are good; the step is not left before.
    AfterStep,
    /// After the last step, before the new version takes over for good.
    BeforePromotion,
    /// When a release is rolled back, by whomever.
    OnRollback,
}

impl HookMoment {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            HookMoment::BeforeStep => "BeforeStep",
            HookMoment::AfterStep => "AfterStep",
            HookMoment::BeforePromotion => "BeforePromotion",
            HookMoment::OnRollback => "OnRollback",
        }
    }
}

/// What follows when a hook cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnUnreachable {
    /// It goes on being asked.
    #[default]
    Wait,
    /// As if it had allowed.
    Allow,
    /// As if it had refused.
    Refuse,
}

/// What hooks have said in a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HooksStatus {
    /// Id of the release, as hooks are told.
    pub release: String,
    /// Revision that the release brings.
    #[serde(default)]
    pub revision: String,
    /// The workload's own id of the release, else the revision.
    #[serde(default, rename = "rolloutID")]
    pub rollout_id: String,
    /// Hooks of the present step, and those of a rollback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookStatus>,
}

/// Where a hook stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HookStatus {
    /// Its name.
    pub name: String,
    /// When it was asked.
    #[serde(default)]
    pub moment: HookMoment,
    /// The step, 1-based.
    #[serde(default)]
    pub step: i32,
    /// The idempotency key that it is asked with.
    pub key: String,
    /// What came of it.
    #[serde(default)]
    pub phase: HookPhase,
    /// What it said last, or what is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Tries since it was first asked; since it answered last, while it cannot be reached.
    #[serde(default)]
    pub tries: i32,
    /// Since when it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it is asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Time>,
}

/// What came of a hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookPhase {
    /// It has not answered yet.
    #[default]
    Asked,
    /// The release may go on, or the hook knows of the rollback.
    Allowed,
    /// Not yet.
    Held,
    /// No.
    Refused,
    /// Nobody answers, or with an error of the server's own.
    Unreachable,
    /// It cannot be asked so; a person must mend it.
    Mistaken,
    /// It was not told of a rollback, in spite of all tries.
    GivenUp,
}
