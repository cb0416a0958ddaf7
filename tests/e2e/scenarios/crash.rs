//! The controller away, for a while or in the wrong moment.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidegate::api::keys::{IN_PROGRESSING, WORKLOAD_TYPE};

use super::story::{BETWEEN_STOPS, CANARY, Story};
use crate::rig::{Rig, controller::Controller, install::STANDSTILL, random::Random};

/// While the controller is away a changed template stays held, whatever a careless tool writes; when it is back, the release
/// goes on by itself.
pub async fn hold_without_controller(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.alone().await?;
    let controller = Controller::start(&rig).await?;
    let story = Story::begin(&rig, "hold").await?;
    let took = controller.stop().await.context("the controller was asked to leave")?;
    eprintln!("e2e: hold_without_controller: stopped {:.1} s after SIGTERM", took.as_secs_f64());

    story.release().await?;
    let space = &story.space;
    let nothing_rolls = async |after: &str| {
        let end = tokio::time::Instant::now() + STANDSTILL;
        while tokio::time::Instant::now() < end {
            let deployment = story.deployment().await?;
            ensure!(deployment["spec"]["paused"] == true, "not paused after {after}: {}", deployment["spec"]);
            ensure!(!deployment["metadata"]["annotations"][IN_PROGRESSING].is_null(), "no mark after {after}");
            let sets = rig.objects.list("apps/v1", "ReplicaSet", &space.name, "app=nginx").await?;
            ensure!(sets.len() == 1, "{} ReplicaSets after {after}", sets.len());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        story.gateway().send(50).await.only("nginx-configmap-base")
    };
    nothing_rolls("the change").await?;

    // A tool that writes its manifest back whole, knows nothing of us and wants the Deployment unpaused.
    let live = story.deployment().await?;
    let put = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "nginx-deployment", "namespace": space.name, "labels": {"app": "nginx"}},
        "spec": {"replicas": 5, "paused": false, "selector": live["spec"]["selector"], "template": live["spec"]["template"]},
    });
    let api = rig.objects.api("apps/v1", "Deployment", &space.name);
    api.replace("nginx-deployment", &Default::default(), &serde_json::from_value(put.clone())?).await?;
    nothing_rolls("a PUT without our marks").await?;
    let mut other = put;
    other["spec"]["template"]["metadata"]["annotations"] = json!({"restarted": "now"});
    api.replace("nginx-deployment", &Default::default(), &serde_json::from_value(other)?).await?;
    nothing_rolls("a PUT of yet another template").await?;
    ensure!(!story.deployment().await?["metadata"]["labels"][WORKLOAD_TYPE].is_null(), "the label is gone for good");
    let mut back = story.deployment().await?["spec"]["template"].clone();
    back["metadata"]["annotations"] = json!(null);
    space.merge("apps/v1", "Deployment", "nginx-deployment", json!({"spec": {"template": back}})).await?;
    nothing_rolls("a merge patch").await?;

    let controller = Controller::start(&rig).await?;
    story.paused_at(1).await.context("the controller is back")?;
    story.a_fifth_goes_to_the_canary(500).await?;
    story.approve()?;
    story.paused_at(2).await?;
    story.approve()?;
    story.ended(CANARY).await?;
    controller.stop().await.map(drop)
}

/// The controller is killed twice at random moments of each step, and comes back.
pub async fn killed_in_every_step(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.alone().await?;
    let mut random = Random::for_scenario("killed_in_every_step");
    let mut controller = Controller::start(&rig).await?;
    let story = Story::begin(&rig, "killed").await?;
    let mut moments = Vec::new();
    for step in 1..=3 {
        match step {
            1 => story.release().await?,
            _ => story.approve()?,
        }
        // The second kill falls into what the first one left half done.
        for limit in [BETWEEN_STOPS, BETWEEN_STOPS / 4] {
            let moment = random.up_to(limit);
            tokio::time::sleep(moment).await;
            controller.kill()?;
            moments.push(moment);
            controller = Controller::start(&rig).await?;
        }
        if step == 3 {
            break;
        }
        story.paused_at(step).await.with_context(|| format!("killed after {moments:?}"))?;
        match step {
            1 => story.a_fifth_goes_to_the_canary(500).await?,
            _ => story.the_header_goes_to_the_canary(200).await?,
        }
    }
    story.ended(CANARY).await.with_context(|| format!("killed after {moments:?}"))?;
    eprintln!("e2e: killed_in_every_step: killed after {moments:?}");
    controller.stop().await.map(drop)
}

/// Longer than the controller waits for any answer.
const AWAY: Duration = Duration::from_secs(17);

/// The API server hangs at a random moment of two steps. Users notice nothing, and the release goes on by itself.
pub async fn api_server_away(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.alone().await?;
    let mut random = Random::for_scenario("api_server_away");
    let controller = Controller::start(&rig).await?;
    let story = Story::begin(&rig, "away").await?;
    for step in [1, 2] {
        match step {
            1 => story.release().await?,
            _ => story.approve()?,
        }
        tokio::time::sleep(random.up_to(BETWEEN_STOPS / 2)).await;
        rig.cluster.without_api_server(AWAY).await?;
        controller.healthy().await?;
        story.paused_at(step).await.with_context(|| format!("the API server was away in step {step}"))?;
    }
    story.the_header_goes_to_the_canary(200).await?;
    story.approve()?;
    story.ended(CANARY).await?;
    controller.stop().await.map(drop)
}
