//! An `analysis` of the spec, read once into a form that cannot be wrong.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    compare::{self, Comparison},
    condition::Condition,
    provider,
};
use crate::api::{
    analysis::{self as api, MetricProvider, OnFailure, OnNoData, OnSuccess},
    comparison::Compare,
    object::digest,
};

const DEFAULT_INTERVAL: i64 = 60;
const DEFAULT_COUNT: i32 = 5;
const DEFAULT_INCONCLUSIVE_LIMIT: i32 = 3;
const DEFAULT_NO_DATA_TIMEOUT: i64 = 300;
/// A year; more is a slip.
const LONGEST: i64 = 366 * 86_400;

/// A field that cannot be followed: its path, and what is wrong.
pub type Wrong = (String, String);

/// Metrics that decide about a release.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// What is measured; never empty.
    pub metrics: Vec<Metric>,
    /// What follows when all passed.
    pub on_success: OnSuccess,
    /// What follows when one failed.
    pub on_failure: OnFailure,
}

/// One metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// What is asked.
    pub question: Question,
    /// Which values are good.
    pub bounds: Bounds,
    /// Which answers are, where there are no bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Samples without which a value is no data; none are counted where this is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_samples: Option<i64>,
    /// What counts them, before any value is put in; else the template says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_query: Option<String>,
    /// Seconds between two measurements; at least 1.
    pub interval: i64,
    /// Seconds before the first one.
    pub delay: i64,
    /// Values after which it has passed.
    pub count: i32,
    /// Values out of bounds that are forgiven.
    pub failure_limit: i32,
    /// Answers that cannot be judged and are forgiven.
    pub inconclusive_limit: i32,
    /// What follows when there are no data.
    pub on_no_data: OnNoData,
    /// Seconds without data after which that follows.
    pub no_data_timeout: i64,
}

impl Metric {
    /// Changes when the metric is another.
    pub fn hash(&self) -> String {
        digest(&serde_json::to_value(self).unwrap_or_default())
    }

    /// Whether both versions are compared, instead of one being measured.
    pub fn is_comparison(&self) -> bool {
        matches!(self.question, Question::Compare { .. } | Question::Template { compare: Some(_), .. })
    }
}

/// What is asked, before any value is put in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Question {
    /// In the spec itself.
    Query {
        /// Who answers.
        provider: MetricProvider,
        /// The text.
        query: String,
    },
    /// In a template.
    Template {
        /// Who answers; else the template says.
        provider: Option<MetricProvider>,
        /// Name of the template.
        name: String,
        /// Values of its arguments.
        arguments: BTreeMap<String, String>,
        /// Of a template that compares: what the metric says itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        compare: Option<Box<Compare>>,
    },
    /// Of both versions.
    Compare {
        /// Who answers.
        provider: MetricProvider,
        /// What is asked.
        comparison: Box<Comparison>,
    },
}

/// Which values are good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bounds {
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// Reads an analysis; `field` is where it is.
///
/// # Errors
/// Names the field and what is wrong.
pub fn read(field: &str, analysis: &api::Analysis) -> Result<Analysis, Wrong> {
    if analysis.metrics.is_empty() {
        return Err((format!("{field}.metrics"), "is empty; an analysis needs at least one metric".to_owned()));
    }
    let mut metrics: Vec<Metric> = Vec::new();
    for (i, metric) in analysis.metrics.iter().enumerate() {
        let field = format!("{field}.metrics[{i}]");
        if metrics.iter().any(|m| m.name == metric.name) {
            return Err((format!("{field}.name"), format!("{:?} is there twice", metric.name)));
        }
        metrics.push(read_metric(&field, metric, analysis.background)?);
    }
    Ok(Analysis {
        metrics,
        on_success: analysis.on_success.unwrap_or_default(),
        on_failure: analysis.on_failure.unwrap_or_default(),
    })
}

fn read_metric(field: &str, metric: &api::Metric, is_background: bool) -> Result<Metric, Wrong> {
    let wrong = |name: &str, problem: &str| Err((format!("{field}.{name}"), problem.to_owned()));
    if metric.name.is_empty() {
        return wrong("name", "is empty");
    }
    if metric.compare.is_some() {
        compare::check_metric(field, metric, is_background)?;
    }
    let question = match (&metric.query, &metric.template) {
        (None, None) if let Some(compare) = &metric.compare => read_comparison(field, metric, compare)?,
        (Some(query), None) => match &metric.provider {
            Some(provider) => Question::Query { provider: provider.clone(), query: query.clone() },
            None => return wrong("provider", "is missing; say who answers the query"),
        },
        (None, Some(template)) => Question::Template {
            provider: metric.provider.clone(),
            name: template.name.clone(),
            arguments: template.arguments.clone(),
            compare: metric.compare.clone().map(Box::new),
        },
        _ => return wrong("query", "is to be given, or a template: exactly one of the two"),
    };
    if let Some(provider) = &metric.provider {
        provider::check(provider).map_err(|(name, problem)| (format!("{field}.provider.{name}"), problem))?;
    }
    check_samples(metric).map_err(|(name, problem)| (format!("{field}.{name}"), problem.to_owned()))?;
    let bounds = Bounds { min: metric.min, max: metric.max };
    match (bounds.min, bounds.max) {
        _ if metric.compare.is_some() => {}
        (None, None) if metric.condition.is_some() => {}
        _ if metric.condition.is_some() => {
            return wrong("condition", "stands instead of min and max; keep one of the two");
        }
        (None, None) => {
            return wrong("min", "is missing, and so is max; a metric needs a bound, a condition or compare");
        }
        (Some(min), Some(max)) if min > max => return wrong("min", "is above max, so that no value is good"),
        _ => {}
    }
    let condition = metric.condition.as_ref().map(|text| Condition::parse(text)).transpose();
    let condition = condition.map_err(|problem| (format!("{field}.condition"), problem))?;
    let seconds = |name: &str, text: &Option<String>| match text.as_deref().map(|text| (text, seconds(text))) {
        None => Ok(None),
        Some((_, Some(seconds))) => Ok(Some(seconds)),
        Some((text, None)) => {
            Err((format!("{field}.{name}"), format!("{text:?} is no duration; write such as 30s, 5m or 1h30m")))
        }
    };
    let interval = seconds("interval", &metric.interval)?.unwrap_or(DEFAULT_INTERVAL);
    if interval < 1 {
        return wrong("interval", "is 0; it is at least 1s");
    }
    Ok(Metric {
        name: metric.name.clone(),
        question,
        bounds,
        condition,
        min_samples: metric.min_samples,
        samples_query: metric.samples_query.clone(),
        interval,
        delay: seconds("delay", &metric.delay)?.unwrap_or(interval),
        count: metric.count.unwrap_or(DEFAULT_COUNT).max(1),
        failure_limit: metric.failure_limit.unwrap_or(0).max(0),
        inconclusive_limit: metric.inconclusive_limit.unwrap_or(DEFAULT_INCONCLUSIVE_LIMIT).max(0),
        on_no_data: metric.on_no_data.unwrap_or_default(),
        no_data_timeout: seconds("noDataTimeout", &metric.no_data_timeout)?.unwrap_or(DEFAULT_NO_DATA_TIMEOUT),
    })
}

/// Whether samples can be counted as a metric says.
fn check_samples(metric: &api::Metric) -> Result<(), (&'static str, &'static str)> {
    let counts_nothing = |provider: &MetricProvider| provider.pods.is_some() || provider.job.is_some();
    match (metric.min_samples, &metric.samples_query) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(("samplesQuery", "has a meaning with minSamples only; add that, or remove it")),
        (Some(least), _) if least < 1 => Err(("minSamples", "is below 1; remove it to let every value count")),
        (Some(_), _) if metric.provider.as_ref().is_some_and(counts_nothing) => {
            Err(("minSamples", "has no meaning for pods and jobs, which count no samples; remove it"))
        }
        (Some(_), None) if metric.template.is_none() => {
            Err(("samplesQuery", "is missing; say what counts the samples of minSamples"))
        }
        (Some(_), _) => Ok(()),
    }
}

fn read_comparison(field: &str, metric: &api::Metric, compare: &Compare) -> Result<Question, Wrong> {
    let of_provider = |problem: String| (format!("{field}.provider"), problem);
    let Some(provider) = &metric.provider else {
        return Err(of_provider("is missing; say who answers the queries".to_owned()));
    };
    provider::check(provider).map_err(|(name, problem)| (format!("{field}.provider.{name}"), problem))?;
    compare::check_provider(provider).map_err(of_provider)?;
    let comparison = compare::read(compare).map_err(|(name, problem)| (format!("{field}.compare.{name}"), problem))?;
    Ok(Question::Compare { provider: provider.clone(), comparison: Box::new(comparison) })
}

/// Reads `1h30m5s`: hours, minutes, seconds, in this order, whole numbers.
pub fn seconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    for (unit, size) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, tail)) = rest.split_once(unit) else { continue };
        if number.is_empty() || number.len() > 9 || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(size)?)?;
        rest = tail;
    }
    (rest.is_empty() && !text.is_empty() && total <= LONGEST).then_some(total)
}

/// Seconds as Prometheus reads them.
pub fn duration(seconds: i64) -> String {
    match seconds {
        s if s % 3600 == 0 && s > 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 && s > 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::analysis::{PodsProvider, Prometheus};

    fn metric() -> api::Metric {
        let prometheus = Prometheus { address: "http://prometheus:9090".into(), ..Prometheus::default() };
        api::Metric {
            name: "errors".into(),
            provider: Some(MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }),
            query: Some("up".into()),
            max: Some(0.01),
            ..api::Metric::default()
        }
    }

    fn reading(change: impl Fn(&mut api::Metric)) -> Result<Analysis, Wrong> {
        let mut metric = metric();
        change(&mut metric);
        read("a", &api::Analysis { metrics: vec![metric], ..api::Analysis::default() })
    }

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("30s", Some(30)),
            ("1m", Some(60)),
            ("1h30m5s", Some(5405)),
            ("90m", Some(5400)),
            ("0s", Some(0)),
            ("", None),
            ("30", None),
            ("s", None),
            ("1s1m", None),
            ("1m1m", None),
            ("-1s", None),
            ("1.5m", None),
            ("9999999999s", None),
            ("99999h", None),
        ] {
            assert_eq!(seconds(text), wanted, "{text:?}");
        }
        for (seconds, wanted) in [(30, "30s"), (60, "1m"), (90, "90s"), (7200, "2h"), (0, "0s")] {
            assert_eq!(duration(seconds), wanted);
        }
    }

    #[test]
    fn defaults() {
        let metric = reading(|_| {}).unwrap().metrics.remove(0);
        let times = (metric.interval, metric.delay, metric.no_data_timeout);
        assert_eq!(times, (60, 60, 300));
        assert_eq!((metric.count, metric.failure_limit, metric.inconclusive_limit), (5, 0, 3));
        assert_eq!(metric.on_no_data, OnNoData::Wait);
        let metric = reading(|m| m.interval = Some("10s".into())).unwrap().metrics.remove(0);
        assert_eq!((metric.interval, metric.delay), (10, 10), "the delay follows the interval");
    }

    #[test]
    fn what_is_wrong_names_its_field() {
        type Change = fn(&mut api::Metric);
        let table: [(Change, &str); 18] = [
            (|m| m.min_samples = Some(20), "a.metrics[0].samplesQuery"),
            (|m| m.samples_query = Some("n".into()), "a.metrics[0].samplesQuery"),
            (|m| (m.min_samples, m.samples_query) = (Some(0), Some("n".into())), "a.metrics[0].minSamples"),
            (
                |m| {
                    let pods = MetricProvider { pods: Some(PodsProvider {}), ..MetricProvider::default() };
                    (m.min_samples, m.samples_query, m.provider) = (Some(2), Some("n".into()), Some(pods));
                },
                "a.metrics[0].minSamples",
            ),
            (|m| m.name = String::new(), "a.metrics[0].name"),
            (|m| m.query = None, "a.metrics[0].query"),
            (|m| m.template = Some(api::TemplateRef::default()), "a.metrics[0].query"),
            (|m| m.provider = None, "a.metrics[0].provider"),
            (|m| m.provider = Some(MetricProvider::default()), "a.metrics[0].provider.prometheus"),
            (|m| m.provider.as_mut().unwrap().pods = Some(PodsProvider {}), "a.metrics[0].provider.prometheus"),
            (
                |m| m.provider.as_mut().unwrap().prometheus.as_mut().unwrap().address = "prometheus:9090/x y".into(),
                "a.metrics[0].provider.prometheus.address",
            ),
            (
                |m| m.provider.as_mut().unwrap().prometheus.as_mut().unwrap().address = "http://u:p@host".into(),
                "a.metrics[0].provider.prometheus.address",
            ),
            (
                |m| m.provider.as_mut().unwrap().prometheus.as_mut().unwrap().tenant = Some("a\nb".into()),
                "a.metrics[0].provider.prometheus.tenant",
            ),
            (|m| m.max = None, "a.metrics[0].min"),
            (|m| m.condition = Some("value < 1.0".into()), "a.metrics[0].condition"),
            (|m| (m.max, m.condition) = (None, Some("value <".into())), "a.metrics[0].condition"),
            (|m| m.min = Some(1.0), "a.metrics[0].min"),
            (|m| m.interval = Some("0s".into()), "a.metrics[0].interval"),
        ];
        for (i, (change, field)) in table.into_iter().enumerate() {
            let (found, problem) = reading(change).unwrap_err();
            assert_eq!(found, field, "row {i}: {problem}");
        }
        let (field, _) = reading(|m| m.no_data_timeout = Some("soon".into())).unwrap_err();
        assert_eq!(field, "a.metrics[0].noDataTimeout");
        let twice = api::Analysis { metrics: vec![metric(), metric()], ..api::Analysis::default() };
        assert_eq!(read("a", &twice).unwrap_err().0, "a.metrics[1].name");
        assert_eq!(read("a", &api::Analysis::default()).unwrap_err().0, "a.metrics");
    }
}
