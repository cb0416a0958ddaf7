//! A person's mistake: the release stands still, says why, and goes on by itself when the cause is gone.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate::api::conditions::{reasons, types};

use super::story::{CANARY, DESTINATION_RULE, Story, VIRTUAL_SERVICE};
use crate::rig::{
    Rig,
    poll::{SOON, until},
};

/// Waits for the condition and the event that name the reason and say `words`; no request has failed by then.
pub async fn stalled(story: &Story, reason: &str, words: &[&str]) -> Result<()> {
    until(&format!("the Rollout is stalled by {reason}"), SOON, async || {
        let status = story.rollout().await?["status"].clone();
        let stalls = |c: &&Value| c["type"] == types::STALLED && c["status"] == "True" && c["reason"] == reason;
        let stalled = status["conditions"].as_array().into_iter().flatten().find(stalls);
        let message = stalled.with_context(|| format!("status: {status}"))?["message"].as_str().unwrap_or_default();
        for word in words {
            ensure!(message.contains(word), "the condition does not say {word:?}: {message}");
        }
        Ok(())
    })
    .await?;
    until(&format!("an event tells {reason}"), SOON, async || {
        let events = story.space.rig.objects.list("events.k8s.io/v1", "Event", &story.space.name, "").await?;
        let told = events
            .iter()
            .any(|e| e["reason"] == reason && e["type"] == "Warning" && e["regarding"]["kind"] == "Rollout");
        ensure!(told, "{} events, none of them", events.len());
        Ok(())
    })
    .await?;
    story.undisturbed(reason).await
}

/// One of the networkRefs is missing when the release begins, and comes later.
pub async fn missing_network_ref(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let story = Story::begin(&rig, "missing-ref").await?;
    let routing = "/spec/strategy/canary/trafficRoutings/0";
    let mut rollout = story.rollout().await?;
    let refs = rollout
        .pointer_mut(&format!("{routing}/networkRefs"))
        .and_then(Value::as_array_mut)
        .context("no networkRefs")?;
    refs.push(json!({"apiVersion": DESTINATION_RULE.0, "kind": DESTINATION_RULE.1, "name": "nginx-dr-late"}));
    let strategy = rollout["spec"]["strategy"].clone();
    story
        .space
        .merge("rollouts.kruise.io/v1beta1", "Rollout", "rollouts-demo", json!({"spec": {"strategy": strategy}}))
        .await?;

    story.release().await?;
    stalled(&story, reasons::NETWORK_REF_NOT_FOUND, &["DestinationRule", "nginx-dr-late"]).await?;
    let (version, kind, name) = VIRTUAL_SERVICE;
    let http = story.space.get(version, kind, name).await?["spec"]["http"].clone();
    ensure!(
        http.to_string().matches("subset").count() == 1,
        "routes were changed although a networkRef is missing: {http}"
    );

    let late = json!({
        "apiVersion": DESTINATION_RULE.0, "kind": DESTINATION_RULE.1, "metadata": {"name": "nginx-dr-late"},
        "spec": {"host": "nginx-service", "subsets": [{"name": "late", "labels": {"version": "base"}}]},
    });
    story.space.apply(&late).await?;
    story.paused_at(1).await.context("the networkRef is there now")?;
    story.a_fifth_goes_to_the_canary(500).await?;

    // In the middle it goes again, and comes back.
    rig.objects.kill(DESTINATION_RULE.0, DESTINATION_RULE.1, &story.space.name, "nginx-dr-late").await?;
    story.approve()?;
    stalled(&story, reasons::NETWORK_REF_NOT_FOUND, &["DestinationRule", "nginx-dr-late"]).await?;
    story.space.apply(&late).await?;
    story.paused_at(2).await?;
    story.approve()?;
    story.ended(CANARY).await
}
