//! OpenKruise's kinds on the real API server, and one that nobody knows by name: their definitions, their controllers, and what a kubelet does when a pod's
//! images change, which kwok does not play.

use std::{
    fs,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::StreamExt;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::watcher::{Config, Event, watcher},
};
use serde_json::{Value, json};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{cluster::NEVER_READY, controller::documents, objects::Objects, pki::CONTROLLER};

const GATE: &str = "InPlaceUpdateReady";

/// What the role of the controller has to be asked for.
const UNKNOWN: &str = "games.example.com/GameServerSet";

/// The definitions, each with one version: nothing converts between the two.
pub fn definitions(version: &str) -> Result<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/crds");
    ["clonesets", "statefulsets", "daemonsets", "gameserversets"]
        .iter()
        .map(|plural| {
            let text = fs::read_to_string(folder.join(format!("{plural}.yaml")))?;
            let mut definition: Value = tidegate::yaml::from_str(&text)?;
            let versions = definition["spec"]["versions"].as_array_mut().context("no versions")?;
            versions.retain(|v| v["name"] == version);
            versions.iter_mut().for_each(|v| v["storage"] = json!(true));
            Ok(definition)
        })
        .collect()
}

/// Runs until the last one that uses it has dropped it: two of them would make every pod twice.
pub struct Kruise {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Kruise {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Kruise {
    pub async fn shared(objects: &Objects) -> Result<Arc<Kruise>> {
        static SHARED: Mutex<Weak<Kruise>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let kruise = Arc::new(Kruise::start(objects).await?);
        *shared = Arc::downgrade(&kruise);
        Ok(kruise)
    }

    async fn start(objects: &Objects) -> Result<Kruise> {
        objects.apply_crds(&definitions("v1beta1")?).await?;
        grant(objects, UNKNOWN).await?;
        let now = || jiff::Timestamp::now();
        let controllers = tokio::spawn(tidegate::sim::play_kruise(objects.client.clone(), now));
        Ok(Kruise { tasks: vec![controllers, tokio::spawn(restart_containers(objects.client.clone()))] })
    }
}

/// The role that `tidegate rbac --for` prints, for the controller's user.
pub async fn grant(objects: &Objects, kind: &str) -> Result<()> {
    for role in documents(&["rbac", "--for", kind])? {
        bind(objects, &role).await?;
    }
    Ok(())
}

/// The roles that only a controller with this switch has.
pub async fn grant_for(objects: &Objects, switch: &str) -> Result<()> {
    let others = documents(&["rbac"])?;
    let more = documents(&["rbac", switch])?;
    for role in more.iter().filter(|role| role["kind"] == "ClusterRole" && !others.contains(role)) {
        bind(objects, role).await?;
    }
    Ok(())
}

/// Makes a role, and gives it to the controller's user.
async fn bind(objects: &Objects, role: &Value) -> Result<()> {
    objects.apply(role).await?;
    let name = &role["metadata"]["name"];
    objects
        .apply(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": CONTROLLER}]}))
        .await?;
    Ok(())
}

/// Containers with other images start again after a moment; a pod whose gate is open is ready.
async fn restart_containers(client: Client) {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::all(client.clone());
    let mut events = watcher(pods, Config::default()).boxed();
    while let Some(event) = events.next().await {
        let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
        let pod = serde_json::to_value(pod).unwrap_or_default();
        if let Some(status) = next_status(&pod) {
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
                let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client, &name("namespace"));
                let patch = json!({"metadata": {"uid": name("uid")}, "status": status});
                // What has changed since is looked at with its own event.
                pods.patch_status(&name("name"), &PatchParams::default(), &Patch::Strategic(patch)).await.ok();
            });
        }
    }
}

fn next_status(pod: &Value) -> Option<Value> {
    let mut statuses = pod["status"]["containerStatuses"].as_array()?.clone();
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let mut outdated = false;
    for container in pod["spec"]["containers"].as_array()? {
        for status in statuses.iter_mut().filter(|s| s["name"] == container["name"] && s["image"] != container["image"])
        {
            outdated = true;
            status["image"] = container["image"].clone();
            status["imageID"] = json!(format!("sha256:{}", container["image"].as_str().unwrap_or_default()));
        }
    }
    let conditions = pod["status"]["conditions"].as_array()?;
    let holds = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
    let gated = pod["spec"]["readinessGates"].as_array().is_some_and(|g| g.iter().any(|g| g["conditionType"] == GATE));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: bool| {
        let status = if status { "True" } else { "False" };
        json!({"type": kind, "status": status, "lastTransitionTime": now, "reason": null, "message": null})
    };
    if outdated && holds("Ready") {
        return Some(json!({"conditions": [condition("Ready", false), condition("ContainersReady", false)]}));
    }
    if outdated {
        let ready = [condition("ContainersReady", true), condition("Ready", !gated || holds(GATE))];
        return Some(json!({"containerStatuses": statuses, "conditions": ready}));
    }
    let broken = !pod["metadata"]["annotations"][NEVER_READY].is_null();
    let becomes = gated && holds(GATE) && holds("ContainersReady") && !holds("Ready") && !broken;
    becomes.then(|| json!({"conditions": [condition("Ready", true)]}))
}
