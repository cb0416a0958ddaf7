//! Calls of traffic scripts: how many, how long, how many steps of their budget, and what went wrong.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Script {
    script: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ScriptResult {
    script: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ScriptError {
    script: String,
    error: &'static str,
}

type Histograms = Family<Script, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct Scripts {
    calls: Family<ScriptResult, Counter>,
    errors: Family<ScriptError, Counter>,
    duration: Histograms,
    fuel: Histograms,
}

impl Scripts {
    pub fn new(registry: &mut Registry) -> Self {
        let scripts = Self {
            calls: Family::default(),
            errors: Family::default(),
            // A call takes some 20 µs to 300 µs; its budget ends at a second.
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_02, 4.0, 9))),
            // A call takes some hundred steps; its budget ends at 20 million.
            fuel: Family::new_with_constructor(|| Histogram::new(exponential_buckets(64.0, 8.0, 7))),
        };
        registry.register("script_calls", "Calls of a traffic script, by result", scripts.calls.clone());
        registry.register(
            "script_errors",
            "Calls of a traffic script that failed, by what went wrong",
            scripts.errors.clone(),
        );
        registry.register_with_unit(
            "script_duration",
            "How long a call of a traffic script took",
            Unit::Seconds,
            scripts.duration.clone(),
        );
        registry.register(
            "script_fuel",
            "Steps of its budget of 20 million that a call of a traffic script used",
            scripts.fuel.clone(),
        );
        scripts
    }

    pub fn called(&self, script: &str, result: Result<u64, &'static str>, took: Duration) {
        let of = |script: &str| Script { script: script.to_owned() };
        let (script_text, word) = (script.to_owned(), if result.is_ok() { "ok" } else { "error" });
        self.calls.get_or_create(&ScriptResult { script: script_text, result: word }).inc();
        self.duration.get_or_create(&of(script)).observe(took.as_secs_f64());
        match result {
            #[allow(clippy::cast_precision_loss)] // Far below 2^53.
            Ok(fuel) => self.fuel.get_or_create(&of(script)).observe(fuel as f64),
            Err(error) => drop(self.errors.get_or_create(&ScriptError { script: script.to_owned(), error }).inc()),
        }
    }
}
