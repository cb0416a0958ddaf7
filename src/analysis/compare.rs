//! One look at both versions after the other, to a verdict.
//!
//! A query counts what happened within the interval, so that the server knows of counters that began anew, pod by pod. A
//! request is counted in one look only, because two looks are an interval apart; what happened between two looks that
//! are further apart, as while nobody asked, is in neither.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

use super::{
    Answer, Sample, ask,
    judge::{Finding, assess, note},
    metric::{Bounds, Metric, Question, Wrong},
    provider,
    sequential::{Counts, Judgement, Limits, Proportions, Verdict},
};
use crate::api::{
    analysis::{self as api, AnalysisPhase, MetricProvider, MetricStatus},
    comparison::RequestQueries,
};

/// What is asked of both versions, and how sure one wants to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Who answers.
    pub provider: MetricProvider,
    /// About the new version.
    pub canary: RequestQueries,
    /// About the version before.
    pub stable: RequestQueries,
    /// How sure, and of what; checked.
    pub limits: Limits,
}

impl Comparison {
    /// The queries of a look in their order, by their fields.
    pub fn queries(&self) -> [(&'static str, &str); 4] {
        [
            ("canary.failures", &self.canary.failures),
            ("canary.requests", &self.canary.requests),
            ("stable.failures", &self.stable.failures),
            ("stable.requests", &self.stable.requests),
        ]
    }
}

/// Answers to [`Comparison::queries`], in that order.
pub type Look = [Sample; 4];

/// Reads the question of a metric that has `compare`; `field` is where the metric is.
pub(super) fn read(field: &str, metric: &api::Metric) -> Result<Question, Wrong> {
    let wrong = |name: &str, problem: &str| Err((format!("{field}.{name}"), problem.to_owned()));
    let Some(compare) = &metric.compare else { return wrong("compare", "is missing") };
    let others = [
        ("query", metric.query.is_some()),
        ("template", metric.template.is_some()),
        ("min", metric.min.is_some()),
        ("max", metric.max.is_some()),
        ("condition", metric.condition.is_some()),
        ("count", metric.count.is_some()),
        ("failureLimit", metric.failure_limit.is_some()),
    ];
    if let Some((name, _)) = others.iter().find(|(_, is_there)| *is_there) {
        return wrong(name, "has no meaning beside compare; remove one of the two");
    }
    let Some(provider) = &metric.provider else { return wrong("provider", "is missing; say who answers the queries") };
    provider::check(provider).map_err(|(name, problem)| (format!("{field}.provider.{name}"), problem))?;
    if provider.prometheus.is_none() {
        return wrong("provider", "counts no requests; name prometheus to compare");
    }
    let usual = Limits::default();
    let limits = Limits {
        false_alarm: compare.false_alarm.unwrap_or(usual.false_alarm),
        missed: compare.missed.unwrap_or(usual.missed),
        effect: compare.effect.unwrap_or(usual.effect),
        tolerance: compare.tolerance.unwrap_or(usual.tolerance),
        least: compare.least.map_or(usual.least, |least| u64::try_from(least).unwrap_or_default()),
        most: compare.most.and_then(|most| u64::try_from(most).ok()).or(usual.most),
        burst: compare.burst.map_or(usual.burst, |burst| u32::try_from(burst).unwrap_or_default()),
    };
    limits.check(1.0).map_err(|error| {
        // It begins with the name of the limit.
        let text = error.to_string();
        let (name, problem) = text.split_once(' ').unwrap_or(("effect", &text));
        (format!("{field}.compare.{name}"), problem.to_owned())
    })?;
    let comparison = Comparison {
        provider: provider.clone(),
        canary: compare.canary.clone(),
        stable: compare.stable.clone(),
        limits,
    };
    if let Some((name, _)) = comparison.queries().iter().find(|(_, query)| query.trim().is_empty()) {
        return wrong(&format!("compare.{name}"), "is empty");
    }
    Ok(Question::Compare(Box::new(comparison)))
}

/// Takes in a look; says what it means. `question` is the text of all its queries.
pub fn take_in(
    status: &mut MetricStatus,
    metric: &Metric,
    comparison: &Comparison,
    question: &str,
    look: &Look,
) -> (Finding, String) {
    let first = look.iter().map(|sample| sample.at).min().unwrap_or_default();
    let at = look.iter().map(|sample| sample.at).max().unwrap_or_default();
    let slack = SignedDuration::from_millis(metric.interval.saturating_mul(100));
    let (finding, text, value) = if at.duration_since(first) > slack {
        let text = "the answers are of different moments, so that they do not count".to_owned();
        (Finding::Unavailable, text, String::new())
    } else {
        match counts(look) {
            Ok((canary, stable)) => compare(status, metric, comparison, canary, stable),
            Err((finding, text)) => (finding, text, String::new()),
        }
    };
    note(status, metric, at, finding, &text, value);
    let in_vain = matches!(finding, Finding::Unavailable | Finding::Mistake);
    // A late look is not followed by one that would see its requests again.
    let next = ask::next(at, metric.interval, question, if in_vain { status.without_data } else { 0 });
    status.next_time = Some(Time(next));
    (finding, text)
}

/// Takes in what was counted.
fn compare(
    status: &mut MetricStatus,
    metric: &Metric,
    comparison: &Comparison,
    canary: Counts,
    stable: Counts,
) -> (Finding, String, String) {
    let Ok(mut proportions) = resume(status, comparison) else {
        return (Finding::Mistake, "the limits of the comparison make no sense".to_owned(), String::new());
    };
    proportions.look(canary, stable);
    let judgement = proportions.judge(&metric.name);
    status.comparison = Some(proportions.state().clone());
    let (finding, text) = match (judgement.verdict, canary.requests, stable.requests) {
        (Verdict::Worse, ..) => (Finding::Failed, judgement.message),
        (Verdict::NotWorse, ..) => (Finding::Passed, judgement.message),
        (Verdict::Undecided, ..) if judgement.is_exhausted => (Finding::Inconclusive, judgement.message),
        (Verdict::Undecided, 0, _) => (Finding::NoData, "the canary had no requests".to_owned()),
        (Verdict::Undecided, _, 0) => (Finding::NoData, "the stable version had no requests".to_owned()),
        (Verdict::Undecided, ..) => (Finding::Undecided, judgement.message),
    };
    // Six digits are enough for people.
    let share = (judgement.canary * 1e6).round() / 1e6;
    (finding, text, share.to_string())
}

/// How the metric stands by what was compared: `None` while nothing is shown, and for a metric that compares nothing.
pub(super) fn verdict(status: &MetricStatus, metric: &Metric) -> Option<AnalysisPhase> {
    let comparison = metric.comparison()?;
    status.comparison.as_ref()?;
    let Judgement { verdict, is_exhausted, .. } = resume(status, comparison).ok()?.judge(&metric.name);
    match verdict {
        Verdict::Worse => Some(AnalysisPhase::Failed),
        Verdict::NotWorse => Some(AnalysisPhase::Passed),
        Verdict::Undecided => is_exhausted.then_some(AnalysisPhase::Inconclusive),
    }
}

fn resume(status: &MetricStatus, comparison: &Comparison) -> Result<Proportions, super::sequential::LimitError> {
    match &status.comparison {
        Some(state) => Proportions::resume(comparison.limits, state.clone()),
        None => Proportions::new(comparison.limits),
    }
}

/// What both versions counted, or the worst of what keeps it from being known.
fn counts(look: &Look) -> Result<(Counts, Counts), (Finding, String)> {
    let [canary_failures, canary_requests, stable_failures, stable_requests] = look;
    let mut problem: Option<(Finding, String)> = None;
    let mut number = |what: &str, sample: &Sample| match (&sample.answer, assess(&sample.answer, Bounds::default())) {
        (Answer::Value(value), _) if value.is_finite() => *value,
        (_, (finding, text)) => {
            if problem.as_ref().is_none_or(|(worst, _)| weight(finding) > weight(*worst)) {
                problem = Some((finding, format!("{what}: {text}")));
            }
            f64::NAN
        }
    };
    let canary = (number("canary.failures", canary_failures), number("canary.requests", canary_requests));
    let stable = (number("stable.failures", stable_failures), number("stable.requests", stable_requests));
    if let Some(problem) = problem {
        return Err(problem);
    }
    let read = |what: &str, (failures, requests): (f64, f64)| {
        Counts::from_numbers(failures, requests).ok_or_else(|| {
            let text = format!("{what}: {failures} failures of {requests} requests are no counts");
            (Finding::Inconclusive, text)
        })
    };
    Ok((read("canary", canary)?, read("stable", stable)?))
}

/// What must be mended comes first.
fn weight(finding: Finding) -> u8 {
    match finding {
        Finding::Mistake => 4,
        Finding::Unavailable => 3,
        Finding::NoData => 2,
        Finding::Inconclusive => 1,
        Finding::Passed | Finding::Failed | Finding::Undecided => 0,
    }
}

/// The answers of a look that is due, when all of them are there.
pub fn complete<'a>(due: Timestamp, samples: impl Iterator<Item = Option<&'a Sample>>) -> Option<Look> {
    let there: Option<Vec<Sample>> = samples.map(|sample| sample.filter(|s| s.at >= due).cloned()).collect();
    there?.try_into().ok()
}

#[cfg(test)]
mod tests;
