//! Defects of the original that only a running controller could show.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::{CONTROLLER, options},
    controller,
    sim::READY_AFTER,
};
use tokio_util::sync::CancellationToken;

use crate::{
    stage::{NAME, NAMESPACE, Stage, gvr, is_ready, play, pods, version},
    stories::{partition, with_traffic},
};

const MARK: &str = "rollouts.kruise.io/in-progressing";

fn four() -> Value {
    json!({"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}})
}

fn canary(steps: Value) -> Value {
    json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": steps}})
}

impl Stage {
    fn get(&self, group: &str, plural: &str, name: &str) -> Value {
        self.view.get(&gvr(group, plural), NAMESPACE, name).map_or(Value::Null, |o| (*o).clone())
    }
}

/// Requests are routed by a script of the user's, as no canary Service is made: nothing waits for a Service that is never
/// restricted.
#[test]
fn d_16_blue_green_without_a_canary_service_goes_through_its_steps() {
    play(async {
        let steps = json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "100%"}]);
        let mut strategy = with_traffic(json!({"blueGreen": {"steps": steps}}), "blueGreen");
        strategy["blueGreen"]["disableGenerateCanaryService"] = json!(true);
        strategy["blueGreen"]["trafficRoutings"][0]["networkRefs"] =
            json!([{"apiVersion": "mesh.example.com/v1beta1", "kind": "Split", "name": "web"}]);
        let stage = Stage::new(&four(), &strategy).await;
        let selector = stage.get("", "services", "nginx-service")["spec"]["selector"].clone();
        stage.release("canary").await;
        for (step, weight) in [(1, 0), (2, 100)] {
            stage.paused_at(step).await;
            assert_eq!(stage.get("mesh.example.com", "splits", "web")["spec"], json!({"weight": weight}));
            assert_eq!(stage.get("", "services", "nginx-service")["spec"]["selector"], selector);
            stage.approve().await;
        }
        stage.ends_with("4 canary").await;
        assert_eq!(stage.get("mesh.example.com", "splits", "web")["spec"], json!({}));
    });
}

/// Scaled up while it is wound up, the workload is let go of only when every pod is of the new version and ready, however
/// often somebody makes the controller look.
#[test]
fn d_32_blue_green_is_not_over_before_all_pods_are_ready() {
    play(async {
        let steps = json!([{"replicas": "100%"}]);
        let stage = Stage::new(&four(), &json!({"blueGreen": {"steps": steps}})).await;
        let ready_at_the_end = Arc::new(Mutex::new(None));
        stage.cluster.on_write(Box::new({
            let (view, ready_at_the_end) = (stage.view.clone(), ready_at_the_end.clone());
            move |write| {
                let has_mark = |o: &Option<Arc<Value>>| {
                    o.as_ref().is_some_and(|o| o["metadata"]["annotations"].get(MARK).is_some())
                };
                if write.name == NAME && has_mark(&write.before) && !has_mark(&write.after) {
                    let pods = pods(&view);
                    let new = |p: &&Arc<Value>| is_ready(p) && version(&p["spec"]) == "canary";
                    *ready_at_the_end.lock().unwrap() = Some(pods.iter().filter(new).count());
                }
            }
        }));
        let volumes = json!([{"name": "nginx-config", "configMap": {"name": "nginx-configmap-canary"}}]);
        let template = json!({"metadata": {"annotations": {READY_AFTER: "30s"}}, "spec": {"volumes": volumes}});
        stage.patch_deployment(json!({"spec": {"template": template}})).await;
        stage.paused_at(1).await;
        stage.approve().await;
        // It is let go of, and its own controller has not finished yet.
        for _ in 0..60_000 {
            if stage.sub()["finalisingStep"] == "ResumeWorkload" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(stage.sub()["finalisingStep"], "ResumeWorkload");
        stage.patch_deployment(json!({"spec": {"replicas": 8}})).await;
        for n in 0..20 {
            stage.patch_rollout(json!({"metadata": {"annotations": {"look": n.to_string()}}})).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(stage.rollout()["status"]["phase"], "Progressing");
        }
        stage.ends_with("8 canary").await;
        assert_eq!(*ready_at_the_end.lock().unwrap(), Some(8));
    });
}

/// What selects by the labels of the canary Deployment finds its pods alone; and where the Rollout gives them another value
/// of a label that the workload selects by, what selects as the workload does finds stable pods alone.
#[test]
fn d_38_stable_and_canary_pods_can_be_told_apart_by_selectors() {
    play(async {
        let mut strategy = with_traffic(canary(json!([{"replicas": 2, "traffic": "20%"}])), "canary");
        strategy["canary"]["patchPodTemplateMetadata"] = json!({"labels": {"app": "nginx-next"}});
        let stage = Stage::new(&four(), &strategy).await;
        let names = |pods: &[Arc<Value>]| -> BTreeSet<String> {
            pods.iter().map(|p| p["metadata"]["name"].as_str().unwrap().to_owned()).collect()
        };
        let stable = names(&pods(&stage.view));
        stage.release("canary").await;
        stage.paused_at(1).await;
        let selected = |deployment: &Value| -> BTreeSet<String> {
            let labels = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let mut all = stage.view.list(&gvr("", "pods"), Some(NAMESPACE));
            all.retain(|p| labels.iter().all(|(key, value)| p["metadata"]["labels"].get(key) == Some(value)));
            names(&all)
        };
        // Stable pods are the same as before, and an autoscaler, a budget or `kubectl` that selects them counts no others.
        assert_eq!(selected(&stage.deployment()), stable);
        let canary = selected(&stage.get("apps", "deployments", "nginx-deployment-canary"));
        assert_eq!((canary.len(), canary.is_disjoint(&stable)), (2, true));
        // Requests find them all the same.
        let twin = stage.get("", "services", "nginx-service-canary");
        assert_eq!(twin["spec"]["selector"]["app"], "nginx-next");
        stage.approve().await;
        stage.ends_with("4 canary").await;
    });
}

/// The grace time outlives the process and five minutes.
#[test]
fn d_39_a_grace_time_is_kept_across_a_restart_however_long_it_is() {
    const SECONDS: u64 = 400;
    play(async {
        let mut strategy = with_traffic(canary(json!([{"replicas": 1, "traffic": "20%"}])), "canary");
        strategy["canary"]["trafficRoutings"][0]["gracePeriodSeconds"] = json!(SECONDS);
        let mut stage = Stage::new(&four(), &strategy).await;
        let times = Arc::new(Mutex::new((None::<Timestamp>, None::<Timestamp>)));
        stage.cluster.on_write(Box::new({
            let times = times.clone();
            move |write| {
                let mut times = times.lock().unwrap();
                match (write.gvr.resource.as_str(), write.name.as_str()) {
                    ("virtualservices", _) => times.0 = Some(write.time),
                    ("deployments", "nginx-deployment-canary") if write.verb == tidegate::sim::Verb::Delete => {
                        times.1.get_or_insert(write.time);
                    }
                    _ => {}
                }
            }
        }));
        stage.release("canary").await;
        // A grace time follows each change.
        tokio::time::sleep(Duration::from_secs(3 * SECONDS)).await;
        stage.paused_at(1).await;
        stage.release("base").await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(SECONDS / 4)).await;
            stage.restart();
        }
        stage.ends().await;
        let (routed, deleted) = *times.lock().unwrap();
        let waited = deleted.unwrap().duration_since(routed.unwrap()).as_secs_f64();
        assert!((400.0..415.0).contains(&waited), "{SECONDS} s are promised; the pods went after {waited:.1} s");
    });
}

/// A last step with all pods waits as long as its pause says, in whatever words it asks for them.
#[test]
fn d_70_a_pause_of_the_last_step_is_kept() {
    for strategy in [canary as fn(Value) -> Value, partition] {
        for all in [json!("100%"), json!(4)] {
            play(async move {
                let steps =
                    json!([{"replicas": 1, "pause": {"duration": 1}}, {"replicas": all, "pause": {"duration": 90}}]);
                let stage = Stage::new(&four(), &strategy(steps)).await;
                stage.release("canary").await;
                stage.paused_at(2).await;
                let began = tokio::time::Instant::now();
                stage.until("the last step is left", |s| s.sub()["currentStepState"] != "StepPaused").await;
                let waited = began.elapsed().as_secs();
                assert!((88..95).contains(&waited), "{waited} s");
                stage.ends_with("4 canary").await;
            });
        }
    }
}

/// What somebody changes in the object that routes is there at the next step, and after the release.
#[test]
fn d_71_edits_of_a_route_outlive_steps_and_release() {
    play(async {
        let steps = json!([{"replicas": 1, "traffic": "20%"}, {"replicas": 2, "traffic": "50%"}]);
        let stage = Stage::new(&four(), &with_traffic(canary(steps), "canary")).await;
        let before = stage.get("networking.istio.io", "virtualservices", "nginx-vs");
        stage.release("canary").await;
        stage.paused_at(1).await;
        let edit = json!({"metadata": {"labels": {"team": "web"}, "annotations": {"note": "kept"}}, "spec": {"exportTo": ["."]}});
        let api = stage.api("networking.istio.io", "v1beta1", "VirtualService");
        api.patch("nginx-vs", &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
        let edited = |stage: &Stage| {
            let route = stage.get("networking.istio.io", "virtualservices", "nginx-vs");
            (route["metadata"]["labels"]["team"] == "web"
                && route["metadata"]["annotations"]["note"] == "kept"
                && route["spec"]["exportTo"] == json!(["."]))
            .then_some(route["spec"]["http"].clone())
        };
        stage.approve().await;
        stage.paused_at(2).await;
        assert_eq!(edited(&stage).expect("the edit is lost")[0]["route"][1]["weight"], 50);
        stage.approve().await;
        stage.ends().await;
        assert_eq!(edited(&stage).expect("the edit is lost"), before["spec"]["http"]);
    });
}

/// With several versions about, a newer one is held like any other; and what nobody could hold, because it was pushed
/// before the Rollout had looked at the workload, is told.
#[test]
fn d_73_what_is_not_held_is_told_and_what_can_be_is_held() {
    play(async {
        let slow = json!({"minReadySeconds": 10});
        let mut spec = four();
        json_patch::merge(&mut spec, &slow);
        let stage = Stage::new(&spec, &partition(json!([{"replicas": 1}, {"replicas": 2}]))).await;
        stage.release("canary").await;
        stage.paused_at(1).await;
        // Two versions are about.
        stage.release("third").await;
        stage.until("it is released", |s| s.versions().contains("third")).await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.seen().1["third"], 1);
        // Nobody holds it, and a version rolls.
        stage.release("base").await;
        stage.ends().await;
        let rollout = (*stage.rollout()).clone();
        let api = stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
        api.delete("r", &Default::default()).await.unwrap();
        stage.until("gone", |s| s.rollout().is_null()).await;
        stage.release("canary").await;
        stage.until("it rolls", |s| s.seen().1.get("canary").is_some_and(|n| *n > 1)).await;
        let is_told = Arc::<AtomicBool>::default();
        stage.cluster.on_write(Box::new({
            let is_told = is_told.clone();
            move |write| {
                let event = write.after.as_ref().filter(|_| write.gvr.resource == "events");
                is_told.fetch_or(event.is_some_and(|e| e["reason"] == "LateHold"), Ordering::Relaxed);
            }
        }));
        let mut again = json!({"apiVersion": rollout["apiVersion"], "kind": "Rollout", "spec": rollout["spec"]});
        again["metadata"] = json!({"name": "r", "namespace": NAMESPACE});
        stage.cluster.create(again).unwrap();
        stage.until("told", |_| is_told.load(Ordering::Relaxed)).await;
        stage.ends_with("4 canary").await;
    });
}

/// Two processes that both take themselves for the leader make one canary Deployment, with the pods of one step.
#[test]
fn d_76_two_leaders_make_one_canary() {
    play(async {
        let stage = Stage::new(&four(), &canary(json!([{"replicas": 2}, {"replicas": 3}]))).await;
        let made = Arc::new(Mutex::new(BTreeSet::new()));
        stage.cluster.on_write(Box::new({
            let made = made.clone();
            move |write| {
                let label = "rollouts.kruise.io/canary-deployment";
                if let Some(after) = write.after.as_ref().filter(|_| write.gvr.resource == "deployments")
                    && after["metadata"]["labels"].get(label).is_some()
                {
                    made.lock().unwrap().insert(after["metadata"]["uid"].as_str().unwrap().to_owned());
                }
            }
        }));
        let stop = CancellationToken::new();
        let _twin = stop.clone().drop_guard();
        tokio::spawn(controller::run(stage.cluster.client(CONTROLLER), options(&stage.cluster), stop));
        stage.release("canary").await;
        stage.paused_at(1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.versions(), "4 base + 2 canary");
        assert_eq!(stage.seen().1["canary"], 2);
        stage.approve().await;
        stage.paused_at(2).await;
        stage.approve().await;
        stage.ends_with("4 canary").await;
        assert_eq!(made.lock().unwrap().len(), 1);
    });
}
