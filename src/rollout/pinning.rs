//! The stable Service: restricted to pods of the stable version as long as there are such beside others, and selecting all
//! of them before and after.

use super::{
    machine::Machine,
    plan::Purpose,
    release::{ReleaseStep, Scope, Traffic},
    turn::{Turn, Wait},
};
use crate::{
    api::conditions::StepState,
    traffic::services,
    workload::{Style, Workload},
};

/// What gateways are given time for, where the stable Service is not restricted any more.
const ALL_PODS: &str = "stable Service selects all pods";

impl Machine<'_> {
    /// A step without traffic takes traffic away from the canary; one with traffic keeps new pods out of the stable
    /// Service.
    pub(super) fn before_upgrade(
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
        self.stable_service(traffic)?;
        if !traffic.has_canary_service() {
            return Ok(());
        }
        let stable = self.sub().stable_revision.clone();
        if workload.revision(&stable).is_none() {
            return Err(Wait::on(format!("waiting for the stable revision {stable} to be seen")));
        }
        self.pin_stable_service(traffic, workload, &stable)?;
        self.settle("stable Service restricted to stable pods", self.grace(traffic, false))
    }

    fn pin_stable_service(&mut self, traffic: &Traffic, workload: &Workload, stable: &str) -> Turn {
        let service = self.stable_service(traffic)?;
        let operations = services::pin(service, workload.kind.revision_label, stable);
        if operations.is_empty() {
            return Ok(());
        }
        self.patch(Purpose::PinStableService, service, "v1", "Service", operations)
    }

    /// Restricts it again in a later state of a step: after a workload that was scaled down so far that the step was the
    /// whole has grown, or after somebody wrote the selector anew. Not before enough stable pods are there to answer.
    pub(super) fn keep_pin(&mut self, traffic: &Traffic, workload: &Workload, step: &ReleaseStep) -> Turn {
        let stable = self.sub().stable_revision.clone();
        let is_pinned = |service| services::pinned_to(service, workload.kind.revision_label) == Some(stable.as_str());
        // Winding up frees it, and pods go then.
        if !self.is_rolling() || !traffic.has_canary_service() || is_pinned(self.stable_service(traffic)?) {
            return Ok(());
        }
        let style = self.style();
        // There may be more than the step asks for: pods that came when it was the whole, or of a version that was overtaken,
        // do not go back.
        let others = workload.revisions.iter().filter(|r| r.hash != stable).map(|r| r.existing).sum();
        let new = match style {
            Style::Partition => step.target(style, workload.replicas).max(others),
            // Nothing but what its own controller had brought when a release was taken for finished, and a crash kept that
            // from the status.
            Style::Canary => others,
            Style::BlueGreen => 0,
        };
        // A quarter may be missing, as a Deployment has it where its owner says nothing.
        let wanted = (workload.replicas - new).max(0);
        let needed = wanted - wanted / 4;
        let ready = workload.revision(&stable).map_or(0, |r| r.ready);
        if ready < needed {
            return Err(Wait::on(format!(
                "waiting for stable pods, before Service {} is restricted to them again: {ready} of {needed} ready",
                traffic.names.stable_service
            )));
        }
        self.pin_stable_service(traffic, workload, &stable)
    }

    pub(super) fn restore_stable_service(&mut self, scope: &Scope) -> Turn {
        self.unpin_stable_service(scope)?;
        if let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service())
            && self.has_new_pods()
        {
            self.settle(ALL_PODS, self.grace(traffic, false))?;
        }
        Ok(())
    }

    /// Scaling down, or whoever deletes pods, may make a step in place the whole: the Service that is restricted to pods of
    /// the stable version would have none left. It selects all of them before any more go.
    pub(super) fn open_stable_service(&mut self, scope: &Scope, workload: &Workload, step: &ReleaseStep) -> Turn {
        let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service()) else { return Ok(()) };
        let service = self.snap.stable_service.as_deref();
        let is_pinned = service.is_some_and(|service| !services::unpin(service).is_empty());
        let grace = self.grace(traffic, false);
        let is_known = self.sub().settling.as_ref().is_some_and(|settling| settling.what == ALL_PODS);
        if !is_pinned {
            return if is_known { self.settle(ALL_PODS, grace) } else { Ok(()) };
        }
        if step.strategy.is_empty() || !self.is_out_of_stable_pods(scope, workload, step) {
            return Ok(());
        }
        if !is_known && grace > 0 {
            // Stored before it is written, so that a crash does not shorten the time that the gateways get.
            self.set_state(StepState::StepUpgrade);
            self.look_again(self.snap.now);
            return self.settle(ALL_PODS, grace);
        }
        self.sub().settling = None;
        self.settle(ALL_PODS, grace).ok();
        self.unpin_stable_service(scope)
    }

    /// No pod of the stable version is to stay, or none is there and none comes back in the place of one that went.
    fn is_out_of_stable_pods(&mut self, scope: &Scope, workload: &Workload, step: &ReleaseStep) -> bool {
        let existing: i32 = workload.revisions.iter().map(|r| r.existing).sum();
        self.is_whole(scope, workload, step)
            && (step.target(scope.style, workload.replicas) >= workload.replicas || existing >= workload.replicas)
    }

    pub(super) fn unpin_stable_service(&mut self, scope: &Scope) -> Turn {
        if !scope.traffic.as_ref().is_some_and(|t| t.has_canary_service()) {
            return Ok(());
        }
        let Some(service) = self.snap.stable_service.as_deref() else { return Ok(()) };
        let operations = services::unpin(service);
        if !operations.is_empty() {
            return self.patch(Purpose::UnpinStableService, service, "v1", "Service", operations);
        }
        Ok(())
    }
}
