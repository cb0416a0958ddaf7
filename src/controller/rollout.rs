//! Rollouts as objects that are decided about.

use std::time::Duration;

use jiff::Timestamp;
use tracing::Span;

use super::{
    pass::{Reconciler, Subject},
    queue::Key,
};
use crate::{
    analysis::ask::Ask,
    api::{
        analysis::AnalysisPhase,
        conditions::{self, types},
        v1beta1::{Rollout, RolloutStatus},
    },
    apply::Reach,
    gather::collect,
    rollout::{Event, Plan, Snapshot, calls::Call, is_releasing, notifications, plan::stall, trace},
    telemetry::{Standing, logs},
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

    fn note(status: &mut RolloutStatus, before: Option<&RolloutStatus>, stalled: &Event, now: Timestamp) {
        notifications::note_refusal(status, before, stalled, now);
    }

    fn trace(&self, status: &mut RolloutStatus, now: Timestamp) -> Vec<trace::Span> {
        trace::follow(&self.metadata, self.status.as_ref(), status, now)
    }

    fn end_of_trace(&self, now: Timestamp) -> Vec<trace::Span> {
        self.status.as_ref().map(|status| trace::close(&self.metadata, status, now)).unwrap_or_default()
    }

    fn decided(&self, status: &RolloutStatus, is_stored: bool, reconciler: &Reconciler, key: &Key) {
        let present = Rollout { status: Some(status.clone()), ..self.clone() };
        if !is_releasing(&present) {
            reconciler.cache.forget_pods(key);
        }
        let phase = Some(status.phase.as_str()).filter(|p| !p.is_empty());
        reconciler.metrics.rollout_phase(&format!("{}/{}", key.0, key.1), phase);
        let stalled = conditions::find(&status.conditions, types::STALLED).filter(|c| c.status == "True");
        reconciler.metrics.rollout_stalled(&format!("{}/{}", key.0, key.1), stalled.map(|c| c.reason.as_str()));
        let is_true = |kind| conditions::find(&status.conditions, kind).is_some_and(|c| c.status == "True");
        let warned = [types::SCRIPT_REJECTED, types::DEGRADED].into_iter().filter(|kind| is_true(kind));
        reconciler.metrics.rollout_warned(key, &warned.collect::<Vec<_>>());
        reconciler.metrics.release(key, standing(status).filter(|_| is_releasing(&present)).as_ref());
        reconciler.metrics.analysis(key, measured(status));
        let old = self.status.as_ref();
        if is_stored && old.is_none_or(|o| o.message != status.message || o.phase != status.phase) {
            let (step, state) = (status.current_step_index, status.current_step_state.as_str());
            tracing::info!(phase = status.phase, step, state, "{}", status.message);
        }
    }

    fn ask(reconciler: &Reconciler, key: &Key, asks: Vec<Ask>, calls: Vec<Call>) {
        reconciler.cache.want(key, asks);
        reconciler.cache.call(key, calls);
    }

    fn taken(waited: Duration, reconciler: &Reconciler) {
        reconciler.metrics.taken_from_queue(waited);
    }

    fn gone(reconciler: &Reconciler, key: &Key) {
        reconciler.metrics.rollout_phase(&format!("{}/{}", key.0, key.1), None);
        reconciler.metrics.rollout_stalled(&format!("{}/{}", key.0, key.1), None);
        reconciler.metrics.rollout_warned(key, &[]);
        reconciler.metrics.release(key, None);
        reconciler.metrics.analysis(key, std::iter::empty());
        reconciler.cache.forget_pods(key);
        reconciler.cache.want(key, Vec::new());
        reconciler.cache.call(key, Vec::new());
    }
}

/// Where the release of a status is.
fn standing(status: &RolloutStatus) -> Option<Standing> {
    let canary = status.canary_status.as_ref().and_then(|sub| sub.last_update_time.as_ref());
    let since = canary.or_else(|| status.blue_green_status.as_ref()?.last_update_time.as_ref())?;
    Some(Standing {
        phase: status.phase.clone(),
        step: status.current_step_index,
        state: status.current_step_state.clone(),
        since: since.0.as_second(),
    })
}

/// Of each metric its analysis, name, last value, and whether it has failed.
fn measured(status: &RolloutStatus) -> impl Iterator<Item = (&'static str, &str, Option<f64>, bool)> {
    let sub = status.canary_status.as_ref().and_then(|sub| sub.analysis.as_ref());
    let analysis = sub.or_else(|| status.blue_green_status.as_ref()?.analysis.as_ref());
    let runs = analysis.into_iter().flat_map(|a| [("step", a.step.as_ref()), ("background", a.background.as_ref())]);
    runs.flat_map(|(name, run)| run.into_iter().flat_map(move |run| run.metrics.iter().map(move |m| (name, m)))).map(
        |(name, metric)| {
            let value = metric.measurements.iter().rev().find_map(|m| m.value.parse().ok());
            (name, metric.name.as_str(), value, metric.phase == AnalysisPhase::Failed)
        },
    )
}
