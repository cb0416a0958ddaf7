//! Releases that OpenKruise Rollouts has begun, as its contract says that it leaves them (`testcases/adopt`): taken over on
//! the in-memory cluster and played to their end. `BLESS=1 cargo test --test adopt` writes what the command says anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod adopt_case;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use libtest_mimic::{Arguments, Failed, Trial};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::{
    cli::{
        adopt,
        demo::world::{CONTROLLER, install, options},
    },
    controller,
    sim::{Cluster, Gvr, View},
};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "shop";
const CONTROL_INFO: &str = "batchrelease.rollouts.kruise.io/control-info";
const ROUTES: [(&str, &str, &str, &str); 3] = [
    ("networking.istio.io", "v1", "virtualservices", "VirtualService"),
    ("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
    ("networking.k8s.io", "v1", "ingresses", "Ingress"),
];
/// Kinds of others, with the versions that are served; the first is stored.
const KINDS: [(&str, &[&str], &str, &str); 6] = [
    ("rollouts.kruise.io", &["v1beta1", "v1alpha1"], "batchreleases", "BatchRelease"),
    ("networking.istio.io", &["v1"], "virtualservices", "VirtualService"),
    ("gateway.networking.k8s.io", &["v1"], "httproutes", "HTTPRoute"),
    ("apps.kruise.io", &["v1alpha1"], "clonesets", "CloneSet"),
    ("apps.kruise.io", &["v1beta1", "v1alpha1"], "statefulsets", "StatefulSet"),
    ("apps.kruise.io", &["v1alpha1"], "daemonsets", "DaemonSet"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    /// Another file: what is not said here is as it says.
    #[serde(default, rename = "of")]
    _of: Option<String>,
    /// How its objects differ.
    #[serde(default, rename = "differs")]
    _differs: Vec<Edit>,
    /// Objects of it, as `Kind/name`, that there are none of.
    #[serde(default, rename = "without")]
    _without: Vec<String>,
    /// As the original has left them, in the order in which they are made. `${Kind/name}` is the uid of an earlier one.
    objects: Vec<Value>,
    /// What the original did to them then; the cluster comes to rest after each.
    #[serde(default)]
    later: Vec<Edit>,
    /// Pods that the original has deleted at last.
    #[serde(default)]
    deletes: usize,
    /// Ready pods by version before the takeover.
    before: String,
    /// Ready pods by version while the step waits after it; absent where the release is being wound up, and ends.
    #[serde(default)]
    after: Option<String>,
    /// What has to stand in these objects at the last step.
    #[serde(default)]
    routed: Vec<Edit>,
    /// Its own controller has let the workload go, so that Tidegate need not wait.
    #[serde(default)]
    is_let_go: bool,
    /// What the takeover itself must not fall short of, in ready pods.
    least: usize,
    /// No pod comes or goes by the takeover.
    #[serde(default)]
    same_pods: bool,
    /// Ready pods at each further step that is approved.
    #[serde(default)]
    steps: Vec<String>,
    /// Somebody goes back to the first version instead of approving.
    #[serde(default)]
    rolls_back: bool,
    /// Ready pods at the end.
    end: String,
    /// What has to stand in the workload at the end; `null` for what must not.
    workload: Value,
    /// What has to stand in others.
    #[serde(default)]
    restored: Vec<Edit>,
    /// Objects, as `Kind/name`, that are gone.
    #[serde(default)]
    gone: Vec<String>,
    /// What the command prints.
    #[serde(default, rename = "says")]
    _says: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Edit {
    api_version: String,
    kind: String,
    name: String,
    merge: Value,
}

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testcases/adopt");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let trials = files.into_iter().map(|file| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        Trial::test(name, move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(play(&file)).map_err(Failed::from)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

struct Stage {
    cluster: Cluster,
    view: View,
    workload: (String, String, String),
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}

fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn resolved(value: &Value, uids: &BTreeMap<String, String>) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix("${").and_then(|t| t.strip_suffix('}')) {
            Some(name) => json!(uids[name]),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(|v| resolved(v, uids)).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), resolved(v, uids))).collect(),
        _ => value.clone(),
    }
}

fn is_ready(pod: &Value) -> bool {
    pod["metadata"].get("deletionTimestamp").is_none()
        && pod["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn pods(view: &View) -> Vec<Arc<Value>> {
    view.list(&Gvr::new("", "v1", "pods"), Some(NAMESPACE))
}

fn versions(view: &View) -> String {
    let mut count = BTreeMap::<String, usize>::new();
    for pod in pods(view).iter().filter(|p| is_ready(p)) {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        *count.entry(image.rsplit(':').next().unwrap().to_owned()).or_default() += 1;
    }
    count.iter().map(|(version, n)| format!("{n} {version}")).collect::<Vec<_>>().join(" + ")
}

/// What routes, as it stands.
fn routes(view: &View) -> Vec<Value> {
    ROUTES
        .iter()
        .flat_map(|(group, version, plural, _)| view.list(&Gvr::new(group, version, plural), Some(NAMESPACE)))
        .map(|route| route["spec"].clone())
        .collect()
}

impl Stage {
    fn get(&self, api_version: &str, kind: &str, name: &str) -> Option<Value> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.view.get(&Gvr::new(group, version, &plural(kind)), NAMESPACE, name).map(|o| (*o).clone())
    }

    fn rollout(&self) -> Value {
        self.get("rollouts.kruise.io/v1beta1", "Rollout", "web").unwrap()
    }

    fn sub(&self) -> Value {
        let status = &self.rollout()["status"];
        ["canaryStatus", "blueGreenStatus"].into_iter().find_map(|k| status.get(k)).cloned().unwrap_or_default()
    }

    fn workload(&self) -> Value {
        self.get(&self.workload.0, &self.workload.1, &self.workload.2).unwrap()
    }

    fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client("original"), NAMESPACE, &resource(api_version, kind))
    }

    /// These objects hold what is said of them.
    fn has(&self, wanted: &[Edit]) -> Result<(), String> {
        wanted.iter().try_for_each(|wanted| {
            let found = self.get(&wanted.api_version, &wanted.kind, &wanted.name).unwrap_or_default();
            contains(&format!("{}/{}", wanted.kind, wanted.name), &found, &wanted.merge)
        })
    }

    fn uid_of_ingress(&self) -> Option<Value> {
        self.get("networking.k8s.io/v1", "Ingress", "web-canary").map(|ingress| ingress["metadata"]["uid"].clone())
    }

    /// Services and routes, as `Kind/name`.
    fn objects(&self) -> Vec<String> {
        let kinds = [("", "v1", "services", "Service"), ("networking.k8s.io", "v1", "ingresses", "Ingress")];
        let of = |(group, version, plural, kind): (&str, &str, &str, &str)| -> Vec<String> {
            let all = self.view.list(&Gvr::new(group, version, plural), Some(NAMESPACE));
            all.iter().map(|o| format!("{kind}/{}", o["metadata"]["name"].as_str().unwrap())).collect()
        };
        kinds.into_iter().flat_map(of).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Stage) -> bool) -> Result<(), String> {
        for _ in 0..6000 {
            if is_so(self) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let rollout = &self.rollout()["status"];
        Err(format!("never: {what}\npods: {}\nRollout: {rollout:#}\n{:#}", versions(&self.view), self.workload()))
    }

    async fn paused_at(&self, step: i64, pods: &str) -> Result<(), String> {
        self.until(&format!("paused at step {step} with {pods}"), |s| {
            let sub = s.sub();
            sub["currentStepIndex"] == step
                && sub["currentStepState"] == "StepPaused"
                && sub["pausedStepIndex"] == step
                && versions(&s.view) == pods
        })
        .await
    }
}

async fn play(file: &Path) -> Result<(), String> {
    let text = fs::read_to_string(file).unwrap();
    let case: Case = serde_json::from_value(adopt_case::whole(file)?).map_err(|e| e.to_string())?;
    let stage = stage(&case).await?;
    let client = stage.cluster.client("admin");

    // What it would do, and nothing else, as the file has it.
    let before = stage.cluster.writes();
    let steps = adopt::plan::plan(&adopt::find(&client, NAMESPACE, "web").await.unwrap()).map_err(|e| e.to_string())?;
    let says: String = steps.iter().map(|step| format!("{step}\n")).collect();
    if stage.cluster.writes() != before {
        return Err("a dry run has written something".to_owned());
    }
    let kept = text.split_once("\nsays: |\n").map(|(_, rest)| rest.replace("\n  ", "\n").trim_start().to_owned());
    if std::env::var_os("BLESS").is_some() {
        let head = text.split_once("\nsays:").map_or(text.trim_end(), |(head, _)| head.trim_end());
        let said: String = says.lines().map(|line| format!("  {line}\n")).collect();
        fs::write(file, format!("{head}\nsays: |\n{said}")).unwrap();
    } else if kept.as_deref() != Some(&says) {
        return Err(format!("says something else; BLESS=1 if it is meant:\n{says}"));
    }

    // Tidegate keeps its hands off before.
    let stop = CancellationToken::new();
    tokio::spawn(controller::run(stage.cluster.client(CONTROLLER), options(&stage.cluster), stop.clone()));
    let _stop = stop.drop_guard();
    if !case.is_let_go {
        let workload = stage.workload();
        tokio::time::sleep(Duration::from_secs(120)).await;
        if stage.workload()["spec"] != workload["spec"] || versions(&stage.view) != case.before {
            return Err(format!("touched before it was taken over: {}", versions(&stage.view)));
        }
        let stalled = stage.rollout()["status"]["conditions"].to_string();
        if !stalled.contains("tidegate adopt -n shop web") {
            return Err(format!("the remedy is not told: {stalled}"));
        }
    }

    let names = |stage: &Stage| {
        let mut names: Vec<String> = pods(&stage.view).iter().map(|p| p["metadata"]["name"].to_string()).collect();
        names.sort();
        names
    };
    let (pods_before, ingress) = (names(&stage), stage.uid_of_ingress());
    // What the change by itself has done, at the moment from which the controller goes on.
    let at_once = Arc::new(Mutex::new(None));
    let of_first = |view: &View| versions(view).split(" + ").find(|v| v.ends_with("v1")).unwrap_or_default().to_owned();
    let stood = (of_first(&stage.view), routes(&stage.view));
    let least = Arc::new(Mutex::new(usize::MAX));
    let new = Arc::new(Mutex::new(usize::MAX));
    stage.cluster.on_write(Box::new({
        let (view, least, new, at_once) = (stage.view.clone(), least.clone(), new.clone(), at_once.clone());
        move |write| {
            let is_begun = |object: &Option<Arc<Value>>| {
                object.as_ref().is_some_and(|o| o["metadata"]["annotations"].get(CONTROL_INFO).is_some())
            };
            if write.name == "web" && is_begun(&write.before) && !is_begun(&write.after) {
                at_once.lock().unwrap().get_or_insert((of_first(&view), routes(&view)));
            }
            if write.gvr.resource == "pods" {
                let ready = pods(&view);
                let ready: Vec<_> = ready.iter().filter(|p| is_ready(p)).collect();
                let mut least = least.lock().unwrap();
                *least = (*least).min(ready.len());
                let v2 = ready.iter().filter(|p| p["spec"]["containers"][0]["image"] == "web:v2").count();
                let mut new = new.lock().unwrap();
                *new = (*new).min(v2);
            }
        }
    }));
    let mut said = Vec::new();
    adopt::apply(&client, NAMESPACE, "web", Duration::from_secs(600), &mut |line| {
        said.push(line.to_owned());
        Ok(())
    })
    .await
    .map_err(|e| format!("{e:#}\nafter {said:#?}"))?;
    if let Some(at_once) = at_once.lock().unwrap().as_ref().filter(|at_once| **at_once != stood) {
        return Err(format!("the takeover by itself has made {at_once:?} of {stood:?}"));
    }
    let index = stage.sub()["currentStepIndex"].as_i64().unwrap();
    if let Some(after) = &case.after {
        stage.paused_at(index, after).await?;
        tokio::time::sleep(Duration::from_secs(120)).await;
        stage.paused_at(index, after).await?;
        if case.same_pods && names(&stage) != pods_before {
            return Err(format!("pods were replaced: {pods_before:?}, now {:?}", names(&stage)));
        }
    }
    let (ready, fresh) = (*least.lock().unwrap(), *new.lock().unwrap());
    if ready < case.least || (fresh == 0 && case.before.contains("v2")) {
        return Err(format!("only {ready} ready pods, {fresh} of them new"));
    }
    if stage.get("rollouts.kruise.io/v1beta1", "BatchRelease", "web").is_some() {
        return Err("the BatchRelease is still there".to_owned());
    }
    let again = adopt::plan::plan(&adopt::find(&client, NAMESPACE, "web").await.unwrap()).map_err(|e| e.to_string())?;
    if !again.is_empty() {
        return Err(format!("it is not done: {again:#?}"));
    }

    for (i, expected) in case.steps.iter().enumerate() {
        approve(&stage).await;
        stage.paused_at(index + 1 + i as i64, expected).await?;
    }
    stage.has(&case.routed)?;
    if case.after.is_some() && stage.uid_of_ingress() != ingress {
        return Err("the Ingress was made anew: for a moment nothing went to the canary".to_owned());
    }
    match case.rolls_back {
        true => {
            let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:v1"}]}}}});
            let (api, name) = (stage.api(&stage.workload.0, &stage.workload.1), &stage.workload.2);
            api.patch(name, &PatchParams::default(), &Patch::Merge(image)).await.unwrap();
        }
        false if case.after.is_some() => approve(&stage).await,
        false => {}
    }
    stage
        .until(&format!("ended with {}", case.end), |s| {
            let mark = &s.workload()["metadata"]["annotations"]["rollouts.kruise.io/in-progressing"];
            s.rollout()["status"]["phase"] == "Healthy" && mark.is_null() && versions(&s.view) == case.end
        })
        .await?;
    let end = stage.workload();
    contains("workload", &end, &case.workload)?;
    let left = end["metadata"].to_string();
    if ["control-info", "deployment-strategy", "advanced", "stable-revision"].iter().any(|key| left.contains(key)) {
        return Err(format!("left behind: {left}"));
    }
    for scaler in stage.view.list(&Gvr::new("autoscaling", "v2", "horizontalpodautoscalers"), Some(NAMESPACE)) {
        if scaler["spec"]["scaleTargetRef"]["name"] != "web" {
            return Err(format!("an autoscaler is still off: {scaler}"));
        }
    }
    stage.has(&case.restored)?;
    if let Some(left) = case.gone.iter().find(|gone| stage.objects().contains(gone)) {
        return Err(format!("{left} is left"));
    }
    if let Some(route) = stage.get("networking.istio.io/v1", "VirtualService", "web") {
        let expected = json!([{"route": [{"destination": {"host": "web"}}]}]);
        if route["spec"]["http"] != expected || !route["metadata"]["annotations"].is_null() {
            return Err(format!("the route is not as it was: {route:#}"));
        }
    }
    let canaries: Vec<_> = stage.view.list(&Gvr::new("apps", "v1", "deployments"), Some(NAMESPACE));
    match canaries.iter().find(|d| d["metadata"]["name"] != "web") {
        Some(canary) => Err(format!("a Deployment is left: {}", canary["metadata"]["name"])),
        None => Ok(()),
    }
}

async fn approve(stage: &Stage) {
    let key = if stage.rollout()["status"]["blueGreenStatus"].is_null() { "canaryStatus" } else { "blueGreenStatus" };
    let patch = Patch::Merge(json!({"status": {key: {"currentStepState": "StepReady"}}}));
    let api = stage.api("rollouts.kruise.io/v1beta1", "Rollout");
    api.patch_status("web", &PatchParams::default(), &patch).await.unwrap();
}

/// `wanted` stands in `found`; a null stands for what must be absent.
fn contains(path: &str, found: &Value, wanted: &Value) -> Result<(), String> {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().try_for_each(|(key, wanted)| {
            contains(&format!("{path}.{key}"), found.get(key).unwrap_or(&Value::Null), wanted)
        }),
        _ if found == wanted => Ok(()),
        _ => Err(format!("{path} is {found}, not {wanted}")),
    }
}

async fn stage(case: &Case) -> Result<Stage, String> {
    let mut builder =
        install(Cluster::builder()).unwrap().namespace(NAMESPACE).namespace("kruise-rollout").seed(7).nodes(10);
    for (group, versions, plural, kind) in KINDS {
        builder = builder.kind(group, versions, plural, kind, true);
    }
    let cluster = builder.build().unwrap();
    let view = cluster.view();
    let mut uids = BTreeMap::new();
    let mut workload = None;
    for object in &case.objects {
        let mut object = resolved(object, &uids);
        object["metadata"]["namespace"] = json!(NAMESPACE);
        let status = object.as_object_mut().unwrap().remove("status");
        let text = |key: &str| object[key].as_str().unwrap().to_owned();
        let (api_version, kind, name) =
            (text("apiVersion"), text("kind"), object["metadata"]["name"].as_str().unwrap().to_owned());
        if workload.is_none() && name == "web" {
            workload = Some((api_version.clone(), kind.clone(), name.clone()));
        }
        let made = cluster.create(object.clone()).map_err(|e| format!("{kind} {name}: {}", e.message))?;
        uids.insert(format!("{kind}/{name}"), made["metadata"]["uid"].as_str().unwrap().to_owned());
        if let Some(status) = status {
            let api: Api<DynamicObject> =
                Api::namespaced_with(cluster.client("original"), NAMESPACE, &resource(&api_version, &kind));
            let patch = Patch::Merge(json!({"status": resolved(&status, &uids)}));
            api.patch_status(&name, &PatchParams::default(), &patch).await.map_err(|e| e.to_string())?;
        }
    }
    let stage = Stage { cluster, view, workload: workload.unwrap() };
    tokio::time::sleep(Duration::from_secs(60)).await;
    for edit in &case.later {
        let api = stage.api(&edit.api_version, &edit.kind);
        let patch = Patch::Merge(resolved(&edit.merge, &uids));
        api.patch(&edit.name, &PatchParams::default(), &patch).await.map_err(|e| e.to_string())?;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    for pod in pods(&stage.view).iter().take(case.deletes) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        stage.api("v1", "Pod").delete(name, &Default::default()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    stage.until(&case.before, |s| versions(&s.view) == case.before).await?;
    Ok(stage)
}
