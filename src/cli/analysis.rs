//! `tidegate analysis`: metrics that decide, before they are trusted with a release.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

mod exposition;
mod history;
mod looks;
mod series;

use self::series::Series;
use anyhow::{Context, anyhow, bail};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    analysis::{
        Sample, ask,
        judge::{self, Finding},
        metric::{Analysis, Metric},
        templates,
    },
    api::{
        analysis::{AnalysisPhase, MetricStatus, MetricTemplate},
        v1beta1::Rollout,
    },
    rollout::release,
    yaml,
};

/// Metrics that decide about a release.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Judge recorded series by the metrics of a Rollout, and print the verdicts.
    Test(Args),
    /// Run the metrics of a Rollout on the history of their server, and tell on which days it would have failed.
    Try(history::Args),
    /// List the built-in templates, or print one.
    Templates {
        /// One of them: print it as a MetricTemplate
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

/// Arguments of `analysis test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file names a Rollout and what was recorded of each metric, oldest first:

  rollout: rollout.yaml            # or the Rollout itself
  step: 1                          # whose metrics; absent: of the whole release, else of the first step that has some
  series:
    success-rate: [0.999, null, NaN, 0.93]     # one a measurement; null: no series
    latency: range.json            # an answer of /api/v1/query_range
    memory: memory.prom            # the same in the exposition format, with the times of the samples
    errors:                        # of a metric that compares; one entry a look, null: no series
    - {canary: {failures: 2, requests: 100}, stable: {failures: 9, requests: 900}}
    slow:                          # of buckets: how many requests took at most so long
    - {canary: {buckets: {0.1: 90, 0.5: 99, +Inf: 100}}, stable: {buckets: {0.1: 880, 0.5: 898, +Inf: 900}}}
    size:
    - {canary: {value: 210}, stable: {value: 195}}
  samples: {success-rate: [120, 0, 0, 14]}     # of a metric with minSamples: what its samplesQuery counted, in the same form
  expected: {success-rate: Failed, latency: Passed}
  templates: [errors.yaml]         # MetricTemplates by which metrics compare, if they are no built-in ones

Exit code 1: a verdict is not the expected one; without `expected`, a metric has failed or cannot be judged.")]
pub struct Args {
    /// Files as below
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recording {
    rollout: Value,
    #[serde(default)]
    step: Option<usize>,
    series: BTreeMap<String, Value>,
    #[serde(default)]
    samples: BTreeMap<String, Value>,
    #[serde(default)]
    expected: BTreeMap<String, AnalysisPhase>,
    #[serde(default)]
    templates: Vec<String>,
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Templates { name: Some(name) } => {
            print!("{}", manifest(&name)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Templates { name: None } => {
            for (name, template) in templates::built_in() {
                println!("{name}\n    {}", template.description);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Try(args) => history::run(&args),
        Command::Test(args) => {
            let mut is_good = true;
            for file in &args.files {
                let report = test(file).with_context(|| file.display().to_string())?;
                println!("{}\n{}", file.display(), report.text);
                is_good &= report.is_good;
            }
            Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// A built-in template as an object that one may change and apply.
fn manifest(name: &str) -> anyhow::Result<String> {
    let found = templates::built_in().iter().find(|(known, _)| known == name);
    let (name, template) = found
        .with_context(|| format!("there is no built-in template {name:?}; `tidegate analysis templates` lists them"))?;
    let mut object = MetricTemplate::new(&name.replace('/', "-"), template.clone());
    object.spec.query = object.spec.query.trim_end().to_owned();
    Ok(yaml::to_string(&serde_json::to_value(&object)?)?)
}

/// What is printed about a file.
pub struct Report {
    /// The measurements and the verdicts.
    pub text: String,
    /// All is as expected.
    pub is_good: bool,
}

/// Judges a file.
///
/// # Errors
/// When it cannot be read, or its Rollout has no such metric.
pub fn test(file: &Path) -> anyhow::Result<Report> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let read = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
    let recording: Recording = yaml::from_str(&fs::read_to_string(file)?)?;
    let rollout: Rollout = match &recording.rollout {
        Value::String(name) => yaml::from_str(&read(name)?).with_context(|| name.to_owned())?,
        whole => serde_json::from_value(whole.clone()).context("rollout")?,
    };
    let (analysis, is_background) = choose(&rollout, recording.step)?;
    let mut kept = BTreeMap::new();
    for name in &recording.templates {
        let template: MetricTemplate = yaml::from_str(&read(name)?).with_context(|| name.to_owned())?;
        kept.insert(template.metadata.name.unwrap_or_default(), template.spec);
    }
    let mut report = Report { text: String::new(), is_good: true };
    for (name, series) in &recording.series {
        let Some(metric) = analysis.metrics.iter().find(|m| m.name == *name) else {
            let known: Vec<&str> = analysis.metrics.iter().map(|m| m.name.as_str()).collect();
            bail!("series.{name}: the analysis has no such metric; it has {}", known.join(", "));
        };
        let comparison = templates::comparison(metric, |name| kept.get(name).cloned())
            .map_err(|problem| anyhow!("metric {name}: {problem}"))?;
        if let Some(comparison) = comparison {
            let looks = looks::read(&comparison, series).with_context(|| format!("series.{name}"))?;
            let verdict = looks::judge_all(metric, &comparison, &looks, is_background, &mut report.text);
            report.is_good &= is_expected(&recording, name, verdict, &mut report.text);
            continue;
        }
        let recorded = |series: &Value| match series {
            Value::String(name) => series::of_file(&read(name)?).with_context(|| name.to_owned()),
            list => series::listed(list),
        };
        let mut all = vec![recorded(series).with_context(|| format!("series.{name}"))?];
        if metric.min_samples.is_some() {
            let counted = recording.samples.get(name);
            let counted = counted.context("is missing, and the metric has minSamples: how many samples were there?");
            all.push(counted.and_then(recorded).with_context(|| format!("samples.{name}"))?);
        }
        let verdict = judge_all(metric, &all, is_background, &mut report.text);
        report.is_good &= is_expected(&recording, name, verdict, &mut report.text);
    }
    for (field, mut names) in
        [("expected", recording.expected.keys().collect::<Vec<_>>()), ("samples", recording.samples.keys().collect())]
    {
        names.retain(|name| !recording.series.contains_key(*name));
        if let Some(name) = names.first() {
            bail!("{field}.{name}: nothing is recorded of it under series");
        }
    }
    Ok(report)
}

fn is_expected(recording: &Recording, name: &str, verdict: AnalysisPhase, out: &mut String) -> bool {
    match recording.expected.get(name) {
        Some(expected) if *expected == verdict => true,
        Some(expected) => {
            out.push_str(&format!("  {name}: expected {expected:?}, found {verdict:?}\n"));
            false
        }
        None => matches!(verdict, AnalysisPhase::Passed | AnalysisPhase::Running),
    }
}

fn choose(rollout: &Rollout, step: Option<usize>) -> anyhow::Result<(Analysis, bool)> {
    let release = release::release(rollout)?;
    let of_step = |n: usize| release.steps.get(n.checked_sub(1)?)?.analysis.clone();
    if let Some(step) = step {
        return Ok((of_step(step).with_context(|| format!("step {step} has no analysis"))?, false));
    }
    if let Some(background) = release.background.clone() {
        return Ok((background, true));
    }
    let found = release.steps.iter().find_map(|step| step.analysis.clone());
    Ok((found.context("the Rollout has no analysis")?, false))
}

/// Asks as often as the metric says; prints every answer and the verdict. `all` are the answers to its query, and of a metric
/// with `minSamples` what was counted.
fn judge_all(metric: &Metric, all: &[Series], is_background: bool, out: &mut String) -> AnalysisPhase {
    let mut status = MetricStatus::default();
    let begun = all.iter().filter_map(Series::begun).min().unwrap_or_default();
    let at = |second: i64| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut due = begun.saturating_add(metric.delay);
    for number in 0.. {
        let said = |series: &Series| Some(Sample { at: at(due), answer: series.said(number, due)? });
        let Some(look) = all.iter().map(said).collect::<Option<Vec<_>>>() else { break };
        let (finding, text) = judge::take_in(&mut status, metric, &metric.name, &look);
        status.phase = judge::phase(&status, metric, is_background);
        out.push_str(&format!("  {} +{:>5} s  {:<12} {text}\n", metric.name, due - begun, finding.as_str()));
        if status.phase != AnalysisPhase::Running {
            break;
        }
        // What may pass is asked for later each time, as a release does.
        let waits = matches!(finding, Finding::Unavailable | Finding::Mistake);
        let next = ask::next(at(due), metric.interval, &metric.name, if waits { status.without_data } else { 0 });
        due = if waits { next.as_second() } else { due.saturating_add(metric.interval) };
    }
    status.next_time.get_or_insert_with(|| Time(at(due)));
    out.push_str(&format!("  {:?}: {}\n", status.phase, said(&status, metric, begun)));
    status.phase
}

/// How a metric stands, by seconds since the beginning: what was recorded may have no times.
fn said(status: &MetricStatus, metric: &Metric, begun: i64) -> String {
    let said = judge::describe(status, metric);
    match &status.no_data_since {
        Some(Time(since)) => said.replace(&since.to_string(), &format!("+{} s", since.as_second() - begun)),
        None => said,
    }
}

#[cfg(test)]
mod tests;
