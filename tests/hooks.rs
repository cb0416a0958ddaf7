//! `examples/hooks` with the real controller on the in-memory cluster, and servers that say what a test wants.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod stage;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use serde_json::{Value, json};
use stage::{Stage, play};
use tidegate::{
    gather::desk::Answerer,
    rollout::calls::{Body, Call, Outcome, Reply},
};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/hooks");

/// What each hook says, and what it was sent.
#[derive(Clone, Default)]
struct Servers {
    says: Arc<Mutex<BTreeMap<String, (u16, String)>>>,
    sent: Arc<Mutex<Vec<Value>>>,
    /// When a hook was asked.
    times: Arc<Mutex<Vec<Timestamp>>>,
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
            self.times.lock().unwrap().push(at);
            let outcome = match said {
                None => Outcome::Unavailable("connection refused".into()),
                Some((status, body)) => Outcome::Answered { status, body, retry_after: None },
            };
            Reply { at, outcome }
        })
    }
}

async fn stage() -> (Stage, Servers) {
    let servers = Servers::default();
    let caller = servers.clone();
    let stage = Stage::new(&MANIFESTS, move |options, _| {
        let caller = caller.clone();
        options.caller = Arc::new(move |_, _| Box::new(caller.clone()));
    });
    (stage.await, servers)
}

#[test]
fn a_release_waits_for_its_hooks_and_goes_through() {
    play(async {
        let (stage, servers) = stage().await;
        servers.say("change-board", 200, &json!({"result": "hold", "message": "the board meets at noon"}));
        servers.say("smoke-test", 200, &Value::Null);
        stage.release("2").await;
        let waits = "step 1 of 2 waits: hook \"change-board\" holds it: the board meets at noon";
        stage.until("held", |s| s["message"] == waits).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(stage.pods("2"), 0, "nothing of the new version before the hook allows");
        let asked = servers.sent.lock().unwrap().len();
        assert!((60..75).contains(&asked), "asked {asked} times in an hour");
        assert_eq!(servers.sent("change-board").len(), 1, "with one key");
        servers.say("change-board", 204, &Value::Null);
        stage.until("done", |s| s["phase"] == "Healthy").await;
        assert_eq!((stage.pods("1"), stage.pods("2")), (0, 5));
        let steps: Vec<Value> = servers.sent("smoke-test").iter().map(|b| b["step"].clone()).collect();
        assert_eq!(steps, [1, 2], "each step once");
        assert!(servers.sent("pager").is_empty());
    });
}

#[test]
fn a_refusal_goes_back_and_is_told() {
    play(async {
        let (stage, servers) = stage().await;
        servers.say("change-board", 200, &Value::Null);
        servers.say("smoke-test", 403, &json!({"message": "/checkout answers 500"}));
        stage.release("2").await;
        stage.until("rolled back", |s| s["phase"] == "Healthy").await;
        assert_eq!((stage.pods("1"), stage.pods("2")), (5, 0), "the pager does not answer, and nothing waits for it");
        let ended = stage.condition("Succeeded");
        assert_eq!((&ended["status"], &ended["reason"]), (&json!("False"), &json!("HookRefused")), "{ended}");
        servers.say("pager", 200, &Value::Null);
        stage
            .until("told", |s| s["hooks"]["hooks"].as_array().unwrap().iter().all(|h| h["phase"] != "Unreachable"))
            .await;
        let [told] = servers.sent("pager").try_into().unwrap();
        assert_eq!(told["message"], "step 1 of 2: hook \"smoke-test\" refuses: /checkout answers 500");
        assert_eq!(told["release"], servers.sent("smoke-test")[0]["release"]);
    });
}

fn is_held(status: &Value) -> bool {
    status["hooks"]["hooks"].as_array().is_some_and(|hooks| hooks.iter().any(|hook| hook["phase"] == "Held"))
}

#[test]
fn a_rollback_is_never_held() {
    for (holds, at) in [("change-board", "BeforeStepUpgrade"), ("smoke-test", "StepPaused")] {
        play(async move {
            let (stage, servers) = stage().await;
            for hook in ["change-board", "smoke-test"] {
                let result = if hook == holds { "hold" } else { "allow" };
                servers.say(hook, 200, &json!({"result": result}));
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
        let (stage, servers) = stage().await;
        servers.say("change-board", 200, &Value::Null);
        stage.release("2").await;
        stage.until("stalled", |_| stage.condition("Stalled")["reason"] == "HookUnreachable").await;
        tokio::time::sleep(Duration::from_secs(7200)).await;
        assert_eq!((stage.pods("1"), stage.pods("2")), (4, 1), "the step stays as it is");
        servers.say("smoke-test", 200, &Value::Null);
        stage.until("done", |s| s["phase"] == "Healthy").await;
        assert_eq!(stage.pods("2"), 5);
    });
}

/// It is tried again ever less often, and when it answers with a text, that is what a person reads.
#[test]
fn a_hook_is_tried_ever_less_often_until_it_answers() {
    play(async {
        let (stage, servers) = stage().await;
        let clock = stage.cluster.clock();
        stage.release("2").await;
        let begun = clock.now();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let times: Vec<i64> =
            servers.times.lock().unwrap().iter().map(|at: &Timestamp| at.duration_since(begun).as_secs()).collect();
        let pauses: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.windows(2).all(|pair| pair[1] + 1 >= pair[0]), "{pauses:?}");
        assert!(
            pauses[0] <= 3 && *pauses.last().unwrap() >= 59 && pauses.iter().all(|pause| *pause <= 62),
            "{pauses:?}"
        );
        let said = stage.condition("Stalled")["message"].clone();
        assert!(
            said.as_str().unwrap().contains("hook \"change-board\" cannot be reached: connection refused"),
            "{said}"
        );
        servers.say("change-board", 200, &json!({"result": "hold", "message": "12 of 40\ntests are done"}));
        let waits = "step 1 of 2 waits: hook \"change-board\" holds it: 12 of 40 tests are done";
        stage.until("held with a text", |s| s["message"] == waits).await;
        assert_eq!(stage.condition("Stalled"), Value::Null);
        let known = stage.status()["hooks"]["hooks"][0].clone();
        assert_eq!((&known["phase"], &known["tries"]), (&json!("Held"), &json!(1)), "{known}");
    });
}
