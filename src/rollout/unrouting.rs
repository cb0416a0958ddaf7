//! Taking requests away from the canary: routes and Services are put back, each when nothing refers to it any more.

use super::{
    machine::Machine,
    plan::{Effect, Purpose},
    release::{Scope, Traffic, owner_reference},
    turn::{Turn, Wait},
};
use crate::{
    api::object::{self, ObjectRef},
    traffic::{routes, services},
};

impl Machine<'_> {
    /// Takes traffic away from the canary while the release goes on.
    pub(super) fn clean_traffic(&mut self, scope: &Scope) -> Turn {
        // One settling at a time is remembered, so the only wait is the last one.
        self.unpin_stable_service(scope)?;
        self.restore_routes(scope)?;
        self.remove_canary_service(scope)
    }

    /// Puts the routes back: first those that refer to others, then, when requests had time to follow, the others.
    pub(super) fn restore_routes(&mut self, scope: &Scope) -> Turn {
        let Some(traffic) = &scope.traffic else { return Ok(()) };
        self.check_bookkeeping(traffic)?;
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
            self.settle("requests leave the canary", self.grace(traffic, true))?;
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
