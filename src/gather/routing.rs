//! From objects to the snapshot of a TrafficRouting.

use jiff::Timestamp;

use super::collect::{Objects, Settings, know_working, optional, routes};
use crate::{
    api::{object::ObjectRef, v1alpha1::TrafficRouting, v1beta1::Rollout},
    lua::Engine,
    rollout::{release, traffic_routing::RoutingSnapshot},
};

/// Everything that a decision about a TrafficRouting may read; `None` while a kind is being read for the first time.
pub fn collect_routing(
    objects: &impl Objects,
    routing: TrafficRouting,
    now: Timestamp,
    engine: &Engine,
    settings: &Settings,
) -> Option<RoutingSnapshot> {
    let namespace = routing.metadata.namespace.clone().unwrap_or_default();
    let rollouts = objects.list("rollouts.kruise.io/v1beta1", "Rollout", &namespace)?;
    let rollouts = rollouts
        .iter()
        .filter_map(|rollout| serde_json::from_value::<Rollout>((**rollout).clone()).ok())
        .filter(|rollout| release::shared(rollout).ok().flatten() == routing.metadata.name)
        .filter_map(|rollout| rollout.metadata.name)
        .collect();
    let mut snapshot = RoutingSnapshot {
        now,
        rollouts,
        service: None,
        networks: Vec::new(),
        ingress: None,
        engine: engine.clone(),
        routing,
    };
    // What is wrong with the spec is for the decision to say.
    if let Ok(traffic) = release::routing_traffic(&snapshot.routing) {
        let service = ObjectRef::new("v1", "Service", &namespace, &traffic.names.stable_service);
        snapshot.service = optional(objects.get(&service))?;
        (snapshot.networks, snapshot.ingress) = routes(objects, &traffic, &namespace, settings)?;
        if snapshot.is_needed() {
            let serving = snapshot.routing.status.as_ref().map(|s| s.scripts.as_slice()).unwrap_or_default();
            know_working(&mut snapshot.networks, snapshot.ingress.as_mut(), serving, engine);
        }
    }
    Some(snapshot)
}
