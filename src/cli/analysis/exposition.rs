//! A text in Prometheus' exposition format with the time of each sample, as `/federate`, `promtool tsdb dump-openmetrics` and
//! VictoriaMetrics' `/api/v1/export/prometheus` write it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};

/// Ends of names of counters and histograms, which are no answers to a question about an interval.
const RAW: [&str; 4] = ["_total", "_bucket", "_count", "_sum"];

/// The values of all series by second.
///
/// # Errors
/// Names the line and what is wrong with it; or what the file has instead of one metric's answers.
pub(super) fn read(text: &str) -> anyhow::Result<BTreeMap<i64, Vec<f64>>> {
    // OpenMetrics has seconds, the older format milliseconds.
    let is_open_metrics = text.lines().any(|line| line.trim_end() == "# EOF");
    let mut names = BTreeSet::new();
    let mut points = BTreeMap::<i64, Vec<f64>>::new();
    for (i, line) in text.lines().enumerate().map(|(i, line)| (i, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value, time) = sample(line).with_context(|| format!("line {}: {line:?}", i + 1))?;
        names.insert(name);
        let second = if is_open_metrics { time } else { time / 1000.0 };
        #[allow(clippy::cast_possible_truncation)] // Whole seconds are meant.
        points.entry(second as i64).or_default().push(value);
    }
    let names: Vec<&str> = names.into_iter().collect();
    ensure!(!names.is_empty(), "has no samples");
    ensure!(names.len() == 1, "has several metrics ({}); keep the one that answers the query", names.join(", "));
    Ok(points)
}

/// Name, value and time of a sample.
fn sample(line: &str) -> anyhow::Result<(&str, f64, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' ', '\t']).context("has no value")?);
    ensure!(
        !RAW.iter().any(|end| name.ends_with(end)),
        "{name} is a raw counter, and no query is evaluated here; record what the query answers, such as by a recording rule"
    );
    let rest = if rest.starts_with('{') { after_labels(rest).context("the labels do not end")? } else { rest };
    // Exemplars of OpenMetrics come behind.
    let mut fields = rest.split(" # ").next().unwrap_or_default().split_whitespace();
    let value = fields.next().context("has no value")?;
    let value = value.parse().with_context(|| format!("{value:?} is no number"))?;
    let time = fields.next().context("has no time; record samples with their times")?;
    let time = time.parse().with_context(|| format!("{time:?} is no time"))?;
    Ok((name, value, time))
}

/// What follows the labels.
fn after_labels(text: &str) -> Option<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '}' if !is_quoted => return text.get(i + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_by_second() {
        for text in [
            "# HELP share x\n# TYPE share gauge\nshare{of=\"a} \\\" 1\"} 0.5 1000000\nshare{of=\"b\"} NaN 1000000\nshare 1 1030400\n\n",
            "# TYPE share gauge\nshare{of=\"a} \\\" 1\"} 0.5 1000\nshare{of=\"b\"} NaN 1000.0 # {trace=\"x\"} 1\nshare 1 1030.4\n# EOF\n",
        ] {
            let read = read(text).unwrap();
            assert_eq!(read.keys().copied().collect::<Vec<_>>(), [1000, 1030], "{text}");
            assert_eq!(read[&1030], [1.0]);
            assert!(read[&1000][0] == 0.5 && read[&1000][1].is_nan());
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, says) in [
            ("", "has no samples"),
            ("share 1\n", "line 1: \"share 1\": has no time"),
            ("share\n", "has no value"),
            ("share x 1\n", "\"x\" is no number"),
            ("share 1 soon\n", "\"soon\" is no time"),
            ("share{a=\"b 1 1\n", "the labels do not end"),
            ("a 1 1\nb 1 1\n", "has several metrics (a, b)"),
            ("requests_total{code=\"200\"} 990\n", "requests_total is a raw counter"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
