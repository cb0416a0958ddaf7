//! `tidegate analysis try`: what the metrics of a Rollout would have said of the past.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use kube::{Api, Client};

use crate::{
    analysis::{
        Answer, Sample,
        ask::Ask,
        judge::{self, Finding},
        metric::{Analysis, Metric, duration},
        query::{Value, Values, literal},
        templates::{self, Rendered},
    },
    api::{
        analysis::{AnalysisPhase, MetricStatus, MetricTemplate, MetricTemplateSpec},
        v1beta1::Rollout,
    },
    cli::client::{self, KubeArgs, explain},
    gather::{
        collect::named_templates,
        measures::{
            http::{Failure, Web},
            login::Logins,
            prometheus::Range,
            servers::Servers,
        },
    },
    rollout::release,
};

const DAY: i64 = 86_400;
/// Points of a series that a Prometheus gives in one answer: it refuses more than 11,000.
const POINTS: i64 = 5_000;
/// Days that may be asked about.
const MOST_DAYS: i64 = 400;

/// Arguments of `analysis try`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The version that runs stands for the new one: `{{ canary-pods }}` are all pods of the workload, `{{ canary-service }}` is the stable Service. Each day is cut
into releases, one after the other: a step's metrics until they have passed or failed, then anew.

Exit code 1: on some day a release would have failed, or could not have been judged.")]
pub struct Args {
    /// Name of the Rollout
    name: String,
    /// How far to go back, such as 14d or 36h
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = since)]
    since: Duration,
    /// Whose metrics (1-based) [default: of the whole release, else of the first step that has some]
    #[arg(long, value_name = "N")]
    step: Option<usize>,
    /// Ask this address instead of the metric's, without a login; such as that of `kubectl port-forward`
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Namespace of the controller, where MetricTemplates are for all
    #[arg(long, value_name = "NAME", default_value = "tidegate")]
    controller_namespace: String,
    #[command(flatten)]
    kube: KubeArgs,
}

fn since(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    let time = match days.and_then(|days| days.checked_mul(24 * 3600)) {
        Some(seconds) => Duration::from_secs(seconds),
        None => crate::cli::duration::parse(text)
            .map_err(|_| format!("{text:?} is not a time; write such as 14d or 36h"))?,
    };
    let longest = Duration::from_secs(MOST_DAYS.unsigned_abs() * 24 * 3600);
    if time.is_zero() || time > longest { Err(format!("{text} is not between 1s and {MOST_DAYS}d")) } else { Ok(time) }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, namespace) = client::connect(&args.kube).await?;
        let rollout: Rollout = Api::namespaced(client.clone(), &namespace)
            .get(&args.name)
            .await
            .map_err(|error| anyhow::anyhow!("Rollout {namespace}/{}: {}", args.name, explain(&error)))?;
        let kept = kept(&client, &rollout, [&namespace, &args.controller_namespace]).await?;
        let logins = Some(Logins::new(client));
        let servers = Servers { http: Arc::new(Web::default()), logins, allowed: Vec::new() };
        let now = Timestamp::now().as_second();
        let from = now.saturating_sub(i64::try_from(args.since.as_secs()).unwrap_or(i64::MAX));
        let server = args.server.as_deref();
        let report = Trial { rollout: &rollout, kept: &kept, servers: &servers, step: args.step, server }
            .run((from, now))
            .await?;
        print!("{}", report.text);
        Ok(if report.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// The MetricTemplates that a Rollout names.
async fn kept(
    client: &Client,
    rollout: &Rollout,
    namespaces: [&str; 2],
) -> anyhow::Result<BTreeMap<String, MetricTemplateSpec>> {
    let mut found = BTreeMap::new();
    for name in named_templates(rollout) {
        for namespace in namespaces {
            let api = Api::<MetricTemplate>::namespaced(client.clone(), namespace);
            let read = api.get_opt(name).await;
            let read = read.map_err(|e| anyhow::anyhow!("MetricTemplate {namespace}/{name}: {}", explain(&e)))?;
            if let Some(template) = read {
                found.insert(name.to_owned(), template.spec);
                break;
            }
        }
    }
    Ok(found)
}

/// What is tried, and with what.
pub(super) struct Trial<'a> {
    /// The Rollout.
    pub rollout: &'a Rollout,
    /// MetricTemplates by name.
    pub kept: &'a BTreeMap<String, MetricTemplateSpec>,
    /// Who answers.
    pub servers: &'a Servers,
    /// Whose metrics.
    pub step: Option<usize>,
    /// Asked instead of the metrics' own.
    pub server: Option<&'a str>,
}

impl Trial<'_> {
    /// Judges all metrics between two seconds.
    pub(super) async fn run(&self, times: (i64, i64)) -> anyhow::Result<super::Report> {
        let (analysis, _) = super::choose(self.rollout, self.step)?;
        let Analysis { metrics, .. } = analysis;
        let values = values(self.rollout)?;
        let mut report = super::Report { text: String::new(), is_good: true };
        for metric in &metrics {
            report.text.push_str(&format!("{}\n", metric.name));
            let question = templates::resolve(metric, &values, |name| self.kept.get(name).cloned());
            let question = question.map_err(|problem| anyhow::anyhow!("metric {}: {problem}", metric.name))?;
            if metric.is_comparison() || question.provider.prometheus.is_none() {
                let why = if metric.is_comparison() {
                    "there was no other version to compare with"
                } else {
                    "its provider keeps no history"
                };
                report.text.push_str(&format!("  not tried: {why}\n"));
                continue;
            }
            let range = self.range(metric, question, times).await.with_context(|| format!("metric {}", metric.name))?;
            report.is_good &= by_day(metric, &range, times, &mut report.text);
        }
        Ok(report)
    }

    async fn range(&self, metric: &Metric, mut question: Rendered, (from, to): (i64, i64)) -> anyhow::Result<Range> {
        if let (Some(server), Some(prometheus)) = (self.server, &mut question.provider.prometheus) {
            server.clone_into(&mut prometheus.address);
            prometheus.secret_ref = None;
        }
        let namespace = self.rollout.metadata.namespace.as_deref().unwrap_or_default();
        let ask = Ask::new(&question.provider, namespace, &question.query, metric.interval, Timestamp::UNIX_EPOCH);
        let mut all = Range::new();
        let mut begin = from;
        while begin <= to {
            let end =
                begin.saturating_add(metric.interval.saturating_mul(POINTS)).min(begin.saturating_add(DAY)).min(to);
            let part =
                self.servers.range(&ask, (begin, end), metric.interval).await.map_err(|failure| match failure {
                    Failure::Unavailable(why) | Failure::Mistake(why) => {
                        anyhow::anyhow!("{}: {why}; query: {}", question.provider.address(), question.query)
                    }
                })?;
            all.extend(part);
            // The moments stay an interval apart.
            begin =
                begin.saturating_add((end - begin) / metric.interval * metric.interval).saturating_add(metric.interval);
        }
        Ok(all)
    }
}

/// The version that runs stands for the new one.
fn values(rollout: &Rollout) -> anyhow::Result<Values> {
    let scope = release::scope(rollout)?;
    let workload = scope.workload.name.as_str();
    let sub = rollout.status.as_ref().and_then(|status| status.canary_status.as_ref());
    let stable = sub.map(|s| s.stable_revision.as_str()).unwrap_or_default();
    let text = |text: &str| Value::Text(text.to_owned());
    let mut values = vec![
        ("namespace", text(rollout.metadata.namespace.as_deref().unwrap_or_default())),
        ("rollout", text(rollout.metadata.name.as_deref().unwrap_or_default())),
        ("workload", text(workload)),
        ("canary-workload", text(workload)),
        ("stable-revision", text(stable)),
        ("stable-hash", text(stable)),
        ("canary-revision", text(stable)),
        ("canary-hash", text(stable)),
        ("canary-pods", Value::Pattern(format!("{}-.+", literal(workload)))),
        ("canary-ips", Value::Pattern(".+".to_owned())),
        ("stable-ips", Value::Pattern(".+".to_owned())),
        ("step", Value::Bare("1".to_owned())),
    ];
    if let Some(traffic) = &scope.traffic {
        values.push(("stable-service", text(&traffic.names.stable_service)));
        values.push(("canary-service", text(&traffic.names.stable_service)));
    }
    Ok(values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

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

/// Prints a line a day; true when no release would have failed.
fn by_day(metric: &Metric, range: &Range, (from, to): (i64, i64), out: &mut String) -> bool {
    let at = |second: i64| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    let mut days = BTreeMap::<i64, Day>::new();
    let mut status = MetricStatus::default();
    let mut due = from;
    while due <= to {
        let answer = range.get(&due).map_or(Answer::Empty, |values| Answer::of(values.iter().copied()));
        let (finding, text) = judge::take_in(&mut status, metric, &metric.name, &Sample { at: at(due), answer });
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
        0 if days.values().all(|day| day.measured == day.without_data) => {
            "no data at all: is the query right?".to_owned()
        }
        0 => "no release would have failed".to_owned(),
        bad => format!("a release would have failed or waited for a person on {bad} of {} days", days.len()),
    };
    let what =
        format!("every {}, {} values, {} forgiven", duration(metric.interval), metric.count, metric.failure_limit);
    out.push_str(&format!("  {verdict} ({what})\n"));
    bad == 0
}

impl Day {
    fn describe(&self) -> String {
        let all = self.passed + self.failed + self.unclear;
        let mut text = match (self.failed, self.unclear) {
            _ if all == 0 && self.measured == self.without_data => "no data".to_owned(),
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

#[cfg(test)]
mod tests;
