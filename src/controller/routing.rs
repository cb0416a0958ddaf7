//! One pass over one TrafficRouting, and what wakes it.

use std::sync::Arc;

use super::{
    interests::Interests,
    queue::Key,
    reconcile::{FIRST_BACKOFF, MAX_BACKOFF, MAX_ROUNDS, Next, Reconciler, until},
};
use crate::{
    api::{
        object::{self, ObjectRef},
        v1alpha1::TrafficRouting,
    },
    apply::{self, Reach},
    gather::{Objects, collect::TRAFFIC_ROUTING, collect_routing},
    rollout::{
        plan::{Event, Purpose},
        traffic_routing::{RoutingPlan, RoutingSnapshot, decide_routing},
    },
};

impl Reconciler {
    pub(super) async fn reconcile_routing(&self, key: &Key) -> Next {
        let started = tokio::time::Instant::now();
        let result = self.routing_pass(key).await;
        self.conclude(&format!("routing/{}", key.1), key, result, started)
    }

    async fn routing_pass(&self, key: &Key) -> Result<Next, apply::Error> {
        let target = ObjectRef::new(TRAFFIC_ROUTING.0, TRAFFIC_ROUTING.1, &key.0, &key.1);
        let Ok(object) = self.cache.get(&target) else { return Ok(Next::Change) };
        let Some(routing) = read(&object) else {
            tracing::error!("the TrafficRouting cannot be read; mend or delete it");
            return Ok(Next::Change);
        };
        let mut now = (self.clock)();
        let mut version = object::resource_version(&object).to_owned();
        let mut present = routing.clone();
        let mut events: Vec<Event> = Vec::new();
        let mut result = Ok(());
        let mut requeue = None;
        let mut is_finished = false;
        for _ in 0..MAX_ROUNDS {
            now = (self.clock)();
            let collected = collect_routing(&self.cache, present.clone(), now, &self.engine, &self.settings);
            let Some(snapshot) = collected else {
                is_finished = true;
                break;
            };
            let Some(plan) = self.routing_plan(snapshot).await else { return Ok(Next::After(MAX_BACKOFF)) };
            present.status = Some(plan.status);
            events.extend(plan.events);
            requeue = plan.requeue;
            is_finished = plan.effects.is_empty();
            if is_finished {
                break;
            }
            result = self.writer.execute(&plan.effects, &Reach::of_routing(&present)).await;
            if result.is_err() {
                break;
            }
            if plan.effects.iter().any(|e| e.purpose() == Purpose::RemoveFinalizer) {
                // The object is gone, or going as soon as others let it.
                self.publish(&target, routing.metadata.uid.as_deref(), events).await;
                return Ok(Next::Change);
            }
            if let Ok(object) = self.cache.get(&target)
                && let Some(written) = read(&object)
            {
                // A finalizer of ours has moved the version; it was refused unless nobody else had.
                object::resource_version(&object).clone_into(&mut version);
                present.metadata = written.metadata;
            }
        }
        let mut status = present.status.take().unwrap_or_default();
        if let Err(error) = &result
            && let Some(reason) = error.reason()
        {
            let message = error.to_string();
            if routing.status.as_ref().is_none_or(|s| s.message != message) {
                events.push(Event { is_warning: true, reason, message: message.clone() });
            }
            status.message = message;
        }
        let is_stored = self.writer.store(&target, &version, routing.status.as_ref(), &status).await;
        if matches!(is_stored, Ok(true)) {
            tracing::info!(phase = status.phase, "{}", status.message);
            self.publish(&target, routing.metadata.uid.as_deref(), events).await;
        }
        result?;
        is_stored?;
        if !is_finished {
            return Ok(Next::After(FIRST_BACKOFF));
        }
        Ok(requeue.map_or(Next::Change, |at| Next::After(until(now, at))))
    }

    /// Scripts may use their whole budget of time, which is too long for a thread of the runtime.
    async fn routing_plan(&self, snapshot: RoutingSnapshot) -> Option<RoutingPlan> {
        if self.decides_in_place {
            return Some(decide_routing(&snapshot));
        }
        let planning = tokio::task::spawn_blocking(move || decide_routing(&snapshot)).await;
        planning.inspect_err(|error| tracing::error!(%error, "deciding failed; this is a bug")).ok()
    }
}

/// A TrafficRouting as the cache holds it.
fn read(object: &Arc<serde_json::Value>) -> Option<TrafficRouting> {
    serde_json::from_value((**object).clone()).ok()
}

/// Notes what a TrafficRouting reads now.
pub(super) fn note(interests: &mut Interests, cache: &impl Objects, target: &ObjectRef) {
    let key = (target.namespace.clone(), target.name.clone());
    match cache.get(target).ok().as_ref().and_then(read) {
        Some(routing) => interests.set_routing(&key, &routing),
        None => interests.remove(&key),
    }
}
