//! Datadog: `POST /api/v2/query/scalar`, or `GET /api/v1/query`.

use http::{Request, header::CONTENT_TYPE};
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::{
    http::Failure,
    login::Login,
    servers::{Dialect, impossible, part},
};
use crate::{
    analysis::{Answer, ask::Ask},
    api::analysis::{Datadog as Spec, DatadogApi},
};

/// The shortest time that is asked about, in seconds: shorter than this Datadog keeps no points apart.
const SHORTEST: i64 = 60;
/// Headers of a login.
const KEYS: [&str; 2] = ["dd-api-key", "dd-application-key"];

/// Datadog's API for metrics.
pub(super) struct Datadog;

fn spec(ask: &Ask) -> Result<&Spec, Failure> {
    ask.provider.datadog.as_ref().ok_or_else(|| Failure::Mistake("the provider is not datadog".to_owned()))
}

impl Dialect for Datadog {
    fn request(&self, ask: &Ask, address: &str) -> Result<Request<Bytes>, Failure> {
        let spec = spec(ask)?;
        let to = ask.due.as_second();
        let from = to.saturating_sub(ask.interval.max(SHORTEST));
        match spec.api.unwrap_or_default() {
            DatadogApi::V1 => {
                let fields = [("from", from.to_string()), ("to", to.to_string()), ("query", ask.query.clone())];
                let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                Request::get(format!("{address}/api/v1/query?{query}")).body(Bytes::new()).map_err(impossible)
            }
            DatadogApi::V2 => {
                let aggregator = spec.aggregator.as_deref().unwrap_or("avg");
                let query =
                    json!({"data_source": "metrics", "name": "a", "query": ask.query, "aggregator": aggregator});
                let attributes = json!({"formulas": [{"formula": "a"}], "queries": [query],
                    "from": from.saturating_mul(1000), "to": to.saturating_mul(1000)});
                let body = json!({"data": {"type": "scalar_request", "attributes": attributes}}).to_string();
                Request::post(format!("{address}/api/v2/query/scalar"))
                    .header(CONTENT_TYPE, "application/json")
                    .body(body.into())
                    .map_err(impossible)
            }
        }
    }

    fn read(&self, ask: &Ask, body: &[u8]) -> Result<Answer, Failure> {
        let unreadable = |error| Failure::Mistake(format!("the answer is none of Datadog's query API: {error}"));
        match spec(ask)?.api.unwrap_or_default() {
            DatadogApi::V1 => {
                let reply: SeriesReply = serde_json::from_slice(body).map_err(unreadable)?;
                if reply.status == "error" || !reply.error.is_empty() {
                    return Err(Failure::Mistake(part(&reply.error).to_owned()));
                }
                let last = |series: &Points| series.pointlist.iter().rev().find_map(|Point(_, value)| *value);
                let values: Vec<f64> = reply.series.iter().filter_map(last).collect();
                Ok(Answer::of(values.into_iter()))
            }
            DatadogApi::V2 => {
                let reply: ScalarReply = serde_json::from_slice(body).map_err(unreadable)?;
                // The other columns name the groups.
                let numbers = reply.data.attributes.columns.into_iter().filter(|column| column.kind == "number");
                let values: Vec<f64> = numbers.flat_map(|column| column.values).filter_map(|v| v.as_f64()).collect();
                Ok(Answer::of(values.into_iter()))
            }
        }
    }

    fn objection(&self, body: &[u8]) -> Option<String> {
        let reply: Objections = serde_json::from_slice(body).ok()?;
        let said = reply.errors.iter().map(|error| match error {
            serde_json::Value::String(text) => text.clone(),
            other => other.get("detail").or(other.get("title")).and_then(|t| t.as_str()).unwrap_or_default().to_owned(),
        });
        Some(said.collect::<Vec<_>>().join("; ")).filter(|said| !said.is_empty())
    }

    fn check(&self, login: &Login) -> Result<(), String> {
        match KEYS.iter().find(|key| login.headers.iter().all(|(name, _)| name.as_str() != **key)) {
            None => Ok(()),
            Some(key) => Err(format!("lacks the key header.{}", key.to_uppercase())),
        }
    }
}

#[derive(Deserialize)]
struct Objections {
    errors: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct SeriesReply {
    #[serde(default)]
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    series: Vec<Points>,
}

#[derive(Deserialize)]
struct Points {
    pointlist: Vec<Point>,
}

/// Milliseconds since 1970, and a number or nothing.
#[derive(Deserialize)]
struct Point(serde::de::IgnoredAny, Option<f64>);

#[derive(Deserialize)]
struct ScalarReply {
    data: Scalars,
}

#[derive(Deserialize)]
struct Scalars {
    attributes: Columns,
}

#[derive(Deserialize)]
struct Columns {
    columns: Vec<Column>,
}

#[derive(Deserialize)]
struct Column {
    #[serde(rename = "type")]
    kind: String,
    values: Vec<serde_json::Value>,
}

#[cfg(test)]
mod tests;
