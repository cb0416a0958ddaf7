//! The controller's own work: reconciles, decisions, writes, and what waits for them.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        exemplar::HistogramWithExemplars,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::ResultLabel;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindResult {
    kind: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindRule {
    kind: String,
    rule: &'static str,
}

/// The trace that an observation belongs to.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Trace {
    trace_id: String,
}

#[derive(Debug)]
pub(super) struct Work {
    reconciles: Family<ResultLabel, Counter>,
    reconcile_duration: HistogramWithExemplars<Trace>,
    decision_duration: Histogram,
    writes: Family<KindResult, Counter>,
    guarded: Family<KindRule, Counter>,
    queue_depth: Gauge,
    queue_age: Gauge<f64, AtomicU64>,
    queue_duration: Histogram,
    leader: Gauge,
}

impl Work {
    pub fn new(registry: &mut Registry) -> Self {
        let work = Self {
            reconciles: Family::default(),
            reconcile_duration: HistogramWithExemplars::new(exponential_buckets(0.001, 2.0, 15)),
            // A decision takes some 50 µs; its scripts may take a second each.
            decision_duration: Histogram::new(exponential_buckets(0.000_031_25, 4.0, 10)),
            writes: Family::default(),
            guarded: Family::default(),
            queue_depth: Gauge::default(),
            queue_age: Gauge::default(),
            queue_duration: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            leader: Gauge::default(),
        };
        registry.register("reconciles", "Reconciles of a Rollout, by result", work.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took",
            Unit::Seconds,
            work.reconcile_duration.clone(),
        );
        registry.register_with_unit(
            "decision_duration",
            "How long it took to decide what to do next, scripts among it; its count is that of the decisions",
            Unit::Seconds,
            work.decision_duration.clone(),
        );
        registry.register("writes", "Writes to the API server, by kind of object and result", work.writes.clone());
        registry.register(
            "guarded_writes",
            "Writes that were not made because they would have broken a rule, by kind of object and rule",
            work.guarded.clone(),
        );
        registry.register("queue_depth", "Rollouts that wait for a reconcile and are due", work.queue_depth.clone());
        registry.register_with_unit(
            "queue_age",
            "How long the Rollout has waited that has been due for longest; 0 when none is",
            Unit::Seconds,
            work.queue_age.clone(),
        );
        registry.register_with_unit(
            "queue_duration",
            "How long a Rollout that was due waited for its reconcile",
            Unit::Seconds,
            work.queue_duration.clone(),
        );
        registry.register("leader", "1 while this replica decides, 0 while it stands by", work.leader.clone());
        // Present from the start, so that a rate over the first error is seen.
        for result in ["ok", "error"] {
            drop(work.reconciles.get_or_create(&ResultLabel { result }));
        }
        work
    }

    pub fn reconciled(&self, result: &'static str, took: Duration, trace: Option<&str>) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        let trace = trace.map(|id| Trace { trace_id: id.to_owned() });
        self.reconcile_duration.observe(took.as_secs_f64(), trace, None);
    }

    pub fn decided(&self, took: Duration) {
        self.decision_duration.observe(took.as_secs_f64());
    }

    pub fn wrote(&self, kind: &str, result: &'static str) {
        self.writes.get_or_create(&KindResult { kind: kind.to_owned(), result }).inc();
    }

    pub fn guarded(&self, kind: &str, rule: &'static str) {
        self.guarded.get_or_create(&KindRule { kind: kind.to_owned(), rule }).inc();
    }

    pub fn taken(&self, waited: Duration) {
        self.queue_duration.observe(waited.as_secs_f64());
    }

    pub fn queue(&self, depth: usize, age: Duration) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.queue_age.set(age.as_secs_f64());
    }

    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }
}
