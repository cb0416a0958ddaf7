//! TrafficRoutings as objects that are decided about, and what wakes them.

use jiff::Timestamp;
use tracing::Span;

use super::{
    interests::Interests,
    pass::{Reconciler, Subject, read},
    queue::Key,
};
use crate::{
    api::{
        object::ObjectRef,
        v1alpha1::{TrafficRouting, TrafficRoutingStatus},
    },
    apply::Reach,
    gather::{Objects, collect::TRAFFIC_ROUTING, collect_routing},
    rollout::{
        plan::{Event, Plan},
        traffic_routing::{RoutingSnapshot, decide_routing},
    },
    telemetry::logs,
};

impl Subject for TrafficRouting {
    type Snapshot = RoutingSnapshot;

    const KIND: (&'static str, &'static str) = TRAFFIC_ROUTING;

    fn span(key: &Key) -> Span {
        logs::routing_span(&key.0, &key.1)
    }

    fn collect(self, reconciler: &Reconciler, now: Timestamp) -> Option<RoutingSnapshot> {
        collect_routing(&reconciler.cache, self, now, &reconciler.engine, &reconciler.settings)
    }

    fn decider(_reconciler: &Reconciler) -> impl Fn(&RoutingSnapshot) -> Plan<TrafficRoutingStatus> + Send + 'static {
        decide_routing
    }

    fn reach(&self) -> Reach {
        Reach::of_routing(self)
    }

    fn stall(
        status: &mut TrafficRoutingStatus,
        before: Option<&TrafficRoutingStatus>,
        reason: &'static str,
        message: String,
        _now: Timestamp,
    ) -> Option<Event> {
        status.message.clone_from(&message);
        let is_news = before.is_none_or(|s| s.message != message);
        is_news.then_some(Event { is_warning: true, reason, message })
    }

    fn decided(&self, status: &TrafficRoutingStatus, is_stored: bool, _reconciler: &Reconciler, _key: &Key) {
        if is_stored {
            tracing::info!(phase = status.phase, "{}", status.message);
        }
    }
}

/// Notes what a TrafficRouting reads now.
pub(super) fn note(interests: &mut Interests, cache: &impl Objects, target: &ObjectRef) {
    let key = (target.namespace.clone(), target.name.clone());
    match cache.get(target).ok().as_ref().and_then(read) {
        Some(routing) => interests.set_routing(&key, &routing),
        None => interests.remove(&key),
    }
}
