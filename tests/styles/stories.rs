//! What runs at each step, and what is put back.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::sim::NEVER_READY;

use crate::stage::{NAME, NAMESPACE, Stage, gvr, is_ready, play, pods};

pub fn partition(steps: Value) -> Value {
    json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": steps}})
}

pub fn with_traffic(mut strategy: Value, style: &str) -> Value {
    strategy[style]["trafficRoutings"] = json!([{"service": "nginx-service",
        "networkRefs": [{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": "nginx-vs"}]}]);
    strategy
}

const TEN: &str = r#"{"replicas": 10, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}"#;

pub fn ten() -> Value {
    serde_json::from_str(TEN).unwrap()
}

#[test]
fn in_place_step_by_step() {
    play(async {
        let strategy = partition(json!([{"replicas": "20%"}, {"replicas": 5}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        let before = stage.deployment();
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(stage.told(), r#"8 base + 2 canary; surge 0, unavailable "20%""#);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(stage.seen(), (10, [("base".into(), 10), ("canary".into(), 2)].into()));
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(stage.told(), r#"5 base + 5 canary; surge 0, unavailable "50%""#);
        stage.approve().await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 canary; surge 1, unavailable 0");
        assert_eq!(stage.seen().0, 10, "never fewer pods than promised");
        let (mut before, after) = (before, stage.deployment());
        before["spec"]["template"] = after["spec"]["template"].clone();
        assert_eq!(before["spec"], after["spec"]);
    });
}

#[test]
fn in_place_with_traffic_and_back() {
    play(async {
        let steps =
            json!([{"replicas": "20%", "traffic": "20%"}, {"replicas": "60%", "traffic": "50%"}, {"replicas": "100%"}]);
        let stage = Stage::new(&ten(), &with_traffic(partition(steps), "canary")).await;
        let (before, original) = (stage.deployment(), stage.route());
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(stage.route()[1]["weight"], 20);
        stage.approve().await;
        stage.paused_at(2).await;
        // The last old pod may still be going when all new ones are ready.
        stage.until("all that are to go are gone", |s| s.versions() == "4 base + 6 canary").await;
        assert_eq!(stage.told(), r#"4 base + 6 canary; surge 0, unavailable "60%""#);
        assert_eq!(stage.route()[1]["weight"], 50);
        stage.release("base").await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 base; surge 1, unavailable 0");
        assert_eq!((&before["spec"], original), (&stage.deployment()["spec"], stage.route()));
    });
}

#[test]
fn blue_green_switches_and_waits() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = Stage::new(&ten(), &with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen")).await;
        let before = stage.deployment();
        stage.release("canary").await;
        for step in 1..=3 {
            stage.paused_at(step).await;
            assert_eq!(stage.told(), r#"10 base + 10 canary; surge "100%", unavailable 0"#, "step {step}");
            if step == 3 {
                tokio::time::sleep(Duration::from_secs(600)).await;
                assert_eq!(stage.told(), r#"10 base + 10 canary; surge "100%", unavailable 0"#, "the last step waits");
            }
            stage.approve().await;
        }
        stage.ends().await;
        assert_eq!(stage.told(), "10 canary; surge 1, unavailable 0");
        assert_eq!(stage.seen().0, 10);
        let (mut before, after) = (before, stage.deployment());
        before["spec"]["template"] = after["spec"]["template"].clone();
        assert_eq!(before["spec"], after["spec"]);
        let sets = stage.view.list(&gvr("apps", "replicasets"), Some(NAMESPACE));
        assert!(sets.iter().all(|s| s["spec"].get("minReadySeconds").is_none_or(|v| v == 0)), "{sets:#?}");
    });
}

#[test]
fn blue_green_goes_back_at_once_and_refuses_a_third_version() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = Stage::new(&ten(), &with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen")).await;
        let before = stage.deployment();
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("third").await;
        stage
            .until("refused", |s| {
                s.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains("please rollback first"))
            })
            .await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(stage.told(), r#"10 base + 10 canary; surge "100%", unavailable 0"#);
        // Back to the second version: it goes on where it was.
        stage.release("canary").await;
        stage
            .until("not refused", |s| {
                s.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains("manually confirm"))
            })
            .await;
        stage.approve().await;
        stage.paused_at(2).await;
        stage.release("base").await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 base; surge 1, unavailable 0");
        assert_eq!((stage.seen().0, &before["spec"]), (10, &stage.deployment()["spec"]));
    });
}

#[test]
fn what_others_change_at_a_step_in_place_is_kept_and_opens_nothing() {
    play(async {
        let strategy = partition(json!([{"replicas": "20%"}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.patch_deployment(json!({"spec": {"minReadySeconds": 5, "strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": "50%"}}}})).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.told(), r#"8 base + 2 canary; surge 0, unavailable "20%""#);
        stage.patch_deployment(json!({"spec": {"replicas": 20}})).await;
        stage.until("scaled", |s| pods(&s.view).iter().filter(|p| is_ready(p)).count() == 20).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.told(), r#"16 base + 4 canary; surge 0, unavailable "20%""#);
        stage.approve().await;
        stage.ends().await;
        assert_eq!(stage.told(), r#"20 canary; surge 3, unavailable "50%""#);
        assert_eq!(stage.deployment()["spec"]["minReadySeconds"], 5);
    });
}

#[test]
fn a_third_version_in_place_starts_again() {
    play(async {
        let strategy = partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        let before = stage.deployment();
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("third").await;
        stage.until("restarted", |s| s.told().contains("third")).await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.told(), r#"6 base + 4 third; surge 0, unavailable "40%""#);
        stage.release("base").await;
        stage.ends().await;
        assert_eq!(stage.told(), "10 base; surge 1, unavailable 0");
        assert_eq!((stage.seen().0, &before["spec"]), (10, &stage.deployment()["spec"]));
    });
}

#[test]
fn a_third_version_in_place_gives_requests_time_to_leave_the_second() {
    play(async {
        let steps = json!([{"replicas": "40%", "traffic": "20%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = Stage::new(&ten(), &with_traffic(partition(steps), "canary")).await;
        let original = stage.route();
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.release("third").await;
        // No pod of the third is there yet, but those of the second answer a share of the requests.
        stage.until("restarted", |s| s.route() == original).await;
        stage.until("routed", |s| s.told().contains("third") && s.route() != original).await;
        stage.paused_at(1).await;
        assert_eq!(stage.told(), r#"6 base + 4 third; surge 0, unavailable "40%""#);
        stage.approve().await;
        stage.ends_with("10 third").await;
    });
}

#[test]
fn d_15_one_replica_with_traffic_comes_to_an_end() {
    play(async {
        let steps = json!([{"replicas": "50%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let stage = Stage::new(&json!({"replicas": 1}), &with_traffic(partition(steps), "canary")).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.approve().await;
        stage.ends().await;
        assert!(stage.told().starts_with("1 canary"), "{}", stage.told());
        assert_eq!(stage.seen().0, 1);
    });
}

#[test]
fn disabled_at_a_step_in_place_rolls_on_natively() {
    play(async {
        let strategy = partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]));
        let stage = Stage::new(&ten(), &strategy).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
        stage.until("disabled", |s| s.rollout()["status"]["phase"] == "Disabled").await;
        stage.until("rolled", |s| s.told() == "10 canary; surge 1, unavailable 0").await;
        assert!(stage.deployment()["metadata"]["labels"].get("rollouts.kruise.io/workload-type").is_none());
    });
}

#[test]
fn a_workload_that_is_named_no_more_is_let_go_of() {
    play(async {
        let stage = Stage::new(&ten(), &partition(json!([{"replicas": "40%"}, {"replicas": "100%"}]))).await;
        let mut other = stage.deployment();
        other["metadata"] = json!({"name": "other", "namespace": NAMESPACE});
        other["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
        other["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
        stage.cluster.create(other).unwrap();
        let label = |s: &Stage, name: &str| {
            let object = s.view.get(&gvr("apps", "deployments"), NAMESPACE, name).unwrap();
            object["metadata"]["labels"].get("rollouts.kruise.io/workload-type").is_some()
        };
        assert!(label(&stage, NAME));
        let names = |name: &str| json!({"spec": {"workloadRef": {"name": name}}});
        stage.patch_rollout(names("other")).await;
        stage.until("moved", |s| label(s, "other") && !label(s, NAME)).await;
        // Nobody holds it any more, and the one that is named is healthy.
        stage.release("canary").await;
        stage.until("rolled", |s| s.versions() == "10 canary").await;
        assert_eq!(stage.rollout()["status"]["phase"], "Healthy");
        // Captured by the hold before the label could be taken off: it is opened all the same.
        stage.patch_rollout(names(NAME)).await;
        stage.until("back", |s| label(s, NAME) && !label(s, "other")).await;
        let pushed = tokio::join!(stage.patch_rollout(names("other")), stage.release("third"));
        assert_eq!(pushed, ((), ()));
        stage.until("rolled", |s| s.versions() == "10 third" && !label(s, NAME)).await;
    });
}

#[test]
fn a_version_that_never_got_ready_before_the_rollout_is_not_what_requests_are_kept_to() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]);
        let strategy = with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen");
        let stage = Stage::new(&ten(), &strategy).await;
        let hash = |s: &Stage| pods(&s.view)[0]["metadata"]["labels"]["pod-template-hash"].clone();
        let base = hash(&stage);
        let rollouts = stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
        rollouts.delete("r", &Default::default()).await.unwrap();
        stage.until("gone", |s| s.rollout().is_null()).await;
        let broken = json!({"metadata": {"annotations": {NEVER_READY: "yes"}}});
        stage.patch_deployment(json!({"spec": {"template": broken}})).await;
        stage.until("rolling", |s| pods(&s.view).len() > 10).await;
        stage
            .cluster
            .create(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
                "metadata": {"name": "r", "namespace": NAMESPACE},
                "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}, "strategy": strategy}}))
            .unwrap();
        stage.until("healthy", |s| s.rollout()["status"]["phase"] == "Healthy").await;
        let volume = json!([{"name": "nginx-config", "configMap": {"name": "nginx-configmap-canary"}}]);
        let template = json!({"metadata": {"annotations": null}, "spec": {"volumes": volume}});
        stage.patch_deployment(json!({"spec": {"template": template}})).await;
        stage.until("begun", |s| s.sub()["stableRevision"] == base).await;
    });
}
