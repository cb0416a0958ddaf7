//! During a release: the steps, one state after the other.

use super::{
    clock::whole_second_after,
    ending::Ending,
    machine::Machine,
    plan::Purpose,
    proof::SETTLING_SECONDS,
    release::{Pause, Release, ReleaseStep, Scope, Traffic},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{StepState, reasons},
        hooks::HookMoment,
        keys,
        object::{self, digest},
        v1beta1::{PatchPodTemplateMetadata, RolloutStatus, Word},
    },
    lua::Origin,
    traffic::{Strategy, routes::Network, services},
    workload::{Style, Workload, canary::canary_template},
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Words that a status keeps at most.
const MOST_WORDS: usize = 50;

impl Machine<'_> {
    pub(super) fn rolling(&mut self, scope: &Scope, workload: &Workload) -> Turn {
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
        self.start_release(workload, release, "Workload is continuous release")?;
        self.rolling(scope, workload)
    }

    /// Finds before the first pod what would fail at a later step: missing objects, scripts that do not run.
    fn check_everything(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
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

    /// Executes the state of the current step; `Ok` when it moved to another.
    fn step(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
        let index = self.sub().current_step_index;
        let Some(step) = release.step(index) else {
            return self.all_done();
        };
        let traffic = scope.traffic.as_ref().filter(|_| !step.strategy.is_empty());
        // Nothing is left to tell apart once all pods are new.
        let routed = traffic.filter(|_| !self.is_whole(scope, workload, step));
        let state = StepState::parse(&self.sub().current_step_state).unwrap_or(StepState::BeforeStepUpgrade);
        if state > StepState::StepUpgrade && state < StepState::StepReady {
            self.open_stable_service(scope, workload, step)?;
        }
        match state {
            StepState::BeforeStepUpgrade => {
                self.check_everything(scope, workload, release)?;
                // The way back waits for nobody's hours, and for no other release.
                if !self.goes_back_in_batches(workload) {
                    let what = format!("step {index} of {}", release.count());
                    self.wait_for_window(&what, release)?;
                    self.ask_hooks(HookMoment::BeforeStep, index, release);
                    self.wait_for_hooks(HookMoment::BeforeStep, index, &what, release).map_err(Wait::barred)?;
                    self.wait_for_slot(index)?;
                }
                self.mark_kept_pods(workload)?;
                self.before_upgrade(scope, traffic, routed.is_some(), workload)?;
                self.event(reasons::STEP_STARTED, format!("step {index} of {} begins", release.count()));
                self.set_state(StepState::StepUpgrade);
            }
            StepState::StepUpgrade => {
                self.status.message =
                    format!("Rollout is in step({index}/{}), and upgrade workload to new version", release.count());
                self.open_stable_service(scope, workload, step)?;
                self.upgrade(scope, workload, release, step)?;
                self.event(reasons::STEP_UPGRADED, format!("upgrade step({index}) canary pods with new versions done"));
                self.set_state(StepState::StepTrafficRouting);
            }
            StepState::StepTrafficRouting => {
                if !self.has_pods(scope, workload, release, step)? {
                    return Ok(());
                }
                self.take_shared(scope)?;
                self.label_pods(scope, workload, release)?;
                if let Some(traffic) = routed {
                    let unless_said =
                        if release.proof.is_some() { SETTLING_SECONDS } else { Self::grace(traffic, false) };
                    let settling = (format!("routes of step {index}"), traffic.grace.unwrap_or(unless_said));
                    self.route(traffic, workload, release, step, (&settling.0, settling.1))?;
                    self.prove(traffic, release, step)?;
                    self.note_routed(release);
                    self.event(reasons::TRAFFIC_ROUTED, describe_strategy(index, &step.strategy));
                }
                self.set_state(StepState::StepMetricsAnalysis);
            }
            StepState::StepMetricsAnalysis => {
                if let Some(analysis) = &step.analysis {
                    if !self.has_pods(scope, workload, release, step)? {
                        return Ok(());
                    }
                    self.label_pods(scope, workload, release)?;
                    self.take_shared(scope)?;
                    if let Some(traffic) = routed {
                        self.keep_routes(traffic, workload, release, step)?;
                    }
                    self.judge_metrics(analysis, scope, workload, release)?;
                } else {
                    self.set_state(StepState::StepPaused);
                }
            }
            StepState::StepPaused => {
                if !self.has_pods(scope, workload, release, step)? {
                    return Ok(());
                }
                self.label_pods(scope, workload, release)?;
                if self.sub().paused_step_index != Some(index) {
                    self.sub().paused_step_index = Some(index);
                    self.done.push((index, format!("step {index} of {} is in place", release.count())));
                    if !self.is_free_passage(step, index, release) && self.pause_of(index, step) == Pause::Approval {
                        self.event(
                            reasons::STEP_PAUSED,
                            format!("step {index} of {} waits for approval", release.count()),
                        );
                    }
                }
                self.take_shared(scope)?;
                if !self.goes_back_in_batches(workload) {
                    // Also while the pause runs: whoever has to pass one need not wait for its end.
                    self.show_gates(index, step, release);
                    self.run_gates(index, step)?;
                    self.ask_hooks(HookMoment::AfterStep, index, release);
                }
                let pause = match self.barred_jump.take() {
                    Some(wait) => Err(wait),
                    None => self
                        .check_gateways(routed)
                        .and_then(|()| self.check_hooks(index, workload, release))
                        .and_then(|()| self.check_gates(index, step, workload, release))
                        .and_then(|()| self.wait_for_pause(index, step, release))
                        .and_then(|()| self.wait_for_next(index, step, workload, release)),
                };
                // A pause that is over asks for nothing: after a lost status the next step's routes may be there already.
                if pause.is_err()
                    && let Some(traffic) = routed
                {
                    self.keep_routes(traffic, workload, release, step)?;
                }
                pause?;
                self.check_release_is_measured(release)?;
                self.set_state(StepState::StepReady);
            }
            StepState::StepReady => {
                let is_measured = self.is_being_measured(index);
                if self.sub().paused_step_index != Some(index) && !(step.analysis.is_some() && is_measured) {
                    // Nobody was asked yet: the word was meant for another step.
                    self.warn(
                        reasons::APPROVAL_IGNORED,
                        format!(
                            "an approval came while step {index} was not waiting for one; approve again when it does"
                        ),
                    );
                    self.set_state(StepState::BeforeStepUpgrade);
                    return Ok(());
                }
                if self.snap.rollout.status.as_ref().is_some_and(is_approved) {
                    let by = self.heard(Word::APPROVED, index, None);
                    let early = if is_measured { ", before its metrics were judged" } else { "" };
                    let text = format!("step {index} of {} is approved{by}{early}", release.count());
                    self.event(reasons::APPROVED, text);
                }
                let barrier = self.check_gateways(routed);
                if barrier.and_then(|()| self.wait_for_next(index, step, workload, release)).is_err() {
                    // The word is kept, and the step in place, until the next one is let in.
                    self.sub().approved_step_index = Some(index);
                    self.set_state(StepState::StepPaused);
                    return Ok(());
                }
                let next = release.next(index);
                if next < 0 {
                    return self.all_done();
                }
                let sub = self.sub();
                sub.current_step_index = next;
                sub.next_step_index = release.next(next);
                sub.paused_step_index = None;
                self.set_state(StepState::BeforeStepUpgrade);
            }
            StepState::Completed => return self.all_done(),
        }
        Ok(())
    }

    /// Who said so, as an event tells it; remembered for the record of the release. Empty where nobody knows.
    fn heard(&mut self, deed: &str, step: i32, to: Option<i32>) -> String {
        let now = self.snap.now;
        let sub = self.sub();
        // Of another step, or of a deed that was not done: nobody is named for what he did not say.
        let word = sub.said_by.take().filter(|w| (w.deed.as_str(), w.step, w.to) == (deed, step, to));
        let Some(word) = word.filter(|w| !w.by.is_empty()) else { return String::new() };
        let by = format!(" by {}", word.by);
        if sub.words.len() >= MOST_WORDS {
            sub.words.remove(0);
        }
        sub.words.push(Word { time: Some(Time(whole_second_after(now))), ..word });
        by
    }

    fn all_done(&mut self) -> Turn {
        self.set_state(StepState::Completed);
        let sub = self.sub();
        sub.next_step_index = -1;
        sub.paused_step_index = None;
        sub.finalising_step = String::new();
        self.status.message = "Rollout has been completed and some closing work is being done".to_owned();
        self.set_progressing(reasons::FINALISING, "Rollout has been completed and some closing work is being done");
        self.event(reasons::FINALISING, "all steps are done; routes and workload are being put in order");
        Ok(())
    }

    /// A step without traffic takes traffic away from the canary; one with traffic keeps new pods out of the stable
    /// Service.
    fn before_upgrade(
        &mut self,
        scope: &Scope,
        traffic: Option<&Traffic>,
        tells_apart: bool,
        workload: &Workload,
    ) -> Turn {
        let Some(traffic) = traffic else { return self.clean_traffic(scope) };
        if !tells_apart {
            // The pods that the stable Service is restricted to are about to go.
            return self.restore_stable_service(scope);
        }
        let service = self.stable_service(traffic)?;
        if !traffic.has_canary_service() {
            return Ok(());
        }
        let stable = self.sub().stable_revision.clone();
        if workload.revision(&stable).is_none() {
            return Err(Wait::on(format!("waiting for the stable revision {stable} to be seen")));
        }
        let operations = services::pin(service, scope.kind.revision_label, &stable);
        if !operations.is_empty() {
            return self.patch(Purpose::PinStableService, service, "v1", "Service", operations);
        }
        self.settle("stable Service restricted to stable pods", Self::grace(traffic, false))
    }

    /// The last step with all pods does not wait for an approval that nobody asked for: nothing would be left to try.
    /// A blue-green release has its old set left, and waits.
    fn is_free_passage(&mut self, step: &ReleaseStep, index: i32, release: &Release) -> bool {
        index == release.count()
            && step.pause == Pause::Approval
            && self.sub().failed_step_index != Some(index)
            && step.is_all(self.style())
    }

    /// What to wait for after a step: one that was late or measured bad waits for a person, who has to know why.
    fn pause_of(&mut self, index: i32, step: &ReleaseStep) -> Pause {
        match step.pause {
            _ if self.sub().failed_step_index == Some(index) => Pause::Approval,
            Pause::Approval if self.is_promoted(index, step) => Pause::Seconds(0),
            pause => pause,
        }
    }

    fn wait_for_pause(&mut self, index: i32, step: &ReleaseStep, release: &Release) -> Turn {
        if self.is_free_passage(step, index, release) || self.sub().approved_step_index == Some(index) {
            return Ok(());
        }
        let place = format!("Rollout is in step({index}/{})", release.count());
        match self.pause_of(index, step) {
            Pause::Approval => Err(match self.verdict(index) {
                Some((reason, why)) => Wait::stall(
                    reason,
                    format!(
                        "{place}: {why}. Change the template, or set it back to roll back; to go on all the same, approve it"
                    ),
                ),
                None => Wait::on(format!("{place}, and you need manually confirm to enter the next step")),
            }),
            Pause::Seconds(seconds) => {
                let now = self.snap.now;
                let since = self.sub().last_update_time.as_ref().map_or(now, |t| t.0);
                let until = since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
                if until <= now {
                    return Ok(());
                }
                Err(Wait::until(format!("{place}, and wait duration({seconds} seconds) to enter the next step"), until))
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

/// The stored status says that a step is approved.
fn is_approved(status: &RolloutStatus) -> bool {
    let state = match (&status.canary_status, &status.blue_green_status) {
        (Some(sub), _) => &sub.current_step_state,
        (None, Some(sub)) => &sub.current_step_state,
        (None, None) => return false,
    };
    state == StepState::StepReady.as_str()
}

fn describe_strategy(index: i32, strategy: &Strategy) -> String {
    match (strategy.matches.len(), strategy.weight) {
        (0, Some(weight)) => format!("step {index}: {weight} % of requests go to the canary"),
        (0, None) => format!("step {index}: no requests are routed"),
        (1, _) => format!("step {index}: requests that match go to the canary"),
        (n, _) => format!("step {index}: requests that match one of {n} rules go to the canary"),
    }
}
