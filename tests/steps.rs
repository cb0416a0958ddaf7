//! How many pods each step asks for, and by which fields a Deployment is kept there in place: `testcases/steps.txt`.
//! `BLESS=1 cargo test --test steps` writes it anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{fmt::Write as _, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::{
    api::v1beta1::Rollout,
    rollout::release::{ReleaseStep, release},
    workload::{Goal, Move, Style, Surroundings, kind},
};

fn step(step: Value) -> ReleaseStep {
    let rollout: Rollout = serde_json::from_value(json!({"metadata": {"name": "r"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "strategy": {"canary": {"steps": [step]}}}}))
    .unwrap();
    release(&rollout).unwrap().steps.remove(0)
}

fn target(of: Value, style: Style, replicas: i32) -> i32 {
    step(of).target(style, replicas)
}

/// `maxSurge` and `maxUnavailable` once all pods of a step are ready, for the user's 1 and 0.
fn kept_by(step: &ReleaseStep, replicas: i32) -> String {
    let new = step.target(Style::Partition, replicas);
    if new == 0 {
        return "paused".to_owned();
    }
    // Held already, so that what is written next opens it.
    const HELD: i64 = 2_147_483_646;
    let set = |name: &str, image: &str, n: i32| {
        Arc::new(
            json!({"metadata": {"name": name, "uid": name, "labels": {"pod-template-hash": name}, "ownerReferences": [{"controller": true, "uid": "d"}]},
            "spec": {"replicas": n, "minReadySeconds": HELD, "template": {"spec": image}}, "status": {"replicas": n, "readyReplicas": n}}),
        )
    };
    let revisions = [set("a", "old", replicas - new), set("b", "new", new)];
    let own = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let mark = json!({"rolloutName": "r", "was": own["rollingUpdate"], "original": {"strategy": own}});
    let deployment = Arc::new(json!({
        "metadata": {"name": "web", "uid": "d", "annotations": {"rollouts.kruise.io/in-progressing": mark.to_string()}},
        "spec": {"replicas": replicas, "paused": true, "minReadySeconds": HELD, "template": {"spec": "new"}, "strategy": own},
    }));
    let kind = kind("apps", "Deployment").unwrap();
    let surroundings = Surroundings { revisions: &revisions, ..Surroundings::default() };
    let workload = (kind.read)(kind, &deployment, &surroundings);
    let goal = Goal {
        rollout: "r",
        style: Style::Partition,
        target: new,
        kept: 0,
        wanted: &step.replicas,
        needed: new,
        stable: "",
        surroundings,
        now: Timestamp::UNIX_EPOCH,
    };
    let Move::Write(change) = kind.gate.open(&workload, &goal) else { panic!("it is shut") };
    let strategy = change.operations.iter().find(|o| o["path"] == "/spec/strategy").unwrap();
    let rolling = &strategy["value"]["rollingUpdate"];
    format!("{} and {}", rolling["maxSurge"], rolling["maxUnavailable"]).replace('"', "")
}

#[test]
fn the_table_is_what_the_code_does() {
    let steps = [
        json!({"replicas": 1}),
        json!({"replicas": 5}),
        json!({"replicas": 2000}),
        json!({"replicas": "1%"}),
        json!({"replicas": "20%"}),
        json!({"replicas": "33%"}),
        json!({"replicas": "50%"}),
        json!({"replicas": "99%"}),
        json!({"replicas": "100%"}),
        json!({"weight": 20}),
        json!({"traffic": "100%"}),
    ];
    let mut text = String::from(
        "# Pods of the new version after a step. A percentage is rounded up and never more than all; a weight without\n\
         # replicas is that percentage. In place a percentage below 100 leaves one stable pod where there is more than one.\n\
         # A step with a count asks for the same pods whatever the workload is scaled to; one with a percentage follows.\n\
         # `kept by`: maxSurge and maxUnavailable that keep a Deployment in place there. A share is written where one allows\n\
         # so many pods, so that the Deployment's own controller keeps it when somebody scales.\n\n",
    );
    writeln!(
        text,
        "{:<22}{:>8}{:>8}{:>10}  {:<16}{:>10}",
        "step", "replicas", "canary", "in place", "kept by", "blueGreen"
    )
    .unwrap();
    for of in &steps {
        for replicas in [0, 1, 2, 3, 5, 10, 100, 101, 999] {
            let step = step(of.clone());
            let pods = [Style::Canary, Style::Partition, Style::BlueGreen].map(|style| step.target(style, replicas));
            let line = format!(
                "{:<22}{replicas:>8}{:>8}{:>10}  {:<16}{:>10}",
                of.to_string().replace('"', ""),
                pods[0],
                pods[1],
                kept_by(&step, replicas),
                pods[2]
            );
            writeln!(text, "{}", line.trim_end()).unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testcases/steps.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text);
}

#[test]
fn d_17_a_count_after_a_percentage_is_compared_in_pods() {
    for style in [Style::Canary, Style::Partition, Style::BlueGreen] {
        let pods = [json!({"replicas": "20%"}), json!({"replicas": 5}), json!({"replicas": "90%"})];
        assert_eq!(pods.map(|of| target(of, style, 10)), [2, 5, 9]);
    }
}

#[test]
fn d_25_of_101_pods_99_percent_are_100() {
    for style in [Style::Canary, Style::Partition, Style::BlueGreen] {
        assert_eq!(target(json!({"replicas": "99%"}), style, 101), 100);
    }
    assert_eq!(kept_by(&step(json!({"replicas": "99%"})), 101), "0 and 99%");
}
