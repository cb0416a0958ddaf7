//! Where the trace of a release stands. Ours; the original has none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The trace of a release that goes on, and its span that is not closed yet. With it a controller that is started anew
/// goes on with the same trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceStatus {
    /// The trace's id: 32 hexadecimal digits, made of the Rollout's uid and of when the release began.
    #[serde(rename = "traceID")]
    pub trace_id: String,
    /// When the release began.
    pub since: MicroTime,
    /// The step that goes on, 1-based; 0 while the release is being wound up.
    pub step: i32,
    /// When that began, or, where traces were switched on meanwhile, the state that it was in then.
    pub step_since: MicroTime,
    /// The version that it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
}
