//! Analysis: metrics that decide about a release. Ours; the original has only the state `StepMetricsAnalysis`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::comparison::{Compare, ComparisonState};
pub use super::providers::{
    Datadog, DatadogApi, JobProvider, MetricProvider, PodsProvider, Prometheus, SecretRef, Web,
};

/// Metrics that decide about a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// What is measured. All metrics must pass; the first one that fails ends the analysis.
    #[schemars(length(min = 1, max = 10))]
    pub metrics: Vec<Metric>,
    /// On the strategy only. `true`: the metrics are watched from the moment the first step is in place until the release
    /// ends, `count` has no meaning, and steps go on as their pauses say while nothing fails. `false`: this analysis is
    /// that of every step that has none of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// What follows when all metrics of a step passed. Default `promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<OnSuccess>,
    /// What follows when a metric failed. Default `pause`. Measurements that cannot be judged never roll back: they pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// What follows when all metrics of a step passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnSuccess {
    /// It stands for a person's approval: a pause without a duration is over. A pause with a duration lasts that long,
    /// counted from when the step was in place.
    #[default]
    Promote,
    /// The step waits as its pause says.
    Wait,
}

/// What follows when a metric failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// The release stays where it is and waits for a person's approval, whatever the step's pause says.
    #[default]
    Pause,
    /// The workload's template is set back to the stable revision's, which cancels the release. The same template is not
    /// tried again by itself.
    Rollback,
}

/// One metric: a question that is asked again and again, and the bounds of good answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// Name of the metric, in status, events and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub name: String,
    /// Who answers. Absent: the template's provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<MetricProvider>,
    /// The question, in the provider's language. `{{ name }}` puts in a value: `namespace`, `rollout`, `workload`,
    /// `canary-workload`, `stable-revision`, `canary-revision`, `stable-hash`, `canary-hash` (values of the revision label
    /// of the pods), `stable-service`, `canary-service`, `step` (1-based), `interval`, and the template's arguments. Between
    /// quotes it becomes a part of the text, in the text of a regular expression one that matches nothing but itself;
    /// elsewhere a quoted text, and `step` and `interval` a number and a duration. `canary-pods` (names) and `canary-ips`
    /// are regular expressions that match the pods of the new version, `stable-pods` and `stable-ips` the workload's others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub query: Option<String>,
    /// A query that is kept elsewhere; instead of `query`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateRef>,
    /// Compares the canary with the stable version, instead of a query and bounds; with a `template` by its questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// The smallest good value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest good value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Instead of bounds, what is true of a good answer, in CEL: such as `value < 0.01 || value == 1.0` or
    /// `values.all(v, v < 0.5)`. `value` is the number, or the text that a `web` provider found; `values` are the numbers of
    /// all series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub condition: Option<String>,
    /// The fewest samples, such as requests, of one interval of which a value tells something. The value of fewer is no
    /// data, and obeys `onNoData`. Default: every value counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_samples: Option<i64>,
    /// Counts the samples for `minSamples`, in the provider's language: how many there were within `{{ interval }}`, such as
    /// by `increase()`. Default: the template's, which the built-in ones of requests have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub samples_query: Option<String>,
    /// Time between two measurements, such as `30s` or `1m30s`; at least `1s`. Default `1m`. Metrics are asked at moments
    /// that their query and interval decide, so that the same question of several Rollouts is asked once; the first
    /// measurement may come up to one interval after `delay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub interval: Option<String>,
    /// Time from the step being in place to the first measurement. Default: one interval, so that a rate over the
    /// interval is of this step's requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub delay: Option<String>,
    /// Measurements with a value after which the metric has passed. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: Option<i32>,
    /// Values out of bounds that are forgiven; one more and the metric has failed. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: Option<i32>,
    /// Answers that cannot be judged, such as several series or an infinite value, that are forgiven; one more and the
    /// release waits for a person. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub inconclusive_limit: Option<i32>,
    /// What follows when there have been no data for `noDataTimeout`: the server cannot be reached, the answer is empty, NaN as
    /// that of no requests is, or of fewer than `minSamples`. Default `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_data: Option<OnNoData>,
    /// How long data may be missing. Default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub no_data_timeout: Option<String>,
}

/// What follows when there are no data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnNoData {
    /// The release stands still until there are data, and says so.
    #[default]
    Wait,
    /// The metric has failed.
    Fail,
    /// The metric has passed.
    Pass,
}

/// Names a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRef {
    /// A MetricTemplate of the Rollout's namespace, else of the controller's; or a built-in one such as
    /// `istio/request-success-rate` (`tidegate analysis templates` lists them).
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Values of the template's arguments, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
}

/// A MetricTemplate keeps a query for Rollouts of its namespace; in the controller's namespace, for those of all.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rollouts.kruise.io",
    version = "v1beta1",
    kind = "MetricTemplate",
    plural = "metrictemplates",
    singular = "metrictemplate",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"ABOUT","type":"string","jsonPath":".spec.description"}"#,
    printcolumn = r#"{"name":"AGE","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MetricTemplateSpec {
    /// What its value means, and in which unit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// Who answers. A metric may name another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<MetricProvider>,
    /// The question; see `query` of a metric.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub query: String,
    /// Counts the samples behind the value of `query`, for metrics that have `minSamples`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub samples_query: Option<String>,
    /// Questions that compare the canary with the stable version, instead of `query`, for metrics that have `compare`. What
    /// else is said here stands where such a metric says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// Values that a metric gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub arguments: Vec<TemplateArgument>,
}

/// A value that a metric gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateArgument {
    /// Name, as the query has it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// Its value where a metric gives none; without one it has to be given. It may name values that every query may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub default: Option<String>,
}

/// What the metrics of a release said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisStatus {
    /// The analysis of a step: the current one, or the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<AnalysisRun>,
    /// The analysis of the whole release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<AnalysisRun>,
    /// State of the step at which the release was halted because the background analysis failed. An approval goes on from
    /// there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub halted: String,
}

/// One analysis.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisRun {
    /// The step at which it began, 1-based.
    #[serde(default)]
    pub step_index: i32,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// `Running`, `Passed`, `Failed` or `Inconclusive`.
    #[serde(default)]
    pub phase: AnalysisPhase,
    /// Why it ended, or what it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// One entry a metric.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricStatus>,
}

/// How an analysis, or one metric of it, stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AnalysisPhase {
    /// It is still being measured.
    #[default]
    Running,
    /// Good.
    Passed,
    /// Bad.
    Failed,
    /// It cannot be judged; a person has to.
    Inconclusive,
}

/// How one metric stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    /// Name of the metric.
    pub name: String,
    /// Hash of the metric as it was read. Another one begins to count anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// `Running`, `Passed`, `Failed` or `Inconclusive`.
    #[serde(default)]
    pub phase: AnalysisPhase,
    /// What the last measurement said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Values within the bounds.
    #[serde(default)]
    pub passed: i32,
    /// Values out of bounds.
    #[serde(default)]
    pub failed: i32,
    /// Answers that could not be judged.
    #[serde(default)]
    pub inconclusive: i32,
    /// Answers without data, and questions without an answer, since the last value.
    #[serde(default)]
    pub without_data: i32,
    /// Since when there are no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_data_since: Option<Time>,
    /// When it is measured next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Time>,
    /// What a comparison keeps between looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<ComparisonState>,
    /// The last measurements, oldest first; earlier ones are in events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub measurements: Vec<Measurement>,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// The value, as text: not every number of a metrics server is one of JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `Passed`, `Failed`, `Undecided`, `Inconclusive`, `NoData`, `Unavailable` or `Mistake`.
    #[serde(default)]
    pub result: String,
}
