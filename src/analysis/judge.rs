//! One answer after the other, to a verdict.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Answer, Sample, ask, compare, condition,
    metric::{Bounds, Metric, duration},
};
use crate::api::analysis::{AnalysisPhase, Measurement, MetricStatus, OnNoData};

/// Measurements that a status keeps.
pub const KEPT: usize = 5;

/// Said of answers that cannot be held against each other.
pub(super) const NOT_TOGETHER: &str = "the answers are of different moments, so that they do not count";

/// What one answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Within the bounds.
    Passed,
    /// Out of them.
    Failed,
    /// Of a comparison: nothing is shown yet.
    Undecided,
    /// It cannot be judged.
    Inconclusive,
    /// There is nothing to judge.
    NoData,
    /// Nobody answered.
    Unavailable,
    /// It cannot be asked so.
    Mistake,
}

impl Finding {
    /// The word in a status.
    pub fn as_str(self) -> &'static str {
        match self {
            Finding::Passed => "Passed",
            Finding::Failed => "Failed",
            Finding::Undecided => "Undecided",
            Finding::Inconclusive => "Inconclusive",
            Finding::NoData => "NoData",
            Finding::Unavailable => "Unavailable",
            Finding::Mistake => "Mistake",
        }
    }
}

/// What one answer means, and a sentence that says it.
pub fn assess(answer: &Answer, bounds: Bounds) -> (Finding, String) {
    match answer {
        // Of a ratio: nothing was counted.
        Answer::Value(value) if value.is_nan() => (Finding::NoData, "the value is NaN: nothing was counted".to_owned()),
        Answer::Value(value) if value.is_infinite() => (Finding::Inconclusive, format!("value {value} is no number")),
        Answer::Value(value) => match (bounds.min, bounds.max) {
            (Some(min), _) if *value < min => (Finding::Failed, format!("value {value} is below min {min}")),
            (_, Some(max)) if *value > max => (Finding::Failed, format!("value {value} is above max {max}")),
            (Some(min), Some(max)) => (Finding::Passed, format!("value {value} is within {min} to {max}")),
            (Some(min), None) => (Finding::Passed, format!("value {value} is not below min {min}")),
            (None, Some(max)) => (Finding::Passed, format!("value {value} is not above max {max}")),
            (None, None) => (Finding::Inconclusive, format!("value {value} has no bound")),
        },
        Answer::Empty => (Finding::NoData, "the answer is empty: no series matches".to_owned()),
        Answer::Text(text) => (Finding::Inconclusive, format!("value {text:?} is no number; judge it by a condition")),
        Answer::Several { count, .. } => (
            Finding::Inconclusive,
            format!("the answer has {count} series, of which one is wanted; aggregate them, such as by sum()"),
        ),
        Answer::Histogram(_) => {
            (Finding::Inconclusive, "the answer is a histogram, of which one is compared".to_owned())
        }
        Answer::Unavailable(why) => (Finding::Unavailable, why.clone()),
        Answer::Mistake(why) => (Finding::Mistake, why.clone()),
    }
}

/// Takes in a look: the answer to a metric's question, and behind it the count of its samples, where the metric wants some.
/// Says what it means. `timing`: see [`ask::due`].
pub fn take_in(status: &mut MetricStatus, metric: &Metric, timing: &str, look: &[Sample]) -> (Finding, String) {
    let Some(sample) = look.first() else { return (Finding::Unavailable, "not all is answered".to_owned()) };
    let (finding, text) = find(metric, sample, look);
    let value = match &sample.answer {
        Answer::Value(value) => value.to_string(),
        Answer::Text(text) => text.clone(),
        Answer::Several { values, .. } if metric.condition.is_some() => condition::list(values),
        _ => String::new(),
    };
    let at = look.iter().map(|sample| sample.at).max().unwrap_or(sample.at);
    note(status, metric, at, finding, &text, value);
    let in_vain = if matches!(finding, Finding::Unavailable | Finding::Mistake) { status.without_data } else { 0 };
    status.next_time = Some(Time(ask::next(at, metric.interval, timing, in_vain)));
    (finding, text)
}

/// What an answer means. Nobody judges one of too few samples.
fn find(metric: &Metric, sample: &Sample, look: &[Sample]) -> (Finding, String) {
    let by_condition = metric.condition.as_ref().and_then(|condition| condition.assess(&sample.answer));
    let found = by_condition.unwrap_or_else(|| assess(&sample.answer, metric.bounds));
    // What keeps it from being asked at all comes first.
    let (Some(least), false) = (metric.min_samples, matches!(found.0, Finding::Unavailable | Finding::Mistake)) else {
        return found;
    };
    if !ask::are_together(look, metric.interval) {
        return (Finding::Unavailable, NOT_TOGETHER.to_owned());
    }
    match look.get(1).map(|counted| &counted.answer) {
        Some(Answer::Value(count)) if count.is_finite() && *count >= 0.0 => {
            // A server extrapolates: 19.98 are 20.
            #[allow(clippy::cast_precision_loss)] // At most a billion.
            let is_enough = count.round() >= least as f64;
            let few = || (Finding::NoData, format!("{} samples are fewer than minSamples {least}", count.round()));
            if is_enough { found } else { few() }
        }
        Some(Answer::Value(count)) if !count.is_nan() => {
            (Finding::Inconclusive, format!("samplesQuery: {count} is no count"))
        }
        Some(answer) => {
            let (finding, text) = assess(answer, Bounds::default());
            (finding, format!("samplesQuery: {text}"))
        }
        None => (Finding::Unavailable, "samplesQuery: not answered".to_owned()),
    }
}

/// Counts what was found.
pub(super) fn note(
    status: &mut MetricStatus,
    metric: &Metric,
    at: Timestamp,
    finding: Finding,
    text: &str,
    value: String,
) {
    match finding {
        Finding::Passed => status.passed = status.passed.saturating_add(1),
        Finding::Failed => status.failed = status.failed.saturating_add(1),
        Finding::Inconclusive => status.inconclusive = status.inconclusive.saturating_add(1),
        Finding::Undecided | Finding::NoData | Finding::Unavailable | Finding::Mistake => {}
    }
    let was_away = status.next_time.as_ref().is_some_and(|Time(due)| {
        // Nobody asked for a while, so nobody can say that there were no data.
        at.duration_since(*due) > SignedDuration::from_secs(metric.interval.max(60))
    });
    match finding {
        Finding::Passed | Finding::Failed | Finding::Undecided | Finding::Inconclusive => {
            (status.without_data, status.no_data_since) = (0, None);
        }
        // What a person must mend is no sign of a release's health: no time leads to a verdict.
        Finding::Mistake => {
            status.without_data = status.without_data.saturating_add(1);
            status.no_data_since = None;
        }
        Finding::NoData | Finding::Unavailable => {
            status.without_data = status.without_data.saturating_add(1);
            if was_away || status.no_data_since.is_none() {
                status.no_data_since = Some(Time(whole_second(at)));
            }
        }
    }
    status.measurements.push(Measurement {
        time: Some(Time(whole_second(at))),
        value,
        result: finding.as_str().to_owned(),
    });
    let surplus = status.measurements.len().saturating_sub(KEPT);
    status.measurements.drain(..surplus);
    text.clone_into(&mut status.message);
}

/// How a metric stands after an answer. Behind a whole release `count` ends nothing.
pub fn phase(status: &MetricStatus, metric: &Metric, is_background: bool) -> AnalysisPhase {
    if let Some(phase) = compare::verdict(status, is_background) {
        return phase;
    }
    if status.failed > metric.failure_limit {
        return AnalysisPhase::Failed;
    }
    if status.inconclusive > metric.inconclusive_limit {
        return AnalysisPhase::Inconclusive;
    }
    if is_overdue(status, metric) {
        match metric.on_no_data {
            OnNoData::Wait => {}
            OnNoData::Fail => return AnalysisPhase::Failed,
            OnNoData::Pass if is_background => {}
            OnNoData::Pass => return AnalysisPhase::Passed,
        }
    }
    let measured = status.passed.saturating_add(status.failed);
    if metric.is_comparison() {
        return AnalysisPhase::Running;
    }
    if !is_background && measured >= metric.count { AnalysisPhase::Passed } else { AnalysisPhase::Running }
}

/// Data have been missing for longer than they may.
pub fn is_overdue(status: &MetricStatus, metric: &Metric) -> bool {
    let last = status.measurements.last().and_then(|m| m.time.as_ref());
    match (&status.no_data_since, last) {
        (Some(Time(since)), Some(Time(last))) => last.duration_since(*since).as_secs() >= metric.no_data_timeout,
        _ => false,
    }
}

/// Whether the last try came to nothing for a reason that a person must mend.
pub fn is_mistaken(status: &MetricStatus) -> bool {
    status.measurements.last().is_some_and(|m| m.result == Finding::Mistake.as_str())
}

/// Why a metric stands as it does, for people: what was measured, against which bound, and what follows when.
pub fn describe(status: &MetricStatus, metric: &Metric) -> String {
    let name = &metric.name;
    let measured = status.passed.saturating_add(status.failed);
    match status.phase {
        AnalysisPhase::Passed | AnalysisPhase::Failed if is_overdue(status, metric) => format!(
            "metric {name}: no data for {} (onNoData: {}): {}",
            duration(metric.no_data_timeout),
            if status.phase == AnalysisPhase::Failed { "fail" } else { "pass" },
            status.message
        ),
        AnalysisPhase::Failed if metric.is_comparison() => format!("metric {name}: {}", status.message),
        AnalysisPhase::Passed if metric.is_comparison() => format!("metric {name} passed: {}", status.message),
        AnalysisPhase::Inconclusive if compare::verdict(status, false).is_some() => {
            format!("metric {name}: {}", status.message)
        }
        AnalysisPhase::Failed => format!(
            "metric {name}: {} ({} of {measured} measurements failed, {} forgiven)",
            status.message, status.failed, metric.failure_limit
        ),
        AnalysisPhase::Inconclusive => format!(
            "metric {name}: {} ({} measurements cannot be judged, {} forgiven)",
            status.message, status.inconclusive, metric.inconclusive_limit
        ),
        AnalysisPhase::Passed => format!("metric {name} passed: {measured} measurements, {} failed", status.failed),
        // The question itself is wrong.
        AnalysisPhase::Running if status.next_time.is_none() && !status.message.is_empty() => {
            format!("metric {name}: {}", status.message)
        }
        AnalysisPhase::Running if measured == 0 && status.measurements.is_empty() => {
            let why = if status.message.is_empty() { String::new() } else { format!(": {}", status.message) };
            format!("metric {name}: not measured yet{why}")
        }
        AnalysisPhase::Running if status.without_data > 0 => {
            let since = status.no_data_since.as_ref().map(|Time(t)| format!(" since {t}")).unwrap_or_default();
            let so_long = match metric.on_no_data {
                _ if is_mistaken(status) => String::new(),
                OnNoData::Wait => " (onNoData: wait)".to_owned(),
                other => format!(
                    " (onNoData: {} after {})",
                    if other == OnNoData::Fail { "fail" } else { "pass" },
                    duration(metric.no_data_timeout)
                ),
            };
            format!("metric {name}: no data{since}: {}{so_long}", status.message)
        }
        AnalysisPhase::Running if metric.is_comparison() => format!("metric {name}: {}", status.message),
        AnalysisPhase::Running => {
            format!(
                "metric {name}: {measured} of {} measured, {} failed; {}",
                metric.count, status.failed, status.message
            )
        }
    }
}

/// As a status stores it.
fn whole_second(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

#[cfg(test)]
mod tests;
