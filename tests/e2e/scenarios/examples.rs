//! `examples/<kind>`, as their pages tell a user to play them: applied as they are, given another image, approved step by
//! step.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::{
    api::{
        keys::{IN_PROGRESSING, ORIGINAL_PARTITION, ORIGINAL_STRATEGY_TYPE},
        object,
    },
    workload,
};

use crate::rig::{
    Rig,
    kruise::Kruise,
    poll::{SOON, until},
    space::{Space, example},
};

const ROLLOUT: (&str, &str) = ("rollouts.kruise.io/v1beta1", "Rollout");

/// One story a kind.
pub const STORIES: [&str; 6] =
    ["statefulset", "daemonset", "cloneset", "advanced-statefulset", "advanced-daemonset", "statefulset-like"];

/// A story on its way.
struct Play {
    space: Space,
    workload: (String, String, String),
    rollout: String,
}

impl Play {
    async fn workload(&self) -> Result<Value> {
        let (api_version, kind, name) = &self.workload;
        self.space.get(api_version, kind, name).await
    }

    async fn status(&self) -> Result<Value> {
        Ok(self.space.get(ROLLOUT.0, ROLLOUT.1, &self.rollout).await?["status"].clone())
    }

    /// What the page says to patch.
    async fn release(&self, dry_run: bool) -> Result<Value> {
        let (api_version, kind, name) = &self.workload;
        let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "app:2"}]);
        let patch = Patch::Json::<()>(serde_json::from_value(image)?);
        let params = PatchParams { dry_run, ..Default::default() };
        let api = self.space.rig.objects.api(api_version, kind, &self.space.name);
        Ok(serde_json::to_value(api.patch(name, &params, &patch).await?)?)
    }

    /// Ready pods of an image.
    async fn ready(&self, image: &str) -> Result<usize> {
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let pods = self.space.pods("").await?;
        Ok(pods.iter().filter(|pod| pod["spec"]["containers"][0]["image"] == image).filter(is_ready).count())
    }
}

/// All scenarios share one cluster: its daemons run on these nodes only, and nobody else does.
async fn on_nodes_of_its_own(space: &Space, daemon_set: &mut Value) -> Result<()> {
    for n in 0..4 {
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("{}-{n}", space.name), "labels": {"story": space.name}},
            "spec": {"taints": [{"key": "story", "effect": "NoSchedule"}]}});
        space.rig.objects.apply(&node).await?;
    }
    let spec = json!({"nodeSelector": {"story": space.name}, "tolerations": [{"key": "story", "operator": "Exists"}]});
    json_patch::merge(&mut daemon_set["spec"]["template"]["spec"], &spec);
    Ok(())
}

/// Plays one story.
pub async fn play(rig: Arc<Rig>, name: &'static str) -> Result<()> {
    let _kruise = Kruise::shared(&rig.objects).await?;
    let _controller = rig.with_controller().await?;
    let space = rig.space(&format!("example-{name}")).await?;
    let objects = example(name)?;
    let rollout = objects.iter().find(|object| object["kind"] == ROLLOUT.1).context("no Rollout")?;
    let reference = |field: &str| rollout["spec"]["workloadRef"][field].as_str().unwrap_or_default().to_owned();
    let workload = (reference("apiVersion"), reference("kind"), reference("name"));
    let strategy = &rollout["spec"]["strategy"];
    let steps = [&strategy["canary"], &strategy["blueGreen"]].into_iter().find_map(|s| s["steps"].as_array());
    let steps = steps.context("no steps")?.len();
    let is_blue_green = strategy["canary"].is_null();
    for object in &objects {
        let mut object = object.clone();
        if object["kind"] == "DaemonSet" {
            on_nodes_of_its_own(&space, &mut object).await?;
        }
        space.apply(&object).await?;
    }
    let play = Play { space, workload, rollout: object::name(rollout).to_owned() };
    let kind = workload::kind(object::group(&play.workload.0), &play.workload.1).context("no kind")?;
    let all = until(&format!("{name} is under the hold, and its pods are ready"), 2 * SOON, async || {
        let workload = play.workload().await?;
        let read = (kind.read)(kind, &Arc::new(workload.clone()), &workload::Surroundings::default());
        ensure!(read.is_switched_on() && read.replicas > 0, "{}", workload["metadata"]["labels"]);
        let ready = play.ready("app:1").await?;
        ensure!(i32::try_from(ready)? == read.replicas, "{ready} of {} are ready", read.replicas);
        ensure!(play.status().await?["phase"] == "Healthy", "{}", play.status().await?);
        let answer = play.release(true).await?;
        ensure!(!answer["metadata"]["annotations"][IN_PROGRESSING].is_null(), "a write would not be held yet");
        Ok(ready)
    })
    .await?;
    let before = play.workload().await?["spec"].clone();
    play.release(false).await?;
    for step in 1..=steps {
        // A last step without a pause of its own, of all pods, waits for nobody in place.
        if step < steps || is_blue_green {
            until(&format!("step {step} waits"), 2 * SOON, async || {
                let status = play.status().await?;
                let sub = if is_blue_green { &status["blueGreenStatus"] } else { &status["canaryStatus"] };
                ensure!(sub["currentStepIndex"] == step && sub["pausedStepIndex"] == step, "{status}");
                Ok(())
            })
            .await?;
            let (old, new) = (play.ready("app:1").await?, play.ready("app:2").await?);
            ensure!(new > 0 && (is_blue_green || old + new >= all - 1) && old > 0, "step {step}: {old} old, {new} new");
            let sub = if is_blue_green { "blueGreenStatus" } else { "canaryStatus" };
            let api = play.space.rig.objects.api(ROLLOUT.0, ROLLOUT.1, &play.space.name);
            let approved = Patch::Merge(json!({"status": {sub: {"currentStepState": "StepReady"}}}));
            api.patch_status(&play.rollout, &PatchParams::default(), &approved).await?;
        }
    }
    until(&format!("{name} ends"), 2 * SOON, async || {
        let status = play.status().await?;
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let succeeded = conditions.into_iter().any(|c| c["type"] == "Succeeded" && c["status"] == "True");
        ensure!(status["phase"] == "Healthy" && succeeded, "{status}");
        let (old, new) = (play.ready("app:1").await?, play.ready("app:2").await?);
        ensure!((old, new) == (0, all), "{old} old, {new} new of {all}");
        Ok(())
    })
    .await?;
    let after = play.workload().await?;
    let mut wanted = before;
    wanted["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    ensure!(wanted == after["spec"], "it is not as it was\nbefore: {wanted}\nafter: {}", after["spec"]);
    for key in [IN_PROGRESSING, ORIGINAL_PARTITION, ORIGINAL_STRATEGY_TYPE] {
        ensure!(after["metadata"]["annotations"][key].is_null(), "{key} is left");
    }
    Ok(())
}
