//! During a release: whether the gateways have taken a step's routes.
//!
//! A route that is refused may lose every request that it is for, so it does not stay: the routes of the last step that
//! was taken come back, or those from before the release. They stay until something about the step's own routes changes.

use serde_json::json;

use super::{
    machine::Machine,
    plan::{Effect, Purpose},
    release::{Release, ReleaseStep, Traffic, owner_reference},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::{StepState, reasons},
        object::digest,
        proof::ProofPhase,
        v1beta1::RefusedRoutes,
    },
    traffic::{
        acceptance::{Acceptance, UNDATED_SECONDS, acceptance},
        routes::{self, RouteWrite},
    },
};

impl Machine<'_> {
    /// Goes on when every gateway has taken the routes as they are now. `what` is what they are given time for.
    pub(super) fn wait_for_gateways(
        &mut self,
        traffic: &Traffic,
        release: &Release,
        step: &ReleaseStep,
        what: &str,
    ) -> Turn {
        let refusal = match acceptance(&self.networks, &self.snap.engine, self.snap.now)? {
            Acceptance::Taken => None,
            Acceptance::Waiting { message, until: Some(until) } => {
                return Err(Wait::until(format!("waiting for a gateway: {message}"), until));
            }
            Acceptance::Waiting { message, until: None } => {
                return Err(Wait::on(format!("waiting for a gateway: {message}")));
            }
            Acceptance::Undated { refusal } => {
                self.settle(what, UNDATED_SECONDS)?;
                refusal
            }
            Acceptance::Refused(message) => Some(message),
        };
        let Some(message) = refusal else {
            self.status.refused_routes = None;
            return Ok(());
        };
        self.take_back(traffic, release, step, message)
    }

    /// The routes of the present step are taken, by somebody's word: they come back if later ones are not.
    pub(super) fn note_routed(&mut self, release: &Release) {
        if release.proof.is_some() || self.networks.iter().any(|n| n.acceptance.is_some()) {
            self.status.routed_step_index = Some(self.sub().current_step_index);
        }
    }

    /// Whether no gateway has changed its mind about the routes of a step that is in place. They stay: what it was that it
    /// took back, such as a grant or a listener, is not theirs.
    pub(super) fn check_gateways(&self, traffic: Option<&Traffic>) -> Turn {
        if traffic.is_none() {
            return Ok(());
        }
        match acceptance(&self.networks, &self.snap.engine, self.snap.now)? {
            Acceptance::Refused(message) | Acceptance::Undated { refusal: Some(message) } => Err(Wait::stall(
                reasons::GATEWAY_REFUSED,
                format!("{message}. The step was in place before, and is not left until its gateway takes it again"),
            )),
            _ => Ok(()),
        }
    }

    /// The routes of a step lose requests: those before them come back.
    pub(super) fn take_back(
        &mut self,
        traffic: &Traffic,
        release: &Release,
        step: &ReleaseStep,
        message: String,
    ) -> Turn {
        let version = self.version(traffic, release, step)?;
        // Stored before anything is put back, so that what is put back is not tried again at once.
        self.status.refused_routes = Some(RefusedRoutes { version, message: message.clone() });
        self.look_again(self.snap.now);
        Err(self.refused(&message, false))
    }

    /// Tells what a step makes of the routes, and what proves it, from anything else.
    fn version(&self, traffic: &Traffic, release: &Release, step: &ReleaseStep) -> Turn<String> {
        let version = routes::version(&self.networks, &self.context(traffic, release), &step.strategy)?;
        let Some(proof) = &release.proof else { return Ok(version) };
        let ingress = self.ingress.as_ref().and_then(|ingress| ingress.stable.as_deref().ok());
        let ingress = ingress.map(|i| json!([i.get("spec"), i.pointer("/metadata/annotations")]));
        Ok(digest(&json!([version, format!("{proof:?}"), ingress])))
    }

    /// Keeps routes that were refused away, until something about them changes.
    pub(super) fn avoid_refused(&mut self, traffic: &Traffic, release: &Release, step: &ReleaseStep) -> Turn {
        let Some(refused_routes) = self.status.refused_routes.clone() else { return Ok(()) };
        if self.version(traffic, release, step)? != refused_routes.version {
            self.status.refused_routes = None;
            return Ok(());
        }
        let index = self.sub().current_step_index;
        let is_done = !self.is_routing_step();
        // Not those of a later step, from which a person jumped back: its pods may be gone.
        let last = self.status.routed_step_index.filter(|routed| *routed < index || is_done);
        let last = last.and_then(|routed| release.step(routed)).filter(|last| !last.strategy.is_empty());
        let (purpose, writes) = match last {
            Some(last) => (Purpose::RouteStep, self.plan_routes(traffic, release, &last.strategy)?),
            None => (Purpose::RestoreRoutes, self.plan_first_routes()?),
        };
        let are_back = writes.is_empty();
        if !are_back {
            self.write(Effect::Routes { purpose, writes, tried: Vec::new() });
        }
        Err(self.refused(&refused_routes.message, are_back))
    }

    /// The routes from before the release. What they refer to stays: the step may be tried again.
    fn plan_first_routes(&self) -> Turn<Vec<RouteWrite>> {
        let mut writes = routes::plan_restore(&self.networks, &self.snap.engine)?;
        writes.retain(|write| !write.is_definition);
        if let Some(ingress) = &self.ingress {
            writes.extend(ingress.plan_restore(&owner_reference(&self.snap.rollout))?);
        }
        writes.retain(RouteWrite::is_needed);
        Ok(writes)
    }

    fn is_routing_step(&mut self) -> bool {
        self.sub().current_step_state == StepState::StepTrafficRouting.as_str()
    }

    fn refused(&self, message: &str, are_back: bool) -> Wait {
        let is_unproven = self.status.proof.as_ref().is_some_and(|proof| proof.phase == ProofPhase::Unproven);
        Wait::stall(
            if is_unproven { reasons::TRAFFIC_UNPROVEN } else { reasons::GATEWAY_REFUSED },
            format!(
                "{message}. The routes before this step {}; mend the object, its script or the plan, or \
                 set spec.strategy.paused to true and back to false to try again",
                if are_back { "are back in place" } else { "come back" }
            ),
        )
    }
}
