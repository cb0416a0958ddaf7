//! A release goes through its steps, with and without traffic, and is overtaken by another.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DAEMON_SET, KINDS, Kind, assert_restored, each, steps};
use crate::{
    stage::{NAMESPACE, Stage, gvr, play, pods},
    stories::{partition, with_traffic},
};

#[test]
fn step_by_step() {
    play(each(true, async |kind| {
        let stage = kind.stage(&steps()).await;
        let before = stage.workload();
        stage.release("canary").await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(stage.versions(), "8 base + 2 canary");
        assert_eq!(stage.seen().1, [("base".into(), 10), ("canary".into(), 2)].into());
        stage.approve().await;
        stage.paused_at(2).await;
        // A pod in whose place one has come ahead still goes.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.versions(), "5 base + 5 canary");
        stage.approve().await;
        stage.ends_with("10 canary").await;
        kind.assert_kept_enough(&stage);
        assert_restored(&stage, &before);
        let status = &stage.rollout()["status"];
        assert_eq!(
            status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Succeeded").unwrap()["status"],
            "True"
        );
    }));
}

async fn route_and_go_back(kind: &Kind) {
    let steps =
        json!([{"replicas": "20%", "traffic": "20%"}, {"replicas": "60%", "traffic": "50%"}, {"replicas": "100%"}]);
    let stage = kind.stage(&with_traffic(partition(steps), "canary")).await;
    let service = |s: &Stage, name: &str| {
        s.view.get(&gvr("", "services"), NAMESPACE, name).map(|s| s["spec"]["selector"].clone())
    };
    let (before, original, selector) = (stage.workload(), stage.route(), service(&stage, "nginx-service"));
    stage.release("canary").await;
    stage.paused_at(1).await;
    assert_eq!(stage.route()[1]["weight"], 20);
    let [stable, canary] = ["nginx-service", "nginx-service-canary"].map(|name| service(&stage, name).unwrap());
    let of = |version: &str, selector: &Value| {
        pods(&stage.view)
            .iter()
            .filter(|pod| crate::stage::version(&pod["spec"]) == version)
            .filter(|pod| {
                let labels = &pod["metadata"]["labels"];
                selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
            })
            .count()
    };
    assert_eq!([of("base", &stable), of("canary", &stable), of("base", &canary), of("canary", &canary)], [8, 0, 0, 2]);
    stage.approve().await;
    stage.paused_at(2).await;
    assert_eq!((stage.versions().as_str(), &stage.route()[1]["weight"]), ("4 base + 6 canary", &json!(50)));
    // Requests leave the second version before its Service goes.
    stage.release("third").await;
    stage.until("restarted", |s| s.versions().contains("third")).await;
    stage.paused_at(1).await;
    assert_eq!(stage.route()[1]["weight"], 20);
    stage.release("base").await;
    stage.ends_with("10 base").await;
    assert_eq!((original, selector), (stage.route(), service(&stage, "nginx-service")));
    assert_eq!(service(&stage, "nginx-service-canary"), None);
    assert_restored(&stage, &before);
}

#[test]
fn with_traffic_and_back() {
    play(each(false, route_and_go_back));
}

#[test]
fn d_26_an_advanced_daemon_set_knows_its_stable_revision() {
    play(async {
        let kind = KINDS.iter().find(|kind| kind.row.kind == "DaemonSet" && kind.row.definition.is_some());
        route_and_go_back(kind.unwrap()).await;
    });
}

#[test]
fn d_21_the_stable_revision_of_a_daemon_set_is_the_one_before_the_release() {
    play(async {
        let stage = Stage::of(&DAEMON_SET, 10, &json!({}), &steps()).await;
        let before = stage.workload();
        let stable = |s: &Stage| s.sub()["stableRevision"].clone();
        let first = stable(&stage);
        assert!(first.is_string());
        stage.release("canary").await;
        stage.paused_at(1).await;
        // The second newest is not it, once there is a third.
        stage.release("third").await;
        stage.until("restarted", |s| s.versions().contains("third")).await;
        stage.paused_at(1).await;
        assert_eq!(stable(&stage), first);
        stage.release("base").await;
        stage.ends_with("10 base").await;
        let condition = &stage.rollout()["status"]["conditions"];
        assert!(condition.to_string().contains("has been canceled"), "an undo is no release: {condition:#}");
        assert_restored(&stage, &before);
    });
}

#[test]
fn d_23_rollback_before_the_first_pod_is_a_rollback() {
    play(each(false, async |kind| {
        // The first step waits for a Service that is not there.
        let mut strategy = with_traffic(partition(json!([{"replicas": "20%", "traffic": "20%"}])), "canary");
        strategy["canary"]["trafficRoutings"][0]["service"] = json!("missing");
        let stage = kind.stage(&strategy).await;
        let before = stage.workload();
        stage.release("canary").await;
        stage.until("begun", |s| s.rollout()["status"]["phase"] == "Progressing").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        stage.release("base").await;
        stage.ends().await;
        let condition = &stage.rollout()["status"]["conditions"];
        assert!(condition.to_string().contains("has been canceled"), "{condition:#}");
        assert_eq!(stage.seen(), (10, [("base".into(), 10)].into()));
        assert_restored(&stage, &before);
    }));
}

#[test]
fn d_28_a_third_version_is_held_at_once_and_starts_again() {
    play(each(false, async |kind| {
        let stage = kind.stage(&partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]))).await;
        let before = stage.workload();
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.patch_rollout(json!({"spec": {"strategy": {"paused": true}}})).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        stage.release("third").await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(stage.seen().1.get("third"), None, "held at once");
        stage.patch_rollout(json!({"spec": {"strategy": {"paused": false}}})).await;
        stage.until("restarted", |s| s.versions().contains("third")).await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.versions(), "6 base + 4 third");
        stage.release("base").await;
        stage.ends_with("10 base").await;
        kind.assert_kept_enough(&stage);
        assert_restored(&stage, &before);
    }));
}

#[test]
fn a_headless_service_stays_headless() {
    play(async {
        let kind = KINDS.iter().find(|kind| kind.row.kind == "StatefulSet").unwrap();
        let steps = json!([{"replicas": "20%", "traffic": "20%"}, {"replicas": "60%", "traffic": "50%"}]);
        let stage = kind.stage(&with_traffic(partition(steps), "canary")).await;
        let service = |name: &str| stage.view.get(&gvr("", "services"), NAMESPACE, name).unwrap_or_default();
        let mut headless = (*service("nginx-service")).clone();
        stage.api("", "v1", "Service").delete("nginx-service", &Default::default()).await.unwrap();
        headless["metadata"] = json!({"name": "nginx-service", "namespace": NAMESPACE});
        json_patch::merge(&mut headless["spec"], &json!({"clusterIP": "None", "clusterIPs": ["None"]}));
        stage.cluster.create(headless).unwrap();
        let before = service("nginx-service")["spec"].clone();
        assert_eq!(before["clusterIP"], "None");
        stage.release("canary").await;
        for step in [1, 2] {
            stage.paused_at(step).await;
            for name in ["nginx-service", "nginx-service-canary"] {
                assert_eq!(service(name)["spec"]["clusterIP"], "None", "{name} at step {step}");
            }
            assert_eq!(stage.route()[1]["weight"], if step == 1 { 20 } else { 50 });
            stage.approve().await;
        }
        stage.ends_with("10 canary").await;
        assert_eq!(service("nginx-service")["spec"], before);
    });
}
