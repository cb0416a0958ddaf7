//! One look at both versions after the other, to a verdict.
//!
//! A query counts what happened within the interval, so that the server knows of counters that began anew, pod by pod. A
//! request is counted in one look only, because two looks are an interval apart; what happened between two looks that
//! are further apart, as while nobody asked, is in neither.

mod spec;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use self::spec::{Comparison, Form, check_metric, check_provider, over, read};
use super::{
    Answer, Sample, ask,
    judge::{Finding, NOT_TOGETHER, assess, note},
    metric::{Bounds, Metric},
    sequential::{
        Counts, Histogram, Judgement, LimitError, Limits, Look, Means, Proportions, Quantiles, QuantilesState, Verdict,
    },
};
use crate::api::{
    analysis::{AnalysisPhase, MetricStatus},
    comparison::ComparisonState,
};

/// Takes in a look: answers to the queries of a comparison, in their order. Says what it means. `timing`: see
/// [`ask::due`]. In the background a canary that is no worse is compared anew.
pub fn take_in(
    status: &mut MetricStatus,
    metric: &Metric,
    comparison: &Comparison,
    timing: &str,
    look: &[Sample],
    is_background: bool,
) -> (Finding, String) {
    let at = look.iter().map(|sample| sample.at).max().unwrap_or_default();
    let (finding, text, value) = if !ask::are_together(look, metric.interval) {
        (Finding::Unavailable, NOT_TOGETHER.to_owned(), String::new())
    } else {
        match seen(comparison, look) {
            Ok(seen) => compare(status, metric, comparison, &seen, is_background),
            Err((finding, text)) => (finding, text, String::new()),
        }
    };
    note(status, metric, at, finding, &text, value);
    let in_vain = matches!(finding, Finding::Unavailable | Finding::Mistake);
    // A late look is not followed by one that would see its requests again.
    let next = ask::next(at, metric.interval, timing, if in_vain { status.without_data } else { 0 });
    status.next_time = Some(Time(next));
    (finding, text)
}

/// What was found of both versions, the canary first.
enum Seen {
    Failures(Counts, Counts),
    Latency(Histogram, Histogram),
    Values(f64, f64),
}

impl Seen {
    /// Requests of both versions; of values, that there is one.
    fn requests(&self) -> (u64, u64) {
        match self {
            Seen::Failures(canary, stable) => (canary.requests, stable.requests),
            Seen::Latency(canary, stable) => (canary.requests, stable.requests),
            Seen::Values(..) => (1, 1),
        }
    }
}

/// Takes in what was found.
fn compare(
    status: &mut MetricStatus,
    metric: &Metric,
    comparison: &Comparison,
    seen: &Seen,
    is_background: bool,
) -> (Finding, String, String) {
    let mut state = status.comparison.take().unwrap_or_default();
    let round = if is_background { state.rounds.saturating_add(1) } else { 0 };
    let limits = Limits { round, ..comparison.limits };
    let judged = judge(&mut state, metric, comparison.form, limits, seen);
    status.comparison = Some(state);
    let judgement = match judged {
        Ok(Ok(judgement)) => judgement,
        Ok(Err((finding, text))) => return (finding, text, String::new()),
        Err(error) => return (Finding::Mistake, error.to_string(), String::new()),
    };
    let (finding, text) = match (judgement.verdict, seen.requests()) {
        (Verdict::Worse, _) => (Finding::Failed, judgement.message),
        (Verdict::NotWorse, _) => (Finding::Passed, judgement.message),
        (Verdict::Undecided, _) if judgement.is_exhausted => (Finding::Inconclusive, judgement.message),
        (Verdict::Undecided, (0, _)) => (Finding::NoData, "the canary had no requests".to_owned()),
        (Verdict::Undecided, (_, 0)) => (Finding::NoData, "the stable version had no requests".to_owned()),
        (Verdict::Undecided, _) => (Finding::Undecided, judgement.message),
    };
    // Six digits are enough for people.
    let share = (judgement.canary * 1e6).round() / 1e6;
    (finding, text, share.to_string())
}

/// What a look comes to, or why nothing can be said of it.
type Judged = Result<Judgement, (Finding, String)>;

/// Looks, and keeps what is to be kept. A comparison of `limits` with a round begins anew when the canary is no worse.
fn judge(
    state: &mut ComparisonState,
    metric: &Metric,
    form: Form,
    limits: Limits,
    seen: &Seen,
) -> Result<Judged, LimitError> {
    let is_over = |judgement: &Judgement| limits.round > 0 && judgement.verdict == Verdict::NotWorse;
    let judgement = match (seen, form) {
        (Seen::Latency(canary, stable), Form::Latency { quantile, slow }) => {
            let kept = QuantilesState { slow: state.slow, before: state.before.take(), shares: state.shares.take() };
            let mut quantiles = Quantiles::resume(quantile, slow, limits, kept)?;
            let looked = quantiles.look(canary, stable);
            let judgement = quantiles.judge(&metric.name);
            if is_over(&judgement) {
                quantiles.renew();
            }
            let kept = quantiles.state();
            (state.slow, state.before, state.shares) = (kept.slow, kept.before, kept.shares);
            match looked {
                Look::Compared => judgement,
                Look::Choosing(_) if stable.requests == 0 => {
                    return Ok(Err((Finding::NoData, "the stable version had no requests".to_owned())));
                }
                Look::Choosing(text) => return Ok(Err((Finding::Undecided, text))),
                Look::Unusable(text) => return Ok(Err((Finding::Inconclusive, text))),
            }
        }
        (Seen::Values(canary, stable), Form::Values { low, high }) => {
            let mut means = match state.means.take() {
                Some(kept) => Means::resume(low, high, limits, kept)?,
                None => Means::new(low, high, limits)?,
            };
            means.look(*canary, *stable);
            let judgement = means.judge(&metric.name, "");
            if is_over(&judgement) {
                means.renew();
            }
            state.means = Some(means.state().clone());
            judgement
        }
        (Seen::Failures(canary, stable), Form::Failures) => {
            let mut proportions = match state.shares.take() {
                Some(kept) => Proportions::resume(limits, kept)?,
                None => Proportions::new(limits)?,
            };
            proportions.look(*canary, *stable);
            let judgement = proportions.judge(&metric.name);
            if is_over(&judgement) {
                proportions.renew();
            }
            state.shares = Some(proportions.state().clone());
            judgement
        }
        // What was found is of the form that was asked for.
        _ => return Ok(Err((Finding::Inconclusive, "the answers are of another comparison".to_owned()))),
    };
    state.is_exhausted = judgement.is_exhausted;
    if is_over(&judgement) {
        state.rounds = state.rounds.saturating_add(1);
    }
    Ok(Ok(judgement))
}

/// How the metric stands by what was compared: `None` while nothing is shown, and for a metric that compares nothing.
pub(super) fn verdict(status: &MetricStatus, is_background: bool) -> Option<AnalysisPhase> {
    let state = status.comparison.as_ref()?;
    if status.failed > 0 {
        return Some(AnalysisPhase::Failed);
    }
    if status.passed > 0 && !is_background {
        return Some(AnalysisPhase::Passed);
    }
    state.is_exhausted.then_some(AnalysisPhase::Inconclusive)
}

/// What was found of both versions, or the worst of what keeps it from being known.
fn seen(comparison: &Comparison, look: &[Sample]) -> Result<Seen, (Finding, String)> {
    let mut found = Vec::new();
    let mut problem: Option<(Finding, String)> = None;
    for ((field, _), sample) in comparison.queries.iter().zip(look) {
        match (&sample.answer, comparison.form) {
            (Answer::Histogram(histogram), Form::Latency { .. }) => found.push(Found::Histogram(histogram)),
            (Answer::Value(value), Form::Failures | Form::Values { .. }) if value.is_finite() => {
                found.push(Found::Number(*value));
            }
            (answer, form) => {
                let (finding, text) = objection(answer, form);
                if problem.as_ref().is_none_or(|(worst, _)| weight(finding) > weight(*worst)) {
                    problem = Some((finding, format!("{field}: {text}")));
                }
            }
        }
    }
    if let Some(problem) = problem {
        return Err(problem);
    }
    let counts = |what: &str, failures: f64, requests: f64| {
        Counts::from_numbers(failures, requests).ok_or_else(|| {
            let text = format!("{what}: {failures} failures of {requests} requests are no counts");
            (Finding::Inconclusive, text)
        })
    };
    match found.as_slice() {
        [Found::Histogram(canary), Found::Histogram(stable)] => Ok(Seen::Latency((*canary).clone(), (*stable).clone())),
        [Found::Number(canary), Found::Number(stable)] => Ok(Seen::Values(*canary, *stable)),
        [Found::Number(few), Found::Number(all), Found::Number(stable_few), Found::Number(stable_all)] => {
            Ok(Seen::Failures(counts("canary", *few, *all)?, counts("stable", *stable_few, *stable_all)?))
        }
        _ => Err((Finding::Unavailable, "not all is answered".to_owned())),
    }
}

enum Found<'a> {
    Number(f64),
    Histogram(&'a Histogram),
}

/// What keeps an answer from being used.
fn objection(answer: &Answer, form: Form) -> (Finding, String) {
    match (answer, form) {
        (Answer::Value(_) | Answer::Several { .. } | Answer::Text(_), Form::Latency { .. }) => {
            let text = "the answer is no histogram: one series for each le, with le=\"+Inf\"; use sum by (le) (…)";
            (Finding::Inconclusive, text.to_owned())
        }
        (answer, _) => assess(answer, Bounds::default()),
    }
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
pub fn complete<'a>(due: Timestamp, samples: impl Iterator<Item = Option<&'a Sample>>) -> Option<Vec<Sample>> {
    samples.map(|sample| sample.filter(|s| s.at >= due).cloned()).collect()
}

#[cfg(test)]
mod tests;
