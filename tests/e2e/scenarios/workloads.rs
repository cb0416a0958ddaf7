//! The workload controllers of the in-memory cluster do what the real ones do: each tells the same story.
//!
//! The in-memory cluster goes first, in virtual time. What it reaches after each step the real one must reach as well, and
//! at the end the same must have happened to each pod, in the same order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher::{Config, Event, watcher},
};
use serde_json::{Value, json};
use similar::TextDiff;
use tidegate::{sim::Cluster, yaml};

use crate::rig::{
    Rig,
    kruise::{self, Kruise},
    objects::Objects,
    poll::{SOON, until},
};

/// One thing that a user does.
enum Step {
    /// A merge patch of the workload.
    Patch(Value),
    /// Deletes the pod at a place.
    Delete(&'static str),
    /// Makes or changes a node.
    Node(&'static str, Value),
}

struct Story {
    namespace: &'static str,
    api_version: &'static str,
    kind: &'static str,
    workload: Value,
    /// Nodes of this story only. All but the last are there from the start.
    nodes: &'static [&'static str],
    steps: Vec<(&'static str, Step)>,
    /// Where a pod is, in terms that both clusters have in common.
    place: fn(&Value) -> String,
    /// Whether places are told one after the other, or each for itself.
    in_order: bool,
}

type Log = Arc<Mutex<Vec<(String, String)>>>;

/// One cluster in which the story is told.
struct Stage<'a> {
    story: &'a Story,
    objects: Objects,
    log: Log,
}

fn tag(template: &Value) -> String {
    let image = template["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    image.rsplit_once(':').map_or("?", |(_, tag)| tag).to_owned()
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

impl<'a> Stage<'a> {
    /// Makes the namespace, and listens to what happens to pods in it.
    async fn set(story: &'a Story, client: Client) -> Result<Self> {
        let stage = Self { story, objects: Objects::new(client), log: Log::default() };
        stage.objects.namespace(story.namespace).await?;
        let pods = stage.objects.api("v1", "Pod", story.namespace);
        let (log, place) = (stage.log.clone(), story.place);
        let mut known: BTreeMap<String, Value> = BTreeMap::new();
        tokio::spawn(watcher(pods, Config::default()).try_for_each(move |event| {
            let told = match event {
                Event::Apply(pod) | Event::InitApply(pod) => {
                    let pod = serde_json::to_value(pod).unwrap_or_default();
                    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
                    let before = known.insert(uid, pod.clone());
                    changed(before.as_ref(), &pod).map(|what| (place(&pod), what))
                }
                Event::Delete(pod) => {
                    let pod = serde_json::to_value(pod).unwrap_or_default();
                    Some((place(&pod), "gone".to_owned()))
                }
                Event::Init | Event::InitDone => None,
            };
            log.lock().unwrap().extend(told);
            futures::future::ready(Ok(()))
        }));
        Ok(stage)
    }

    async fn create(&self) -> Result<()> {
        for node in self.story.nodes.split_last().map_or(&[][..], |(_, others)| others) {
            self.node(node, &json!({})).await?;
        }
        let api = self.objects.api(self.story.api_version, self.story.kind, self.story.namespace);
        api.create(&PostParams::default(), &serde_json::from_value(self.story.workload.clone())?).await?;
        Ok(())
    }

    async fn node(&self, name: &str, spec: &Value) -> Result<()> {
        let labels = json!({"story": self.story.namespace});
        let taint = json!({"key": "story", "effect": "NoSchedule"});
        let mut spec = spec.clone();
        let mut taints = vec![taint];
        taints.extend(spec["taints"].as_array().cloned().unwrap_or_default());
        spec["taints"] = taints.into();
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec});
        self.objects.apply(&node).await.map(drop)
    }

    async fn take(&self, step: &Step) -> Result<()> {
        let story = self.story;
        match step {
            Step::Patch(patch) => {
                let api = self.objects.api(story.api_version, story.kind, story.namespace);
                api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Step::Delete(place) => {
                let pods = self.objects.list("v1", "Pod", story.namespace, "").await?;
                let pod = pods.iter().find(|p| (story.place)(p) == *place).context("no pod there")?;
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                self.objects.api("v1", "Pod", story.namespace).delete(name, &DeleteParams::default()).await?;
            }
            Step::Node(name, spec) => self.node(name, spec).await?,
        }
        Ok(())
    }

    /// Status and pods, with revisions named by their images.
    async fn reached(&self) -> Result<Value> {
        let namespace = self.story.namespace;
        let mut text = self.objects.get(self.story.api_version, self.story.kind, namespace, "web").await?;
        let observed = text["status"]["observedGeneration"] == text["metadata"]["generation"];
        let mut status = text["status"].take();
        status["observedGeneration"] = json!(observed);
        let mut revisions = BTreeMap::new();
        for revision in self.objects.list("apps/v1", "ControllerRevision", namespace, "").await? {
            let name = revision["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            revisions.insert(name, (tag(&revision["data"]["spec"]["template"]), revision["revision"].clone()));
        }
        for field in ["currentRevision", "updateRevision"] {
            if let Some((tag, _)) = status[field].as_str().and_then(|name| revisions.get(name)) {
                status[field] = json!(tag);
            } else if let Some(status) = status.as_object_mut() {
                status.remove(field);
            }
        }
        let mut pods: Vec<String> = Vec::new();
        for pod in self.objects.list("v1", "Pod", namespace, "").await? {
            let hash = pod["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap_or_default();
            let of = revisions.iter().find(|(name, _)| name.ends_with(hash)).map(|(_, (tag, _))| tag.as_str());
            let state = match (pod["metadata"]["deletionTimestamp"].is_null(), ready(&pod)) {
                (false, _) => "leaving",
                (true, true) => "ready",
                (true, false) => "unready",
            };
            pods.push(format!("{}: {} of {} {state}", (self.story.place)(&pod), tag(&pod), of.unwrap_or("?")));
        }
        pods.sort();
        let mut numbers: Vec<(String, Value)> = revisions.into_values().collect();
        numbers.sort_by_key(|(_, n)| n.as_i64());
        Ok(json!({"status": status, "pods": pods, "revisions": numbers}))
    }

    /// What happened to pods: in the order of time, or place by place.
    fn happened(&self) -> Vec<String> {
        let mut log = self.log.lock().unwrap().clone();
        // A CloneSet makes the next pod while the last one still leaves: when that is gone is the kubelet's matter.
        log.retain(|(_, what)| self.story.kind != "CloneSet" || what != "gone");
        if !self.story.in_order {
            log.sort_by(|a, b| a.0.cmp(&b.0));
        }
        log.into_iter().map(|(place, what)| format!("{place} {what}")).collect()
    }
}

fn changed(before: Option<&Value>, pod: &Value) -> Option<String> {
    let deleting = |p: &Value| !p["metadata"]["deletionTimestamp"].is_null();
    match before {
        None => Some(format!("made of {}", tag(pod))),
        Some(before) if !deleting(before) && deleting(pod) => Some("leaves".into()),
        Some(before) if tag(before) != tag(pod) => Some(format!("becomes {}", tag(pod))),
        Some(before) if ready(before) && !ready(pod) && !deleting(pod) => Some("unready".into()),
        Some(before) if !ready(before) && ready(pod) && !deleting(pod) => Some("ready".into()),
        _ => None,
    }
}

/// The story in the in-memory cluster: what it reached after each step, and what happened.
fn in_memory(story: &Story) -> Result<(Vec<Value>, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let definitions = kruise::definitions("v1beta1")?;
        let cluster = definitions.into_iter().fold(Cluster::builder(), |b, d| b.definition(d)).build()?;
        let stage = Stage::set(story, cluster.client("user")).await?;
        let rest = || tokio::time::sleep(Duration::from_secs(600));
        stage.create().await?;
        rest().await;
        let mut reached = vec![stage.reached().await?];
        for (_, step) in &story.steps {
            stage.take(step).await?;
            rest().await;
            reached.push(stage.reached().await?);
        }
        Ok((reached, stage.happened()))
    })
}

async fn told_alike(rig: &Rig, story: Story) -> Result<()> {
    let (expected, happened) = std::thread::scope(|s| s.spawn(|| in_memory(&story)).join())
        .map_err(|_| anyhow::anyhow!("the in-memory cluster panicked"))??;
    let stage = Stage::set(&story, rig.cluster.admin.clone()).await?;
    stage.create().await?;
    let names = std::iter::once("created").chain(story.steps.iter().map(|(name, _)| *name));
    for (n, (name, expected)) in names.zip(&expected).enumerate() {
        if let Some((_, step)) = n.checked_sub(1).and_then(|n| story.steps.get(n)) {
            stage.take(step).await?;
        }
        until(&format!("{name}: both clusters reach the same"), SOON, async || {
            let reached = stage.reached().await?;
            ensure!(reached == *expected, "{}", difference(&yaml::to_string(&reached)?, &yaml::to_string(expected)?));
            Ok(())
        })
        .await?;
    }
    for node in story.nodes {
        // The last may never have come.
        stage.objects.kill("v1", "Node", "", node).await.ok();
    }
    let real = stage.happened();
    ensure!(real == happened, "not the same happened\n{}", difference(&real.join("\n"), &happened.join("\n")));
    eprintln!("e2e: {}: {} steps and {} events alike", story.namespace, expected.len(), happened.len());
    Ok(())
}

fn difference(real: &str, in_memory: &str) -> String {
    let diff = TextDiff::from_lines(real, in_memory);
    diff.unified_diff().context_radius(3).header("real", "in memory").to_string()
}

/// The node that a daemon is made for.
fn target_node(pod: &Value) -> String {
    let fields = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    pod.pointer(fields).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A surging update's pods share a node; which node comes first is not fixed.
fn daemon_set(namespace: &'static str, nodes: &'static [&'static str; 4], surge: bool) -> Story {
    let rolling = |most: Value| {
        let (unavailable, surge) = if surge { (json!(0), most) } else { (most, json!(0)) };
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
    };
    let mut workload = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"},
        "spec": {"updateStrategy": rolling(json!(1)), "selector": {"matchLabels": {"app": "web"}}, "template": template(1)}});
    workload["spec"]["template"]["spec"]["nodeSelector"] = json!({"story": namespace});
    workload["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "story", "operator": "Exists"}]);
    let [first, second, third, fourth] = *nodes;
    let on_delete = json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}});
    Story {
        namespace,
        api_version: "apps/v1",
        kind: "DaemonSet",
        workload,
        nodes,
        steps: vec![
            ("v2", to(2)),
            ("half at once", spec(json!({"updateStrategy": rolling(json!("50%"))}))),
            ("v3", to(3)),
            ("on deletion", spec(on_delete)),
            ("v4, none", to(4)),
            ("v4, one", Step::Delete(second)),
            ("a further node", Step::Node(fourth, json!({}))),
            ("a cordoned node", Step::Node(first, json!({"unschedulable": true}))),
            ("its pod deleted", Step::Delete(first)),
            ("back to v3", to(3)),
            ("by itself again", spec(json!({"updateStrategy": rolling(json!(1))}))),
            ("not to be scheduled on", Step::Node(third, json!({"taints": [{"key": "down", "effect": "NoSchedule"}]}))),
            // Its pod goes as well, and none comes.
            ("v4, where one takes no other", to(4)),
            ("back", Step::Node(third, json!({}))),
            ("to be left", Step::Node(third, json!({"taints": [{"key": "down", "effect": "NoExecute"}]}))),
            // The real controller may forget to look again when a surging pod becomes available: an earlier moment that it
            // waits for swallows the later one.
            ("two seconds a pod", spec(json!({"minReadySeconds": if surge { 0 } else { 2 }}))),
            ("v5", to(5)),
            ("history of 1", spec(json!({"revisionHistoryLimit": 1}))),
            ("v6", to(6)),
        ],
        place: target_node,
        in_order: false,
    }
}

fn template(version: u32) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": format!("web:{version}")}]}})
}

fn to(version: u32) -> Step {
    Step::Patch(json!({"spec": {"template": template(version)}}))
}

fn broken(version: u32) -> Step {
    let mut template = template(version);
    template["metadata"]["annotations"] = json!({crate::rig::cluster::NEVER_READY: "true"});
    Step::Patch(json!({"spec": {"template": template}}))
}

/// Takes the mark of broken pods off again.
fn repaired(version: u32) -> Step {
    let mut template = template(version);
    template["metadata"]["annotations"] = json!(null);
    Step::Patch(json!({"spec": {"template": template}}))
}

fn spec(spec: Value) -> Step {
    Step::Patch(json!({"spec": spec}))
}

fn partition(n: u32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": n}})
}

fn stateful_set(namespace: &'static str, policy: &str) -> Story {
    let in_order = policy == "OrderedReady";
    let mut steps = vec![
        ("held", spec(json!({"updateStrategy": partition(32767)}))),
        ("v2, held", to(2)),
        ("partition 2", spec(json!({"updateStrategy": partition(2)}))),
        ("an old pod made again", Step::Delete("web-0")),
        ("a new pod made again", Step::Delete("web-2")),
        ("up to 5", spec(json!({"replicas": 5}))),
        ("v3 meanwhile", to(3)),
        ("down to 3", spec(json!({"replicas": 3}))),
        ("back to v1", to(1)),
        ("partition 0", spec(json!({"updateStrategy": partition(0)}))),
        ("v4 at once", to(4)),
        ("on deletion", spec(json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}))),
        ("v5, none", to(5)),
        ("v5, one", Step::Delete("web-1")),
        ("v5, the others", spec(json!({"updateStrategy": partition(0)}))),
        ("two seconds a pod", spec(json!({"minReadySeconds": 2}))),
        ("v6", to(6)),
        ("v7 never ready", broken(7)),
        ("v6 again", repaired(6)),
    ];
    if in_order {
        steps.push(("the broken pod deleted", Step::Delete("web-2")));
    }
    steps.extend([
        ("other ordinals", spec(json!({"ordinals": {"start": 2}}))),
        ("history of 1", spec(json!({"revisionHistoryLimit": 1}))),
        ("none left", spec(json!({"replicas": 0}))),
    ]);
    Story {
        namespace,
        api_version: "apps/v1",
        kind: "StatefulSet",
        workload: json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
            "spec": {"replicas": 3, "serviceName": "web", "podManagementPolicy": policy,
                "selector": {"matchLabels": {"app": "web"}}, "template": template(1)}}),
        nodes: &[],
        steps,
        place: |pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        in_order,
    }
}

pub async fn stateful_sets_roll_alike(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.undisturbed().await;
    tokio::try_join!(
        told_alike(&rig, stateful_set("sts-ordered", "OrderedReady")),
        told_alike(&rig, stateful_set("sts-parallel", "Parallel"))
    )?;
    Ok(())
}

pub async fn daemon_sets_roll_alike(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.undisturbed().await;
    tokio::try_join!(
        told_alike(&rig, daemon_set("ds-in-place", &["dsi-1", "dsi-2", "dsi-3", "dsi-4"], false)),
        told_alike(&rig, daemon_set("ds-surging", &["dss-1", "dss-2", "dss-3", "dss-4"], true))
    )?;
    Ok(())
}

/// One of OpenKruise's kinds: held, opened pod by pod, in place, scaled, rolled back, broken.
fn kruise_story(namespace: &'static str, kind: &'static str, own: Value, node: Option<&'static str>) -> Story {
    let policy = |policy: &str| match kind {
        "DaemonSet" => json!({"rollingUpdateType": if policy == "ReCreate" { "Standard" } else { policy }}),
        _ => json!({"podUpdatePolicy": policy}),
    };
    let rolling = |rolling: Value| spec(json!({"updateStrategy": {"rollingUpdate": rolling}}));
    let mut workload = json!({"apiVersion": "apps.kruise.io/v1beta1", "kind": kind, "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(1)}});
    for (field, value) in own.as_object().into_iter().flatten() {
        workload["spec"][field] = value.clone();
    }
    if kind != "CloneSet" {
        // Pods of these kinds have the gate only if they are made while updates in place are asked for.
        workload["spec"]["updateStrategy"] = json!({"rollingUpdate": policy("InPlaceIfPossible")});
    }
    let mut steps = vec![
        ("held", rolling(json!({"partition": 2, "maxUnavailable": 1}))),
        ("v2 to the partition", to(2)),
        ("v2 everywhere", rolling(json!({"partition": 0}))),
        ("in place from now on", rolling(policy("InPlaceIfPossible"))),
        ("v3 with another label", Step::Patch(json!({"spec": {"template": labelled(3)}}))),
        ("v4 in place", Step::Patch(json!({"spec": {"template": labelled(4)}}))),
        ("paused", rolling(json!({"paused": true}))),
        ("v5, none", Step::Patch(json!({"spec": {"template": labelled(5)}}))),
        ("on", rolling(json!({"paused": false, "partition": 1}))),
        ("back to v4", Step::Patch(json!({"spec": {"template": labelled(4)}}))),
        ("made again from now on", rolling(policy("ReCreate"))),
        ("v6 never ready", broken(6)),
        ("v7", repaired(7)),
    ];
    if kind != "DaemonSet" {
        steps.push(("up to 5", spec(json!({"replicas": 5}))));
        steps.push(("down to 2", spec(json!({"replicas": 2}))));
    }
    let nodes: &[&str] = if node.is_some() { &["ads-1", "ads-2", "ads-3", "ads-4"] } else { &[] };
    if node.is_some() {
        workload["spec"]["template"]["spec"]["nodeSelector"] = json!({"story": namespace});
        workload["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "story", "operator": "Exists"}]);
    }
    let in_order = kind != "DaemonSet";
    let place: fn(&Value) -> String = match kind {
        "CloneSet" => |_| "a pod".to_owned(),
        "DaemonSet" => target_node,
        _ => |pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
    };
    Story { namespace, api_version: "apps.kruise.io/v1beta1", kind, workload, nodes, steps, place, in_order }
}

fn labelled(version: u32) -> Value {
    let mut template = template(version);
    template["metadata"]["labels"]["version"] = json!(format!("v{version}"));
    template
}

/// The same controllers run in both clusters: what is compared is that they need nothing that a real API server does not
/// do.
pub async fn kruise_kinds_roll_alike(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.undisturbed().await;
    let _kruise = Kruise::shared(&rig.objects).await?;
    tokio::try_join!(
        told_alike(&rig, kruise_story("cloneset", "CloneSet", json!({"replicas": 3}), None)),
        told_alike(&rig, kruise_story("advanced-sts", "StatefulSet", json!({"replicas": 3}), None)),
        told_alike(&rig, kruise_story("advanced-ds", "DaemonSet", json!({}), Some("ads"))),
    )?;
    Ok(())
}
