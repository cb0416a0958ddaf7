//! One cluster in memory with a workload, a Rollout and a running controller.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tidegate::{
    api::keys::WORKLOAD_TYPE,
    cli::demo::world::{CONTROLLER, install, manifests, options},
    controller::{self, Options},
    sim::{Cluster, Gvr, Verb, View, Write},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A kind of workload on the stage.
pub struct Row {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// What its spec has beside the template, for so many pods.
    pub spec: fn(usize) -> Value,
    /// Another definition than the server's own.
    pub definition: Option<fn() -> Value>,
    /// One pod a node.
    pub is_on_nodes: bool,
    /// What its owner says that it behaves as.
    pub behaves_as: Option<&'static str>,
}

pub const DEPLOYMENT: Row = Row {
    api_version: "apps/v1",
    kind: "Deployment",
    plural: "deployments",
    spec: |n| json!({"replicas": n}),
    definition: None,
    is_on_nodes: false,
    behaves_as: None,
};

pub static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples/istio");
pub const NAMESPACE: &str = "default";
pub const NAME: &str = "nginx-deployment";

/// One cluster with a workload, a Rollout and a running controller.
pub struct Stage {
    pub row: &'static Row,
    pub cluster: Cluster,
    pub view: View,
    /// The fewest ready pods, and the most pods of each version, that were ever seen.
    pub seen: Arc<Mutex<Seen>>,
    process: DropGuard,
    adjust: Adjust,
}

/// What is otherwise in the controller's options.
pub type Adjust = Arc<dyn Fn(&mut Options) + Send + Sync>;

/// A kind that routes, and the user's script for it.
const SPLIT: (&str, &str) = ("mesh.example.com", "Split");
const SPLIT_SCRIPT: &str = "local object = obj.data object.spec.weight = obj.canaryWeight return object";

/// Starts a controller, which runs until this is dropped.
fn start(cluster: &Cluster, adjust: &Adjust) -> DropGuard {
    let stop = CancellationToken::new();
    let mut options = options(cluster);
    adjust(&mut options);
    tokio::spawn(controller::run(cluster.client(CONTROLLER), options, stop.clone()));
    stop.drop_guard()
}

#[derive(Default)]
pub struct Seen {
    pub least_ready: Option<usize>,
    pub most: BTreeMap<String, usize>,
    /// When the route named the canary Service last, and when that Service was deleted after.
    named: Option<Timestamp>,
    named_at_deletion: Option<(Timestamp, Timestamp)>,
}

impl Seen {
    /// Gateways hear of a route and of a Service by different ways: a Service that goes together with the route to it
    /// is missed by requests.
    fn heed_route(&mut self, write: &Write) {
        const CANARY: &str = "nginx-service-canary";
        let names =
            |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|o| o["spec"].to_string().contains(CANARY));
        if write.gvr.resource == "virtualservices" && (names(&write.before) || names(&write.after)) {
            self.named = Some(write.time);
        }
        let goes = write.gvr.resource == "services" && write.name == CANARY && write.verb == Verb::Delete;
        if let Some(named) = self.named.filter(|_| goes && &*write.identity == CONTROLLER) {
            self.named_at_deletion = Some((named, write.time));
        }
    }
}

pub fn version(pod_spec: &Value) -> &str {
    pod_spec["volumes"][0]["configMap"]["name"].as_str().unwrap_or_default().trim_start_matches("nginx-configmap-")
}

pub fn is_ready(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_none()
        && pod["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

pub fn gvr(group: &str, plural: &str) -> Gvr {
    match group {
        "" => Gvr::new("", "v1", plural),
        "apps" => Gvr::new("apps", "v1", plural),
        _ => Gvr::new(group, "v1beta1", plural),
    }
}

pub fn pods(view: &View) -> Vec<Arc<Value>> {
    let mut pods = view.list(&gvr("", "pods"), Some(NAMESPACE));
    pods.retain(|p| p["metadata"]["labels"]["app"] == "nginx");
    pods
}

impl Stage {
    /// `spec` is merged into the Deployment's, `strategy` is the Rollout's.
    pub async fn new(spec: &Value, strategy: &Value) -> Stage {
        let wanted = spec["replicas"].as_u64().unwrap_or(5) as usize;
        Stage::of(&DEPLOYMENT, wanted, spec, strategy).await
    }

    /// A workload of some kind with so many pods; `spec` is merged into its own.
    pub async fn of(row: &'static Row, wanted: usize, spec: &Value, strategy: &Value) -> Stage {
        Stage::recording(row, wanted, spec, strategy, None).await
    }

    /// With a controller that records so many releases.
    pub async fn recording(
        row: &'static Row,
        wanted: usize,
        spec: &Value,
        strategy: &Value,
        history_limit: Option<usize>,
    ) -> Stage {
        let rollout = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
            "metadata": {"name": "r", "namespace": NAMESPACE},
            "spec": {"workloadRef": {"apiVersion": row.api_version, "kind": row.kind, "name": NAME},
                "strategy": strategy}});
        Stage::with(row, wanted, spec, rollout, Arc::new(move |options| options.history_limit = history_limit)).await
    }

    /// With a Rollout as it is written, and a controller with other options.
    pub async fn with(row: &'static Row, wanted: usize, spec: &Value, rollout: Value, adjust: Adjust) -> Stage {
        let mut builder = install(Cluster::builder()).unwrap().namespace("kruise-rollout").seed(7);
        for (plural, kind) in
            [("virtualservices", "VirtualService"), ("destinationrules", "DestinationRule"), ("gateways", "Gateway")]
        {
            builder = builder.kind("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], plural, kind, true);
        }
        let (group, kind) = SPLIT;
        builder = builder
            .kind(group, &["v1beta1"], "splits", kind, true)
            .object(json!({"apiVersion": format!("{group}/v1beta1"), "kind": kind,
                "metadata": {"name": "web", "namespace": NAMESPACE}, "spec": {}}))
            .object(json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "kruise-rollout-configuration", "namespace": "kruise-rollout"},
                "data": {format!("lua.traffic.routing.{kind}.{group}"): SPLIT_SCRIPT}}));
        if row.is_on_nodes {
            builder = builder.nodes(wanted as u32);
        }
        if let Some(definition) = row.definition {
            builder = builder.definition(definition());
        }
        for mut object in manifests(&MANIFESTS).unwrap() {
            match object["kind"].as_str() {
                Some("Rollout") => continue,
                Some("Deployment") => {
                    object["apiVersion"] = json!(row.api_version);
                    object["kind"] = json!(row.kind);
                    object["spec"].as_object_mut().unwrap().remove("replicas");
                    if let Some(behaves_as) = row.behaves_as {
                        json_patch::merge(&mut object["metadata"], &json!({"labels": {WORKLOAD_TYPE: behaves_as}}));
                    }
                    json_patch::merge(&mut object["spec"], &(row.spec)(wanted));
                    json_patch::merge(&mut object["spec"], spec);
                }
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
                let mut seen = seen.lock().unwrap();
                seen.heed_route(write);
                if write.gvr.resource != "pods" {
                    return;
                }
                let pods = pods(&view);
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
        let process = start(&cluster, &adjust);
        let stage = Stage { row, cluster, view, seen, process, adjust };
        stage.until("all pods ready", |s| pods(&s.view).iter().filter(|p| is_ready(p)).count() == wanted).await;
        stage.seen.lock().unwrap().least_ready = Some(wanted);
        stage.cluster.create(rollout).unwrap();
        stage.until("healthy", |s| s.rollout()["status"]["phase"] == "Healthy").await;
        stage
    }

    /// Another process takes over, which remembers nothing.
    pub fn restart(&mut self) {
        self.process = start(&self.cluster, &self.adjust);
    }

    pub fn rollout(&self) -> Arc<Value> {
        self.view.get(&gvr("rollouts.kruise.io", "rollouts"), NAMESPACE, "r").unwrap_or_default()
    }

    pub fn deployment(&self) -> Value {
        self.workload()
    }

    pub fn workload(&self) -> Value {
        let (group, version) = self.row.api_version.split_once('/').unwrap();
        let gvr = Gvr::new(group, version, self.row.plural);
        let mut object = self.view.get(&gvr, NAMESPACE, NAME).map_or(Value::Null, |d| (*d).clone());
        // The API server stores no `false`.
        if object["spec"]["paused"] == false {
            object["spec"].as_object_mut().unwrap().remove("paused");
        }
        object
    }

    fn nodes(&self) -> Vec<Arc<Value>> {
        self.view.list(&gvr("", "nodes"), None)
    }

    /// Pods that are wanted: by its replicas, or by the nodes that there are.
    pub fn wanted(&self) -> usize {
        let replicas = if self.row.is_on_nodes { None } else { self.workload()["spec"]["replicas"].as_u64() };
        replicas.map_or_else(|| if self.row.is_on_nodes { self.nodes().len() } else { 0 }, |n| n as usize)
    }

    /// Nodes come, or the last ones go.
    pub async fn set_nodes(&self, wanted: usize) {
        let nodes: Api<Node> = Api::all(self.cluster.client("user"));
        for n in (1..).take(self.nodes().len().max(wanted)) {
            let name = format!("node-{n}");
            if n > wanted {
                let _ = nodes.delete(&name, &Default::default()).await;
            } else if !self.nodes().iter().any(|node| node["metadata"]["name"] == name) {
                self.cluster.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})).unwrap();
            }
        }
    }

    /// Destinations of the first rule of the VirtualService.
    pub fn route(&self) -> Value {
        let route = self.view.get(&gvr("networking.istio.io", "virtualservices"), NAMESPACE, "nginx-vs").unwrap();
        route["spec"]["http"][0]["route"].clone()
    }

    pub async fn until(&self, what: &str, is_so: impl Fn(&Stage) -> bool) {
        for _ in 0..6000 {
            let gone = self.seen.lock().unwrap().named_at_deletion.take();
            // Whoever is scaled to nothing serves nobody.
            if let Some((named, deleted)) = gone.filter(|_| self.wanted() > 0) {
                let wait = deleted.duration_since(named).as_secs_f64();
                assert!(wait >= 3.0, "the canary Service went {wait:.3} s after the route to it");
            }
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!(
            "never: {what}\npods: {}\nRollout: {:#}\nworkload: {:#}",
            self.versions(),
            self.rollout()["status"],
            self.workload()
        );
    }

    pub fn api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.cluster.client("user"), NAMESPACE, &resource)
    }

    pub async fn patch_deployment(&self, patch: Value) {
        self.patch_workload(patch).await;
    }

    pub async fn patch_workload(&self, patch: Value) {
        let (group, version) = self.row.api_version.split_once('/').unwrap();
        let api = self.api(group, version, self.row.kind);
        api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn release(&self, version: &str) {
        let volume = json!([{"name": "nginx-config", "configMap": {"name": format!("nginx-configmap-{version}")}}]);
        self.patch_deployment(json!({"spec": {"template": {"spec": {"volumes": volume}}}})).await;
    }

    pub async fn patch_rollout(&self, patch: Value) {
        let api = self.api("rollouts.kruise.io", "v1beta1", "Rollout");
        api.patch("r", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub fn sub(&self) -> Value {
        let status = &self.rollout()["status"];
        let sub = ["canaryStatus", "blueGreenStatus"].into_iter().find_map(|k| status.get(k));
        sub.cloned().unwrap_or_default()
    }

    pub async fn paused_at(&self, step: i64) {
        self.until(&format!("paused at step {step}"), |s| {
            let sub = s.sub();
            sub["currentStepIndex"] == step && sub["currentStepState"] == "StepPaused" && sub["pausedStepIndex"] == step
        })
        .await;
    }

    pub async fn approve(&self) {
        let key =
            if self.rollout()["status"]["blueGreenStatus"].is_null() { "canaryStatus" } else { "blueGreenStatus" };
        let api = self.api("rollouts.kruise.io", "v1beta1", "Rollout");
        let patch = json!({"status": {key: {"currentStepState": "StepReady"}}});
        // What waited may be gone by now; whoever needs the approval sees that nothing goes on.
        let _ = api.patch_status("r", &PatchParams::default(), &Patch::Merge(patch)).await;
    }

    /// Ready pods by version.
    pub fn versions(&self) -> String {
        let mut count = BTreeMap::<String, usize>::new();
        for pod in pods(&self.view).iter().filter(|p| is_ready(p)) {
            *count.entry(version(&pod["spec"]).to_owned()).or_default() += 1;
        }
        let pods: Vec<String> = count.iter().map(|(version, n)| format!("{n} {version}")).collect();
        pods.join(" + ")
    }

    /// Ready pods by version, and how far a Deployment is opened.
    pub fn told(&self) -> String {
        let spec = &self.workload()["spec"];
        let rolling = &spec["strategy"]["rollingUpdate"];
        format!("{}; surge {}, unavailable {}", self.versions(), rolling["maxSurge"], rolling["maxUnavailable"])
    }

    pub async fn ends(&self) {
        self.until("ended", |s| {
            let status = &s.rollout()["status"];
            let spec = &s.workload();
            status["phase"] == "Healthy"
                && s.sub()["currentStepState"] == "Completed"
                && spec["metadata"]["annotations"].get("rollouts.kruise.io/in-progressing").is_none()
                && spec["spec"]["replicas"].as_u64().is_none_or(|wanted| pods(&s.view).len() as u64 == wanted)
        })
        .await;
    }

    /// The release ends, and then these pods become ready: its own strategy may let some be missing at the end.
    pub async fn ends_with(&self, versions: &str) {
        self.ends().await;
        self.until(versions, |s| s.versions() == versions).await;
    }

    pub fn seen(&self) -> (usize, BTreeMap<String, usize>) {
        let seen = self.seen.lock().unwrap();
        (seen.least_ready.unwrap_or_default(), seen.most.clone())
    }
}

pub fn play<F: Future<Output = ()>>(story: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story);
}
