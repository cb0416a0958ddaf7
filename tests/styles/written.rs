//! The tables of `docs/styles.md`, `docs/workloads.md` and `docs/workloads/`: what the controller writes to each kind in
//! each style, and what is put back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tidegate::{
    api::{keys, object},
    cli::demo::world::CONTROLLER,
    workload::{
        self, KINDS, Style,
        hold::{ANY, By},
        like,
    },
};

use crate::{
    kinds::{ADVANCED_STATEFUL_SET, CLONE_SET, DAEMON_SET, GAME_SERVER_SET, NEWER_ADVANCED_DAEMON_SET, STATEFUL_SET},
    moments::{STYLES, strategy},
    stage::{DEPLOYMENT, NAME, NAMESPACE, Row, Stage, gvr, play},
};

/// Changed fields, as far as a reader wants to know them.
fn fields(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, shown) in [("/metadata/labels", "label "), ("/metadata/annotations", "annotation "), ("/spec", "spec.")]
    {
        let map = |o: &Value| o.pointer(path).and_then(Value::as_object).cloned().unwrap_or_default();
        let (old, new) = (map(before), map(after));
        let keys = old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key));
        found.extend(keys.flat_map(|key| {
            let key_shown = format!("{shown}{}", key.trim_start_matches("rollouts.kruise.io/"));
            match key.as_str() {
                "updateStrategy" => leaves(&key_shown, old.get(key), new.get(key)),
                _ => vec![key_shown],
            }
        }));
    }
    found.sort();
    found.dedup();
    found
}

/// The changed leaves of a field.
fn leaves(path: &str, old: Option<&Value>, new: Option<&Value>) -> Vec<String> {
    let map = |v: Option<&Value>| v.and_then(Value::as_object).cloned();
    match (map(old), map(new)) {
        _ if old == new => Vec::new(),
        (None, None) => vec![path.to_owned()],
        (old, new) => {
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            keys.into_iter().flat_map(|key| leaves(&format!("{path}.{key}"), old.get(key), new.get(key))).collect()
        }
    }
}

type Rows = BTreeMap<(String, String), (String, String)>;

fn record(row: &'static Row, style: &'static str) -> Rows {
    let rows = Arc::<Mutex<Rows>>::default();
    play(async {
        let stage = Stage::of(row, 3, &serde_json::json!({}), &strategy(style)).await;
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
                    ("pods", _) => "pods of the old version".to_owned(),
                    ("replicasets", _) => "ReplicaSet of the old version".to_owned(),
                    (_, NAME) => row.kind.to_owned(),
                    ("deployments", _) => "canary Deployment".to_owned(),
                    ("services", "nginx-service") => "Service".to_owned(),
                    ("services", _) => "canary Service".to_owned(),
                    (_, _) => "VirtualService".to_owned(),
                };
                let what = match (&write.before, &write.after) {
                    (Some(before), Some(after)) if !name.starts_with("canary") => fields(before, after),
                    (Some(_), Some(_)) => vec!["changed".to_owned()],
                    (_, None) if resource == "pods" => vec!["deleted".to_owned()],
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

fn table(row: &'static Row, style: &'static str) -> String {
    let lines = record(row, style)
        .into_iter()
        .map(|((object, field), (first, last))| format!("| {object} | `{field}` | {first} | {last} |\n"));
    format!("| object | field | first | last |\n|---|---|---|---|\n{}", lines.collect::<String>())
}

/// Compares what stands between two marks of a page, or writes it.
fn kept_in(page: &str, mark: &str, made: &str) {
    let path = format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once(&format!("{mark} -->\n")).unwrap();
    let (kept, tail) = rest.split_once("<!-- end -->").unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, format!("{head}{mark} -->\n{made}<!-- end -->{tail}")).unwrap();
    } else {
        assert_eq!(kept, made, "{page}");
    }
}

#[test]
fn the_written_fields_are_those_of_the_guide() {
    let mut made = String::new();
    for style in STYLES {
        made.push_str(&format!("\n### {style}\n\n{}", table(&DEPLOYMENT, style)));
    }
    made.push_str("\nIn the end all of it is as it was, but for the template, the pods and the label `workload-type`, which stays as long as the Rollout does.\n\n");
    kept_in("styles.md", "written", &made);
}

#[test]
fn the_written_fields_are_those_of_each_kinds_page() {
    for (page, row) in [
        ("statefulset", &STATEFUL_SET),
        ("daemonset", &DAEMON_SET),
        ("cloneset", &CLONE_SET),
        ("advanced-statefulset", &ADVANCED_STATEFUL_SET),
        ("advanced-daemonset", &NEWER_ADVANCED_DAEMON_SET),
        ("statefulset-like", &GAME_SERVER_SET),
    ] {
        let kind = workload::kind(object::group(row.api_version), row.kind).unwrap();
        let mut made = String::new();
        for style in &STYLES[1..] {
            let style_of = if *style == "blueGreen" { Style::BlueGreen } else { Style::Partition };
            if kind.styles.contains(&style_of) {
                made.push_str(&format!("\n### {style}\n\n{}", table(row, style)));
            }
        }
        made.push('\n');
        kept_in(&format!("workloads/{page}.md"), "written", &made);
    }
}

/// A row for each kind that is released by a field of its own.
#[test]
fn the_table_of_kinds_is_that_of_the_code() {
    let mut made = String::from(
        "\n| kind | API versions | styles | held by | remembered in | pods' versions by | back in batches |\n|---|---|---|---|---|---|---|\n",
    );
    for kind in KINDS.iter().chain([&like::KIND]) {
        let (name, page) = match (kind.group, kind.kind) {
            ("apps", "Deployment") => ("Deployment".to_owned(), "styles.md".to_owned()),
            (ANY, _) => ("any other, StatefulSet-like".to_owned(), "workloads/statefulset-like.md".to_owned()),
            (group, kind) => {
                let advanced = if group == "apps" || kind == "CloneSet" { "" } else { "Advanced " };
                let name = format!("{advanced}{kind}");
                let page = format!("workloads/{}.md", name.to_lowercase().replace(' ', "-"));
                (name, page)
            }
        };
        let versions: Vec<String> = kind.holds.iter().map(|h| format!("`{}/{}`", h.group, h.version)).collect();
        let styles: Vec<&str> = kind
            .styles
            .iter()
            .map(|style| match style {
                Style::Canary => "canary",
                Style::Partition => "partition",
                Style::BlueGreen => "blueGreen",
            })
            .collect();
        let held = |by: &By| match by {
            By::Paused => ("`paused: true`".to_owned(), keys::IN_PROGRESSING),
            By::Field(field) => (format!("`{}: {}`", field.path.join("."), field.shut.value()), field.remembers),
        };
        let mut by: Vec<String> = kind.holds.iter().map(|h| held(&h.by).0).collect();
        by.dedup();
        let remembers = kind.holds.first().map(|h| held(&h.by).1).unwrap_or_default();
        made.push_str(&format!(
            "| [{name}]({page}) | {} | {} | {} | `{}` | `{}` | {} |\n",
            versions.join(", "),
            styles.join(", "),
            by.join(" or "),
            remembers.trim_start_matches("rollouts.kruise.io/"),
            kind.revision_label,
            if kind.goes_back_in_batches { "yes" } else { "no" },
        ));
    }
    made.push('\n');
    kept_in("workloads.md", "kinds", &made);
}
