//! Asks what the metrics of an analysis want to know, and takes in what was answered.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    clock::whole_second_after,
    jobs::{self, CRON_JOB, JobState, Run},
    machine::Machine,
    plan::{Effect, Purpose},
    release::Scope,
};
use crate::{
    analysis::{
        Answer, Sample,
        ask::{self, Ask},
        compare,
        judge::{self, Finding},
        metric::{Analysis, Metric},
        provider,
        query::{Value as QueryValue, Values, literal},
        templates::{self, Rendered},
    },
    api::{
        analysis::{AnalysisPhase, AnalysisRun, JobProvider, MetricStatus, MetricTemplateSpec},
        conditions::reasons,
        object::{self, at},
    },
    workload::{PodNames, Style, Workload, canary::canary_name, pods},
};

impl Machine<'_> {
    /// Takes in what was answered, and asks again.
    pub(super) fn measure(
        &mut self,
        analysis: &Analysis,
        known: Option<AnalysisRun>,
        is_background: bool,
        scope: &Scope,
        workload: &Workload,
    ) -> AnalysisRun {
        let now = self.snap.now;
        let mut run = known.unwrap_or_else(|| AnalysisRun {
            step_index: self.sub().current_step_index,
            start_time: Some(Time(whole_second_after(now))),
            ..AnalysisRun::default()
        });
        if run.phase != AnalysisPhase::Running {
            return run;
        }
        let values = self.values(scope, workload);
        let begun = run.start_time.as_ref().map_or(now, |t| t.0);
        let mut asks = Vec::new();
        let mut metrics = Vec::new();
        let mut asked = None;
        for metric in &analysis.metrics {
            // One that came later begins when it came.
            let begun = if run.metrics.is_empty() { begun } else { now };
            let mut status = self.known(metric, &run);
            let mut query = String::new();
            if status.phase == AnalysisPhase::Running {
                match self.resolve(metric, &values) {
                    Ok(question) => {
                        asks.extend(self.question(&mut status, metric, &question, begun, is_background));
                        query = question.query;
                    }
                    Err(problem) => (status.message, status.next_time) = (problem, None),
                }
            }
            if matches!(status.phase, AnalysisPhase::Failed | AnalysisPhase::Inconclusive) {
                asked = asked.or(Some(query));
            }
            metrics.push(status);
        }
        run.metrics = metrics;
        (run.phase, run.message) = sum(analysis, &run);
        if let Some(query) = asked {
            run.message = format!("{}; query: {}", run.message, short(&query));
        }
        if run.phase == AnalysisPhase::Running {
            asks.into_iter().for_each(|ask| self.ask(ask));
        }
        run
    }

    /// Whether the run is of these metrics, as they and their templates are now.
    pub(super) fn is_of(&self, analysis: &Analysis, run: &AnalysisRun) -> bool {
        run.metrics.len() == analysis.metrics.len()
            && run.metrics.iter().zip(&analysis.metrics).all(|(status, metric)| self.is_its(status, metric))
    }

    /// Whether the metric is defined as it was when this was counted.
    fn is_its(&self, status: &MetricStatus, metric: &Metric) -> bool {
        let (hash, version) = match status.hash.split_once('-') {
            Some((hash, version)) => (hash, Some(version)),
            None => (status.hash.as_str(), None),
        };
        let now = templates::version(metric, |name| self.template(name));
        // While its template is missing nothing can be asked; what was counted is still good when it comes back.
        status.name == metric.name && hash == metric.hash() && now.is_none_or(|now| version == Some(&now))
    }

    /// Where a metric stands. What was counted under another definition does not count.
    fn known(&self, metric: &Metric, run: &AnalysisRun) -> MetricStatus {
        let name = metric.name.clone();
        let former = run.metrics.iter().find(|former| former.name == name);
        if let Some(former) = former.filter(|former| self.is_its(former, metric)) {
            return former.clone();
        }
        let mut hash = metric.hash();
        let what = match former {
            Some(former) if former.hash.split('-').next() == Some(&hash) => "its template",
            _ => "it",
        };
        let counted = former.filter(|former| !former.measurements.is_empty());
        let message = counted.map(|_| format!("{what} was changed, so that it is counted anew")).unwrap_or_default();
        if let Some(version) = templates::version(metric, |name| self.template(name)) {
            hash = format!("{hash}-{version}");
        }
        MetricStatus { name, hash, message, ..MetricStatus::default() }
    }

    fn template(&self, name: &str) -> Option<MetricTemplateSpec> {
        serde_json::from_value(at(self.snap.templates.get(name)?, &["spec"])?.clone()).ok()
    }

    /// Takes in an answer to a metric's question, if there is one; the next question.
    fn question(
        &mut self,
        status: &mut MetricStatus,
        metric: &Metric,
        question: &Rendered,
        begun: Timestamp,
        is_background: bool,
    ) -> Vec<Ask> {
        let text = &question.query;
        let timing = question.timing.as_str();
        let from = begun.checked_add(SignedDuration::from_secs(metric.delay)).unwrap_or(begun);
        let last = status.measurements.last().and_then(|m| m.time.as_ref()).map(|Time(last)| *last);
        let first = || match last {
            // It could not be asked for a while.
            Some(last) => Time(ask::next(last, metric.interval, timing, 0)),
            None => Time(ask::due(from, metric.interval, timing)),
        };
        // A Job is made for a moment that is stored, so that a pass that is repeated makes the same one.
        let is_stored = status.next_time.is_some();
        let due = status.next_time.get_or_insert_with(first).0;
        let namespace = self.snap.rollout.metadata.namespace.clone().unwrap_or_default();
        let provider = &question.provider;
        let asks = |due| match &question.comparison {
            _ if provider.pods.is_some() || provider.job.is_some() => Vec::new(),
            Some(comparison) => ask::of_look(provider, &namespace, comparison, metric.interval, due),
            None => ask::of_value(provider, &namespace, text, question.samples.as_deref(), metric.interval, due),
        };
        let asked = asks(due);
        let taken_in = if asked.is_empty() {
            let answer = match &provider.job {
                _ if self.snap.now < due => None,
                None => Some(self.ask_pods(text)),
                Some(job) => self.ask_job(&metric.name, job, text, due, is_stored),
            };
            answer.map(|answer| {
                let found = judge::take_in(status, metric, timing, &[Sample { at: self.snap.now, answer }]);
                // A Job takes its time, which is no delay of the question.
                if provider.job.is_some() && status.without_data == 0 {
                    status.next_time = Some(Time(ask::after(self.snap.now, metric.interval, timing)));
                }
                found
            })
        } else {
            let look = compare::complete(due, asked.iter().map(|ask| self.snap.samples.get(&ask.id)));
            look.map(|look| match &question.comparison {
                Some(comparison) => compare::take_in(status, metric, comparison, timing, &look, is_background),
                None => judge::take_in(status, metric, timing, &look),
            })
        };
        if let Some((finding, said)) = taken_in {
            status.phase = judge::phase(status, metric, is_background);
            let is_news = match finding {
                Finding::Passed | Finding::Undecided => false,
                Finding::Failed | Finding::Inconclusive => true,
                Finding::NoData | Finding::Unavailable | Finding::Mistake => status.without_data == 1,
            };
            if is_news {
                self.warn(reasons::METRIC_NOT_GOOD, format!("metric {}: {said}; query: {}", metric.name, short(text)));
            }
        }
        if status.phase != AnalysisPhase::Running {
            status.next_time = None;
            return Vec::new();
        }
        let due = status.next_time.as_ref().map_or(due, |t| t.0);
        let asks = asks(due);
        // What a Job says, its end tells; one is made only after its moment was stored.
        if asks.is_empty() && (provider.job.is_none() || due > self.snap.now || !is_stored) {
            self.look_again(due);
        }
        asks
    }

    /// What the Job of a measurement says, once it has ended; it is made where there is none.
    fn ask_job(
        &mut self,
        metric: &str,
        job: &JobProvider,
        cron_job: &str,
        due: Timestamp,
        is_stored: bool,
    ) -> Option<Answer> {
        let step = self.sub().current_step_index;
        let revision = self.sub().canary_revision.clone();
        let id = json!([self.snap.rollout.metadata.uid, "metric", revision, step, metric, cron_job, due.as_second()]);
        let name = self.name_of_job(&id);
        let made = self.snap.jobs.iter().find(|job| object::name(job) == name).map(|job| jobs::state(job));
        match made {
            Some(JobState::Runs) => None,
            Some(JobState::Succeeded) => Some(Answer::Value(1.0)),
            Some(JobState::Failed(_)) => Some(Answer::Value(0.0)),
            None => {
                let Some(template) = self.snap.cron_jobs.get(cron_job).cloned() else {
                    return Some(Answer::Mistake(format!("{} {cron_job} is missing; create it", CRON_JOB.1)));
                };
                if is_stored {
                    let timeout = provider::job_timeout(job).unwrap_or_default();
                    let object = self.job(Run::Metric, &name, &template, timeout, &self.told(step));
                    self.write(Effect::Apply { purpose: Purpose::RunJob, object });
                }
                None
            }
        }
    }

    /// What the pods of the new version say of themselves.
    fn ask_pods(&self, query: &str) -> Answer {
        let Some(new) = self.new_revision() else { return Answer::Empty };
        let pods = self.snap.pods.iter().map(AsRef::as_ref);
        let count = match query.trim() {
            "restarts" => pods::restarts(pods, &new.pods),
            _ => pods::oom_kills(pods, &new.pods),
        };
        // So many pods no cluster has that a double would not be exact.
        count.map_or(Answer::Empty, |count| Answer::Value(f64::from(count)))
    }

    pub(super) fn resolve(&self, metric: &Metric, values: &Values) -> Result<Rendered, String> {
        templates::resolve(metric, values, |name| self.template(name))
    }

    /// What a query may name.
    pub(super) fn values(&self, scope: &Scope, workload: &Workload) -> Values {
        let sub = self.status.canary_status.as_ref();
        let new = self.new_revision();
        let text = |text: &str| QueryValue::Text(text.to_owned());
        let of_sub = |of: fn(&crate::api::v1beta1::CanaryStatus) -> &str| text(sub.map(of).unwrap_or_default());
        let extra = canary_name(workload.name());
        let nothing = PodNames::Listed(Default::default());
        let names = new.as_ref().map_or(&nothing, |new| &new.pods);
        let mut values: Vec<(&str, QueryValue)> = vec![
            ("namespace", text(self.snap.rollout.metadata.namespace.as_deref().unwrap_or_default())),
            ("rollout", text(self.rollout_name())),
            ("workload", text(workload.name())),
            ("canary-workload", text(if scope.style == Style::Canary { &extra } else { workload.name() })),
            ("stable-revision", of_sub(|s| &s.stable_revision)),
            ("stable-hash", of_sub(|s| &s.stable_revision)),
            ("canary-revision", of_sub(|s| &s.canary_revision)),
            ("canary-hash", text(new.as_ref().map_or("", |new| &new.hash))),
            ("canary-pods", QueryValue::Pattern(names_pattern(names))),
            ("canary-ips", QueryValue::Pattern(self.addresses(|name| names.contains(name)))),
            ("stable-pods", QueryValue::Pattern(self.pods_but(names))),
            ("stable-ips", QueryValue::Pattern(self.addresses(|name| !names.contains(name)))),
            ("step", QueryValue::Bare(sub.map_or(0, |s| s.current_step_index).to_string())),
        ];
        if let Some(traffic) = &scope.traffic {
            values.push(("stable-service", text(&traffic.names.stable_service)));
            values.push(("canary-service", text(&traffic.names.canary_service)));
        }
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn addresses(&self, is_meant: impl Fn(&str) -> bool) -> String {
        let pods = self.snap.pods.iter().filter(|pod| is_meant(object::name(pod)));
        alternatives(pods.map(|pod| object::text(pod, &["status", "podIP"])).filter(|ip| !ip.is_empty()))
    }

    /// Pods of the workload that are not of the new version.
    fn pods_but(&self, names: &PodNames) -> String {
        alternatives(self.snap.pods.iter().map(|pod| object::name(pod)).filter(|name| !names.contains(name)))
    }
}

/// A regular expression that matches these texts; without any, one that matches no name.
fn alternatives<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<String> = texts.map(literal).collect();
    all.sort();
    if all.is_empty() { "-".to_owned() } else { all.join("|") }
}

fn names_pattern(names: &PodNames) -> String {
    match names {
        PodNames::Prefixed(prefix) => format!("{}[^-]+", literal(prefix)),
        PodNames::Listed(names) => alternatives(names.iter().map(String::as_str)),
    }
}

/// How an analysis stands, and what decides or is missing.
fn sum(analysis: &Analysis, run: &AnalysisRun) -> (AnalysisPhase, String) {
    let described = |wanted: AnalysisPhase| {
        let found: Vec<String> = (run.metrics.iter().zip(&analysis.metrics))
            .filter(|(status, _)| status.phase == wanted)
            .map(|(status, metric)| judge::describe(status, metric))
            .collect();
        (!found.is_empty()).then(|| found.join("; "))
    };
    for phase in [AnalysisPhase::Failed, AnalysisPhase::Inconclusive, AnalysisPhase::Running] {
        if let Some(text) = described(phase) {
            return (phase, text);
        }
    }
    (AnalysisPhase::Passed, described(AnalysisPhase::Passed).unwrap_or_default())
}

/// As much of a query as a message bears.
fn short(query: &str) -> String {
    const LONGEST: usize = 200;
    let line = query.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.get(..line.floor_char_boundary(LONGEST)) {
        Some(part) if part.len() < line.len() => format!("{part}…"),
        _ => line,
    }
}
