//! What holding costs whoever writes a workload, on a real API server: with the policies, with the webhook, and with neither.
//! `make admission-cost`; a measurement, of which nothing is promised.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tidegate::api::keys::WORKLOAD_TYPE;

use crate::rig::{
    Rig,
    controller::{Controller, documents},
    install,
    poll::{SOON, until},
    spare::Spare,
};

/// What measurements are called in front of their own names: no suite runs them.
pub const PREFIX: &str = "measure_";

const HEALTH: &str = "127.0.0.1:18091";
const WEBHOOKS: &str = "127.0.0.1:19882";
/// Writes that are not counted: connections are opened, expressions compiled, caches filled.
const WARM: usize = 50;
const SERVERS: [&str; 3] = ["neither", "policy", "webhook"];

/// A write that is measured.
#[derive(Clone, Copy)]
enum Write {
    /// A template changes that is held.
    Held,
    /// A whole object is put back with another number of pods.
    Scaled,
    /// A template of a workload changes that no Rollout names.
    Plain,
}

const WRITES: [(Write, &str); 3] = [
    (Write::Held, "PATCH of a template, which is held"),
    (Write::Scaled, "PUT with other replicas, managed"),
    (Write::Plain, "PATCH of a template, not managed"),
];

fn deployment(name: &str, labels: Value) -> Value {
    let app = json!({"app": name});
    let env: Vec<Value> = (0..20).map(|i| json!({"name": format!("SETTING_{i}"), "value": i.to_string()})).collect();
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                 "spec": {"containers": [{"name": "main", "image": "main:0", "env": env}]}}}})
}

fn image(round: usize) -> Patch<Value> {
    let containers = json!([{"name": "main", "image": format!("main:{}", round + 1)}]);
    Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}))
}

/// How long the API server takes for one write.
async fn timed(api: &Api<DynamicObject>, write: Write, round: usize) -> Result<Duration> {
    let params = PatchParams::default();
    let name = if matches!(write, Write::Plain) { "plain" } else { "managed" };
    if matches!(write, Write::Scaled) {
        let mut object = api.get(name).await?;
        object.data["spec"]["replicas"] = json!(round % 2);
        let begin = Instant::now();
        api.replace(name, &PostParams::default(), &object).await?;
        return Ok(begin.elapsed());
    }
    let begin = Instant::now();
    api.patch(name, &params, &image(round)).await?;
    Ok(begin.elapsed())
}

async fn prepared(spare: &Spare) -> Result<Api<DynamicObject>> {
    spare.objects.namespace("shop").await?;
    spare.objects.apply(&deployment("managed", json!({WORKLOAD_TYPE: "deployment"}))).await?;
    spare.objects.apply(&deployment("plain", json!({}))).await?;
    Ok(spare.objects.api("apps/v1", "Deployment", "shop"))
}

async fn holds(api: &Api<DynamicObject>) -> Result<bool> {
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    Ok(api.patch("managed", &dry, &image(0)).await?.data["spec"]["paused"] == true)
}

fn quantile(sorted: &[Duration], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0
}

pub async fn admission(rig: Arc<Rig>) -> Result<()> {
    let rounds: usize = std::env::var("ROUNDS").ok().map_or(Ok(400), |rounds| rounds.parse())?;
    let [neither, policy, webhook] = [("cost-neither", 16451), ("cost-policy", 16452), ("cost-webhook", 16453)];
    let neither = rig.empty(neither.0, neither.1).await?;
    let policy = rig.empty(policy.0, policy.1).await?;
    let webhook = rig.empty(webhook.0, webhook.1).await?;
    for object in documents(&["policy"])? {
        policy.objects.apply(&object).await?;
    }
    webhook.objects.apply_crds(&documents(&["crd"])?).await?;
    install::roles(&webhook.objects).await?;
    for object in documents(&["webhooks", "--url", &format!("https://{WEBHOOKS}")])? {
        webhook.objects.apply(&object).await?;
    }
    let args = ["--webhook-addr", WEBHOOKS, "--webhook-host", "127.0.0.1"];
    let controller = Controller::of_spare(&rig, "cost-webhook", HEALTH, &args).await?;
    let apis = [prepared(&neither).await?, prepared(&policy).await?, prepared(&webhook).await?];
    for api in &apis[1..] {
        until("changed workloads are held", SOON, async || {
            ensure!(holds(api).await?, "not yet");
            Ok(())
        })
        .await?;
    }
    ensure!(!holds(&apis[0]).await?, "something holds where nothing should");

    let mut took = vec![vec![Vec::new(); SERVERS.len()]; WRITES.len()];
    for round in 0..WARM + rounds {
        for (of_write, (write, _)) in took.iter_mut().zip(WRITES) {
            // In turn, so that what else the machine does meets all alike.
            for turn in 0..SERVERS.len() {
                let server = (round + turn) % SERVERS.len();
                let elapsed = timed(&apis[server], write, round).await?;
                if round >= WARM {
                    of_write[server].push(elapsed);
                }
            }
        }
    }
    controller.stop().await?;
    println!("{rounds} writes each, alternating; milliseconds, p50 / p99");
    println!("{:36}{}", "", SERVERS.map(|server| format!("{server:>18}")).concat());
    for (of_write, (_, name)) in took.iter_mut().zip(WRITES) {
        let columns = of_write.iter_mut().map(|all| {
            all.sort();
            format!("{:>18}", format!("{:.2} / {:.2}", quantile(all, 0.5), quantile(all, 0.99)))
        });
        println!("{name:36}{}", columns.collect::<String>());
    }
    Ok(())
}
