//! A metric that compares the canary with the stable version. Ours, as all of the analysis.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Compares the share of requests that fail between the two versions, after every interval, until it is shown that the
/// canary is worse (the metric has failed) or not (it has passed). However often one looks, the chances below hold for
/// all looks of a step together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// Requests to the new version.
    pub canary: RequestQueries,
    /// Requests to the version before.
    pub stable: RequestQueries,
    /// The smallest difference of the shares that matters: 0.01 is one percentage point. A canary that is shown to be
    /// worse, but by less, has passed. Default 0.01.
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
    /// Requests of each version before there is any verdict. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub least: Option<i64>,
    /// Requests of the canary after which a comparison that shows nothing waits for a person. Default: it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    pub most: Option<i64>,
    /// How many requests fail together, as by a client's retries: evidence counts so many times less. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub burst: Option<i32>,
}

/// Queries that count what happened within `{{ interval }}`, such as by `increase()`; see `query` of a metric for the
/// values that they may name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestQueries {
    /// Requests that failed. It needs an answer where none did: `(…) or vector(0)`.
    #[schemars(length(min = 1, max = 8192))]
    pub failures: String,
    /// All requests, also those that failed.
    #[schemars(length(min = 1, max = 8192))]
    pub requests: String,
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
