//! What comes before the last thing has ended: another template, another size, another replica's write.

use std::time::Duration;

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidegate::sim::NEVER_READY;

use crate::{
    moments::{STYLES, strategy},
    stage::{NAME, NAMESPACE, Stage, gvr, play},
    stories::{partition, ten, with_traffic},
};

fn selector(stage: &Stage) -> Value {
    stage.view.get(&gvr("", "services"), NAMESPACE, "nginx-service").unwrap()["spec"]["selector"].clone()
}

/// A tool that knows nothing of us writes its whole manifest.
async fn put(stage: &Stage, spec: Value) {
    let api = stage.api("apps", "v1", "Deployment");
    let mut object = api.get(NAME).await.unwrap();
    object.metadata.resource_version = None;
    object.metadata.annotations = None;
    object.metadata.labels = Some([("app".to_owned(), "nginx".to_owned())].into());
    let own = object.data["spec"].as_object_mut().unwrap();
    let _ = ["strategy", "minReadySeconds", "progressDeadlineSeconds", "paused"].map(|field| own.remove(field));
    json_patch::merge(&mut object.data["spec"], &spec);
    api.replace(NAME, &PostParams::default(), &object).await.unwrap();
}

#[test]
fn whoever_writes_his_whole_manifest_at_a_step_moves_no_pod_and_gets_it_in_the_end() {
    play(async {
        let stage = Stage::new(&ten(), &partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]))).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        let told = r#"6 base + 4 canary; surge 0, unavailable "40%""#;
        assert_eq!(stage.told(), told);
        for surge in [1, 2] {
            let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}});
            put(&stage, json!({"strategy": strategy, "minReadySeconds": 3})).await;
            assert_eq!(stage.told(), told, "what the server stores is the step as it was");
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert_eq!(stage.told(), told);
        }
        let annotations = stage.deployment()["metadata"]["annotations"].clone();
        assert_eq!(
            annotations.get("rollouts.kruise.io/wanted-fields"),
            None,
            "it is in the mark by now: {annotations}"
        );
        assert_eq!(stage.seen(), (10, [("base".into(), 10), ("canary".into(), 4)].into()));
        stage.approve().await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 canary; surge 2, unavailable 0");
        assert_eq!(stage.deployment()["spec"]["minReadySeconds"], 3);
    });
}

#[test]
fn a_template_that_follows_a_rollback_at_once_is_kept_beside_the_version_from_before() {
    play(async {
        let stage =
            Stage::new(&ten(), &with_traffic(partition(json!([{"replicas": "60%", "traffic": "20%"}])), "canary"))
                .await;
        let stable = stage.sub()["stableRevision"].clone();
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("base").await;
        stage.until("on its way back", |s| s.sub()["finalisingStep"] == "FinalisingStepRouteTrafficToStable").await;
        stage.release("third").await;
        stage.until("at its step", |s| s.versions() == "4 base + 6 third").await;
        stage.paused_at(1).await;
        assert_eq!(stage.sub()["stableRevision"], stable, "most pods were of the version that was taken back");
        stage.approve().await;
        stage.ends_with("10 third").await;
    });
}

#[test]
fn a_step_that_scaling_makes_the_whole_leaves_the_service_no_version_to_wait_for() {
    play(async {
        let steps = json!([{"replicas": 2, "traffic": "20%", "pause": {"duration": 60}}]);
        let stage = Stage::new(&ten(), &with_traffic(partition(steps), "canary")).await;
        let original = selector(&stage);
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_ne!(selector(&stage), original);
        stage.patch_workload(json!({"spec": {"replicas": 2}})).await;
        stage.until("all pods are new", |s| s.versions() == "2 canary").await;
        assert_eq!(selector(&stage), original, "no stable pod is left that it could be kept to");
        stage.ends().await;
        assert_eq!(stage.seen().0, 2);
    });
}

#[test]
fn routes_that_another_replica_writes_after_the_end_are_taken_back() {
    play(async {
        let stage = Stage::new(&ten(), &strategy("partition")).await;
        let vs = || stage.view.get(&gvr("networking.istio.io", "virtualservices"), NAMESPACE, "nginx-vs").unwrap();
        let original = vs()["spec"].clone();
        stage.release("canary").await;
        stage.paused_at(1).await;
        let late = json!({"metadata": {"annotations": vs()["metadata"]["annotations"]}, "spec": vs()["spec"]});
        stage.approve().await;
        stage.paused_at(2).await;
        stage.approve().await;
        stage.ends().await;
        assert_eq!(vs()["spec"], original);
        let api = stage.api("networking.istio.io", "v1beta1", "VirtualService");
        api.patch("nginx-vs", &PatchParams::default(), &Patch::Merge(&late)).await.unwrap();
        stage.until("as it was", |s| s.route().as_array().unwrap().len() == 1).await;
        assert_eq!(vs()["spec"], original);
        assert_eq!(vs()["metadata"]["annotations"], Value::Null);
        assert_eq!((&stage.rollout()["status"]["phase"], stage.versions().as_str()), (&json!("Healthy"), "10 canary"));
    });
}

#[test]
fn a_stable_service_that_another_replica_restricts_too_late_is_freed() {
    // While requests still have to leave the canary; and after the end.
    for is_wound_up in [true, false] {
        play(async {
            let stage = Stage::new(&ten(), &strategy("partition")).await;
            let original = selector(&stage);
            stage.release("canary").await;
            stage.paused_at(1).await;
            let late = json!({"spec": {"selector": selector(&stage)}});
            assert_ne!(late["spec"]["selector"], original, "restricted at the step");
            for step in [1, 2] {
                stage.paused_at(step).await;
                stage.approve().await;
            }
            if is_wound_up {
                let part = "FinalisingStepRouteTrafficToStable";
                stage.until("being wound up", |s| s.sub()["finalisingStep"] == part).await;
            } else {
                stage.ends().await;
            }
            assert_eq!(selector(&stage), original);
            let api = stage.api("", "v1", "Service");
            api.patch("nginx-service", &PatchParams::default(), &Patch::Merge(&late)).await.unwrap();
            stage.until("as it was", |s| selector(s) == original).await;
            let part = stage.sub()["finalisingStep"].clone();
            assert_eq!(
                part,
                if is_wound_up { "FinalisingStepRouteTrafficToStable" } else { "END" },
                "before any pod goes"
            );
            stage.ends().await;
        });
    }
}

#[test]
fn a_version_pushed_while_a_broken_one_is_let_go_takes_no_ready_pod_away() {
    play(async {
        let stage = Stage::new(&ten(), &json!({"blueGreen": {"steps": [{"replicas": "100%"}]}})).await;
        let broken =
            |broken: Value| json!({"spec": {"template": {"metadata": {"annotations": {NEVER_READY: broken}}}}});
        stage.patch_workload(broken(json!("yes"))).await;
        stage.until("brought up", |s| s.sub()["updatedReplicas"] == 10).await;
        stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
        stage.until("let go", |s| s.sub()["finalisingStep"] == "ResumeWorkload").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.release("third").await;
        stage.patch_workload(broken(Value::Null)).await;
        stage.until("all are of the third", |s| s.versions() == "10 third").await;
        assert_eq!(stage.seen().0, 10, "those of the version before were ready all the time");
        stage.until("disabled", |s| s.rollout()["status"]["phase"] == "Disabled").await;
    });
}

/// Scaled to nothing in the middle of a release, a workload gets a newer template: there is nothing to go through steps
/// with, so the release ends, and what is scaled up is of that template.
#[test]
fn a_template_for_a_workload_that_was_scaled_to_nothing_ends_the_release() {
    for style in STYLES {
        play(async move {
            let stage = Stage::new(&json!({"replicas": 3}), &strategy(style)).await;
            stage.release("canary").await;
            stage.paused_at(1).await;
            stage.patch_deployment(json!({"spec": {"replicas": 0}})).await;
            stage.until("no pods", |s| !s.versions().contains("base")).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            stage.release("third").await;
            stage.until("it ends", |s| s.rollout()["status"]["phase"] == "Healthy").await;
            let conditions = stage.rollout()["status"]["conditions"].clone();
            let succeeded = conditions.as_array().unwrap().iter().find(|c| c["type"] == "Succeeded").unwrap().clone();
            assert_eq!(succeeded["status"], "True", "{style}");
            stage.patch_deployment(json!({"spec": {"replicas": 3}})).await;
            stage.ends_with("3 third").await;
            // The next one goes through its steps.
            stage.release("canary").await;
            stage.paused_at(1).await;
        });
    }
}

/// Whoever writes the selector anew is overruled as long as there are pods of two versions.
#[test]
fn a_stable_service_that_somebody_frees_is_restricted_again() {
    for style in STYLES {
        play(async move {
            let stage = Stage::new(&json!({"replicas": 3}), &strategy(style)).await;
            stage.release("canary").await;
            stage.paused_at(1).await;
            let freed = json!({"spec": {"selector": {"pod-template-hash": null}}});
            let api = stage.api("", "v1", "Service");
            api.patch("nginx-service", &PatchParams::default(), &Patch::Merge(&freed)).await.unwrap();
            stage.until("restricted again", |s| !selector(s)["pod-template-hash"].is_null()).await;
            stage.release("base").await;
            stage.ends_with("3 base").await;
            assert!(selector(&stage)["pod-template-hash"].is_null(), "{style}");
        });
    }
}
