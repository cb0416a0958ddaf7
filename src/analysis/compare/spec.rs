//! What is compared, how sure one wants to be, and of what: read once into a form that cannot be wrong.

use serde::Serialize;

use super::super::{
    metric::Wrong,
    sequential::{Limits, Means, Quantiles},
};
use crate::api::{
    analysis::{self as api, MetricProvider},
    comparison::{Compare, VersionQueries},
};

/// What is asked of both versions, and how sure one wants to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What is compared.
    pub form: Form,
    /// How sure, and of what; checked.
    pub limits: Limits,
    /// The queries of a look in their order, each with its field; as many as the form has.
    pub queries: Vec<(String, String)>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Form {
    /// The share of requests that fail: failures and requests of the canary, then of the stable version.
    Failures,
    /// A quantile of how long requests take: buckets of the canary, then of the stable version.
    Latency {
        /// Which one.
        quantile: f64,
        /// What counts as slow, if that is the user's.
        slow: Option<f64>,
    },
    /// The mean of a value: the canary's, then the stable version's.
    Values {
        /// The smallest one.
        low: f64,
        /// The largest one.
        high: f64,
    },
}

const DEFAULT_QUANTILE: f64 = 0.95;
/// Intervals before there is any verdict about a value.
const LEAST_INTERVALS: u64 = 5;

/// Reads the questions of a metric, or of a template.
///
/// # Errors
/// Names the field below `compare` and what is wrong.
pub fn read(compare: &Compare) -> Result<Comparison, Wrong> {
    let wrong = |field: &str, problem: &str| Err((field.to_owned(), problem.to_owned()));
    let (Some(canary), Some(stable)) = (&compare.canary, &compare.stable) else {
        let field = if compare.canary.is_none() { "canary" } else { "stable" };
        return wrong(field, "is missing; say what is asked about this version");
    };
    let (ours, theirs) = (asked("canary", canary)?, asked("stable", stable)?);
    if ours.iter().map(|(name, _)| name).ne(theirs.iter().map(|(name, _)| name)) {
        return wrong("stable", "is to be asked the same as canary");
    }
    let form = form(&ours, compare)?;
    let queries = [("canary", ours), ("stable", theirs)];
    let queries = queries.into_iter().flat_map(|(version, asked)| {
        asked.into_iter().map(move |(name, query)| (format!("{version}.{name}"), query.to_owned()))
    });
    Ok(Comparison { form, limits: limits(form, compare)?, queries: queries.collect() })
}

/// The queries about one version, by name.
fn asked<'a>(version: &str, queries: &'a VersionQueries) -> Result<Vec<(&'static str, &'a str)>, Wrong> {
    let VersionQueries { failures, requests, buckets, value } = queries;
    let all = [("failures", failures), ("requests", requests), ("buckets", buckets), ("value", value)];
    let there: Vec<(&str, &str)> =
        all.into_iter().filter_map(|(name, query)| Some((name, query.as_deref()?))).collect();
    if let Some((name, _)) = there.iter().find(|(_, query)| query.trim().is_empty()) {
        return Err((format!("{version}.{name}"), "is empty".to_owned()));
    }
    let names: Vec<&str> = there.iter().map(|(name, _)| *name).collect();
    match names.as_slice() {
        ["failures", "requests"] | ["buckets" | "value"] => Ok(there),
        _ => Err((version.to_owned(), "is to have failures and requests, or buckets, or a value".to_owned())),
    }
}

fn form(asked: &[(&str, &str)], compare: &Compare) -> Result<Form, Wrong> {
    let name = asked.first().map_or("", |(name, _)| name);
    let of_others = [
        ("quantile", compare.quantile.is_some(), "buckets"),
        ("slow", compare.slow.is_some(), "buckets"),
        ("range", compare.range.is_some(), "value"),
        ("burst", compare.burst.is_some() && name == "value", "requests"),
    ];
    if let Some((field, _, of)) = of_others.iter().find(|(_, is_there, of)| *is_there && *of != name) {
        return Err(((*field).to_owned(), format!("has a meaning for {of} only; remove it")));
    }
    Ok(match (name, compare.range) {
        ("buckets", _) if compare.quantile.is_some() && compare.slow.is_some() => {
            return Err(("slow".to_owned(), "stands instead of quantile; keep one of the two".to_owned()));
        }
        ("buckets", _) => {
            let quantile = compare.quantile.unwrap_or(DEFAULT_QUANTILE);
            Form::Latency { quantile, slow: compare.slow }
        }
        ("value", Some(range)) => Form::Values { low: range.min, high: range.max },
        ("value", None) => {
            return Err(("range".to_owned(), "is missing; say between which bounds the value lies".to_owned()));
        }
        _ => Form::Failures,
    })
}

fn limits(form: Form, compare: &Compare) -> Result<Limits, Wrong> {
    let usual = Limits::default();
    let (effect, least) = match form {
        Form::Failures => (Some(usual.effect), usual.least),
        // Rounded, as people read it.
        Form::Latency { quantile, .. } => (Some(((1.0 - quantile) * 0.5e6).round() / 1e6), usual.least),
        Form::Values { .. } => (None, LEAST_INTERVALS),
    };
    let Some(effect) = compare.effect.or(effect) else {
        return Err(("effect".to_owned(), "is missing; say which difference of the value matters".to_owned()));
    };
    let limits = Limits {
        false_alarm: compare.false_alarm.unwrap_or(usual.false_alarm),
        missed: compare.missed.unwrap_or(usual.missed),
        effect,
        tolerance: compare.tolerance.unwrap_or(usual.tolerance),
        least: compare.least.map_or(least, |least| u64::try_from(least).unwrap_or_default()),
        most: compare.most.and_then(|most| u64::try_from(most).ok()).or(usual.most),
        burst: compare.burst.map_or(usual.burst, |burst| u32::try_from(burst).unwrap_or_default()),
        round: 0,
    };
    let checked = match form {
        Form::Failures => limits.check(1.0),
        Form::Latency { quantile, slow } => Quantiles::new(quantile, slow, limits).map(|_| ()),
        Form::Values { low, high } => Means::new(low, high, limits).map(|_| ()),
    };
    checked.map_err(|error| {
        // It begins with the name of the limit.
        let text = error.to_string();
        let (name, problem) = text.split_once(' ').unwrap_or(("effect", &text));
        (name.to_owned(), problem.to_owned())
    })?;
    Ok(limits)
}

/// What a metric says over its template.
pub fn over(metric: &Compare, template: &Compare) -> Compare {
    let (metric, template) = (metric.clone(), template.clone());
    // Who says one of the two means it instead of the other.
    let is_told = metric.quantile.is_some() || metric.slow.is_some();
    let (quantile, slow) = if is_told { (metric.quantile, metric.slow) } else { (template.quantile, template.slow) };
    Compare {
        canary: metric.canary.or(template.canary),
        stable: metric.stable.or(template.stable),
        effect: metric.effect.or(template.effect),
        tolerance: metric.tolerance.or(template.tolerance),
        false_alarm: metric.false_alarm.or(template.false_alarm),
        missed: metric.missed.or(template.missed),
        least: metric.least.or(template.least),
        most: metric.most.or(template.most),
        burst: metric.burst.or(template.burst),
        quantile,
        slow,
        range: metric.range.or(template.range),
    }
}

/// Checks what stands beside `compare` in a metric.
pub fn check_metric(field: &str, metric: &api::Metric, is_background: bool) -> Result<(), Wrong> {
    let others = [
        ("query", metric.query.is_some()),
        ("min", metric.min.is_some()),
        ("max", metric.max.is_some()),
        ("condition", metric.condition.is_some()),
        ("count", metric.count.is_some()),
        ("failureLimit", metric.failure_limit.is_some()),
        ("minSamples", metric.min_samples.is_some()),
        ("samplesQuery", metric.samples_query.is_some()),
    ];
    if let Some((name, _)) = others.iter().find(|(_, is_there)| *is_there) {
        let problem = "has no meaning beside compare; remove one of the two".to_owned();
        return Err((format!("{field}.{name}"), problem));
    }
    let Some(compare) = &metric.compare else { return Ok(()) };
    if is_background && compare.most.is_some() {
        let problem = "has no meaning in the background, where a comparison has no end; remove it".to_owned();
        return Err((format!("{field}.compare.most"), problem));
    }
    if metric.template.is_some() && (compare.canary.is_some() || compare.stable.is_some()) {
        let name = if compare.canary.is_some() { "canary" } else { "stable" };
        return Err((format!("{field}.compare.{name}"), "is the template's; remove one of the two".to_owned()));
    }
    Ok(())
}

/// Only a Prometheus counts requests of an interval.
pub fn check_provider(provider: &MetricProvider) -> Result<(), String> {
    match provider.prometheus {
        Some(_) => Ok(()),
        None => Err("counts nothing within an interval; name prometheus to compare".to_owned()),
    }
}
