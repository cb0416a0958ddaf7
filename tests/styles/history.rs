//! What is recorded of releases that have ended.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tidegate::{cli::demo::world::CONTROLLER, sim::Gvr};

use crate::{
    stage::{DEPLOYMENT, NAMESPACE, Stage, play, pods},
    stories::{partition, with_traffic},
};

async fn stage(strategy: &Value, limit: Option<usize>) -> (Stage, Arc<AtomicUsize>) {
    let spec = json!({"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    let stage = Stage::recording(&DEPLOYMENT, 4, &spec, strategy, limit).await;
    let writes = Arc::<AtomicUsize>::default();
    stage.cluster.on_write(Box::new({
        let writes = writes.clone();
        move |write| {
            if &*write.identity == CONTROLLER && write.gvr.resource == "rollouthistories" {
                writes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }));
    (stage, writes)
}

/// The oldest first.
fn records(stage: &Stage) -> Vec<Arc<Value>> {
    let mut records = stage.view.list(&Gvr::new("rollouts.kruise.io", "v1alpha1", "rollouthistories"), Some(NAMESPACE));
    records.sort_by_key(|r| r["status"]["completionTime"].as_str().unwrap_or_default().to_owned());
    records
}

fn told(records: &[Arc<Value>]) -> Vec<String> {
    let text = |r: &Value| format!("{} {}", r["spec"]["rollout"]["rolloutID"], r["status"]["outcome"]).replace('"', "");
    records.iter().map(|r| text(r)).collect()
}

async fn release(stage: &Stage, version: &str, id: &str) {
    stage
        .patch_deployment(json!({"metadata": {"labels": {"rollouts.kruise.io/rollout-id": id}}, "spec": {"template":
            {"spec": {"volumes": [{"name": "nginx-config", "configMap": {"name": format!("nginx-configmap-{version}")}}]}}}}))
        .await;
    stage.paused_at(1).await;
}

async fn through(stage: &Stage) {
    stage.approve().await;
    stage.paused_at(2).await;
    stage.approve().await;
    stage.ends().await;
}

fn halves() -> Value {
    json!([{"replicas": "50%"}, {"replicas": "75%"}])
}

#[test]
fn d_07_a_release_that_routes_nothing_is_recorded() {
    play(async {
        let (stage, writes) = stage(&partition(halves()), Some(10)).await;
        release(&stage, "canary", "r1").await;
        assert!(records(&stage).is_empty(), "nothing has ended");
        through(&stage).await;
        let records = records(&stage);
        assert_eq!(told(&records), ["r1 Succeeded"]);
        let record = &records[0];
        let owner = &record["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["name"]), (&json!("Rollout"), &json!("r")));
        assert_eq!(owner["uid"], stage.rollout()["metadata"]["uid"]);
        let labels = &record["metadata"]["labels"];
        assert_eq!(*labels, json!({"rollouts.kruise.io/rollout-id": "r1", "rollouts.kruise.io/rollout-name": "r"}));
        assert_eq!(record["metadata"]["annotations"]["rollouts.kruise.io/rolling-style"], "partition");
        let spec = &record["spec"];
        assert_eq!((spec.get("service"), spec.get("trafficRouting")), (None, None));
        assert_eq!(spec["rollout"]["data"]["objectRef"]["workloadRef"]["name"], "nginx-deployment");
        assert_eq!(spec["workload"]["data"], stage.workload()["spec"], "as it is after the release");
        let status = &record["status"];
        assert_eq!(status["phase"], "completed");
        assert_eq!(status["canaryRevision"], stage.sub()["canaryRevision"]);
        let steps = status["canarySteps"].as_array().unwrap();
        let counts: Vec<usize> = steps.iter().map(|s| s["pods"].as_array().map_or(0, Vec::len)).collect();
        assert_eq!(counts, [2, 2]);
        let running: Vec<Value> = pods(&stage.view)
            .iter()
            .map(|p| json!({"name": p["metadata"]["name"], "ip": p["status"]["podIP"], "nodeName": p["spec"]["nodeName"]}))
            .collect();
        for pod in steps.iter().flat_map(|s| s["pods"].as_array().unwrap()) {
            assert!(running.contains(pod), "{pod} is none of {running:?}");
        }
        // The object and its status, once.
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        assert_eq!(writes.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn d_34_every_style_is_recorded_owned_and_bounded() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "100%"}]);
        let strategy = with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen");
        let (stage, _) = stage(&strategy, Some(2)).await;
        let route =
            || stage.view.get(&Gvr::new("networking.istio.io", "v1beta1", "virtualservices"), NAMESPACE, "nginx-vs");
        let before = route().unwrap()["spec"].clone();
        // The original's: nobody's, and not ours to remove.
        let foreign = json!({"apiVersion": "rollouts.kruise.io/v1alpha1", "kind": "RolloutHistory",
            "metadata": {"name": "r-a1b2c3", "namespace": NAMESPACE}, "spec": {}});
        stage.cluster.create(foreign).unwrap();
        release(&stage, "canary", "r1").await;
        through(&stage).await;
        release(&stage, "next", "r2").await;
        stage.release("canary").await;
        stage.ends().await;
        assert_eq!(told(&records(&stage)), ["null null", "r1 Succeeded", "r2 Cancelled"]);
        let record = records(&stage)[1].clone();
        assert_eq!(record["spec"]["service"]["name"], "nginx-service");
        let network = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": "nginx-vs", "data": before});
        assert_eq!(record["spec"]["trafficRouting"], json!({"networkRefs": [network]}));
        assert_eq!(record["spec"]["rollout"]["data"]["strategy"]["blueGreen"]["steps"].as_array().unwrap().len(), 2);
        release(&stage, "last", "r3").await;
        through(&stage).await;
        assert_eq!(told(&records(&stage)), ["null null", "r2 Cancelled", "r3 Succeeded"]);
        let names: std::collections::BTreeSet<String> =
            records(&stage).iter().map(|r| r["metadata"]["name"].to_string()).collect();
        assert_eq!(names.len(), 3);
        // They go with their Rollout.
        stage.api("rollouts.kruise.io", "v1beta1", "Rollout").delete("r", &Default::default()).await.unwrap();
        stage.until("records gone", |s| told(&records(s)) == ["null null"]).await;
    });
}

#[test]
fn a_release_that_is_disabled_is_recorded_as_cancelled() {
    play(async {
        let strategy = json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": halves()}});
        let (stage, _) = stage(&with_traffic(strategy, "canary"), Some(10)).await;
        release(&stage, "canary", "r1").await;
        stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
        stage.until("disabled", |s| s.rollout()["status"]["phase"] == "Disabled").await;
        assert_eq!(told(&records(&stage)), ["r1 Cancelled"]);
    });
}

#[test]
fn nothing_is_recorded_unless_it_is_wanted() {
    play(async {
        let (stage, writes) = stage(&partition(halves()), None).await;
        release(&stage, "canary", "r1").await;
        through(&stage).await;
        assert_eq!((records(&stage).len(), writes.load(Ordering::Relaxed)), (0, 0));
    });
}
