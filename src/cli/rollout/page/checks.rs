//! What has a say in a release: metrics, gates and hooks; what is awaited, what was said last, and since when.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{cell, section, since};
use crate::{
    api::{
        analysis::{AnalysisRun, MetricStatus},
        v1beta1::Gate,
    },
    cli::{duration, rollout::view::View},
};

/// The sections of those that the Rollout has.
pub(super) fn all(page: &mut String, view: &View<'_>, now: Timestamp) {
    for (title, header, rows) in [
        (
            "Metrics",
            &["METRIC", "OF", "STATE", "GOOD", "BAD", "UNCLEAR", "NO DATA", "NEXT", "SAID"][..],
            metrics(view, now),
        ),
        ("Gates", &["GATE", "PASSED BY", "STATE", "SINCE"], gates(view, now)),
        ("Hooks", &["HOOK", "MOMENT", "STEP", "STATE", "SINCE", "TRIES", "NEXT", "SAID"], hooks(view, now)),
    ] {
        if rows.is_empty() {
            continue;
        }
        let header = header.iter().map(|&title| title.to_owned()).collect();
        section(page, title, &[vec![header], rows].concat(), "none");
    }
}

/// How long until something is asked again.
fn until(next: Option<&Time>, now: Timestamp) -> String {
    match next {
        None => "-".to_owned(),
        Some(Time(at)) if *at <= now => "now".to_owned(),
        Some(Time(at)) => format!("in {}", duration::human(at.duration_since(now))),
    }
}

fn metrics(view: &View<'_>, now: Timestamp) -> Vec<Vec<String>> {
    let Some(analysis) = view.release.and_then(|release| release.analysis) else { return Vec::new() };
    let row = |of: &str, metric: &MetricStatus| {
        let missing = metric.no_data_since.as_ref().map(|since_when| since(Some(since_when), now));
        vec![
            metric.name.clone(),
            of.to_owned(),
            format!("{:?}", metric.phase),
            metric.passed.to_string(),
            metric.failed.to_string(),
            metric.inconclusive.to_string(),
            missing.unwrap_or_else(|| "-".to_owned()),
            until(metric.next_time.as_ref(), now),
            cell(&metric.message),
        ]
    };
    let of_run = |of: String, run: &AnalysisRun| run.metrics.iter().map(|m| row(&of, m)).collect::<Vec<_>>();
    let step = analysis.step.iter().flat_map(|run| of_run(format!("step {}", run.step_index), run));
    step.chain(analysis.background.iter().flat_map(|run| of_run("the release".to_owned(), run))).collect()
}

fn gates(view: &View<'_>, now: Timestamp) -> Vec<Vec<String>> {
    let (Some(release), Some(step)) = (view.release, view.current()) else { return Vec::new() };
    let by = |gate: &Gate| match &gate.job {
        Some(job) => format!("a Job of CronJob {}", job.cron_job),
        None => "isPassed in the status".to_owned(),
    };
    let row = |gate: &Gate| {
        let known = release.gates.iter().find(|status| status.name == gate.name);
        let (state, from) = match known {
            None => ("not open yet", None),
            Some(status) if status.is_passed => ("passed", status.time.as_ref()),
            Some(_) => ("awaited", release.since),
        };
        vec![gate.name.clone(), by(gate), state.to_owned(), since(from, now)]
    };
    step.gates.iter().map(row).collect()
}

fn hooks(view: &View<'_>, now: Timestamp) -> Vec<Vec<String>> {
    let known = view.rollout.status.as_ref().and_then(|status| status.hooks.as_ref());
    let rows = known.into_iter().flat_map(|known| &known.hooks).map(|hook| {
        vec![
            hook.name.clone(),
            hook.moment.as_str().to_owned(),
            hook.step.to_string(),
            format!("{:?}", hook.phase),
            since(hook.since.as_ref(), now),
            hook.tries.to_string(),
            until(hook.next_time.as_ref(), now),
            cell(&hook.message),
        ]
    });
    rows.collect()
}
