//! `examples/istio`, step by step, as a user plays it. Each scenario tells it with one thing in its way.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::api::keys::{CANARY_DEPLOYMENT, FIELD_MANAGER, IN_PROGRESSING, WORKLOAD_TYPE};

use crate::rig::{
    Rig,
    controller::kruise,
    ledger::Ledger,
    load::{Steady, Target},
    poll::{SOON, until},
    space::Space,
};

pub const BASE: &str = "nginx-configmap-base";
pub const CANARY: &str = "nginx-configmap-canary";
const ROLLOUT: &str = "rollouts-demo";
const DEPLOYMENT: (&str, &str, &str) = ("apps/v1", "Deployment", "nginx-deployment");
pub const VIRTUAL_SERVICE: (&str, &str, &str) = ("networking.istio.io/v1alpha3", "VirtualService", "nginx-vs");
pub const DESTINATION_RULE: (&str, &str, &str) = ("networking.istio.io/v1beta1", "DestinationRule", "nginx-dr");
/// Five replicas with the default `maxUnavailable` of 25 %, rounded down.
const FEWEST_PODS: usize = 4;

/// What a user may see of an object before and after a release.
fn seen(object: &Value) -> Value {
    json!({"spec": object["spec"], "labels": object["metadata"]["labels"], "annotations": object["metadata"]["annotations"]})
}

/// The story in one namespace, with a steady load and a ledger from before its first change.
pub struct Story {
    pub space: Space,
    originals: Vec<(Value, (&'static str, &'static str, &'static str))>,
    load: Steady,
    ledger: Ledger,
}

impl Story {
    /// All manifests are there, the controller has taken note, users are being served.
    pub async fn begin(rig: &Arc<Rig>, namespace: &str) -> Result<Story> {
        let space = rig.space(namespace).await?;
        space.play("istio", &[]).await?;
        let mut originals = Vec::new();
        for which in [VIRTUAL_SERVICE, DESTINATION_RULE] {
            originals.push((seen(&space.get(which.0, which.1, which.2).await?), which));
        }
        let deployment = space.get(DEPLOYMENT.0, DEPLOYMENT.1, DEPLOYMENT.2).await?;
        originals.push((seen(&deployment), DEPLOYMENT));
        let story = Story { load: space.gateway().steady(100), ledger: Ledger::open(&space).await?, originals, space };
        story.healthy().await?;
        until("the Deployment is under the hold", SOON, async || {
            let deployment = story.deployment().await?;
            ensure!(
                !deployment["metadata"]["labels"][WORKLOAD_TYPE].is_null(),
                "labels: {}",
                deployment["metadata"]["labels"]
            );
            Ok(())
        })
        .await?;
        Ok(story)
    }

    pub fn gateway(&self) -> Target {
        self.space.gateway()
    }

    pub async fn deployment(&self) -> Result<Value> {
        self.space.get(DEPLOYMENT.0, DEPLOYMENT.1, DEPLOYMENT.2).await
    }

    pub async fn rollout(&self) -> Result<Value> {
        self.space.get("rollouts.kruise.io/v1beta1", "Rollout", ROLLOUT).await
    }

    async fn healthy(&self) -> Result<()> {
        until("the Rollout is Healthy", SOON, async || {
            let rollout = self.rollout().await?;
            ensure!(rollout["status"]["phase"] == "Healthy", "status: {}", rollout["status"]);
            Ok(())
        })
        .await
    }

    /// The one change that the story is about, as the example's README writes it.
    pub async fn mount(&self, config_map: &str) -> Result<Value> {
        let api = self.space.rig.objects.api(DEPLOYMENT.0, DEPLOYMENT.1, &self.space.name);
        let path = "/spec/template/spec/volumes/0/configMap/name";
        let patch =
            Patch::Json::<()>(serde_json::from_value(json!([{"op": "replace", "path": path, "value": config_map}]))?);
        Ok(serde_json::to_value(api.patch(DEPLOYMENT.2, &PatchParams::default(), &patch).await?)?)
    }

    /// Starts the release. The answer to the user's own write must say that the Deployment is held.
    pub async fn release(&self) -> Result<()> {
        let answer = self.mount(CANARY).await?;
        ensure!(
            answer["spec"]["paused"] == true,
            "the write that changed the template was not held: {}",
            answer["spec"]
        );
        ensure!(!answer["metadata"]["annotations"][IN_PROGRESSING].is_null(), "no mark: {}", answer["metadata"]);
        Ok(())
    }

    /// Waits until the step is reached and asks for an approval, and no request has failed by then.
    pub async fn paused_at(&self, step: u64) -> Result<()> {
        until(&format!("step {step} waits for an approval"), 2 * SOON, async || {
            let status = self.rollout().await?["status"].clone();
            let release = &status["canaryStatus"];
            ensure!(
                release["currentStepIndex"] == step && release["currentStepState"] == "StepPaused",
                "status: {status}"
            );
            Ok(())
        })
        .await?;
        self.undisturbed(&format!("step {step}")).await
    }

    /// No user has noticed anything so far.
    pub async fn undisturbed(&self, by: &str) -> Result<()> {
        self.load.check(by).await
    }

    async fn canary(&self) -> Result<Option<Value>> {
        let labels = format!("{CANARY_DEPLOYMENT}={}", DEPLOYMENT.2);
        let mut found = self.space.rig.objects.list("apps/v1", "Deployment", &self.space.name, &labels).await?;
        ensure!(found.len() < 2, "{} canary Deployments", found.len());
        Ok(found.pop())
    }

    /// What holds at both steps: one canary pod of the new version, labelled; five untouched stable pods; one subset more.
    async fn canary_beside_stable(&self) -> Result<()> {
        let canary = self.canary().await?.context("no canary Deployment")?;
        let managers = canary["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let applied = managers.iter().any(|m| m["manager"] == FIELD_MANAGER && m["operation"] == "Apply");
        ensure!(applied, "the canary was not made by server-side apply: {managers:?}");
        ensure!(
            canary["spec"]["replicas"] == 1 && canary["status"]["readyReplicas"] == 1,
            "canary: {}",
            canary["status"]
        );
        let pods = self.space.pods("app=nginx").await?;
        let mounting = |name: &str| {
            let mounts = |p: &&Value| p["spec"]["volumes"][0]["configMap"]["name"] == name;
            pods.iter().filter(mounts).map(|p| p["metadata"]["labels"]["version"].clone()).collect::<Vec<_>>()
        };
        ensure!(mounting(CANARY) == [json!("canary")], "canary pods: {:?}", mounting(CANARY));
        ensure!(mounting(BASE) == vec![json!("base"); 5], "stable pods: {:?}", mounting(BASE));
        let rule = self.space.get(DESTINATION_RULE.0, DESTINATION_RULE.1, DESTINATION_RULE.2).await?;
        let expected = json!([{"name": "version-base", "labels": {"version": "base"}}, {"name": "canary", "labels": {"version": "canary"}}]);
        ensure!(rule["spec"]["subsets"] == expected, "subsets: {}", rule["spec"]["subsets"]);
        Ok(())
    }

    async fn http(&self) -> Result<Value> {
        Ok(self.space.get(VIRTUAL_SERVICE.0, VIRTUAL_SERVICE.1, VIRTUAL_SERVICE.2).await?["spec"]["http"].clone())
    }

    /// Step 1: a fifth of the requests.
    pub async fn a_fifth_goes_to_the_canary(&self, requests: usize) -> Result<()> {
        self.canary_beside_stable().await?;
        let http = self.http().await?;
        let weights: Vec<_> = http[0]["route"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|r| (&r["destination"]["subset"], &r["weight"]))
            .collect();
        ensure!(weights == [(&json!("version-base"), &json!(80)), (&json!("canary"), &json!(20))], "http: {http}");
        self.gateway().reaches(CANARY).await?;
        let tally = self.gateway().send(requests).await;
        eprintln!("e2e: {}: step 1: {tally}", self.space.name);
        tally.has_share(CANARY, 0.2)
    }

    /// Step 2: all requests with the header, and no other.
    pub async fn the_header_goes_to_the_canary(&self, requests: usize) -> Result<()> {
        self.canary_beside_stable().await?;
        let asking = self.gateway().with("version", "canary");
        asking.settles("the header leads to the canary", |t| t.only(CANARY)).await?;
        self.gateway().settles("all others are back at the stable version", |t| t.only(BASE)).await?;
        let everybody = self.gateway();
        let (with, without) = tokio::join!(asking.send(requests), everybody.send(requests));
        eprintln!("e2e: {}: step 2: with the header {with}; without {without}", self.space.name);
        with.only(CANARY)?;
        without.only(BASE)?;
        self.gateway().with("version", "other").send(50).await.only(BASE)
    }

    /// As the plugin's user approves.
    pub fn approve(&self) -> Result<()> {
        let said = kruise(&self.space.rig, &self.space.name, &["rollout", "approve", &format!("rollout/{ROLLOUT}")])?;
        ensure!(said.contains("approved"), "the plugin said: {said}");
        Ok(())
    }

    /// As `kubectl patch --subresource status` approves, and the original plugin, which may speak either version.
    pub async fn approve_by_patch(&self, version: &str) -> Result<()> {
        let api = self.space.rig.objects.api(&format!("rollouts.kruise.io/{version}"), "Rollout", &self.space.name);
        let patch = Patch::Merge(json!({"status": {"canaryStatus": {"currentStepState": "StepReady"}}}));
        api.patch_status(ROLLOUT, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// The end of a release to `version`: everything is as at the start, but for the version.
    pub async fn ended(self, version: &str) -> Result<()> {
        let succeeded = if version == CANARY { "True" } else { "False" };
        until(&format!("the release ends with {version}"), 2 * SOON, async || {
            let status = self.rollout().await?["status"].clone();
            let has = |kind: &str, value: &str| {
                let conditions = status["conditions"].as_array();
                conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == value)
            };
            ensure!(
                status["phase"] == "Healthy" && has("Succeeded", succeeded) && has("Progressing", "False"),
                "status: {status}"
            );
            Ok(())
        })
        .await?;
        let deployment = self.space.complete(DEPLOYMENT.2).await?;
        ensure!(self.canary().await?.is_none(), "the canary Deployment is still there");
        for (before, which) in &self.originals {
            let mut before = before.clone();
            let mut after = seen(&self.space.get(which.0, which.1, which.2).await?);
            if *which == DEPLOYMENT {
                before["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!(version);
                // The switch of the hold stays as long as a Rollout names the workload; the revision is the Deployment
                // controller's own.
                for side in [&mut before, &mut after] {
                    side["labels"].as_object_mut().map(|l| l.remove(WORKLOAD_TYPE));
                    side["annotations"].as_object_mut().map(|a| a.remove("deployment.kubernetes.io/revision"));
                }
            }
            ensure!(before == after, "{} {} is not as it was\nbefore: {before}\nafter: {after}", which.1, which.2);
        }
        ensure!(deployment["metadata"]["annotations"][IN_PROGRESSING].is_null(), "the mark is still there");
        until("only new pods are left", SOON, async || {
            let pods = self.space.pods("app=nginx").await?;
            let right = |p: &Value| {
                p["spec"]["volumes"][0]["configMap"]["name"] == version && p["metadata"]["labels"]["version"] == "base"
            };
            ensure!(pods.len() == 5 && pods.iter().all(right), "{} pods", pods.len());
            Ok(())
        })
        .await?;
        self.gateway().settles("only one version answers", |t| t.only(version)).await?;
        self.gateway().with("version", "canary").send(50).await.only(version)?;
        let moments = self.ledger.capacity_before_traffic(FEWEST_PODS)?;
        eprintln!("e2e: {}: capacity before traffic at each of {moments} moments", self.space.name);
        let tally = self.load.stop().await?;
        eprintln!("e2e: {}: steady load: {tally}", self.space.name);
        tally.none_failed()
    }
}

/// The whole story, with the plugin's approvals and the full number of requests.
pub async fn istio_story(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let story = Story::begin(&rig, "story").await?;
    story.release().await?;
    story.paused_at(1).await?;
    story.a_fifth_goes_to_the_canary(2000).await?;
    story.approve()?;
    // Once more for the same step, whether step 2 waits by now or not: it must not count for step 2.
    let again = kruise(&rig, "story", &["rollout", "approve", &format!("rollout/{ROLLOUT}"), "--step", "1"]);
    story.paused_at(2).await?;
    story.the_header_goes_to_the_canary(1000).await?;
    story.paused_at(2).await.with_context(|| format!("approving twice let a step slip; the plugin said {again:?}"))?;
    let name = format!("rollout/{ROLLOUT}");
    for args in [&["status", "--until=paused", &name][..], &["describe", &name], &["get", &name]] {
        let said = kruise(&rig, "story", &[&["rollout"], args].concat())?;
        ensure!(said.contains(ROLLOUT) || said.contains("step 2"), "kubectl-kruise rollout {args:?} said: {said}");
    }
    story.approve()?;
    story.ended(CANARY).await
}

/// Two releases in a row, approved as `kubectl patch` does it; the second leads back.
pub async fn kubectl_patch_approves(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let story = Story::begin(&rig, "kubectl-patch").await?;
    story.release().await?;
    story.paused_at(1).await?;
    story.approve_by_patch("v1alpha1").await?;
    story.paused_at(2).await?;
    story.the_header_goes_to_the_canary(200).await?;
    story.approve_by_patch("v1beta1").await?;
    story.ended(CANARY).await
}

/// The user changes back at step 1, and again at step 2: all requests return first, then the canary goes.
pub async fn rolling_back_loses_nothing(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let first = Story::begin(&rig, "back-at-one").await?;
    first.release().await?;
    first.paused_at(1).await?;
    first.gateway().reaches(CANARY).await?;
    first.mount(BASE).await?;
    let second = Story::begin(&rig, "back-at-two").await?;
    second.release().await?;
    second.paused_at(1).await?;
    second.approve()?;
    second.paused_at(2).await?;
    second.mount(BASE).await?;
    first.ended(BASE).await.context("rolled back at step 1")?;
    second.ended(BASE).await.context("rolled back at step 2")
}

/// A Rollout that is deleted, or disabled, in the middle puts the traffic back.
pub async fn leaving_midway_restores(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    for (name, delete) in [("deleted-midway", true), ("disabled-midway", false)] {
        let story = Story::begin(&rig, name).await?;
        story.release().await?;
        story.paused_at(1).await?;
        story.gateway().reaches(CANARY).await?;
        let (kind, version) = ("Rollout", "rollouts.kruise.io/v1beta1");
        if delete {
            rig.objects.kill(version, kind, name, ROLLOUT).await?;
        } else {
            story.space.merge(version, kind, ROLLOUT, json!({"spec": {"disabled": true}})).await?;
        }
        for (before, which) in story.originals.iter().take(2) {
            until(&format!("{} is as it was", which.2), SOON, async || {
                let after = seen(&story.space.get(which.0, which.1, which.2).await?);
                ensure!(*before == after, "{after}");
                Ok(())
            })
            .await
            .with_context(|| name.to_owned())?;
        }
        until("the canary Deployment is gone", SOON, async || {
            ensure!(story.canary().await?.is_none(), "still there");
            Ok(())
        })
        .await
        .with_context(|| name.to_owned())?;
        until("the Rollout has come to its end", SOON, async || match story.rollout().await {
            Ok(rollout) if !delete && rollout["status"]["phase"] == "Disabled" => Ok(()),
            Ok(rollout) => bail!("status: {}", rollout["status"]),
            Err(error) if delete && error.to_string().contains("NotFound") => Ok(()),
            Err(error) => Err(error),
        })
        .await
        .with_context(|| name.to_owned())?;
        // What is left is an ordinary Deployment, which rolls to what its user last asked for.
        story.space.complete(DEPLOYMENT.2).await?;
        story.gateway().settles("only the new version answers", |t| t.only(CANARY)).await?;
        story.ledger.capacity_before_traffic(FEWEST_PODS).with_context(|| name.to_owned())?;
        let tally = story.load.stop().await?;
        eprintln!("e2e: {name}: steady load: {tally}");
        tally.none_failed()?;
    }
    Ok(())
}

/// What others change in the routes during a release is still there after it.
pub async fn others_change_routes_meanwhile(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let mut story = Story::begin(&rig, "others").await?;
    story.release().await?;
    story.paused_at(1).await?;
    let metadata = json!({"labels": {"team": "web"}, "annotations": {"note": "kept"}});
    let policy = json!({"connectionPool": {"http": {"maxRetries": 7}}});
    let changes = [json!({"metadata": metadata}), json!({"metadata": metadata, "spec": {"trafficPolicy": policy}})];
    for ((before, (version, kind, name)), change) in story.originals.iter_mut().zip(changes) {
        story.space.merge(version, kind, name, change.clone()).await?;
        for part in ["labels", "annotations"] {
            for (key, value) in change["metadata"][part].as_object().into_iter().flatten() {
                before[part][key] = value.clone();
            }
        }
        if let Some(policy) = change["spec"]["trafficPolicy"].as_object() {
            before["spec"]["trafficPolicy"]["connectionPool"] = policy["connectionPool"].clone();
        }
    }
    story.a_fifth_goes_to_the_canary(500).await?;
    story.approve()?;
    story.paused_at(2).await?;
    story.the_header_goes_to_the_canary(200).await?;
    story.approve()?;
    story.ended(CANARY).await
}

/// How long a release goes from one stop to the next; a kill falls somewhere in there.
pub const BETWEEN_STOPS: Duration = Duration::from_secs(3);
