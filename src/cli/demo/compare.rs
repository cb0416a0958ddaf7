//! The story of `examples/compare`.

use std::sync::Arc;

use anyhow::ensure;
use include_dir::{Dir, include_dir};
use serde_json::Value;

use super::{
    measured::{self, Stage, rate},
    screen::Screen,
};
use crate::{api::object, sim::Cluster};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/compare");

/// A backend that all depend on fails three of a hundred requests, whoever asks.
const SUCCESS: [(&str, f64); 3] = [(":1", 0.97), (":2", 0.97), (":3", 0.9)];
/// Requests of a pod within an interval.
const REQUESTS: f64 = 500.0;

/// What the pods counted within an interval: failures, or all requests.
fn answer(pods: &[Arc<Value>], query: &str) -> Option<f64> {
    let is_of_failures = query.contains("http_response_status_code");
    let count = |rate: f64| if is_of_failures { REQUESTS * (1.0 - rate) } else { REQUESTS };
    let counts: Vec<f64> = pods.iter().filter_map(|pod| rate(&SUCCESS, pod)).map(count).collect();
    (is_of_failures || !counts.is_empty()).then(|| counts.iter().sum())
}

/// Plays the story; an error when it does not end as it should.
pub async fn play(screen: Screen) -> anyhow::Result<()> {
    measured::play(Cluster::builder(), &MANIFESTS, answer, async |cluster| {
        tell(&Stage { cluster, screen, success: &SUCCESS }).await
    })
    .await
}

async fn tell(stage: &Stage) -> anyhow::Result<()> {
    let screen = &stage.screen;
    screen.scene("Version 1 runs in a bad hour: 3 % of all requests fail")?;
    stage.until("version 1 runs", |s| s.is_done("1")).await?;
    screen.fact("errors", "new pods are compared with old ones; two percentage points more matter");
    screen.fact("pods", &stage.pods());

    screen.scene("Version 2 is no worse than version 1")?;
    stage.release("2").await?;
    stage.until("version 2 has taken over", |s| s.is_done("2")).await?;
    for verdict in stage.told("AnalysisPassed") {
        screen.fact("verdict", &verdict);
    }
    screen.fact("rollout", &stage.status("message"));
    screen.fact("pods", &stage.pods());

    screen.scene("Version 3 fails 10 % of its requests")?;
    stage.release("3").await?;
    let begun = stage.cluster.clock().now();
    stage.until("it is rolled back", Stage::is_rolled_back).await?;
    let took = stage.cluster.clock().now().duration_since(begun).as_secs();
    stage.until("version 2 serves alone", |s| s.is_done("2")).await?;
    let condition = stage.condition("Succeeded").unwrap_or_default();
    screen.fact("rolled back", &format!("{took} s after the change: {}", object::text(&condition, &["reason"])));
    screen.fact("why", object::text(&condition, &["message"]));
    screen.fact("pods", &stage.pods());
    ensure!(object::text(&condition, &["reason"]) == "AnalysisFailed", "another reason: {condition}");
    Ok(())
}
