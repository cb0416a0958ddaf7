//! What a person, an autoscaler or a tool can do in the middle of a release: every moment, in every style, at every state
//! in which a release is stored.
//!
//! `cargo test --test styles moments` plays each moment in one or two styles at one state, the next one at another;
//! `MOMENTS=all` plays all of them, `MOMENTS='partition DaemonSet'` those of a kind, and
//! `MOMENTS='blueGreen Deployment ServiceAgain 2/StepPaused/'` one.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube::{
    ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tidegate::{
    cli::demo::world::CONTROLLER,
    sim::{Gvr, NEVER_READY},
};
use tokio::sync::Notify;

use crate::{
    deeds::{DEEDS, Deed, Deed::*, End},
    kinds::{
        ADVANCED_DAEMON_SET, ADVANCED_STATEFUL_SET, CLONE_SET, DAEMON_SET, GAME_SERVER_SET, NEWER_ADVANCED_DAEMON_SET,
        OLDER_CLONE_SET, STATEFUL_SET,
    },
    stage::{DEPLOYMENT, NAME, NAMESPACE, Row, Stage, gvr, is_ready, play, pods, version},
    stories::{partition, with_traffic},
};

pub const STYLES: [&str; 3] = ["canary", "partition", "blueGreen"];

/// A kind of workload in a style.
#[derive(Clone, Copy)]
struct Way {
    style: &'static str,
    row: &'static Row,
    /// What its spec has besides, so that of three pods `least` are ready at every moment.
    spec: fn() -> Value,
    least: usize,
    /// One in so many deeds is played without being asked for: what a moment does to the state machine shows with
    /// Deployments, and what it does to a partition with the kinds next to them.
    turn: usize,
}

const fn way(style: &'static str, row: &'static Row, spec: fn() -> Value, least: usize, turn: usize) -> Way {
    Way { style, row, spec, least, turn }
}

fn a_surging_deployment() -> Value {
    json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}})
}

fn a_surging_clone_set() -> Value {
    json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}})
}

fn an_older_surging_clone_set() -> Value {
    json!({"updateStrategy": {"maxSurge": 1, "maxUnavailable": 0}})
}

fn as_it_is() -> Value {
    json!({})
}

fn two_at_a_time() -> Value {
    json!({"podManagementPolicy": "Parallel", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2, "podUpdatePolicy": "InPlaceIfPossible", "unorderedUpdate": {}}}})
}

fn with_a_new_pod_first() -> Value {
    json!({"updateStrategy": {"rollingUpdate": {"rollingUpdateType": "Surging", "maxSurge": 1, "maxUnavailable": 0}}})
}

const WAYS: [Way; 14] = [
    way("canary", &DEPLOYMENT, a_surging_deployment, 3, 2),
    way("partition", &DEPLOYMENT, a_surging_deployment, 3, 2),
    way("blueGreen", &DEPLOYMENT, a_surging_deployment, 3, 2),
    way("blueGreen", &CLONE_SET, a_surging_clone_set, 3, 4),
    way("partition", &CLONE_SET, a_surging_clone_set, 3, 4),
    way("partition", &STATEFUL_SET, as_it_is, 2, 4),
    way("partition", &DAEMON_SET, as_it_is, 2, 10),
    way("partition", &ADVANCED_STATEFUL_SET, as_it_is, 2, 10),
    way("partition", &ADVANCED_STATEFUL_SET, two_at_a_time, 1, 10),
    way("partition", &NEWER_ADVANCED_DAEMON_SET, as_it_is, 2, 10),
    way("partition", &ADVANCED_DAEMON_SET, with_a_new_pod_first, 3, 10),
    way("partition", &OLDER_CLONE_SET, as_it_is, 2, 10),
    way("blueGreen", &OLDER_CLONE_SET, an_older_surging_clone_set, 3, 10),
    way("partition", &GAME_SERVER_SET, as_it_is, 2, 10),
];

impl Way {
    /// A CloneSet makes no more new pods beside its old ones: that needs a person.
    fn gets_stuck(self, deed: Deed) -> bool {
        self.style == "blueGreen" && self.row.kind == "CloneSet" && matches!(deed, Scale(_) | Autoscale)
    }

    /// An Advanced DaemonSet's controller counts those that are missing among the nodes that its partition lets it update: of
    /// two releases that overlap, the second does not see what the first still misses (docs/workloads/advanced-daemonset.md).
    fn may_lack_pods(self, deed: Deed, at: &str) -> bool {
        let overlaps =
            at.ends_with("/ReleaseWorkloadControl") && matches!(deed, Third | ThirdAndAllTheWayBack | TouchTemplate);
        self.row.kind == "DaemonSet" && self.row.definition.is_some() && overlaps
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (group, version) = self.row.api_version.split_once('/').unwrap_or_default();
        let advanced = if group == "apps.kruise.io" && self.row.kind != "CloneSet" { "Advanced" } else { "" };
        let (older, spec) = (if version == "v1alpha1" { version } else { "" }, (self.spec)());
        let two = if spec["podManagementPolicy"].is_null() { "" } else { "Parallel" };
        // `blueGreen Advanced StatefulSet Parallel`
        let words = [self.style, advanced, self.row.kind, older, two];
        f.write_str(&words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }
}

fn steps(style: &str) -> Value {
    match style {
        "blueGreen" => json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "100%"}]),
        _ => json!([{"replicas": 1, "traffic": "20%"}, {"replicas": "60%", "traffic": "50%"}]),
    }
}

fn key(style: &str) -> &'static str {
    if style == "blueGreen" { "blueGreen" } else { "canary" }
}

pub fn strategy(style: &str) -> Value {
    let strategy = match style {
        "canary" => json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": steps(style)}}),
        "partition" => partition(steps(style)),
        _ => json!({"blueGreen": {"steps": steps(style)}}),
    };
    with_traffic(strategy, key(style))
}

/// Where a release stands, as it is stored.
fn state(rollout: &Value) -> Option<String> {
    let status = &rollout["status"];
    if status["phase"] != "Progressing" {
        return None;
    }
    let sub = ["canaryStatus", "blueGreenStatus"].into_iter().find_map(|k| status.get(k))?;
    let text = |field: &str| sub[field].as_str().unwrap_or_default();
    let finalising = text("finalisingStep").trim_start_matches("FinalisingStep");
    let state = format!("{}/{}/{finalising}", sub["currentStepIndex"], text("currentStepState"));
    // Before the pause is noted, the step has only just come into place.
    (text("currentStepState") != "StepPaused"
        || !finalising.is_empty()
        || sub["pausedStepIndex"] == sub["currentStepIndex"])
        .then_some(state)
}

/// The version of a pod, also of one whose template was touched.
fn name_of(pod: &Value) -> String {
    let annotations = &pod["metadata"]["annotations"];
    let touched = if annotations["touched"].is_null() { "" } else { " touched" };
    let unready = if annotations[NEVER_READY].is_null() { "" } else { " unready" };
    format!("{}{touched}{unready}", version(&pod["spec"]))
}

/// What is seen of a release while it goes on.
#[derive(Default)]
struct Log {
    states: Vec<String>,
    /// Steps that waited for a person.
    asked: Vec<i64>,
    /// Pods of a version that may run; those that are not named may all run.
    allowed: BTreeMap<String, usize>,
    /// Too many pods of a version.
    wrong: Option<String>,
    /// Writes of the controller, but for events.
    writes: usize,
}

struct Play {
    stage: Stage,
    log: Arc<Mutex<Log>>,
    bell: Arc<Notify>,
    style: &'static str,
    way: Way,
    deployment: Value,
    route: Value,
    service: Value,
    /// The version that the template has, and approvals for it.
    released: &'static str,
    approvals: usize,
    /// All steps of the second version were approved: it is stable, or about to be.
    is_second_free: bool,
    /// Whether its template was touched.
    touched: &'static str,
    /// After a rollback that was asked for, this version is wanted again.
    then: Option<&'static str>,
    opens: bool,
}

fn plain(object: &Value) -> Value {
    let mut labels = object["metadata"]["labels"].clone();
    if let Some(map) = labels.as_object_mut() {
        map.remove("rollouts.kruise.io/workload-type");
    }
    let mut annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    // The server counts templates in these.
    for counter in ["deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"] {
        annotations.remove(counter);
    }
    let mut spec = object["spec"].clone();
    for field in ["replicas", "template"] {
        spec.as_object_mut().map(|s| s.remove(field));
    }
    spec.as_object_mut()
        .unwrap()
        .retain(|key, value| !(value.is_null() || key == "minReadySeconds" && value == &json!(0)));
    json!({"labels": labels, "annotations": annotations, "spec": spec})
}

impl Play {
    async fn new(way: Way) -> Play {
        let style = way.style;
        let stage = Stage::of(way.row, 3, &(way.spec)(), &strategy(style)).await;
        let (log, bell) = (Arc::<Mutex<Log>>::default(), Arc::<Notify>::default());
        stage.cluster.on_write(Box::new({
            let (log, bell, view) = (log.clone(), bell.clone(), stage.view.clone());
            move |write| {
                let mut log = log.lock().unwrap();
                log.writes += usize::from(&*write.identity == CONTROLLER && write.gvr.resource != "events");
                if write.gvr.resource == "rollouts"
                    && let Some(state) = write.after.as_ref().and_then(|r| state(r))
                {
                    if state.contains("/StepPaused/") && state.ends_with('/') {
                        log.asked.extend(state.split('/').next().and_then(|n| n.parse::<i64>().ok()));
                    }
                    if !log.states.contains(&state) {
                        log.states.push(state);
                    }
                    bell.notify_one();
                }
                if write.gvr.resource == "pods" && write.before.is_none() && log.wrong.is_none() {
                    let new = name_of(write.after.as_ref().unwrap());
                    let pods = pods(&view);
                    let going = |p: &Value| p["metadata"].get("deletionTimestamp").is_some();
                    let n = pods.iter().filter(|p| !going(p) && name_of(p) == new).count();
                    if log.allowed.get(&new).is_some_and(|most| n > *most) {
                        log.wrong = Some(format!("{n} pods of {new} run; {:?} may", log.allowed));
                    }
                }
            }
        }));
        let get = |group: &str, plural: &str, name: &str| {
            stage.view.get(&gvr(group, plural), NAMESPACE, name).map_or(Value::Null, |o| (*o).clone())
        };
        let (deployment, route, service) = (
            stage.deployment(),
            get("networking.istio.io", "virtualservices", "nginx-vs"),
            get("", "services", "nginx-service"),
        );
        let mut play = Play {
            stage,
            log,
            bell,
            style,
            way,
            deployment,
            route,
            service,
            released: "base",
            approvals: 0,
            is_second_free: false,
            touched: "",
            then: None,
            opens: false,
        };
        play.push("canary").await;
        play
    }

    fn object(&self, group: &str, plural: &str, name: &str) -> Value {
        self.stage.view.get(&gvr(group, plural), NAMESPACE, name).map_or(Value::Null, |o| (*o).clone())
    }

    async fn push(&mut self, version: &'static str) {
        (self.released, self.approvals) = (version, 0);
        self.allow();
        self.stage.release(version).await;
    }

    /// Pods that the step which was asked for allows.
    fn allow(&mut self) {
        let replicas = self.stage.wanted();
        let is_free = self.is_second_free && self.released == "canary" && self.touched.is_empty();
        // A daemon that was deleted for a version in between comes back as what the template says then.
        let running = pods(&self.stage.view).iter().filter(|p| version(&p["spec"]) == self.released).count();
        let comes_back = usize::from(self.way.row.is_on_nodes && running > 0);
        let most = match (self.style, self.approvals) {
            _ if is_free => None,
            _ if self.opens || self.released == "base" => None,
            ("blueGreen", 0 | 1) => Some(replicas),
            (_, 0) => Some(1 + comes_back),
            (_, 1) => Some((replicas * 60).div_ceil(100)),
            _ => None,
        };
        let mut log = self.log.lock().unwrap();
        // An older version goes; it does not come back.
        match most {
            Some(most) => log.allowed.insert(format!("{}{}", self.released, self.touched), most),
            None => log.allowed.remove(&format!("{}{}", self.released, self.touched)),
        };
    }

    /// The step that waits for a person.
    fn waits(&self) -> Option<i64> {
        let rollout = self.stage.rollout();
        let sub = self.stage.sub();
        let waits = rollout["status"]["phase"] == "Progressing"
            && sub["currentStepState"] == "StepPaused"
            && sub["finalisingStep"] == ""
            && sub["pausedStepIndex"] == sub["currentStepIndex"]
            && rollout["spec"]["strategy"]["paused"] != true
            && rollout["status"]["message"].as_str().is_some_and(|m| m.contains("manually confirm"));
        waits.then(|| sub["currentStepIndex"].as_i64().unwrap())
    }

    async fn approve_what_waits(&mut self) {
        if self.waits().is_some() {
            self.approvals += 1;
            self.allow();
            self.stage.approve().await;
        }
        let refused = self.stage.rollout()["status"]["message"].as_str().is_some_and(|m| m.contains("rollback first"));
        if refused && self.then.is_none() {
            self.then = Some(self.released);
            self.touch(false).await;
            self.push(self.to_roll_back_to()).await;
        }
    }

    /// The version before the one that waits: the second one, when it has gone through its steps.
    fn to_roll_back_to(&self) -> &'static str {
        if self.is_second_free { "canary" } else { "base" }
    }

    /// Goes on until this state is stored, approving what waits before it. `false` when the release ended without it.
    async fn go_to(&mut self, at: &str) -> bool {
        for _ in 0..2000 {
            if self.log.lock().unwrap().states.iter().any(|s| s == at) {
                return true;
            }
            if self.stage.rollout()["status"]["phase"] == "Healthy" && self.approvals > 0 {
                return false;
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), self.bell.notified()).await;
            if !self.log.lock().unwrap().states.iter().any(|s| s == at) {
                self.approve_what_waits().await;
            }
        }
        false
    }

    async fn set_status(&self, patch: Value) {
        let key = if self.style == "blueGreen" { "blueGreenStatus" } else { "canaryStatus" };
        let api = self.stage.api("rollouts.kruise.io", "v1beta1", "Rollout");
        let patch = json!({"status": {key: patch}});
        api.patch_status("r", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn touch(&mut self, is_touched: bool) {
        self.touched = if is_touched { " touched" } else { "" };
        self.allow();
        // An API server stores no empty map.
        let annotations = if is_touched { json!({"touched": "yes"}) } else { Value::Null };
        self.stage.patch_deployment(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})).await;
    }

    async fn set_steps(&self, steps: Value) {
        // The number of steps may change only through v1alpha1.
        let api = self.stage.api("rollouts.kruise.io", "v1alpha1", "Rollout");
        let patch = json!({"spec": {"strategy": {key(self.style): {"steps": steps}}}});
        api.patch("r", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn scale(&self, replicas: i64) {
        if self.way.row.is_on_nodes {
            self.stage.set_nodes(replicas as usize).await;
        } else {
            self.stage.patch_deployment(json!({"spec": {"replicas": replicas}})).await;
        }
    }

    async fn delete(&self, group: &str, version: &str, kind: &str, plural: &str, name: &str) {
        let api = self.stage.api(group, version, kind);
        api.delete(name, &Default::default()).await.unwrap();
        let gvr = Gvr::new(group, version, plural);
        self.stage.until("gone", |s| s.view.get(&gvr, NAMESPACE, name).is_none()).await;
    }

    fn create(&self, mut object: Value) {
        let metadata = object["metadata"].clone();
        let mut kept = json!({"name": metadata["name"], "namespace": NAMESPACE});
        for field in ["labels", "annotations"] {
            if !metadata[field].is_null() {
                kept[field] = metadata[field].clone();
            }
        }
        object["metadata"] = kept;
        object.as_object_mut().unwrap().remove("status");
        if let Some(spec) = object["spec"].as_object_mut() {
            for field in ["clusterIP", "clusterIPs"] {
                spec.remove(field);
            }
        }
        self.stage.cluster.create(object).unwrap();
    }

    async fn sleep(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    async fn act(&mut self, deed: Deed) {
        self.opens |= deed.opens();
        self.is_second_free = self.approvals > 1;
        if deed.opens() {
            self.log.lock().unwrap().allowed.clear();
        }
        match deed {
            ApproveBlindly => self.set_status(json!({"currentStepState": "StepReady"})).await,
            ApproveTwice => {
                for _ in 0..2 {
                    self.set_status(json!({"currentStepState": "StepReady"})).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            Freeze => {
                self.stage.patch_rollout(json!({"spec": {"strategy": {"paused": true}}})).await;
                self.sleep(5).await;
                let before = self.stage.sub()["currentStepIndex"].clone();
                self.sleep(60).await;
                assert_eq!(before, self.stage.sub()["currentStepIndex"]);
                self.stage.patch_rollout(json!({"spec": {"strategy": {"paused": false}}})).await;
            }
            FreezeAndRollBack => {
                self.stage.patch_rollout(json!({"spec": {"strategy": {"paused": true}}})).await;
                self.push("base").await;
            }
            JumpTo(step) => self.set_status(json!({"nextStepIndex": step})).await,
            EditStep => {
                let mut steps = steps(self.style);
                steps[1]["replicas"] = json!("100%");
                steps[0]["traffic"] = json!("30%");
                self.set_steps(steps).await;
            }
            AddStep => {
                let mut steps = steps(self.style);
                steps.as_array_mut().unwrap().push(json!({"replicas": "100%"}));
                self.set_steps(steps).await;
            }
            RemoveStep => {
                let steps = steps(self.style)[0].clone();
                self.set_steps(json!([steps])).await;
            }
            RollBack => self.push("base").await,
            Third => self.push("third").await,
            ThirdAndAllTheWayBack => {
                for version in ["third", "canary", "base"] {
                    self.push(version).await;
                    self.sleep(4).await;
                }
            }
            TouchTemplate => {
                self.approvals = 0;
                self.touch(true).await;
            }
            TouchWorkload => {
                self.stage.patch_deployment(json!({"metadata": {"annotations": {"team": "web"}}})).await;
                self.deployment["metadata"]["annotations"]["team"] = json!("web");
            }
            Scale(replicas) => self.scale(replicas).await,
            ScaleToZeroAndBack => {
                self.scale(0).await;
                self.sleep(30).await;
                self.scale(3).await;
            }
            Autoscale => {
                for n in 0..16 {
                    self.scale(2 + (n * 5) % 4).await;
                    self.sleep(3).await;
                }
            }
            Disable | DisableAndEnable => {
                self.stage.patch_rollout(json!({"spec": {"disabled": true}})).await;
                if deed == DisableAndEnable {
                    self.sleep(10).await;
                    self.stage.patch_rollout(json!({"spec": {"disabled": false}})).await;
                }
            }
            Delete | DeleteAndCreate => {
                let rollout = self.stage.rollout();
                self.delete("rollouts.kruise.io", "v1beta1", "Rollout", "rollouts", "r").await;
                if deed == DeleteAndCreate {
                    self.create((*rollout).clone());
                }
            }
            WorkloadGone | WorkloadAgain => {
                let Row { api_version, kind, plural, .. } = self.way.row;
                let (group, version) = api_version.split_once('/').unwrap();
                self.delete(group, version, kind, plural, NAME).await;
                if deed == WorkloadAgain {
                    self.released = "base";
                    self.sleep(20).await;
                    self.create(self.deployment.clone());
                }
            }
            ServiceAgain => {
                self.delete("", "v1", "Service", "services", "nginx-service").await;
                self.sleep(20).await;
                self.create(self.service.clone());
            }
            EditService => {
                let patch = json!({"metadata": {"labels": {"team": "web"}}, "spec": {"sessionAffinity": "ClientIP"}});
                let api = self.stage.api("", "v1", "Service");
                api.patch("nginx-service", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                json_patch::merge(&mut self.service, &patch);
            }
            RouteAgain => {
                self.delete("networking.istio.io", "v1beta1", "VirtualService", "virtualservices", "nginx-vs").await;
                self.sleep(20).await;
                self.create(self.route.clone());
            }
            EditRoute => {
                let patch = json!({"metadata": {"labels": {"team": "web"}}, "spec": {"exportTo": ["."]}});
                let api = self.stage.api("networking.istio.io", "v1beta1", "VirtualService");
                api.patch("nginx-vs", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                json_patch::merge(&mut self.route, &patch);
            }
            Put => {
                let (group, version) = self.way.row.api_version.split_once('/').unwrap();
                let api = self.stage.api(group, version, self.way.row.kind);
                let mut object: DynamicObject = api.get(NAME).await.unwrap();
                if self.way.row.definition.is_none() {
                    object.metadata.resource_version = None;
                }
                object.labels_mut().retain(|key, _| !key.contains("kruise"));
                object.annotations_mut().retain(|key, _| !key.contains("kruise"));
                // What its author knows.
                for field in ["strategy", "updateStrategy", "minReadySeconds", "progressDeadlineSeconds"] {
                    object.data["spec"][field] = self.deployment["spec"][field].clone();
                }
                object.data["spec"]["paused"] = json!(false);
                object.data["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
                api.replace(NAME, &PostParams::default(), &object).await.unwrap();
            }
            NeverReadyThenFixed => {
                if self.style == "blueGreen" {
                    self.push("base").await;
                    self.stage.ends().await;
                }
                let broken = json!({"metadata": {"annotations": {NEVER_READY: "yes"}}});
                self.stage.patch_deployment(json!({"spec": {"template": broken}})).await;
                self.sleep(40).await;
                if self.style == "blueGreen" {
                    let fixed = json!({"metadata": {"annotations": null}});
                    self.stage.patch_deployment(json!({"spec": {"template": fixed}})).await;
                    self.stage.ends().await;
                } else {
                    let fixed = json!({"metadata": {"annotations": null}});
                    self.stage.patch_deployment(json!({"spec": {"template": fixed}})).await;
                }
                self.push("third").await;
            }
        }
    }

    fn is_over(&self, deed: Deed) -> Result<(), String> {
        let rollout = self.stage.rollout();
        let phase = rollout["status"]["phase"].as_str().unwrap_or_default();
        let sub = self.stage.sub();
        let reached = match deed.end() {
            End::Healthy => phase == "Healthy" && sub["currentStepState"] == "Completed",
            End::Disabled => phase == "Disabled",
            End::Gone => rollout.is_null(),
            End::Waiting => phase == "Initial",
        };
        if !reached || self.then.is_some() {
            return Err(format!("it is {phase}: {}", rollout["status"]["message"]));
        }
        if deed.end() == End::Waiting {
            return Ok(());
        }
        let replicas = self.stage.wanted();
        let pods = pods(&self.stage.view);
        let wanted = deed.wanted();
        match pods.iter().find(|p| !is_ready(p) || version(&p["spec"]) != wanted) {
            Some(pod) => Err(format!("pod {} is of {}", pod["metadata"]["name"], version(&pod["spec"]))),
            None if pods.len() != replicas => Err(format!("{} pods instead of {replicas}", pods.len())),
            None => Ok(()),
        }
    }

    async fn follow(&mut self, deed: Deed) -> Result<(), String> {
        for _ in 0..1500 {
            if self.is_over(deed).is_ok() {
                break;
            }
            self.approve_what_waits().await;
            if let Some(then) = self.then
                && self.stage.rollout()["status"]["phase"] == "Healthy"
                && self.stage.sub()["currentStepState"] == "Completed"
                && self.released == self.to_roll_back_to()
                && self.stage.deployment()["metadata"]["annotations"].get("rollouts.kruise.io/in-progressing").is_none()
            {
                self.then = None;
                if deed == TouchTemplate {
                    self.touch(true).await;
                }
                if deed.wanted() == then {
                    self.push(then).await;
                }
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), self.bell.notified()).await;
        }
        self.is_over(deed)
    }

    /// Everything is as it was, and only the template is new.
    fn judge(&self, deed: Deed, at: &str) -> Result<(), String> {
        let same = |what: &str, now: Value, before: Value| {
            if now == before { Ok(()) } else { Err(format!("{what} is {now}\ninstead of {before}")) }
        };
        let log = self.log.lock().unwrap();
        if let Some(wrong) = &log.wrong {
            return Err(wrong.clone());
        }
        let route = self.object("networking.istio.io", "virtualservices", "nginx-vs");
        same("the route", plain(&route), plain(&self.route))?;
        let service = self.object("", "services", "nginx-service");
        same("the selector", service["spec"]["selector"].clone(), self.service["spec"]["selector"].clone())?;
        for (group, plural, name) in
            [("apps", "deployments", "nginx-deployment-canary"), ("", "services", "nginx-service-canary")]
        {
            if !self.object(group, plural, name).is_null() {
                return Err(format!("{name} is left"));
            }
        }
        if deed.end() != End::Waiting {
            same("the workload", plain(&self.stage.deployment()), plain(&self.deployment))?;
            let sets = self.stage.view.list(&gvr("apps", "replicasets"), Some(NAMESPACE));
            if let Some(set) = sets.iter().find(|s| s["spec"]["minReadySeconds"].as_i64().unwrap_or(0) != 0) {
                return Err(format!("minReadySeconds is left on {}", set["metadata"]["name"]));
            }
        }
        if deed.end() == End::Healthy
            && self.stage.deployment()["metadata"]["labels"]["rollouts.kruise.io/workload-type"].is_null()
        {
            return Err("the switch of the hold is off".to_owned());
        }
        if !deed.may_lack_pods(self.style) && !self.way.may_lack_pods(deed, at) && self.stage.seen().0 < self.way.least
        {
            return Err(format!("only {} pods were ready at a time", self.stage.seen().0));
        }
        // A person's word is for one step: each step that waits was asked for.
        if deed.end() == End::Healthy && deed.wanted() == "canary" && !deed.opens() && !log.asked.contains(&2) {
            return Err(format!("only steps {:?} waited for a person", log.asked));
        }
        Ok(())
    }
}

/// Plays one release with a deed at a state.
fn release(way: Way, deed: Deed, at: &str) -> Result<(), String> {
    let mut result = Ok(());
    let at = at.to_owned();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        play(async {
            let mut release = Play::new(way).await;
            if !release.go_to(&at).await {
                result = Err("this state was not reached".to_owned());
                return;
            }
            release.act(deed).await;
            result = release.follow(deed).await;
            release.sleep(5).await;
            result = result.clone().and_then(|()| release.judge(deed, &at));
            let writes = release.log.lock().unwrap().writes;
            release.sleep(120).await;
            let more = release.log.lock().unwrap().writes - writes;
            if result.is_ok() && more > 0 {
                result = Err(format!("{more} writes after the end"));
            }
        });
    }));
    match outcome {
        Ok(()) => result,
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .map_or_else(|| "panicked".to_owned(), |t| t.lines().next().unwrap_or_default().to_owned())),
    }
}

/// The states in which a release without any deed is stored, in order.
fn states(way: Way) -> Vec<String> {
    let mut states = Vec::new();
    play(async {
        let mut release = Play::new(way).await;
        release.follow(EditService).await.unwrap();
        states = release.log.lock().unwrap().states.clone();
    });
    states
}

#[test]
fn every_moment_ends_well_in_every_style() {
    let wish = std::env::var("MOMENTS").unwrap_or_default();
    let mut jobs = Vec::new();
    for (s, way) in WAYS.into_iter().enumerate() {
        let states = states(way);
        assert!(states.len() > 6, "{way}: {states:?}");
        for (d, deed) in DEEDS.iter().enumerate() {
            for (i, state) in states.iter().enumerate() {
                let name = format!("{way} {deed:?} {state}");
                let is_turn = (d + s) % way.turn == 0 && (d + s) % states.len() == i;
                if way.gets_stuck(*deed) {
                    continue;
                }
                if if wish.is_empty() { is_turn } else { wish == "all" || name.starts_with(&wish) } {
                    jobs.push((way, *deed, state.clone()));
                }
            }
        }
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((way, deed, state)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(what) = release(*way, *deed, state) {
                        // At once: playing all takes its time.
                        eprintln!("{way} {deed:?} {state}: {what}");
                        wrong.lock().unwrap().push(format!("{way} {deed:?} {state}: {what}"));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {} went wrong:\n{}", wrong.len(), jobs.len(), wrong.join("\n"));
}

/// A defect of the original, in each style, at the state that shows it.
fn in_every_style(deed: Deed, at: &str) {
    for way in WAYS.into_iter().filter(|way| way.turn < 10) {
        assert_eq!(release(way, deed, at), Ok(()), "{way}");
    }
}

#[test]
fn d_11_a_template_that_is_pushed_while_finalising_is_a_release_of_its_own() {
    in_every_style(Third, "2/Completed/ResumeWorkload");
}

#[test]
fn d_12_a_put_that_drops_labels_and_annotations_opens_nothing() {
    in_every_style(Put, "1/StepPaused/");
}

#[test]
fn d_14_an_approval_at_another_moment_is_for_no_other_step() {
    in_every_style(ApproveBlindly, "1/StepUpgrade/");
}

#[test]
fn d_18_d_20_a_workload_that_goes_leaves_no_route_and_no_selector() {
    in_every_style(WorkloadGone, "1/StepPaused/");
}

#[test]
fn d_22_a_rollback_goes_through_while_paused() {
    in_every_style(FreezeAndRollBack, "1/StepPaused/");
}

#[test]
fn d_45_nothing_is_left_on_a_workload_that_is_let_go() {
    in_every_style(Delete, "1/StepPaused/");
}

#[test]
fn d_48_a_step_that_is_not_there_is_put_right() {
    in_every_style(JumpTo(9), "1/StepPaused/");
}
