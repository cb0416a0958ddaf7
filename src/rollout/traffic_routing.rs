//! What a TrafficRouting does: while a Rollout needs it, the objects that it names route by its strategy; when the last
//! has left, they are what they were. Pure, as every decision.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    clock::whole_second_after,
    plan::{Effect, Event, Plan, Purpose},
    release::{self, Traffic},
    scripts::{Routers, Trial},
};
use crate::{
    api::{
        GROUP,
        conditions::{phases, reasons},
        keys,
        object::{self, ObjectRef},
        v1alpha1::{TrafficRouting, TrafficRoutingStatus},
        v1beta1::{RefusedRoutes, Settling},
    },
    lua::Engine,
    traffic::{
        Strategy,
        acceptance::{Acceptance, UNDATED_SECONDS, acceptance},
        ingress::Ingress,
        routes::{self, Context, Network, RouteError, RouteWrite},
    },
};

/// Everything that a decision about a TrafficRouting may read.
#[derive(Clone)]
pub struct RoutingSnapshot {
    /// The moment of the decision.
    pub now: Timestamp,
    /// The TrafficRouting itself.
    pub routing: TrafficRouting,
    /// Names of the Rollouts that name it.
    pub rollouts: Vec<String>,
    /// The Service.
    pub service: Option<Arc<Value>>,
    /// The objects that route, with their scripts.
    pub networks: Vec<Network>,
    /// The Ingress, if one beside it routes.
    pub ingress: Option<Ingress>,
    /// Runs scripts.
    pub engine: Engine,
}

impl RoutingSnapshot {
    /// Whether a Rollout needs its routes.
    pub fn is_needed(&self) -> bool {
        let finalizers = self.routing.metadata.finalizers.as_deref().unwrap_or_default();
        finalizers.iter().any(|f| f.starts_with(keys::PROGRESSING_FINALIZER))
    }
}

/// The object's reference as other objects and writes name it.
pub fn reference(routing: &TrafficRouting) -> ObjectRef {
    let metadata = &routing.metadata;
    ObjectRef::new(
        &format!("{GROUP}/v1alpha1"),
        "TrafficRouting",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Why a pass ends before everything is done.
enum Stop {
    /// Something is written; what follows is decided from what the cluster says then.
    Write,
    /// Something has to happen first.
    Wait(String),
    /// Time has to pass.
    Until(String, Timestamp),
    /// A person must mend something.
    Trouble(&'static str, String),
}

impl From<RouteError> for Stop {
    fn from(error: RouteError) -> Stop {
        Stop::Trouble(error.reason, error.message)
    }
}

type Turn<T = ()> = Result<T, Stop>;

struct Pass<'a> {
    snap: &'a RoutingSnapshot,
    /// Those of the snapshot, with the texts of scripts that serve.
    networks: Vec<Network>,
    ingress: Option<Ingress>,
    status: TrafficRoutingStatus,
    effects: Vec<Effect>,
    events: Vec<Event>,
}

/// Decides what to do next. Total: whatever is wrong becomes the status' message.
pub fn decide_routing(snapshot: &RoutingSnapshot) -> Plan<TrafficRoutingStatus> {
    let before = snapshot.routing.status.clone().unwrap_or_default();
    let mut pass = Pass {
        snap: snapshot,
        networks: snapshot.networks.clone(),
        ingress: snapshot.ingress.clone(),
        status: before.clone(),
        effects: Vec::new(),
        events: Vec::new(),
    };
    pass.status.observed_generation = snapshot.routing.metadata.generation;
    let mut requeue = None;
    match pass.run() {
        Ok(()) | Err(Stop::Write) => {}
        Err(Stop::Wait(message)) => pass.status.message = message,
        Err(Stop::Until(message, until)) => {
            pass.status.message = message;
            requeue = Some(until);
        }
        Err(Stop::Trouble(reason, message)) => {
            // The same trouble again is no news.
            if before.message != message {
                pass.events.push(Event { is_warning: true, reason, message: message.clone() });
            }
            pass.status.message = message;
            // What was refused is put back in a pass of its own.
            if pass.status.refused_routes.is_some() && pass.status.refused_routes != before.refused_routes {
                requeue = Some(snapshot.now);
            }
        }
    }
    Plan {
        effects: pass.effects,
        status: pass.status,
        events: pass.events,
        requeue,
        asks: Vec::new(),
        calls: Vec::new(),
        has_listeners: false,
    }
}

impl Pass<'_> {
    fn finalizers(&self) -> Vec<String> {
        self.snap.routing.metadata.finalizers.clone().unwrap_or_default()
    }

    fn run(&mut self) -> Turn {
        let is_going = self.snap.routing.metadata.deletion_timestamp.is_some();
        let is_held = self.finalizers().iter().any(|f| f == keys::TRAFFIC_ROUTING_FINALIZER);
        if !is_going && !is_held {
            // Until it is in place nothing may be changed that would have to be put back.
            let mut all = self.finalizers();
            all.push(keys::TRAFFIC_ROUTING_FINALIZER.to_owned());
            return self.set_finalizers(Purpose::AddFinalizer, all);
        }
        // D-41: a Rollout that is gone, or that names another TrafficRouting now, will never take its finalizer back.
        let (gone, rest): (Vec<_>, Vec<_>) = self.finalizers().into_iter().partition(|finalizer| {
            let rollout = finalizer.strip_prefix(keys::PROGRESSING_FINALIZER);
            rollout.is_some_and(|rollout| !self.snap.rollouts.iter().any(|known| known == rollout))
        });
        if !gone.is_empty() {
            return self.set_finalizers(Purpose::LeaveRoutes, rest);
        }
        let traffic = release::routing_traffic(&self.snap.routing)
            .map_err(|error| Stop::Trouble(reasons::INVALID_SPEC, error.to_string()));
        if is_going {
            return self.terminate(traffic, is_held, rest);
        }
        let traffic = traffic?;
        if rest.iter().any(|f| f.starts_with(keys::PROGRESSING_FINALIZER)) {
            return self.progress(&traffic);
        }
        if self.is_routing() {
            self.enter(phases::FINALIZING, "TrafficRouting is Finalizing");
            self.restore(Some(&traffic))?;
            // The next time begins with the texts of then.
            self.status.scripts.iter_mut().for_each(|script| script.rejected = None);
            self.event(reasons::RESTORED, "no Rollout needs the routes any more; they are what they were");
        } else {
            if self.status.phase.is_empty() {
                self.enter(phases::INITIAL, "TrafficRouting is Initializing");
            }
            self.check(&traffic)?;
        }
        self.enter(phases::HEALTHY, "TrafficRouting is Healthy");
        Ok(())
    }

    /// D-41: our finalizer goes when everything is put back, and not before.
    fn terminate(&mut self, traffic: Turn<Traffic>, is_held: bool, finalizers: Vec<String>) -> Turn {
        if !is_held {
            return Ok(());
        }
        self.enter(phases::TERMINATING, "TrafficRouting is Terminating");
        match traffic {
            Ok(traffic) => self.restore(Some(&traffic))?,
            Err(stop) if self.is_routing() => return Err(stop),
            // Nothing was ever changed for a spec that names nothing.
            Err(_) => {}
        }
        let others = finalizers.into_iter().filter(|f| f != keys::TRAFFIC_ROUTING_FINALIZER).collect();
        self.set_finalizers(Purpose::RemoveFinalizer, others)
    }

    fn progress(&mut self, traffic: &Traffic) -> Turn {
        self.choose_scripts(traffic)?;
        self.check(traffic)?;
        self.avoid_refused(traffic)?;
        let writes = self.plan(traffic)?;
        let (definitions, routes): (Vec<_>, Vec<_>) =
            writes.into_iter().filter(RouteWrite::is_needed).partition(|w| w.is_definition);
        if !definitions.is_empty() {
            return self.write(Purpose::RouteStep, definitions, routes);
        }
        if !routes.is_empty() {
            let networks = &self.networks;
            let is_first = networks.iter().any(Network::is_definition)
                && networks.iter().any(|n| !n.is_definition() && !n.is_changed());
            if is_first {
                self.settle("the gateways learn the canary's subset", traffic)?;
            }
            return self.write(Purpose::RouteStep, routes, Vec::new());
        }
        self.wait_for_gateways(traffic)?;
        if self.status.phase != phases::PROGRESSING {
            self.event(reasons::TRAFFIC_ROUTED, "the routes are changed for the Rollouts that need them");
        }
        self.status.settling = None;
        self.enter(phases::PROGRESSING, "TrafficRouting is Progressing");
        Ok(())
    }

    /// Chooses the text of each object's script for this pass: while routes are changed, the one that served until now unless
    /// another one has shown that it works.
    fn choose_scripts(&mut self, traffic: &Traffic) -> Turn {
        let strategy = self.strategy()?;
        let trial = Trial {
            context: Context { names: &traffic.names, patch: None, engine: &self.snap.engine },
            strategies: Some(&strategy).filter(|s| !s.is_empty()).into_iter().collect(),
            owner: self.owner(),
        };
        let known = std::mem::take(&mut self.status.scripts);
        let known = if self.is_routing() { known } else { Vec::new() };
        let routers = Routers { networks: &mut self.networks, ingress: self.ingress.as_mut() };
        let (serving, events) = routers.choose(&known, &trial);
        self.status.scripts = serving;
        for (reason, message) in events {
            self.events.push(Event { is_warning: reason == reasons::SCRIPT_REJECTED, reason, message });
        }
        Ok(())
    }

    /// Goes on when every gateway has taken the routes as they are now.
    fn wait_for_gateways(&mut self, traffic: &Traffic) -> Turn {
        let refusal = match acceptance(&self.networks, &self.snap.engine, self.snap.now)? {
            Acceptance::Taken => None,
            Acceptance::Waiting { message, until: Some(until) } => {
                return Err(Stop::Until(format!("waiting for a gateway: {message}"), until));
            }
            Acceptance::Waiting { message, until: None } => {
                return Err(Stop::Wait(format!("waiting for a gateway: {message}")));
            }
            Acceptance::Undated { refusal } => {
                if self.status.phase != phases::PROGRESSING {
                    self.settle_for("what the gateways say is about the routes as they are now", UNDATED_SECONDS)?;
                }
                refusal
            }
            Acceptance::Refused(message) => Some(message),
        };
        let Some(message) = refusal else {
            self.status.refused_routes = None;
            return Ok(());
        };
        // Stored before anything is put back, so that what is put back is not tried again at once.
        self.status.refused_routes = Some(RefusedRoutes { version: self.version(traffic)?, message: message.clone() });
        self.status.settling = None;
        // Not routed: the Rollouts that share it have to wait.
        phases::INITIAL.clone_into(&mut self.status.phase);
        Err(refused(&message, "become what they were"))
    }

    /// Keeps routes that were refused away, until something about them changes: the routes are as before.
    fn avoid_refused(&mut self, traffic: &Traffic) -> Turn {
        let Some(known) = self.status.refused_routes.clone() else { return Ok(()) };
        if self.version(traffic)? != known.version {
            self.status.refused_routes = None;
            return Ok(());
        }
        match self.restore(Some(traffic)) {
            Ok(()) => Err(refused(&known.message, "are as before")),
            Err(stop) => Err(stop),
        }
    }

    fn version(&self, traffic: &Traffic) -> Turn<String> {
        let context = Context { names: &traffic.names, patch: None, engine: &self.snap.engine };
        Ok(routes::version(&self.networks, &context, &self.strategy()?)?)
    }

    fn strategy(&self) -> Turn<Strategy> {
        Strategy::from_traffic_routing(&self.snap.routing.spec.strategy)
            .map_err(|e| Stop::Trouble(reasons::INVALID_SPEC, format!("spec.strategy: {e}")))
    }

    /// Finds out whether routing could begin.
    fn check(&self, traffic: &Traffic) -> Turn {
        if self.snap.service.is_none() {
            let name = &traffic.names.stable_service;
            return Err(Stop::Trouble(
                reasons::SERVICE_NOT_FOUND,
                format!("Service {name} does not exist; create it, or correct spec.objectRef[0].service"),
            ));
        }
        self.plan(traffic).map(|_| ())
    }

    fn plan(&self, traffic: &Traffic) -> Turn<Vec<RouteWrite>> {
        let strategy = self.strategy()?;
        if strategy.is_empty() {
            return Ok(Vec::new());
        }
        let context = Context { names: &traffic.names, patch: None, engine: &self.snap.engine };
        let mut writes = routes::plan_step(&self.networks, &context, &strategy)?;
        if let Some(ingress) = &self.ingress {
            writes.extend(ingress.plan_step(&context, &strategy, &self.owner())?);
        }
        Ok(writes)
    }

    fn restore(&mut self, traffic: Option<&Traffic>) -> Turn {
        let (definitions, mut routes): (Vec<_>, Vec<_>) =
            routes::plan_restore(&self.networks, &self.snap.engine)?.into_iter().partition(|w| w.is_definition);
        if let Some(ingress) = &self.ingress {
            routes.extend(ingress.plan_restore(&self.owner())?);
        }
        if !routes.is_empty() {
            return self.write(Purpose::RestoreRoutes, routes, Vec::new());
        }
        let going = self.ingress.as_ref().and_then(|i| i.canary.as_deref().ok()).filter(|c| {
            object::is_deleting(c) && object::controller_uid(c) == self.snap.routing.metadata.uid.as_deref()
        });
        if let Some(canary) = going {
            return Err(Stop::Wait(format!("waiting for Ingress {} to go", object::name(canary))));
        }
        if !definitions.is_empty() {
            if let Some(traffic) = traffic {
                self.settle("requests leave the canary", traffic)?;
            }
            return self.write(Purpose::RestoreRoutes, definitions, Vec::new());
        }
        self.status.settling = None;
        Ok(())
    }

    /// Whether something may have to be put back.
    fn is_routing(&self) -> bool {
        let canary = self.ingress.as_ref().and_then(|i| i.canary.as_deref().ok());
        [phases::PROGRESSING, phases::FINALIZING].contains(&self.status.phase.as_str())
            || self.networks.iter().any(Network::is_changed)
            || canary.is_some_and(|c| object::controller_uid(c) == self.snap.routing.metadata.uid.as_deref())
    }

    /// Waits until a change, first seen in place in some earlier pass, had time to reach the data planes.
    fn settle(&mut self, what: &str, traffic: &Traffic) -> Turn {
        let seconds = traffic.grace.unwrap_or_else(|| routes::grace(&self.networks, self.ingress.as_ref()));
        self.settle_for(what, seconds)
    }

    fn settle_for(&mut self, what: &str, seconds: i64) -> Turn {
        let now = self.snap.now;
        let since = match &self.status.settling {
            Some(Settling { what: known, since: Some(Time(since)) }) if known == what => *since,
            _ => whole_second_after(now),
        };
        self.status.settling = Some(Settling { what: what.to_owned(), since: Some(Time(since)) });
        let until = since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        if until > now {
            let message = format!("giving the gateways {seconds} seconds after a change ({what})");
            return Err(Stop::Until(message, until));
        }
        Ok(())
    }

    fn enter(&mut self, phase: &str, message: &str) {
        phase.clone_into(&mut self.status.phase);
        message.clone_into(&mut self.status.message);
    }

    fn event(&mut self, reason: &'static str, message: &str) {
        self.events.push(Event { is_warning: false, reason, message: message.to_owned() });
    }

    fn owner(&self) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "TrafficRouting",
            "name": self.snap.routing.metadata.name.clone().unwrap_or_default(),
            "uid": self.snap.routing.metadata.uid.clone().unwrap_or_default(),
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }

    fn write<T>(&mut self, purpose: Purpose, writes: Vec<RouteWrite>, tried: Vec<RouteWrite>) -> Turn<T> {
        self.effects.push(Effect::Routes { purpose, writes, tried });
        Err(Stop::Write)
    }

    fn set_finalizers<T>(&mut self, purpose: Purpose, all: Vec<String>) -> Turn<T> {
        self.effects.push(Effect::Patch {
            purpose,
            target: reference(&self.snap.routing),
            resource_version: self.snap.routing.metadata.resource_version.clone().unwrap_or_default(),
            operations: vec![json!({"op": "add", "path": "/metadata/finalizers", "value": all})],
        });
        Err(Stop::Write)
    }
}

fn refused(message: &str, the_routes: &str) -> Stop {
    let text = format!("{message}. The routes {the_routes}; mend the object, its script or spec.strategy");
    Stop::Trouble(reasons::GATEWAY_REFUSED, text)
}
