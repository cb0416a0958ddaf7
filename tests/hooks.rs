//! `examples/hooks` with the real controller on the in-memory cluster, and servers that say what a test wants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{CONTROLLER, install, manifests, options},
    controller::{self, Options},
    gather::desk::Answerer,
    rollout::calls::{Body, Call, Outcome, Reply},
    sim::{Cluster, Gvr},
};
use tokio_util::sync::{CancellationToken, DropGuard};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/hooks");
const NAMESPACE: &str = "default";

/// What each hook says, and what it was sent.
#[derive(Clone, Default)]
struct Servers {
    says: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    sent: Arc<Mutex<Vec<Value>>>,
}

impl Servers {
    fn say(&self, hook: &str, status: u16, body: &Value) {
        self.says.lock().unwrap().insert(hook.to_owned(), (status, body.to_string()));
    }

    /// What a hook was sent, each key once.
    fn sent(&self, hook: &str) -> Vec<Value> {
        let mut sent = self.sent.lock().unwrap().clone();
        sent.retain(|body| body["hook"] == hook);
        sent.dedup_by_key(|body| body["key"].clone());
        sent
    }
}

impl Answerer<Call> for Servers {
    fn answer<'a>(&'a self, call: &'a Call, at: Timestamp) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let Body::Post(_, body) = &call.body else { panic!("{call:?}") };
            let body: Value = serde_json::from_str(body).unwrap();
            let said = self.says.lock().unwrap().get(body["hook"].as_str().unwrap()).cloned();
            self.sent.lock().unwrap().push(body);
            let outcome = match said {
                None => Outcome::Unavailable("connection refused".into()),
                Some((status, body)) => Outcome::Answered { status, body, retry_after: None },
            };
            Reply { at, outcome }
        })
    }
}

struct Stage {
    cluster: Cluster,
    servers: Servers,
    _stop: DropGuard,
}

impl Stage {
    async fn new() -> Stage {
        let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
        for object in manifests(&MANIFESTS).unwrap() {
            builder = builder.object(object);
        }
        let cluster = builder.build().unwrap();
        let (servers, stop) = (Servers::default(), CancellationToken::new());
        let caller = servers.clone();
        let options = Options { caller: Arc::new(move |_, _| Box::new(caller.clone())), ..options(&cluster) };
        tokio::spawn(controller::run(cluster.client(CONTROLLER), options, stop.clone()));
        let stage = Stage { cluster, servers, _stop: stop.drop_guard() };
        stage.until("healthy", |s| s["phase"] == "Healthy").await;
        stage
    }

    async fn release(&self, version: &str) {
        let image = format!("registry.example/shop:{version}");
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": image}]}}}});
        let api: Api<Deployment> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        api.patch("shop", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
        self.until("begun", |s| s["phase"] == "Progressing").await;
    }

    fn status(&self) -> Value {
        let rollouts = Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts");
        self.cluster.get(&rollouts, NAMESPACE, "shop").map(|r| r["status"].clone()).unwrap_or_default()
    }

    /// Pods of a version.
    fn pods(&self, version: &str) -> usize {
        let pods = self.cluster.list(&Gvr::new("", "v1", "pods"), Some(NAMESPACE));
        let is_it = |pod: &Arc<Value>| {
            pod["spec"]["containers"][0]["image"] == format!("registry.example/shop:{version}")
                && pod["metadata"].get("deletionTimestamp").is_none()
        };
        pods.iter().filter(|pod| is_it(pod)).count()
    }

    fn condition(&self, r#type: &str) -> Value {
        let status = self.status();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == r#type).unwrap_or_default()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        for _ in 0..6000 {
            if is_so(&self.status()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never {what}: {:#}", self.status());
    }
}

fn play(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(story);
}

#[test]
fn a_release_waits_for_its_hooks_and_goes_through() {
    play(async {
        let stage = Stage::new().await;
        stage.servers.say("change-board", 200, &json!({"result": "hold", "message": "the board meets at noon"}));
        stage.servers.say("smoke-test", 200, &Value::Null);
        stage.release("2").await;
        let waits = "step 1 of 2 waits: hook \"change-board\" holds it: the board meets at noon";
        stage.until("held", |s| s["message"] == waits).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(stage.pods("2"), 0, "nothing of the new version before the hook allows");
        let asked = stage.servers.sent.lock().unwrap().len();
        assert!((60..75).contains(&asked), "asked {asked} times in an hour");
        assert_eq!(stage.servers.sent("change-board").len(), 1, "with one key");
        stage.servers.say("change-board", 204, &Value::Null);
        stage.until("done", |s| s["phase"] == "Healthy").await;
        assert_eq!((stage.pods("1"), stage.pods("2")), (0, 5));
        let steps: Vec<Value> = stage.servers.sent("smoke-test").iter().map(|b| b["step"].clone()).collect();
        assert_eq!(steps, [1, 2], "each step once");
        assert!(stage.servers.sent("pager").is_empty());
    });
}

#[test]
fn a_refusal_goes_back_and_is_told() {
    play(async {
        let stage = Stage::new().await;
        stage.servers.say("change-board", 200, &Value::Null);
        stage.servers.say("smoke-test", 403, &json!({"message": "/checkout answers 500"}));
        stage.release("2").await;
        stage.until("rolled back", |s| s["phase"] == "Healthy").await;
        assert_eq!((stage.pods("1"), stage.pods("2")), (5, 0), "the pager does not answer, and nothing waits for it");
        let ended = stage.condition("Succeeded");
        assert_eq!((&ended["status"], &ended["reason"]), (&json!("False"), &json!("HookRefused")), "{ended}");
        stage.servers.say("pager", 200, &Value::Null);
        stage
            .until("told", |s| s["hooks"]["hooks"].as_array().unwrap().iter().all(|h| h["phase"] != "Unreachable"))
            .await;
        let [told] = stage.servers.sent("pager").try_into().unwrap();
        assert_eq!(told["message"], "step 1 of 2: hook \"smoke-test\" refuses: /checkout answers 500");
        assert_eq!(told["release"], stage.servers.sent("smoke-test")[0]["release"]);
    });
}

fn is_held(status: &Value) -> bool {
    status["hooks"]["hooks"].as_array().is_some_and(|hooks| hooks.iter().any(|hook| hook["phase"] == "Held"))
}

#[test]
fn a_rollback_is_never_held() {
    for (holds, at) in [("change-board", "BeforeStepUpgrade"), ("smoke-test", "StepPaused")] {
        play(async move {
            let stage = Stage::new().await;
            for hook in ["change-board", "smoke-test"] {
                let result = if hook == holds { "hold" } else { "allow" };
                stage.servers.say(hook, 200, &json!({"result": result}));
            }
            stage.release("2").await;
            stage.until("held", |s| is_held(s) && s["currentStepState"] == at).await;
            stage.release("1").await;
            stage.until("rolled back", |s| s["phase"] == "Healthy").await;
            assert_eq!((stage.pods("1"), stage.pods("2")), (5, 0), "{holds}");
        });
    }
}

#[test]
fn a_hook_that_is_away_is_no_bad_release() {
    play(async {
        let stage = Stage::new().await;
        stage.servers.say("change-board", 200, &Value::Null);
        stage.release("2").await;
        stage.until("stalled", |_| stage.condition("Stalled")["reason"] == "HookUnreachable").await;
        tokio::time::sleep(Duration::from_secs(7200)).await;
        assert_eq!((stage.pods("1"), stage.pods("2")), (4, 1), "the step stays as it is");
        stage.servers.say("smoke-test", 200, &Value::Null);
        stage.until("done", |s| s["phase"] == "Healthy").await;
        assert_eq!(stage.pods("2"), 5);
    });
}
