//! The stories of `examples/statefulset`, `daemonset`, `cloneset`, of the Advanced kinds and of one that nobody knows by
//! name: a change of the image goes
//! through the steps of the Rollout, and every setting of the workload comes back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use include_dir::{Dir, include_dir};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
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
        object::{self, at},
        v1beta1::Rollout,
    },
    cli::rollout::approve::approval_patch,
    sim::{Cluster, Gvr},
    workload::{self, hold::ANY},
};

/// Those parts of OpenKruise's definitions that its controllers in the in-memory cluster know.
static DEFINITIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/tests/e2e/crds");
const NAMESPACE: &str = "default";
const NODES: u32 = 4;

/// A folder of `examples/`.
pub struct Example {
    /// Its name.
    pub name: &'static str,
    /// Its files.
    pub files: &'static Dir<'static>,
}

static STATEFUL_SET_FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/statefulset");
static DAEMON_SET_FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/daemonset");
static CLONE_SET_FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/cloneset");
static ADVANCED_STATEFUL_SET_FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/advanced-statefulset");
static ADVANCED_DAEMON_SET_FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/advanced-daemonset");
static STATEFUL_SET_LIKE_FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/statefulset-like");

/// A StatefulSet, from its last pod on.
pub const STATEFUL_SET: Example = Example { name: "statefulset", files: &STATEFUL_SET_FILES };
/// A DaemonSet, node by node.
pub const DAEMON_SET: Example = Example { name: "daemonset", files: &DAEMON_SET_FILES };
/// A CloneSet with a full new set beside the old one.
pub const CLONE_SET: Example = Example { name: "cloneset", files: &CLONE_SET_FILES };
/// An Advanced StatefulSet that updates several pods at a time, in place.
pub const ADVANCED_STATEFUL_SET: Example =
    Example { name: "advanced-statefulset", files: &ADVANCED_STATEFUL_SET_FILES };
/// An Advanced DaemonSet whose new pod comes before the old one goes.
pub const ADVANCED_DAEMON_SET: Example = Example { name: "advanced-daemonset", files: &ADVANCED_DAEMON_SET_FILES };
/// A kind that nobody knows by name, and whose owner says that it behaves as a StatefulSet.
pub const STATEFUL_SET_LIKE: Example = Example { name: "statefulset-like", files: &STATEFUL_SET_LIKE_FILES };

/// Plays the story of an example; an error when it does not end as it should.
pub async fn play(example: &Example, screen: Screen) -> anyhow::Result<()> {
    let objects = manifests(example.files)?;
    let (mut rollouts, others): (Vec<Value>, Vec<Value>) = objects.into_iter().partition(|o| o["kind"] == "Rollout");
    let rollout = rollouts.pop().context("the example has no Rollout")?;
    let mut builder = install(Cluster::builder())?.namespace("kruise-rollout").nodes(NODES);
    for definition in manifests(&DEFINITIONS)? {
        builder = builder.definition(definition);
    }
    perform(
        builder,
        others,
        |_, options| options,
        async |cluster| Story::of(cluster, screen, example.name, &rollout)?.tell(rollout).await,
    )
    .await
}

struct Story {
    cluster: Cluster,
    screen: Screen,
    example: &'static str,
    api_version: String,
    kind: String,
    plural: String,
    name: String,
    rollout: String,
    steps: usize,
}

impl Story {
    fn of(cluster: Cluster, screen: Screen, example: &'static str, rollout: &Value) -> anyhow::Result<Story> {
        let text = |field: &str| object::text(rollout, &["spec", "workloadRef", field]).to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let row = workload::kind(object::group(&api_version), &kind).context("the example's kind is not known")?;
        let rule = row.hold(&api_version).context("the example's version is not known")?;
        let plural = match rule.resource {
            ANY => ApiResource::from_gvk(&GroupVersionKind::gvk("", "", &kind)).plural,
            plural => plural.to_owned(),
        };
        let steps = ["canary", "blueGreen"].iter().find_map(|style| at(rollout, &["spec", "strategy", style, "steps"]));
        let steps = steps.and_then(Value::as_array).map_or(0, Vec::len);
        let (name, rollout) = (text("name"), object::name(rollout).to_owned());
        Ok(Story { cluster, screen, example, api_version, kind, plural, name, rollout, steps })
    }

    async fn tell(&self, rollout: Value) -> anyhow::Result<()> {
        let screen = &self.screen;
        screen.scene(&format!("{} {} runs version 1; a Rollout names it", self.kind, self.name))?;
        self.until("all pods are ready", |s| s.are_ready("1")).await?;
        let before = self.spec()?;
        screen.command(&format!("kubectl apply -f examples/{}/rollout.yaml", self.example));
        self.cluster.create(rollout).map_err(|status| anyhow::anyhow!(status.message))?;
        self.until("the Rollout is healthy", |s| s.status("phase") == phases::HEALTHY).await?;
        self.show(&before)?;

        screen.scene("The user changes the image")?;
        screen.command(&format!("kubectl set image {}/{} app=app:2", self.plural, self.name));
        self.set_image("app:2").await?;
        screen.fact("held", "the API server stored the change and shut the workload, in the same write");
        for step in 1..=self.steps {
            let waits = |s: &Story| s.step() == "StepPaused" && s.index() == i64::try_from(step).unwrap_or(0);
            let is_over = |s: &Story| step > 1 && s.status("phase") == phases::HEALTHY && s.step() == "Completed";
            self.until(&format!("step {step} waits for approval"), |s| waits(s) || is_over(s)).await?;
            if is_over(self) {
                // A last step of all pods asks nobody.
                break;
            }
            self.show(&before)?;
            screen.scene(&format!("Step {step} is good"))?;
            self.approve().await?;
        }
        self.until("the release is completed", |s| s.status("phase") == phases::HEALTHY && s.step() == "Completed")
            .await?;
        self.until("all pods are new", |s| s.are_ready("2")).await?;
        self.show(&before)?;
        let mut after = self.spec()?;
        if let (Some(after), Some(template)) = (after.as_object_mut(), before.get("template")) {
            after.insert("template".to_owned(), template.clone());
        }
        ensure!(after == before, "the workload differs from what it was: {after}");
        screen.fact("end", "every setting of the workload is what it was; every pod runs version 2");
        Ok(())
    }

    /// Lets virtual time pass until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Story) -> bool) -> anyhow::Result<()> {
        let begun = self.cluster.clock().now();
        while !holds(self) {
            if self.cluster.clock().now().duration_since(begun).as_secs() > 300 {
                let message = self.status("message");
                bail!("waited five minutes of the cluster's time until {what}; the Rollout says: {message}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Pods by version, and how the workload's settings differ from the user's.
    fn show(&self, before: &Value) -> anyhow::Result<()> {
        let mut count = BTreeMap::<String, usize>::new();
        for pod in self.pods().iter().filter(|pod| workload::pods::is_ready(pod)) {
            *count.entry(version(pod).to_owned()).or_default() += 1;
        }
        let pods: Vec<String> = count.iter().map(|(version, n)| format!("{n} of version {version}")).collect();
        self.screen.fact("ready pods", &pods.join(", "));
        let without_template = |spec: &Value| {
            let mut spec = spec.clone();
            spec.as_object_mut().map(|spec| spec.remove("template"));
            spec
        };
        self.screen.diff("settings", &without_template(before), &without_template(&self.spec()?))?;
        let (phase, message) = (self.status("phase"), self.status("message"));
        self.screen.fact("rollout", &format!("{phase}, {}: {message}", self.step()));
        Ok(())
    }

    fn are_ready(&self, of_version: &str) -> bool {
        let pods = self.pods();
        let wanted = self.workload().and_then(|w| object::int(&w, &["spec", "replicas"])).unwrap_or(i64::from(NODES));
        i64::try_from(pods.len()) == Ok(wanted)
            && pods.iter().all(|pod| workload::pods::is_ready(pod) && version(pod) == of_version)
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        let pods = self.cluster.list(&Gvr::new("", "v1", "pods"), Some(NAMESPACE));
        pods.into_iter().filter(|pod| !object::is_deleting(pod)).collect()
    }

    async fn set_image(&self, image: &str) -> anyhow::Result<()> {
        let patch: json_patch::Patch = serde_json::from_value(json!([
            {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}
        ]))?;
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &self.kind), &self.plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.cluster.client("user"), NAMESPACE, &resource);
        api.patch(&self.name, &PatchParams::default(), &Patch::<Value>::Json(patch)).await?;
        Ok(())
    }

    async fn approve(&self) -> anyhow::Result<()> {
        self.screen.command(&format!("kubectl-kruise rollout approve rollout/{}", self.rollout));
        let rollouts: Api<Rollout> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        let patch = approval_patch(&rollouts.get(&self.rollout).await?)?;
        rollouts.patch_status(&self.rollout, &PatchParams::default(), &Patch::<Value>::Json(patch)).await?;
        Ok(())
    }

    fn workload(&self) -> Option<Arc<Value>> {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        self.cluster.get(&Gvr::new(group, version, &self.plural), NAMESPACE, &self.name)
    }

    fn spec(&self) -> anyhow::Result<Value> {
        self.workload().and_then(|w| w.get("spec").cloned()).context("the workload is gone")
    }

    fn rollout(&self) -> Option<Arc<Value>> {
        self.cluster.get(&Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts"), NAMESPACE, &self.rollout)
    }

    fn status(&self, field: &str) -> String {
        self.rollout().map(|r| object::text(&r, &["status", field]).to_owned()).unwrap_or_default()
    }

    fn step(&self) -> String {
        self.status("currentStepState")
    }

    fn index(&self) -> i64 {
        self.rollout().and_then(|r| object::int(&r, &["status", "currentStepIndex"])).unwrap_or_default()
    }
}

/// The version of a pod: its image's tag.
fn version(pod: &Value) -> &str {
    let containers = at(pod, &["spec", "containers"]).and_then(Value::as_array).into_iter().flatten();
    let mut images = containers.map(|container| object::text(container, &["image"]));
    images.next().and_then(|image| image.rsplit_once(':')).map_or("", |(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_story_ends_well() {
        for example in
            [STATEFUL_SET, DAEMON_SET, CLONE_SET, ADVANCED_STATEFUL_SET, ADVANCED_DAEMON_SET, STATEFUL_SET_LIKE]
        {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(play(&example, Screen::new(false))).expect(example.name);
        }
    }
}
