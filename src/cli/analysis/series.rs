//! What was recorded of a metric.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;

use super::exposition;
use crate::analysis::Answer;

/// How far back a server looks for the last value of a series, in seconds.
const LOOKBACK: i64 = 300;

/// What was recorded: at its own times, or one a measurement.
pub(super) enum Series {
    Measured(Vec<Answer>),
    /// By second: the values of all series.
    Timed(BTreeMap<i64, Vec<f64>>),
}

/// Reads what is in the file itself.
///
/// # Errors
/// When it is no list of measurements.
pub(super) fn listed(value: &Value) -> anyhow::Result<Series> {
    let list = value.as_array().context("is neither a list of measurements nor the name of a file")?;
    Ok(Series::Measured(list.iter().map(one).collect::<Result<_, _>>()?))
}

/// Reads a file: what `/api/v1/query_range` answers, or a text in the exposition format.
///
/// # Errors
/// When it is neither.
pub(super) fn of_file(text: &str) -> anyhow::Result<Series> {
    if !text.trim_start().starts_with(['{', '[']) {
        return Ok(Series::Timed(exposition::read(text)?));
    }
    let value: Value = serde_json::from_str(text)?;
    if value.is_array() {
        return listed(&value);
    }
    let result = value.pointer("/data/result").and_then(Value::as_array);
    let series = result.context("is neither a list nor an answer of /api/v1/query_range")?;
    let mut timed = BTreeMap::<i64, Vec<f64>>::new();
    for point in series.iter().filter_map(|s| s.get("values")?.as_array()).flatten() {
        let at = point.get(0).and_then(Value::as_f64).context("a value has no time")?;
        let value =
            point.get(1).and_then(Value::as_str).and_then(|v| v.parse().ok()).context("a value is no number")?;
        #[allow(clippy::cast_possible_truncation)] // Whole seconds are meant.
        timed.entry(at as i64).or_default().push(value);
    }
    Ok(Series::Timed(timed))
}

fn one(value: &Value) -> anyhow::Result<Answer> {
    Ok(match value {
        Value::Null => Answer::Empty,
        Value::Number(number) => Answer::Value(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.parse().map_or_else(|_| Answer::Text(text.clone()), Answer::Value),
        Value::Array(series) => Answer::of(series.iter().map(|value| value.as_f64().unwrap_or(f64::NAN))),
        other => {
            bail!("{other} is no measurement: write a number, NaN, a text of a web provider, or null for no series")
        }
    })
}

impl Series {
    /// Second of the first sample, if it has times.
    pub(super) fn begun(&self) -> Option<i64> {
        match self {
            Series::Measured(_) => None,
            Series::Timed(points) => points.keys().next().copied(),
        }
    }

    /// What is said to the question of this number, which is asked at this second; `None` when nothing more was recorded.
    pub(super) fn said(&self, number: usize, second: i64) -> Option<Answer> {
        match self {
            Series::Measured(answers) => answers.get(number).cloned(),
            Series::Timed(points) => {
                let is_over = points.keys().next_back().is_none_or(|last| *last < second);
                let last = points.range(second.saturating_sub(LOOKBACK)..=second).next_back();
                let answer = last.map_or(Answer::Empty, |(_, values)| Answer::of(values.iter().copied()));
                Some(answer).filter(|_| !is_over)
            }
        }
    }
}
