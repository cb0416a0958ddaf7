//! A metric that compares the canary with the stable version. Ours, as all of the analysis.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Compares the two versions after every interval, until it is shown that the canary is worse (the metric has failed) or
/// not (it has passed). However often one looks, the chances below hold for all looks of a step together; in the
/// background, for all of the release. Both versions are asked the same: for `failures` and `requests`, for `buckets`, or
/// for a `value`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// Questions about the new version. Absent: those of the metric's template, whose other fields stand where the
    /// metric has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<VersionQueries>,
    /// Questions about the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<VersionQueries>,
    /// The smallest difference that matters. Of shares, 0.01 is one percentage point (default 0.01); of `buckets`, that
    /// of the share of slow requests (default (1 - `quantile`) / 2: half as many again); of a `value`, in its unit (no
    /// default). A canary that is shown to be worse, but by less, has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<f64>,
    /// How much worse the canary may be that still counts as no worse; smaller than `effect`. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// Chance that a canary that is no worse fails; 0.000001 to 0.5. Default 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_alarm: Option<f64>,
    /// Chance that a canary that is worse by `effect` passes; 0.000001 to 0.5. Default 0.05.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<f64>,
    /// Requests of each version before there is any verdict, of a `value` intervals. Default 20, of a `value` 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub least: Option<i64>,
    /// Requests of the canary, of a `value` intervals, after which a comparison that shows nothing waits for a person.
    /// Not in the background. Default: it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub most: Option<i64>,
    /// How many requests fail together, as by a client's retries: evidence counts so many times less. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub burst: Option<i32>,
    /// Of `buckets`: a request is slow that takes longer than this part of the stable version's requests did before the
    /// comparison began, to the next bound of the histogram; between 0 and 1. Default 0.95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    /// Of `buckets`: what counts as slow, in the histogram's unit, instead of `quantile`. A bound of the histogram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<f64>,
    /// Of a `value`, which needs it: between which bounds it lies. One outside counts as the nearer bound; the narrower
    /// the range, the sooner a difference is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ValueRange>,
}

/// Queries about one version, of what happened within `{{ interval }}`, such as by `increase()`; see `query` of a metric
/// for the values that they may name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionQueries {
    /// Requests that failed. It needs an answer where none did: `(…) or vector(0)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub failures: Option<String>,
    /// All requests, also those that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub requests: Option<String>,
    /// The buckets of a histogram by `le`: `sum by (le) (increase(…_bucket[{{ interval }}]))`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub buckets: Option<String>,
    /// One number that is bad when it is high: memory of a pod, time of a request on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub value: Option<String>,
}

/// Between which bounds a value lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueRange {
    /// The smallest value. Default 0.
    #[serde(default)]
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

/// Everything that a comparison keeps between looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComparisonState {
    /// Of a comparison in the background: how often the canary was shown to be no worse. Each time it begins anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rounds: u32,
    /// Nothing was shown within `most`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_exhausted: bool,
    /// Of shares, also that of slow requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<ProportionsState>,
    /// What counts as slow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<f64>,
    /// Requests of the stable version that are to tell what counts as slow, until there are enough of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Histogram>,
    /// Of values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub means: Option<MeansState>,
}

/// How many requests took how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Histogram {
    /// All requests.
    pub requests: u64,
    /// By upper bound, ascending; without the last, infinite one.
    #[schemars(length(max = 100))]
    pub buckets: Vec<Bucket>,
}

/// Requests that took at most so long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// The bound.
    pub le: f64,
    /// Requests at or below it.
    pub count: u64,
}

/// Everything that a comparison of two means keeps between looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeansState {
    /// Intervals that were judged.
    pub looks: u32,
    /// Sum of the canary's values.
    pub canary: f64,
    /// Sum of the stable version's.
    pub stable: f64,
    /// Sum of the squares of their differences.
    pub squares: f64,
    /// The evidence.
    pub scales: Scales,
}

/// Everything that a comparison of two shares keeps between looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProportionsState {
    /// Blocks that were judged.
    pub looks: u32,
    /// Intervals in which one version had no request yet wait for the next ones and are judged together: the canary's.
    pub waiting_canary: Counts,
    /// The same of the stable version.
    pub waiting_stable: Counts,
    /// All requests to the canary so far.
    pub canary: Counts,
    /// All requests to the stable version so far.
    pub stable: Counts,
    /// What the next look expects of the canary.
    pub canary_past: Past,
    /// What the next look expects of the stable version.
    pub stable_past: Past,
    /// The evidence.
    pub scales: Scales,
}

/// Requests of one version in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// All requests.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
}

/// What earlier intervals say about a rate. Old ones fade, so that it follows a rate that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Past {
    /// Requests that are remembered.
    pub requests: f64,
    /// Those that failed.
    pub failures: f64,
}

/// Evidence of both directions: the first of each decides, the others tell the size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scales {
    /// Against "worse by at most the margin", from the tolerance upwards.
    pub worse: Vec<Evidence>,
    /// Against "worse by at least the margin": the effect, then from the largest margin downwards.
    pub harmless: Vec<Evidence>,
}

/// Evidence against "the difference is on the harmless side of the margin". It starts at 1, and as long as that holds
/// no rule of stopping expects more than 1 of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The margin.
    pub margin: f64,
    /// Natural logarithm of what is staked. Absent before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staked: Option<f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(number: &u32) -> bool {
    *number == 0
}
