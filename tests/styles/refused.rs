//! Writes that fail, and writes that are not made.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::CONTROLLER,
    rollout::{Effect, decide},
    sim::{Fault, Rule, Verb},
    telemetry::Metrics,
};

use crate::{
    stage::{DEPLOYMENT, NAME, NAMESPACE, Stage, play},
    stories::partition,
};

fn stalled(stage: &Stage) -> Option<(String, String)> {
    let rollout = stage.rollout();
    let condition = rollout["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Stalled")?.clone();
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    Some((text("reason"), text("message")))
}

fn rollout() -> Value {
    json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "r", "namespace": NAMESPACE},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "strategy": partition(json!([{"replicas": 1}, {"replicas": "100%"}]))}})
}

/// A mistake of ours is caught before it reaches the cluster, counted, and told to whoever looks at the Rollout.
#[test]
fn a_write_that_breaks_a_rule_is_not_made_is_counted_and_told() {
    play(async {
        let metrics = Metrics::new();
        let counted = metrics.clone();
        let adjust = Arc::new(move |options: &mut tidegate::controller::Options| {
            options.metrics = metrics.clone();
            options.decide = Arc::new(|snapshot| {
                let mut plan = decide(snapshot);
                for effect in &mut plan.effects {
                    if let Effect::Patch { target, operations, .. } = effect
                        && target.kind == "Deployment"
                        && operations.iter().any(|o| o["path"] == "/spec/strategy")
                    {
                        operations.push(json!({"op": "replace", "path": "/spec/replicas", "value": 1}));
                    }
                }
                plan
            });
        });
        let stage = Stage::with(&DEPLOYMENT, 4, &json!({}), rollout(), adjust).await;
        stage.release("canary").await;
        stage.until("told", |s| stalled(s).is_some_and(|(reason, _)| reason == "WriteGuarded")).await;
        let (_, message) = stalled(&stage).unwrap();
        assert!(message.contains("/spec/replicas") && message.contains(NAME), "{message}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((stage.versions().as_str(), &stage.deployment()["spec"]["replicas"]), ("4 base", &json!(4)));
        let text = counted.encode();
        let count =
            text.lines().find(|line| line.starts_with("tidegate_guarded_writes_total{") && line.contains("Deployment"));
        assert!(count.is_some_and(|line| !line.ends_with(" 0")), "{count:?}");
    });
}

/// A connection that is lost for a moment is nobody's business; one that stays away is told, and when it is back the release
/// goes on.
#[test]
fn a_lost_connection_is_told_when_the_fourth_try_fails() {
    for (failures, is_told) in [(3, false), (6, true)] {
        play(async move {
            let stage = Stage::with(&DEPLOYMENT, 4, &json!({}), rollout(), Arc::new(|_| {})).await;
            let told = Arc::new(AtomicUsize::new(0));
            stage.cluster.on_write(Box::new({
                let told = told.clone();
                move |write| {
                    let text = write.after.as_ref().map(|o| o["status"]["conditions"].to_string()).unwrap_or_default();
                    if write.gvr.resource == "rollouts" && text.contains("ApiUnavailable") {
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
            let rule =
                Rule::new(CONTROLLER, Fault::InternalError).on(&[Verb::Patch]).resource("deployments").times(failures);
            stage.cluster.add_fault(rule);
            let began = tokio::time::Instant::now();
            stage.release("canary").await;
            stage.paused_at(1).await;
            assert_eq!(told.load(Ordering::Relaxed) > 0, is_told, "after {failures} failures");
            assert!(is_told || began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            assert_eq!(stalled(&stage), None);
        });
    }
}
