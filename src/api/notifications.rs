//! Notifications: what people are told of releases. Ours; the original has none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The administrator's receivers: the value of [`super::keys::NOTIFICATIONS`] in the ConfigMap
/// [`super::keys::SCRIPT_CONFIG_MAP`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Notifications {
    /// Whom to tell.
    #[serde(default)]
    pub receivers: Vec<Receiver>,
}

/// Who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receiver {
    /// Its name: what the keys of its Secret begin with, and what annotations of Rollouts name.
    pub name: String,
    /// What it understands.
    pub r#type: ReceiverType,
    /// Where it is, if that is no secret; else key `<name>.url` of the Secret.
    #[serde(default)]
    pub url: Option<String>,
    /// Of `slack`: the channel's id. Messages are then posted with key `<name>.token`, and one a release is updated.
    #[serde(default)]
    pub channel: Option<String>,
    /// Of `slack` with a channel: `false` posts a message for everything.
    #[serde(default)]
    pub update: Option<bool>,
    /// Of `cloudevents`: `structured` (default) or `binary`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Name of the Secret in the controller's namespace. Default: [`super::keys::NOTIFICATION_SECRET`] where one is needed.
    #[serde(default)]
    pub secret: Option<String>,
    /// What it is told. Default: everything.
    #[serde(default)]
    pub events: Vec<Occasion>,
    /// The text, with `{{ name }}` for values.
    #[serde(default)]
    pub template: Option<String>,
    /// It is told of all Rollouts, not only of those whose annotation names it.
    #[serde(default)]
    pub is_default: bool,
}

/// What a receiver understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiverType {
    /// Slack, by an incoming webhook or by its Web API.
    Slack,
    /// Microsoft Teams: an adaptive card.
    Teams,
    /// Anything that takes JSON.
    #[default]
    Webhook,
    /// CloudEvents 1.0 by HTTP.
    CloudEvents,
}

/// How a CloudEvent is written into a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All in the body.
    #[default]
    Structured,
    /// Attributes in headers.
    Binary,
}

/// What people are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Occasion {
    /// A release begins.
    #[default]
    Started,
    /// A step is in place, and its metrics are good.
    StepDone,
    /// A step waits for an approval.
    WaitingForApproval,
    /// Somebody has halted the release.
    Paused,
    /// A person must mend something.
    Failed,
    /// The release is rolled back.
    RolledBack,
    /// The release has ended.
    Finished,
}

impl Occasion {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Occasion::Started => "Started",
            Occasion::StepDone => "StepDone",
            Occasion::WaitingForApproval => "WaitingForApproval",
            Occasion::Paused => "Paused",
            Occasion::Failed => "Failed",
            Occasion::RolledBack => "RolledBack",
            Occasion::Finished => "Finished",
        }
    }
}

/// What people have been told of a release, and what they are still to be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationsStatus {
    /// Id of the release, as receivers are told.
    pub release: String,
    /// Number of the last news.
    #[serde(default)]
    pub last: i32,
    /// What not everybody knows yet; the newest 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub news: Vec<News>,
    /// Who knows what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<ReceiverStatus>,
}

/// Something that people are to be told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// Counted from 1 in a release.
    pub number: i32,
    /// What it is.
    pub event: Occasion,
    /// The step, 1-based.
    #[serde(default)]
    pub step: i32,
    /// A sentence.
    #[serde(default)]
    pub message: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// What a receiver knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverStatus {
    /// Its name.
    pub name: String,
    /// The last news that it knows.
    #[serde(default)]
    pub told: i32,
    /// Its message about this release, which is updated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Tries in vain.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: i32,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Time>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde wants it.
fn is_zero(number: &i32) -> bool {
    *number == 0
}
