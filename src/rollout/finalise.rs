//! Winding up: requests, Services and workload are put in order, one thing after the other, and nothing of ours stays.

use super::{
    ending::{END, Ending, Part},
    machine::Machine,
    plan::{Effect, Purpose},
    release::Scope,
    rolling::is_made_from,
    snapshot::Hold,
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{StepState, phases, reasons, types},
        object::{self, ObjectRef},
    },
    traffic::services,
    workload::{Style, Workload},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

impl Machine<'_> {
    /// Winds up whatever is there, for endings that may find no release going on.
    pub(super) fn finish(&mut self, ending: Ending, scope: &Scope) -> Turn {
        let workload = self.workload.clone();
        self.wind_up(ending, scope, workload.as_ref())?;
        if let Some(workload) = &workload {
            // What was made anew, or rolled out by other means, is not the release's to open, nor to wait for.
            if ending != Ending::WorkloadGone {
                self.resume_workload(ending, workload)?;
            }
            // Whoever goes on managing it needs the switch of the hold.
            let metadata = &self.snap.rollout.metadata;
            let lets_go = self.snap.rollout.spec.disabled || metadata.deletion_timestamp.is_some();
            self.take_marks_off(workload, lets_go)?;
        }
        self.keep_history(ending, scope)?;
        if let Some(sub) = &mut self.status.canary_status {
            sub.finalising_step = END.to_owned();
            sub.settling = None;
        }
        Ok(())
    }

    pub(super) fn finalise(&mut self, ending: Ending, scope: &Scope, workload: &Workload) -> Turn {
        if let Some(next) = self.template_changed_meanwhile(ending, workload)? {
            if next == Ending::Restart {
                self.check_one_version(scope, workload)?;
                if ending == Ending::Success {
                    self.adopt_released(workload);
                }
            }
            self.sub().finalising_step = String::new();
            return match next {
                Ending::Rollback => {
                    self.set_progressing(
                        reasons::CANCELLING,
                        "The workload has been rolled back and the rollout process will be canceled",
                    );
                    self.event(reasons::ROLLED_BACK, "workload has been rollback, then rollout is canceled");
                    self.note_rollback();
                    self.finalise(Ending::Rollback, scope, workload)
                }
                _ => {
                    self.set_progressing(reasons::INITIALIZING, "Workload is continuous release");
                    self.event(
                        reasons::RESTARTED,
                        "workload continuous publishing canaryRevision, then restart publishing",
                    );
                    let first = Ending::Restart.parts(scope.style).first();
                    self.sub().finalising_step = first.map(|part| part.as_str().to_owned()).unwrap_or_default();
                    self.rolling(scope, workload)
                }
            };
        }
        if self.sub().current_step_state == StepState::StepReady.as_str() {
            self.sub().paused_step_index = None;
            self.set_state(StepState::BeforeStepUpgrade);
            self.warn(
                reasons::APPROVAL_IGNORED,
                "an approval came while the release was being wound up; no step waits for one",
            );
        }
        self.wind_up(ending, scope, Some(workload))?;
        if ending == Ending::Restart {
            return Ok(());
        }
        // Whatever shut it again since must not stay: the hold lets a mark go only from what is released.
        self.resume_workload(ending, workload)?;
        self.take_marks_off(workload, false)?;
        self.keep_history(ending, scope)?;
        self.complete(ending, workload)
    }

    /// A template that was pushed while winding up starts a release of its own, or takes the old one back.
    fn template_changed_meanwhile(&mut self, ending: Ending, workload: &Workload) -> Turn<Option<Ending>> {
        let stable = self.sub().stable_revision.clone();
        Ok(match ending {
            Ending::Success if workload.is_at(&stable) && self.has_gone_back(workload) => None,
            Ending::Success if workload.is_at(&stable) => Some(Ending::Rollback),
            Ending::Success if !self.is_released(workload) => Some(Ending::Restart),
            Ending::Rollback if !workload.is_at(&stable) => Some(Ending::Restart),
            _ => None,
        })
    }

    /// Whether the workload still has the template that went through the steps. Any one sign will do: an API server
    /// that was upgraded meanwhile may show every template with new defaults, and a plan may be edited.
    fn is_released(&mut self, workload: &Workload) -> bool {
        let patch = self.release().ok().and_then(|r| r.patch.clone());
        let is_canarys = self.canary.as_ref().is_some_and(|c| is_made_from(c, workload, patch.as_ref()));
        // With the hold in force a new template takes this word away from the mark in the same write.
        let is_let_through = self.snap.hold == Hold::InForce && workload.mark().is_some_and(|mark| mark.released);
        is_canarys || is_let_through || self.is_of_release(workload)
    }

    /// A release that has gone through its steps made its version stable where most pods are of it already.
    fn adopt_released(&mut self, workload: &Workload) {
        let stable = self.sub().stable_revision.clone();
        let left = workload.revision(&stable).map_or(0, |r| r.replicas);
        let released = workload.revisions.iter().rev().find(|r| r.replicas > left && !r.is_present);
        if let Some(released) = released {
            self.sub().stable_revision.clone_from(&released.hash);
        }
    }

    /// In place, a version that was rolled back is let go of as by the rollback: the Service stays restricted until its last
    /// pod has gone.
    fn parts(&self, ending: Ending, scope: &Scope, workload: Option<&Workload>) -> &'static [Part] {
        let stable = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        let has_gone_back = !stable.is_empty() && workload.is_some_and(|workload| workload.is_at(stable));
        match ending {
            Ending::Disabled | Ending::Deleted if scope.style == Style::Partition && has_gone_back => {
                Ending::Rollback.parts(scope.style)
            }
            _ => ending.parts(scope.style),
        }
    }

    fn wind_up(&mut self, ending: Ending, scope: &Scope, workload: Option<&Workload>) -> Turn {
        let parts = self.parts(ending, scope, workload);
        let stored = self.status.canary_status.as_ref().map(|s| s.finalising_step.clone()).unwrap_or_default();
        let start = parts.iter().position(|p| p.as_str() == stored).unwrap_or(0);
        if parts.iter().take(start).any(|p| *p == Part::RestoreStableService) && !self.keeps_pin(ending, workload) {
            // A replica that had not heard yet may have restricted it once more, to pods that are about to go.
            self.unpin_stable_service(scope)?;
        }
        // With nothing of a release there, no record is started either.
        let is_recorded = self.status.canary_status.is_some() || self.canary.is_some();
        for part in parts.iter().skip(start) {
            if is_recorded && self.sub().finalising_step != part.as_str() {
                let now = self.snap.now;
                let sub = self.sub();
                sub.finalising_step = part.as_str().to_owned();
                sub.last_update_time = Some(Time(now));
                sub.settling = None;
            }
            self.status.message = format!("winding up: {}", part.as_str());
            match part {
                Part::RouteTrafficToNew => {
                    if let Some(workload) = workload {
                        self.route_all_to_new(scope, workload)?;
                    }
                }
                Part::RestoreStableService if self.keeps_pin(ending, workload) => {}
                Part::RestoreStableService => self.restore_stable_service(scope)?,
                Part::RouteTrafficToStable => {
                    self.make_room_in_stable(ending, scope, workload)?;
                    self.leave_shared(scope)?;
                    self.restore_routes(scope)?;
                }
                Part::RemoveCanaryService => self.remove_canary_service(scope)?,
                Part::ResumeWorkload => {
                    if let Some(workload) = workload {
                        self.resume_workload(ending, workload)?;
                    }
                }
                Part::ReleaseWorkloadControl => {
                    if !(ending == Ending::Restart && self.is_restarted(workload)) {
                        self.remove_canary(workload)?;
                    }
                    if let Some(workload) = workload {
                        self.tidy(workload)?;
                    }
                    self.unmark_kept_pods()?;
                }
            }
        }
        Ok(())
    }

    /// Where the canary's requests come back to pods that are too few, as after scaling up from zero, the workload is
    /// rolled to its template first: its own pods may be of a version that never becomes ready.
    fn make_room_in_stable(&mut self, ending: Ending, scope: &Scope, workload: Option<&Workload>) -> Turn {
        let goes_on = matches!(ending, Ending::Success | Ending::Disabled | Ending::Deleted);
        let is_served = self.canary.as_ref().is_some_and(|canary| canary.ready > 0);
        let Some(workload) = workload.filter(|_| scope.style == Style::Canary && goes_on && is_served) else {
            return Ok(());
        };
        // The Deployment's own count may be older than those of its ReplicaSets.
        let is_ready = workload.replicas == 0 || workload.revisions.iter().any(|r| r.ready > 0);
        if scope.traffic.is_none() || (workload.has_enough() && is_ready) {
            return Ok(());
        }
        self.resume_workload(ending, workload)?;
        Err(Wait::on(format!(
            "waiting for pods of {} to be available before requests go back to them",
            workload.title()
        )))
    }

    /// The extra Deployment is that of the newer template already: the status that says so could not be stored.
    fn is_restarted(&self, workload: Option<&Workload>) -> bool {
        let patch = self.release().ok().and_then(|r| r.patch.clone());
        let (Some(canary), Some(workload)) = (&self.canary, workload) else { return false };
        !object::is_deleting(canary.object()) && is_made_from(canary, workload, patch.as_ref())
    }

    /// Whether the version of the canary was rolled back, so that its pods may answer for no Service any more; or is
    /// released anew while those of the stable one still answer alone.
    fn keeps_pin(&self, ending: Ending, workload: Option<&Workload>) -> bool {
        let stable = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        let Some(workload) = workload else { return false };
        match ending {
            Ending::Disabled | Ending::Deleted => self.canary.is_some() && workload.is_at(stable),
            Ending::Restart => {
                let service = self.snap.stable_service.as_deref();
                let pinned = service.and_then(|service| services::pinned_to(service, workload.kind.revision_label));
                pinned == Some(stable) && workload.runs(stable)
            }
            _ => false,
        }
    }

    /// Lets the workload's own controller roll it to its template, and waits until it has.
    pub(super) fn resume_workload(&mut self, ending: Ending, workload: &Workload) -> Turn {
        if workload.mark().is_none()
            && (matches!(ending, Ending::Disabled | Ending::Deleted) || workload.is_rolled_out())
        {
            // Between releases `paused` is the user's own.
            return Ok(());
        }
        if matches!(ending, Ending::Disabled | Ending::Deleted) {
            self.count_again(workload, &self.snap.surroundings())?;
        }
        let stays_paused = ending == Ending::Rollback;
        let operations = workload.kind.gate.release(workload, self.rollout_name(), stays_paused);
        if !operations.is_empty() {
            return self.patch_workload(Purpose::ResumeWorkload, workload, operations);
        }
        if !workload.is_rolled_out() {
            let stuck = workload.kind.gate.stuck(workload, &self.snap.surroundings());
            if !stuck.is_empty() {
                return self.replace_pods(&stuck);
            }
            // Without counts: the Deployment tells them, and each would be one more write of ours.
            let trouble = workload.trouble.as_ref().map(|t| format!("; {t}")).unwrap_or_default();
            let message = format!("waiting for {} to roll out{trouble}", workload.title());
            let names = workload.current().map(|new| &new.pods);
            return Err(names.map_or_else(|| Wait::on(&message), |names| self.wait_for_pods(names, message.clone())));
        }
        Ok(())
    }

    /// Puts back what opening the workload changed in other objects.
    fn tidy(&mut self, workload: &Workload) -> Turn {
        match workload.kind.gate.tidy(workload, &self.snap.surroundings()) {
            Some(change) => self.change(Purpose::ReleaseWorkload, change),
            None => Ok(()),
        }
    }

    fn remove_canary(&mut self, workload: Option<&Workload>) -> Turn {
        let Some(canary) = &self.canary else { return Ok(()) };
        if let Some(workload) = workload
            && canary.ready > 0
            && !workload.has_enough()
        {
            // Without a routing step its pods answer for the Service like any other.
            return Err(Wait::on(format!(
                "waiting for pods of {} to be available before the canary goes",
                workload.title()
            )));
        }
        let canary = canary.object();
        if object::is_deleting(canary) {
            return Err(Wait::on("waiting for the canary Deployment and its pods to go"));
        }
        let target = ObjectRef::new("apps/v1", "Deployment", object::namespace(canary), object::name(canary));
        let uid = object::uid(canary).to_owned();
        // Its pods answer for every Service that selects them until they have stopped, so it has to stay until then.
        self.effect(Effect::Delete { purpose: Purpose::DeleteCanary, target, uid, foreground: true })
    }

    /// The release was rolled back by the controller.
    fn has_failed(&mut self) -> bool {
        self.sub().failed_step_index.is_some() && !self.sub().failed_revision.is_empty()
    }

    fn complete(&mut self, ending: Ending, workload: &Workload) -> Turn {
        let succeeded = ending == Ending::Success;
        let Some(current) = workload.current().map(|set| set.hash.clone()) else {
            return Err(Wait::on("waiting for the workload's revision to be seen"));
        };
        let message =
            if succeeded { "Rollout progressing has been completed" } else { "Rollout progressing has been canceled" };
        self.set_progressing(reasons::COMPLETED, message);
        // A cancelled release was taken back by a person, or because a step failed.
        let failure = Some(self.sub().message.clone()).filter(|_| !succeeded && self.has_failed());
        self.set_condition(
            types::SUCCEEDED,
            succeeded,
            failure.as_ref().map_or("", |_| self.failure_reason()),
            failure.as_deref().unwrap_or_default(),
        );
        self.event(reasons::COMPLETED, message);
        self.set_state(StepState::Completed);
        let sub = self.sub();
        if succeeded {
            sub.failed_revision.clear();
        }
        sub.finalising_step = END.to_owned();
        sub.settling = None;
        sub.paused_step_index = None;
        self.status.routed_step_index = None;
        self.status.refused_routes = None;
        self.status.proof = None;
        self.forget_rejected();
        let sub = self.sub();
        sub.observed_workload_generation = object::int(workload.object(), &["metadata", "generation"]);
        sub.canary_replicas = 0;
        sub.canary_ready_replicas = 0;
        sub.pod_template_hash.clone_from(&current);
        sub.stable_revision = current;
        self.status.phase = phases::HEALTHY.to_owned();
        self.status.message = message.to_owned();
        Ok(())
    }
}
