//! Nodes come, go, are cordoned and drained during the release of a DaemonSet.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{DAEMON_SET, assert_restored, steps};
use crate::stage::{Stage, play, pods, version};

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
        let base = base.iter().find(|pod| version(&pod["spec"]) == "base").unwrap();
        let node = base["spec"]["nodeName"].as_str().unwrap();
        let nodes: Api<Node> = Api::all(stage.cluster.client("user"));
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

/// A release on ten nodes, with one of them changed when the first step waits: where its pod was, and of which versions it
/// is then at each step and in the end.
async fn with_a_node(spec: Value) -> (Stage, [String; 3]) {
    let stage = Stage::of(&DAEMON_SET, 10, &json!({}), &steps()).await;
    stage.release("canary").await;
    stage.paused_at(1).await;
    // The youngest of the old ones would be the next to go.
    let old = pods(&stage.view).into_iter().filter(|pod| version(&pod["spec"]) == "base");
    let youngest = old.max_by_key(|pod| {
        let name = pod["metadata"]["name"].clone();
        (pod["metadata"]["creationTimestamp"].to_string(), std::cmp::Reverse(name.to_string()))
    });
    let node = youngest.unwrap()["spec"]["nodeName"].as_str().unwrap().to_owned();
    let nodes: Api<Node> = Api::all(stage.cluster.client("user"));
    nodes.patch(&node, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    let there = |stage: &Stage| {
        let its: Vec<String> = pods(&stage.view)
            .iter()
            .filter(|pod| pod["spec"]["nodeName"] == node && pod["metadata"].get("deletionTimestamp").is_none())
            .map(|pod| version(&pod["spec"]).to_owned())
            .collect();
        its.join(" ")
    };
    let first = there(&stage);
    stage.approve().await;
    stage.paused_at(2).await;
    let second = there(&stage);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(there(&stage), second);
    stage.approve().await;
    stage.ends().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let last = there(&stage);
    assert!(stage.seen().0 >= 9, "never fewer pods than promised: {:?}", stage.seen());
    (stage, [first, second, last])
}

#[test]
fn a_pod_on_a_node_that_is_only_cordoned_is_replaced_like_any_other() {
    play(async {
        let (stage, there) = with_a_node(json!({"unschedulable": true})).await;
        assert_eq!(there, ["base", "canary", "canary"], "daemons bear it, so another comes");
        assert_eq!(stage.versions(), "10 canary");
    });
}

#[test]
fn a_pod_on_a_node_that_takes_no_other_is_left_alone() {
    play(async {
        let taint = json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]});
        let (stage, there) = with_a_node(taint).await;
        // In the end the DaemonSet's own controller rolls what is left, as it does without a Rollout: nothing comes back.
        assert_eq!(there, ["base", "base", ""]);
        assert_eq!(stage.versions(), "9 canary");
    });
}
