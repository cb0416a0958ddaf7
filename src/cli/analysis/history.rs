//! `tidegate analysis try`: what the metrics of a Rollout would have said of the past.

mod days;

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use kube::{Api, Client};

use self::days::by_day;
use crate::{
    analysis::{
        ask::{self, Ask},
        compare::Comparison,
        metric::{Analysis, Metric},
        query::{Value, Values, literal},
        templates::{self, Rendered},
    },
    api::{
        analysis::{MetricTemplate, MetricTemplateSpec},
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
/// The same of a histogram, of which each point has many series.
const POINTS_OF_BUCKETS: i64 = 300;
/// Days that may be asked about.
const MOST_DAYS: i64 = 400;

/// Arguments of `analysis try`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The version that runs stands for the new one: `{{ canary-pods }}` are all pods of the workload, `{{ canary-service }}` is the stable Service. Each day is cut
into releases, one after the other: a step's metrics until they have passed or failed, then anew. Metrics that compare are tried on the version that ran
against itself, one half of its pods against the other, so that what fails is a false alarm; queries that tell no pods apart are not tried.

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
            let asks = match self.asks(metric, &values)? {
                Ok(asks) => asks,
                Err(why) => {
                    report.text.push_str(&format!("  not tried: {why}\n"));
                    continue;
                }
            };
            let mut past = Vec::new();
            for ask in &asks.of_moment {
                past.push(self.range(ask, times).await.with_context(|| format!("metric {}", metric.name))?);
            }
            report.is_good &= by_day(metric, asks.comparison.as_ref(), &past, times, &mut report.text);
        }
        Ok(report)
    }

    /// What is asked of each moment, or why a metric says nothing of the past.
    fn asks(&self, metric: &Metric, values: &Values) -> anyhow::Result<Result<Asks, &'static str>> {
        let resolve = |values: &Values| {
            let found = templates::resolve(metric, values, |name| self.kept.get(name).cloned());
            found.map_err(|problem| anyhow::anyhow!("metric {}: {problem}", metric.name))
        };
        let mut question = resolve(values)?;
        if question.provider.prometheus.is_none() {
            return Ok(Err("its provider keeps no history"));
        }
        if question.comparison.is_some() {
            question = resolve(&halves(self.rollout, values, HALVES)?)?;
            let [one, other] = HALVES;
            if question.comparison == resolve(&halves(self.rollout, values, [other, one])?)?.comparison {
                return Ok(Err("no other version ran, and its queries tell no pods apart (canary-pods, stable-pods)"));
            }
        }
        if let (Some(server), Some(prometheus)) = (self.server, &mut question.provider.prometheus) {
            server.clone_into(&mut prometheus.address);
            prometheus.secret_ref = None;
        }
        let Rendered { provider, query, samples, comparison, .. } = question;
        let namespace = self.rollout.metadata.namespace.as_deref().unwrap_or_default();
        let any = Timestamp::UNIX_EPOCH;
        let of_moment = match &comparison {
            Some(comparison) => ask::of_look(&provider, namespace, comparison, metric.interval, any),
            None => ask::of_value(&provider, namespace, &query, samples.as_deref(), metric.interval, any),
        };
        Ok(Ok(Asks { of_moment, comparison }))
    }

    /// What a question would have been answered at each moment, an interval apart.
    async fn range(&self, ask: &Ask, (from, to): (i64, i64)) -> anyhow::Result<Range> {
        let points = if ask.is_of_buckets { POINTS_OF_BUCKETS } else { POINTS };
        let mut all = Range::new();
        let mut begin = from;
        while begin <= to {
            let end = begin.saturating_add(ask.interval.saturating_mul(points)).min(begin.saturating_add(DAY)).min(to);
            let part = self.servers.range(ask, (begin, end), ask.interval).await.map_err(|failure| match failure {
                Failure::Unavailable(why) | Failure::Mistake(why) => {
                    anyhow::anyhow!("{}: {why}; query: {}", ask.provider.address(), ask.query)
                }
            })?;
            all.extend(part);
            // The moments stay an interval apart.
            begin = begin.saturating_add((end - begin) / ask.interval * ask.interval).saturating_add(ask.interval);
        }
        Ok(all)
    }
}

/// The questions of one moment.
struct Asks {
    of_moment: Vec<Ask>,
    comparison: Option<Comparison>,
}

/// The version that runs is compared with itself: half of its pods with the other half, by the last character of their names and
/// addresses.
const HALVES: [&str; 2] = ["[acegikmoqsuwy13579]", "[bdfhjlnprtvxz02468]"];

/// The values with which one half of the pods stands for the canary.
fn halves(rollout: &Rollout, values: &Values, [canary, stable]: [&str; 2]) -> anyhow::Result<Values> {
    let workload = literal(&release::scope(rollout)?.workload.name);
    let mut values = values.clone();
    for (version, half) in [("canary", canary), ("stable", stable)] {
        values.insert(format!("{version}-pods"), Value::Pattern(format!("{workload}-.*{half}")));
        values.insert(format!("{version}-ips"), Value::Pattern(format!(".*{half}")));
    }
    Ok(values)
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
        ("stable-pods", Value::Pattern(format!("{}-.+", literal(workload)))),
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

#[cfg(test)]
mod tests;
