//! Workloads that own pods and ControllerRevisions: what their controllers do, pod by pod.

use std::sync::Mutex;

use kube::api::{DeleteParams, Patch, PatchParams};

use super::*;

mod advanced_daemon_sets;
mod advanced_stateful_sets;
mod clone_sets;
mod daemon_sets;
mod stateful_sets;

/// A cluster with one workload in it, and what has happened to its pods.
pub(super) struct World {
    pub cluster: Cluster,
    gvr: Gvr,
    kind: &'static str,
    told: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// `gvr` and `kind` are those of the workload `web`, which is among the builder's objects.
    pub async fn new(builder: Builder, gvr: Gvr, kind: &'static str) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let builder = builder.on_write(Box::new(move |write| heard.lock().unwrap().extend(event(write))));
        let world = Self { cluster: builder.build().unwrap(), gvr, kind, told };
        world.rest().await;
        world.told();
        world
    }

    /// Long enough for everything to settle that time alone settles.
    pub async fn rest(&self) {
        tokio::time::sleep(Duration::from_secs(300)).await;
    }

    /// What happened to pods since the last question.
    pub fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    pub async fn patch(&self, change: Value) {
        self.patch_at_once(change).await;
        self.rest().await;
    }

    pub async fn patch_at_once(&self, change: Value) {
        let version = if self.gvr.group.is_empty() {
            self.gvr.version.clone()
        } else {
            format!("{}/{}", self.gvr.group, self.gvr.version)
        };
        let api = dynamic(&self.cluster, "user", &version, self.kind, &self.gvr.resource);
        api.patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    }

    pub async fn delete_pod(&self, name: &str) {
        let pods: Api<Pod> = api(&self.cluster, "user");
        pods.delete(name, &DeleteParams::default()).await.unwrap();
        self.rest().await;
    }

    pub fn workload(&self) -> Arc<Value> {
        self.cluster.get(&self.gvr, "default", "web").unwrap()
    }

    pub fn status(&self, field: &str) -> Value {
        self.workload()["status"][field].clone()
    }

    /// A status field as a number; what is left out is zero.
    pub fn count(&self, field: &str) -> i64 {
        self.status(field).as_i64().unwrap_or(0)
    }

    pub fn pods(&self) -> Vec<Arc<Value>> {
        self.cluster.list(&Gvr::new("", "v1", "pods"), Some("default"))
    }

    /// `name image` of each pod, `!` behind one that is not ready.
    pub fn seen(&self) -> Vec<String> {
        self.pods()
            .iter()
            .map(|p| {
                let unready = if is_ready(p) { "" } else { "!" };
                format!("{} {}{unready}", json::name(p), version(p))
            })
            .collect()
    }

    /// ControllerRevisions, oldest first: number and image.
    pub fn revisions(&self) -> Vec<(i64, String)> {
        let mut all: Vec<(i64, String)> = self
            .cluster
            .list(&Gvr::new("apps", "v1", "controllerrevisions"), Some("default"))
            .iter()
            .map(|r| (r["revision"].as_i64().unwrap(), version(&r["data"]["spec"]["template"])))
            .collect();
        all.sort();
        all
    }
}

/// A definition of one of OpenKruise's kinds.
pub(super) fn definition(plural: &str) -> Value {
    let file = format!("{}/tests/e2e/crds/{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
    crate::yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The tag of the first container's image.
fn version(pod: &Value) -> String {
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
    format!("v{}", image.rsplit_once(':').unwrap().1)
}

fn is_ready(pod: &Value) -> bool {
    super::json::condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

/// `+a v1` for a new pod, `~a` for one that is to go, `-a` for one that is gone, `*a v1` for one that is ready now,
/// `/a` for one that is no longer ready, `^a v2` for one with another image.
fn event(write: &Write) -> Option<String> {
    if write.gvr.resource != "pods" {
        return None;
    }
    let name = &write.name;
    match (&write.before, &write.after) {
        (None, Some(pod)) => Some(format!("+{name} {}", version(pod))),
        (Some(_), None) => Some(format!("-{name}")),
        (Some(before), Some(after)) => {
            if !json::deleting(before) && json::deleting(after) {
                return Some(format!("~{name}"));
            }
            if version(before) != version(after) {
                return Some(format!("^{name} {}", version(after)));
            }
            match (is_ready(before), is_ready(after)) {
                (false, true) => Some(format!("*{name} {}", version(after))),
                (true, false) if !json::deleting(after) => Some(format!("/{name}")),
                _ => None,
            }
        }
        (None, None) => None,
    }
}

/// A workload `web` with one container and these further fields of its spec.
pub(super) fn workload(api_version: &str, kind: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(1)}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn template(version: u32) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": format!("web:{version}")}]}})
}

/// The change to another version.
pub(super) fn to(version: u32) -> Value {
    json!({"spec": {"template": template(version)}})
}

/// The change to a version whose pods never get ready.
pub(super) fn to_broken(version: u32) -> Value {
    let mut change = to(version);
    change["spec"]["template"]["metadata"]["annotations"] = json!({NEVER_READY: "true"});
    change
}

/// The change from a broken version to one whose pods get ready again.
pub(super) fn repaired(version: u32) -> Value {
    let mut change = to(version);
    change["spec"]["template"]["metadata"]["annotations"] = Value::Null;
    change
}

/// Two changes in one.
pub(super) fn and(mut a: Value, b: Value) -> Value {
    crate::sim::patch::merge::merge(&mut a, &b);
    a
}
