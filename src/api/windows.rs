//! When a release may change something: windows, freezes, and the word of a person who passes over both.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A time of the day at which steps may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeWindow {
    /// For messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,
    /// Days of the week on which it opens. Absent: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub days: Vec<Day>,
    /// Local time at which it opens, such as `09:00`.
    #[schemars(length(max = 5), regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// Local time at which it closes, such as `16:30` or `24:00`; on the next day where it is not after `from`.
    #[schemars(length(max = 5), regex(pattern = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub to: String,
    /// Name of the time zone, such as `Europe/Berlin`. Default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time in which no step begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Freeze {
    /// For messages: why nothing is to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,
    /// Local time at which it begins, such as `2026-12-20T18:00`, or a date: its beginning.
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2})?$"))]
    pub from: String,
    /// Local time at which it ends, or a date: its end.
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2})?$"))]
    pub to: String,
    /// Name of the time zone, such as `Europe/Berlin`. Default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// The administrator's windows and freezes for all Rollouts: the value of [`super::keys::CHANGE_WINDOWS`] in the
/// ConfigMap [`super::keys::SCRIPT_CONFIG_MAP`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterWindows {
    /// Steps begin only inside one of them. None: at any time.
    #[serde(default)]
    pub change_windows: Vec<ChangeWindow>,
    /// No step begins inside one of them.
    #[serde(default)]
    pub freezes: Vec<Freeze>,
    /// The annotation [`super::keys::OVERRIDE_WINDOWS`] of a Rollout has no power over these.
    #[serde(default)]
    pub is_binding: bool,
}

/// A person let a release begin steps outside its windows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowOverride {
    /// The person's reason: the text of the annotation.
    pub reason: String,
    /// Who wrote it, by the API server's name for them; empty when no webhook says so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Revision of the release that it was for. For another release another reason must be written.
    pub revision: String,
    /// When it was first needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}
