//! An example of `examples/` with the real controller on the in-memory cluster: a Rollout `shop` of a Deployment `shop`.
#![allow(dead_code)] // Each test uses its part.

use std::{sync::Arc, time::Duration};

use include_dir::Dir;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tidegate::{
    api::v1beta1::Rollout,
    cli::{
        demo::world::{CONTROLLER, install, manifests, options},
        rollout::approve::approval_patch,
    },
    controller::{self, Options},
    sim::{Builder, Cluster, Gvr},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const NAMESPACE: &str = "default";
pub const NAME: &str = "shop";

/// What a test changes about the controller, each time that one is started.
type Adjust = Box<dyn Fn(&mut Options, &CancellationToken)>;

pub struct Stage {
    pub cluster: Cluster,
    adjust: Adjust,
    stop: DropGuard,
}

impl Stage {
    /// The example is installed, and healthy.
    pub async fn new(example: &Dir<'_>, adjust: impl Fn(&mut Options, &CancellationToken) + 'static) -> Stage {
        Stage::on(Cluster::builder(), manifests(example).unwrap(), adjust).await
    }

    /// The same on a cluster of the test's own making, with its own objects.
    pub async fn on(
        builder: Builder,
        objects: Vec<Value>,
        adjust: impl Fn(&mut Options, &CancellationToken) + 'static,
    ) -> Stage {
        let mut builder = install(builder).unwrap().namespace("kruise-rollout");
        for object in objects {
            builder = builder.object(object);
        }
        let cluster = builder.build().unwrap();
        let mut stage = Stage { cluster, adjust: Box::new(adjust), stop: CancellationToken::new().drop_guard() };
        stage.start();
        stage.until("healthy", |s| s["phase"] == "Healthy").await;
        stage
    }

    /// Starts a controller; the one before has been stopped.
    pub fn start(&mut self) {
        let stop = CancellationToken::new();
        let mut options = options(&self.cluster);
        (self.adjust)(&mut options, &stop);
        tokio::spawn(controller::run(self.cluster.client(CONTROLLER), options, stop.clone()));
        self.stop = stop.drop_guard();
    }

    /// Stops the controller, wherever it is.
    pub fn stop(&mut self) {
        self.stop = CancellationToken::new().drop_guard();
    }

    /// Changes the version of the workload.
    pub async fn release(&self, version: &str) {
        self.release_of(NAME, version).await;
        self.until("begun", |s| s["phase"] == "Progressing").await;
    }

    /// Changes the version of another workload.
    pub async fn release_of(&self, name: &str, version: &str) {
        let image = format!("registry.example/shop:{version}");
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": image}]}}}});
        let api: Api<Deployment> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    /// Approves the step that waits.
    pub async fn approve(&self) {
        let rollouts: Api<Rollout> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        let patch = approval_patch(&rollouts.get(NAME).await.unwrap()).unwrap();
        rollouts.patch_status(NAME, &PatchParams::default(), &Patch::<Value>::Json(patch)).await.unwrap();
    }

    pub fn status(&self) -> Value {
        let rollouts = Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts");
        self.cluster.get(&rollouts, NAMESPACE, NAME).map(|r| r["status"].clone()).unwrap_or_default()
    }

    pub fn condition(&self, r#type: &str) -> Value {
        let status = self.status();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == r#type).unwrap_or_default()
    }

    /// Pods of a version.
    pub fn pods(&self, version: &str) -> usize {
        let pods = self.cluster.list(&Gvr::new("", "v1", "pods"), Some(NAMESPACE));
        let is_it = |pod: &Arc<Value>| {
            pod["spec"]["containers"][0]["image"] == format!("registry.example/shop:{version}")
                && pod["metadata"].get("deletionTimestamp").is_none()
        };
        pods.iter().filter(|pod| is_it(pod)).count()
    }

    /// Waits until the status is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        for _ in 0..6000 {
            if is_so(&self.status()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never {what}: {:#}", self.status());
    }
}

/// Plays a story by a clock that jumps to whatever is next.
pub fn play(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(story);
}
