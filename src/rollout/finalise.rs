//! Winding up: requests, Services and workload are put in order, one thing after the other, and nothing of ours stays.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    idle::set_mark,
    machine::{Machine, Turn, Wait},
    plan::{Effect, Purpose},
    release::{Scope, digest},
    snapshot::Hold,
};
use crate::{
    api::{
        conditions::{StepState, phases, reasons, types},
        keys::InProgressing,
        object::{self, ObjectRef},
    },
    traffic::{routes, services},
    workload::deployment::{Deployment, canary_template},
};

/// Why a release is wound up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All steps are done.
    Success,
    /// The template went back to stable.
    Rollback,
    /// A newer template arrived: only routes and canary go.
    Restart,
    /// `spec.disabled`: the workload goes on natively.
    Disabled,
    /// The Rollout is deleted: the workload goes on natively.
    Deleted,
    /// The workload is gone.
    WorkloadGone,
}

/// One part of winding up; the names are those of `finalisingStep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    RestoreStableService,
    RouteTrafficToStable,
    RemoveCanaryService,
    ResumeWorkload,
    ReleaseWorkloadControl,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Part::RestoreStableService => "RestoreStableService",
            Part::RouteTrafficToStable => "FinalisingStepRouteTrafficToStable",
            Part::RemoveCanaryService => "RemoveCanaryService",
            Part::ResumeWorkload => "ResumeWorkload",
            Part::ReleaseWorkloadControl => "ReleaseWorkloadControl",
        }
    }
}

const END: &str = "END";

impl Ending {
    fn parts(self) -> &'static [Part] {
        use Part::*;
        match self {
            Ending::Success | Ending::Disabled | Ending::Deleted => &[
                RestoreStableService,
                RouteTrafficToStable,
                RemoveCanaryService,
                ResumeWorkload,
                ReleaseWorkloadControl,
            ],
            Ending::Rollback => &[
                RouteTrafficToStable,
                ResumeWorkload,
                ReleaseWorkloadControl,
                RestoreStableService,
                RemoveCanaryService,
            ],
            // The stable Service keeps its pin: the release goes on.
            Ending::Restart => &[RouteTrafficToStable, RemoveCanaryService, ReleaseWorkloadControl],
            Ending::WorkloadGone => {
                &[RestoreStableService, RouteTrafficToStable, RemoveCanaryService, ReleaseWorkloadControl]
            }
        }
    }
}

impl Machine<'_> {
    /// Winds up whatever is there, for endings that may find no release going on.
    pub(super) fn finish(&mut self, ending: Ending, scope: &Scope) -> Turn {
        let workload = self.workload();
        self.wind_up(ending, scope, workload.as_ref())?;
        if let Some(workload) = &workload {
            // Whoever goes on managing it needs the switch of the hold.
            let metadata = &self.snap.rollout.metadata;
            let lets_go = self.snap.rollout.spec.disabled || metadata.deletion_timestamp.is_some();
            self.take_marks_off(workload, lets_go)?;
        }
        if let Some(sub) = &mut self.status.canary_status {
            sub.finalising_step = END.to_owned();
            sub.settling = None;
        }
        Ok(())
    }

    pub(super) fn finalise(&mut self, ending: Ending, scope: &Scope, workload: &Deployment) -> Turn {
        if let Some(next) = self.template_changed_meanwhile(ending, workload)? {
            self.sub().finalising_step = String::new();
            return match next {
                Ending::Rollback => {
                    self.set_progressing(
                        reasons::CANCELLING,
                        "The workload has been rolled back and the rollout process will be canceled",
                    );
                    self.event(reasons::ROLLED_BACK, "workload has been rollback, then rollout is canceled");
                    self.finalise(Ending::Rollback, scope, workload)
                }
                _ => {
                    self.set_progressing(reasons::INITIALIZING, "Workload is continuous release");
                    self.event(
                        reasons::RESTARTED,
                        "workload continuous publishing canaryRevision, then restart publishing",
                    );
                    self.sub().finalising_step = Part::RouteTrafficToStable.as_str().to_owned();
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
        self.take_marks_off(workload, false)?;
        self.complete(ending, workload)
    }

    /// A template that was pushed while winding up starts a release of its own, or takes the old one back.
    fn template_changed_meanwhile(&mut self, ending: Ending, workload: &Deployment) -> Turn<Option<Ending>> {
        let stable = self.sub().stable_revision.clone();
        Ok(match ending {
            Ending::Success if workload.is_at(&stable) => Some(Ending::Rollback),
            Ending::Success if !self.is_released(workload) => Some(Ending::Restart),
            Ending::Rollback if !workload.is_at(&stable) => Some(Ending::Restart),
            _ => None,
        })
    }

    /// Whether the workload still has the template that went through the steps. Any one sign will do: an API server
    /// that was upgraded meanwhile may show every template with new defaults, and a plan may be edited.
    fn is_released(&mut self, workload: &Deployment) -> bool {
        let patch = self.release().ok().and_then(|r| r.patch);
        let is_canarys =
            self.canary.as_ref().is_some_and(|c| c.template() == canary_template(workload, patch.as_ref()));
        // With the hold in force a new template takes this word away from the mark in the same write.
        let is_let_through =
            self.snap.hold == Hold::InForce && workload.in_progressing().is_some_and(|mark| mark.released);
        is_canarys || is_let_through || digest(&workload.template()) == self.sub().canary_revision
    }

    fn wind_up(&mut self, ending: Ending, scope: &Scope, workload: Option<&Deployment>) -> Turn {
        let parts = ending.parts();
        let stored = self.status.canary_status.as_ref().map(|s| s.finalising_step.clone()).unwrap_or_default();
        let start = parts.iter().position(|p| p.as_str() == stored).unwrap_or(0);
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
                Part::RestoreStableService => self.restore_stable_service(scope)?,
                Part::RouteTrafficToStable => self.restore_routes(scope)?,
                Part::RemoveCanaryService => self.remove_canary_service(scope)?,
                Part::ResumeWorkload => {
                    if let Some(workload) = workload {
                        self.resume_workload(ending, workload)?;
                    }
                }
                Part::ReleaseWorkloadControl => self.remove_canary(workload)?,
            }
        }
        Ok(())
    }

    /// Takes traffic away from the canary while the release goes on.
    pub(super) fn clean_traffic(&mut self, scope: &Scope) -> Turn {
        // One settling at a time is remembered, so the only wait is the last one.
        self.unpin_stable_service(scope)?;
        self.restore_routes(scope)?;
        self.remove_canary_service(scope)
    }

    fn restore_stable_service(&mut self, scope: &Scope) -> Turn {
        self.unpin_stable_service(scope)?;
        if let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service())
            && self.canary.is_some()
        {
            self.settle("stable Service selects all pods", Self::grace(traffic, false))?;
        }
        Ok(())
    }

    fn unpin_stable_service(&mut self, scope: &Scope) -> Turn {
        if !scope.traffic.as_ref().is_some_and(|t| t.has_canary_service()) {
            return Ok(());
        }
        let Some(service) = self.snap.stable_service.as_deref() else { return Ok(()) };
        let operations = services::pin(service, None);
        if !operations.is_empty() {
            return self.patch(Purpose::UnpinStableService, service, "v1", "Service", operations);
        }
        Ok(())
    }

    /// Puts the routes back: first those that refer to others, then, when requests had time to follow, the others.
    fn restore_routes(&mut self, scope: &Scope) -> Turn {
        let Some(traffic) = &scope.traffic else { return Ok(()) };
        let (definitions, routes): (Vec<_>, Vec<_>) =
            routes::plan_restore(&self.snap.networks, &self.snap.engine)?.into_iter().partition(|w| w.is_definition);
        if !routes.is_empty() {
            return self.effect(Effect::Routes { purpose: Purpose::RestoreRoutes, writes: routes, tried: Vec::new() });
        }
        if self.canary.is_some() || !definitions.is_empty() {
            self.settle("requests leave the canary", Self::grace(traffic, true))?;
        }
        if !definitions.is_empty() {
            return self.effect(Effect::Routes {
                purpose: Purpose::RestoreRoutes,
                writes: definitions,
                tried: Vec::new(),
            });
        }
        Ok(())
    }

    fn remove_canary_service(&mut self, scope: &Scope) -> Turn {
        let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service()) else { return Ok(()) };
        let Some(service) = self.own_canary_service() else { return Ok(()) };
        if object::is_deleting(service) {
            return Err(Wait::on(format!("waiting for Service {} to go", traffic.names.canary_service)));
        }
        let target = ObjectRef::new("v1", "Service", object::namespace(service), &traffic.names.canary_service);
        let uid = object::uid(service).to_owned();
        self.effect(Effect::Delete { purpose: Purpose::DeleteCanaryService, target, uid, foreground: false })
    }

    /// Lets the workload's own controller roll it to its template, and waits until it has.
    pub(super) fn resume_workload(&mut self, ending: Ending, workload: &Deployment) -> Turn {
        let mark = match workload.in_progressing() {
            Some(mark) => mark,
            // Between releases `paused` is the user's own.
            None if matches!(ending, Ending::Disabled | Ending::Deleted) => return Ok(()),
            None if workload.is_rolled_out() => return Ok(()),
            None => InProgressing::default(),
        };
        // After a rollback there is nothing to roll; what the user had paused stays so.
        let opens = workload.is_paused() && !(ending == Ending::Rollback && mark.paused);
        if opens || !mark.released {
            let rollout_name = self.snap.rollout.metadata.name.clone().unwrap_or_default();
            let mut operations = vec![set_mark(workload, &InProgressing { rollout_name, released: true, ..mark })];
            if opens {
                operations.push(json!({"op": "replace", "path": "/spec/paused", "value": false}));
            }
            return self.patch(Purpose::ResumeWorkload, workload.object(), "apps/v1", "Deployment", operations);
        }
        if !workload.is_rolled_out() {
            // Without counts: the Deployment tells them, and each would be one more write of ours.
            let message = format!("waiting for Deployment {} to roll out", object::name(workload.object()));
            return Err(match workload.trouble() {
                Some(trouble) => Wait::on(format!("{message}; {trouble}")),
                None => Wait::on(message),
            });
        }
        Ok(())
    }

    fn remove_canary(&mut self, workload: Option<&Deployment>) -> Turn {
        let Some(canary) = &self.canary else { return Ok(()) };
        if let Some(workload) = workload
            && canary.ready() > 0
            && !workload.has_enough()
        {
            // Without a routing step its pods answer for the Service like any other.
            return Err(Wait::on(format!(
                "waiting for pods of Deployment {} to be available before the canary goes",
                object::name(workload.object())
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

    fn complete(&mut self, ending: Ending, workload: &Deployment) -> Turn {
        let succeeded = ending == Ending::Success;
        let Some(current) = workload.current().map(|set| set.hash.clone()) else {
            return Err(Wait::on("waiting for the workload's revision to be seen"));
        };
        let message =
            if succeeded { "Rollout progressing has been completed" } else { "Rollout progressing has been canceled" };
        self.set_progressing(reasons::COMPLETED, message);
        self.set_condition(types::SUCCEEDED, succeeded, "", "");
        self.event(reasons::COMPLETED, message);
        self.set_state(StepState::Completed);
        let sub = self.sub();
        sub.finalising_step = END.to_owned();
        sub.settling = None;
        sub.paused_step_index = None;
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
