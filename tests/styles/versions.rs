//! Each style from objects of either API version, with and without traffic: the same states, pods and fields.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::{
    stage::{DEPLOYMENT, NAME, NAMESPACE, Stage, play},
    stories::with_traffic,
};

/// The Rollout as people write it in a version, in a style.
fn rollout(version: &str, style: &str, routes: bool) -> Value {
    let key = if style == "blueGreen" { "blueGreen" } else { "canary" };
    let steps = match (style, routes) {
        ("blueGreen", true) => json!([{"replicas": "100%", "weight": 0}, {"replicas": "100%", "weight": 100}]),
        ("blueGreen", false) => json!([{"replicas": "100%"}]),
        (_, true) => json!([{"replicas": "25%", "weight": 20}, {"replicas": 2, "weight": 50}]),
        (_, false) => json!([{"replicas": "25%"}, {"replicas": 2}]),
    };
    let mut strategy = json!({key: {"steps": steps}});
    if routes {
        strategy = with_traffic(strategy, key);
    }
    let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME});
    let mut metadata = json!({"name": "r", "namespace": NAMESPACE});
    let reference = match version {
        // An annotation says the style, and without one it is canary.
        "v1alpha1" => {
            if style == "partition" {
                metadata["annotations"] = json!({"rollouts.kruise.io/rolling-style": "partition"});
            }
            json!({"objectRef": {"workloadRef": workload}})
        }
        // A field says it, and without it it is partition.
        _ => {
            if style == "canary" {
                strategy["canary"]["enableExtraWorkloadForCanary"] = json!(true);
            }
            for step in strategy[key]["steps"].as_array_mut().unwrap() {
                if let Some(weight) = step.as_object_mut().unwrap().remove("weight") {
                    step["traffic"] = json!(format!("{weight}%"));
                }
            }
            json!({"workloadRef": workload})
        }
    };
    let mut spec = json!({"strategy": strategy});
    json_patch::merge(&mut spec, &reference);
    json!({"apiVersion": format!("rollouts.kruise.io/{version}"), "kind": "Rollout", "metadata": metadata, "spec": spec})
}

/// What a release goes through.
async fn told(version: &str, style: &str, routes: bool) -> Vec<String> {
    let four = json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    let rollout = rollout(version, style, routes);
    let stage = Stage::with(&DEPLOYMENT, 4, &four, rollout, Arc::new(|_| {})).await;
    let before = stage.deployment()["spec"]["strategy"].clone();
    let states = Arc::<Mutex<Vec<String>>>::default();
    stage.cluster.on_write(Box::new({
        let states = states.clone();
        move |write| {
            let Some(after) = write.after.as_ref().filter(|_| write.gvr.resource == "rollouts") else { return };
            let status = &after["status"];
            let state = format!("{} {} {}", status["phase"], status["currentStepIndex"], status["currentStepState"]);
            let mut states = states.lock().unwrap();
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
    }));
    stage.release("canary").await;
    for step in 1..=if style == "blueGreen" && !routes { 1 } else { 2 } {
        stage.paused_at(step).await;
        let routes = if routes { stage.route().to_string() } else { String::new() };
        states.lock().unwrap().push(format!("{} {routes}", stage.told()));
        stage.approve().await;
    }
    stage.ends_with("4 canary").await;
    assert_eq!(stage.deployment()["spec"]["strategy"], before);
    states.lock().unwrap().clone()
}

#[test]
fn a_release_goes_the_same_way_from_an_object_of_either_version() {
    for style in ["canary", "partition", "blueGreen"] {
        for routes in [false, true] {
            play(async move {
                let (beta, alpha) = (told("v1beta1", style, routes).await, told("v1alpha1", style, routes).await);
                assert_eq!(beta, alpha, "{style}, routes: {routes}");
            });
        }
    }
}
