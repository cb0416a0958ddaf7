//! A full new set of a CloneSet stands beside the old one.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CLONE_SET, Kind, OLDER_CLONE_SET, assert_restored};
use crate::{
    stage::{Stage, play},
    stories::with_traffic,
};

/// CloneSets with their own settings, which have to come back as they were.
const BLUE_GREEN: &[Kind] = &[
    Kind { row: &CLONE_SET, own: || json!({}), least: 10 },
    Kind {
        row: &CLONE_SET,
        own: || json!({"minReadySeconds": 4, "progressDeadlineSeconds": 60, "updateStrategy": {"rollingUpdate": {"partition": "20%", "maxSurge": 1, "maxUnavailable": 0, "podUpdatePolicy": "InPlaceIfPossible"}}}),
        least: 10,
    },
    Kind {
        row: &OLDER_CLONE_SET,
        own: || json!({"updateStrategy": {"partition": 3, "maxUnavailable": 2, "paused": true}}),
        least: 10,
    },
];

fn blue_green(steps: Value) -> Value {
    with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen")
}

pub(super) async fn each_blue_green<F: AsyncFn(&Kind)>(story: F) {
    for kind in BLUE_GREEN {
        eprintln!("{} {}", kind.row.api_version, (kind.own)());
        story(kind).await;
    }
}

#[test]
fn d_43_blue_green_gives_a_clone_set_its_partition_back() {
    play(each_blue_green(async |kind| {
        let steps = json!([{"replicas": "30%", "traffic": "0%"}, {"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = kind.stage(&blue_green(steps)).await;
        let before = stage.workload();
        stage.release("canary").await;
        for step in 1..=3 {
            stage.paused_at(step).await;
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert_eq!(stage.versions(), "10 base + 10 canary", "step {step}");
            stage.approve().await;
        }
        stage.ends_with("10 canary").await;
        kind.assert_kept_enough(&stage);
        assert_restored(&stage, &before);
    }));
}

#[test]
fn blue_green_of_a_clone_set_goes_back_at_once_and_refuses_a_third_version() {
    play(each_blue_green(async |kind| {
        let steps = json!([{"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = kind.stage(&blue_green(steps)).await;
        let before = stage.workload();
        let says = |text: &'static str| {
            move |s: &Stage| s.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains(text))
        };
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("third").await;
        stage.until("refused", says("please rollback first")).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(stage.versions(), "10 base + 10 canary");
        stage.release("canary").await;
        stage.until("not refused", says("manually confirm")).await;
        stage.approve().await;
        stage.paused_at(2).await;
        stage.release("base").await;
        stage.ends_with("10 base").await;
        assert_eq!(stage.seen().1.get("third"), None);
        kind.assert_kept_enough(&stage);
        assert_restored(&stage, &before);
    }));
}

#[test]
fn blue_green_of_a_clone_set_ends_well_however_it_ends() {
    play(each_blue_green(async |kind| {
        for ending in ["disabled", "deleted", "overwritten"] {
            let steps = json!([{"replicas": "50%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
            let stage = kind.stage(&blue_green(steps)).await;
            let before = stage.workload();
            stage.release("canary").await;
            stage.paused_at(1).await;
            match ending {
                "disabled" => stage.patch_rollout(json!({"spec": {"disabled": true}})).await,
                "deleted" => {
                    let api = stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
                    api.delete("r", &Default::default()).await.unwrap();
                }
                // As a tool does that writes its whole manifest: nothing of it opens anything.
                _ => {
                    let mut strategy = before["spec"]["updateStrategy"].clone();
                    strategy["type"] = before["spec"]["updateStrategy"]["type"].clone();
                    let seconds = before["spec"]["minReadySeconds"].clone();
                    let marks = json!({"rollouts.kruise.io/in-progressing": null, "rollouts.kruise.io/original-partition": null});
                    stage.patch_workload(json!({"metadata": {"annotations": marks}, "spec": {"updateStrategy": strategy, "minReadySeconds": seconds}})).await;
                    tokio::time::sleep(Duration::from_secs(300)).await;
                    assert_eq!(stage.versions(), "10 base + 10 canary");
                    stage.approve().await;
                    stage.paused_at(2).await;
                    stage.approve().await;
                    stage.ends().await;
                }
            }
            stage.until("rolled", |s| s.versions() == "10 canary").await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            kind.assert_kept_enough(&stage);
            assert_restored(&stage, &before);
        }
    }));
}

#[test]
fn a_clone_set_that_is_scaled_up_in_blue_green_says_how_to_go_on() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = BLUE_GREEN[0].stage(&blue_green(steps)).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.patch_workload(json!({"spec": {"replicas": 15}})).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        stage.approve().await;
        let remedy = "waiting for new pods: 10 of 15 ready; beside 10 old pods a CloneSet makes no more: scale it to 10, or roll back";
        stage.until("told", |s| s.rollout()["status"]["message"].as_str().is_some_and(|m| m.ends_with(remedy))).await;
        stage.patch_workload(json!({"spec": {"replicas": 10}})).await;
        stage.paused_at(2).await;
        stage.approve().await;
        stage.ends_with("10 canary").await;
    });
}
