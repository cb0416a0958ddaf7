//! Recorded looks at both versions, judged as a release would.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    analysis::{
        Answer, Sample,
        compare::{self, Comparison},
        judge,
        metric::Metric,
        sequential::Histogram,
    },
    api::analysis::{AnalysisPhase, MetricStatus},
};

/// What was found of both versions in one interval.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    canary: Version,
    stable: Version,
}

/// What was found of one version.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    failures: Option<f64>,
    requests: Option<f64>,
    /// By upper bound.
    buckets: Option<BTreeMap<String, f64>>,
    value: Option<f64>,
}

impl Version {
    fn answer(&self, field: &str) -> anyhow::Result<Answer> {
        let number = match field {
            "failures" => self.failures,
            "requests" => self.requests,
            "value" => self.value,
            _ => return self.histogram(),
        };
        number.map(Answer::Value).context("is missing")
    }

    fn histogram(&self) -> anyhow::Result<Answer> {
        let buckets = self.buckets.as_ref().context("is missing")?;
        let bucket = |(bound, count): (&String, &f64)| {
            let bound: f64 = bound.parse().with_context(|| format!("{bound:?} is no bound"))?;
            anyhow::Ok((bound, count.round() as u64))
        };
        let counts: Vec<(f64, u64)> = buckets.iter().map(bucket).collect::<Result<_, _>>()?;
        Ok(Answer::Histogram(Histogram::cumulative(counts).context("has no bucket +Inf, or one twice")?))
    }
}

/// Reads looks: the answers to the queries of a comparison, in their order.
///
/// # Errors
/// Names the look, and what is missing in it.
pub(super) fn read(comparison: &Comparison, series: &Value) -> anyhow::Result<Vec<Vec<Answer>>> {
    let looks: Vec<Option<Recorded>> = serde_json::from_value(series.clone())?;
    let mut read = Vec::new();
    for (i, look) in looks.iter().enumerate() {
        let mut answers = Vec::new();
        for (field, _) in &comparison.queries {
            let Some(look) = look else {
                answers.push(Answer::Empty);
                continue;
            };
            let of = match field.split_once('.') {
                Some(("canary", name)) => look.canary.answer(name),
                Some((_, name)) => look.stable.answer(name),
                None => bail!("{field} is of no version"),
            };
            answers.push(of.with_context(|| format!("look {}: {field}", i + 1))?);
        }
        read.push(answers);
    }
    Ok(read)
}

/// Looks as often as the metric says; prints every look and the verdict.
pub(super) fn judge_all(
    metric: &Metric,
    comparison: &Comparison,
    looks: &[Vec<Answer>],
    is_background: bool,
    out: &mut String,
) -> AnalysisPhase {
    let mut status = MetricStatus::default();
    let mut due = metric.delay;
    for answers in looks {
        let at = Timestamp::from_second(due).unwrap_or(Timestamp::UNIX_EPOCH);
        let look: Vec<Sample> = answers.iter().map(|answer| Sample { at, answer: answer.clone() }).collect();
        let (finding, text) = compare::take_in(&mut status, metric, comparison, &metric.name, &look, is_background);
        status.phase = judge::phase(&status, metric, is_background);
        out.push_str(&format!("  {} +{due:>5} s  {:<12} {text}\n", metric.name, finding.as_str()));
        if status.phase != AnalysisPhase::Running {
            break;
        }
        due = due.saturating_add(metric.interval);
    }
    out.push_str(&format!("  {:?}: {}\n", status.phase, super::said(&status, metric, 0)));
    status.phase
}
