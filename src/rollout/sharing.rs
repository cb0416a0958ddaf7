//! A Rollout's part in a TrafficRouting that it shares with others: a finalizer of its own on it while its new pods are
//! to get requests.
//!
//! It is taken once the first step's pods are ready, not when the release begins as in the original: a route to pods that
//! are not there yet loses requests. It is given back before anything is taken away from the new pods.

use serde_json::{Value, json};

use super::{
    machine::Machine,
    plan::Purpose,
    release::Scope,
    turn::{Turn, Wait},
};
use crate::api::{
    conditions::{phases, reasons},
    keys,
    object::{self, text},
};

const API_VERSION: &str = "rollouts.kruise.io/v1alpha1";
const KIND: &str = "TrafficRouting";

impl<'a> Machine<'a> {
    fn finalizer(&self) -> String {
        format!("{}{}", keys::PROGRESSING_FINALIZER, self.rollout_name())
    }

    /// Whether the TrafficRouting that is shared, if any, can be used.
    pub(super) fn check_shared(&self, scope: &Scope) -> Turn<Option<&'a Value>> {
        let Some(name) = &scope.shared else { return Ok(None) };
        let trouble = match &self.snap.traffic_routing {
            None => "does not exist; create it, or correct trafficRoutingRef",
            Some(routing) if object::is_deleting(routing) => "is being deleted; create it anew",
            Some(routing) => return Ok(Some(routing)),
        };
        Err(Wait::stall(reasons::TRAFFIC_ROUTING_NOT_FOUND, format!("TrafficRouting {name} {trouble}")))
    }

    /// Asks the TrafficRouting to route, and waits until it does.
    pub(super) fn take_shared(&mut self, scope: &Scope) -> Turn {
        let Some(routing) = self.check_shared(scope)? else { return Ok(()) };
        let finalizer = self.finalizer();
        let mut all = object::finalizers(routing);
        if !all.contains(&finalizer.as_str()) {
            if text(routing, &["status", "phase"]) == phases::FINALIZING {
                return Err(Wait::on(format!(
                    "waiting for TrafficRouting {} to put its routes back first",
                    object::name(routing)
                )));
            }
            all.push(&finalizer);
            let operation = json!({"op": "add", "path": "/metadata/finalizers", "value": all});
            return self.patch(Purpose::ShareRoutes, routing, API_VERSION, KIND, vec![operation]);
        }
        if text(routing, &["status", "phase"]) != phases::PROGRESSING {
            return Err(Wait::on(waits(routing, "route")));
        }
        Ok(())
    }

    /// Needs the TrafficRouting no more. Waits until its routes are put back when no other Rollout needs them.
    pub(super) fn leave_shared(&mut self, scope: &Scope) -> Turn {
        let Some(routing) = self.snap.traffic_routing.as_deref().filter(|_| scope.shared.is_some()) else {
            return Ok(());
        };
        let finalizer = self.finalizer();
        let all = object::finalizers(routing);
        if all.contains(&finalizer.as_str()) {
            let others: Vec<&str> = all.into_iter().filter(|f| *f != finalizer).collect();
            let operation = json!({"op": "replace", "path": "/metadata/finalizers", "value": others});
            return self.patch(Purpose::LeaveRoutes, routing, API_VERSION, KIND, vec![operation]);
        }
        let is_needed = all.iter().any(|f| f.starts_with(keys::PROGRESSING_FINALIZER));
        let is_routing = [phases::PROGRESSING, phases::FINALIZING].contains(&text(routing, &["status", "phase"]));
        if is_routing && !is_needed {
            return Err(Wait::on(waits(routing, "put its routes back")));
        }
        // With routes of its own the Rollout gives requests their time after those.
        if scope.traffic.is_none() && self.has_new_pods() {
            const SECONDS: i64 = 3;
            self.settle("requests leave the shared routes", SECONDS)?;
        }
        Ok(())
    }
}

fn waits(routing: &Value, what: &str) -> String {
    let says = text(routing, &["status", "message"]);
    let says = if says.is_empty() { String::new() } else { format!("; it says: {says}") };
    format!("waiting for TrafficRouting {} to {what}{says}", object::name(routing))
}
