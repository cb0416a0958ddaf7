//! Metrics of the controller, in OpenMetrics text.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::releases::{Releases, Standing};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindResult {
    kind: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallResult {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ScriptResult {
    script: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindRule {
    kind: String,
    rule: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Script {
    script: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WebhookResult {
    webhook: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Certificate {
    certificate: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Phase {
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Measured {
    namespace: String,
    rollout: String,
    analysis: &'static str,
    metric: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Warned {
    condition: &'static str,
}

/// Counters, gauges and histograms. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_duration: Histogram,
    writes: Family<KindResult, Counter>,
    guarded: Family<KindRule, Counter>,
    script_calls: Family<ScriptResult, Counter>,
    script_duration: Family<Script, Histogram, fn() -> Histogram>,
    rollouts: Family<Phase, Gauge>,
    stalled: Family<Reason, Gauge>,
    warned: Family<Warned, Gauge>,
    releases: Releases,
    queue_depth: Gauge,
    leader: Gauge,
    webhook_duration: Family<WebhookResult, Histogram, fn() -> Histogram>,
    certificate_end: Family<Certificate, Gauge>,
    queries: Family<ResultLabel, Counter>,
    query_duration: Histogram,
    calls: Family<CallResult, Counter>,
    analysis_value: Family<Measured, Gauge<f64, AtomicU64>>,
    analysis_failed: Family<Measured, Gauge>,
    /// What is told of each Rollout.
    measured: Mutex<HashMap<(String, String), Vec<Measured>>>,
    /// Phase of each Rollout by `namespace/name`.
    phases: Mutex<HashMap<String, String>>,
    /// Why each Rollout that needs a person does, by `namespace/name`.
    reasons: Mutex<HashMap<String, String>>,
    /// The conditions of each Rollout that a person should know of, by namespace and name.
    warnings: Mutex<HashMap<(String, String), Vec<&'static str>>>,
}

/// A script call takes some 20 µs to 300 µs; its budget ends at a second.
fn script_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_02, 4.0, 9))
}

/// A review takes some 0.1 ms to 10 ms; the API server gives up after ten seconds.
fn webhook_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_125, 4.0, 9))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tidegate");
        let reconciles = Family::<ResultLabel, Counter>::default();
        let reconcile_duration = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let writes = Family::<KindResult, Counter>::default();
        let guarded = Family::<KindRule, Counter>::default();
        let script_calls = Family::<ScriptResult, Counter>::default();
        let script_duration =
            Family::<Script, Histogram, fn() -> Histogram>::new_with_constructor(script_buckets as fn() -> Histogram);
        let rollouts = Family::<Phase, Gauge>::default();
        let stalled = Family::<Reason, Gauge>::default();
        let warned = Family::<Warned, Gauge>::default();
        let releases = Releases::default();
        let queue_depth = Gauge::default();
        let leader = Gauge::default();
        let webhook_duration = Family::<WebhookResult, Histogram, fn() -> Histogram>::new_with_constructor(
            webhook_buckets as fn() -> Histogram,
        );
        let certificate_end = Family::<Certificate, Gauge>::default();
        registry.register(
            "build",
            "Version of the running program",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register("reconciles", "Reconciles of a Rollout, by result", reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took",
            Unit::Seconds,
            reconcile_duration.clone(),
        );
        registry.register("writes", "Writes to the API server, by kind of object and result", writes.clone());
        registry.register(
            "guarded_writes",
            "Writes that were not made because they would have broken a rule, by kind of object and rule",
            guarded.clone(),
        );
        registry.register("script_calls", "Calls of a traffic script, by result", script_calls.clone());
        registry.register_with_unit(
            "script_duration",
            "How long a call of a traffic script took",
            Unit::Seconds,
            script_duration.clone(),
        );
        let queries = Family::<ResultLabel, Counter>::default();
        let query_duration = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let analysis_value = Family::<Measured, Gauge<f64, AtomicU64>>::default();
        let analysis_failed = Family::<Measured, Gauge>::default();
        registry.register("metric_queries", "Questions to metrics servers, by kind of answer", queries.clone());
        registry.register_with_unit(
            "metric_query_duration",
            "How long a metrics server took to answer",
            Unit::Seconds,
            query_duration.clone(),
        );
        registry.register(
            "analysis_value",
            "Last value of a metric that decides about a release; of the last release when none goes on",
            analysis_value.clone(),
        );
        registry.register(
            "analysis_failed",
            "1 when a metric that decides about a release has failed, else 0",
            analysis_failed.clone(),
        );
        let calls = Family::<CallResult, Counter>::default();
        registry.register("calls", "Requests to hooks and receivers of notifications, by result", calls.clone());
        registry.register("rollouts", "Rollouts by phase", rollouts.clone());
        registry.register(
            "rollouts_stalled",
            "Rollouts that wait for a person to mend something, by reason",
            stalled.clone(),
        );
        registry.register(
            "rollouts_warned",
            "Rollouts that go on, with a condition that a person should know of",
            warned.clone(),
        );
        releases.register(&mut registry);
        registry.register("queue_depth", "Rollouts that wait for a reconcile", queue_depth.clone());
        registry.register("leader", "1 while this replica decides, 0 while it stands by", leader.clone());
        registry.register_with_unit(
            "webhook_duration",
            "How long the answer to a review took, by webhook and result",
            Unit::Seconds,
            webhook_duration.clone(),
        );
        registry.register_with_unit(
            "webhook_certificate_expiry_timestamp",
            "When a certificate of the webhooks ends, in seconds since 1970",
            Unit::Seconds,
            certificate_end.clone(),
        );
        // Present from the start, so that a rate over the first error is seen.
        for result in ["ok", "error"] {
            drop(reconciles.get_or_create(&ResultLabel { result }));
        }
        Self(Arc::new(Inner {
            registry,
            reconciles,
            reconcile_duration,
            writes,
            guarded,
            script_calls,
            script_duration,
            rollouts,
            stalled,
            warned,
            releases,
            queue_depth,
            leader,
            webhook_duration,
            certificate_end,
            queries,
            query_duration,
            calls,
            analysis_value,
            analysis_failed,
            measured: Mutex::default(),
            phases: Mutex::default(),
            reasons: Mutex::default(),
            warnings: Mutex::default(),
        }))
    }

    /// A reconcile ended. `result` is a word of a small set, such as `ok` or `error`.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.0.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.0.reconcile_duration.observe(took.as_secs_f64());
    }

    /// A write was answered. `result` is a word of a small set, such as `ok`, `conflict` or `error`.
    pub fn wrote(&self, kind: &str, result: &'static str) {
        self.0.writes.get_or_create(&KindResult { kind: kind.to_owned(), result }).inc();
    }

    /// A write was not made because it would have broken a rule.
    pub fn guarded(&self, kind: &str, rule: &'static str) {
        self.0.guarded.get_or_create(&KindRule { kind: kind.to_owned(), rule }).inc();
    }

    /// A traffic script returned. `result` is a word of a small set, such as `ok` or `error`.
    pub fn script_called(&self, script: &str, result: &'static str, took: Duration) {
        self.0.script_calls.get_or_create(&ScriptResult { script: script.to_owned(), result }).inc();
        self.0.script_duration.get_or_create(&Script { script: script.to_owned() }).observe(took.as_secs_f64());
    }

    /// A Rollout (`namespace/name`) is in this phase; `None` when it is gone.
    pub fn rollout_phase(&self, rollout: &str, phase: Option<&str>) {
        let label = |phase: &str| Phase { phase: phase.to_owned() };
        move_between(&self.0.phases, &self.0.rollouts, label, rollout, phase);
    }

    /// A Rollout (`namespace/name`) waits for a person for this reason; `None` when it does not, or is gone.
    pub fn rollout_stalled(&self, rollout: &str, reason: Option<&str>) {
        let label = |reason: &str| Reason { reason: reason.to_owned() };
        move_between(&self.0.reasons, &self.0.stalled, label, rollout, reason);
    }

    /// A Rollout (namespace and name) has these conditions that a person should know of, though it goes on.
    pub fn rollout_warned(&self, rollout: &(String, String), conditions: &[&'static str]) {
        let mut warnings = self.0.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let old = warnings.remove(rollout).unwrap_or_default();
        for condition in conditions.iter().filter(|c| !old.contains(c)) {
            self.0.warned.get_or_create(&Warned { condition }).inc();
        }
        for condition in old.iter().filter(|c| !conditions.contains(c)) {
            self.0.warned.get_or_create(&Warned { condition }).dec();
        }
        if !conditions.is_empty() {
            warnings.insert(rollout.clone(), conditions.to_vec());
        }
    }

    /// The release of a Rollout (namespace and name) is here; `None` when none goes on.
    pub fn release(&self, rollout: &(String, String), standing: Option<&Standing>) {
        self.0.releases.set(rollout, standing);
    }

    /// Forgets all Rollouts: from now on another replica decides, and tells of them.
    pub fn forget_rollouts(&self) {
        let inner = &self.0;
        inner.phases.lock().unwrap_or_else(PoisonError::into_inner).clear();
        inner.rollouts.clear();
        inner.reasons.lock().unwrap_or_else(PoisonError::into_inner).clear();
        inner.stalled.clear();
        inner.warnings.lock().unwrap_or_else(PoisonError::into_inner).clear();
        inner.warned.clear();
        inner.measured.lock().unwrap_or_else(PoisonError::into_inner).clear();
        inner.analysis_value.clear();
        inner.analysis_failed.clear();
        inner.releases.clear();
        inner.queue_depth.set(0);
    }

    /// A metrics server was asked.
    pub fn queried(&self, result: &'static str, took: Duration) {
        self.0.queries.get_or_create(&ResultLabel { result }).inc();
        self.0.query_duration.observe(took.as_secs_f64());
    }

    /// A hook was called, or a notification sent. `result` is a word of a small set.
    pub fn called(&self, kind: &'static str, result: &'static str) {
        self.0.calls.get_or_create(&CallResult { kind, result }).inc();
    }

    /// What is measured of a Rollout now: of each metric its analysis, name, last value, and whether it has failed.
    pub fn analysis<'a>(
        &self,
        (namespace, rollout): &(String, String),
        now: impl Iterator<Item = (&'static str, &'a str, Option<f64>, bool)>,
    ) {
        let mut all = Vec::new();
        for (analysis, metric, value, failed) in now {
            let (namespace, rollout, metric) = (namespace.clone(), rollout.clone(), metric.to_owned());
            let label = Measured { namespace, rollout, analysis, metric };
            if let Some(value) = value {
                self.0.analysis_value.get_or_create(&label).set(value);
            }
            self.0.analysis_failed.get_or_create(&label).set(failed.into());
            all.push(label);
        }
        let mut measured = self.0.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.clone(), rollout.clone());
        let before = measured.remove(&key).unwrap_or_default();
        for gone in before.iter().filter(|old| !all.contains(old)) {
            self.0.analysis_value.remove(gone);
            self.0.analysis_failed.remove(gone);
        }
        if !all.is_empty() {
            measured.insert(key, all);
        }
    }

    /// So many Rollouts wait for a reconcile.
    pub fn set_queue_depth(&self, depth: usize) {
        self.0.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Whether this replica decides.
    pub fn set_leader(&self, leads: bool) {
        self.0.leader.set(leads.into());
    }

    /// A review was answered. `result` is a word of a small set: `allowed`, `denied` or `error`.
    pub fn webhook_called(&self, webhook: &'static str, result: &'static str, took: Duration) {
        self.0.webhook_duration.get_or_create(&WebhookResult { webhook, result }).observe(took.as_secs_f64());
    }

    /// A certificate (`ca` or `serving`) ends at this second since 1970.
    pub fn certificate_ends(&self, certificate: &'static str, second: i64) {
        self.0.certificate_end.get_or_create(&Certificate { certificate }).set(second);
    }

    /// OpenMetrics text of all metrics, of [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut buffer = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut buffer, &self.0.registry);
        buffer
    }
}

/// Counts a Rollout under a word, and no longer under the one before.
fn move_between<L>(
    words: &Mutex<HashMap<String, String>>,
    family: &Family<L, Gauge>,
    label: impl Fn(&str) -> L,
    rollout: &str,
    word: Option<&str>,
) where
    L: Clone + std::hash::Hash + Eq,
{
    let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
    if words.get(rollout).map(String::as_str) == word {
        return;
    }
    let old = match word {
        Some(word) => {
            family.get_or_create(&label(word)).inc();
            words.insert(rollout.to_owned(), word.to_owned())
        }
        None => words.remove(rollout),
    };
    if let Some(old) = old {
        family.get_or_create(&label(&old)).dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, series: &str) -> Option<String> {
        text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))
    }

    #[test]
    fn what_is_counted_is_exposed() {
        let metrics = Metrics::new();
        let clone = metrics.clone();
        clone.reconciled("ok", Duration::from_millis(3));
        clone.reconciled("error", Duration::from_secs(2));
        clone.wrote("VirtualService", "conflict");
        clone.guarded("Service", "only our fields");
        clone.script_called("networking.istio.io/VirtualService", "ok", Duration::from_micros(100));
        clone.set_queue_depth(7);
        let text = metrics.encode();
        for (series, expected) in [
            (r#"tidegate_build_info{version="0.1.0"}"#.replace("0.1.0", env!("CARGO_PKG_VERSION")), "1"),
            (r#"tidegate_reconciles_total{result="ok"}"#.into(), "1"),
            (r#"tidegate_reconciles_total{result="error"}"#.into(), "1"),
            ("tidegate_reconcile_duration_seconds_count".into(), "2"),
            (r#"tidegate_reconcile_duration_seconds_bucket{le="0.004"}"#.into(), "1"),
            (r#"tidegate_writes_total{kind="VirtualService",result="conflict"}"#.into(), "1"),
            (r#"tidegate_guarded_writes_total{kind="Service",rule="only our fields"}"#.into(), "1"),
            (r#"tidegate_script_calls_total{script="networking.istio.io/VirtualService",result="ok"}"#.into(), "1"),
            (r#"tidegate_script_duration_seconds_count{script="networking.istio.io/VirtualService"}"#.into(), "1"),
            ("tidegate_queue_depth".into(), "7"),
        ] {
            assert_eq!(value(&text, &series).as_deref(), Some(expected), "{series}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_rollout_counts_in_one_phase_and_not_after_it_is_gone() {
        let metrics = Metrics::new();
        let count = |phase: &str| value(&metrics.encode(), &format!("tidegate_rollouts{{phase={phase:?}}}"));
        metrics.rollout_phase("a/one", Some("Healthy"));
        metrics.rollout_phase("a/one", Some("Healthy"));
        metrics.rollout_phase("b/one", Some("Healthy"));
        assert_eq!(count("Healthy").as_deref(), Some("2"));
        metrics.rollout_phase("a/one", Some("Progressing"));
        assert_eq!((count("Healthy").as_deref(), count("Progressing").as_deref()), (Some("1"), Some("1")));
        let stalled =
            |reason: &str| value(&metrics.encode(), &format!("tidegate_rollouts_stalled{{reason={reason:?}}}"));
        metrics.rollout_stalled("a/one", Some("ScriptFailed"));
        metrics.rollout_stalled("a/one", Some("WriteRefused"));
        assert_eq!((stalled("ScriptFailed").as_deref(), stalled("WriteRefused").as_deref()), (Some("0"), Some("1")));
        metrics.rollout_stalled("a/one", None);
        assert_eq!(stalled("WriteRefused").as_deref(), Some("0"));
        metrics.rollout_phase("a/one", None);
        metrics.rollout_phase("a/one", None);
        assert_eq!((count("Healthy").as_deref(), count("Progressing").as_deref()), (Some("1"), Some("0")));
        let warned = || value(&metrics.encode(), "tidegate_rollouts_warned{condition=\"Degraded\"}");
        let key = ("a".to_owned(), "one".to_owned());
        metrics.rollout_warned(&key, &["Degraded", "ScriptRejected"]);
        metrics.rollout_warned(&key, &["Degraded"]);
        assert_eq!(warned().as_deref(), Some("1"));
        metrics.rollout_warned(&key, &[]);
        metrics.rollout_warned(&key, &[]);
        assert_eq!(warned().as_deref(), Some("0"));
        // Another replica tells of them.
        metrics.rollout_warned(&key, &["Degraded"]);
        metrics.forget_rollouts();
        assert!(!metrics.encode().contains("tidegate_rollouts{") && warned().is_none());
        metrics.rollout_phase("a/one", Some("Healthy"));
        assert_eq!(count("Healthy").as_deref(), Some("1"));
    }
}
