//! A gateway that says that it has taken a route, and answers it with 503.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Row, Via, row, story::Story};
use crate::rig::{
    Rig, istio,
    poll::{SOON, until},
};

pub const ROW: Row = row("proof", "gateway-api", Via::Istio);
const ROLLOUT: (&str, &str) = ("rollouts.kruise.io/v1beta1", "Rollout");

/// A Service that selects these pods.
fn checkout(selector: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "checkout"},
        "spec": {"selector": {"app": selector}, "ports": [{"name": "http", "port": 80, "targetPort": 80}]}})
}

fn stalled(status: &Value) -> Value {
    let conditions = status["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == "Stalled").cloned().unwrap_or_default()
}

pub async fn play(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    // A part of the route leads to a Service without pods: the gateway takes it, and can answer nothing but 503.
    let part = json!({"matches": [{"path": {"type": "Exact", "value": "/checkout"}}],
        "backendRefs": [{"name": "checkout", "port": 80}]});
    let story = Story::begin(&rig, &ROW, |object| {
        if object["kind"] == "HTTPRoute"
            && let Some(rules) = object["spec"]["rules"].as_array_mut()
        {
            rules.push(part.clone());
        }
    })
    .await?;
    story.space.apply(&checkout("nobody")).await?;
    let rollout = story.space.get(ROLLOUT.0, ROLLOUT.1, "shop").await?;
    // Pods' addresses are this machine's; the controller sends nothing to localhost.
    let pods = story.space.pods("app=shop").await?;
    let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("no pod has an address")?;
    let host = format!("{}.example.com", story.space.name);
    let url = format!("http://{address}:{}/checkout", istio::GATEWAY_API_PORT);
    let mut strategy = rollout["spec"]["strategy"].clone();
    strategy["canary"]["trafficRoutings"][0]["proof"] =
        json!({"url": url, "headers": [{"name": "Host", "value": host}], "count": 5});
    story.space.merge(ROLLOUT.0, ROLLOUT.1, "shop", json!({"spec": {"strategy": strategy}})).await?;

    let load = story.load();
    story.release(&[]).await?;
    let said = format!("the traffic proof of step 1 fails: 5 requests to {url}: 503 for 5");
    until("the gateway has taken the route, and the proof fails", 2 * SOON, async || {
        let status = story.status().await?;
        ensure!(
            status["proof"]["phase"] == "Unproven" && status["currentStepState"] == "StepTrafficRouting",
            "{status}"
        );
        let stalled = stalled(&status);
        ensure!(stalled["reason"] == "TrafficUnproven", "{status}");
        ensure!(stalled["message"].as_str().is_some_and(|text| text.starts_with(&said)), "{stalled}");
        Ok(())
    })
    .await?;
    let route = story.space.get("gateway.networking.k8s.io/v1", "HTTPRoute", "shop").await?;
    let word = &route["status"]["parents"][0]["conditions"];
    let is = |kind: &str| word.as_array().into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True");
    ensure!(is("Accepted") && is("ResolvedRefs"), "the gateway says: {word}");
    until("the routes from before the release come back", Duration::from_secs(40) + SOON, async || {
        let status = story.status().await?;
        ensure!(!status["refusedRoutes"].is_null(), "{status}");
        let route = story.space.get("gateway.networking.k8s.io/v1", "HTTPRoute", "shop").await?;
        let backends = &route["spec"]["rules"][0]["backendRefs"];
        ensure!(backends.as_array().is_some_and(|backends| backends.len() == 1), "{backends}");
        Ok(())
    })
    .await?;

    // The part of the route is mended, and a person wants it tried again.
    story.space.apply(&checkout("shop")).await?;
    for paused in [true, false] {
        story.space.merge(ROLLOUT.0, ROLLOUT.1, "shop", json!({"spec": {"strategy": {"paused": paused}}})).await?;
        until("the Rollout has heard of it", SOON, async || {
            let status = story.status().await?;
            ensure!(status["message"].as_str().is_some_and(|m| m.contains("has been paused") == paused), "{status}");
            Ok(())
        })
        .await?;
    }
    until("the step is proven and waits for an approval", 2 * SOON, async || {
        let status = story.status().await?;
        ensure!(status["currentStepState"] == "StepPaused" && status["proof"]["phase"] == "Proven", "{status}");
        ensure!(stalled(&status).is_null(), "{status}");
        Ok(())
    })
    .await?;
    story.says(story.status().await?["proof"]["message"].as_str().unwrap_or_default());
    let tally = load.stop().await?;
    story.says(&format!("steady load: {tally}"));
    story.undisturbed(&tally)
}
