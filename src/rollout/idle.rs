//! Between releases: notice that one was captured, and record what runs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    finalise::Ending,
    machine::{Machine, Turn, Wait},
    plan::Purpose,
    release::{Release, Scope, digest},
};
use crate::{
    api::{
        conditions::{self, StepState, phases, reasons, types},
        keys::{self, InProgressing},
        object,
        v1beta1::CanaryStatus,
    },
    workload::deployment::Deployment,
};

impl Machine<'_> {
    pub(super) fn idle(&mut self, _scope: &Scope, workload: &Deployment) -> Turn {
        let recorded = self.status.canary_status.as_ref().map(|s| s.stable_revision.clone()).filter(|r| !r.is_empty());
        if let Some(mark) = workload.in_progressing() {
            if !mark.released && workload.replicas() > 0 {
                let release = self.release()?;
                return self.start_release(workload, &release, "Rollout is in Progressing");
            }
            self.become_healthy();
            if !mark.released {
                // Without pods there is nothing to release step by step. The hold lets go only of what is released.
                self.resume_workload(Ending::Success, workload)?;
            }
            if !workload.is_rolled_out() {
                return Err(Wait::on(format!(
                    "waiting for Deployment {} to roll out",
                    object::name(workload.object())
                )));
            }
            return self.take_marks_off(workload, false);
        }
        let current = workload.current().map(|set| set.hash.clone());
        match (recorded, current) {
            (_, None) => Err(Wait::on(format!(
                "waiting for the first revision of Deployment {}",
                object::name(workload.object())
            ))),
            (recorded, Some(current)) => {
                if recorded.as_ref().is_some_and(|r| *r != current) {
                    if workload.replicas() > 0 {
                        let text = format!("revision {current} was rolled out without the Rollout's steps");
                        self.warn(reasons::LATE_HOLD, text);
                    }
                    self.status.canary_status = None;
                }
                self.record(workload, &current)
            }
        }
    }

    fn become_healthy(&mut self) {
        if self.status.phase != phases::HEALTHY {
            self.status.phase = phases::HEALTHY.to_owned();
        }
    }

    /// Platforms take the first rollout of a workload for a finished release, so the record looks like one.
    fn record(&mut self, workload: &Deployment, revision: &str) -> Turn {
        self.become_healthy();
        let release = self.release()?;
        let is_new = self.status.canary_status.is_none();
        let generation = object::int(workload.object(), &["metadata", "generation"]);
        if is_new {
            *self.sub() = CanaryStatus {
                stable_revision: revision.to_owned(),
                canary_revision: revision.to_owned(),
                pod_template_hash: revision.to_owned(),
                current_step_index: release.count(),
                next_step_index: -1,
                current_step_state: StepState::Completed.as_str().to_owned(),
                rollout_hash: release.hash,
                ..CanaryStatus::default()
            };
        }
        let sub = self.sub();
        sub.observed_workload_generation = generation;
        // A release keeps its id after it has ended: platforms poll for both together.
        sub.observed_rollout_id = workload.rollout_id().unwrap_or(&sub.canary_revision).to_owned();
        // What was said while something was waited for is over.
        let last = conditions::find(&self.status.conditions, types::PROGRESSING);
        self.status.message = match last.filter(|c| c.reason == reasons::COMPLETED) {
            Some(condition) => condition.message.clone(),
            None => format!("workload deployment {} is completed", object::name(workload.object())),
        };
        Ok(())
    }

    /// Whether a change of the template is rolling out that nobody held, while there still are pods to keep.
    pub(super) fn slipped_through(&self, workload: &Deployment) -> bool {
        let recorded = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        workload.in_progressing().is_none()
            && workload.replicas() > 0
            && !workload.is_at(recorded)
            && !workload.is_rolled_out()
            && workload.revision(recorded).is_some_and(|set| set.replicas > 0)
    }

    /// A change came through without being held, or the hold was taken away: stop what is left of it.
    pub(super) fn hold_late(&mut self, workload: &Deployment) -> Turn {
        self.warn(
            reasons::LATE_HOLD,
            format!(
                "the change of Deployment {} was not held in time and is stopped now; some pods may be new already",
                object::name(workload.object())
            ),
        );
        let mark = InProgressing {
            rollout_name: self.snap.rollout.metadata.name.clone().unwrap_or_default(),
            paused: workload.in_progressing().map_or(workload.is_paused(), |mark| mark.paused),
            released: false,
        };
        let operations = vec![set_mark(workload, &mark), json!({"op": "add", "path": "/spec/paused", "value": true})];
        self.patch(Purpose::HoldWorkload, workload.object(), "apps/v1", "Deployment", operations)
    }

    pub(super) fn start_release(&mut self, workload: &Deployment, release: &Release, message: &str) -> Turn {
        let recorded = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        let stable = workload
            .revision(recorded)
            .filter(|set| set.replicas > 0)
            .or_else(|| workload.oldest_active())
            .map(|set| set.hash.clone());
        let Some(stable) = stable else {
            return Err(Wait::on(format!(
                "waiting for pods of the stable revision of Deployment {}",
                object::name(workload.object())
            )));
        };
        let revision = digest(&workload.template());
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
            ..CanaryStatus::default()
        });
        self.status.phase = phases::PROGRESSING.to_owned();
        self.status.message = message.to_owned();
        conditions::remove(&mut self.status.conditions, types::SUCCEEDED);
        self.set_progressing(reasons::INITIALIZING, message);
        self.event(
            reasons::INITIALIZING,
            format!(
                "release {revision} of Deployment {} begins, in {}",
                object::name(workload.object()),
                if release.count() == 1 { "1 step".to_owned() } else { format!("{} steps", release.count()) }
            ),
        );
        Ok(())
    }

    /// Takes our mark off the workload (and the switch of the hold, when the Rollout lets go of it), and gives `paused`
    /// the value that the user wants.
    pub(super) fn take_marks_off(&mut self, workload: &Deployment, lets_go: bool) -> Turn {
        let mut operations = Vec::new();
        if let Some(mark) = workload.in_progressing() {
            operations.push(json!({
                "op": "remove",
                "path": format!("/metadata/annotations/{}", object::pointer_key(keys::IN_PROGRESSING)),
            }));
            if mark.paused && !workload.is_paused() {
                operations.push(json!({"op": "add", "path": "/spec/paused", "value": true}));
            }
        }
        if lets_go && object::label(workload.object(), keys::WORKLOAD_TYPE).is_some() {
            operations.push(json!({
                "op": "remove",
                "path": format!("/metadata/labels/{}", object::pointer_key(keys::WORKLOAD_TYPE)),
            }));
        }
        if operations.is_empty() {
            return Ok(());
        }
        self.patch(Purpose::ReleaseWorkload, workload.object(), "apps/v1", "Deployment", operations)
    }
}

/// The operation that puts a mark on a workload.
pub(super) fn set_mark(workload: &Deployment, mark: &InProgressing) -> serde_json::Value {
    let value = serde_json::to_string(mark).unwrap_or_default();
    if object::at(workload.object(), &["metadata", "annotations"]).is_some() {
        json!({
            "op": "add",
            "path": format!("/metadata/annotations/{}", object::pointer_key(keys::IN_PROGRESSING)),
            "value": value,
        })
    } else {
        json!({"op": "add", "path": "/metadata/annotations", "value": {keys::IN_PROGRESSING: value}})
    }
}
