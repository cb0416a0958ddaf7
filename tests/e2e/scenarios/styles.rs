//! Releases in place and blue-green on the real Deployment controller, under a steady load.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::api::keys::{IN_PROGRESSING, WORKLOAD_TYPE};

use super::story::{BASE, CANARY};
use crate::rig::{
    Rig,
    ledger::Ledger,
    load::Steady,
    poll::{SOON, until},
    space::{Space, example},
};

const THIRD: &str = "nginx-configmap-third";
const NAME: &str = "nginx-deployment";
const ROLLOUT: (&str, &str, &str) = ("rollouts.kruise.io/v1beta1", "Rollout", "rollouts-demo");
const REPLICAS: usize = 6;

/// One namespace with a Deployment of six pods, one of which may be surplus and none missing, behind two Services.
struct Play {
    space: Space,
    load: Steady,
    ledger: Ledger,
    /// The Deployment's spec and the route before the release.
    before: (Value, Value),
}

impl Play {
    async fn begin(rig: &Arc<Rig>, namespace: &str, strategy: Value) -> Result<Play> {
        let space = rig.space(namespace).await?;
        let mut third = None;
        for mut object in example("istio")? {
            match object["kind"].as_str() {
                Some("Rollout" | "DestinationRule") => continue,
                Some("Deployment") => {
                    object["spec"]["replicas"] = json!(REPLICAS);
                    object["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
                }
                Some("VirtualService") => {
                    let route = &mut object["spec"]["http"][0]["route"][0]["destination"];
                    route.as_object_mut().map(|r| r.remove("subset"));
                }
                Some("ConfigMap") => {
                    let mut copy = object.clone();
                    copy["metadata"]["name"] = json!(THIRD);
                    third = Some(copy);
                }
                _ => {}
            }
            space.apply(&object).await?;
        }
        space.apply(&third.unwrap_or_default()).await?;
        space.complete(NAME).await?;
        space.gateway().settles("the gateway answers", |_| Ok(())).await?;
        space
            .apply(&json!({"apiVersion": ROLLOUT.0, "kind": ROLLOUT.1, "metadata": {"name": ROLLOUT.2}, "spec": {
                "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}, "strategy": strategy}}))
            .await?;
        let load = space.gateway().steady(60);
        let ledger = Ledger::open(&space).await?;
        let play = Play { before: (Value::Null, Value::Null), load, ledger, space };
        until("the Deployment is under the hold", SOON, async || {
            let labels = play.deployment().await?["metadata"]["labels"].clone();
            ensure!(!labels[WORKLOAD_TYPE].is_null(), "labels: {labels}");
            let status = play.status().await?;
            ensure!(status["phase"] == "Healthy", "status: {status}");
            Ok(())
        })
        .await?;
        let before = (play.deployment().await?["spec"].clone(), play.route().await?);
        Ok(Play { before, ..play })
    }

    async fn deployment(&self) -> Result<Value> {
        self.space.get("apps/v1", "Deployment", NAME).await
    }

    async fn status(&self) -> Result<Value> {
        Ok(self.space.get(ROLLOUT.0, ROLLOUT.1, ROLLOUT.2).await?["status"].clone())
    }

    async fn route(&self) -> Result<Value> {
        let (api_version, kind, name) = super::story::VIRTUAL_SERVICE;
        Ok(self.space.get(api_version, kind, name).await?["spec"].clone())
    }

    async fn mount(&self, version: &str) -> Result<()> {
        let api = self.space.rig.objects.api("apps/v1", "Deployment", &self.space.name);
        let path = "/spec/template/spec/volumes/0/configMap/name";
        let patch = json!([{"op": "replace", "path": path, "value": version}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        let answer = serde_json::to_value(api.patch(NAME, &PatchParams::default(), &patch).await?)?;
        ensure!(answer["spec"]["paused"] == true, "the write was not held: {}", answer["spec"]);
        Ok(())
    }

    async fn paused_at(&self, step: u64) -> Result<()> {
        until(&format!("step {step} waits"), 2 * SOON, async || {
            let status = self.status().await?;
            let sub =
                if status["canaryStatus"].is_null() { &status["blueGreenStatus"] } else { &status["canaryStatus"] };
            ensure!(sub["currentStepIndex"] == step && sub["pausedStepIndex"] == step, "status: {status}");
            Ok(())
        })
        .await?;
        self.load.check(&format!("step {step}")).await
    }

    async fn approve(&self) -> Result<()> {
        let sub = if self.status().await?["canaryStatus"].is_null() { "blueGreenStatus" } else { "canaryStatus" };
        let api = self.space.rig.objects.api(ROLLOUT.0, ROLLOUT.1, &self.space.name);
        let patch = Patch::Merge(json!({"status": {sub: {"currentStepState": "StepReady"}}}));
        api.patch_status(ROLLOUT.2, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Ready pods of each version, and that it stays so for a while.
    async fn has(&self, expected: &[(&str, usize)]) -> Result<()> {
        let total: usize = expected.iter().map(|(_, n)| n).sum();
        let right = async || {
            let pods = self.space.pods("app=nginx").await?;
            let of = |version: &str| {
                let ready = |p: &&Value| {
                    let conditions = p["status"]["conditions"].as_array();
                    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
                };
                let mounts = |p: &&Value| p["spec"]["volumes"][0]["configMap"]["name"] == version;
                pods.iter().filter(mounts).filter(ready).count()
            };
            let counts: Vec<_> =
                [BASE, CANARY, THIRD].map(|v| (v, of(v))).into_iter().filter(|(_, n)| *n > 0).collect();
            ensure!(pods.len() == total && counts == expected, "{} pods, ready: {counts:?}", pods.len());
            Ok(())
        };
        until(&format!("pods are {expected:?}"), SOON, async || right().await).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        right().await
    }

    /// The share of requests that the new version answers.
    async fn answers(&self, version: &str, share: f64) -> Result<()> {
        self.space
            .gateway()
            .settles("the route arrives", |t| {
                if share > 0.0 {
                    ensure!(t.of(version) > 0);
                    Ok(())
                } else {
                    Ok(())
                }
            })
            .await?;
        let tally = self.space.gateway().send(400).await;
        eprintln!("e2e: {}: {share} to {version}: {tally}", self.space.name);
        tally.has_share(version, share)
    }

    /// The release is over: all is as before but for the version, and nobody noticed.
    async fn ended(self, version: &str) -> Result<()> {
        until("the release ends", 2 * SOON, async || {
            let status = self.status().await?;
            let done = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Progressing" && c["reason"] == "Completed");
            ensure!(status["phase"] == "Healthy" && done, "status: {status}");
            Ok(())
        })
        .await?;
        let deployment = self.space.complete(NAME).await?;
        self.has(&[(version, usize::try_from(deployment["spec"]["replicas"].as_u64().unwrap_or_default())?)]).await?;
        let mut before = self.before.0.clone();
        before["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!(version);
        before["replicas"] = deployment["spec"]["replicas"].clone();
        ensure!(
            before == deployment["spec"],
            "the Deployment is not as it was\nbefore: {before}\nafter: {}",
            deployment["spec"]
        );
        ensure!(deployment["metadata"]["annotations"][IN_PROGRESSING].is_null(), "the mark is still there");
        ensure!(self.before.1 == self.route().await?, "the route is not as it was");
        for set in self.space.rig.objects.list("apps/v1", "ReplicaSet", &self.space.name, "app=nginx").await? {
            ensure!(set["spec"]["minReadySeconds"].as_i64().unwrap_or(0) == 0, "{}", set["spec"]);
        }
        let moments = self.ledger.capacity_before_traffic(REPLICAS)?;
        let tally = self.load.stop().await?;
        eprintln!("e2e: {}: {REPLICAS} pods Ready at each of {moments} moments; steady load: {tally}", self.space.name);
        tally.none_failed()
    }
}

fn routing(mut strategy: Value) -> Value {
    let (api_version, kind, name) = super::story::VIRTUAL_SERVICE;
    for part in ["canary", "blueGreen"] {
        if let Some(part) = strategy.get_mut(part) {
            part["trafficRoutings"] = json!([{"service": "nginx-service",
                "networkRefs": [{"apiVersion": api_version, "kind": kind, "name": name}]}]);
        }
    }
    strategy
}

fn in_place() -> Value {
    routing(json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": [
        {"replicas": "30%", "traffic": "20%"}, {"replicas": 3, "traffic": "50%"}, {"replicas": "100%"}]}}))
}

fn blue_green() -> Value {
    routing(json!({"blueGreen": {"steps": [
        {"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]}}))
}

/// Step by step to the end, with a scaling in the middle.
pub async fn in_place_step_by_step(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let play = Play::begin(&rig, "in-place", in_place()).await?;
    play.mount(CANARY).await?;
    play.paused_at(1).await?;
    play.has(&[(BASE, 4), (CANARY, 2)]).await?;
    play.answers(CANARY, 0.2).await?;
    play.approve().await?;
    play.paused_at(2).await?;
    play.has(&[(BASE, 3), (CANARY, 3)]).await?;
    play.answers(CANARY, 0.5).await?;
    play.space.merge("apps/v1", "Deployment", NAME, json!({"spec": {"replicas": 12}})).await?;
    play.has(&[(BASE, 6), (CANARY, 6)]).await?;
    play.approve().await?;
    play.ended(CANARY).await
}

/// A third version in the middle, which is then taken back.
pub async fn in_place_third_version_and_back(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let play = Play::begin(&rig, "in-place-third", in_place()).await?;
    play.mount(CANARY).await?;
    play.paused_at(1).await?;
    play.approve().await?;
    play.paused_at(2).await?;
    play.mount(THIRD).await?;
    // Pods of the version that goes are replaced first.
    play.has(&[(BASE, 3), (CANARY, 1), (THIRD, 2)]).await?;
    play.paused_at(1).await?;
    play.answers(THIRD, 0.2).await?;
    play.mount(BASE).await?;
    play.ended(BASE).await
}

/// Both sets stand until the last approval; a third version is refused.
pub async fn blue_green_switch(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let play = Play::begin(&rig, "blue-green", blue_green()).await?;
    play.mount(CANARY).await?;
    play.paused_at(1).await?;
    play.has(&[(BASE, REPLICAS), (CANARY, REPLICAS)]).await?;
    play.answers(CANARY, 0.0).await?;
    play.mount(THIRD).await?;
    until("the third version is refused", SOON, async || {
        let status = play.status().await?;
        ensure!(status["message"].as_str().is_some_and(|m| m.contains("please rollback first")), "{status}");
        Ok(())
    })
    .await?;
    play.has(&[(BASE, REPLICAS), (CANARY, REPLICAS)]).await?;
    play.mount(CANARY).await?;
    play.paused_at(1).await?;
    play.approve().await?;
    play.paused_at(2).await?;
    play.answers(CANARY, 0.5).await?;
    play.approve().await?;
    play.paused_at(3).await?;
    play.answers(CANARY, 1.0).await?;
    play.has(&[(BASE, REPLICAS), (CANARY, REPLICAS)]).await?;
    play.approve().await?;
    play.ended(CANARY).await
}

/// All requests return at once, then the new set goes.
pub async fn blue_green_and_back(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let play = Play::begin(&rig, "blue-green-back", blue_green()).await?;
    play.mount(CANARY).await?;
    play.paused_at(1).await?;
    play.approve().await?;
    play.paused_at(2).await?;
    play.approve().await?;
    play.paused_at(3).await?;
    play.answers(CANARY, 1.0).await?;
    play.mount(BASE).await?;
    play.space.gateway().settles("requests are back", |t| t.only(BASE)).await?;
    play.ended(BASE).await
}
