//! The recipes of `examples/<gateway>` on the in-memory cluster: the object that routes at each step is what
//! `expected/step-N.yaml` says, and in the end it is what it was. `BLESS=1 cargo test --test recipes` writes them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    api::v1beta1::Rollout,
    cli::{
        demo::world::{CONTROLLER, install, start_controller},
        rollout::approve::approval_patch,
    },
    sim::{Cluster, Gvr},
    yaml,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

struct Recipe {
    folder: PathBuf,
    cluster: Cluster,
    route: Gvr,
}

impl Recipe {
    fn new(name: &str, group: &str, version: &str, plural: &str, kind: &str) -> Recipe {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
        builder = builder.kind(group, &[version], plural, kind, true);
        let read = |file: &str| yaml::from_str::<Value>(&fs::read_to_string(folder.join(file)).unwrap()).unwrap();
        for file in read("kustomization.yaml")["resources"].as_array().unwrap() {
            let mut object = read(file.as_str().unwrap());
            object["metadata"]["namespace"] = json!("default");
            builder = builder.object(object);
        }
        Recipe { cluster: builder.build().unwrap(), route: Gvr::new(group, version, plural), folder }
    }

    fn spec(&self) -> Value {
        self.cluster.get(&self.route, "default", "shop").unwrap()["spec"].clone()
    }

    fn status(&self) -> Value {
        let rollouts = Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts");
        let rollout: Option<Arc<Value>> = self.cluster.get(&rollouts, "default", "shop");
        rollout.map(|r| r["status"].clone()).unwrap_or_default()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        while !holds(&self.status()) {
            assert!(begin.elapsed() < Duration::from_secs(300), "{what}: {:#}", self.status());
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn release(&self) {
        let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
        let api: Api<DynamicObject> = Api::default_namespaced_with(self.cluster.client("user"), &resource);
        let patch = json!({"spec": {"template": {"metadata": {"labels": {"version": "2"}}}}});
        api.patch("shop", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn approve(&self) {
        let rollouts: Api<Rollout> = Api::default_namespaced(self.cluster.client("user"));
        let patch = approval_patch(&rollouts.get("shop").await.unwrap()).unwrap();
        rollouts.patch_status("shop", &PatchParams::default(), &Patch::<Value>::Json(patch)).await.unwrap();
    }

    /// The release of version 2, step by step.
    async fn play(&self, steps: i64) {
        self.until("healthy", |s| s["phase"] == "Healthy").await;
        let original = self.spec();
        self.release().await;
        for step in 1..=steps {
            self.until("paused", |s| s["currentStepIndex"] == step && s["currentStepState"] == "StepPaused").await;
            let file = self.folder.join(format!("expected/step-{step}.yaml"));
            let found = json!({"spec": self.spec()});
            if std::env::var_os("BLESS").is_some() {
                fs::write(&file, yaml::to_string(&found).unwrap()).unwrap();
            }
            let expected: Value = yaml::from_str(&fs::read_to_string(&file).unwrap_or_default()).unwrap();
            assert_eq!(found, expected, "step {step}");
            self.approve().await;
        }
        self.until("completed", |s| s["phase"] == "Healthy" && s["currentStepState"] == "Completed").await;
        assert_eq!(self.spec(), original);
    }
}

fn run(make: impl FnOnce() -> Recipe) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let recipe = make();
        // Pods come up first.
        sleep(Duration::from_secs(30)).await;
        let stop = CancellationToken::new();
        let task = start_controller(&recipe.cluster, recipe.cluster.client(CONTROLLER), stop.clone());
        recipe.play(3).await;
        stop.cancel();
        task.await.unwrap();
    });
}

#[test]
fn traefik() {
    run(|| Recipe::new("traefik", "traefik.io", "v1alpha1", "ingressroutes", "IngressRoute"));
}

#[test]
fn contour() {
    run(|| Recipe::new("contour", "projectcontour.io", "v1", "httpproxies", "HTTPProxy"));
}

#[test]
fn apisix() {
    run(|| Recipe::new("apisix", "apisix.apache.org", "v2", "apisixroutes", "ApisixRoute"));
}
