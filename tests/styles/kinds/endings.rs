//! However a release ends, the workload is its owner's again.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::api::keys::{MANAGED, WORKLOAD_TYPE};

use super::{Kind, assert_restored, blue_green::each_blue_green, each, steps};
use crate::{
    stage::{Stage, play, pods},
    stories::partition,
};

#[test]
fn d_42_disabled_or_deleted_at_a_step_rolls_on_natively_and_leaves_nothing() {
    play(each(true, async |kind| {
        for deleted in [false, true] {
            let stage = kind.stage(&partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]))).await;
            let before = stage.workload();
            stage.release("canary").await;
            stage.paused_at(1).await;
            if deleted {
                let api = stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
                api.delete("r", &Default::default()).await.unwrap();
                stage.until("deleted", |s| s.rollout().is_null()).await;
            } else {
                stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
                stage.until("disabled", |s| s.rollout()["status"]["phase"] == "Disabled").await;
            }
            stage.until("rolled", |s| s.versions() == "10 canary").await;
            let labels = stage.workload()["metadata"]["labels"].clone();
            assert_eq!(labels.get(MANAGED), None, "{labels}");
            assert_eq!(
                labels.get(WORKLOAD_TYPE).and_then(Value::as_str),
                kind.row.behaves_as,
                "what its owner says stays"
            );
            assert_restored(&stage, &before);
        }
    }));
}

#[test]
fn d_42_what_the_user_changes_meanwhile_is_his() {
    play(each(false, async |kind| {
        if kind.row.is_on_nodes {
            return;
        }
        let stage = kind.stage(&steps()).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        let strategy = if kind.row.api_version.ends_with("v1alpha1") && kind.row.kind == "CloneSet" {
            json!({"partition": 4})
        } else {
            json!({"rollingUpdate": {"partition": 4}})
        };
        stage.patch_workload(json!({"spec": {"updateStrategy": strategy}})).await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(stage.versions(), "8 base + 2 canary");
        stage.approve().await;
        stage.paused_at(2).await;
        stage.approve().await;
        stage.ends_with("10 canary").await;
        let mut wanted = stage.workload()["spec"]["updateStrategy"].clone();
        json_patch::merge(&mut wanted, &strategy);
        assert_eq!(stage.workload()["spec"]["updateStrategy"], wanted);
    }));
}

#[test]
fn a_version_that_never_gets_ready_is_rolled_back() {
    play(each(false, async |kind| {
        let stage = kind.stage(&steps()).await;
        let before = stage.workload();
        let broken = json!({"spec": {"template": {"metadata": {"annotations": {"tidegate.test/never-ready": "true"}},
            "spec": {"volumes": [{"name": "nginx-config", "configMap": {"name": "nginx-configmap-broken"}}]}}}});
        stage.patch_workload(broken).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(stage.rollout()["status"]["message"].as_str().unwrap().contains("waiting for new pods: 0 of"));
        stage.patch_workload(json!({"spec": {"template": {"metadata": {"annotations": null}}}})).await;
        stage.release("base").await;
        stage.ends_with("10 base").await;
        kind.assert_kept_enough(&stage);
        assert_restored(&stage, &before);
    }));
}

/// The template of the stable version comes from what the workload's own controller keeps of it.
async fn a_late_step_is_rolled_back(kind: &Kind, mut strategy: Value) {
    strategy["stepDeadlineSeconds"] = json!(120);
    strategy["onStepFailure"] = json!("Rollback");
    let stage = kind.stage(&strategy).await;
    let before = stage.workload();
    let broken = json!({"spec": {"template": {"metadata": {"annotations": {"tidegate.test/never-ready": "true"}},
        "spec": {"volumes": [{"name": "nginx-config", "configMap": {"name": "nginx-configmap-broken"}}]}}}});
    stage.patch_workload(broken).await;
    stage.until("taken back", |s| s.workload()["spec"]["template"] == before["spec"]["template"]).await;
    stage.ends_with("10 base").await;
    kind.assert_kept_enough(&stage);
    assert_restored(&stage, &before);
    let conditions = stage.rollout()["status"]["conditions"].as_array().cloned().unwrap();
    let succeeded = conditions.iter().find(|c| c["type"] == "Succeeded").unwrap();
    assert_eq!((&succeeded["status"], &succeeded["reason"]), (&json!("False"), &json!("StepFailed")), "{succeeded}");
}

#[test]
fn a_step_that_fails_is_rolled_back_to_the_template_of_the_stable_version() {
    play(async {
        each(false, async |kind| a_late_step_is_rolled_back(kind, steps()).await).await;
        let whole = json!({"blueGreen": {"steps": [{"replicas": "100%"}]}});
        each_blue_green(async |kind| a_late_step_is_rolled_back(kind, whole.clone()).await).await;
    });
}

#[test]
fn a_rollback_in_batches_goes_through_the_steps() {
    let kept = |s: &Stage| {
        let pods = pods(&s.view);
        pods.iter().filter(|p| !p["metadata"]["labels"]["rollouts.kruise.io/no-need-update"].is_null()).count()
    };
    play(each(true, async |kind| {
        let (own, is_bare) = ((kind.own)().to_string(), (kind.own)() == json!({}));
        if kind.row.kind == "DaemonSet" || !(is_bare || own.contains("reserve") || own.contains("unordered")) {
            return;
        }
        let stage = kind.stage(&partition(json!([{"replicas": "60%"}, {"replicas": "100%"}]))).await;
        let before = stage.workload();
        stage
            .patch_rollout(json!({"metadata": {"annotations": {"rollouts.kruise.io/rollback-in-batch": "true"}}}))
            .await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(stage.versions(), "4 base + 6 canary");
        stage.release("base").await;
        // 60 % of the six that have to go back.
        stage.until("the first batch is back", |s| s.versions() == "8 base + 2 canary").await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!((stage.versions().as_str(), kept(&stage)), ("8 base + 2 canary", 4));
        // On again, by the steps of a release.
        stage.release("canary").await;
        stage.until("asked", |s| s.versions() == "4 base + 6 canary").await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((stage.versions().as_str(), kept(&stage)), ("4 base + 6 canary", 0));
        stage.release("base").await;
        stage.until("the first batch is back", |s| s.versions() == "8 base + 2 canary").await;
        stage.paused_at(1).await;
        stage.approve().await;
        stage.ends_with("10 base").await;
        kind.assert_kept_enough(&stage);
        assert_restored(&stage, &before);
        let conditions = stage.rollout()["status"]["conditions"].clone();
        let succeeded = conditions.as_array().unwrap().iter().find(|c| c["type"] == "Succeeded").unwrap();
        assert_eq!(succeeded["status"], "True", "the way back went through all steps: {succeeded}");
    }));
}
