//! During a release: the steps, one state after the other.

use super::{
    ending::Ending,
    machine::Machine,
    release::{Release, Scope, Traffic},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{StepState, reasons},
        keys,
        object::{self, digest},
        v1beta1::{PatchPodTemplateMetadata, Word},
    },
    lua::Origin,
    traffic::routes::Network,
    workload::{Style, Workload, canary::canary_template},
};

impl Machine<'_> {
    pub(super) fn rolling(&mut self, scope: &Scope, workload: &Workload) -> Turn {
        self.choose_stable_again(workload);
        let stable = self.sub().stable_revision.clone();
        let goes_back = self.goes_back_in_batches(workload);
        if workload.is_at(&stable) && !goes_back && self.has_gone_back(workload) {
            self.all_done()?;
            return self.finalise(Ending::Success, scope, workload);
        }
        if workload.is_at(&stable) && !goes_back {
            self.sub().finalising_step = String::new();
            self.sub().approved_step_index = None;
            self.sub().gates.clear();
            self.note_rollback();
            self.sub().canary_revision = stable;
            self.set_progressing(
                reasons::CANCELLING,
                "The workload has been rolled back and the rollout process will be canceled",
            );
            self.event(reasons::ROLLED_BACK, "workload has been rollback, then rollout is canceled");
            return self.finalise(Ending::Rollback, scope, workload);
        }
        // Also after a template that came while winding up: the workload may have been opened by then.
        self.keep_held(workload)?;
        let release = self.release()?;
        if goes_back {
            self.begin_going_back(workload, &release);
        }
        if self.is_of_another_template(workload, &release) {
            self.check_one_version(scope, workload)?;
            return self.restart(scope, workload, &release);
        }
        if release.is_paused {
            // The time that a person takes is no fault of the step's.
            self.sub().step_start_time = None;
            self.status.refused_routes = None;
            self.set_progressing(reasons::PAUSED, "Rollout has been paused, you can resume it by kube-cli");
            return Err(Wait::on("Rollout has been paused (spec.strategy.paused); set it to false to resume"));
        }
        self.set_progressing(reasons::IN_ROLLING, "Rollout is in Progressing");
        self.check_not_failed(workload, &release)?;
        self.follow_plan(&release, goes_back);
        // The id alone may change, which labels the pods anew.
        let revision = self.sub().canary_revision.clone();
        self.sub().observed_rollout_id = workload.rollout_id().unwrap_or(&revision).to_owned();
        self.report_pods();
        self.judge_release(scope, workload, &release)?;
        self.judge_hooks(workload, &release)?;
        self.judge_gates(workload, &release)?;
        loop {
            if let Err(wait) = self.step(scope, workload, &release) {
                return self.judge_step(wait, workload, &release);
            }
            if self.progressing_reason() == reasons::FINALISING {
                return self.finalise(Ending::Success, scope, workload);
            }
        }
    }

    /// Whatever opened the workload before its time, without the admission policy or around it: it is shut again.
    pub(super) fn keep_held(&mut self, workload: &Workload) -> Turn {
        let is_at_stable = workload.is_at(&self.sub().stable_revision.clone());
        if workload.kind.gate.is_kept(workload) || (is_at_stable && !self.goes_back_in_batches(workload)) {
            return Ok(());
        }
        self.hold_late(workload)
    }

    /// The extra Deployment or the status is of an older template, or a restart has not ended yet.
    fn is_of_another_template(&mut self, workload: &Workload, release: &Release) -> bool {
        let is_stale = match &self.canary {
            Some(canary) => !is_made_from(canary, workload, release.patch.as_ref()),
            None => !self.is_of_release(workload),
        };
        if is_stale || !self.sub().finalising_step.is_empty() {
            return true;
        }
        self.sub().canary_revision.clone_from(&workload.template_name);
        false
    }

    /// The template that the release began with. An API server that was upgraded meanwhile may show every template with
    /// new defaults; the server's own name of the version tells it then.
    pub(super) fn is_of_release(&mut self, workload: &Workload) -> bool {
        let sub = self.sub();
        let is_known = !sub.pod_template_hash.is_empty() && sub.pod_template_hash != sub.stable_revision;
        workload.template_name == sub.canary_revision || (is_known && workload.is_at(&sub.pod_template_hash))
    }

    /// A blue-green release keeps the old set to go back to; a third version would need a third set.
    pub(super) fn check_one_version(&mut self, scope: &Scope, workload: &Workload) -> Turn {
        let stable = self.sub().stable_revision.clone();
        // Not while winding up, when the version that went through the steps is the only one left.
        let has_second = workload.revisions.iter().any(|r| r.replicas > 0 && !r.is_present && r.hash != stable);
        if scope.style == Style::BlueGreen && workload.runs(&stable) && has_second {
            return Err(Wait::on(
                "new version releasing detected in the progress of blue-green release, please rollback first",
            ));
        }
        Ok(())
    }

    /// A newer template arrived: requests go back to stable pods, the canary goes, and the plan starts again.
    fn restart(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
        if self.progressing_reason() != reasons::INITIALIZING || self.sub().finalising_step.is_empty() {
            self.sub().finalising_step = String::new();
            // Nobody may approve a step of the version that goes.
            self.sub().paused_step_index = None;
            self.set_state(StepState::BeforeStepUpgrade);
            self.set_progressing(reasons::INITIALIZING, "Workload is continuous release");
            self.event(reasons::RESTARTED, "workload continuous publishing canaryRevision, then restart publishing");
        }
        self.finalise(Ending::Restart, scope, workload)?;
        if workload.replicas == 0 && workload.existing == 0 {
            // Without pods there is nothing to release step by step.
            self.sub().canary_revision.clone_from(&workload.template_name);
            self.all_done()?;
            return self.finalise(Ending::Success, scope, workload);
        }
        self.start_release(workload, release, "Workload is continuous release")?;
        self.rolling(scope, workload)
    }

    /// Finds before the first pod what would fail at a later step: missing objects, scripts that do not run.
    pub(super) fn check_everything(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
        self.check_canary_name(workload)?;
        self.check_shared(scope)?;
        self.check_metrics(scope, workload, release)?;
        let Some(traffic) = &scope.traffic else { return Ok(()) };
        self.stable_service(traffic)?;
        self.check_canary_service(traffic)?;
        self.check_told_apart(scope, traffic)?;
        for step in release.steps.iter().filter(|s| !s.strategy.is_empty()) {
            self.check_routes(traffic, release, &step.strategy)?;
        }
        Ok(())
    }

    /// Without a canary Service a gateway has only the labels of pods to go by, and in place those of both versions carry
    /// the same. Whoever brings a script of his own may know better.
    fn check_told_apart(&self, scope: &Scope, traffic: &Traffic) -> Turn {
        let is_built_in = |n: &&Network| n.script.as_ref().is_ok_and(|script| script.origin == Origin::BuiltIn);
        if scope.style == Style::Canary || traffic.has_canary_service() {
            return Ok(());
        }
        let Some(network) = self.networks.iter().find(is_built_in) else { return Ok(()) };
        Err(Wait::stall(
            reasons::INVALID_SPEC,
            format!(
                "disableGenerateCanaryService: {} can tell the versions apart only by a canary Service, because in place \
                 their pods carry the same labels; set it to false",
                network.target()
            ),
        ))
    }

    /// Executes the current step again when the plan changed, and jumps where a person pointed.
    fn follow_plan(&mut self, release: &Release, goes_back: bool) {
        let count = release.count();
        let sub = self.sub();
        let index = sub.current_step_index.clamp(1, count);
        if sub.current_step_index != index || sub.rollout_hash != release.hash {
            let is_approved = sub.current_step_state == StepState::StepReady.as_str();
            if is_approved && sub.current_step_index == index && sub.paused_step_index == Some(index) {
                // The step was in place as it was then, and a person has said to go on from it.
                sub.next_step_index = release.next(index);
                sub.rollout_hash.clone_from(&release.hash);
                return;
            }
            sub.current_step_index = index;
            sub.next_step_index = release.next(index);
            sub.rollout_hash.clone_from(&release.hash);
            sub.paused_step_index = None;
            self.set_state(StepState::BeforeStepUpgrade);
            if is_approved {
                self.warn(
                    reasons::APPROVAL_IGNORED,
                    format!("the plan changed, so step {index} is executed again; approve it when it waits"),
                );
            }
            return;
        }
        let wanted = sub.next_step_index;
        if wanted != release.next(index) {
            if (1..=count).contains(&wanted) {
                if !goes_back
                    && let Err(wait) = self.wait_for_window(&format!("the jump to step {wanted} of {count}"), release)
                {
                    // The present step is kept in place meanwhile.
                    self.barred_jump = Some(wait);
                    return;
                }
                let by = self.heard(Word::JUMPED, index, Some(wanted));
                let sub = self.sub();
                sub.current_step_index = wanted;
                sub.next_step_index = release.next(wanted);
                sub.paused_step_index = None;
                self.set_state(StepState::BeforeStepUpgrade);
                self.event(reasons::STEP_STARTED, format!("jumped from step {index} to step {wanted}{by}"));
            } else {
                self.sub().next_step_index = release.next(index);
            }
        }
    }
}

/// The extra Deployment has the workload's present template; what admission added to it since does not count.
pub(super) fn is_made_from(canary: &Workload, workload: &Workload, patch: Option<&PatchPodTemplateMetadata>) -> bool {
    let wanted = canary_template(workload, patch);
    let made_with = object::annotation(canary.object(), keys::CANARY_TEMPLATE);
    canary.template() == wanted || made_with == Some(digest(&wanted).as_str())
}
