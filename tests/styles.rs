//! Each style of a Deployment, step by step on the in-memory cluster: what runs at each step, and what is put back.

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

use include_dir::{Dir, include_dir};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{CONTROLLER, install, manifests, start_controller},
    sim::{Cluster, Gvr, View},
};
use tokio_util::sync::{CancellationToken, DropGuard};

static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/istio");
const NAMESPACE: &str = "default";
const NAME: &str = "nginx-deployment";

/// One cluster with a workload, a Rollout and a running controller.
struct Stage {
    cluster: Cluster,
    view: View,
    /// The fewest ready pods, and the most pods of each version, that were ever seen.
    seen: Arc<Mutex<Seen>>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Seen {
    least_ready: Option<usize>,
    most: BTreeMap<String, usize>,
}

fn version(pod_spec: &Value) -> &str {
    pod_spec["volumes"][0]["configMap"]["name"].as_str().unwrap_or_default().trim_start_matches("nginx-configmap-")
}

fn is_ready(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_none()
        && pod["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn gvr(group: &str, plural: &str) -> Gvr {
    match group {
        "" => Gvr::new("", "v1", plural),
        "apps" => Gvr::new("apps", "v1", plural),
        _ => Gvr::new(group, "v1beta1", plural),
    }
}

fn pods(view: &View) -> Vec<Arc<Value>> {
    let mut pods = view.list(&gvr("", "pods"), Some(NAMESPACE));
    pods.retain(|p| p["metadata"]["labels"]["app"] == "nginx");
    pods
}

impl Stage {
    /// `spec` is merged into the Deployment's, `strategy` is the Rollout's.
    async fn new(spec: &Value, strategy: &Value) -> Stage {
        let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout").seed(7);
        for (plural, kind) in
            [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule"), ("gateways", "Gateway")]
        {
            builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
        }
        for mut object in manifests(&MANIFESTS).unwrap() {
            match object["kind"].as_str() {
                Some("Rollout") => continue,
                Some("Deployment") => json_patch::merge(&mut object["spec"], spec),
                // Traffic by two Services; subsets are another story.
                Some("VirtualService") => {
                    object["spec"]["http"][0]["route"][0]["destination"].as_object_mut().unwrap().remove("subset");
                }
                _ => {}
            }
            builder = builder.object(object);
        }
        let cluster = builder.build().unwrap();
        let view = cluster.view();
        let seen = Arc::<Mutex<Seen>>::default();
        cluster.on_write(Box::new({
            let (view, seen) = (view.clone(), seen.clone());
            move |write| {
                if write.gvr.resource != "pods" {
                    return;
                }
                let pods = pods(&view);
                let mut seen = seen.lock().unwrap();
                let ready = pods.iter().filter(|p| is_ready(p)).count();
                seen.least_ready = seen.least_ready.map(|least| least.min(ready));
                let mut count = BTreeMap::<String, usize>::new();
                for pod in pods.iter().filter(|p| p["metadata"].get("deletionTimestamp").is_none()) {
                    *count.entry(version(&pod["spec"]).to_owned()).or_default() += 1;
                }
                for (version, n) in count {
                    let most = seen.most.entry(version).or_default();
                    *most = n.max(*most);
                }
            }
        }));
        let stop = CancellationToken::new();
        start_controller(&cluster, cluster.client(CONTROLLER), stop.clone());
        let stage = Stage { cluster, view, seen, _stop: stop.drop_guard() };
        let wanted = spec["replicas"].as_u64().unwrap_or(5) as usize;
        stage.until("all pods ready", |s| pods(&s.view).iter().filter(|p| is_ready(p)).count() == wanted).await;
        stage.seen.lock().unwrap().least_ready = Some(wanted);
        stage
            .cluster
            .create(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
                "metadata": {"name": "r", "namespace": NAMESPACE},
                "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}, "strategy": strategy}}))
            .unwrap();
        stage.until("healthy", |s| s.rollout()["status"]["phase"] == "Healthy").await;
        stage
    }

    fn rollout(&self) -> Arc<Value> {
        self.view.get(&gvr("rollouts.kruise.io", "rollouts"), NAMESPACE, "r").unwrap_or_default()
    }

    fn deployment(&self) -> Value {
        let mut object =
            self.view.get(&gvr("apps", "deployments"), NAMESPACE, NAME).map_or(Value::Null, |d| (*d).clone());
        // The API server stores no `false`.
        if object["spec"]["paused"] == false {
            object["spec"].as_object_mut().unwrap().remove("paused");
        }
        object
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Stage) -> bool) {
        for _ in 0..6000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {what}\nRollout: {:#}\nDeployment: {:#}", self.rollout()["status"], self.deployment());
    }

    fn api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.cluster.client("user"), NAMESPACE, &resource)
    }

    async fn patch_deployment(&self, patch: Value) {
        let api = self.api("apps", "v1", "Deployment");
        api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn release(&self, version: &str) {
        let volume = json!([{"name": "nginx-config", "configMap": {"name": format!("nginx-configmap-{version}")}}]);
        self.patch_deployment(json!({"spec": {"template": {"spec": {"volumes": volume}}}})).await;
    }

    async fn patch_rollout(&self, patch: Value) {
        let api = self.api("rollouts.kruise.io", "v1beta1", "Rollout");
        api.patch("r", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    fn sub(&self) -> Value {
        let status = &self.rollout()["status"];
        let sub = ["canaryStatus", "blueGreenStatus"].into_iter().find_map(|k| status.get(k));
        sub.cloned().unwrap_or_default()
    }

    async fn paused_at(&self, step: i64) {
        self.until(&format!("paused at step {step}"), |s| {
            let sub = s.sub();
            sub["currentStepIndex"] == step && sub["currentStepState"] == "StepPaused" && sub["pausedStepIndex"] == step
        })
        .await;
    }

    async fn approve(&self) {
        let key =
            if self.rollout()["status"]["blueGreenStatus"].is_null() { "canaryStatus" } else { "blueGreenStatus" };
        let api = self.api("rollouts.kruise.io", "v1beta1", "Rollout");
        let patch = json!({"status": {key: {"currentStepState": "StepReady"}}});
        api.patch_status("r", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Pods by version, and what the stable Service is restricted to.
    fn told(&self) -> String {
        let mut count = BTreeMap::<String, usize>::new();
        for pod in pods(&self.view).iter().filter(|p| is_ready(p)) {
            *count.entry(version(&pod["spec"]).to_owned()).or_default() += 1;
        }
        let pods: Vec<String> = count.iter().map(|(version, n)| format!("{n} {version}")).collect();
        let spec = &self.deployment()["spec"];
        let rolling = &spec["strategy"]["rollingUpdate"];
        format!("{}; surge {}, unavailable {}", pods.join(" + "), rolling["maxSurge"], rolling["maxUnavailable"])
    }

    async fn ends(&self) {
        self.until("ended", |s| {
            let status = &s.rollout()["status"];
            let spec = &s.deployment();
            status["phase"] == "Healthy"
                && s.sub()["currentStepState"] == "Completed"
                && spec["metadata"]["annotations"].get("rollouts.kruise.io/in-progressing").is_none()
                && pods(&s.view).len() as u64 == spec["spec"]["replicas"].as_u64().unwrap()
        })
        .await;
    }

    fn seen(&self) -> (usize, BTreeMap<String, usize>) {
        let seen = self.seen.lock().unwrap();
        (seen.least_ready.unwrap_or_default(), seen.most.clone())
    }
}

fn play<F: Future<Output = ()>>(story: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story);
}

fn partition(steps: Value) -> Value {
    json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": steps}})
}

fn with_traffic(mut strategy: Value, style: &str) -> Value {
    strategy[style]["trafficRoutings"] = json!([{"service": "nginx-service",
        "networkRefs": [{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": "nginx-vs"}]}]);
    strategy
}

const TEN: &str = r#"{"replicas": 10, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}"#;

fn ten() -> Value {
    serde_json::from_str(TEN).unwrap()
}

#[test]
fn in_place_step_by_step() {
    play(async {
        let strategy = partition(json!([{"replicas": "20%"}, {"replicas": 5}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        let before = stage.deployment();
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(stage.told(), r#"8 base + 2 canary; surge 0, unavailable "20%""#);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(stage.seen(), (10, [("base".into(), 10), ("canary".into(), 2)].into()));
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(stage.told(), r#"5 base + 5 canary; surge 0, unavailable "50%""#);
        stage.approve().await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 canary; surge 1, unavailable 0");
        assert_eq!(stage.seen().0, 10, "never fewer pods than promised");
        let (mut before, after) = (before, stage.deployment());
        before["spec"]["template"] = after["spec"]["template"].clone();
        assert_eq!(before["spec"], after["spec"]);
    });
}

#[test]
fn in_place_with_traffic_and_back() {
    play(async {
        let steps =
            json!([{"replicas": "20%", "traffic": "20%"}, {"replicas": "60%", "traffic": "50%"}, {"replicas": "100%"}]);
        let stage = Stage::new(&ten(), &with_traffic(partition(steps), "canary")).await;
        let route = |s: &Stage| {
            let route = s.view.get(&gvr("networking.istio.io", "virtualservices"), NAMESPACE, "nginx-vs").unwrap();
            route["spec"]["http"][0]["route"].clone()
        };
        let (before, original) = (stage.deployment(), route(&stage));
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(route(&stage)[1]["weight"], 20);
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(
            (stage.told().as_str(), &route(&stage)[1]["weight"]),
            (r#"4 base + 6 canary; surge 0, unavailable "60%""#, &json!(50))
        );
        stage.release("base").await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 base; surge 1, unavailable 0");
        assert_eq!((&before["spec"], original), (&stage.deployment()["spec"], route(&stage)));
    });
}

#[test]
fn blue_green_switches_and_waits() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = Stage::new(&ten(), &with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen")).await;
        let before = stage.deployment();
        stage.release("canary").await;
        for step in 1..=3 {
            stage.paused_at(step).await;
            assert_eq!(stage.told(), r#"10 base + 10 canary; surge "100%", unavailable 0"#, "step {step}");
            if step == 3 {
                tokio::time::sleep(Duration::from_secs(600)).await;
                assert_eq!(stage.told(), r#"10 base + 10 canary; surge "100%", unavailable 0"#, "the last step waits");
            }
            stage.approve().await;
        }
        stage.ends().await;
        assert_eq!(stage.told(), "10 canary; surge 1, unavailable 0");
        assert_eq!(stage.seen().0, 10);
        let (mut before, after) = (before, stage.deployment());
        before["spec"]["template"] = after["spec"]["template"].clone();
        assert_eq!(before["spec"], after["spec"]);
        let sets = stage.view.list(&gvr("apps", "replicasets"), Some(NAMESPACE));
        assert!(sets.iter().all(|s| s["spec"].get("minReadySeconds").is_none_or(|v| v == 0)), "{sets:#?}");
    });
}

#[test]
fn blue_green_goes_back_at_once_and_refuses_a_third_version() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = Stage::new(&ten(), &with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen")).await;
        let before = stage.deployment();
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("third").await;
        stage
            .until("refused", |s| {
                s.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains("please rollback first"))
            })
            .await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(stage.told(), r#"10 base + 10 canary; surge "100%", unavailable 0"#);
        // Back to the second version: it goes on where it was.
        stage.release("canary").await;
        stage
            .until("not refused", |s| {
                s.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains("manually confirm"))
            })
            .await;
        stage.approve().await;
        stage.paused_at(2).await;
        stage.release("base").await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 base; surge 1, unavailable 0");
        assert_eq!((stage.seen().0, &before["spec"]), (10, &stage.deployment()["spec"]));
    });
}

#[test]
fn what_others_change_at_a_step_in_place_is_kept_and_opens_nothing() {
    play(async {
        let strategy = partition(json!([{"replicas": "20%"}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.patch_deployment(json!({"spec": {"minReadySeconds": 5, "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": "50%"}}}})).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.told(), r#"8 base + 2 canary; surge 0, unavailable "20%""#);
        stage.patch_deployment(json!({"spec": {"replicas": 20}})).await;
        stage.until("scaled", |s| pods(&s.view).iter().filter(|p| is_ready(p)).count() == 20).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.told(), r#"16 base + 4 canary; surge 0, unavailable "20%""#);
        stage.approve().await;
        stage.ends().await;
        assert_eq!(stage.told(), r#"20 canary; surge 3, unavailable "50%""#);
        assert_eq!(stage.deployment()["spec"]["minReadySeconds"], 5);
    });
}

#[test]
fn a_third_version_in_place_starts_again() {
    play(async {
        let strategy = partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        let before = stage.deployment();
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("third").await;
        stage.until("restarted", |s| s.told().contains("third")).await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.told(), r#"6 base + 4 third; surge 0, unavailable "40%""#);
        stage.release("base").await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 base; surge 1, unavailable 0");
        assert_eq!((stage.seen().0, &before["spec"]), (10, &stage.deployment()["spec"]));
    });
}

#[test]
fn d_15_one_replica_with_traffic_comes_to_an_end() {
    play(async {
        let steps = json!([{"replicas": "50%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = Stage::new(&json!({"replicas": 1}), &with_traffic(partition(steps), "canary")).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.approve().await;
        stage.ends().await;
        assert!(stage.told().starts_with("1 canary"), "{}", stage.told());
        assert_eq!(stage.seen().0, 1);
    });
}

#[test]
fn disabled_at_a_step_in_place_rolls_on_natively() {
    play(async {
        let strategy = partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
        stage.until("disabled", |s| s.rollout()["status"]["phase"] == "Disabled").await;
        stage.until("rolled", |s| s.told() == "10 canary; surge 1, unavailable 0").await;
        assert!(stage.deployment()["metadata"]["labels"].get("rollouts.kruise.io/workload-type").is_none());
    });
}
