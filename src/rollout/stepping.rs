//! During a release: the states of one step, one after the other.

use super::{
    clock::whole_second_after,
    machine::Machine,
    release::{Pause, Release, ReleaseStep, Scope},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{StepState, reasons},
        hooks::HookMoment,
        v1beta1::{RolloutStatus, Word},
    },
    traffic::Strategy,
    workload::Workload,
};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Words that a status keeps at most.
const MOST_WORDS: usize = 50;

impl Machine<'_> {
    /// Executes the state of the current step; `Ok` when it moved to another.
    pub(super) fn step(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
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
                    // A gateway that reports nothing may still answer by the routes from before.
                    let settling = (format!("routes of step {index}"), self.grace(traffic, release.proof.is_some()));
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
                if let (Err(wait), Some(traffic)) = (&pause, routed) {
                    if let Some(until) = wait.until {
                        self.look_again(until);
                    }
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
    pub(super) fn heard(&mut self, deed: &str, step: i32, to: Option<i32>) -> String {
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

    pub(super) fn all_done(&mut self) -> Turn {
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
