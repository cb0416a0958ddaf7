//! Pods that cannot become ready, and steps that are late, in each style.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::sim::{FAILS, NEVER_READY, READY_AFTER};

use crate::{
    stage::{Stage, play, pods, version},
    stories::{partition, with_traffic},
};

fn strategies() -> [(&'static str, Value); 3] {
    let steps = json!([{"replicas": "40%", "traffic": "20%"}, {"replicas": "100%"}]);
    let whole = json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "100%"}]);
    [
        ("canary", json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": steps}})),
        ("canary", partition(steps)),
        ("blueGreen", json!({"blueGreen": {"steps": whole}})),
    ]
}

fn four() -> Value {
    json!({"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}})
}

impl Stage {
    /// The template mounts another ConfigMap, and its pods have this annotation.
    async fn release_failing(&self, version: &str, annotations: Value) {
        let volumes = json!([{"name": "nginx-config", "configMap": {"name": format!("nginx-configmap-{version}")}}]);
        let template = json!({"metadata": {"annotations": annotations}, "spec": {"volumes": volumes}});
        self.patch_deployment(json!({"spec": {"template": template}})).await;
    }

    /// Each step is approved as soon as it waits, until the release ends.
    async fn approved_to_the_end(&self, style: &str) {
        for step in 1..=if style == "blueGreen" { 2 } else { 1 } {
            self.paused_at(step).await;
            self.approve().await;
        }
        self.ends().await;
    }

    fn condition(&self, name: &str) -> Value {
        let rollout = self.rollout();
        let conditions = rollout["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == name).unwrap_or_default()
    }

    fn stalled(&self) -> (String, String) {
        let condition = self.condition("Stalled");
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }
}

#[test]
fn d_51_a_failing_pod_is_named_within_seconds_and_rolled_back_in_time() {
    for ((style, mut strategy), fails) in
        strategies().into_iter().zip(["CrashLoopBackOff", "ImagePullBackOff", "CrashLoopBackOff"])
    {
        play(async move {
            strategy["stepDeadlineSeconds"] = json!(300);
            strategy["onStepFailure"] = json!("Rollback");
            let stage = Stage::new(&four(), &with_traffic(strategy, style)).await;
            let before = stage.deployment();
            let began = tokio::time::Instant::now();
            stage.release_failing("canary", json!({FAILS: fails})).await;
            stage.until("named", |s| s.stalled().0 == "PodsFailing").await;
            assert!(began.elapsed() < Duration::from_secs(20), "{style}: {:?}", began.elapsed());
            let (_, message) = stage.stalled();
            let told = ["pod nginx-deployment-", "container nginx: ", fails];
            assert!(told.iter().all(|text| message.contains(text)), "{message}");
            stage.ends().await;
            let took = began.elapsed();
            assert!((300..400).contains(&took.as_secs()), "{style}: {took:?}");
            assert_eq!(stage.told(), "4 base; surge 1, unavailable 0");
            assert_eq!(stage.deployment()["spec"], before["spec"]);
            assert_eq!(stage.seen().0, 4, "the failing pods are not needed");
            let succeeded = stage.condition("Succeeded");
            assert_eq!((&succeeded["status"], &succeeded["reason"]), (&json!("False"), &json!("StepFailed")));
            assert!(succeeded["message"].as_str().unwrap().contains(fails), "{succeeded}");
            // GitOps writes it again.
            stage.release_failing("canary", json!({FAILS: fails})).await;
            stage.until("held", |s| s.stalled().0 == "RevisionFailed").await;
            tokio::time::sleep(Duration::from_secs(900)).await;
            assert_eq!(stage.told().split(';').next(), Some("4 base"));
            stage.release_failing("base", json!(null)).await;
            stage.ends().await;
            // What is mended goes on.
            stage.release_failing("canary", json!(null)).await;
            stage.approved_to_the_end(style).await;
            assert_eq!(stage.told(), "4 canary; surge 1, unavailable 0");
        });
    }
}

#[test]
fn a_late_step_stays_and_waits_for_a_person() {
    for (style, mut strategy) in strategies() {
        play(async move {
            strategy[style]["steps"][0]["stepDeadlineSeconds"] = json!(30);
            strategy[style]["steps"][0]["pause"] = json!({"duration": 5});
            let stage = Stage::new(&json!({"replicas": 4}), &strategy).await;
            stage.release_failing("canary", json!({READY_AFTER: "60s"})).await;
            stage.until("late", |s| s.stalled().0 == "StepFailed").await;
            stage.paused_at(1).await;
            tokio::time::sleep(Duration::from_secs(600)).await;
            stage.paused_at(1).await;
            assert_eq!(stage.stalled().0, "", "{style}");
            stage.approved_to_the_end(style).await;
        });
    }
}

#[test]
fn a_template_that_never_becomes_ready_is_followed_by_a_fixed_one() {
    for (style, strategy) in strategies() {
        play(async move {
            let stage = Stage::new(&four(), &with_traffic(strategy, style)).await;
            let before = stage.deployment();
            stage.release_failing("canary", json!({NEVER_READY: "yes"})).await;
            stage
                .until("unready pods", |s| {
                    s.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains("waiting for"))
                })
                .await;
            tokio::time::sleep(Duration::from_secs(120)).await;
            if style == "blueGreen" {
                // The contract: a third version needs a rollback first.
                stage.release_failing("base", json!(null)).await;
                stage.ends().await;
            }
            stage.release_failing("fixed", json!(null)).await;
            stage.approved_to_the_end(style).await;
            assert_eq!(stage.told(), "4 fixed; surge 1, unavailable 0");
            assert_eq!(stage.seen().0, 4);
            assert_eq!(stage.deployment()["spec"]["strategy"], before["spec"]["strategy"]);
        });
    }
}

#[test]
fn d_33_blue_green_tolerates_unready_pods_up_to_its_threshold() {
    play(async {
        let strategy = json!({"blueGreen": {"failureThreshold": 1, "steps": [{"replicas": "100%"}]}});
        let stage = Stage::new(&four(), &strategy).await;
        stage.release("canary").await;
        let new = |s: &Stage| pods(&s.view).into_iter().find(|p| version(&p["spec"]) == "canary");
        stage.until("a new pod", |s| new(s).is_some()).await;
        let name = new(&stage).unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
        let patch = json!({"metadata": {"annotations": {NEVER_READY: "yes"}}});
        let api = stage.api("", "v1", "Pod");
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        stage.paused_at(1).await;
        assert_eq!(stage.told(), r#"4 base + 3 canary; surge "100%", unavailable 0"#);
    });
}

#[test]
fn d_27_a_rollout_of_a_workload_without_pods_becomes_healthy() {
    for (_, strategy) in strategies() {
        play(async move {
            let stage = Stage::new(&json!({"replicas": 0}), &strategy).await;
            stage.release("canary").await;
            stage.ends().await;
            stage.patch_deployment(json!({"spec": {"replicas": 2}})).await;
            stage.until("scaled", |s| s.told().starts_with("2 canary")).await;
        });
    }
}

#[test]
fn d_42_recreate_is_given_back() {
    for (style, strategy) in strategies() {
        play(async move {
            let spec = json!({"replicas": 3, "strategy": {"type": "Recreate", "rollingUpdate": null}});
            let stage = Stage::new(&spec, &strategy).await;
            stage.release("canary").await;
            stage.approved_to_the_end(style).await;
            assert_eq!(stage.deployment()["spec"]["strategy"], json!({"type": "Recreate"}));
        });
    }
}
