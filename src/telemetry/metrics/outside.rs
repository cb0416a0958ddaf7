//! What is exchanged with servers other than the API server: metrics servers, hooks, receivers of notifications and traces.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::ResultLabel;

/// Series of what is measured at the same time; of other Rollouts there are none.
const MOST: usize = 2000;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallResult {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Measured {
    namespace: String,
    rollout: String,
    analysis: &'static str,
    metric: String,
}

#[derive(Debug)]
pub(super) struct Outside {
    queries: Family<ResultLabel, Counter>,
    query_duration: Histogram,
    calls: Family<CallResult, Counter>,
    spans: Family<ResultLabel, Counter>,
    value: Family<Measured, Gauge<f64, AtomicU64>>,
    failed: Family<Measured, Gauge>,
    /// What is told of each Rollout.
    told: Mutex<HashMap<(String, String), Vec<Measured>>>,
}

impl Outside {
    pub fn new(registry: &mut Registry) -> Self {
        let outside = Self {
            queries: Family::default(),
            query_duration: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            calls: Family::default(),
            spans: Family::default(),
            value: Family::default(),
            failed: Family::default(),
            told: Mutex::default(),
        };
        registry.register("metric_queries", "Questions to metrics servers, by kind of answer", outside.queries.clone());
        registry.register_with_unit(
            "metric_query_duration",
            "How long a metrics server took to answer",
            Unit::Seconds,
            outside.query_duration.clone(),
        );
        registry.register(
            "analysis_value",
            "Last value of a metric that decides about a release; of the last release when none goes on",
            outside.value.clone(),
        );
        registry.register(
            "analysis_failed",
            "1 when a metric that decides about a release has failed, else 0",
            outside.failed.clone(),
        );
        registry.register(
            "calls",
            "Requests to hooks and receivers of notifications, by result",
            outside.calls.clone(),
        );
        registry.register("trace_spans", "Spans of traces of releases, by what became of them", outside.spans.clone());
        outside
    }

    pub fn queried(&self, result: &'static str, took: Duration) {
        self.queries.get_or_create(&ResultLabel { result }).inc();
        self.query_duration.observe(took.as_secs_f64());
    }

    pub fn called(&self, kind: &'static str, result: &'static str) {
        self.calls.get_or_create(&CallResult { kind, result }).inc();
    }

    pub fn traced(&self, result: &'static str, spans: usize) {
        self.spans.get_or_create(&ResultLabel { result }).inc_by(u64::try_from(spans).unwrap_or_default());
    }

    pub fn measured<'a>(
        &self,
        key: &(String, String),
        now: impl Iterator<Item = (&'static str, &'a str, Option<f64>, bool)>,
    ) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = told.remove(key).unwrap_or_default();
        let room = MOST.saturating_sub(told.values().map(Vec::len).sum());
        let mut all = Vec::new();
        for (analysis, metric, value, failed) in now.take(room) {
            let (namespace, rollout) = key.clone();
            let label = Measured { namespace, rollout, analysis, metric: metric.to_owned() };
            if let Some(value) = value {
                self.value.get_or_create(&label).set(value);
            }
            self.failed.get_or_create(&label).set(failed.into());
            all.push(label);
        }
        for gone in before.iter().filter(|old| !all.contains(old)) {
            self.value.remove(gone);
            self.failed.remove(gone);
        }
        if !all.is_empty() {
            told.insert(key.clone(), all);
        }
    }

    /// Nothing is known of any Rollout.
    pub fn clear(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.value.clear();
        self.failed.clear();
    }
}
