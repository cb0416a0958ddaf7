//! Metrics of the controller, in OpenMetrics text.

mod outside;
mod releases;
mod rollouts;
mod scripts;
mod webhooks;
mod work;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::info::Info,
    registry::Registry,
};

pub use self::releases::Standing;
use self::{
    outside::Outside, releases::Releases, rollouts::Rollouts, scripts::Scripts, webhooks::Webhooks, work::Work,
};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Counters, gauges and histograms. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

/// Says how many Rollouts are due and wait, and how long the first of them has.
pub type LookAtQueue = Box<dyn Fn() -> (usize, Duration) + Send + Sync>;

/// The queue whose state is told.
#[derive(Default)]
struct Watched(Mutex<Option<LookAtQueue>>);

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    with_exemplars: bool,
    work: Work,
    scripts: Scripts,
    rollouts: Rollouts,
    releases: Releases,
    webhooks: Webhooks,
    outside: Outside,
    queue: Watched,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        Self::of(false)
    }

    /// As [`Metrics::new`]; durations of reconciles name the trace of the release as their exemplar.
    pub fn with_exemplars() -> Self {
        Self::of(true)
    }

    fn of(with_exemplars: bool) -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register(
            "build",
            "Version of the running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let work = Work::new(&mut registry);
        let scripts = Scripts::new(&mut registry);
        let rollouts = Rollouts::new(&mut registry);
        let releases = Releases::default();
        releases.register(&mut registry);
        let webhooks = Webhooks::new(&mut registry);
        let outside = Outside::new(&mut registry);
        let queue = Watched::default();
        Self(Arc::new(Inner { registry, with_exemplars, work, scripts, rollouts, releases, webhooks, outside, queue }))
    }

    /// A reconcile ended. `result` is a word of a small set, such as `ok` or `error`; `trace` is the release's trace, which
    /// only exemplars show.
    pub fn reconciled(&self, result: &'static str, took: Duration, trace: Option<&str>) {
        self.0.work.reconciled(result, took, trace.filter(|_| self.0.with_exemplars));
    }

    /// It was decided what to do next.
    pub fn decided(&self, took: Duration) {
        self.0.work.decided(took);
    }

    /// A write was answered. `result` is a word of a small set, such as `ok`, `conflict` or `error`.
    pub fn wrote(&self, kind: &str, result: &'static str) {
        self.0.work.wrote(kind, result);
    }

    /// A write was not made because it would have broken a rule.
    pub fn guarded(&self, kind: &str, rule: &'static str) {
        self.0.work.guarded(kind, rule);
    }

    /// A traffic script returned: the steps that it used, or a word of a small set for what went wrong.
    pub fn script_called(&self, script: &str, result: Result<u64, &'static str>, took: Duration) {
        self.0.scripts.called(script, result, took);
    }

    /// A Rollout (`namespace/name`) is in this phase; `None` when it is gone.
    pub fn rollout_phase(&self, rollout: &str, phase: Option<&str>) {
        self.0.rollouts.phase(rollout, phase);
    }

    /// A Rollout (`namespace/name`) waits for a person for this reason; `None` when it does not, or is gone.
    pub fn rollout_stalled(&self, rollout: &str, reason: Option<&str>) {
        self.0.rollouts.stalled(rollout, reason);
    }

    /// A Rollout (namespace and name) has these conditions that a person should know of, though it goes on.
    pub fn rollout_warned(&self, rollout: &(String, String), conditions: &[&'static str]) {
        self.0.rollouts.warned(rollout, conditions);
    }

    /// The release of a Rollout (namespace and name) is here; `None` when none goes on.
    pub fn release(&self, rollout: &(String, String), standing: Option<&Standing>) {
        self.0.releases.set(rollout, standing);
    }

    /// Forgets all Rollouts: from now on another replica decides, and tells of them.
    pub fn forget_rollouts(&self) {
        self.0.rollouts.clear();
        self.0.releases.clear();
        self.0.outside.clear();
        self.watch_queue(None);
    }

    /// A metrics server was asked.
    pub fn queried(&self, result: &'static str, took: Duration) {
        self.0.outside.queried(result, took);
    }

    /// A hook was called, or a notification sent. `result` is a word of a small set.
    pub fn called(&self, kind: &'static str, result: &'static str) {
        self.0.outside.called(kind, result);
    }

    /// So many spans of traces were `exported`, have `failed`, or were `dropped`.
    pub fn traced(&self, result: &'static str, spans: usize) {
        self.0.outside.traced(result, spans);
    }

    /// What is measured of a Rollout now: of each metric its analysis, name, last value, and whether it has failed.
    pub fn analysis<'a>(
        &self,
        rollout: &(String, String),
        now: impl Iterator<Item = (&'static str, &'a str, Option<f64>, bool)>,
    ) {
        self.0.outside.measured(rollout, now);
    }

    /// A Rollout that was due has waited so long for its reconcile.
    pub fn taken_from_queue(&self, waited: Duration) {
        self.0.work.taken(waited);
    }

    /// This queue is looked at whenever metrics are read, so that one that stands still is seen; `None` for none.
    pub fn watch_queue(&self, look: Option<LookAtQueue>) {
        *self.0.queue.0.lock().unwrap_or_else(PoisonError::into_inner) = look;
    }

    /// Whether this replica decides.
    pub fn set_leader(&self, leads: bool) {
        self.0.work.set_leader(leads);
    }

    /// A review was answered. `result` is a word of a small set: `allowed`, `denied` or `error`.
    pub fn webhook_called(&self, webhook: &'static str, result: &'static str, took: Duration) {
        self.0.webhooks.called(webhook, result, took);
    }

    /// A certificate (`ca` or `serving`) ends at this second since 1970.
    pub fn certificate_ends(&self, certificate: &'static str, second: i64) {
        self.0.webhooks.certificate_ends(certificate, second);
    }

    /// OpenMetrics text of all metrics, of [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let look = self.0.queue.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (depth, age) = look.as_ref().map(|look| look()).unwrap_or_default();
        self.0.work.queue(depth, age);
        drop(look);
        let mut buffer = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut buffer, &self.0.registry);
        buffer
    }
}

#[cfg(test)]
mod tests;
