//! A hook that holds a release and is told of its rollback, and a gate that a Job passes, with a real server and real Jobs.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, ensure};
use axum::{Router, extract::State, http::HeaderMap, routing::post};
use serde_json::{Value, json};

use super::story::{BASE, Story};
use crate::rig::{
    Rig,
    poll::{SOON, until},
};

/// What the hook answers, and what it was sent: idempotency key and body.
#[derive(Clone, Default)]
struct Gate {
    says: Arc<Mutex<Value>>,
    sent: Arc<Mutex<Vec<(String, Value)>>>,
}

async fn gate(State(gate): State<Gate>, headers: HeaderMap, body: String) -> String {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let body = serde_json::from_str(&body).unwrap_or_default();
    gate.sent.lock().unwrap().push((key.to_owned(), body));
    gate.says.lock().unwrap().to_string()
}

/// Serves the hook at every address of this machine; its port.
async fn serve(gate_of: Gate) -> Result<u16> {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
    let port = listener.local_addr()?.port();
    let router = Router::new().route("/board", post(gate)).with_state(gate_of);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(port)
}

pub async fn hooks_and_jobs(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let story = Story::begin(&rig, "hooks").await?;
    let board = Gate::default();
    *board.says.lock().unwrap() = json!({"result": "hold", "message": "the board meets at noon"});
    let port = serve(board.clone()).await?;
    // Pods' addresses are this machine's; the controller calls nobody at localhost.
    let pods = story.space.pods("app=nginx").await?;
    let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("no pod has an address")?;
    let hook = json!({"name": "board", "url": format!("http://{address}:{port}/board"),
        "when": ["BeforeStep", "OnRollback"], "steps": [1], "interval": "1s"});
    let template = json!({"spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "smoke", "image": "smoke:1"}]}}}});
    story
        .space
        .apply(&json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "smoke"},
            "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": template}}))
        .await?;
    let mut strategy = story.rollout().await?["spec"]["strategy"].clone();
    strategy["hooks"] = json!([hook]);
    strategy["canary"]["steps"][0]["gates"] = json!([{"name": "smoke", "job": {"cronJob": "smoke", "timeout": "1m"}}]);
    let patch = json!({"spec": {"strategy": strategy}});
    story.space.merge("rollouts.kruise.io/v1beta1", "Rollout", "rollouts-demo", patch).await?;

    story.release().await?;
    until("the hook holds the release", SOON, async || {
        let status = story.rollout().await?["status"].clone();
        let waits = "step 1 of 2 waits: hook \"board\" holds it: the board meets at noon";
        ensure!(status["message"] == waits, "status: {status}");
        Ok(())
    })
    .await?;
    *board.says.lock().unwrap() = json!({});
    story.paused_at(1).await?;
    until("the gate is passed by its Job", SOON, async || {
        let jobs = rig.objects.list("batch/v1", "Job", &story.space.name, "rollouts.kruise.io/job-of=gate").await?;
        let [job] = jobs.as_slice() else { anyhow::bail!("{} Jobs", jobs.len()) };
        ensure!(job["spec"]["activeDeadlineSeconds"] == 60, "{}", job["spec"]);
        let gates = story.rollout().await?["status"]["canaryStatus"]["gates"].clone();
        ensure!(gates[0]["isPassed"] == true, "gates: {gates}, Job: {}", job["status"]);
        Ok(())
    })
    .await?;

    story.mount(BASE).await?;
    until("the release is rolled back, and the hook knows", 2 * SOON, async || {
        let sent = board.sent.lock().unwrap().clone();
        let told = sent.iter().filter(|(_, body)| body["moment"] == "OnRollback").count();
        ensure!(told == 1, "told {told} times");
        let status = story.rollout().await?["status"].clone();
        ensure!(status["phase"] == "Healthy", "status: {status}");
        Ok(())
    })
    .await?;
    let sent = board.sent.lock().unwrap().clone();
    let mut asked: Vec<&str> =
        sent.iter().filter(|(_, body)| body["moment"] == "BeforeStep").map(|(key, _)| key.as_str()).collect();
    asked.dedup();
    ensure!(asked.len() == 1, "one question, but the keys are {asked:?}");
    ensure!(sent.iter().all(|(key, body)| body["key"] == key.as_str()), "the header is not the body's key");
    story.undisturbed("the rollback").await
}
