//! The in-memory API server (`tidegate::sim`) answers as a real one: the requests of in_memory.yaml, one after the other.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use regex::Regex;
use serde_json::{Value, json};
use similar::TextDiff;
use tidegate::{sim::Cluster, yaml};

use crate::rig::{
    Rig,
    poll::{SOON, until},
};

const NAMESPACE: &str = "in-memory";
/// How long a watch lasts, in seconds. What it tells is known to the server before it begins.
const WATCHED: u32 = 3;
const DEFINITION: &str = "things.in-memory.example";

/// What would write to the in-memory cluster meanwhile.
pub const CONTROLLERS: [&str; 7] = [
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "kubelet",
    "endpointslice-controller",
    "garbage-collector",
];

/// Key in in_memory.yaml, HTTP method, media type of the body.
const METHODS: [(&str, &str, &str); 11] = [
    ("get", "GET", "application/json"),
    ("watch", "GET", "application/json"),
    ("until", "GET", "application/json"),
    ("post", "POST", "application/json"),
    ("put", "PUT", "application/json"),
    ("delete", "DELETE", "application/json"),
    ("merge", "PATCH", "application/merge-patch+json"),
    ("json", "PATCH", "application/json-patch+json"),
    ("strategic", "PATCH", "application/strategic-merge-patch+json"),
    ("apply", "PATCH", "application/apply-patch+yaml"),
    ("text", "PATCH", "text/plain"),
];

struct Step {
    key: &'static str,
    method: &'static str,
    media: &'static str,
    path: String,
    body: Value,
}

fn steps() -> Result<Vec<Step>> {
    let list: Vec<Value> = yaml::from_str(include_str!("in_memory.yaml"))?;
    list.into_iter()
        .map(|step| {
            let (key, method, media) =
                METHODS.into_iter().find(|m| step[m.0].is_string()).with_context(|| format!("no method: {step}"))?;
            let path = step[key].as_str().context("no path")?.to_owned();
            Ok(Step { key, method, media, path, body: step["send"].clone() })
        })
        .collect()
}

async fn send(client: &Client, step: &Step, path: &str) -> Result<(u16, String)> {
    let body = if step.body.is_null() { Vec::new() } else { step.body.to_string().into_bytes() };
    let request = Request::builder()
        .method(step.method)
        .uri(path)
        .header("content-type", step.media)
        .header("accept", "application/json")
        .header("user-agent", "differ/1")
        .body(Body::from(body))?;
    let response = client.send(request).await?;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok((code, String::from_utf8(bytes.into())?))
}

async fn ask(client: &Client, step: &Step) -> Result<(u16, Value)> {
    let (code, text) = send(client, step, &step.path).await?;
    Ok((code, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

fn remove(value: &mut Value, key: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(key);
    }
}

/// Takes out what two clusters cannot have in common. What else may differ is listed in docs/in-memory-cluster.md.
struct Comparable {
    uid: Regex,
    version: Regex,
}

impl Comparable {
    fn new() -> Result<Self> {
        Ok(Self {
            uid: Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")?,
            version: Regex::new("(ResourceVersion in record \\()[0-9]+")?,
        })
    }

    fn of(&self, step: &Step, (code, mut answer): (u16, Value)) -> (u16, Value) {
        if answer["details"]["causes"].as_array().is_some_and(|causes| causes.len() > 1) {
            remove(&mut answer, "message");
        }
        match answer["kind"].as_str().unwrap_or_default() {
            "CustomResourceDefinition" => remove(&mut answer, "status"),
            "Deployment" => Self::without_controllers(step, &mut answer),
            "DeploymentList" => {
                answer["items"].as_array_mut().into_iter().flatten().for_each(|d| Self::without_controllers(step, d));
            }
            _ => {}
        }
        self.same(&mut answer);
        (code, answer)
    }

    /// What a watch from `version` on tells.
    async fn events(&self, client: &Client, step: &Step, version: &str) -> Result<(u16, Value)> {
        let path = format!("{}watch=true&timeoutSeconds={WATCHED}&resourceVersion={version}", step.path);
        let (code, text) = send(client, step, &path).await?;
        let mut events = Vec::new();
        for line in text.lines() {
            let mut event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let object = &mut event["object"];
            let published = object["metadata"]["name"] == "kube-root-ca.crt";
            let deployment = object["kind"] == "Deployment";
            if deployment {
                Self::without_controllers(step, object);
            }
            self.same(object);
            // What only real controllers do: a ConfigMap in each namespace, statuses, and the end of a foreground deletion.
            let unchanged = events.last().is_some_and(|last: &Value| last["object"] == event["object"]);
            let theirs = published || (deployment && (event["type"] == "DELETED" || unchanged));
            if !theirs {
                events.push(event);
            }
        }
        Ok((code, events.into()))
    }

    /// A real Deployment controller writes the status meanwhile: of the status only what the request wrote is compared.
    fn without_controllers(step: &Step, deployment: &mut Value) {
        let written = step.path.ends_with("/status").then(|| step.body["status"].as_object()).flatten();
        match (written, deployment["status"].as_object_mut()) {
            (Some(written), Some(status)) => status.retain(|field, _| written.contains_key(field)),
            _ => remove(deployment, "status"),
        }
        if let Some(managers) = deployment["metadata"]["managedFields"].as_array_mut() {
            managers.retain(|m| m["subresource"] != "status");
        }
    }

    fn same(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for key in
                    ["uid", "resourceVersion", "creationTimestamp", "time", "deletionTimestamp", "lastTransitionTime"]
                {
                    if let Some(value) = map.get_mut(key) {
                        *value = json!("*");
                    }
                }
                map.values_mut().for_each(|v| self.same(v));
            }
            Value::Array(list) => {
                list.iter_mut().for_each(|v| self.same(v));
                // Managers stand in the order of the seconds in which they wrote.
                if list.iter().any(|v| v["fieldsType"].is_string()) {
                    list.sort_by_key(Value::to_string);
                }
                if list.iter().any(|v| v["field"].is_string() && v["reason"].is_string()) {
                    list.sort_by_key(Value::to_string);
                }
            }
            Value::String(text) if text.starts_with("10.96.") => *text = "<service address>".into(),
            Value::String(text) => {
                *text = self.version.replace_all(&self.uid.replace_all(text, "<uid>"), "${1}<version>").into_owned();
            }
            _ => {}
        }
    }
}

pub async fn in_memory_cluster_answers_alike(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.undisturbed().await;
    let outcome = compared(&rig).await;
    let cleaned = clean(&rig).await;
    outcome.and(cleaned)
}

async fn clean(rig: &Rig) -> Result<()> {
    rig.objects.kill("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", DEFINITION).await?;
    rig.objects.kill("v1", "Namespace", "", NAMESPACE).await
}

async fn compared(rig: &Rig) -> Result<()> {
    let cluster = Cluster::builder().build()?;
    CONTROLLERS.iter().for_each(|controller| cluster.enable_controller(controller, false));
    let (real, in_memory) = (&rig.cluster.admin, cluster.client("user"));
    let comparable = Comparable::new()?;
    let (watches, steps): (Vec<Step>, Vec<Step>) = steps()?.into_iter().partition(|s| s.key == "watch");
    let (mut refused, mut different) = (0, Vec::new());
    let mut compare = |step: &Step, theirs: (u16, Value), ours: (u16, Value)| -> Result<()> {
        refused += usize::from(theirs.0 >= 400);
        if theirs != ours {
            let text = |(code, answer): &(u16, Value)| yaml::to_string(answer).map(|text| format!("{code}\n{text}"));
            let (theirs, ours) = (text(&theirs)?, text(&ours)?);
            let diff = TextDiff::from_lines(&theirs, &ours);
            let diff = diff.unified_diff().context_radius(2).header("real", "in memory").to_string();
            different.push(format!("{} {} {}\n{diff}", step.key, step.path, step.body));
        }
        Ok(())
    };
    let mut starts = None;
    for step in &steps {
        if step.key == "until" {
            until(&step.path, SOON, async || {
                let (code, answer) = ask(real, step).await?;
                ensure!(code == 200, "{answer}");
                Ok(())
            })
            .await?;
            continue;
        }
        let (theirs, ours) = (ask(real, step).await?, ask(&in_memory, step).await?);
        starts.get_or_insert_with(|| [&theirs, &ours].map(|a| version(&a.1)));
        compare(step, comparable.of(step, theirs), comparable.of(step, ours))?;
    }
    let [their_start, our_start] = starts.context("no steps")?;
    let told = watches.iter().map(async |step| {
        let theirs = comparable.events(real, step, &their_start);
        let (theirs, ours) = tokio::try_join!(theirs, comparable.events(&in_memory, step, &our_start))?;
        Ok::<_, anyhow::Error>((step, theirs, ours))
    });
    let mut events = 0;
    for (step, theirs, ours) in futures::future::try_join_all(told).await? {
        events += theirs.1.as_array().map_or(0, Vec::len);
        compare(step, theirs, ours)?;
    }
    let all = steps.len() + watches.len();
    ensure!(different.is_empty(), "{} of {all} answers differ\n{}", different.len(), different.join("\n"));
    eprintln!("e2e: in_memory_cluster_answers_alike: {all} answers alike, {refused} of them refusals; {events} events");
    Ok(())
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}
