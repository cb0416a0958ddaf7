//! Taking requests away from the canary: routes and Services are put back, each when nothing refers to it any more.

use super::{
    machine::Machine,
    plan::{Effect, Purpose},
    release::{ReleaseStep, Scope, Traffic, owner_reference},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::StepState,
        object::{self, ObjectRef},
    },
    traffic::{routes, services},
    workload::Workload,
};

/// What gateways are given time for, where the stable Service is not restricted any more.
const ALL_PODS: &str = "stable Service selects all pods";

impl Machine<'_> {
    /// Takes traffic away from the canary while the release goes on.
    pub(super) fn clean_traffic(&mut self, scope: &Scope) -> Turn {
        // One settling at a time is remembered, so the only wait is the last one.
        self.unpin_stable_service(scope)?;
        self.restore_routes(scope)?;
        self.remove_canary_service(scope)
    }

    pub(super) fn restore_stable_service(&mut self, scope: &Scope) -> Turn {
        self.unpin_stable_service(scope)?;
        if let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service())
            && self.has_new_pods()
        {
            self.settle(ALL_PODS, Self::grace(traffic, false))?;
        }
        Ok(())
    }

    /// Scaling down, or whoever deletes pods, may make a step in place the whole: the Service that is restricted to pods of
    /// the stable version would have none left. It selects all of them before any more go.
    pub(super) fn open_stable_service(&mut self, scope: &Scope, workload: &Workload, step: &ReleaseStep) -> Turn {
        let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service()) else { return Ok(()) };
        let service = self.snap.stable_service.as_deref();
        let is_pinned = service.is_some_and(|service| !services::unpin(service).is_empty());
        let grace = Self::grace(traffic, false);
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

    fn unpin_stable_service(&mut self, scope: &Scope) -> Turn {
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

    /// Puts the routes back: first those that refer to others, then, when requests had time to follow, the others.
    pub(super) fn restore_routes(&mut self, scope: &Scope) -> Turn {
        let Some(traffic) = &scope.traffic else { return Ok(()) };
        let (definitions, mut routes): (Vec<_>, Vec<_>) =
            routes::plan_restore(&self.networks, &self.snap.engine)?.into_iter().partition(|w| w.is_definition);
        if let Some(ingress) = &self.ingress {
            routes.extend(ingress.plan_restore(&owner_reference(&self.snap.rollout))?);
        }
        if !routes.is_empty() {
            return self.effect(Effect::Routes { purpose: Purpose::RestoreRoutes, writes: routes, tried: Vec::new() });
        }
        if let Some(name) = self.canary_ingress_that_goes() {
            return Err(Wait::on(format!("waiting for Ingress {name} to go")));
        }
        if self.has_new_pods() || self.has_canary_endpoints(traffic) || !definitions.is_empty() {
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

    /// Also pods of a version that the workload's status does not count any more.
    fn has_canary_endpoints(&self, traffic: &Traffic) -> bool {
        let slices = self.snap.endpoint_slices.iter().map(|s| s.as_ref());
        self.own_canary_service().is_some()
            && !services::ready_endpoints(slices, &traffic.names.canary_service, |_| true).is_empty()
    }

    pub(super) fn remove_canary_service(&mut self, scope: &Scope) -> Turn {
        let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service()) else { return Ok(()) };
        let Some(service) = self.own_canary_service() else { return Ok(()) };
        if object::is_deleting(service) {
            return Err(Wait::on(format!("waiting for Service {} to go", traffic.names.canary_service)));
        }
        let target = ObjectRef::new("v1", "Service", object::namespace(service), &traffic.names.canary_service);
        let uid = object::uid(service).to_owned();
        self.effect(Effect::Delete { purpose: Purpose::DeleteCanaryService, target, uid, foreground: false })
    }
}
