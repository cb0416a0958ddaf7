//! Every kind but Deployment goes through the same stories.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::api::{
    keys::{MANAGED, WORKLOAD_TYPE},
    object,
};

use crate::{
    stage::{NAMESPACE, Row, Stage, gvr, play, pods},
    stories::{partition, with_traffic},
};

pub const STATEFUL_SET: Row = Row {
    api_version: "apps/v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    spec: |n| json!({"replicas": n, "serviceName": "nginx-service"}),
    definition: None,
    is_on_nodes: false,
    behaves_as: None,
};

pub const DAEMON_SET: Row = Row {
    api_version: "apps/v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    spec: |_| json!({}),
    definition: None,
    is_on_nodes: true,
    behaves_as: None,
};

fn definition(plural: &str) -> Value {
    let file = format!("{}/tests/e2e/crds/{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
    tidegate::yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Served in one version alone, as on a cluster of that time.
fn only(plural: &str, version: &str) -> Value {
    let mut definition = definition(plural);
    let versions = definition["spec"]["versions"].as_array_mut().unwrap();
    versions.retain(|v| v["name"] == version);
    versions.iter_mut().for_each(|v| v["storage"] = json!(true));
    definition
}

const fn kruise(
    (api_version, kind, plural): (&'static str, &'static str, &'static str),
    spec: fn(usize) -> Value,
    definition: fn() -> Value,
) -> Row {
    Row { api_version, kind, plural, spec, definition: Some(definition), is_on_nodes: false, behaves_as: None }
}

pub const CLONE_SET: Row =
    kruise(("apps.kruise.io/v1beta1", "CloneSet", "clonesets"), |n| json!({"replicas": n}), || definition("clonesets"));
const OLDER_CLONE_SET: Row = Row { api_version: "apps.kruise.io/v1alpha1", ..CLONE_SET };
pub const ADVANCED_STATEFUL_SET: Row = kruise(
    ("apps.kruise.io/v1beta1", "StatefulSet", "statefulsets"),
    |n| json!({"replicas": n, "serviceName": "nginx-service"}),
    || definition("statefulsets"),
);
pub const ADVANCED_DAEMON_SET: Row = Row {
    is_on_nodes: true,
    ..kruise(("apps.kruise.io/v1alpha1", "DaemonSet", "daemonsets"), |_| json!({}), || only("daemonsets", "v1alpha1"))
};
pub const NEWER_ADVANCED_DAEMON_SET: Row =
    Row { api_version: "apps.kruise.io/v1beta1", definition: Some(|| definition("daemonsets")), ..ADVANCED_DAEMON_SET };

/// Of a kind that nobody knows by name.
pub const GAME_SERVER_SET: Row = Row {
    behaves_as: Some("StatefulSet"),
    ..kruise(
        ("games.example.com/v1beta1", "GameServerSet", "gameserversets"),
        |n| json!({"replicas": n}),
        || definition("gameserversets"),
    )
};

/// A kind, with what its stories need to know of it.
struct Kind {
    row: &'static Row,
    /// The user's own settings, whatever they are.
    own: fn() -> Value,
    /// Of ten pods, so many are ready at every moment.
    least: usize,
}

const KINDS: &[Kind] = &[
    Kind { row: &STATEFUL_SET, own: || json!({}), least: 9 },
    Kind { row: &STATEFUL_SET, own: || json!({"podManagementPolicy": "Parallel"}), least: 9 },
    Kind {
        row: &STATEFUL_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"partition": 3}}, "minReadySeconds": 4}),
        least: 9,
    },
    Kind { row: &DAEMON_SET, own: || json!({}), least: 9 },
    Kind {
        row: &DAEMON_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "30%"}}, "minReadySeconds": 3}),
        least: 7,
    },
    Kind { row: &DAEMON_SET, own: || json!({"updateStrategy": {"type": "OnDelete"}}), least: 9 },
    Kind { row: &CLONE_SET, own: || json!({}), least: 8 },
    Kind {
        row: &CLONE_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"partition": "20%", "podUpdatePolicy": "InPlaceIfPossible", "maxSurge": 1, "maxUnavailable": 0}}}),
        least: 10,
    },
    Kind {
        row: &OLDER_CLONE_SET,
        own: || json!({"updateStrategy": {"type": "InPlaceIfPossible", "partition": 3}}),
        least: 8,
    },
    Kind { row: &ADVANCED_STATEFUL_SET, own: || json!({"reserveOrdinals": [1, 4]}), least: 9 },
    Kind {
        row: &ADVANCED_STATEFUL_SET,
        own: || json!({"podManagementPolicy": "Parallel", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 3, "partition": 2, "unorderedUpdate": {}}}}),
        least: 7,
    },
    Kind { row: &ADVANCED_DAEMON_SET, own: || json!({}), least: 9 },
    Kind {
        row: &ADVANCED_DAEMON_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"rollingUpdateType": "Surging", "maxSurge": "30%"}}}),
        least: 10,
    },
    Kind {
        row: &NEWER_ADVANCED_DAEMON_SET,
        own: || json!({"updateStrategy": {"rollingUpdate": {"partition": 4}}}),
        least: 9,
    },
    Kind { row: &GAME_SERVER_SET, own: || json!({}), least: 9 },
    Kind {
        row: &GAME_SERVER_SET,
        own: || json!({"podManagementPolicy": "Parallel", "minReadySeconds": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
        least: 9,
    },
];

const KEYS: [&str; 3] = ["in-progressing", "original-partition", "daemonset-original-update-strategy"];

/// One of each kind, and all settings where `all` of them are to be played.
async fn each<F: AsyncFn(&Kind)>(all: bool, story: F) {
    let is_first = |i: usize, kind: &Kind| {
        let before = KINDS.iter().take(i);
        !before.clone().any(|k| {
            object::group(k.row.api_version) == object::group(kind.row.api_version) && k.row.kind == kind.row.kind
        })
    };
    for (_, kind) in KINDS.iter().enumerate().filter(|(i, kind)| all || is_first(*i, kind)) {
        eprintln!("{} {}", kind.row.kind, (kind.own)());
        story(kind).await;
    }
}

impl Kind {
    async fn stage(&self, strategy: &Value) -> Stage {
        Stage::of(self.row, 10, &(self.own)(), strategy).await
    }

    fn assert_kept_enough(&self, stage: &Stage) {
        let least = stage.seen().0;
        assert!(least >= self.least, "never fewer pods than promised: {least} of {}", self.least);
    }
}

/// Nothing of ours is left but the switch of the hold, and every field but the template is what it was.
fn assert_restored(stage: &Stage, before: &Value) {
    let (mut before, after) = (before.clone(), stage.workload());
    before["spec"]["template"] = after["spec"]["template"].clone();
    assert_eq!(before["spec"], after["spec"]);
    let annotations = after["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let ours: Vec<_> = annotations.keys().filter(|k| KEYS.iter().any(|ours| k.ends_with(ours))).collect();
    assert!(ours.is_empty(), "{ours:?}");
    for pod in pods(&stage.view) {
        assert!(!pod["metadata"].to_string().contains("rollouts.kruise.io"), "{}", pod["metadata"]);
    }
}

fn steps() -> Value {
    partition(json!([{"replicas": "20%"}, {"replicas": 5}, {"replicas": "100%"}]))
}

#[test]
fn step_by_step() {
    play(each(true, async |kind| {
        let stage = kind.stage(&steps()).await;
        let before = stage.workload();
        stage.release("canary").await;
        stage.paused_at(1).await;
        assert_eq!(stage.versions(), "8 base + 2 canary");
        tokio::time::sleep(Duration::from_secs(600)).await;
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

async fn each_blue_green<F: AsyncFn(&Kind)>(story: F) {
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

#[test]
fn nodes_come_and_go_during_a_step() {
    play(async {
        let stage = Stage::of(&DAEMON_SET, 10, &json!({}), &steps()).await;
        let before = stage.workload();
        stage.release("canary").await;
        stage.paused_at(1).await;
        // A node that comes gets a pod of the present template; a share of one more pod is one more.
        stage.cluster.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-new"}})).unwrap();
        stage.until("pod on the new node", |s| s.versions() == "8 base + 3 canary").await;
        let base = pods(&stage.view);
        let base = base.iter().find(|pod| crate::stage::version(&pod["spec"]) == "base").unwrap();
        let node = base["spec"]["nodeName"].as_str().unwrap();
        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(stage.cluster.client("user"));
        nodes.delete(node, &Default::default()).await.unwrap();
        stage.until("pod gone with its node", |s| s.versions() == "7 base + 3 canary").await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(stage.versions(), "7 base + 3 canary");
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(stage.versions(), "5 base + 5 canary");
        stage.approve().await;
        stage.ends_with("10 canary").await;
        assert_restored(&stage, &before);
    });
}

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
