//! Plays a release: what its deeds do, and what holds at its end.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::api::keys::{IN_PROGRESSING, ROLLOUT_ID, WORKLOAD_TYPE};

use super::{
    super::story::{BASE, CANARY, VIRTUAL_SERVICE},
    Deed::{self, *},
    On, THIRD,
};
use crate::rig::{
    Rig,
    ledger::Ledger,
    load::Steady,
    poll::{SOON, until},
    space::{Space, example},
};

const NAME: &str = "nginx-deployment";
const ROLLOUT: (&str, &str, &str) = ("rollouts.kruise.io/v1beta1", "Rollout", "rollouts-demo");

/// One namespace with a workload behind two Services.
pub struct Play {
    on: &'static On,
    space: Space,
    load: Steady,
    ledger: Ledger,
    /// The Deployment's spec and the route before the release.
    before: (Value, Value),
}

impl Play {
    pub async fn begin(rig: &Arc<Rig>, on: &'static On, namespace: &str, strategy: Value) -> Result<Play> {
        let space = rig.space(namespace).await?;
        let on_nodes =
            json!({"nodeSelector": {"story": namespace}, "tolerations": [{"key": "story", "operator": "Exists"}]});
        for i in 0..if on.is_on_nodes { on.pods } else { 0 } {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("{namespace}-{i}"), "labels": {"story": namespace}},
                "spec": {"taints": [{"key": "story", "effect": "NoSchedule"}]}});
            rig.objects.apply(&node).await?;
        }
        let mut third = None;
        for mut object in example("istio")? {
            match object["kind"].as_str() {
                Some("Rollout" | "DestinationRule") => continue,
                Some("Deployment") => {
                    (object["apiVersion"], object["kind"]) = (json!(on.api_version), json!(on.kind));
                    object["spec"].as_object_mut().map(|spec| spec.remove("replicas"));
                    if let Some(behaves_as) = on.behaves_as {
                        json_patch::merge(&mut object["metadata"], &json!({"labels": {WORKLOAD_TYPE: behaves_as}}));
                    }
                    json_patch::merge(&mut object["spec"], &(on.spec)());
                    if on.is_on_nodes {
                        json_patch::merge(&mut object["spec"]["template"]["spec"], &on_nodes);
                    }
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
        is_rolled_out(&space, on).await?;
        space.gateway().settles("the gateway answers", |_| Ok(())).await?;
        space
            .apply(&json!({"apiVersion": ROLLOUT.0, "kind": ROLLOUT.1, "metadata": {"name": ROLLOUT.2}, "spec": {
                "workloadRef": {"apiVersion": on.api_version, "kind": on.kind, "name": NAME}, "strategy": strategy}}))
            .await?;
        let load = space.gateway().steady(60);
        let ledger = Ledger::open(&space).await?;
        let play = Play { on, before: (Value::Null, Value::Null), load, ledger, space };
        let api = play.space.rig.objects.api(on.api_version, on.kind, &play.space.name);
        let dry = PatchParams { dry_run: true, ..Default::default() };
        let probe = Patch::Merge(json!({"spec": {"template": {"metadata": {"annotations": {"probe": "yes"}}}}}));
        until("the workload is under the hold", SOON, async || {
            let labels = play.deployment().await?["metadata"]["labels"].clone();
            ensure!(!labels[on.switch()].is_null(), "labels: {labels}");
            let status = play.status().await?;
            ensure!(status["phase"] == "Healthy", "status: {status}");
            // The server takes some seconds to act on a policy of a kind that has just come.
            let answer = serde_json::to_value(api.patch(NAME, &dry, &probe).await?)?;
            ensure!(!answer["metadata"]["annotations"][IN_PROGRESSING].is_null(), "a write would not be held yet");
            Ok(())
        })
        .await?;
        let before = (play.deployment().await?["spec"].clone(), play.route().await?);
        Ok(Play { before, ..play })
    }

    async fn deployment(&self) -> Result<Value> {
        self.space.get(self.on.api_version, self.on.kind, NAME).await
    }

    async fn status(&self) -> Result<Value> {
        Ok(self.space.get(ROLLOUT.0, ROLLOUT.1, ROLLOUT.2).await?["status"].clone())
    }

    async fn route(&self) -> Result<Value> {
        let (api_version, kind, name) = VIRTUAL_SERVICE;
        Ok(self.space.get(api_version, kind, name).await?["spec"].clone())
    }

    async fn mount(&self, version: &str, node_selector: Value) -> Result<()> {
        let api = self.space.rig.objects.api(self.on.api_version, self.on.kind, &self.space.name);
        let mut patch =
            json!([{"op": "replace", "path": "/spec/template/spec/volumes/0/configMap/name", "value": version}]);
        if let (Some(patch), "Deployment") = (patch.as_array_mut(), self.on.kind) {
            patch.push(json!({"op": "add", "path": "/spec/template/spec/nodeSelector", "value": node_selector}));
        }
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        let answer = serde_json::to_value(api.patch(NAME, &PatchParams::default(), &patch).await?)?;
        ensure!(
            !answer["metadata"]["annotations"][IN_PROGRESSING].is_null(),
            "the write was not held: {}",
            answer["spec"]
        );
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

    /// As `kubectl patch --subresource status` does it.
    async fn patch_release(&self, field: &str, value: Value) -> Result<()> {
        let sub = if self.status().await?["canaryStatus"].is_null() { "blueGreenStatus" } else { "canaryStatus" };
        let api = self.space.rig.objects.api(ROLLOUT.0, ROLLOUT.1, &self.space.name);
        let patch = Patch::Merge(json!({"status": {sub: {field: value}}}));
        api.patch_status(ROLLOUT.2, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Ready pods of each version, and that it stays so for a while.
    async fn has(&self, expected: &[(&str, usize)]) -> Result<()> {
        let right = async || {
            let pods = self.space.pods("app=nginx").await?;
            let of = |version| pods.iter().filter(|pod| mounts(pod, version) && is_ready(pod)).count();
            let counts: Vec<_> =
                [BASE, CANARY, THIRD].map(|v| (v, of(v))).into_iter().filter(|(_, n)| *n > 0).collect();
            ensure!(counts == expected, "ready: {counts:?}");
            Ok(())
        };
        until(&format!("pods are {expected:?}"), SOON, async || right().await).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        right().await
    }

    /// The share of requests that a version answers, once the route has arrived.
    async fn answers(&self, version: &str, share: f64) -> Result<()> {
        until(&format!("{version} answers {share}"), SOON, async || {
            let tally = self.space.gateway().send(400).await;
            eprintln!("e2e: {}: {share} to {version}: {tally}", self.space.name);
            tally.has_share(version, share)
        })
        .await
    }

    pub async fn deed(self, deed: Deed) -> Result<Option<Play>> {
        match deed {
            Mount(version) => self.mount(version, json!({})).await?,
            MountBroken(version) => self.mount(version, json!({"no-such": "node"})).await?,
            Paused(step) => self.paused_at(step).await?,
            Approve => self.patch_release("currentStepState", json!("StepReady")).await?,
            Jump(step) => self.patch_release("nextStepIndex", json!(step)).await?,
            Has(pods) => self.has(pods).await?,
            Answers(version, share) => self.answers(version, share).await?,
            Asked((header, value), version) => {
                let target = self.space.gateway().with(header, value);
                target.settles(&format!("{version} answers {header}: {value}"), |tally| tally.only(version)).await?;
            }
            Id(id) => {
                let labels = json!({"metadata": {"labels": {ROLLOUT_ID: id}}});
                self.space.merge(self.on.api_version, self.on.kind, NAME, labels).await?;
            }
            Labelled(id, wanted) => {
                until(&format!("{wanted} pods carry {id}"), SOON, async || {
                    let found = self.space.pods(&format!("{ROLLOUT_ID}={id}")).await?.len();
                    ensure!(found == wanted, "{found} do");
                    Ok(())
                })
                .await?;
            }
            Fails(version) => {
                let pods = self.space.pods("app=nginx").await?;
                let pod =
                    pods.iter().find(|pod| mounts(pod, version) && is_ready(pod)).context("no such pod is Ready")?;
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                let not_ready = json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"});
                let patch = Patch::Strategic(json!({"status": {"conditions": [not_ready]}}));
                let api = self.space.rig.objects.api("v1", "Pod", &self.space.name);
                api.patch_status(name, &PatchParams::default(), &patch).await?;
            }
            Service(spec) => {
                self.space.merge("v1", "Service", "nginx-service", json!({"spec": spec})).await?;
            }
            Deployment(spec) => {
                self.space.merge(self.on.api_version, self.on.kind, NAME, json!({"spec": spec})).await?;
            }
            Rollout(operations) => {
                let api = self.space.rig.objects.api(ROLLOUT.0, ROLLOUT.1, &self.space.name);
                let patch = Patch::Json::<()>(serde_json::from_value(operations)?);
                api.patch(ROLLOUT.2, &PatchParams::default(), &patch).await?;
            }
            Says(words) => {
                until(&format!("the Rollout says {words:?}"), SOON, async || {
                    let status = self.status().await?;
                    ensure!(status["message"].as_str().is_some_and(|m| m.contains(words)), "{status}");
                    Ok(())
                })
                .await?;
            }
            Delete => self.space.rig.objects.kill(ROLLOUT.0, ROLLOUT.1, &self.space.name, ROLLOUT.2).await?,
            End(version) => {
                self.ended(version).await?;
                return Ok(None);
            }
            Left(version) => {
                self.left(version).await?;
                return Ok(None);
            }
        }
        Ok(Some(self))
    }

    /// The Rollout has let go, and the Deployment is an ordinary one.
    async fn left(self, version: &str) -> Result<()> {
        until("the Rollout has let go", 2 * SOON, async || {
            let labels = self.deployment().await?["metadata"]["labels"].clone();
            ensure!(labels[self.on.switch()].is_null(), "labels: {labels}");
            ensure!(labels[WORKLOAD_TYPE].as_str() == self.on.behaves_as, "what its owner says stays: {labels}");
            Ok(())
        })
        .await?;
        self.matches_before(version).await
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
        self.matches_before(version).await
    }

    async fn matches_before(self, version: &str) -> Result<()> {
        let deployment = is_rolled_out(&self.space, self.on).await?;
        let pods = deployment["spec"]["replicas"].as_u64().map_or(Ok(self.on.pods), usize::try_from)?;
        self.has(&[(version, pods)]).await?;
        let mut before = self.before.0.clone();
        before["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!(version);
        if !self.on.is_on_nodes {
            before["replicas"] = deployment["spec"]["replicas"].clone();
        }
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
        let moments = self.ledger.capacity_before_traffic(self.on.least)?;
        let tally = self.load.stop().await?;
        eprintln!(
            "e2e: {}: {} pods Ready at each of {moments} moments; steady load: {tally}",
            self.space.name, self.on.least
        );
        tally.none_failed()
    }
}

fn mounts(pod: &Value, version: &str) -> bool {
    pod["spec"]["volumes"][0]["configMap"]["name"] == version
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Waits until every pod of a workload is of its template and available.
async fn is_rolled_out(space: &Space, on: &On) -> Result<Value> {
    until(&format!("{} {NAME} has rolled out", on.kind), 2 * SOON, async || {
        let workload = space.get(on.api_version, on.kind, NAME).await?;
        let status = &workload["status"];
        let fields: &[&str] = if on.is_on_nodes {
            &["currentNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"]
        } else {
            &["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
        };
        let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(on.pods as u64);
        let is_current = workload["metadata"]["generation"] == status["observedGeneration"];
        ensure!(is_current && fields.iter().all(|field| status[field] == wanted), "{status}");
        Ok(workload.clone())
    })
    .await
}
