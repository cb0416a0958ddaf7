//! The releases of each day, as metrics would have ended them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::DAY;
use crate::{
    analysis::{
        Answer, Sample,
        compare::{self, Comparison},
        judge::{self, Finding},
        metric::{Metric, duration},
    },
    api::analysis::{AnalysisPhase, MetricStatus},
    gather::measures::prometheus::Range,
};

/// How the releases of a day would have ended.
#[derive(Default)]
struct Day {
    passed: u32,
    failed: u32,
    unclear: u32,
    /// Measurements, and those without data.
    measured: u32,
    without_data: u32,
    /// When the first one failed or could not be judged, and why.
    first: Option<(Timestamp, String)>,
}

/// Prints a line a day; true when no release would have failed. `past` has the answers to the questions of a moment, in their
/// order.
pub(super) fn by_day(
    metric: &Metric,
    comparison: Option<&Comparison>,
    past: &[Range],
    (from, to): (i64, i64),
    out: &mut String,
) -> bool {
    let at = |second: i64| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut days = BTreeMap::<i64, Day>::new();
    let mut status = MetricStatus::default();
    let mut due = from;
    while due <= to {
        let said = |range: &Range| Sample { at: at(due), answer: range.get(&due).cloned().unwrap_or(Answer::Empty) };
        let look: Vec<Sample> = past.iter().map(said).collect();
        let (finding, text) = match comparison {
            Some(comparison) => compare::take_in(&mut status, metric, comparison, &metric.name, &look, false),
            None => judge::take_in(&mut status, metric, &metric.name, &look),
        };
        let day = days.entry(due.div_euclid(DAY)).or_default();
        day.measured += 1;
        day.without_data += u32::from(finding == Finding::NoData);
        let phase = judge::phase(&status, metric, false);
        match phase {
            AnalysisPhase::Running => {}
            AnalysisPhase::Passed => day.passed += 1,
            AnalysisPhase::Failed => day.failed += 1,
            AnalysisPhase::Inconclusive => day.unclear += 1,
        }
        if matches!(phase, AnalysisPhase::Failed | AnalysisPhase::Inconclusive) && day.first.is_none() {
            day.first = Some((at(due), text));
        }
        if phase != AnalysisPhase::Running {
            status = MetricStatus::default();
        }
        due = due.saturating_add(metric.interval);
    }
    for (day, of) in &days {
        let date = at(day * DAY).strftime("%Y-%m-%d").to_string();
        out.push_str(&format!("  {date}  {}\n", of.describe()));
    }
    let bad = days.values().filter(|day| day.failed + day.unclear > 0).count();
    let verdict = match bad {
        0 if days.values().all(|day| day.measured == day.without_data) => match metric.min_samples {
            Some(least) => {
                format!("no data at all: is the query right, and are there {least} samples within an interval?")
            }
            None => "no data at all: is the query right?".to_owned(),
        },
        0 => "no release would have failed".to_owned(),
        bad => format!("a release would have failed or waited for a person on {bad} of {} days", days.len()),
    };
    let every = duration(metric.interval);
    let what = match comparison {
        Some(_) => format!("every {every}, half of the pods against the other half"),
        None => {
            let least = metric.min_samples.map(|least| format!(" of {least} samples or more")).unwrap_or_default();
            format!("every {every}, {} values{least}, {} forgiven", metric.count, metric.failure_limit)
        }
    };
    out.push_str(&format!("  {verdict} ({what})\n"));
    bad == 0
}

impl Day {
    fn describe(&self) -> String {
        let all = self.passed + self.failed + self.unclear;
        let mut text = match (self.failed, self.unclear) {
            _ if all == 0 && self.measured == self.without_data => "no data".to_owned(),
            _ if all == 0 => "no verdict".to_owned(),
            (0, 0) if all == 1 => "good: 1 release passed".to_owned(),
            (0, 0) => format!("good: {all} releases passed"),
            (failed, 0) => format!("BAD: {failed} of {all} releases failed"),
            (0, unclear) => format!("UNCLEAR: {unclear} of {all} releases could not be judged"),
            (failed, unclear) => format!("BAD: {failed} of {all} releases failed, {unclear} could not be judged"),
        };
        if let Some((at, why)) = &self.first {
            text.push_str(&format!("; first at {}: {why}", at.strftime("%H:%M:%S")));
        }
        if self.without_data > 0 && self.measured > self.without_data {
            text.push_str(&format!("; {} of {} measurements without data", self.without_data, self.measured));
        }
        text
    }
}
