//! The story of `examples/metrics`.

use std::{ops::Deref, sync::Arc};

use anyhow::ensure;
use include_dir::{Dir, include_dir};
use serde_json::Value;

use super::{
    measured::{self, Stage, gvr, rate},
    screen::Screen,
};
use crate::{
    api::{conditions::phases, object, object::at},
    sim::Cluster,
};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/metrics");

/// Requests that a version answers well: the last digit of its image is its number.
const SUCCESS: [(&str, f64); 3] = [(":1", 0.9995), (":2", 0.9991), (":3", 0.93)];

/// The mean success rate of pods; it knows no other query.
fn answer(pods: &[Arc<Value>], _: &str) -> Option<f64> {
    let rates: Vec<f64> = pods.iter().filter_map(|pod| rate(&SUCCESS, pod)).collect();
    #[allow(clippy::cast_precision_loss)] // So many pods there are not.
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    (!rates.is_empty()).then_some(mean)
}

/// Plays the story; an error when it does not end as it should.
pub async fn play(screen: Screen) -> anyhow::Result<()> {
    let builder = Cluster::builder().kind("networking.istio.io", &["v1"], "virtualservices", "VirtualService", true);
    measured::play(builder, &MANIFESTS, answer, async |cluster| {
        Story { stage: Stage { cluster, screen, success: &SUCCESS } }.tell().await
    })
    .await
}

struct Story {
    stage: Stage,
}

impl Deref for Story {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Story {
    async fn tell(&self) -> anyhow::Result<()> {
        let screen = &self.screen;
        screen.scene("Version 1 runs; a Rollout says how good a version must be")?;
        self.until("the Rollout is healthy", |s| s.status("phase") == phases::HEALTHY).await?;
        let original = self.route();
        screen.fact("success-rate", "min 0.99, measured 4 times a step, 1 bad value forgiven; else rollback");
        screen.fact("restarts", "max 0");
        screen.fact("pods", &self.pods());

        screen.scene("Version 2 is good: nobody has to say so")?;
        self.release("2").await?;
        for step in [1, 2] {
            let has_passed = |s: &Stage| s.metric_of(step).is_some_and(|m| object::int(&m, &["passed"]) == Some(3));
            self.until("the metrics of a step have their last value but one", has_passed).await?;
            self.show_measured();
        }
        self.until("version 2 has taken over", |s| s.is_done("2")).await?;
        screen.fact("rollout", &self.status("message"));
        screen.fact("pods", &self.pods());
        ensure!(self.route() == original, "the VirtualService differs from what it was");

        screen.scene("Version 3 fails 7 % of its requests")?;
        self.release("3").await?;
        let begun = self.cluster.clock().now();
        let has_failed = |s: &Stage| s.metric_of(1).is_some_and(|m| object::int(&m, &["failed"]) == Some(1));
        self.until("a value is out of bounds", has_failed).await?;
        self.show_measured();
        self.until("it is rolled back", Stage::is_rolled_back).await?;
        let took = self.cluster.clock().now().duration_since(begun).as_secs();
        self.until("version 2 serves alone", |s| s.is_done("2")).await?;
        let condition = self.condition("Succeeded").unwrap_or_default();
        screen.fact("rolled back", &format!("{took} s after the change: {}", object::text(&condition, &["reason"])));
        screen.fact("why", object::text(&condition, &["message"]));
        screen.fact("pods", &self.pods());
        ensure!(object::text(&condition, &["reason"]) == "AnalysisFailed", "another reason: {condition}");
        ensure!(self.route() == original, "the VirtualService differs from what it was");
        screen
            .fact("end", "the VirtualService equals its original; version 3 never had more than 10 % of the requests");
        Ok(())
    }

    fn show_measured(&self) {
        self.screen.fact("requests", &self.share());
        self.screen.fact("rollout", &self.status("message"));
    }

    fn route(&self) -> Value {
        let route = self.cluster.get(&gvr("networking.istio.io/v1", "virtualservices"), "default", "shop");
        route.and_then(|r| at(&r, &["spec"]).cloned()).unwrap_or_default()
    }

    fn share(&self) -> String {
        let spec = self.route();
        let routes = spec.pointer("/http/0/route").and_then(Value::as_array).cloned().unwrap_or_default();
        let to = |r: &Value| {
            let weight = object::int(r, &["weight"]).unwrap_or(100);
            format!("{weight} % to Service {}", object::text(r, &["destination", "host"]))
        };
        routes.iter().map(to).collect::<Vec<_>>().join(", ")
    }
}
