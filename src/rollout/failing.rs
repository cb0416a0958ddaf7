//! During a release: pods that cannot become ready, and steps that are not in place in time.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    clock::whole_second_after,
    machine::Machine,
    plan::Purpose,
    release::{Release, ReleaseStep},
    turn::{Turn, Wait},
};
use crate::{
    analysis::metric::Analysis,
    api::{
        analysis::OnFailure,
        conditions::{self, StepState, reasons, types},
        v1beta1::OnStepFailure,
    },
    workload::{PodNames, Workload, pods},
};

impl Machine<'_> {
    /// What keeps pods from becoming ready.
    fn trouble_of(&self, names: &PodNames) -> Option<String> {
        pods::trouble(self.snap.pods.iter().map(AsRef::as_ref), names)
    }

    /// Waits for pods to become ready; for ever, where one cannot, which a person has to know at once.
    pub(super) fn wait_for_pods(&self, names: &PodNames, message: String) -> Wait {
        match self.trouble_of(names) {
            Some(trouble) => Wait::stall(reasons::PODS_FAILING, format!("{message}; {trouble}")),
            None => Wait::on(message),
        }
    }

    /// Says what is wrong with new pods, also where nothing waits for them.
    pub(super) fn report_pods(&mut self) {
        let trouble = self.new_revision().and_then(|new| self.trouble_of(&new.pods));
        self.sub().message = trouble.unwrap_or_default();
    }

    /// A template whose step failed is not tried again by itself, however often a tool writes it.
    pub(super) fn check_not_failed(&mut self, workload: &Workload, release: &Release) -> Turn {
        let judges = |analysis: &Option<Analysis>| {
            analysis.as_ref().is_some_and(|analysis| analysis.on_failure == OnFailure::Rollback)
        };
        let rolls_back = |step: &ReleaseStep| {
            (step.deadline.is_some() && step.on_failure == OnStepFailure::Rollback) || judges(&step.analysis)
        };
        let sub = self.sub();
        if sub.failed_revision != workload.template_name
            || sub.failed_step_index.is_some()
            || !(release.steps.iter().any(rolls_back)
                || judges(&release.background)
                || release
                    .steps
                    .iter()
                    .flat_map(|step| &step.gates)
                    .any(|gate| gate.job.as_ref().is_some_and(|job| job.on_failure == OnFailure::Rollback))
                || release.hooks.iter().any(|hook| hook.on_refusal == OnFailure::Rollback))
        {
            return Ok(());
        }
        Err(Wait::stall(
            reasons::REVISION_FAILED,
            format!(
                "this template of {} was rolled back because a step, a metric or a gate failed, or a hook refused it; change \
                 the template, or set onStepFailure to Pause and onFailure of analysis and gates and onRefusal of hooks to pause to try it again",
                workload.title()
            ),
        ))
    }

    /// The end of a pass that waits for something at a step: whether it has waited for too long.
    pub(super) fn judge_step(&mut self, wait: Wait, workload: &Workload, release: &Release) -> Turn {
        let now = self.snap.now;
        let index = self.sub().current_step_index;
        let state = StepState::parse(&self.sub().current_step_state).unwrap_or(StepState::BeforeStepUpgrade);
        let step = release.step(index).filter(|_| state < StepState::StepMetricsAnalysis);
        let step = step.filter(|_| !wait.is_barred);
        let Some((step, seconds)) = step.and_then(|step| Some((step, step.deadline?))) else {
            self.sub().step_start_time = None;
            return Err(wait);
        };
        let Time(since) = *self.sub().step_start_time.get_or_insert(Time(whole_second_after(now)));
        let deadline = since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        if now < deadline {
            self.look_again(deadline);
            return Err(wait);
        }
        if wait.is_over_in_time() || (self.is_writing() && !self.was_refused()) {
            // A controller that was away for long finds the pods ready and has only the routes to write.
            return Err(wait);
        }
        let place = format!("step {index} of {}", release.count());
        let why = format!("{place} was not in place within {seconds} seconds: {}", wait.text());
        let is_known = self.sub().failed_step_index == Some(index);
        self.sub().failed_step_index = Some(index);
        match step.on_failure {
            OnStepFailure::Pause => Err(Wait::stall(
                reasons::STEP_FAILED,
                format!(
                    "{why}. Change the template, or set it back to roll back; if the step comes into place, approve it"
                ),
            )),
            OnStepFailure::Rollback if is_known => self.roll_back(workload, reasons::STEP_FAILED, why),
            OnStepFailure::Rollback => {
                // Stored before anything is done about it, so that what is done is known to be for this reason.
                self.look_again(now);
                Err(Wait::stall(reasons::STEP_FAILED, why))
            }
        }
    }

    /// The API server did not take what was to be written.
    fn was_refused(&self) -> bool {
        let before = self.snap.rollout.status.as_ref();
        before
            .and_then(|status| conditions::find(&status.conditions, types::STALLED))
            .is_some_and(|condition| condition.reason == reasons::WRITE_REFUSED)
    }

    /// Sets the template back, in the write that shuts the workload as well: requests leave the new pods before they go.
    pub(super) fn roll_back(&mut self, workload: &Workload, reason: &'static str, why: String) -> Turn {
        if self.goes_back_in_batches(workload) {
            return Err(Wait::stall(reason, format!("{why}. The workload is on its way back already; mend its pods")));
        }
        let stable = self.sub().stable_revision.clone();
        let gate = workload.kind.gate;
        let Some(template) = gate.template_of(workload, &self.snap.surroundings(), &stable) else {
            return Err(Wait::stall(
                reason,
                format!("{why}. The template of the stable revision {stable} is not known; set it back by hand"),
            ));
        };
        self.event(reason, format!("rolling back to revision {stable}: {why}"));
        let sub = self.sub();
        sub.failed_revision.clone_from(&workload.template_name);
        sub.message = why;
        self.forget_writes();
        let mut operations = gate.shut(workload, self.rollout_name());
        operations.push(json!({"op": "replace", "path": "/spec/template", "value": template}));
        self.patch_workload(Purpose::RollBack, workload, operations)
    }
}
