//! Two replicas, of which one decides.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use axum::{Router, extract::State, routing::any};
use serde_json::json;
use tidegate::api::keys::LEASE;

use super::story::{CANARY, Story};
use crate::rig::{
    Rig,
    controller::{Controller, NAMESPACE},
    install::STANDSTILL,
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
    // Nobody has approved: another leader is no reason to go on.
    tokio::time::sleep(STANDSTILL).await;
    story.paused_at(1).await.context("after another takeover")?;
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

/// Between two measurements.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long the metrics server thinks.
const THINKS: Duration = Duration::from_secs(4);

/// A metrics server that is slow, and when it was asked.
#[derive(Clone, Default)]
struct Slow {
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Slow {
    /// Serves it at every address of this machine; its port.
    async fn serve(&self) -> Result<u16> {
        let answer = async |State(slow): State<Slow>| {
            slow.asked.lock().unwrap().push(Instant::now());
            tokio::time::sleep(THINKS).await;
            json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "1"]}]}})
                .to_string()
        };
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
        let port = listener.local_addr()?.port();
        let router = Router::new().route("/api/v1/query", any(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(port)
    }

    fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// A question is on its way.
    async fn is_asked(&self, times: usize) -> Result<()> {
        until("the metrics server is asked", 3 * INTERVAL, async || {
            ensure!(self.times() > times, "asked {times} times");
            Ok(())
        })
        .await
    }
}

/// The leader goes while its question is on its way, once asked to and once killed: the next one asks again, but not within the
/// same interval, and the step waits for as many answers as ever.
pub async fn leaders_change_while_measuring(rig: Arc<Rig>) -> Result<()> {
    const COUNT: usize = 2;
    let _stage = rig.alone().await?;
    let a = Controller::replica(&rig, FIRST.0, FIRST.1).await?;
    let story = Story::begin(&rig, "measured").await?;
    let b = Controller::replica(&rig, SECOND.0, SECOND.1).await?;
    let slow = Slow::default();
    let port = slow.serve().await?;
    // Pods' addresses are this machine's; the controller calls nobody at localhost.
    let pods = story.space.pods("app=nginx").await?;
    let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("no pod has an address")?;
    let metric = json!({"name": "success", "query": "up", "min": 0.5, "interval": format!("{}s", INTERVAL.as_secs()), "count": COUNT,
        "delay": "0s", "provider": {"prometheus": {"address": format!("http://{address}:{port}")}}});
    let analysis = json!({"onFailure": "rollback", "onSuccess": "promote", "metrics": [metric]});
    let mut strategy = story.rollout().await?["spec"]["strategy"].clone();
    strategy["canary"]["steps"][0]["analysis"] = analysis;
    let (version, name) = ("rollouts.kruise.io/v1beta1", "rollouts-demo");
    story.space.merge(version, "Rollout", name, json!({"spec": {"strategy": strategy}})).await?;

    let measured = async || -> Result<usize> {
        let status = story.rollout().await?["status"]["canaryStatus"].clone();
        ensure!(status["currentStepIndex"] == 1, "promoted: {status}");
        Ok(status["analysis"]["metrics"][0]["measurements"].as_array().map_or(0, Vec::len))
    };
    story.release().await?;
    slow.is_asked(0).await?;
    let before = holder(&rig).await?;
    let (stopped, left) = tokio::join!(takeover(&rig, &before, Duration::from_secs(5)), a.stop());
    let stopped = stopped.context("after SIGTERM")?;
    left?;
    ensure!(stopped < Duration::from_secs(2), "taken over {stopped:?} after SIGTERM");
    ensure!(measured().await? == 0, "measured without an answer");

    let a = Controller::replica(&rig, FIRST.0, FIRST.1).await?;
    slow.is_asked(1).await?;
    let before = holder(&rig).await?;
    b.kill()?;
    let killed = takeover(&rig, &before, Duration::from_secs(15)).await.context("after kill -9")?;
    ensure!(measured().await? == 0, "measured without an answer");

    story.paused_at(2).await?;
    let asked = slow.asked.lock().unwrap().clone();
    let gaps: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    ensure!(asked.len() == 2 + COUNT, "{} questions, of which two had no answer: {gaps:?}", asked.len());
    // A tenth is forgiven, as everywhere.
    ensure!(gaps.iter().all(|gap| *gap > INTERVAL * 8 / 10), "asked again within an interval: {gaps:?}");
    eprintln!(
        "e2e: leaders_change_while_measuring: taken over after {:.2} s (SIGTERM), {:.1} s (kill -9); between questions {gaps:.1?}",
        stopped.as_secs_f64(),
        killed.as_secs_f64()
    );
    story.approve()?;
    story.ended(CANARY).await?;
    a.stop().await.map(drop)
}
