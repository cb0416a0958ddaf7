//! Kinds that nobody knows by name, and definitions that come and go.

use std::time::Duration;

use serde_json::json;
use tidegate::{
    api::keys::{MANAGED, WORKLOAD_TYPE},
    cli::demo::world::CONTROLLER,
    sim::{Fault, Rule},
};

use super::{GAME_SERVER_SET, assert_restored, definition, steps};
use crate::{
    stage::{NAMESPACE, Stage, gvr, play},
    stories::partition,
};

#[test]
fn a_kind_that_nobody_knows_is_released_once_its_owner_says_that_it_behaves_as_a_stateful_set() {
    play(async {
        let stage = Stage::of(&GAME_SERVER_SET, 10, &json!({}), &steps()).await;
        let before = stage.workload();
        let says = |text: &'static str| {
            move |s: &Stage| s.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains(text))
        };
        stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
        stage.until("let go", |s| s.workload()["metadata"]["labels"].get(MANAGED).is_none()).await;
        // Without his word nothing is held, and the Rollout says so.
        stage.patch_workload(json!({"metadata": {"labels": {WORKLOAD_TYPE: null}}})).await;
        stage.patch_rollout(json!({"spec": {"disabled": false}})).await;
        stage.until("told", says("label it rollouts.kruise.io/workload-type: statefulset")).await;
        let conditions = stage.rollout()["status"]["conditions"].to_string();
        assert!(conditions.contains("Stalled") && conditions.contains("of a kind that is not known"), "{conditions}");
        stage.patch_workload(json!({"metadata": {"labels": {WORKLOAD_TYPE: "statefulset"}}})).await;
        stage
            .until("well", |s| {
                s.rollout()["status"]["phase"] == "Healthy" && s.workload()["metadata"]["labels"].get(MANAGED).is_some()
            })
            .await;
        // Taken back in the middle of a release, it is ended in order all the same.
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.patch_workload(json!({"metadata": {"labels": {WORKLOAD_TYPE: null}}})).await;
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(stage.versions(), "5 base + 5 canary");
        stage.approve().await;
        stage.ends_with("10 canary").await;
        stage.patch_workload(json!({"metadata": {"labels": {WORKLOAD_TYPE: "statefulset"}}})).await;
        stage.until("well", |s| s.rollout()["status"]["phase"] == "Healthy").await;
        assert_restored(&stage, &before);
    });
}

#[test]
fn a_definition_that_goes_does_no_harm_and_is_found_again() {
    play(async {
        let stage = Stage::of(&GAME_SERVER_SET, 10, &json!({}), &steps()).await;
        let message = |s: &Stage| s.rollout()["status"]["message"].as_str().unwrap_or_default().to_owned();
        let api = kube::Api::<
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        >::all(stage.cluster.client("user"));
        stage.release("canary").await;
        stage.paused_at(1).await;
        api.delete("gameserversets.games.example.com", &Default::default()).await.unwrap();
        stage.until("named", |s| message(s).contains("does not serve games.example.com/v1beta1 GameServerSet")).await;
        // Others are released meanwhile, without a restart.
        let other = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "other", "namespace": NAMESPACE},
            "spec": {"replicas": 2, "serviceName": "other", "selector": {"matchLabels": {"app": "other"}},
                "template": {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}}});
        stage.cluster.create(other).unwrap();
        stage
            .cluster
            .create(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
                "metadata": {"name": "other", "namespace": NAMESPACE},
                "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "other"}, "strategy": steps()}}))
            .unwrap();
        let phase = |s: &Stage| {
            let other = s.view.get(&gvr("rollouts.kruise.io", "rollouts"), NAMESPACE, "other").unwrap();
            other["status"]["phase"].as_str().unwrap_or_default().to_owned()
        };
        stage.until("another one is well", |s| phase(s) == "Healthy").await;
        stage.cluster.create(definition("gameserversets")).unwrap();
        stage.until("seen again", |s| !message(s).contains("does not serve")).await;
    });
}

#[test]
fn a_kind_that_is_not_served_is_named_and_found_when_its_definition_comes() {
    play(async {
        let stage = Stage::new(&json!({"replicas": 1}), &partition(json!([{"replicas": "100%"}]))).await;
        let rollouts = stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
        stage
            .cluster
            .create(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
                "metadata": {"name": "other", "namespace": NAMESPACE},
                "spec": {"workloadRef": {"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "name": "web"},
                    "strategy": partition(json!([{"replicas": "100%"}]))}}))
            .unwrap();
        let message = |s: &Stage| {
            let other = s.view.get(&gvr("rollouts.kruise.io", "rollouts"), NAMESPACE, "other").unwrap();
            other["status"]["message"].as_str().unwrap_or_default().to_owned()
        };

        stage.until("named", |s| message(s).contains("does not serve apps.kruise.io/v1alpha1 CloneSet")).await;
        stage.cluster.create(definition("clonesets")).unwrap();
        stage.until("found", |s| message(s).contains("CloneSet web does not exist")).await;
        rollouts.delete("other", &Default::default()).await.unwrap();
        stage.until("gone", |s| s.view.get(&gvr("rollouts.kruise.io", "rollouts"), NAMESPACE, "other").is_none()).await;
    });
}

#[test]
fn a_kind_that_nothing_names_any_more_is_watched_no_longer() {
    play(async {
        let stage = Stage::of(&GAME_SERVER_SET, 3, &json!({}), &steps()).await;
        let none = Duration::ZERO..=Duration::ZERO;
        stage.cluster.add_fault(Rule::new(CONTROLLER, Fault::Latency(none)).resource("gameserversets"));
        let asked = || stage.cluster.fault_counts().values().sum::<u64>();
        // A watch is asked for anew every few minutes.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(asked() > 5, "{}", asked());
        let rollout = (*stage.rollout()).clone();
        stage.api("rollouts.kruise.io", "v1beta1", "Rollout").delete("r", &Default::default()).await.unwrap();
        stage.until("deleted", |s| s.rollout().is_null()).await;
        let before = asked();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(asked(), before, "nobody names it");
        stage
            .cluster
            .create(json!({"apiVersion": rollout["apiVersion"], "kind": "Rollout",
                "metadata": {"name": "r", "namespace": NAMESPACE}, "spec": rollout["spec"]}))
            .unwrap();
        stage.until("healthy", |s| s.rollout()["status"]["phase"] == "Healthy").await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(stage.versions(), "2 base + 1 canary");
    });
}
