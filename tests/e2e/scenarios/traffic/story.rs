//! A recipe from the change to the end, under a steady load of which no request may fail.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::api::keys::WORKLOAD_TYPE;

use super::{Row, Via};
use crate::rig::{
    Rig,
    controller::kruise,
    load::{Steady, Tally, Target},
    poll::{SOON, until},
    space::{Space, example},
};

/// Requests of a steady load that a gateway may lose by its own doing, each in a moment of some milliseconds.
const MOST_FORGIVEN: usize = 10;

/// What a step of the recipe promises to users.
enum Promise {
    /// The share of all requests that the new version answers.
    Share(f64),
    /// Requests with this header go to the new version, and no others.
    Header(String, String),
}

impl Promise {
    fn of(step: &Value) -> Result<Promise> {
        if let Some(traffic) = step["traffic"].as_str() {
            return Ok(Promise::Share(traffic.trim_end_matches('%').parse::<f64>()? / 100.0));
        }
        let header = &step["matches"][0]["headers"][0];
        match (header["name"].as_str(), header["value"].as_str()) {
            (Some(name), Some(value)) => Ok(Promise::Header(name.to_owned(), value.to_owned())),
            _ => bail!("a step with neither a share nor a header: {step}"),
        }
    }
}

/// A recipe on its way in a namespace of its own.
pub struct Story {
    pub space: Space,
    row: &'static Row,
    users: Target,
    promises: Vec<Promise>,
    /// Routes as their user wrote them.
    routes: Vec<(String, String, String, Value)>,
    /// What pods of the two versions call themselves.
    pub old: String,
    pub new: String,
}

/// What a user may see of an object.
fn seen(object: &Value) -> Value {
    json!([object["spec"], object["metadata"]["labels"], object["metadata"]["annotations"]])
}

impl Story {
    /// The gateway answers with the old version, and the Rollout has taken note.
    pub async fn begin(rig: &Arc<Rig>, row: &'static Row, change: impl Fn(&mut Value)) -> Result<Story> {
        row.via.up(rig).await?;
        let space = rig.space(&format!("traffic-{}", row.name.replace('_', "-"))).await?;
        let mut objects = example(row.example)?;
        if !objects.iter().any(|o| o["metadata"]["name"] == "legacy") {
            // Some routes of the recipes share with another Service.
            objects.extend(example("gateway-api")?.into_iter().filter(|o| o["metadata"]["name"] == "legacy"));
        }
        objects.extend(row.more());
        let mut objects: Vec<Value> = objects.iter().filter_map(|o| row.via.adapt(o, &space)).collect();
        objects.iter_mut().for_each(change);
        let mut routes = Vec::new();
        let (mut promises, mut old) = (Vec::new(), None);
        for object in &objects {
            let applied = space.apply(object).await?;
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let (version, kind, name) =
                (text(&object["apiVersion"]), text(&object["kind"]), text(&object["metadata"]["name"]));
            match kind.as_str() {
                "HTTPRoute" | "HTTPProxy" | "IngressRoute" | "TraefikService" | "Ingress" => {
                    routes.push((version, kind, name, seen(&applied)));
                }
                "Rollout" => {
                    let steps = object["spec"]["strategy"]["canary"]["steps"].as_array().context("no steps")?;
                    promises = steps.iter().map(Promise::of).collect::<Result<_>>()?;
                }
                "Deployment" if name == row.workload => {
                    let pod = &object["spec"]["template"]["spec"];
                    let mounted = &pod["volumes"][0]["configMap"]["name"];
                    old = mounted.as_str().or(pod["containers"][0]["image"].as_str()).map(str::to_owned);
                }
                _ => {}
            }
        }
        let old = old.context("no Deployment")?;
        // Either recipe's user changes what its pods mount, or their image.
        let new = if old.ends_with("-base") { old.replace("-base", "-canary") } else { format!("{old}-next") };
        let users = row.via.target(&space, row.workload);
        let story = Story { users, space, row, promises, routes, old, new };
        story.space.complete(row.workload).await?;
        story.space.complete("legacy").await?;
        story.users.settles("the gateway answers with the old version", |t| t.only(&story.old)).await?;
        until("the Rollout is Healthy and its Deployment under the hold", SOON, async || {
            let status = story.status().await?;
            ensure!(status["phase"] == "Healthy", "status: {status}");
            let labels = story.deployment().await?["metadata"]["labels"].clone();
            ensure!(!labels[WORKLOAD_TYPE].is_null(), "labels: {labels}");
            Ok(())
        })
        .await?;
        Ok(story)
    }

    async fn deployment(&self) -> Result<Value> {
        self.space.get("apps/v1", "Deployment", self.row.workload).await
    }

    pub async fn status(&self) -> Result<Value> {
        let rollout = self.space.get("rollouts.kruise.io/v1beta1", "Rollout", self.row.workload).await?;
        Ok(rollout["status"].clone())
    }

    /// The user's change; `more` are further operations of the same patch.
    pub async fn release(&self, more: &[Value]) -> Result<()> {
        let pod = "/spec/template/spec";
        let path = if self.new.ends_with("-canary") { "volumes/0/configMap/name" } else { "containers/0/image" };
        let mut patch = vec![json!({"op": "replace", "path": format!("{pod}/{path}"), "value": self.new})];
        patch.extend_from_slice(more);
        let api = self.space.rig.objects.api("apps/v1", "Deployment", &self.space.name);
        let patch = Patch::Json::<()>(serde_json::from_value(Value::Array(patch))?);
        api.patch(self.row.workload, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// A load of 100 requests a second.
    pub fn load(&self) -> Steady {
        self.users.steady(100)
    }

    async fn paused_at(&self, step: usize) -> Result<()> {
        until(&format!("step {step} waits for an approval"), 2 * SOON, async || {
            let status = self.status().await?;
            let release = &status["canaryStatus"];
            let waits = release["currentStepIndex"] == step && release["currentStepState"] == "StepPaused";
            ensure!(waits, "status: {status}");
            Ok(())
        })
        .await
    }

    /// The release is over, the routes are as their user wrote them, and only `version` answers.
    pub async fn ended(&self, version: &str) -> Result<()> {
        let succeeded = if version == self.new { "True" } else { "False" };
        until(&format!("the release ends with {version}"), 3 * SOON, async || {
            let status = self.status().await?;
            let conditions = status["conditions"].as_array();
            let ended = conditions.into_iter().flatten().any(|c| c["type"] == "Succeeded" && c["status"] == succeeded);
            ensure!(status["phase"] == "Healthy" && ended, "status: {status}");
            Ok(())
        })
        .await?;
        for (api_version, kind, name, before) in &self.routes {
            let after = seen(&self.space.get(api_version, kind, name).await?);
            ensure!(*before == after, "{kind} {name} is not as it was\nbefore: {before}\nafter: {after}");
        }
        self.users.settles("only one version answers", |t| t.only(version)).await
    }

    /// No request failed, but for the few that are the gateway's own doing; nobody but the two versions answered.
    pub fn undisturbed(&self, tally: &Tally) -> Result<()> {
        ensure!(
            tally.forgiven <= MOST_FORGIVEN,
            "more than {MOST_FORGIVEN} requests failed by the gateway's doing: {tally}"
        );
        let strangers = tally.samples.len() - tally.failures().len() - tally.of(&self.old) - tally.of(&self.new);
        ensure!(strangers == 0, "{strangers} requests were answered by others: {tally}");
        tally.none_failed()
    }

    pub fn says(&self, what: &str) {
        eprintln!("e2e: {}: {what}", self.space.name);
    }

    /// Requests of `step` get what it promises.
    async fn keeps(&self, promise: &Promise) -> Result<()> {
        match promise {
            Promise::Share(share) => {
                // The step counts as done because the gateway has said so, where it says so. The rest is the time that a
                // change takes from there into Envoy.
                self.users.reaches(&self.new).await?;
                // Of one share after another: the gateway may still be on its way from the step before.
                until("the gateway has the share of the step", SOON, async || {
                    self.users.send(400).await.has_share(&self.new, *share)
                })
                .await?;
                let tally = self.users.send(2000).await;
                self.says(&format!("{share}: {tally}"));
                self.undisturbed(&tally)?;
                tally.has_share(&self.new, *share)
            }
            Promise::Header(name, value) => {
                let asking = self.users.with(name, value);
                asking.settles("the header leads to the new version", |t| t.only(&self.new)).await?;
                self.users.settles("all others get the old version", |t| t.only(&self.old)).await?;
                let (with, without) = tokio::join!(asking.send(1000), self.users.send(1000));
                self.says(&format!("{name}: {value}: with the header {with}; without {without}"));
                with.only(&self.new)?;
                without.only(&self.old)?;
                self.users.with(name, "other").send(50).await.only(&self.old)
            }
        }
    }

    /// A rule that gives another Service a share of 40 % goes on to do so.
    async fn shares_with_another(&self, promise: &Promise) -> Result<()> {
        let Promise::Share(share) = promise else { return Ok(()) };
        if ["nginx", "traefik-service"].contains(&self.row.example) {
            return Ok(());
        }
        let tally = self.users.at("/api").send(1000).await;
        self.says(&format!("/api: {tally}"));
        tally.has_share("legacy:0.9.0", 0.4)?;
        tally.has_share(&self.new, 0.6 * share)
    }
}

/// How long after a moment the gateway did what the next step promises: the first answer of the new version where only
/// the old one answered before, else the last one of the old version.
async fn reaction(
    story: &Story,
    load: &Steady,
    before: Option<&Promise>,
    now: Option<&Promise>,
    at: Instant,
) -> Option<(&'static str, Duration)> {
    match (before, now) {
        (None | Some(Promise::Header(..)), Some(Promise::Share(_))) => {
            load.first(&story.new, at).await.map(|time| ("first answer of the new version", time))
        }
        (_, None) => Some(("last answer of the old version", load.last_other(&story.new, at).await)),
        (Some(Promise::Share(_)), Some(Promise::Header(..))) => {
            Some(("last answer of the new version without the header", load.last_other(&story.old, at).await))
        }
        _ => None,
    }
}

/// The whole recipe, approved by hand.
pub async fn play(rig: Arc<Rig>, row: &'static Row) -> Result<()> {
    let _controller = rig.with_controller().await?;
    let story = Story::begin(&rig, row, |_| {}).await?;
    let load = story.load();
    let mut moment = Instant::now();
    let mut before = None;
    story.release(&[]).await?;
    for (index, promise) in story.promises.iter().enumerate() {
        let step = index + 1;
        story.paused_at(step).await?;
        load.check(&format!("step {step}")).await?;
        story.keeps(promise).await.with_context(|| format!("step {step}"))?;
        story.shares_with_another(promise).await.with_context(|| format!("step {step}, /api"))?;
        if let Some((what, time)) = reaction(&story, &load, before, Some(promise), moment).await {
            let since = if index == 0 { "the change" } else { "the approval" };
            story.says(&format!("step {step}: {what} {:.3} s after {since}", time.as_secs_f64()));
        }
        moment = Instant::now();
        let said = kruise(&rig, &story.space.name, &["rollout", "approve", &format!("rollout/{}", row.workload)])?;
        ensure!(said.contains("approved"), "the plugin said: {said}");
        before = Some(promise);
    }
    story.ended(&story.new).await?;
    if let Some((what, time)) = reaction(&story, &load, before, None, moment).await {
        story.says(&format!("end: {what} {:.3} s after the approval", time.as_secs_f64()));
    }
    let tally = load.stop().await?;
    story.says(&format!("steady load: {tally}"));
    story.undisturbed(&tally)
}

impl Row {
    /// What a recipe takes for granted.
    fn more(&self) -> Vec<Value> {
        match self.via {
            Via::Traefik if self.example == "traefik-service" => vec![
                json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "shop"}, "spec": {
                "entryPoints": ["web"], "routes": [{"kind": "Rule", "match": "Host(`shop.example.com`)",
                    "services": [{"kind": "TraefikService", "name": "shop"}]}]}}),
            ],
            Via::Traefik => vec![
                json!({"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": {"name": "compress"},
                "spec": {"compress": {}}}),
            ],
            _ => Vec::new(),
        }
    }
}
