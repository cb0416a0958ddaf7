//! Who answers the questions of an analysis. Ours, as all of the analysis.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who answers; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricProvider {
    /// A server that speaks Prometheus' HTTP API: Prometheus, Thanos, Mimir, VictoriaMetrics. The query is PromQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// Datadog. The query is one of its metrics queries; values stand in it without quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datadog: Option<Datadog>,
    /// Any server that answers in JSON. The query is a JSONPath (RFC 9535) that finds one number, boolean (1 or 0) or text
    /// in the answer; `null` and nothing are no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<Web>,
    /// A Job for each measurement, made from the template of a CronJob of the namespace, which the query names; one that is
    /// suspended will do. Its value is 1 when it succeeded and 0 when it failed: `min: 1`. Not in templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobProvider>,
    /// The pods of the new version, without any metrics server. The query is `restarts` (of containers since the pod
    /// began) or `oom-kills` (containers that ended last because they used too much memory).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodsProvider>,
}

/// A server that speaks Prometheus' HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prometheus {
    /// Where it is, without `/api/v1`: such as `http://prometheus.monitoring:9090`.
    #[schemars(length(min = 1, max = 1024))]
    pub address: String,
    /// Value of the header `X-Scope-OrgID`, by which Mimir, Cortex and Thanos tell tenants apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub tenant: Option<String>,
    /// A Secret of the Rollout's namespace with how to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// Datadog's API for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Datadog {
    /// Where the API of the account's site is, such as `https://api.datadoghq.eu`. Default `https://api.datadoghq.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub address: Option<String>,
    /// `v2` (default): one number over the last interval, `aggregator` of the query. `v1`: the last point of the query's
    /// series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<DatadogApi>,
    /// Of `v2`: `avg` (default), `min`, `max`, `sum`, `last`, `percentile`, `mean`, `l2norm` or `area`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^[a-z0-9]+$"))]
    pub aggregator: Option<String>,
    /// A Secret of the Rollout's namespace with `address`, `header.DD-API-KEY` and `header.DD-APPLICATION-KEY`.
    pub secret_ref: SecretRef,
}

/// A version of Datadog's query API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DatadogApi {
    /// `GET /api/v1/query`.
    V1,
    /// `POST /api/v2/query/scalar`.
    #[default]
    V2,
}

/// A server that answers in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Web {
    /// Where it is: such as `https://quality.example.com`.
    #[schemars(length(min = 1, max = 1024))]
    pub address: String,
    /// What is asked there: path and query, such as `/check?service={{ canary-service }}`; see `query` for the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub path: Option<String>,
    /// Sent by POST; a text in JSON, whose texts may name values. Absent: GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub body: Option<String>,
    /// A Secret of the Rollout's namespace with how to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// A Secret with how to reach a server. Its keys: `ca.crt` (certificates in PEM by which the server's is judged, instead of
/// the system's), `token` (bearer), `username` and `password` (basic), and `header.<Name>` for any other header; with any
/// of these but `ca.crt`, `address`: the only address that they are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Job for each measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobProvider {
    /// How long one may run, such as `5m`. Default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16))]
    pub timeout: Option<String>,
}

/// The pods of the new version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodsProvider {}

/// Of Datadog, where no other is named.
const DATADOG: &str = "https://api.datadoghq.com";

impl MetricProvider {
    /// Where the server is, without a slash at its end; empty for one that is no server.
    pub fn address(&self) -> &str {
        let address = match (&self.prometheus, &self.datadog, &self.web) {
            (Some(prometheus), ..) => &prometheus.address,
            (_, Some(datadog), _) => datadog.address.as_deref().unwrap_or(DATADOG),
            (.., Some(web)) => &web.address,
            (None, None, None) => "",
        };
        address.trim_end_matches('/')
    }

    /// The Secret with how to log in.
    pub fn secret_ref(&self) -> Option<&SecretRef> {
        match (&self.prometheus, &self.datadog, &self.web) {
            (Some(prometheus), ..) => prometheus.secret_ref.as_ref(),
            (_, Some(datadog), _) => Some(&datadog.secret_ref),
            (.., Some(web)) => web.secret_ref.as_ref(),
            (None, None, None) => None,
        }
    }
}
