//! Letting go of a workload: the Rollout is disabled or deleted, or the workload is gone.

use serde_json::json;

use super::{
    ending::Ending,
    is_releasing,
    machine::Machine,
    plan::Purpose,
    release::{self, Scope, SpecError},
    snapshot::UnknownKind,
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{self, StepState, phases, reasons, types},
        keys, object,
        v1beta1::WorkloadRef,
    },
    traffic::routes::Missing,
    workload::{self, Move, Surroundings, Workload},
};

impl Machine<'_> {
    pub(super) fn terminate(&mut self, scope: Result<Scope, SpecError>) -> Turn {
        let held = self.snap.rollout.metadata.finalizers.iter().flatten().any(|f| f == keys::ROLLOUT_FINALIZER);
        if !held {
            return Ok(());
        }
        if self.status.phase == phases::PROGRESSING {
            self.begin_ending();
        }
        self.status.phase = phases::TERMINATING.to_owned();
        self.set_condition(types::TERMINATING, true, reasons::IN_TERMINATING, "Rollout is in terminating");
        match self.scope_to_leave(scope) {
            Ok(scope) => self.leave(Ending::Deleted, &scope)?,
            Err(wait) if is_releasing(&self.snap.rollout) => return Err(wait),
            // Nothing was ever changed for a spec that names nothing.
            Err(_) => {}
        }
        self.set_condition(types::TERMINATING, false, reasons::COMPLETED, "Rollout is in terminating");
        let finalizers: Vec<&String> =
            self.snap.rollout.metadata.finalizers.iter().flatten().filter(|f| *f != keys::ROLLOUT_FINALIZER).collect();
        self.patch_rollout(
            Purpose::RemoveFinalizer,
            json!({"op": "replace", "path": "/metadata/finalizers", "value": finalizers}),
        )
    }

    /// Takes what is ours off the workload that was named before.
    pub(super) fn let_go_of_former(&mut self) -> Turn {
        let reference = self.status.workload_ref.as_ref();
        let kind = reference.and_then(|r| workload::kind(object::group(&r.api_version), &r.kind));
        let Some((former, kind)) = self.snap.former_workload.as_ref().zip(kind) else { return Ok(()) };
        let surroundings = Surroundings { revisions: &self.snap.former_revisions, ..Surroundings::default() };
        let former = (kind.read)(kind, former, &surroundings);
        if former.mark().is_some() {
            // Its template may have changed since: nobody would open it any more.
            self.count_again(&former, &surroundings)?;
            let operations = kind.gate.release(&former, self.rollout_name(), false);
            if !operations.is_empty() {
                return self.patch_workload(Purpose::ResumeWorkload, &former, operations);
            }
        }
        self.take_marks_off(&former, true)
    }

    /// Before a workload rolls on without steps, pods of its older versions count as available again.
    pub(super) fn count_again(&mut self, workload: &Workload, surroundings: &Surroundings<'_>) -> Turn {
        match workload.kind.gate.count_again(workload, surroundings) {
            Some(Move::Write(change)) => self.change(Purpose::ReleaseWorkload, change),
            Some(Move::Wait { reason, .. }) => Err(Wait::on(reason)),
            Some(Move::Done | Move::Replace(_)) | None => Ok(()),
        }
    }

    pub(super) fn disable(&mut self, scope: &Scope) -> Turn {
        if self.status.phase == phases::PROGRESSING {
            self.begin_ending();
        }
        if self.status.phase == phases::PROGRESSING || self.status.phase == phases::DISABLING {
            self.status.phase = phases::DISABLING.to_owned();
            self.status.message = "Disabling rollout, release resources".to_owned();
        }
        // The switch may be on again after a crash between switching it on and recording that.
        let is_on = self.workload.as_ref().is_some_and(|w| w.mark().is_some() || w.is_switched_on());
        if self.status.phase != phases::DISABLED || (is_on && self.snap.rivals.is_empty()) {
            self.leave(Ending::Disabled, scope)?;
            self.close_record();
        }
        self.status.phase = phases::DISABLED.to_owned();
        self.status.message = "Rollout is disabled".to_owned();
        self.status.workload_ref = None;
        conditions::remove(&mut self.status.conditions, types::DEGRADED);
        Ok(())
    }

    /// What can be put in order: with a wrong spec and no release going on, the workload alone.
    pub(super) fn scope_to_leave(&self, scope: Result<Scope, SpecError>) -> Turn<Scope> {
        scope.or_else(|error| {
            if is_releasing(&self.snap.rollout) {
                return Err(error.into());
            }
            release::bare_scope(&self.snap.rollout).map_err(Wait::from)
        })
    }

    /// Winds up what this Rollout did. What another Rollout of the same workload does is none of its business.
    fn leave(&mut self, ending: Ending, scope: &Scope) -> Turn {
        if self.snap.rivals.is_empty() || self.canary.is_some() || is_releasing(&self.snap.rollout) {
            return self.finish(ending, scope);
        }
        Ok(())
    }

    /// After an ending that the workload survived with the new version: what runs now is stable.
    pub(super) fn close_record(&mut self) {
        let current = self.workload.as_ref().and_then(|w| w.current()).map(|r| r.hash.clone());
        if conditions::find(&self.status.conditions, types::PROGRESSING).is_some_and(|c| c.status == "True") {
            self.set_progressing(reasons::COMPLETED, "Rollout progressing has been canceled");
            self.event(reasons::RESTORED, "routes, Services and workload are what they are without the Rollout");
        }
        if self.status.canary_status.is_some() {
            self.set_state(StepState::Completed);
            let sub = self.sub();
            sub.paused_step_index = None;
            (sub.canary_replicas, sub.canary_ready_replicas) = (0, 0);
            if let Some(current) = current {
                sub.pod_template_hash.clone_from(&current);
                sub.stable_revision = current;
            }
        }
    }

    /// A release whose workload carries no mark and has no stable pods: it was made anew, or rolled out by other means.
    pub(super) fn is_another_workload(&mut self, workload: &Workload) -> bool {
        let stable = self.sub().stable_revision.clone();
        self.is_rolling() && workload.mark().is_none() && !workload.runs(&stable)
    }

    /// A release is going on and not being wound up.
    pub(super) fn is_rolling(&self) -> bool {
        !matches!(self.progressing_reason(), reasons::FINALISING | reasons::CANCELLING)
    }

    /// Another ending than the one that was going on, or the first: it begins at its first part.
    fn begin_ending(&mut self) {
        if let Some(sub) = &mut self.status.canary_status {
            sub.finalising_step = String::new();
            sub.settling = None;
        }
    }

    /// Ends a release whose workload is gone.
    pub(super) fn abandon(&mut self, scope: &Scope) -> Turn {
        const GONE: &str = "the workload of the release is gone";
        if self.status.phase == phases::PROGRESSING {
            if self.sub().message != GONE {
                self.begin_ending();
                self.sub().message = GONE.to_owned();
            }
            self.finish(Ending::WorkloadGone, scope)?;
            let (reason, what) = match &self.snap.workload {
                None => (reasons::WORKLOAD_NOT_FOUND, "the workload is gone"),
                Some(_) => (reasons::LATE_HOLD, "the workload was made anew, or rolled out by other means"),
            };
            self.warn(reason, format!("the release ends: {what}; routes and Services are put back"));
        }
        conditions::remove(&mut self.status.conditions, types::PROGRESSING);
        self.status.phase = phases::INITIAL.to_owned();
        self.status.canary_status = None;
        self.status.current_step_index = 0;
        self.status.current_step_state = String::new();
        Ok(())
    }

    pub(super) fn without_workload(&mut self, scope: &Scope) -> Turn {
        self.abandon(scope)?;
        let WorkloadRef { api_version, kind, .. } = &scope.workload;
        let is_served = !self.snap.unknown.iter().any(|u| (&u.api_version, &u.kind) == (api_version, kind));
        let why = if is_served {
            "does not exist; create it, or correct spec.workloadRef".to_owned()
        } else {
            format!(
                "cannot exist: the API server does not serve {api_version} {kind}; install its CRD, or correct spec.workloadRef"
            )
        };
        let message = format!("Workload Not Found: {} {why}", scope.workload_name());
        Err(Wait::stall(reasons::WORKLOAD_NOT_FOUND, message))
    }

    /// A release that OpenKruise Rollouts has begun is held by fields and marks that mean something else here: let go
    /// or wound up as they are, all old pods could go at once.
    pub(super) fn check_not_the_originals(&self) -> Turn {
        let Some(workload) = &self.snap.workload else { return Ok(()) };
        if object::annotation(workload, keys::CONTROL_INFO).is_none() {
            return Ok(());
        }
        let metadata = &self.snap.rollout.metadata;
        Err(Wait::stall(
            reasons::NOT_ADOPTED,
            format!(
                "OpenKruise Rollouts has begun to release {}, and nothing touches it until that is taken over: `tidegate adopt -n {} {}` \
                 says how, and does it with --apply",
                object::name(workload),
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default()
            ),
        ))
    }

    /// What may not be read is not taken for gone: a release stands still until it may be read again.
    pub(super) fn check_readable(&self) -> Turn {
        let rollout = &self.snap.rollout;
        if rollout.metadata.deletion_timestamp.is_some() && !is_releasing(rollout) {
            // There is little to put back, and whoever deletes it may be taking the controller away.
            return Ok(());
        }
        let forbidden = self.snap.unknown.iter().find_map(|unknown| match &unknown.why {
            Missing::Forbidden(why) => Some((unknown, why)),
            _ => None,
        });
        let Some((UnknownKind { api_version, kind, .. }, why)) = forbidden else { return Ok(()) };
        Err(Wait::stall(
            reasons::READ_REFUSED,
            format!(
                "the controller may not read {api_version} {kind} ({why}); grant it get, list, watch and patch: nothing is \
                 changed until then"
            ),
        ))
    }
}
