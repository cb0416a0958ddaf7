//! During a release: metrics, of a step and of the whole release.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    clock::whole_second_after,
    machine::Machine,
    release::{Release, ReleaseStep, Scope},
    turn::{Turn, Wait},
};
use crate::{
    analysis::{
        Answer, Sample,
        ask::{self, Ask},
        compare,
        judge::{self, Finding},
        metric::{Analysis, Metric},
        query::{Value as QueryValue, Values, literal},
        templates::{self, Rendered},
    },
    api::{
        analysis::{
            AnalysisPhase, AnalysisRun, AnalysisStatus, MetricStatus, MetricTemplateSpec, OnFailure, OnSuccess,
        },
        conditions::{StepState, reasons},
        object::{self, at},
    },
    workload::{PodNames, Style, Workload, canary::canary_name, pods},
};

impl Machine<'_> {
    /// Judges the metrics of a step that is in place. `Ok`: it moved on.
    pub(super) fn judge_metrics(
        &mut self,
        analysis: &Analysis,
        scope: &Scope,
        workload: &Workload,
        release: &Release,
    ) -> Turn {
        let index = self.sub().current_step_index;
        let known = self.analysis().step.take().filter(|run| run.step_index == index);
        let run = self.measure(analysis, known, false, scope, workload);
        let begun = run.start_time.clone();
        let (phase, message) = (run.phase, run.message.clone());
        let stuck = stuck(analysis, &run);
        self.analysis().step = Some(run);
        let place = format!("Rollout is in step({index}/{})", release.count());
        match phase {
            AnalysisPhase::Running => {
                let text = format!("{place}, and its metrics are judged: {message}");
                Err(if stuck { Wait::stall(reasons::ANALYSIS_STUCK, text) } else { Wait::on(text) })
            }
            AnalysisPhase::Failed if analysis.on_failure == OnFailure::Rollback => self.roll_back_for(
                workload,
                reasons::ANALYSIS_FAILED,
                format!("step {index} of {}: {message}", release.count()),
            ),
            phase => {
                self.set_state(StepState::StepPaused);
                // A pause runs from when the step was in place.
                self.sub().last_update_time = begun;
                if phase != AnalysisPhase::Passed {
                    self.sub().failed_step_index = Some(index);
                    return Ok(());
                }
                self.event(reasons::ANALYSIS_PASSED, format!("step {index} of {}: {message}", release.count()));
                // Stored before the next step begins: an answer that is lost would have to be asked for again, and the
                // routes of this step would come back for it.
                self.look_again(self.snap.now);
                Err(Wait::on(format!("{place}, and its metrics are good: {message}")))
            }
        }
    }

    /// Judges the metrics of the whole release. `Err`: nothing goes on.
    pub(super) fn judge_release(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
        let index = self.sub().current_step_index;
        let state = StepState::parse(&self.sub().current_step_state).unwrap_or(StepState::BeforeStepUpgrade);
        let Some(analysis) = &release.background else {
            if let Some(status) = &mut self.sub().analysis {
                status.background = None;
            }
            self.go_on();
            return Ok(());
        };
        let known = self.analysis().background.take();
        let is_ended = known.as_ref().is_some_and(|run| run.phase != AnalysisPhase::Running);
        let is_approved = state == StepState::StepReady && self.sub().paused_step_index == Some(index);
        let is_of_other = known.as_ref().is_some_and(|run| !is_of(analysis, run));
        let known = known.filter(|_| !(is_ended && (is_approved || is_of_other)));
        if known.is_none() {
            if is_ended && is_approved && !self.analysis().halted.is_empty() {
                self.event(
                    reasons::APPROVED,
                    format!("step {index} of {} is approved, with counting anew", release.count()),
                );
            }
            if is_ended {
                // A person says that it is good, or what is good was said anew.
                self.go_on();
            }
            let is_begun = state >= StepState::StepMetricsAnalysis || index > 1 || is_ended;
            if !is_begun {
                return Ok(());
            }
        }
        let run = self.measure(analysis, known, true, scope, workload);
        let (phase, message) = (run.phase, run.message.clone());
        self.analysis().background = Some(run);
        match phase {
            AnalysisPhase::Running | AnalysisPhase::Passed => Ok(()),
            AnalysisPhase::Failed if analysis.on_failure == OnFailure::Rollback => {
                self.roll_back_for(workload, reasons::ANALYSIS_FAILED, message)
            }
            AnalysisPhase::Failed | AnalysisPhase::Inconclusive => {
                self.halt(state);
                if self.analysis().halted.is_empty() {
                    return Ok(());
                }
                let Some((reason, why)) = self.verdict(index) else { return Ok(()) };
                Err(Wait::stall(
                    reason,
                    format!(
                        "Rollout is halted in step({index}/{}): {why}. Change the template, or set it back to roll back; \
                         to go on all the same, approve it",
                        release.count()
                    ),
                ))
            }
        }
    }

    /// A step that was in place waits there; one that was on its way does not go on.
    fn halt(&mut self, state: StepState) {
        let index = self.sub().current_step_index;
        if !self.analysis().halted.is_empty() && state == StepState::StepPaused {
            return;
        }
        if !matches!(state, StepState::StepMetricsAnalysis | StepState::StepPaused) {
            state.as_str().clone_into(&mut self.analysis().halted);
        }
        self.sub().failed_step_index = Some(index);
        self.sub().paused_step_index = Some(index);
        self.set_state(StepState::StepPaused);
    }

    /// A halted step is executed again from its beginning: what is in place stays.
    fn go_on(&mut self) {
        let Some(status) = self.sub().analysis.as_mut().filter(|status| !status.halted.is_empty()) else { return };
        status.halted = String::new();
        self.sub().paused_step_index = None;
        self.set_state(StepState::BeforeStepUpgrade);
    }

    /// Time and metrics let a step pass only while the release as a whole is measured. A person's word does not wait.
    pub(super) fn check_release_is_measured(&mut self, release: &Release) -> Turn {
        let index = self.sub().current_step_index;
        let Some(analysis) = &release.background else { return Ok(()) };
        let Some(run) = self.analysis().background.clone().filter(|run| stuck(analysis, run)) else { return Ok(()) };
        Err(Wait::stall(
            reasons::ANALYSIS_STUCK,
            format!("Rollout is in step({index}/{}) and cannot go on unmeasured: {}", release.count(), run.message),
        ))
    }

    /// Finds before the first pod what keeps a metric from being asked for.
    pub(super) fn check_metrics(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
        let values = self.values(scope, workload);
        let analyses = release.steps.iter().filter_map(|step| step.analysis.as_ref()).chain(&release.background);
        for metric in analyses.flat_map(|analysis| &analysis.metrics) {
            if let Err(problem) = self.resolve(metric, &values) {
                return Err(Wait::stall(reasons::ANALYSIS_STUCK, format!("metric {}: {problem}", metric.name)));
            }
        }
        Ok(())
    }

    /// Good metrics stand for the approval of a step.
    pub(super) fn is_promoted(&self, index: i32, step: &ReleaseStep) -> bool {
        let run = self.status.canary_status.as_ref().and_then(|s| s.analysis.as_ref()?.step.as_ref());
        step.analysis.as_ref().is_some_and(|analysis| analysis.on_success == OnSuccess::Promote)
            && run.is_some_and(|run| run.step_index == index && run.phase == AnalysisPhase::Passed)
    }

    /// What an analysis that ended badly said of a step.
    pub(super) fn verdict(&self, index: i32) -> Option<(&'static str, String)> {
        let status = self.status.canary_status.as_ref()?.analysis.as_ref()?;
        let step = status.step.as_ref().filter(|run| run.step_index == index);
        [step, status.background.as_ref()].into_iter().flatten().find_map(|run| match run.phase {
            AnalysisPhase::Failed => Some((reasons::ANALYSIS_FAILED, run.message.clone())),
            AnalysisPhase::Inconclusive => Some((reasons::ANALYSIS_INCONCLUSIVE, run.message.clone())),
            AnalysisPhase::Running | AnalysisPhase::Passed => None,
        })
    }

    /// Why the release was rolled back by the controller.
    pub(super) fn failure_reason(&self) -> &'static str {
        let status = self.status.canary_status.as_ref().and_then(|s| s.analysis.as_ref());
        let runs = status.iter().flat_map(|s| [s.step.as_ref(), s.background.as_ref()]).flatten();
        let mut failed = runs.filter(|run| run.phase == AnalysisPhase::Failed);
        match failed.next() {
            Some(_) => reasons::ANALYSIS_FAILED,
            None if self.is_refused() => reasons::HOOK_REFUSED,
            None if self.has_failed_job() => reasons::GATE_FAILED,
            None => reasons::STEP_FAILED,
        }
    }

    /// Goes back because of what a metric or a hook said.
    pub(super) fn roll_back_for(&mut self, workload: &Workload, reason: &'static str, why: String) -> Turn {
        let index = self.sub().current_step_index;
        if self.sub().failed_step_index == Some(index) {
            return self.roll_back(workload, reason, why);
        }
        // Stored before anything is done about it, so that what is done is known to be for this reason.
        self.sub().failed_step_index = Some(index);
        self.look_again(self.snap.now);
        Err(Wait::stall(reason, why))
    }

    fn analysis(&mut self) -> &mut AnalysisStatus {
        self.sub().analysis.get_or_insert_default()
    }

    /// Takes in what was answered, and asks again.
    fn measure(
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
            let hash = metric.hash();
            let known = run.metrics.iter().find(|m| m.name == metric.name && m.hash == hash).cloned();
            // One that came later begins when it came.
            let begun = if run.metrics.is_empty() { begun } else { now };
            let mut status =
                known.unwrap_or_else(|| MetricStatus { name: metric.name.clone(), hash, ..MetricStatus::default() });
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
        let from = begun.checked_add(SignedDuration::from_secs(metric.delay)).unwrap_or(begun);
        let last = status.measurements.last().and_then(|m| m.time.as_ref()).map(|Time(last)| *last);
        let first = || match last {
            // It could not be asked for a while.
            Some(last) => Time(ask::next(last, metric.interval, text, 0)),
            None => Time(ask::due(from, metric.interval, text)),
        };
        let due = status.next_time.get_or_insert_with(first).0;
        let namespace = self.snap.rollout.metadata.namespace.clone().unwrap_or_default();
        let asks = |due| match &question.provider.prometheus {
            Some(p) if metric.comparison().is_some() => {
                ask::of_look(p, &namespace, &question.counts, metric.interval, due)
            }
            Some(p) => vec![Ask::new(p, &namespace, text, metric.interval, due)],
            None => Vec::new(),
        };
        let asked = asks(due);
        let sample = |ask: &Ask| self.snap.samples.get(&ask.id).filter(|sample| sample.at >= due);
        let taken_in = match (metric.comparison(), asked.first()) {
            (Some(comparison), _) => compare::complete(due, asked.iter().map(sample))
                .map(|look| compare::take_in(status, metric, comparison, text, &look)),
            (None, Some(ask)) => sample(ask).map(|sample| judge::take_in(status, metric, text, sample)),
            (None, None) => (self.snap.now >= due)
                .then(|| Sample { at: self.snap.now, answer: self.ask_pods(text) })
                .map(|sample| judge::take_in(status, metric, text, &sample)),
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
        if asks.is_empty() {
            self.look_again(due);
        }
        asks
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

    fn resolve(&self, metric: &Metric, values: &Values) -> Result<Rendered, String> {
        templates::resolve(metric, values, |name| {
            let spec = at(self.snap.templates.get(name)?, &["spec"])?.clone();
            serde_json::from_value::<MetricTemplateSpec>(spec).ok()
        })
    }

    /// What a query may name.
    fn values(&self, scope: &Scope, workload: &Workload) -> Values {
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
            ("canary-ips", QueryValue::Pattern(self.addresses(names))),
            ("step", QueryValue::Bare(sub.map_or(0, |s| s.current_step_index).to_string())),
        ];
        if let Some(traffic) = &scope.traffic {
            values.push(("stable-service", text(&traffic.names.stable_service)));
            values.push(("canary-service", text(&traffic.names.canary_service)));
        }
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn addresses(&self, names: &PodNames) -> String {
        let pods = self.snap.pods.iter().filter(|pod| names.contains(object::name(pod)));
        alternatives(pods.map(|pod| object::text(pod, &["status", "podIP"])).filter(|ip| !ip.is_empty()))
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

/// The run is of these metrics, as they are now.
fn is_of(analysis: &Analysis, run: &AnalysisRun) -> bool {
    run.metrics.len() == analysis.metrics.len()
        && run.metrics.iter().zip(&analysis.metrics).all(|(status, metric)| status.hash == metric.hash())
}

/// A person has to mend the question, or the data have been missing for too long.
fn stuck(analysis: &Analysis, run: &AnalysisRun) -> bool {
    run.phase == AnalysisPhase::Running
        && run.metrics.iter().zip(&analysis.metrics).any(|(status, metric)| {
            let is_waiting = status.phase == AnalysisPhase::Running;
            let cannot_ask = status.next_time.is_none();
            let waits = metric.on_no_data == crate::api::analysis::OnNoData::Wait && judge::is_overdue(status, metric);
            is_waiting && (cannot_ask || waits || judge::is_mistaken(status))
        })
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
