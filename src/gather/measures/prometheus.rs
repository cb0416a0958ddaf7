//! Servers that speak Prometheus' HTTP API: `POST /api/v1/query`.

use std::collections::BTreeMap;

use http::{Request, header::CONTENT_TYPE};
use hyper::body::Bytes;
use serde::{Deserialize, de::IgnoredAny};

use super::{
    http::Failure,
    servers::{Dialect, impossible, part},
};
use crate::{
    analysis::{Answer, ask::Ask},
    api::comparison::Histogram,
};

/// By which Mimir, Cortex and Thanos tell tenants apart.
const TENANT: &str = "x-scope-orgid";

/// Prometheus' HTTP API.
pub(super) struct Prometheus;

impl Dialect for Prometheus {
    fn request(&self, ask: &Ask, address: &str) -> Result<Request<Bytes>, Failure> {
        post(ask, &format!("{address}/api/v1/query"), &[("query", &ask.query)])
    }

    fn read(&self, ask: &Ask, body: &[u8]) -> Result<Answer, Failure> {
        read(body, ask.is_of_buckets)
    }

    fn objection(&self, body: &[u8]) -> Option<String> {
        let reply: Reply = serde_json::from_slice(body).ok()?;
        (!reply.error.is_empty()).then(|| format!("{}: {}", part(&reply.error_type), part(&reply.error)))
    }
}

/// Asks for what a query said at each moment from one second to another, `step` seconds apart.
pub(super) fn range_request(
    ask: &Ask,
    address: &str,
    (from, to): (i64, i64),
    step: i64,
) -> Result<Request<Bytes>, Failure> {
    let [from, to, step] = [from, to, step].map(|number| number.to_string());
    let fields = [("query", ask.query.as_str()), ("start", &from), ("end", &to), ("step", &step)];
    post(ask, &format!("{address}/api/v1/query_range"), &fields)
}

/// What a query said, by second.
pub type Range = BTreeMap<i64, Answer>;

pub(super) fn read_range(body: &[u8], is_of_buckets: bool) -> Result<Range, Failure> {
    let reply: Option<Reply> = serde_json::from_slice(body).ok();
    if reply.and_then(|reply| reply.data).is_none_or(|data| data.kind != "matrix") {
        return Err(Failure::Mistake(
            "the answer is none of Prometheus' HTTP API to a question about a time".to_owned(),
        ));
    }
    let mut moments = BTreeMap::<i64, Vec<Series>>::new();
    for series in result::<Vec<RangeSeries>>(body)? {
        for RangePoint(at, value) in series.values {
            let value = Some(Point(IgnoredAny, value));
            // Whole seconds are meant.
            #[allow(clippy::cast_possible_truncation)]
            moments.entry(at.round() as i64).or_default().push(Series { metric: series.metric.clone(), value });
        }
    }
    moments.into_iter().map(|(at, series)| Ok((at, answer(&series, is_of_buckets)?))).collect()
}

#[derive(Deserialize)]
struct RangeSeries {
    #[serde(default)]
    metric: Labels,
    #[serde(default)]
    values: Vec<RangePoint>,
}

/// Seconds since 1970, and a number as text.
#[derive(Deserialize)]
struct RangePoint(f64, String);

fn post(ask: &Ask, uri: &str, fields: &[(&str, &str)]) -> Result<Request<Bytes>, Failure> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let mut request = Request::post(uri).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(tenant) = ask.provider.prometheus.as_ref().and_then(|prometheus| prometheus.tenant.as_ref()) {
        request = request.header(TENANT, tenant);
    }
    request.body(body.into()).map_err(impossible)
}

/// What is common to all answers.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
}

/// An answer of a known kind.
#[derive(Deserialize)]
struct Of<T> {
    data: Found<T>,
}

#[derive(Deserialize)]
struct Found<T> {
    result: T,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: Labels,
    /// Absent for a native histogram.
    #[serde(default)]
    value: Option<Point>,
}

impl Series {
    fn number(&self) -> Result<f64, Failure> {
        let point = self.value.as_ref();
        number(&point.ok_or_else(|| Failure::Mistake("the answer is a histogram, not a number".to_owned()))?.1)
    }
}

/// What is read of a series' labels.
#[derive(Clone, Default, Deserialize)]
struct Labels {
    #[serde(default)]
    le: Option<String>,
}

/// As much as a histogram has; more is none.
const MOST_BUCKETS: usize = 100;

/// The buckets of one histogram; `None` where they are none, or of several.
fn histogram(series: &[Series]) -> Option<Histogram> {
    if series.len() > MOST_BUCKETS {
        return None;
    }
    let bucket = |series: &Series| {
        let (bound, count) = (series.metric.le.as_deref()?.parse().ok()?, series.number().ok()?);
        // As what was counted is extrapolated, it has fractions.
        (0.0..1e15).contains(&count).then(|| (bound, count.round() as u64))
    };
    Histogram::cumulative(series.iter().map(bucket).collect::<Option<Vec<(f64, u64)>>>()?)
}

/// Seconds since 1970, and a number as text.
#[derive(Deserialize)]
struct Point(IgnoredAny, String);

fn read(body: &[u8], is_of_buckets: bool) -> Result<Answer, Failure> {
    let reply: Option<Reply> = serde_json::from_slice(body).ok();
    let Some(data) = reply.and_then(|reply| reply.data) else {
        return Err(Failure::Mistake("the answer is none of Prometheus' HTTP API".to_owned()));
    };
    match data.kind.as_str() {
        "scalar" => number(&result::<Point>(body)?.1).map(Answer::Value),
        "vector" => answer(&result::<Vec<Series>>(body)?, is_of_buckets),
        other => Err(Failure::Mistake(format!("the answer is a {}, not a number at one moment", part(other)))),
    }
}

/// What the series of one moment say.
fn answer(series: &[Series], is_of_buckets: bool) -> Result<Answer, Failure> {
    if is_of_buckets && let Some(histogram) = histogram(series) {
        return Ok(Answer::Histogram(histogram));
    }
    let numbers: Result<Vec<f64>, Failure> = series.iter().map(Series::number).collect();
    Ok(Answer::of(numbers?.into_iter()))
}

/// Read a second time, into what it is: into something general it would take ten times the space.
fn result<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Failure> {
    let of: Of<T> = serde_json::from_slice(body)
        .map_err(|error| Failure::Mistake(format!("the answer cannot be read: {error}")))?;
    Ok(of.data.result)
}

/// `NaN`, `+Inf` and `-Inf` are numbers here as there.
fn number(text: &str) -> Result<f64, Failure> {
    text.parse().map_err(|_| Failure::Mistake(format!("{:?} is no number", part(text))))
}

#[cfg(test)]
mod tests;
