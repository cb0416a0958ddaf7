//! During a release: what a step asks of Services and routes.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};

use super::{
    machine::{Machine, is_ours},
    plan::{Effect, Purpose},
    pods::needed,
    release::{Pause, Release, ReleaseStep, Scope, Traffic, owner_reference},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{StepState, reasons},
        keys, object,
        v1beta1::OnStepFailure,
    },
    traffic::{
        Strategy,
        routes::{self, Context, RouteWrite},
        services,
    },
    workload::Workload,
};

impl<'a> Machine<'a> {
    /// Makes the routes what the step says, and gives the gateways time for it: until each has taken them, where it says
    /// so, and `seconds`.
    pub(super) fn route(
        &mut self,
        traffic: &Traffic,
        workload: &Workload,
        release: &Release,
        step: &ReleaseStep,
        (what, seconds): (&str, i64),
    ) -> Turn {
        self.avoid_refused(traffic, release, step)?;
        self.keep_routes(traffic, workload, release, step)?;
        self.wait_for_gateways(traffic, release, step, what)?;
        self.settle(what, seconds)
    }

    /// Makes the routes what the step says. The share is raised only when the canary's pods are ready endpoints.
    pub(super) fn keep_routes(
        &mut self,
        traffic: &Traffic,
        workload: &Workload,
        release: &Release,
        step: &ReleaseStep,
    ) -> Turn {
        self.keep_pin(traffic, workload, step)?;
        let stable = self.stable_service(traffic)?;
        let Some(new) = self.new_revision() else {
            return Err(Wait::on("waiting for the new version's revision to be seen"));
        };
        if traffic.has_canary_service() {
            self.ensure_canary_service(traffic, stable, release, workload.kind.revision_label, &new.hash)?;
        }
        let writes = self.plan_routes(traffic, release, &step.strategy)?;
        if writes.is_empty() {
            return Ok(());
        }
        // Requests are never sent where there is nobody, such as to the canary of a workload that was scaled to 0.
        let needed = needed(release, step.target(self.style(), workload.replicas)).max(i32::from(step.strategy.asks()));
        let slices = self.snap.endpoint_slices.iter().map(|s| s.as_ref());
        let service = &traffic.names.canary_service;
        let ready = services::ready_endpoints(slices, service, |pod| new.pods.contains(pod)).len();
        if i32::try_from(ready).unwrap_or(i32::MAX) < needed {
            return Err(self.wait_for_pods(
                &new.pods,
                format!(
                    "waiting for canary endpoints of Service {service}: {ready} of {needed} ready; its selector must \
                     select the canary pods"
                ),
            ));
        }
        // A gateway that hears of a Service or a subset and of the route to it at once may answer 503 until it knows it.
        let (definitions, routes): (Vec<_>, Vec<_>) = writes.into_iter().partition(|w| w.is_definition);
        if definitions.is_empty() {
            if self.is_first_route(traffic) {
                self.settle("the gateways learn where the canary is", Self::learning(traffic))?;
            }
            self.begin_routing();
            return self.effect(Effect::Routes { purpose: Purpose::RouteStep, writes: routes, tried: Vec::new() });
        }
        self.begin_routing();
        self.effect(Effect::Routes { purpose: Purpose::RouteStep, writes: definitions, tried: routes })
    }

    /// Sends every request to the new version, once all its pods are there.
    pub(super) fn route_all_to_new(&mut self, scope: &Scope, workload: &Workload) -> Turn {
        if workload.replicas == 0 {
            // Nobody is there to send them to.
            return Ok(());
        }
        if workload.kind.gate.is_at_most(workload, workload.replicas) {
            // Pods of both versions answer while its own controller replaces the old ones: these wait for nobody.
            return Ok(());
        }
        let release = self.release()?;
        let Some(traffic) = scope.traffic.as_ref().filter(|_| release.steps.iter().any(|s| !s.strategy.is_empty()))
        else {
            return Ok(());
        };
        let all = ReleaseStep {
            replicas: IntOrString::String("100%".to_owned()),
            strategy: Strategy { weight: Some(100), ..Strategy::default() },
            pause: Pause::Seconds(0),
            gates: Vec::new(),
            deadline: None,
            on_failure: OnStepFailure::Pause,
            analysis: None,
        };
        self.upgrade(scope, workload, &release, &all)?;
        let settling = ("all requests go to the new version", self.grace(traffic, true));
        self.route(traffic, workload, &release, &all, settling)
    }

    fn begin_routing(&mut self) {
        if self.sub().current_step_state == StepState::StepTrafficRouting.as_str() {
            self.sub().last_update_time = Some(Time(self.snap.now));
            self.sub().settling = None;
            self.status.proof = None;
        }
    }

    /// Whether something was made or defined for the routes to refer to, and some route was not written in this release
    /// yet. A route that somebody has put back in a step that is in place needs no wait: what it refers to is known since
    /// long.
    fn is_first_route(&mut self, traffic: &Traffic) -> bool {
        let networks = &self.snap.networks;
        let has_no_canary_ingress = self.snap.ingress.as_ref().is_some_and(|ingress| ingress.canary.is_err());
        self.sub().current_step_state != StepState::StepPaused.as_str()
            && (traffic.has_canary_service() || networks.iter().any(|n| n.is_definition()))
            && (has_no_canary_ingress || networks.iter().any(|n| !n.is_definition() && !n.is_changed()))
    }

    fn ensure_canary_service(
        &mut self,
        traffic: &Traffic,
        stable: &serde_json::Value,
        release: &Release,
        label: &str,
        revision: &str,
    ) -> Turn {
        let name = &traffic.names.canary_service;
        self.check_canary_service(traffic)?;
        let own = self.own_canary_service();
        if own.is_some_and(object::is_deleting) {
            return Err(Wait::on(format!("waiting for Service {name} to go, to make it anew")));
        }
        if own.is_some_and(|s| services::pinned_to(s, label) == Some(revision)) {
            return Ok(());
        }
        let owner = owner_reference(&self.snap.rollout);
        let object = services::canary_service(stable, name, (label, revision), release.patch.as_ref(), owner);
        self.effect(Effect::Apply { purpose: Purpose::CreateCanaryService, object })
    }

    pub(super) fn check_canary_service(&self, traffic: &Traffic) -> Turn {
        if traffic.has_canary_service() && self.own_canary_service().is_none() && self.snap.canary_service.is_some() {
            let name = &traffic.names.canary_service;
            return Err(Wait::stall(
                reasons::NAME_TAKEN,
                format!("Service {name} exists and does not belong to this Rollout; rename or delete it"),
            ));
        }
        Ok(())
    }

    /// The writes that are missing for a strategy to be in place.
    pub(super) fn plan_routes(
        &self,
        traffic: &Traffic,
        release: &Release,
        strategy: &Strategy,
    ) -> Turn<Vec<RouteWrite>> {
        self.check_bookkeeping(traffic)?;
        let context = self.context(traffic, release);
        let mut writes = routes::plan_step(&self.networks, &context, strategy)?;
        writes.extend(self.plan_ingress(&context, strategy)?);
        writes.retain(RouteWrite::is_needed);
        Ok(writes)
    }

    /// An object that still routes to our canary Service and says no more what it was before the release cannot be put
    /// back, nor be taken for the original of another step.
    pub(super) fn check_bookkeeping(&self, traffic: &Traffic) -> Turn {
        let canary = &traffic.names.canary_service;
        if !traffic.has_canary_service() || self.own_canary_service().is_none() {
            return Ok(());
        }
        let Some(network) = self.networks.iter().find(|n| !n.is_changed() && n.names(canary)) else { return Ok(()) };
        Err(Wait::stall(
            reasons::ROUTE_REFUSED,
            format!(
                "{}: somebody took its annotation {} away and left the routes to Service {canary}, so nobody knows what it \
                 was before the release; write it as it is without one (apply its manifest), and the release goes on",
                network.target(),
                keys::ORIGINAL_SPEC
            ),
        ))
    }

    /// Whether a strategy could be put in place.
    pub(super) fn check_routes(&self, traffic: &Traffic, release: &Release, strategy: &Strategy) -> Turn {
        let context = self.context(traffic, release);
        routes::check_step(&self.networks, &context, strategy)?;
        self.plan_ingress(&context, strategy).map(|_| ())
    }

    pub(super) fn context<'b>(&'b self, traffic: &'b Traffic, release: &'b Release) -> Context<'b> {
        Context { names: &traffic.names, patch: release.patch.as_ref(), engine: &self.snap.engine }
    }

    fn plan_ingress(&self, context: &Context<'_>, strategy: &Strategy) -> Turn<Option<RouteWrite>> {
        let Some(ingress) = &self.ingress else { return Ok(None) };
        if let Some(name) = self.canary_ingress_that_goes() {
            return Err(Wait::on(format!("waiting for Ingress {name} to go, to make it anew")));
        }
        Ok(ingress.plan_step(context, strategy, &owner_reference(&self.snap.rollout))?)
    }

    /// Name of the canary Ingress while it is being deleted: it routes until it is gone.
    pub(super) fn canary_ingress_that_goes(&self) -> Option<&'a str> {
        let canary = self.snap.ingress.as_ref()?.canary.as_deref().ok()?;
        (object::is_deleting(canary) && is_ours(self.snap, canary)).then(|| object::name(canary))
    }

    pub(super) fn stable_service(&self, traffic: &Traffic) -> Turn<&'a serde_json::Value> {
        let name = &traffic.names.stable_service;
        let service = self.snap.stable_service.as_deref().ok_or_else(|| {
            let text = format!("Service {name} does not exist; create it, or correct trafficRoutings[0].service");
            Wait::stall(reasons::SERVICE_NOT_FOUND, text)
        })?;
        let selector = object::at(service, &["spec", "selector"]).and_then(serde_json::Value::as_object);
        if selector.is_none_or(serde_json::Map::is_empty) {
            let text =
                format!("Service {name} has no selector, so stable and canary pods cannot be told apart; give it one");
            return Err(Wait::stall(reasons::SERVICE_NOT_FOUND, text));
        }
        Ok(service)
    }
}
