//! One pass over one Rollout: gather → decide → apply → status → requeue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter},
};

use super::{Clock, Decide, queue::Key};
use crate::{
    api::{
        object::{self, ObjectRef},
        v1beta1::{Rollout, RolloutStatus},
    },
    apply::{self, Class, Reach, Writer},
    gather::{Cache, Objects, Settings, collect},
    lua::Engine,
    rollout::{
        Event, Plan, Snapshot, is_releasing,
        plan::{Purpose, stall},
    },
    telemetry::Metrics,
};

/// After a conflict the cache is about to learn of the newer object.
const CONFLICT_DELAY: Duration = Duration::from_millis(50);
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(500);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Rounds of writes before the status is stored all the same; a whole step needs fewer.
pub(super) const MAX_ROUNDS: usize = 8;

/// Everything that a pass needs.
pub struct Reconciler {
    pub(super) cache: Cache,
    pub(super) writer: Writer,
    pub(super) engine: Engine,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) decide: Decide,
    pub(super) decides_in_place: bool,
    pub(super) metrics: Metrics,
    pub(super) client: Client,
    /// Consecutive failures by Rollout.
    pub(super) failures: Mutex<BTreeMap<Key, u32>>,
}

/// When to look again.
pub(super) enum Next {
    /// When something changes.
    Change,
    /// After a while.
    After(Duration),
}

impl Reconciler {
    pub(super) async fn reconcile(&self, key: &Key) -> Next {
        let started = tokio::time::Instant::now();
        let result = self.pass(key).await;
        self.conclude("", key, result, started)
    }

    /// Counts a pass, and says when to look again. `what` tells objects of other kinds from Rollouts of the same name.
    pub(super) fn conclude(
        &self,
        what: &str,
        key: &Key,
        result: Result<Next, apply::Error>,
        started: tokio::time::Instant,
    ) -> Next {
        let key = &(key.0.clone(), if what.is_empty() { key.1.clone() } else { what.to_owned() });
        let (label, next) = match result {
            Ok(next) => {
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
                ("ok", next)
            }
            Err(error) => {
                let class = error.class();
                match class {
                    Class::Conflict => tracing::debug!(%error, "an object changed meanwhile; looking again"),
                    Class::NotLeading => tracing::info!(%error, "stopping"),
                    Class::Unavailable | Class::Refused => tracing::warn!(%error, "a write failed"),
                }
                (class.as_str(), Next::After(self.backoff(key, class)))
            }
        };
        self.metrics.reconciled(label, started.elapsed());
        next
    }

    fn backoff(&self, key: &Key, class: Class) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        let base = if class == Class::Conflict { CONFLICT_DELAY } else { FIRST_BACKOFF };
        let delay = base.saturating_mul(1 << (*count - 1).min(10)).min(MAX_BACKOFF);
        // Rollouts that fail together must not come back together; the key spreads them the same way every time.
        let spread =
            key.0.bytes().chain(key.1.bytes()).fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into())) % 20;
        delay.mul_f64(1.0 + f64::from(spread) / 100.0)
    }

    async fn pass(&self, key: &Key) -> Result<Next, apply::Error> {
        let target = ObjectRef::new("rollouts.kruise.io/v1beta1", "Rollout", &key.0, &key.1);
        let metric_key = format!("{}/{}", key.0, key.1);
        let Ok(object) = self.cache.get(&target) else {
            self.metrics.rollout_phase(&metric_key, None);
            self.cache.forget_pods(key);
            return Ok(Next::Change);
        };
        let Some(rollout) = read_rollout(&object) else {
            // The schema does not let this happen; an object stored before it may.
            tracing::error!("the Rollout cannot be read; mend or delete it");
            return Ok(Next::Change);
        };
        let mut now = (self.clock)();
        let mut version = object::resource_version(&object).to_owned();
        // The Rollout with the status that will be stored: once, when nothing more is to be written.
        let mut present = rollout.clone();
        let mut events = Vec::new();
        let mut result = Ok(());
        let mut requeue = None;
        let mut is_finished = false;
        for _ in 0..MAX_ROUNDS {
            // Writes take time, and a wait that begins after one must not begin before it.
            now = (self.clock)();
            let Some(snapshot) = collect(&self.cache, present.clone(), now, &self.engine, &self.settings) else {
                // A kind is being read for the first time; its arrival brings us back.
                is_finished = true;
                break;
            };
            let Some(plan) = self.plan(snapshot).await else { return Ok(Next::After(MAX_BACKOFF)) };
            present.status = Some(plan.status);
            events.extend(plan.events);
            requeue = plan.requeue;
            is_finished = plan.effects.is_empty();
            if is_finished {
                break;
            }
            result = self.writer.execute(&plan.effects, &Reach::of(&present)).await;
            if result.is_err() {
                break;
            }
            let wrote = |purpose| plan.effects.iter().any(|e| e.purpose() == purpose);
            if wrote(Purpose::RemoveFinalizer) {
                // The object is gone, and its status with it.
                self.publish(&target, rollout.metadata.uid.as_deref(), events).await;
                return Ok(Next::Change);
            }
            if wrote(Purpose::AddFinalizer)
                && let Ok(object) = self.cache.get(&target)
                && let Some(written) = read_rollout(&object)
            {
                // A write of ours has moved the version; it was refused unless nobody else had.
                object::resource_version(&object).clone_into(&mut version);
                present.metadata = written.metadata;
            }
        }
        if !is_releasing(&present) {
            self.cache.forget_pods(key);
        }
        let mut status = present.status.take().unwrap_or_default();
        if let Err(error) = &result
            && let Some(reason) = error.reason()
        {
            events.extend(stall(&mut status, rollout.status.as_ref(), reason, &error.to_string(), now));
        }
        let is_stored = self.writer.store_status(&rollout, &version, &status).await;
        self.metrics.rollout_phase(&metric_key, Some(&status.phase).filter(|p| !p.is_empty()).map(String::as_str));
        match &is_stored {
            Ok(true) => {
                log_progress(&rollout, &status);
                self.publish(&target, rollout.metadata.uid.as_deref(), events).await;
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "status not stored"),
        }
        result?;
        is_stored?;
        if !is_finished {
            // A write that changes nothing would be made for ever.
            tracing::warn!("after {MAX_ROUNDS} rounds of writes there still is something to write");
            return Ok(Next::After(FIRST_BACKOFF));
        }
        Ok(requeue.map_or(Next::Change, |at| Next::After(until(now, at))))
    }

    /// Scripts may use their whole budget of time, which is too long for a thread of the runtime.
    async fn plan(&self, snapshot: Snapshot) -> Option<Plan> {
        if self.decides_in_place {
            return Some((self.decide)(&snapshot));
        }
        let decide = self.decide.clone();
        match tokio::task::spawn_blocking(move || decide(&snapshot)).await {
            Ok(plan) => Some(plan),
            Err(error) => {
                tracing::error!(%error, "deciding failed; this is a bug");
                None
            }
        }
    }

    pub(super) async fn publish(&self, target: &ObjectRef, uid: Option<&str>, events: Vec<Event>) {
        let target = target.clone();
        let reference = ObjectReference {
            api_version: Some(target.api_version),
            kind: Some(target.kind),
            namespace: Some(target.namespace),
            name: Some(target.name),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        };
        let reporter = Reporter { controller: "tidegate".to_owned(), instance: None };
        for event in events {
            if event.is_warning {
                tracing::warn!(reason = event.reason, "{}", event.message);
            } else {
                tracing::info!(reason = event.reason, "{}", event.message);
            }
            // The API server cuts nothing off: it refuses notes of more than 1024 bytes.
            let note = event.message.get(..event.message.floor_char_boundary(1000)).map(str::to_owned);
            let event = KubeEvent {
                type_: if event.is_warning { EventType::Warning } else { EventType::Normal },
                reason: event.reason.to_owned(),
                note,
                action: event.reason.to_owned(),
                secondary: None,
            };
            // A recorder of its own for each: one that lives on counts events of one reason as repetitions, whatever they
            // say, and a plan tells nothing twice.
            let recorder = Recorder::new(self.client.clone(), reporter.clone());
            let publishing = tokio::time::timeout(Duration::from_secs(5), recorder.publish(&event, &reference));
            // An event is a courtesy; a release does not wait for it.
            match publishing.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "event not published"),
                Err(_) => tracing::debug!("event not published in time"),
            }
        }
    }
}

fn log_progress(before: &Rollout, status: &RolloutStatus) {
    let old = before.status.as_ref();
    if old.is_none_or(|o| o.message != status.message || o.phase != status.phase) {
        let (step, state) = (status.current_step_index, status.current_step_state.as_str());
        tracing::info!(phase = status.phase, step, state, "{}", status.message);
    }
}

pub(super) fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// A Rollout as the cache holds it.
pub(super) fn read_rollout(object: &Arc<serde_json::Value>) -> Option<Rollout> {
    serde_json::from_value((**object).clone()).ok()
}
