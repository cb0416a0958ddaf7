//! Every setting of the user's that a release touches, or stands beside one that it does, is in the end what he wants it to
//! be: for every kind and style, in every ending, also where he changed it meanwhile.
//!
//! Either with changes or without, in turn; `MOMENTS=all` plays both.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::api::keys::{MANAGED, WORKLOAD_TYPE};

use super::{
    ADVANCED_DAEMON_SET, ADVANCED_STATEFUL_SET, CLONE_SET, DAEMON_SET, GAME_SERVER_SET, NEWER_ADVANCED_DAEMON_SET,
    OLDER_CLONE_SET, STATEFUL_SET,
};
use crate::{
    moments::STYLES,
    stage::{DEPLOYMENT, NAMESPACE, Row, Stage, gvr, play, pods},
    stories::partition,
};

/// A kind with settings of all sorts, and what its user sets in the middle of a release.
struct Case {
    row: &'static Row,
    style: &'static str,
    own: fn() -> Value,
    later: fn() -> Value,
}

const fn case(row: &'static Row, style: &'static str, own: fn() -> Value, later: fn() -> Value) -> Case {
    Case { row, style, own, later }
}

fn of_deployment() -> Value {
    json!({"minReadySeconds": 3, "progressDeadlineSeconds": 300, "strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}})
}

fn later_history() -> Value {
    json!({"revisionHistoryLimit": 4})
}

fn rolling(own: Value) -> Value {
    json!({"minReadySeconds": 3, "updateStrategy": {"rollingUpdate": own}})
}

fn of_stateful_set() -> Value {
    rolling(json!({"partition": 1}))
}

fn later_of_stateful_set() -> Value {
    json!({"minReadySeconds": 5, "updateStrategy": {"rollingUpdate": {"partition": 2}}})
}

fn of_advanced_stateful_set() -> Value {
    json!({"updateStrategy": {"rollingUpdate": {"partition": 1, "paused": true, "maxUnavailable": 2, "minReadySeconds": 3}}})
}

fn later_of_advanced_stateful_set() -> Value {
    json!({"updateStrategy": {"rollingUpdate": {"partition": 2, "maxUnavailable": 1, "minReadySeconds": 5}}})
}

fn of_advanced_daemon_set() -> Value {
    rolling(json!({"partition": 1, "paused": true, "maxUnavailable": 2}))
}

fn later_of_advanced_daemon_set() -> Value {
    json!({"minReadySeconds": 5, "updateStrategy": {"rollingUpdate": {"partition": 2, "maxUnavailable": 1}}})
}

fn of_clone_set() -> Value {
    rolling(json!({"partition": "30%", "paused": true, "maxUnavailable": "40%", "maxSurge": 1}))
}

fn later_of_clone_set() -> Value {
    json!({"minReadySeconds": 5, "updateStrategy": {"rollingUpdate": {"partition": 1, "maxUnavailable": 1, "maxSurge": 0}}})
}

fn of_older_clone_set() -> Value {
    json!({"minReadySeconds": 3, "updateStrategy": {"partition": 1, "paused": true, "maxUnavailable": 1, "maxSurge": "40%"}})
}

fn later_of_older_clone_set() -> Value {
    json!({"minReadySeconds": 5, "updateStrategy": {"partition": "20%", "maxUnavailable": 2, "maxSurge": 1}})
}

/// What a full new set is kept by is nobody's to change until the end (docs/workloads/cloneset.md).
fn later_beside_a_set() -> Value {
    json!({"revisionHistoryLimit": 4, "updateStrategy": {"rollingUpdate": {"partition": 1}}})
}

fn later_beside_an_older_set() -> Value {
    json!({"revisionHistoryLimit": 4, "updateStrategy": {"partition": 1}})
}

fn of_daemon_set() -> Value {
    rolling(json!({"maxUnavailable": 2}))
}

fn later_of_daemon_set() -> Value {
    json!({"minReadySeconds": 5, "updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}})
}

fn by_hand() -> Value {
    json!({"minReadySeconds": 3, "updateStrategy": {"type": "OnDelete"}})
}

fn of_surging() -> Value {
    rolling(json!({"rollingUpdateType": "Surging", "partition": 1, "maxSurge": 2}))
}

fn later_of_surging() -> Value {
    json!({"minReadySeconds": 5, "updateStrategy": {"rollingUpdate": {"partition": 2, "maxSurge": 1}}})
}

const CASES: &[Case] = &[
    case(&DEPLOYMENT, STYLES[0], of_deployment, later_history),
    case(&DEPLOYMENT, STYLES[1], of_deployment, later_history),
    case(&DEPLOYMENT, STYLES[2], of_deployment, later_history),
    case(&STATEFUL_SET, STYLES[1], of_stateful_set, later_of_stateful_set),
    case(&DAEMON_SET, STYLES[1], of_daemon_set, later_of_daemon_set),
    case(&DAEMON_SET, STYLES[1], by_hand, || json!({"minReadySeconds": 5})),
    case(&CLONE_SET, STYLES[1], of_clone_set, later_of_clone_set),
    case(&CLONE_SET, STYLES[2], of_clone_set, later_beside_a_set),
    case(&OLDER_CLONE_SET, STYLES[1], of_older_clone_set, later_of_older_clone_set),
    case(&OLDER_CLONE_SET, STYLES[2], of_older_clone_set, later_beside_an_older_set),
    case(&ADVANCED_STATEFUL_SET, STYLES[1], of_advanced_stateful_set, later_of_advanced_stateful_set),
    case(&NEWER_ADVANCED_DAEMON_SET, STYLES[1], of_advanced_daemon_set, later_of_advanced_daemon_set),
    case(&ADVANCED_DAEMON_SET, STYLES[1], of_surging, later_of_surging),
    case(&GAME_SERVER_SET, STYLES[1], of_stateful_set, later_of_stateful_set),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Completed,
    RolledBack,
    Disabled,
    Deleted,
    DeletedWhileFinalising,
}

use Ending::*;

fn strategy(style: &str) -> Value {
    let steps = json!([{"replicas": "40%"}, {"replicas": "80%"}]);
    match style {
        "canary" => json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": steps}}),
        "partition" => partition(steps),
        _ => json!({"blueGreen": {"steps": steps}}),
    }
}

async fn delete(stage: &Stage) {
    stage.api("rollouts.kruise.io", "v1beta1", "Rollout").delete("r", &Default::default()).await.unwrap();
}

async fn end(stage: &Stage, ending: Ending) {
    match ending {
        RolledBack => stage.release("base").await,
        Disabled => stage.patch_rollout(json!({"spec": {"disabled": true}})).await,
        Deleted => delete(stage).await,
        Completed | DeletedWhileFinalising => {
            stage.approve().await;
            stage.paused_at(2).await;
            stage.approve().await;
            if ending == DeletedWhileFinalising {
                stage.until("finalising", |s| !s.sub()["finalisingStep"].as_str().unwrap_or_default().is_empty()).await;
                delete(stage).await;
            }
        }
    }
    stage
        .until("the end", |s| {
            let (rollout, sub) = (s.rollout(), s.sub());
            let phase = rollout["status"]["phase"].as_str().unwrap_or_default();
            match ending {
                Completed | RolledBack => phase == "Healthy" && sub["currentStepState"] == "Completed",
                Disabled => phase == "Disabled",
                Deleted | DeletedWhileFinalising => rollout.is_null(),
            }
        })
        .await;
    // Whatever is taken off later.
    tokio::time::sleep(Duration::from_secs(120)).await;
}

/// Labels and annotations of ours, but for what stays on a workload as long as its Rollout does.
fn ours(object: &Value, kept: &[&str]) -> Vec<String> {
    let maps = ["labels", "annotations"].map(|map| object["metadata"][map].as_object().cloned().unwrap_or_default());
    let keys = maps.into_iter().flatten().map(|(key, _)| key);
    keys.filter(|key| key.contains("rollouts.kruise.io") && !kept.contains(&key.as_str())).collect()
}

/// What is not as it has to be.
async fn audited(case: &Case, ending: Ending, is_changed: bool) -> Vec<String> {
    let stage = Stage::of(case.row, 5, &(case.own)(), &strategy(case.style)).await;
    let mut wanted = stage.workload()["spec"].clone();
    stage.release("canary").await;
    stage.paused_at(1).await;
    if is_changed {
        stage.patch_workload(json!({"spec": (case.later)()})).await;
        json_patch::merge(&mut wanted, &(case.later)());
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    end(&stage, ending).await;
    let workload = stage.workload();
    wanted["template"] = workload["spec"]["template"].clone();
    let mut wrong = Vec::new();
    if workload["spec"] != wanted {
        wrong.push(format!("spec {}\ninstead of {wanted}", workload["spec"]));
    }
    let is_let_go = matches!(ending, Disabled | Deleted | DeletedWhileFinalising);
    let kept: &[&str] = match (is_let_go, case.row.behaves_as) {
        (true, None) => &[],
        (true, Some(_)) | (false, None) => &[WORKLOAD_TYPE],
        (false, Some(_)) => &[WORKLOAD_TYPE, MANAGED],
    };
    wrong.extend(ours(&workload, kept));
    wrong.extend(pods(&stage.view).iter().flat_map(|pod| ours(pod, &[])));
    for set in stage.view.list(&gvr("apps", "replicasets"), Some(NAMESPACE)) {
        let seconds = &set["spec"]["minReadySeconds"];
        if !seconds.is_null() && *seconds != wanted["minReadySeconds"] {
            wrong.push(format!("minReadySeconds {seconds} on a ReplicaSet"));
        }
    }
    let told = format!("{} {} {}, changed: {is_changed}", case.style, case.row.api_version, case.row.kind);
    wrong.into_iter().map(|what| format!("{told}: {what}")).collect()
}

fn audit(ending: Ending) {
    let mut wrong = Vec::new();
    let all = std::env::var("MOMENTS").is_ok_and(|wish| wish == "all");
    for (i, case) in CASES.iter().enumerate() {
        let is_turn = |is_changed: &bool| all || *is_changed == (i + ending as usize).is_multiple_of(2);
        for is_changed in [false, true].into_iter().filter(is_turn) {
            play(async { wrong.extend(audited(case, ending, is_changed).await) });
        }
    }
    assert!(wrong.is_empty(), "{ending:?}:\n{}", wrong.join("\n"));
}

#[test]
fn d_42_settings_come_back_after_the_last_step() {
    audit(Completed);
}

#[test]
fn d_42_settings_come_back_after_a_rollback() {
    audit(RolledBack);
}

#[test]
fn d_42_settings_come_back_when_the_rollout_is_disabled() {
    audit(Disabled);
}

#[test]
fn d_42_settings_come_back_when_the_rollout_is_deleted() {
    audit(Deleted);
}

#[test]
fn d_42_settings_come_back_when_the_rollout_is_deleted_while_finalising() {
    audit(DeletedWhileFinalising);
}
