//! During a release: metrics, of a step and of the whole release.

use super::{
    machine::Machine,
    release::{Release, ReleaseStep, Scope},
    turn::{Turn, Wait},
};
use crate::{
    analysis::{judge, metric::Analysis},
    api::{
        analysis::{AnalysisPhase, AnalysisRun, AnalysisStatus, OnFailure, OnNoData, OnSuccess},
        conditions::{StepState, reasons},
    },
    workload::Workload,
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
        let is_of_other = known.as_ref().is_some_and(|run| !self.is_of(analysis, run));
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
            let problem = match self.resolve(metric, &values) {
                Err(problem) => problem,
                Ok(question)
                    if question.provider.job.is_some() && !self.snap.cron_jobs.contains_key(&question.query) =>
                {
                    format!(
                        "CronJob {} is missing, or may not be read; create it, suspended where only its Jobs are wanted, or \
                         grant it (the chart's jobs.enabled)",
                        question.query
                    )
                }
                Ok(_) => continue,
            };
            return Err(Wait::stall(reasons::ANALYSIS_STUCK, format!("metric {}: {problem}", metric.name)));
        }
        Ok(())
    }

    /// The step is in place and its metrics are not judged yet: a person may go on without them.
    pub(super) fn is_being_measured(&self, index: i32) -> bool {
        let run = self.status.canary_status.as_ref().and_then(|s| s.analysis.as_ref()?.step.as_ref());
        run.is_some_and(|run| run.step_index == index && run.phase == AnalysisPhase::Running)
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
}

/// A person has to mend the question, or the data have been missing for too long.
fn stuck(analysis: &Analysis, run: &AnalysisRun) -> bool {
    run.phase == AnalysisPhase::Running
        && run.metrics.iter().zip(&analysis.metrics).any(|(status, metric)| {
            let is_waiting = status.phase == AnalysisPhase::Running;
            let cannot_ask = status.next_time.is_none();
            let waits = metric.on_no_data == OnNoData::Wait && judge::is_overdue(status, metric);
            is_waiting && (cannot_ask || waits || judge::is_mistaken(status))
        })
}
