//! The story of `examples/gateway-api` on the in-memory cluster: the route at each step, and where requests go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod release;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use release::Release;
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{install, manifests, options},
    controller::Options,
    gather::desk::Answerer,
    rollout::calls::{Body, Call, Outcome as Answered, Reply},
    sim::{
        Cluster, Gvr,
        traffic::{Outcome, Request, route},
    },
};
use tokio::time::sleep;

static EXAMPLE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/gateway-api");
static EXPECTED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/gateway-api/expected");

const GROUP: &str = "gateway.networking.k8s.io";

fn send(cluster: &Cluster, request: &Request) -> Outcome {
    let request = request.clone().host("shop.example.com");
    route(&cluster.view(), &Gvr::new(GROUP, "v1", "httproutes"), "default", "shop", &request)
}

/// The example, with requests all the while: none may fail.
fn begin(change: impl Fn(&mut Value)) -> Release {
    let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout");
    for (plural, kind) in [("httproutes", "HTTPRoute"), ("gateways", "Gateway")] {
        builder = builder.kind(GROUP, &["v1", "v1beta1"], plural, kind, true);
    }
    for mut object in manifests(&EXAMPLE).unwrap() {
        change(&mut object);
        builder = builder.object(object);
    }
    Release::new(builder.build().unwrap(), "shop").meanwhile(|cluster| {
        for request in [Request::get(), Request::get().header("x-canary", "yes"), Request::get().path("/api/x")] {
            let outcome = send(cluster, &request);
            assert!(outcome.failures.is_empty(), "{request:?}: {:?}", outcome.failures);
        }
    })
}

struct Story(Arc<Release>);

impl std::ops::Deref for Story {
    type Target = Release;

    fn deref(&self) -> &Release {
        &self.0
    }
}

impl Story {
    fn route(&self) -> Value {
        self.get(GROUP, "v1", "httproutes").unwrap()["spec"].clone()
    }

    async fn at_step(&self, step: i64) {
        self.paused_at(step).await;
        let file = EXPECTED.get_file(format!("step-{step}.yaml")).unwrap();
        let expected: Value = tidegate::yaml::from_str(file.contents_utf8().unwrap()).unwrap();
        assert_eq!(self.route(), expected["spec"], "step {step}");
    }

    fn send(&self, request: &Request) -> Outcome {
        send(&self.cluster, request)
    }

    /// The share of version 2.
    fn share(&self, request: &Request) -> f64 {
        self.send(request).by_label("version").get("2").copied().unwrap_or_default()
    }
}

fn play<F: Future<Output = ()>>(change: impl Fn(&mut Value), tell: impl FnOnce(Arc<Story>) -> F) {
    release::play(|| begin(change), |release| tell(Arc::new(Story(release))));
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn a_release_goes_through_its_steps() {
    let (any, canary, api) =
        (Request::get(), Request::get().header("x-canary", "yes"), Request::get().path("/api/cart"));
    play(
        |_| {},
        async |story| {
            let original = story.route();
            story.change("2").await;
            story.at_step(1).await;
            close(story.share(&any), 0.2);
            close(story.share(&api), 0.12);
            close(story.send(&api).by_label("version")["0"], 0.4);
            story.approve().await;
            story.at_step(2).await;
            close(story.share(&any), 0.0);
            close(story.share(&canary), 1.0);
            assert!(story.send(&Request::get().path("/old")).answered);
            story.approve().await;
            story.at_step(3).await;
            close(story.share(&any), 0.5);
            story.approve().await;
            story.completed().await;
            assert_eq!(story.route(), original);
            close(story.share(&any), 1.0);
            close(story.send(&api).by_label("version")["0"], 0.4);
            let canary = story.cluster.get(&Gvr::new("", "v1", "services"), "default", "shop-canary");
            assert!(canary.is_none(), "{canary:?}");
        },
    );
}

/// Every spelling of the reference reaches the same script and the same restore, and a rollback puts the route back.
#[test]
fn every_spelling_and_a_rollback() {
    let custom =
        |version: &str| json!({"apiVersion": format!("{GROUP}/{version}"), "kind": "HTTPRoute", "name": "shop"});
    for (field, value) in [
        ("gateway", json!({"httpRouteName": "shop"})),
        ("networkRefs", json!([custom("v1")])),
        ("customNetworkRefs", json!([custom("v1beta1")])),
    ] {
        let change = |object: &mut Value| {
            if object["kind"] == "Rollout" {
                let routing = &mut object["spec"]["strategy"]["canary"]["trafficRoutings"][0];
                *routing = json!({"service": "shop", field: value});
            }
        };
        play(change, async |story| {
            let original = story.route();
            story.change("2").await;
            story.at_step(1).await;
            story.change("1").await;
            story.until("rolled back", |s| s["phase"] == "Healthy").await;
            assert_eq!(story.route(), original, "{field}");
            close(story.share(&Request::get()), 0.0);
        });
    }
}

/// Someone else's rule, added during the release, survives every step and the end.
#[test]
fn edits_made_meanwhile_survive() {
    play(
        |_| {},
        async |story| {
            let original = story.route();
            story.change("2").await;
            story.at_step(1).await;
            let added = json!({"matches": [{"path": {"type": "Exact", "value": "/new"}}], "backendRefs": [{"name": "legacy", "port": 80}]});
            let mut rules = story.route()["rules"].as_array().unwrap().clone();
            rules.push(added.clone());
            story.patch(&format!("{GROUP}/v1"), "HTTPRoute", "shop", json!({"spec": {"rules": rules}})).await;
            story.approve().await;
            story.until("step 2", |s| s["currentStepIndex"] == 2 && s["currentStepState"] == "StepPaused").await;
            assert_eq!(story.route()["rules"].as_array().unwrap().last(), Some(&added));
            story.change("1").await;
            story.until("rolled back", |s| s["phase"] == "Healthy").await;
            let mut expected = original;
            expected["rules"].as_array_mut().unwrap().push(added);
            assert_eq!(story.route(), expected);
        },
    );
}

/// What a gateway says of the route as it is now, after a while: `refuse` says why it does not take a share, if so.
async fn gateway(story: Arc<Story>, refuse: impl Fn(&Value) -> Option<&'static str>) {
    let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", "HTTPRoute"));
    let api: Api<DynamicObject> = Api::default_namespaced_with(story.cluster.client("gateway"), &resource);
    loop {
        let route = story.get(GROUP, "v1", "httproutes").unwrap();
        let generation = &route["metadata"]["generation"];
        let refusal = refuse(&route["spec"]);
        let word = |kind: &str, reason: Option<&str>| {
            json!({"type": kind, "status": if reason.is_some() { "False" } else { "True" },
                "reason": reason.unwrap_or(kind), "message": "", "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let said = json!([{"parentRef": {"name": "web"}, "controllerName": "example.com/gateway",
            "conditions": [word("Accepted", None), word("ResolvedRefs", refusal)]}]);
        sleep(Duration::from_secs(2)).await;
        if route["status"]["parents"] != said {
            let patch = json!({"status": {"parents": said}});
            api.patch_status("shop", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        }
    }
}

fn canary_weight(spec: &Value) -> u64 {
    let refs = spec["rules"][0]["backendRefs"].as_array().unwrap();
    refs.iter().find(|r| r["name"] == "shop-canary").and_then(|r| r["weight"].as_u64()).unwrap_or_default()
}

/// Every step waits for its gateway's word.
#[test]
fn a_step_is_routed_when_its_gateway_has_taken_it() {
    play(
        |_| {},
        async |story| {
            let speaking = tokio::spawn(gateway(Arc::clone(&story), |_| None));
            sleep(Duration::from_secs(5)).await;
            story.change("2").await;
            story
                .until("waiting", |s| s["message"].as_str().unwrap_or_default().contains("waiting for a gateway"))
                .await;
            let message = story.status()["message"].as_str().unwrap().to_owned();
            assert!(
                message.contains("HTTPRoute default/shop: Gateway web: condition Accepted is of generation"),
                "{message}"
            );
            assert_eq!(canary_weight(&story.route()), 20);
            story.at_step(1).await;
            assert_eq!(story.status()["routedStepIndex"], 1);
            for step in [2, 3] {
                story.approve().await;
                story.at_step(step).await;
            }
            story.approve().await;
            story.completed().await;
            speaking.abort();
        },
    );
}

/// A gateway that refuses the third step's route gets back that of the second; when the plan asks for less, it goes on.
#[test]
fn a_refused_route_goes_and_the_one_before_comes_back() {
    play(
        |_| {},
        async |story| {
            let original = story.route();
            let too_much = |spec: &Value| (canary_weight(spec) > 40).then_some("UnsupportedValue");
            let speaking = tokio::spawn(gateway(Arc::clone(&story), too_much));
            sleep(Duration::from_secs(5)).await;
            story.change("2").await;
            story.at_step(1).await;
            story.approve().await;
            story.at_step(2).await;
            let second = story.route();
            story.approve().await;
            story.until("refused", |s| s["refusedRoutes"]["version"].is_string()).await;
            story.until("stalled", |s| s["conditions"].to_string().contains("GatewayRefused")).await;
            // It comes back, and nothing else is tried.
            for _ in 0..20 {
                sleep(Duration::from_secs(3)).await;
            }
            assert_eq!(story.route(), second);
            assert_eq!(story.status()["currentStepState"], "StepTrafficRouting");
            let message = story.status()["message"].as_str().unwrap().to_owned();
            assert!(message.contains("Gateway web: condition ResolvedRefs is False: UnsupportedValue"), "{message}");
            let steps = json!([{"traffic": "20%", "replicas": "20%"}, {"traffic": "30%", "replicas": "30%"}]);
            story
                .patch(
                    "rollouts.kruise.io/v1beta1",
                    "Rollout",
                    "shop",
                    json!({"spec": {"strategy": {"canary": {"steps": steps}}}}),
                )
                .await;
            story.until("the last step", |s| s["currentStepIndex"] == 2 && s["currentStepState"] == "StepPaused").await;
            assert_eq!(canary_weight(&story.route()), 30);
            assert!(story.status()["refusedRoutes"].is_null());
            story.approve().await;
            story.completed().await;
            assert_eq!(story.route(), original);
            speaking.abort();
        },
    );
}

/// A gateway that routes as it says, and answers what is for the canary with 503 while it is broken.
#[derive(Clone)]
struct Broken {
    cluster: Cluster,
    is_broken: Arc<AtomicBool>,
}

impl Answerer<Call> for Broken {
    fn answer<'a>(&'a self, call: &'a Call, at: Timestamp) -> BoxFuture<'a, Reply> {
        let Body::Probe { count } = call.body else { panic!("{call:?}") };
        assert_eq!(call.url.as_deref(), Some("http://gateway.infra/"));
        let request = call.headers.iter().filter(|(name, _)| name != "host");
        let request = request.fold(Request::get(), |request, (name, value)| request.header(name, value));
        let share = send(&self.cluster, &request).by_label("version").get("2").copied().unwrap_or_default();
        let canary = (share * f64::from(count)).round() as u32;
        let bad = if self.is_broken.load(Ordering::SeqCst) { 503 } else { 200 };
        let mut statuses = BTreeMap::new();
        for (status, times) in [(200, count - canary), (bad, canary)] {
            *statuses.entry(status).or_default() += times;
        }
        statuses.retain(|_, times| *times > 0);
        Box::pin(async move { Reply { at, outcome: Answered::Probed(statuses) } })
    }
}

/// It takes every route, and the step is not done until requests are answered.
#[test]
fn a_route_that_is_taken_and_answered_with_503() {
    let change = |object: &mut Value| {
        if object["kind"] == "Rollout" {
            object["spec"]["strategy"]["canary"]["trafficRoutings"][0]["proof"] =
                json!({"url": "http://gateway.infra/", "headers": [{"name": "Host", "value": "shop.example.com"}]});
        }
    };
    let is_broken = Arc::new(AtomicBool::new(false));
    let set_up = |cluster: &Cluster| {
        let gateway = Broken { cluster: cluster.clone(), is_broken: is_broken.clone() };
        Options { caller: Arc::new(move |_, _| Box::new(gateway.clone())), ..options(cluster) }
    };
    let tell = async |story: Story| {
        let speaking = tokio::spawn(gateway(Arc::new(Story(story.0.clone())), |_| None));
        sleep(Duration::from_secs(5)).await;
        story.change("2").await;
        story.paused_at(1).await;
        assert_eq!(story.status()["proof"]["message"], "21 requests to http://gateway.infra/: 200 for 21");

        is_broken.store(true, Ordering::SeqCst);
        story.approve().await;
        let fails = "the traffic proof of step 2 fails: 5 requests to http://gateway.infra/: 503 for 5";
        story.until("unproven", |s| s["message"].as_str().is_some_and(|m| m == fails)).await;
        assert_eq!(story.status()["currentStepState"], "StepTrafficRouting", "by the header of the step's match");
        story.until("taken back", |s| !s["refusedRoutes"].is_null()).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(canary_weight(&story.route()), 20, "the routes of the step that was proven");

        is_broken.store(false, Ordering::SeqCst);
        sleep(Duration::from_secs(300)).await;
        assert_eq!(canary_weight(&story.route()), 20, "nobody knows that it is mended");
        for paused in [true, false] {
            let patch = json!({"spec": {"strategy": {"paused": paused}}});
            story.patch("rollouts.kruise.io/v1beta1", "Rollout", "shop", patch).await;
            sleep(Duration::from_secs(1)).await;
        }
        story.paused_at(2).await;
        assert_eq!(story.status()["proof"]["phase"], "Proven");
        story.approve().await;
        story.paused_at(3).await;
        story.approve().await;
        story.completed().await;
        speaking.abort();
    };
    release::play_with(|| begin(change), set_up, |release| tell(Story(release)));
}
