//! A release on the in-memory cluster in virtual time, with the controller, driven as a person does.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::{sync::Arc, time::Duration};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    api::v1beta1::Rollout,
    cli::{
        demo::world::{CONTROLLER, options},
        rollout::approve::approval_patch,
    },
    controller::{self, Options},
    sim::{Cluster, Gvr},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// What is to happen while a release is waited for, such as requests.
type Meanwhile = Box<dyn Fn(&Cluster) + Send + Sync>;

/// A Rollout and its Deployment in namespace `default`.
pub struct Release {
    pub cluster: Cluster,
    pub name: String,
    pub workload: String,
    meanwhile: Meanwhile,
}

impl Release {
    pub fn new(cluster: Cluster, name: &str) -> Release {
        Release { cluster, name: name.to_owned(), workload: name.to_owned(), meanwhile: Box::new(|_| ()) }
    }

    pub fn of(self, workload: &str) -> Release {
        Release { workload: workload.to_owned(), ..self }
    }

    pub fn meanwhile(self, does: impl Fn(&Cluster) + Send + Sync + 'static) -> Release {
        Release { meanwhile: Box::new(does), ..self }
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Value>> {
        self.cluster.get(&Gvr::new(group, version, plural), "default", &self.name)
    }

    /// The Rollout's.
    pub fn status(&self) -> Value {
        self.get("rollouts.kruise.io", "v1beta1", "rollouts").map(|r| r["status"].clone()).unwrap_or_default()
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        while !holds(&self.status()) {
            assert!(begin.elapsed() < Duration::from_secs(300), "{what}: {:#}", self.status());
            (self.meanwhile)(&self.cluster);
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn healthy(&self) {
        self.until("healthy", |s| s["phase"] == "Healthy").await;
    }

    pub async fn paused_at(&self, step: i64) {
        self.until("paused", |s| s["currentStepIndex"] == step && s["currentStepState"] == "StepPaused").await;
    }

    pub async fn completed(&self) {
        self.until("completed", |s| s["phase"] == "Healthy" && s["currentStepState"] == "Completed").await;
    }

    /// A merge patch.
    pub async fn patch(&self, api_version: &str, kind: &str, name: &str, patch: Value) {
        let (group, version) = api_version.split_once('/').unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::default_namespaced_with(self.cluster.client("user"), &resource);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Changes the Deployment's template.
    pub async fn change(&self, version: &str) {
        let template = json!({"metadata": {"labels": {"version": version}}});
        self.patch("apps/v1", "Deployment", &self.workload, json!({"spec": {"template": template}})).await;
    }

    pub async fn approve(&self) {
        let rollouts: Api<Rollout> = Api::default_namespaced(self.cluster.client("user"));
        let patch = approval_patch(&rollouts.get(&self.name).await.unwrap()).unwrap();
        rollouts.patch_status(&self.name, &PatchParams::default(), &Patch::<Value>::Json(patch)).await.unwrap();
    }
}

/// Tells a story from the moment on at which the Rollout is healthy.
pub fn play<F: Future<Output = ()>>(make: impl FnOnce() -> Release, tell: impl FnOnce(Arc<Release>) -> F) {
    play_with(make, options, tell);
}

/// The same, with a controller that is set up otherwise.
pub fn play_with<F: Future<Output = ()>>(
    make: impl FnOnce() -> Release,
    options: impl FnOnce(&Cluster) -> Options,
    tell: impl FnOnce(Arc<Release>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let release = Arc::new(make());
        // Pods come up before anyone sends requests.
        sleep(Duration::from_secs(30)).await;
        let stop = CancellationToken::new();
        let client = release.cluster.client(CONTROLLER);
        let task = tokio::spawn(controller::run(client, options(&release.cluster), stop.clone()));
        release.healthy().await;
        tell(Arc::clone(&release)).await;
        stop.cancel();
        task.await.unwrap();
    });
}
