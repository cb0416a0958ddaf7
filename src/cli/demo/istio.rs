//! The story of `examples/istio`.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use include_dir::{Dir, include_dir};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::{
    screen::Screen,
    world::{install, manifests, perform},
};
use crate::{
    api::{
        conditions::phases,
        keys,
        object::{self, at},
        v1beta1::Rollout,
    },
    cli::rollout::approve::approval_patch,
    sim::{Cluster, Gvr},
};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/istio");

const NAMESPACE: &str = "default";

/// Plays the story; an error when it does not end as it should.
pub async fn play(screen: Screen) -> anyhow::Result<()> {
    let objects = manifests(&MANIFESTS)?;
    let (rollout, others): (Vec<Value>, Vec<Value>) = objects.into_iter().partition(|o| o["kind"] == "Rollout");
    let mut builder = install(Cluster::builder())?.namespace("kruise-rollout");
    for (plural, kind) in
        [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule"), ("gateways", "Gateway")]
    {
        builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
    }
    perform(builder, others, |_, options| options, async |cluster| Story { cluster, screen }.tell(rollout).await).await
}

struct Story {
    cluster: Cluster,
    screen: Screen,
}

impl Story {
    async fn tell(&self, rollout: Vec<Value>) -> anyhow::Result<()> {
        let screen = &self.screen;
        screen.scene("Version base runs; a Rollout names it")?;
        self.until("the Deployment is available", |s| s.count("nginx-deployment", "availableReplicas") == 5).await?;
        let originals = self.routes()?;
        screen.command("kubectl apply -f examples/istio/rollout.yaml");
        for object in rollout {
            self.cluster.create(object).map_err(|status| anyhow::anyhow!(status.message))?;
        }
        self.until("the Rollout is healthy", |s| s.status("phase") == phases::HEALTHY).await?;
        self.show_pods();
        screen.fact("rollout", &self.message());

        screen.scene("The user changes the ConfigMap volume to nginx-configmap-canary")?;
        screen.command("kubectl patch deployment nginx-deployment --type=json -p '[{\"op\": \"replace\", …}]'");
        self.change_volume("nginx-configmap-canary").await?;
        screen.fact("held", "the API server stored the change with paused: true, in the same write");
        self.until_paused(1).await?;
        self.show_step(&originals)?;

        screen.scene("Step 1 is good")?;
        let after_first = self.routes()?;
        self.approve().await?;
        self.until_paused(2).await?;
        self.show_step(&after_first)?;

        screen.scene("Step 2 is good: the release finishes")?;
        let after_second = self.routes()?;
        self.approve().await?;
        self.until("the release is completed", |s| s.status("phase") == phases::HEALTHY && s.step() == "Completed")
            .await?;
        self.until("the last pods have come and gone", |s| s.pods().len() == 5 && s.pods().iter().all(|p| is_ready(p)))
            .await?;
        self.show_step(&after_second)?;
        self.check_end(&originals)
    }

    fn check_end(&self, originals: &[(String, Value)]) -> anyhow::Result<()> {
        for ((name, before), (_, after)) in originals.iter().zip(self.routes()?) {
            ensure!(*before == after, "{name} differs from what it was before the release");
        }
        ensure!(
            self.get("apps/v1", "deployments", "nginx-deployment-canary").is_none(),
            "the canary Deployment is left"
        );
        let new = "nginx-configmap-canary";
        ensure!(self.pods().iter().all(|p| volume(p) == new), "a pod of the old version is left");
        self.screen
            .fact("end", "VirtualService and DestinationRule equal their originals; every pod runs the new version");
        self.screen.fact("writes", &format!("{} in all, by everyone in the cluster", self.cluster.writes()));
        Ok(())
    }

    /// Lets virtual time pass until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Story) -> bool) -> anyhow::Result<()> {
        let begun = self.cluster.clock().now();
        while !holds(self) {
            if self.cluster.clock().now().duration_since(begun).as_secs() > 300 {
                bail!("waited five minutes of the cluster's time until {what}; the Rollout says: {}", self.message());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn until_paused(&self, step: i64) -> anyhow::Result<()> {
        let what = format!("step {step} waits for approval");
        self.until(&what, |s| s.step() == "StepPaused" && s.rollout_int("currentStepIndex") == step).await
    }

    async fn change_volume(&self, config_map: &str) -> anyhow::Result<()> {
        let patch: json_patch::Patch = serde_json::from_value(json!([
            {"op": "replace", "path": "/spec/template/spec/volumes/0/configMap/name", "value": config_map}
        ]))?;
        self.api("apps/v1", "Deployment")
            .patch("nginx-deployment", &PatchParams::default(), &Patch::<Value>::Json(patch))
            .await?;
        Ok(())
    }

    async fn approve(&self) -> anyhow::Result<()> {
        self.screen.command("kubectl-kruise rollout approve rollout/rollouts-demo");
        let rollouts: Api<Rollout> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        let rollout = rollouts.get("rollouts-demo").await?;
        let patch = approval_patch(&rollout)?;
        rollouts.patch_status("rollouts-demo", &PatchParams::default(), &Patch::<Value>::Json(patch)).await?;
        println!("rollout.rollouts.kruise.io/rollouts-demo approved");
        Ok(())
    }

    fn show_step(&self, before: &[(String, Value)]) -> anyhow::Result<()> {
        self.show_pods();
        self.screen.fact("requests", &self.share()?);
        for ((name, before), (_, after)) in before.iter().zip(self.routes()?) {
            self.screen.diff(name, before, &after)?;
        }
        self.screen.fact("rollout", &self.message());
        Ok(())
    }

    fn show_pods(&self) {
        let (mut stable, mut canary) = ((0, 0), (0, 0));
        for pod in self.pods() {
            let group = if object::label(&pod, keys::CANARY_DEPLOYMENT).is_some() { &mut canary } else { &mut stable };
            group.1 += 1;
            group.0 += i32::from(is_ready(&pod));
        }
        self.screen.fact("stable pods", &format!("{} of {} ready", stable.0, stable.1));
        self.screen.fact("canary pods", &format!("{} of {} ready", canary.0, canary.1));
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        let pods = self.cluster.list(&gvr("v1", "pods"), Some(NAMESPACE));
        pods.into_iter().filter(|p| !object::is_deleting(p)).collect()
    }

    /// Which share of requests goes where, with and without the header, as the VirtualService says.
    fn share(&self) -> anyhow::Result<String> {
        let service = self.get("networking.istio.io/v1", "virtualservices", "nginx-vs").context("nginx-vs is gone")?;
        let rules = at(&service, &["spec", "http"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let route = |matches: bool| {
            rules
                .iter()
                .find(|rule| matches || rule.get("match").is_none())
                .and_then(|rule| rule.get("route")?.as_array().cloned())
                .unwrap_or_default()
                .iter()
                .map(|to| {
                    let weight = object::int(to, &["weight"]).unwrap_or(100);
                    format!("{weight} % to subset {}", object::text(to, &["destination", "subset"]))
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (with, without) = (route(true), route(false));
        Ok(if with == without { without } else { format!("with header version: canary {with}; without {without}") })
    }

    fn routes(&self) -> anyhow::Result<Vec<(String, Value)>> {
        [("virtualservices", "VirtualService", "nginx-vs"), ("destinationrules", "DestinationRule", "nginx-dr")]
            .into_iter()
            .map(|(plural, kind, name)| {
                let object =
                    self.get("networking.istio.io/v1", plural, name).with_context(|| format!("{name} is gone"))?;
                let mut annotations = at(&object, &["metadata", "annotations"]).cloned().unwrap_or_else(|| json!({}));
                // Bookkeeping: the object before the release, as text.
                if let Some(annotations) = annotations.as_object_mut() {
                    annotations.remove(keys::ORIGINAL_SPEC);
                }
                let mut shown = json!({"spec": object.get("spec")});
                if annotations != json!({}) {
                    shown = json!({"metadata": {"annotations": annotations}, "spec": object.get("spec")});
                }
                Ok((format!("{kind} {name}"), shown))
            })
            .collect()
    }

    fn get(&self, version: &str, plural: &str, name: &str) -> Option<Arc<Value>> {
        self.cluster.get(&gvr(version, plural), NAMESPACE, name)
    }

    fn rollout(&self) -> Option<Arc<Value>> {
        self.get("rollouts.kruise.io/v1beta1", "rollouts", "rollouts-demo")
    }

    fn status(&self, field: &str) -> String {
        self.rollout().map(|r| object::text(&r, &["status", field]).to_owned()).unwrap_or_default()
    }

    fn rollout_int(&self, field: &str) -> i64 {
        self.rollout().and_then(|r| object::int(&r, &["status", field])).unwrap_or_default()
    }

    fn step(&self) -> String {
        self.status("currentStepState")
    }

    fn message(&self) -> String {
        format!("{}, {}: {}", self.status("phase"), self.step(), self.status("message"))
    }

    fn count(&self, deployment: &str, field: &str) -> i64 {
        self.get("apps/v1", "deployments", deployment)
            .and_then(|d| object::int(&d, &["status", field]))
            .unwrap_or_default()
    }

    fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.cluster.client("user"), NAMESPACE, &resource)
    }
}

fn gvr(api_version: &str, plural: &str) -> Gvr {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Gvr::new(group, version, plural)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = at(pod, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|c| object::text(c, &["type"]) == "Ready" && object::text(c, &["status"]) == "True")
}

fn volume(pod: &Value) -> &str {
    let volumes = at(pod, &["spec", "volumes"]).and_then(Value::as_array).into_iter().flatten();
    volumes.into_iter().map(|v| object::text(v, &["configMap", "name"])).find(|n| !n.is_empty()).unwrap_or_default()
}
