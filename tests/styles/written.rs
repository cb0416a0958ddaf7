//! The table of `docs/styles.md`: what the controller writes in each style, and what is put back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tidegate::cli::demo::world::CONTROLLER;

use crate::{
    moments::{STYLES, strategy},
    stage::{NAMESPACE, Stage, gvr, play},
};

/// Changed fields, as far as a reader wants to know them.
fn fields(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, shown) in [("/metadata/labels", "label "), ("/metadata/annotations", "annotation "), ("/spec", "spec.")]
    {
        let map = |o: &Value| o.pointer(path).and_then(Value::as_object).cloned().unwrap_or_default();
        let (old, new) = (map(before), map(after));
        let keys = old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key));
        found.extend(keys.map(|key| format!("{shown}{}", key.trim_start_matches("rollouts.kruise.io/"))));
    }
    found.sort();
    found.dedup();
    found
}

type Rows = BTreeMap<(String, String), (String, String)>;

fn record(style: &'static str) -> Rows {
    let rows = Arc::<Mutex<Rows>>::default();
    play(async {
        let stage = Stage::new(&serde_json::json!({"replicas": 3}), &strategy(style)).await;
        let before = all(&stage);
        stage.cluster.on_write(Box::new({
            let (rows, view) = (rows.clone(), stage.view.clone());
            move |write| {
                let resource = write.gvr.resource.as_str();
                if &*write.identity != CONTROLLER || ["events", "rollouts"].contains(&resource) {
                    return;
                }
                let rollout = view.get(&gvr("rollouts.kruise.io", "rollouts"), NAMESPACE, "r").unwrap_or_default();
                let status = &rollout["status"];
                let sub = ["canaryStatus", "blueGreenStatus"]
                    .into_iter()
                    .find_map(|k| status.get(k))
                    .cloned()
                    .unwrap_or_default();
                let when = match (status["phase"].as_str(), sub["finalisingStep"].as_str().unwrap_or_default()) {
                    (Some("Progressing"), "") => format!(
                        "{} of step {}",
                        sub["currentStepState"].as_str().unwrap_or_default(),
                        sub["currentStepIndex"]
                    ),
                    (Some("Progressing"), _) => "finalising".to_owned(),
                    _ => "before".to_owned(),
                };
                let name = match (resource, write.name.as_str()) {
                    ("replicasets", _) => "ReplicaSet of the old version".to_owned(),
                    ("deployments", "nginx-deployment") => "Deployment".to_owned(),
                    ("deployments", _) => "canary Deployment".to_owned(),
                    ("services", "nginx-service") => "Service".to_owned(),
                    ("services", _) => "canary Service".to_owned(),
                    (_, _) => "VirtualService".to_owned(),
                };
                let what = match (&write.before, &write.after) {
                    (Some(before), Some(after)) if !name.starts_with("canary") => fields(before, after),
                    (Some(_), Some(_)) => vec!["changed".to_owned()],
                    _ => vec!["made and deleted".to_owned()],
                };
                let mut rows = rows.lock().unwrap();
                for field in what {
                    rows.entry((name.clone(), field)).or_insert((when.clone(), when.clone())).1 = when.clone();
                }
            }
        }));
        stage.release("canary").await;
        for step in [1, 2] {
            stage.paused_at(step).await;
            stage.approve().await;
        }
        stage.ends().await;
        stage.until("put back", |s| all(s) == before).await;
    });
    Arc::into_inner(rows).map(|rows| rows.into_inner().unwrap()).unwrap_or_default()
}

/// Everything that is written, as it has to be before and after; the template and its pods aside.
fn all(stage: &Stage) -> Vec<Value> {
    let mut objects = vec![stage.deployment()];
    for (group, plural) in [("", "services"), ("networking.istio.io", "virtualservices"), ("apps", "deployments")] {
        objects.extend(stage.view.list(&gvr(group, plural), Some(NAMESPACE)).iter().map(|o| (**o).clone()));
    }
    let plain = |object: &Value| {
        let mut spec = object["spec"].clone();
        if let Some(map) = spec.as_object_mut() {
            map.remove("template");
            map.remove("paused");
        }
        let mut metadata = serde_json::json!({});
        for field in ["name", "labels"] {
            metadata[field] = object["metadata"][field].clone();
        }
        let annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let left: Vec<String> =
            annotations.keys().filter(|k| !k.contains("deployment.kubernetes.io")).cloned().collect();
        serde_json::json!({"metadata": metadata, "annotations": left, "spec": spec})
    };
    objects.iter().map(plain).collect()
}

#[test]
fn the_written_fields_are_those_of_the_guide() {
    let mut table = String::new();
    for style in STYLES {
        table.push_str(&format!("\n### {style}\n\n| object | field | first | last |\n|---|---|---|---|\n"));
        for ((object, field), (first, last)) in record(style) {
            table.push_str(&format!("| {object} | `{field}` | {first} | {last} |\n"));
        }
    }
    table.push_str("\nIn the end all of it is as it was, but for the template, the pods and the label `workload-type`, which stays as long as the Rollout does.\n\n");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/styles.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (head, rest) = text.split_once("written -->\n").unwrap();
    let (kept, tail) = rest.split_once("<!-- end -->").unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, format!("{head}written -->\n{table}<!-- end -->{tail}")).unwrap();
    } else {
        assert_eq!(kept, table);
    }
}
