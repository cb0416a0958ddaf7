//! Releases by an Ingress on the in-memory cluster, with requests after every write: the story of `examples/nginx`, and
//! one that routes by an Ingress, an Istio route and a Gateway API route at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use include_dir::{Dir, include_dir};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{CONTROLLER, install, manifests, start_controller},
    sim::{
        Cluster, Gvr, View,
        traffic::{Request, route},
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/nginx");
const NAMESPACE: &str = "default";

fn gvr(kind: &str) -> Gvr {
    match kind {
        "Rollout" => Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts"),
        "Deployment" => Gvr::new("apps", "v1", "deployments"),
        "Service" => Gvr::new("", "v1", "services"),
        "Ingress" => Gvr::new("networking.k8s.io", "v1", "ingresses"),
        "VirtualService" => Gvr::new("networking.istio.io", "v1", "virtualservices"),
        "HTTPRoute" => Gvr::new("gateway.networking.k8s.io", "v1", "httproutes"),
        other => panic!("no {other}"),
    }
}

/// A cluster with the example's objects, a running controller, and requests after every write.
struct Stage {
    cluster: Cluster,
    view: View,
    /// What went wrong with a request, after which write.
    failed: Arc<Mutex<Vec<String>>>,
    /// What the controller wrote.
    writes: Arc<Mutex<Vec<String>>>,
    _stop: DropGuard,
}

/// Starts the controller, and starts it again when it has crashed.
fn keep_running(cluster: Cluster, stop: CancellationToken) {
    tokio::spawn(async move {
        let mut client = cluster.client(CONTROLLER);
        while !stop.is_cancelled() {
            let process = stop.child_token();
            let crashed = cluster.crashed(CONTROLLER);
            start_controller(&cluster, client, process.clone());
            if stop.run_until_cancelled(crashed).await.is_none() {
                return;
            }
            process.cancel();
            tokio::time::sleep(Duration::from_secs(5)).await;
            client = cluster.revive(CONTROLLER);
        }
    });
}

/// Part of the requests that reach pods of the new version.
fn share(view: &View, request: &Request) -> Result<f64, String> {
    let outcome = route(view, &gvr("Ingress"), NAMESPACE, "web", request);
    if let Some((_, failure)) = outcome.failures.first() {
        return Err(failure.to_string());
    }
    Ok(outcome.share(|pod| pod["spec"]["volumes"][0]["configMap"]["name"] == "web-configmap-canary"))
}

impl Stage {
    async fn new(change: impl Fn(&mut Value), more: Vec<Value>) -> Stage {
        let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout").seed(11);
        builder = builder.kind("networking.istio.io", &["v1"], "virtualservices", "VirtualService", true).kind(
            "gateway.networking.k8s.io",
            &["v1"],
            "httproutes",
            "HTTPRoute",
            true,
        );
        let (rollout, others): (Vec<Value>, Vec<Value>) =
            manifests(&MANIFESTS).unwrap().into_iter().chain(more).partition(|o| o["kind"] == "Rollout");
        for mut object in others {
            change(&mut object);
            builder = builder.object(object);
        }
        let cluster = builder.build().unwrap();
        let view = cluster.view();
        let stop = CancellationToken::new();
        keep_running(cluster.clone(), stop.clone());
        let (failed, writes) = (Arc::default(), Arc::default());
        let stage = Stage { cluster, view, failed, writes, _stop: stop.drop_guard() };
        stage.until("pods answer", |s| share(&s.view, &Request::get()).is_ok()).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        stage.cluster.on_write(Box::new({
            let (view, failed, writes) = (stage.view.clone(), stage.failed.clone(), stage.writes.clone());
            move |write| {
                if *write.identity == *CONTROLLER {
                    writes.lock().unwrap().push(write.gvr.resource.to_string());
                }
                for request in [Request::get(), Request::get().header("x-canary", "1")] {
                    if let Err(failure) = share(&view, &request) {
                        failed.lock().unwrap().push(format!("{} {}: {failure}", write.gvr.resource, write.name));
                    }
                }
            }
        }));
        for mut rollout in rollout {
            rollout["metadata"]["namespace"] = json!(NAMESPACE);
            change(&mut rollout);
            stage.cluster.create(rollout).unwrap();
        }
        stage.until("healthy", |s| s.get("Rollout", "web").is_some_and(|r| r["status"]["phase"] == "Healthy")).await;
        stage
    }

    fn get(&self, kind: &str, name: &str) -> Option<Arc<Value>> {
        self.view.get(&gvr(kind), NAMESPACE, name)
    }

    /// What the user wrote.
    fn written(&self, kind: &str, name: &str) -> (Value, Value, Value) {
        let object = self.get(kind, name).unwrap_or_else(|| panic!("no {kind} {name}"));
        let metadata = &object["metadata"];
        (metadata["labels"].clone(), metadata["annotations"].clone(), object["spec"].clone())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Stage) -> bool) {
        for _ in 0..6000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {what}\n{:#?}", self.get("Rollout", "web").map(|r| r["status"].clone()));
    }

    async fn patch(&self, kind: &str, name: &str, patch: Value) {
        let gvr = gvr(kind);
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&gvr.group, &gvr.version, kind), &gvr.resource);
        let api = Api::<DynamicObject>::namespaced_with(self.cluster.client("user"), NAMESPACE, &resource);
        let params = PatchParams::default();
        match patch.get("status") {
            Some(_) => api.patch_status(name, &params, &Patch::Merge(&patch)).await,
            None => api.patch(name, &params, &Patch::Merge(&patch)).await,
        }
        .unwrap();
    }

    async fn release(&self, version: &str) {
        let volume = json!([{"name": "web-config", "configMap": {"name": format!("web-configmap-{version}")}}]);
        self.patch("Deployment", "web", json!({"spec": {"template": {"spec": {"volumes": volume}}}})).await;
    }

    async fn paused_at(&self, step: i64) {
        self.until(&format!("paused at step {step}"), |s| {
            s.get("Rollout", "web").is_some_and(|r| {
                let sub = &r["status"]["canaryStatus"];
                sub["currentStepIndex"] == step && sub["currentStepState"] == "StepPaused"
            })
        })
        .await;
    }

    async fn approve(&self) {
        self.patch("Rollout", "web", json!({"status": {"canaryStatus": {"currentStepState": "StepReady"}}})).await;
    }

    async fn ended(&self) {
        self.until("ended", |s| {
            s.get("Rollout", "web").is_some_and(|r| {
                r["status"]["phase"] == "Healthy" && r["status"]["canaryStatus"]["currentStepState"] == "Completed"
            }) && ["Ingress", "Service", "Deployment"].iter().all(|kind| s.get(kind, "web-canary").is_none())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(*self.failed.lock().unwrap(), Vec::<String>::new());
    }

    /// Shares of plain requests and of those with the header, in per cent.
    fn shares(&self) -> (u32, u32) {
        let of = |request: Request| (share(&self.view, &request).unwrap() * 100.0).round() as u32;
        (of(Request::get()), of(Request::get().header("x-canary", "1")))
    }
}

fn play<F: Future<Output = ()>>(story: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story);
}

#[test]
fn the_example_loses_no_request_and_leaves_nothing() {
    play(async {
        let stage = Stage::new(|_| {}, vec![]).await;
        let (ingress, service) = (stage.written("Ingress", "web"), stage.written("Service", "web"));
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(stage.shares(), (20, 20));
        // What the example's page shows.
        let page = include_str!("../examples/nginx/README.md").split("```yaml\n").nth(1).unwrap();
        let shown: Value = tidegate::yaml::from_str(page.split("```").next().unwrap()).unwrap();
        let canary = stage.get("Ingress", "web-canary").unwrap();
        assert_eq!(shown["spec"], canary["spec"]);
        for (key, value) in shown["metadata"]["annotations"].as_object().unwrap() {
            assert_eq!(canary["metadata"]["annotations"][key], *value, "{key}");
        }
        // The user's change of the Ingress follows (D-72), and the share stays while nothing else is asked for.
        let tls = json!({"spec": {"tls": [{"hosts": ["web.example.com"], "secretName": "web"}]}});
        stage.patch("Ingress", "web", tls.clone()).await;
        stage.until("TLS follows", |s| s.written("Ingress", "web-canary").2["tls"] == tls["spec"]["tls"]).await;
        // What somebody puts on the canary Ingress stays, and is not fought over.
        stage.patch("Ingress", "web-canary", json!({"metadata": {"annotations": {"field.cattle.io/x": "y"}}})).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let canary = stage.get("Ingress", "web-canary").unwrap();
        assert_eq!(canary["metadata"]["annotations"]["field.cattle.io/x"], "y");
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(stage.shares(), (0, 100));
        stage.approve().await;
        stage.paused_at(3).await;
        assert_eq!(stage.shares(), (60, 60));
        stage.approve().await;
        stage.ended().await;
        assert_eq!(stage.shares(), (100, 100));
        let mut wanted = ingress;
        wanted.2["tls"] = tls["spec"]["tls"].clone();
        assert_eq!((stage.written("Ingress", "web"), stage.written("Service", "web")), (wanted, service));
    });
}

#[test]
fn a_crash_after_any_write_of_an_ingress_is_harmless() {
    async fn story(crash_after: Option<u64>) -> Vec<String> {
        let hurried = |object: &mut Value| {
            if object["kind"] == "Rollout" {
                let steps = object["spec"]["strategy"]["canary"]["steps"].as_array_mut().unwrap();
                steps.truncate(2);
                steps.iter_mut().for_each(|s| s["pause"] = json!({"duration": 5}));
            }
        };
        let stage = Stage::new(hurried, vec![]).await;
        let before = stage.written("Ingress", "web");
        stage.writes.lock().unwrap().clear();
        if let Some(n) = crash_after {
            stage.cluster.crash_after(CONTROLLER, n);
        }
        stage.release("canary").await;
        stage.until("routed", |s| s.get("Ingress", "web-canary").is_some()).await;
        stage.ended().await;
        assert_eq!((stage.shares(), stage.written("Ingress", "web")), ((100, 100), before), "{crash_after:?}");
        stage.writes.lock().unwrap().clone()
    }
    play(async {
        let writes = story(None).await;
        let of_ingress = (1..).zip(&writes).filter(|(_, resource)| *resource == "ingresses").map(|(n, _)| n);
        let of_ingress: Vec<u64> = of_ingress.collect();
        assert_eq!(of_ingress.len(), 3, "made, changed and deleted: {writes:?}");
        for n in of_ingress {
            story(Some(n)).await;
        }
    });
}

#[test]
fn a_rollback_takes_the_canary_ingress_first() {
    play(async {
        let stage = Stage::new(|_| {}, vec![]).await;
        let before = stage.written("Ingress", "web");
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("base").await;
        stage.until("no canary Ingress", |s| s.get("Ingress", "web-canary").is_none()).await;
        assert!(stage.get("Deployment", "web-canary").is_some(), "its pods stay while requests may be on the way");
        stage.ended().await;
        assert_eq!((stage.shares(), stage.written("Ingress", "web")), ((0, 0), before));
    });
}

#[test]
fn d_06_an_ingress_of_somebody_else_is_left_alone() {
    play(async {
        let other = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web-canary"},
            "spec": {"defaultBackend": {"service": {"name": "other", "port": {"number": 80}}}}});
        let stage = Stage::new(|_| {}, vec![other]).await;
        let before = stage.get("Ingress", "web-canary").unwrap();
        stage.release("canary").await;
        stage
            .until("stalled", |s| {
                let conditions = s.get("Rollout", "web").map(|r| r["status"]["conditions"].clone());
                conditions.is_some_and(|c| c.to_string().contains("NameTaken"))
            })
            .await;
        stage.release("base").await;
        stage.until("back", |s| s.get("Rollout", "web").is_some_and(|r| r["status"]["phase"] == "Healthy")).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.get("Ingress", "web-canary").unwrap(), before);
        assert!(stage.get("Deployment", "web-canary").is_none(), "no pod was made");
        assert_eq!(*stage.failed.lock().unwrap(), Vec::<String>::new());
    });
}

#[test]
fn an_alb_holds_both_versions_in_one_ingress() {
    play(async {
        let alb = |object: &mut Value| {
            if object["kind"] == "Rollout" {
                object["spec"]["strategy"]["canary"]["trafficRoutings"][0]["ingress"]["classType"] = json!("alb");
            }
        };
        let stage = Stage::new(alb, vec![]).await;
        let before = stage.written("Ingress", "web");
        stage.release("canary").await;
        for (step, shares) in [(1, (20, 20)), (2, (0, 100)), (3, (60, 60))] {
            stage.paused_at(step).await;
            assert_eq!(stage.shares(), shares, "step {step}");
            assert!(stage.get("Ingress", "web-canary").is_none());
            stage.approve().await;
        }
        stage.ended().await;
        assert_eq!((stage.shares(), stage.written("Ingress", "web")), ((100, 100), before));
    });
}

#[test]
fn an_ingress_a_mesh_route_and_a_gateway_route_move_together() {
    play(async {
        let all_three = |object: &mut Value| {
            if object["kind"] == "Rollout" {
                let routing = &mut object["spec"]["strategy"]["canary"]["trafficRoutings"][0];
                routing["gateway"] = json!({"httpRouteName": "web"});
                routing["customNetworkRefs"] =
                    json!([{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": "web"}]);
            }
        };
        let mesh = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "web"},
            "spec": {"hosts": ["web"], "http": [{"timeout": "3s", "route": [{"destination": {"host": "web"}}]}]}});
        let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
            "spec": {"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}});
        let stage = Stage::new(all_three, vec![mesh, gateway]).await;
        let before = ["Ingress", "VirtualService", "HTTPRoute"].map(|kind| stage.written(kind, "web"));
        let weights = |s: &Stage| {
            let weight = |kind: &str, path: &str| s.written(kind, "web").2.pointer(path).cloned();
            (weight("VirtualService", "/http/0/route/1/weight"), weight("HTTPRoute", "/rules/0/backendRefs/1/weight"))
        };
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!((stage.shares(), weights(&stage)), ((20, 20), (Some(json!(20)), Some(json!(20)))));
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(stage.shares(), (0, 100));
        stage.approve().await;
        stage.paused_at(3).await;
        assert_eq!((stage.shares(), weights(&stage)), ((60, 60), (Some(json!(60)), Some(json!(60)))));
        stage.release("base").await;
        stage.ended().await;
        assert_eq!(["Ingress", "VirtualService", "HTTPRoute"].map(|kind| stage.written(kind, "web")), before);
        assert_eq!(stage.shares(), (0, 0));
    });
}
