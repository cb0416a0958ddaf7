//! Rollouts as objects that are decided about.

use jiff::Timestamp;
use tracing::Span;

use super::{
    pass::{Reconciler, Subject},
    queue::Key,
};
use crate::{
    api::v1beta1::{Rollout, RolloutStatus},
    apply::Reach,
    gather::collect,
    rollout::{Event, Plan, Snapshot, is_releasing, plan::stall},
    telemetry::logs,
};

impl Subject for Rollout {
    type Snapshot = Snapshot;

    const KIND: (&'static str, &'static str) = ("rollouts.kruise.io/v1beta1", "Rollout");

    fn span(key: &Key) -> Span {
        logs::rollout_span(&key.0, &key.1)
    }

    fn collect(self, reconciler: &Reconciler, now: Timestamp) -> Option<Snapshot> {
        collect(&reconciler.cache, self, now, &reconciler.engine, &reconciler.settings)
    }

    fn decider(reconciler: &Reconciler) -> impl Fn(&Snapshot) -> Plan + Send + 'static {
        let decide = reconciler.decide.clone();
        move |snapshot| decide(snapshot)
    }

    fn reach(&self) -> Reach {
        Reach::of(self)
    }

    fn stall(
        status: &mut RolloutStatus,
        before: Option<&RolloutStatus>,
        reason: &'static str,
        message: String,
        now: Timestamp,
    ) -> Option<Event> {
        stall(status, before, reason, &message, now)
    }

    fn decided(&self, status: &RolloutStatus, is_stored: bool, reconciler: &Reconciler, key: &Key) {
        let present = Rollout { status: Some(status.clone()), ..self.clone() };
        if !is_releasing(&present) {
            reconciler.cache.forget_pods(key);
        }
        let phase = Some(status.phase.as_str()).filter(|p| !p.is_empty());
        reconciler.metrics.rollout_phase(&format!("{}/{}", key.0, key.1), phase);
        let old = self.status.as_ref();
        if is_stored && old.is_none_or(|o| o.message != status.message || o.phase != status.phase) {
            let (step, state) = (status.current_step_index, status.current_step_state.as_str());
            tracing::info!(phase = status.phase, step, state, "{}", status.message);
        }
    }

    fn queued(depth: usize, reconciler: &Reconciler) {
        reconciler.metrics.set_queue_depth(depth);
    }

    fn gone(reconciler: &Reconciler, key: &Key) {
        reconciler.metrics.rollout_phase(&format!("{}/{}", key.0, key.1), None);
        reconciler.cache.forget_pods(key);
    }
}
