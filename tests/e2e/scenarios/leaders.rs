//! Two replicas, of which one decides.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tidegate::api::keys::LEASE;

use super::story::{CANARY, Story};
use crate::rig::{
    Rig,
    controller::{Controller, NAMESPACE},
    poll::until,
};

const FIRST: (&str, &str) = ("replica-a", "127.0.0.1:18083");
const SECOND: (&str, &str) = ("replica-b", "127.0.0.1:18084");

async fn holder(rig: &Rig) -> Result<String> {
    let lease = rig.objects.get("coordination.k8s.io/v1", "Lease", NAMESPACE, LEASE).await?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

/// How long it takes until another process leads than `before`.
async fn takeover(rig: &Rig, before: &str, within: Duration) -> Result<Duration> {
    let begin = Instant::now();
    until("another replica leads", within, async || {
        let now = holder(rig).await?;
        ensure!(!now.is_empty() && now != before, "held by {now:?}");
        Ok(())
    })
    .await?;
    Ok(begin.elapsed())
}

/// Writes that were sent.
async fn writes(controller: &Controller) -> Result<u64> {
    let text = controller.metrics().await?;
    let counts = text.lines().filter(|l| l.starts_with("tidegate_writes_total{"));
    counts.map(|l| l.rsplit(' ').next().unwrap_or_default().parse::<u64>().context("a count")).sum()
}

/// A release goes on when the leader is killed, when it is asked to leave, and when it stands still and wakes up again.
pub async fn one_of_two_leads(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.alone().await?;
    let a = Controller::replica(&rig, FIRST.0, FIRST.1).await?;
    let story = Story::begin(&rig, "leaders").await?;
    let b = Controller::replica(&rig, SECOND.0, SECOND.1).await.context("who stands by is ready")?;
    ensure!(b.metrics().await?.contains("tidegate_leader 0"), "two lead");

    story.release().await?;
    let before = holder(&rig).await?;
    a.kill()?;
    let killed = takeover(&rig, &before, Duration::from_secs(15)).await.context("after kill -9")?;
    story.paused_at(1).await?;
    story.a_fifth_goes_to_the_canary(500).await?;
    ensure!(b.metrics().await?.contains("tidegate_leader 1"), "the second does not say that it leads");

    let a = Controller::replica(&rig, FIRST.0, FIRST.1).await?;
    let before = holder(&rig).await?;
    let (stopped, left) = tokio::join!(takeover(&rig, &before, Duration::from_secs(5)), b.stop());
    let (stopped, left) = (stopped.context("after SIGTERM")?, left?);
    ensure!(stopped < Duration::from_secs(2), "taken over {stopped:?} after SIGTERM");
    story.approve()?;
    story.paused_at(2).await?;

    let b = Controller::replica(&rig, SECOND.0, SECOND.1).await?;
    let before = holder(&rig).await?;
    let written = writes(&a).await?;
    a.freeze(true)?;
    story.approve()?;
    let frozen = takeover(&rig, &before, Duration::from_secs(15)).await.context("while the leader stands still")?;
    a.freeze(false)?;
    story.ended(CANARY).await?;
    a.ready().await?;
    ensure!(a.log()?.contains("not leading any more"), "it did not notice that it stood still");
    ensure!(writes(&a).await? == written, "it wrote after it woke up");
    eprintln!(
        "e2e: one_of_two_leads: taken over after {:.1} s (kill -9), {:.2} s (SIGTERM, gone after {:.2} s), {:.1} s (SIGSTOP)",
        killed.as_secs_f64(),
        stopped.as_secs_f64(),
        left.as_secs_f64(),
        frozen.as_secs_f64()
    );
    // The leader last: who stands by leaves without a word.
    a.stop().await?;
    b.stop().await.map(drop)
}
