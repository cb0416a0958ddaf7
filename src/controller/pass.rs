//! One pass over one object of ours: gather → decide → apply → status → requeue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{Client, Resource, core::object::HasStatus};
use serde::{Serialize, de::DeserializeOwned};
use tracing::Span as LogSpan;

use super::{Clock, Decide, events::Events, queue::Key};
use crate::{
    analysis::ask::Ask,
    api::object::{self, ObjectRef},
    apply::{self, Class, Reach, Writer},
    gather::{Cache, Objects, Settings},
    lua::Engine,
    rollout::{
        Event,
        calls::Call,
        plan::{Plan, Purpose},
        trace::Span,
    },
    telemetry::{Metrics, Traces},
};

/// After a conflict the cache is about to learn of the newer object.
const CONFLICT_DELAY: Duration = Duration::from_millis(50);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Blips in a row that nobody is told of: a connection that was lost is there again at once.
const QUIET: u32 = 3;
const QUIET_DELAY: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Rounds of writes before the status is stored all the same; a whole step needs fewer.
const MAX_ROUNDS: usize = 8;

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
    pub(super) traces: Option<Traces>,
    pub(super) events: Events,
    pub(super) client: Client,
    /// Consecutive failures by kind and object.
    pub(super) failures: Mutex<BTreeMap<(&'static str, Key), u32>>,
}

/// When to look again.
pub(super) enum Next {
    /// When something changes.
    Change,
    /// After a while.
    After(Duration),
}

/// A kind of ours that is decided about.
pub(super) trait Subject:
    Resource<DynamicType = ()>
    + HasStatus<Status: Clone + Default + Serialize + Send + Sync + 'static>
    + DeserializeOwned
    + Clone
    + Send
    + Sync
    + 'static
{
    type Snapshot: Send + 'static;

    /// API version and kind.
    const KIND: (&'static str, &'static str);

    /// What log lines of a pass carry.
    fn span(key: &Key) -> LogSpan;

    /// Everything that a decision may read; `None` while a kind is being read for the first time.
    fn collect(self, reconciler: &Reconciler, now: Timestamp) -> Option<Self::Snapshot>;

    fn decider(reconciler: &Reconciler) -> impl Fn(&Self::Snapshot) -> Plan<Self::Status> + Send + 'static;

    /// What may be written on its behalf.
    fn reach(&self) -> Reach;

    /// Says in a status that a write was refused.
    fn stall(
        status: &mut Self::Status,
        before: Option<&Self::Status>,
        reason: &'static str,
        message: String,
        now: Timestamp,
    ) -> Option<Event>;

    /// Notes for people that a write was refused.
    fn note(_status: &mut Self::Status, _before: Option<&Self::Status>, _stalled: &Event, _now: Timestamp) {}

    /// Notes in the status to be stored where the release's trace stands. Returns what has ended, to be told once it is
    /// stored.
    fn trace(&self, _status: &mut Self::Status, _now: Timestamp) -> Vec<Span> {
        Vec::new()
    }

    /// What of the release's trace ends with the object.
    fn end_of_trace(&self, _now: Timestamp) -> Vec<Span> {
        Vec::new()
    }

    /// The status that a pass ends with, and whether it was stored now.
    fn decided(&self, status: &Self::Status, is_stored: bool, reconciler: &Reconciler, key: &Key);

    /// What is to be asked of metrics servers, and sent to servers of the user's, from now on.
    fn ask(_reconciler: &Reconciler, _key: &Key, _asks: Vec<Ask>, _calls: Vec<Call>) {}

    /// One that was due has waited so long for its pass, and so many still do.
    fn taken(_waited: Duration, _reconciler: &Reconciler) {}

    /// The object does not exist any more.
    fn gone(_reconciler: &Reconciler, _key: &Key) {}
}

/// An object of ours as the cache holds it.
pub(super) fn read<S: DeserializeOwned>(object: &Arc<serde_json::Value>) -> Option<S> {
    S::deserialize(&**object).ok()
}

impl Reconciler {
    pub(super) async fn reconcile<S: Subject>(&self, key: &Key) -> Next {
        let started = tokio::time::Instant::now();
        let result = self.pass::<S>(key).await;
        self.conclude::<S>(key, result, started)
    }

    /// The trace of the release that goes on.
    fn trace_id<S: Subject>(&self, (namespace, name): &Key) -> Option<String> {
        self.traces.as_ref()?;
        let object = self.cache.get(&ObjectRef::new(S::KIND.0, S::KIND.1, namespace, name)).ok()?;
        Some(object::text(&object, &["status", "trace", "traceID"]).to_owned()).filter(|id| !id.is_empty())
    }

    /// Counts a pass, and says when to look again.
    fn conclude<S: Subject>(
        &self,
        key: &Key,
        result: Result<Next, apply::Error>,
        started: tokio::time::Instant,
    ) -> Next {
        let subject = (S::KIND.1, key.clone());
        let (label, next) = match result {
            Ok(next) => {
                self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&subject);
                ("ok", next)
            }
            Err(error) => {
                let class = error.class();
                match class {
                    Class::Conflict => tracing::debug!(%error, "an object changed meanwhile; looking again"),
                    Class::NotLeading => tracing::info!(%error, "stopping"),
                    _ if self.is_quiet(&subject, &error) => tracing::debug!(%error, "a write failed; trying again"),
                    Class::Unavailable | Class::Refused => tracing::warn!(%error, "a write failed"),
                }
                (class.as_str(), Next::After(self.backoff(subject, &error)))
            }
        };
        self.metrics.reconciled(label, started.elapsed(), self.trace_id::<S>(key).as_deref());
        next
    }

    /// Too short to be told of, so far.
    fn is_quiet(&self, subject: &(&'static str, Key), error: &apply::Error) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        error.is_blip() && failures.get(subject).is_none_or(|count| *count < QUIET)
    }

    fn backoff(&self, subject: (&'static str, Key), error: &apply::Error) -> Duration {
        let (_, key) = &subject;
        // Rollouts that fail together must not come back together; the key spreads them the same way every time.
        let spread =
            key.0.bytes().chain(key.1.bytes()).fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into())) % 20;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(subject).or_default();
        *count = count.saturating_add(1);
        let (base, times) = match error.class() {
            Class::Conflict => (CONFLICT_DELAY, *count),
            _ if !error.is_blip() => (FIRST_BACKOFF, *count),
            _ if *count <= QUIET => (QUIET_DELAY, *count),
            _ => (FIRST_BACKOFF, *count - QUIET),
        };
        let delay = base.saturating_mul(1 << (times - 1).min(10)).min(MAX_BACKOFF);
        delay.mul_f64(1.0 + f64::from(spread) / 100.0)
    }

    async fn pass<S: Subject>(&self, key: &Key) -> Result<Next, apply::Error> {
        let target = ObjectRef::new(S::KIND.0, S::KIND.1, &key.0, &key.1);
        let Ok(object) = self.cache.get(&target) else {
            S::gone(self, key);
            return Ok(Next::Change);
        };
        let Some(subject) = read::<S>(&object) else {
            // The schema does not let this happen; an object stored before it may.
            tracing::error!("the {} cannot be read; mend or delete it", S::KIND.1);
            return Ok(Next::Change);
        };
        let mut now = (self.clock)();
        let mut version = object::resource_version(&object).to_owned();
        // The object with the status that will be stored: once, when nothing more is to be written.
        let mut present = subject.clone();
        let mut events = Vec::new();
        let mut result = Ok(());
        let mut requeue = None;
        let (mut asks, mut calls) = (Vec::new(), Vec::new());
        let (mut is_finished, mut has_listeners) = (false, false);
        for _ in 0..MAX_ROUNDS {
            // Writes take time, and a wait that begins after one must not begin before it.
            now = (self.clock)();
            let Some(snapshot) = present.clone().collect(self, now) else {
                // A kind is being read for the first time; its arrival brings us back.
                is_finished = true;
                break;
            };
            let Some(plan) = self.plan::<S>(snapshot).await else { return Ok(Next::After(MAX_BACKOFF)) };
            *present.status_mut() = Some(plan.status);
            events.extend(plan.events);
            requeue = plan.requeue;
            (asks, calls, has_listeners) = (plan.asks, plan.calls, plan.has_listeners);
            is_finished = plan.effects.is_empty();
            if is_finished {
                break;
            }
            result = self.writer.confirm(&plan.effects, &target, &version).await;
            if result.is_ok() {
                result = self.writer.execute(&plan.effects, &present.reach()).await;
            }
            if result.is_err() {
                break;
            }
            if plan.effects.iter().any(|e| e.purpose() == Purpose::RemoveFinalizer) {
                // The object is gone, or going as soon as others let it, and its status with it.
                if let Some(traces) = &self.traces {
                    traces.tell(subject.end_of_trace(now));
                }
                self.events.publish(&self.client, &target, subject.meta().uid.as_deref(), events, now).await;
                return Ok(Next::Change);
            }
            if plan.effects.iter().any(|e| e.is_patch_of(&target))
                && let Ok(object) = self.cache.get(&target)
                && let Some(written) = read::<S>(&object)
            {
                // A write of ours has moved the version; it was refused unless nobody else had.
                object::resource_version(&object).clone_into(&mut version);
                *present.meta_mut() = written.meta().clone();
            }
        }
        if result.as_ref().is_err_and(|error| self.is_quiet(&(S::KIND.1, key.clone()), error)) {
            // The next pass decides anew, as after a crash.
            return result.map(|()| Next::Change);
        }
        let mut status = present.status_mut().take().unwrap_or_default();
        if let Err(error) = &result
            && let Some(reason) = error.reason()
            && let Some(stalled) = S::stall(&mut status, subject.status(), reason, error.to_string(), now)
        {
            if has_listeners {
                S::note(&mut status, subject.status(), &stalled, now);
            }
            events.push(stalled);
        }
        let ended = self.traces.as_ref().map(|_| subject.trace(&mut status, now)).unwrap_or_default();
        let is_stored = self.writer.store(&target, &version, subject.status(), &status).await;
        subject.decided(&status, matches!(is_stored, Ok(true)), self, key);
        if let (Some(traces), Ok(true)) = (&self.traces, &is_stored) {
            traces.tell(ended);
        }
        match &is_stored {
            Ok(true) => {
                self.events.publish(&self.client, &target, subject.meta().uid.as_deref(), events, now).await;
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "status not stored"),
        }
        // Only now: an answer that no status has taken in stays at hand. Also after a write that was refused: metrics go on
        // being asked, and people are told of it.
        if is_stored.is_ok() {
            S::ask(self, key, asks, calls);
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
    async fn plan<S: Subject>(&self, snapshot: S::Snapshot) -> Option<Plan<S::Status>> {
        let decide = S::decider(self);
        if self.decides_in_place {
            return Some(decide(&snapshot));
        }
        let metrics = self.metrics.clone();
        let decide = move |snapshot: &S::Snapshot| {
            let started = std::time::Instant::now();
            let plan = decide(snapshot);
            metrics.decided(started.elapsed());
            plan
        };
        let planning = tokio::task::spawn_blocking(move || decide(&snapshot)).await;
        planning.inspect_err(|error| tracing::error!(%error, "deciding failed; this is a bug")).ok()
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}
