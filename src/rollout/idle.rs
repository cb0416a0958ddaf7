//! Between releases: notice that one was captured, and record what runs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    ending::Ending,
    machine::{Machine, is_releasing},
    plan::Purpose,
    release::{Release, Scope},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{self, StepState, phases, reasons, types},
        object,
        v1beta1::CanaryStatus,
    },
    workload::{Revision, Workload},
};

/// The oldest version that has ready pods, other than the present one.
fn serving(workload: &Workload) -> Option<&Revision> {
    workload.revisions.iter().find(|r| r.replicas > 0 && r.ready > 0 && !r.is_present)
}

impl Machine<'_> {
    pub(super) fn idle(&mut self, scope: &Scope, workload: &Workload) -> Turn {
        let recorded = self.status.canary_status.as_ref().map(|s| s.stable_revision.clone()).filter(|r| !r.is_empty());
        if self.canary.is_some() && workload.mark().is_none_or(|mark| mark.released) {
            // A release was begun and ended, and a crash kept each time that from the status.
            let is_at_stable = recorded.as_ref().is_some_and(|r| workload.is_at(r));
            self.finish(if is_at_stable { Ending::Rollback } else { Ending::Success }, scope)?;
        }
        if recorded.is_some() && workload.mark().is_none_or(|mark| mark.released) {
            self.take_back_late_writes(scope)?;
        }
        if let Some(mark) = workload.mark() {
            if !mark.released && workload.replicas > 0 {
                let release = self.release()?;
                self.start_release(workload, &release, "Rollout is in Progressing")?;
                return self.await_its_pods(workload);
            }
            self.become_healthy();
            if !mark.released {
                // Without pods there is nothing to release step by step. The hold lets go only of what is released.
                self.resume_workload(Ending::Success, workload)?;
            }
            if !workload.is_rolled_out() {
                return Err(Wait::on(format!("waiting for {} to roll out", workload.title())));
            }
            return self.take_marks_off(workload, false);
        }
        let current = workload.current().map(|set| set.hash.clone());
        match (recorded, current) {
            (_, None) => Err(Wait::on(format!("waiting for the first revision of {}", workload.title()))),
            (recorded, Some(current)) => {
                if recorded.as_ref().is_some_and(|r| *r != current) {
                    if workload.replicas > 0 {
                        let text = format!("revision {current} was rolled out without the Rollout's steps");
                        self.warn(reasons::LATE_HOLD, text);
                    }
                    self.status.canary_status = None;
                }
                self.record(workload, &current)
            }
        }
    }

    /// A replica that had not heard yet that the release has ended may have written its routes once more, or restricted the
    /// stable Service.
    fn take_back_late_writes(&mut self, scope: &Scope) -> Turn {
        self.unpin_stable_service(scope)?;
        if self.snap.is_left_routed || self.own_canary_service().is_some() {
            self.clean_traffic(scope)?;
        }
        Ok(())
    }

    fn become_healthy(&mut self) {
        if self.status.phase != phases::HEALTHY {
            self.status.phase = phases::HEALTHY.to_owned();
        }
    }

    /// Platforms take the first rollout of a workload for a finished release, so the record looks like one.
    fn record(&mut self, workload: &Workload, revision: &str) -> Turn {
        self.become_healthy();
        let release = self.release()?;
        let is_new = self.status.canary_status.is_none();
        let generation = object::int(workload.object(), &["metadata", "generation"]);
        if is_new {
            if !workload.is_rolled_out() && workload.revisions.iter().any(|r| !r.is_present && r.existing > 0) {
                self.warn(
                    reasons::LATE_HOLD,
                    format!(
                        "{} was rolling out revision {revision} when this Rollout first saw it, and goes on by itself; what \
                         changes next is released step by step",
                        workload.title()
                    ),
                );
            }
            *self.sub() = CanaryStatus {
                stable_revision: revision.to_owned(),
                canary_revision: revision.to_owned(),
                pod_template_hash: revision.to_owned(),
                current_step_index: release.count(),
                next_step_index: -1,
                current_step_state: StepState::Completed.as_str().to_owned(),
                rollout_hash: release.hash.clone(),
                ..CanaryStatus::default()
            };
        }
        let sub = self.sub();
        if sub.current_step_state != StepState::Completed.as_str() {
            // Somebody approved what has ended.
            sub.current_step_state = StepState::Completed.as_str().to_owned();
        }
        sub.observed_workload_generation = generation;
        // A release keeps its id after it has ended: platforms poll for both together.
        sub.observed_rollout_id = workload.rollout_id().unwrap_or(&sub.canary_revision).to_owned();
        // What was said while something was waited for is over.
        let last = conditions::find(&self.status.conditions, types::PROGRESSING);
        self.status.message = match last.filter(|c| c.reason == reasons::COMPLETED) {
            Some(condition) => condition.message.clone(),
            None => format!("workload {} {} is completed", workload.kind_name().to_lowercase(), workload.name()),
        };
        Ok(())
    }

    /// Whether a change of the template is rolling out that nobody held, while there still are pods to keep.
    pub(super) fn slipped_through(&self, workload: &Workload) -> bool {
        let recorded = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        workload.mark().is_none()
            && workload.replicas > 0
            && !workload.is_at(recorded)
            && !workload.is_rolled_out()
            && workload.runs(recorded)
    }

    /// A change came through without being held, or the hold was taken away: stop what is left of it.
    pub(super) fn hold_late(&mut self, workload: &Workload) -> Turn {
        self.warn(
            reasons::LATE_HOLD,
            format!(
                "the change of {} was not held in time and is stopped now; some pods may be new already",
                workload.title()
            ),
        );
        let operations = workload.kind.gate.shut(workload, self.rollout_name());
        self.patch_workload(Purpose::HoldWorkload, workload, operations)
    }

    pub(super) fn start_release(&mut self, workload: &Workload, release: &Release, message: &str) -> Turn {
        let recorded = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        let has_begun = self.status.phase == phases::PROGRESSING;
        let older = serving(workload);
        let stable = workload
            .revision(recorded)
            .filter(|set| set.replicas > 0)
            // A Rollout that was made while a version rolled out has recorded that one; if it never got ready, the
            // version before it is the one that serves.
            .filter(|set| has_begun || set.ready > 0 || older.is_none())
            .or(older.filter(|_| !has_begun))
            .or_else(|| workload.oldest_active())
            .map(|set| set.hash.clone());
        let Some(stable) = stable else {
            return Err(Wait::on(format!("waiting for pods of the stable revision of {}", workload.title())));
        };
        let revision = workload.template_name.clone();
        let failed_revision = self.status.canary_status.take().map(|s| s.failed_revision).unwrap_or_default();
        let failed_revision = Some(failed_revision).filter(|failed| *failed == revision).unwrap_or_default();
        self.status.canary_status = Some(CanaryStatus {
            observed_workload_generation: object::int(workload.object(), &["metadata", "generation"]),
            observed_rollout_id: workload.rollout_id().unwrap_or(&revision).to_owned(),
            rollout_hash: release.hash.clone(),
            stable_revision: stable,
            canary_revision: revision.clone(),
            current_step_index: 1,
            next_step_index: release.next(1),
            current_step_state: StepState::BeforeStepUpgrade.as_str().to_owned(),
            last_update_time: Some(Time(self.snap.now)),
            failed_revision,
            ..CanaryStatus::default()
        });
        self.status.routed_step_index = None;
        self.status.refused_routes = None;
        self.status.proof = None;
        self.status.hooks = None;
        self.forget_scripts();
        self.status.phase = phases::PROGRESSING.to_owned();
        self.status.message = message.to_owned();
        conditions::remove(&mut self.status.conditions, types::SUCCEEDED);
        self.set_progressing(reasons::INITIALIZING, message);
        self.event(
            reasons::INITIALIZING,
            format!(
                "release {revision} of {} begins, in {}",
                workload.title(),
                if release.count() == 1 { "1 step".to_owned() } else { format!("{} steps", release.count()) }
            ),
        );
        Ok(())
    }

    /// Where versions are counted by their pods, these are read once the status says that there is a release. All that are
    /// ready may be of the stable version before, but where some are missing nobody knows which.
    fn await_its_pods(&self, workload: &Workload) -> Turn {
        if !workload.kind.counts_pods || workload.ready >= workload.replicas || is_releasing(&self.snap.rollout) {
            return Ok(());
        }
        Err(Wait::on(format!("waiting for the pods of {} to be seen", workload.title())))
    }

    /// Before anything was opened or restricted for a release: where no pod of the version that was taken for the stable one
    /// is ready, the one whose pods are is it.
    pub(super) fn choose_stable_again(&mut self, workload: &Workload) {
        let sub = self.sub();
        let is_first = sub.current_step_index == 1
            && sub.current_step_state == StepState::BeforeStepUpgrade.as_str()
            && sub.settling.is_none()
            && workload.kind.counts_pods
            && workload.mark().is_some_and(|mark| mark.written().is_none());
        let serves = |hash: &str| workload.is_at(hash) || workload.revision(hash).is_some_and(|r| r.ready > 0);
        if !is_first || serves(&sub.stable_revision) {
            return;
        }
        if let Some(serving) = serving(workload) {
            sub.stable_revision.clone_from(&serving.hash);
        }
    }

    /// Takes our mark off the workload, and the switch of the hold, when the Rollout lets go of it.
    pub(super) fn take_marks_off(&mut self, workload: &Workload, lets_go: bool) -> Turn {
        let mut operations = workload.kind.gate.take_off(workload);
        if lets_go && workload.is_switched_on() {
            operations.push(json!({
                "op": "remove",
                "path": format!("/metadata/labels/{}", object::pointer_key(workload.kind.switch())),
            }));
        }
        if operations.is_empty() {
            return Ok(());
        }
        self.patch_workload(Purpose::ReleaseWorkload, workload, operations)
    }
}
