//! What a person, an autoscaler or a tool can do in the middle of a release: every moment, in every style, at every state
//! in which a release is stored.
//!
//! `cargo test --test styles moments` plays each moment in one or two styles at one state, the next one at another;
//! `MOMENTS=all` plays all of them, `MOMENTS='partition DaemonSet'` those of a kind, and
//! `MOMENTS='blueGreen Deployment ServiceAgain 2/StepPaused/'` one.

mod acting;
mod judging;
mod ways;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tidegate::{
    api::{
        keys::{MANAGED, WORKLOAD_TYPE},
        v1beta1::Rollout,
    },
    cli::demo::world::CONTROLLER,
    sim::NEVER_READY,
};
use tokio::sync::Notify;

pub use self::ways::{STYLES, strategy};
use self::ways::{WAYS, Way, key, steps};
use crate::{
    deeds::{DEEDS, Deed, Deed::*},
    stage::{NAMESPACE, Stage, gvr, play, pods, version},
};

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
    /// The Rollout as somebody read it when a step first waited.
    old_read: Option<Rollout>,
    /// After a rollback that was asked for, this version is wanted again.
    then: Option<&'static str>,
    opens: bool,
}

fn plain(object: &Value) -> Value {
    let mut labels = object["metadata"]["labels"].clone();
    if let Some(map) = labels.as_object_mut() {
        map.retain(|label, _| ![WORKLOAD_TYPE, MANAGED].contains(&label.as_str()));
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
            old_read: None,
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
            self.read_once();
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

    fn read_once(&mut self) {
        let rollout = serde_json::from_value((*self.stage.rollout()).clone()).unwrap();
        self.old_read.get_or_insert(rollout);
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
