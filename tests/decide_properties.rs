//! The invariants of `src/lib.rs` on generated histories: a controller that crashes and loses its status, people who
//! approve, roll back, push, jump, edit and delete, and a cluster that follows one small move at a time.
//!
//! A failure prints the shortest history that shows it; its seed is kept beside this file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod world;

use std::{collections::BTreeSet, fmt::Write as _, sync::OnceLock, time::Duration};

use jiff::{SignedDuration, Timestamp};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::{Value, json};
use tidegate::{
    api::{
        conditions, object,
        v1beta1::{CanaryStatus, Rollout},
    },
    apply::{Reach, guard},
    gather::collect,
    lua::{Engine, Limits},
    rollout::{
        Effect, Plan, Snapshot, decide,
        plan::Purpose,
        release::{self, Pause},
    },
    traffic::{memory::Memory, routes::RouteWrite},
    yaml,
};
use world::{World, key, mark, policy, settings};

const APP: &str = "nginx-deployment";
const CANARY: &str = "nginx-deployment-canary";

#[derive(Clone, Debug)]
struct Setup {
    canary_service: bool,
    grace: Option<i64>,
    replicas: i64,
    plan: usize,
    policy: bool,
    /// The controller stores its status once for all writes of a pass, not once for each.
    rounds: bool,
    /// A newer template is there from the beginning.
    begins: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Tick(u8),
    Pass,
    /// Writes as many as this, then dies before the status is stored.
    Crash(u8),
    LoseStatus,
    Rest,
    Advance(u16),
    Approve,
    /// `StepReady` whatever the state.
    ApproveBlindly,
    Rollback,
    Newer(u8),
    Disable(bool),
    Delete,
    Scale(u8),
    EditVs(u8),
    Freeze(bool),
    Jump(i8),
    EditPlan(usize),
    Flap,
    DeleteCanary,
    /// A tool writes its whole manifest: no marks, not paused.
    Put,
}

fn plan(index: usize) -> Value {
    match index {
        0 => {
            json!([{"weight": 20}, {"replicas": 1, "matches": [{"headers": [{"type": "Exact", "name": "version", "value": "canary"}]}]}])
        }
        1 => json!([{"weight": 20}, {"replicas": "40%"}, {"weight": 100}]),
        2 => {
            json!([{"weight": 50, "pause": {"duration": 60}}, {"weight": 80, "pause": {"duration": 0}}, {"replicas": "100%", "weight": 0}])
        }
        _ => json!([{"replicas": 1}, {"weight": 30}]),
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    let grace = prop_oneof![Just(None), Just(Some(0)), Just(Some(10))];
    let often = || prop::bool::weighted(0.8);
    (any::<bool>(), grace, 1i64..6, 0usize..4, often(), any::<bool>(), often()).prop_map(
        |(canary_service, grace, replicas, plan, policy, rounds, begins)| Setup {
            canary_service,
            grace,
            replicas,
            plan,
            policy,
            rounds,
            begins,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1u8..4).prop_map(Op::Tick),
        8 => Just(Op::Pass),
        4 => (0u8..3).prop_map(Op::Crash),
        2 => Just(Op::LoseStatus),
        6 => Just(Op::Rest),
        3 => (1u16..90).prop_map(Op::Advance),
        6 => Just(Op::Approve),
        1 => Just(Op::ApproveBlindly),
        1 => Just(Op::Rollback),
        3 => (1u8..4).prop_map(Op::Newer),
        1 => any::<bool>().prop_map(Op::Disable),
        1 => Just(Op::Delete),
        1 => (0u8..7).prop_map(Op::Scale),
        2 => (0u8..5).prop_map(Op::EditVs),
        1 => any::<bool>().prop_map(Op::Freeze),
        1 => (-1i8..5).prop_map(Op::Jump),
        1 => (0usize..4).prop_map(Op::EditPlan),
        3 => Just(Op::Flap),
        1 => Just(Op::DeleteCanary),
        1 => Just(Op::Put),
    ]
}

/// How a history is brought to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    Approvals,
    Rollback,
    Disable,
    Delete,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Approvals), Just(End::Rollback), Just(End::Disable), Just(End::Delete)]
}

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::with_limits(4, Limits { wall: Duration::from_secs(60), ..Limits::default() }))
}

/// An engine whose caller remembers nothing.
fn forgetful() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::with_limits(4, engine().limits().clone()));
    Memory::of(engine).forget();
    engine
}

type EditBoth = Box<dyn Fn(&mut Value)>;

struct History {
    world: World,
    now: Timestamp,
    setup: Setup,
    /// What the networkRefs are to be in the end: the originals with what others changed.
    originals: Vec<Value>,
    edits: usize,
    /// When the canary's share was last written as none.
    unrouted: Option<Timestamp>,
    log: String,
}

type Check = Result<(), TestCaseError>;

macro_rules! ensure {
    ($run:expr, $condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(TestCaseError::fail(format!("{}\n{}", format!($($text)*), $run.log)));
        }
    };
}

impl History {
    fn new(setup: Setup) -> History {
        let mut world = World::default();
        if setup.policy {
            policy().into_iter().for_each(|o| world.create(o));
        }
        for file in ["deployment", "service", "virtualservice", "destinationrule", "rollout"] {
            let path = format!("{}/examples/istio/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            yaml::from_str_multi(&text).unwrap().into_iter().for_each(|o| world.create(o));
        }
        world.edit("Deployment", APP, |d| d["spec"]["replicas"] = json!(setup.replicas));
        world.edit("Rollout", "rollouts-demo", |r| {
            let canary = &mut r["spec"]["strategy"]["canary"];
            canary["steps"] = plan(setup.plan);
            let routing = &mut canary["trafficRoutings"][0];
            routing["createCanaryService"] = json!(setup.canary_service);
            routing["gracePeriodSeconds"] = json!(setup.grace);
            if setup.canary_service {
                routing["networkRefs"].as_array_mut().unwrap().pop();
            }
        });
        if setup.canary_service {
            world.edit("VirtualService", "nginx-vs", |v| {
                v["spec"]["http"][0]["route"][0]["destination"].as_object_mut().unwrap().remove("subset");
            });
        }
        world.settle();
        let originals =
            ["VirtualService", "DestinationRule"].iter().map(|k| routes_of(world.of_kind(k).next().unwrap())).collect();
        let now = "2026-11-22T06:00:00Z".parse().unwrap();
        History { world, now, setup, originals, edits: 0, unrouted: None, log: String::new() }
    }

    fn sub(&self) -> Option<CanaryStatus> {
        self.world.rollout()?.status?.canary_status
    }

    fn deployment(&self) -> &Value {
        self.world.get("apps", "Deployment", APP).unwrap()
    }

    fn play(&mut self, op: &Op) -> Check {
        writeln!(self.log, "{} {op:?}", self.now).unwrap();
        match op {
            Op::Tick(n) => (0..*n).for_each(|_| {
                self.world.tick();
            }),
            Op::Pass => {
                self.pass(None, false)?;
            }
            Op::Crash(n) => {
                self.pass(Some(usize::from(*n)), true)?;
            }
            Op::LoseStatus => {
                self.pass(None, true)?;
            }
            Op::Rest => self.rest()?,
            Op::Advance(seconds) => self.now += SignedDuration::from_secs(i64::from(*seconds)),
            Op::Approve => {
                if self.sub().is_some_and(|s| s.current_step_state == "StepPaused") {
                    self.set_sub(json!({"currentStepState": "StepReady"}));
                }
            }
            Op::ApproveBlindly => self.set_sub(json!({"currentStepState": "StepReady"})),
            Op::Rollback => self.roll_back(),
            Op::Newer(version) => self.push(*version),
            Op::Disable(value) => self.edit_rollout(|r| r["spec"]["disabled"] = json!(value)),
            Op::Delete => {
                let at = self.world.of_kind("Rollout").next().map(|r| key(r));
                if let Some(at) = at {
                    self.world.request_deletion(&at, self.now);
                }
            }
            Op::Scale(n) => {
                self.world.edit("Deployment", APP, |d| d["spec"]["replicas"] = json!(n));
            }
            Op::EditVs(kind) => self.edit_virtual_service(*kind),
            Op::Freeze(value) => self.edit_rollout(|r| r["spec"]["strategy"]["paused"] = json!(value)),
            Op::Jump(to) => {
                if self.sub().is_some_and(|s| s.finalising_step.is_empty() && s.current_step_state != "Completed") {
                    self.set_sub(json!({"nextStepIndex": to}));
                }
            }
            Op::EditPlan(index) => {
                self.edit_rollout(|r| r["spec"]["strategy"]["canary"]["steps"] = plan(*index));
            }
            Op::Flap => self.world.flap(),
            Op::DeleteCanary => {
                if let Some(canary) = self.world.get("apps", "Deployment", CANARY) {
                    let at = key(canary);
                    self.world.request_deletion(&at, self.now);
                }
            }
            Op::Put => {
                self.world.edit("Deployment", APP, |d| {
                    d["metadata"].as_object_mut().unwrap().remove("labels");
                    d["metadata"].as_object_mut().unwrap().remove("annotations");
                    d["spec"]["paused"] = json!(false);
                });
            }
        }
        Ok(())
    }

    fn set_sub(&mut self, patch: Value) {
        let Some(rollout) = self.world.of_kind("Rollout").next() else { return };
        let at = key(rollout);
        let mut status = rollout.get("status").cloned().unwrap_or(Value::Null);
        if status.get("canaryStatus").is_some() {
            json_patch::merge(&mut status["canaryStatus"], &patch);
            self.world.set_status(&at, status);
        }
    }

    fn edit_rollout(&mut self, edit: impl FnOnce(&mut Value)) {
        self.world.edit("Rollout", "rollouts-demo", edit);
    }

    fn push(&mut self, version: u8) {
        self.world.edit("Deployment", APP, |d| {
            d["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!(format!("v{version}"));
        });
    }

    fn roll_back(&mut self) {
        let Some(stable) = self.sub().map(|s| s.stable_revision) else { return };
        let sets = self.world.replica_sets(&self.deployment().clone());
        let Some(set) = sets.iter().find(|rs| object::label(rs, "pod-template-hash") == Some(&stable)) else { return };
        let volumes = set["spec"]["template"]["spec"]["volumes"].clone();
        self.world.edit("Deployment", APP, |d| d["spec"]["template"]["spec"]["volumes"] = volumes);
    }

    /// Edits that leave what a step changes alone, made to the live object and to what is expected in the end.
    fn edit_virtual_service(&mut self, kind: u8) {
        self.edits += 1;
        let n = self.edits;
        let original = &mut self.originals[0];
        let stable_rule = |http: &mut Value| {
            for rule in http.as_array_mut().unwrap().iter_mut().rev() {
                let to = &rule["route"][0]["destination"];
                if to["host"] == "nginx-service" && to["subset"] != "canary" {
                    rule["timeout"] = json!(format!("{n}s"));
                    return;
                }
            }
        };
        if kind == 4 {
            stable_rule(&mut original["spec"]["http"]);
        }
        let put_back = original["spec"]["http"].clone();
        let both: Option<EditBoth> = match kind {
            0 => Some(Box::new(move |v| v["spec"]["hosts"].as_array_mut().unwrap().push(json!(format!("h{n}"))))),
            1 => Some(Box::new(move |v| v["metadata"]["annotations"][format!("edit-{n}")] = json!("x"))),
            2 => Some(Box::new(move |v| {
                let rule =
                    json!({"name": format!("other-{n}"), "route": [{"destination": {"host": format!("other-{n}")}}]});
                v["spec"]["http"].as_array_mut().unwrap().push(rule);
            })),
            _ => None,
        };
        if let Some(edit) = &both {
            edit(original);
        }
        self.world.edit("VirtualService", "nginx-vs", |v| match (&both, kind) {
            (Some(edit), _) => edit(v),
            // Somebody puts the routes back by hand.
            (None, 3) => v["spec"]["http"] = put_back,
            (None, _) => stable_rule(&mut v["spec"]["http"]),
        });
    }

    /// One pass of the controller, which may die after some writes or lose its status. With `rounds` it decides again
    /// after every write and stores the status once, at the end.
    fn pass(&mut self, crash_after: Option<usize>, lose_status: bool) -> Result<Option<Plan>, TestCaseError> {
        let Some(read) = self.world.rollout() else { return Ok(None) };
        let mut present = read.clone();
        let mut version = read.metadata.resource_version.clone().unwrap();
        let mut left = crash_after;
        let mut last = None;
        for _ in 0..if self.setup.rounds { 8 } else { 1 } {
            let plan = self.decide(&present)?;
            for effect in &plan.effects {
                if !self.execute(effect, &plan, &mut left)? {
                    return Ok(Some(plan));
                }
            }
            let Some(now) = self.world.rollout() else { return Ok(Some(plan)) };
            // Nobody else writes in between, so a new version is our own finalizer.
            version = now.metadata.resource_version.clone().unwrap_or(version);
            present.metadata = now.metadata;
            present.status = Some(plan.status.clone());
            let is_finished = plan.effects.is_empty();
            last = Some(plan);
            if is_finished {
                break;
            }
        }
        if !lose_status && let Some(status) = &present.status {
            self.world.store_status(&read, &version, status).unwrap();
        }
        Ok(last)
    }

    fn decide(&mut self, present: &Rollout) -> Result<Plan, TestCaseError> {
        let snapshot = collect(&self.world, present.clone(), self.now, engine(), &settings()).unwrap();
        let plan = decide(&snapshot);
        ensure!(self, plan == decide(&snapshot), "one snapshot, two plans");
        let anew = decide(&Snapshot { engine: forgetful().clone(), ..snapshot });
        ensure!(self, plan == anew, "what is remembered changes the plan:\n{plan:#?}\n{anew:#?}");
        let state = plan.status.canary_status.as_ref();
        let state = state.map(|s| (s.current_step_index, &s.current_step_state, &s.finalising_step));
        let purposes: Vec<Purpose> = plan.effects.iter().map(Effect::purpose).collect();
        writeln!(self.log, "    {} {state:?} {purposes:?} {:?}", plan.status.phase, plan.status.message).unwrap();
        self.check_words(present, &plan)?;
        Ok(plan)
    }

    /// `false` when the controller died in between.
    fn execute(&mut self, effect: &Effect, plan: &Plan, left: &mut Option<usize>) -> Result<bool, TestCaseError> {
        let reach = Reach::of(&self.world.rollout().unwrap());
        if let Err(violation) = guard::check(effect, &reach, &self.world) {
            ensure!(self, false, "the guard would not write {effect:?}: {violation}");
        }
        if let Effect::Routes { writes, .. } = effect {
            let dry = |w: &RouteWrite| self.world.dry_run(w);
            if let Some(refused) = writes.iter().find_map(|w| dry(w).err()) {
                ensure!(self, false, "a write for what was just read is refused: {refused:?}");
            }
        }
        for write in World::writes(effect) {
            match left {
                Some(0) => return Ok(false),
                Some(n) => *n -= 1,
                None => {}
            }
            let before = self.world.clone();
            let outcome = self.world.write(&write, self.now);
            ensure!(self, outcome.is_ok(), "{write:?}: {outcome:?}");
            self.check_write(&before, &write, plan)?;
        }
        Ok(true)
    }

    /// Invariants 1, 2, 6 and the grace period, after one write of ours.
    fn check_write(&mut self, before: &World, write: &Effect, plan: &Plan) -> Check {
        // Who scales to 0 wants nobody to answer; where no pod is ready, no route helps.
        let is_empty = self.deployment()["spec"]["replicas"] == json!(0);
        let sets = || self.world.of_kind("ReplicaSet");
        let is_dark = sets().all(|set| set["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0);
        let (holes, was) = (black_holes(&self.world), black_holes(before));
        ensure!(
            self,
            is_empty || is_dark || holes.is_subset(&was),
            "invariant 1: {write:?} leads requests to nobody: {holes:?}"
        );
        for vs in self.world.of_kind("VirtualService") {
            for rule in vs["spec"]["http"].as_array().unwrap() {
                let weights: Vec<i64> =
                    rule["route"].as_array().unwrap().iter().filter_map(|d| d["weight"].as_i64()).collect();
                ensure!(
                    self,
                    weights.is_empty() || weights.iter().sum::<i64>() == 100,
                    "invariant 2: weights {weights:?}"
                );
            }
        }
        if routes_to_canary(before) && !routes_to_canary(&self.world) {
            self.unrouted = Some(self.now);
        } else if routes_to_canary(&self.world) {
            self.unrouted = None;
        }
        if let (Effect::Delete { purpose: Purpose::DeleteCanary, .. }, Some(at)) = (write, self.unrouted) {
            let waited = self.now.duration_since(at).as_secs();
            ensure!(self, waited >= self.setup.grace.unwrap_or(3), "invariant 1: pods go {waited} s after their share");
        }
        let paused = |w: &World| w.get("apps", "Deployment", APP).unwrap()["spec"]["paused"] == json!(true);
        if paused(before) && !paused(&self.world) {
            let rollout = self.world.rollout().unwrap();
            let reason = conditions::find(&plan.status.conditions, "Progressing").map_or("", |c| c.reason.as_str());
            let is_ending = matches!(plan.status.phase.as_str(), "Disabling" | "Terminating") || rollout.spec.disabled;
            let is_done = matches!(reason, "Finalising" | "Cancelling");
            ensure!(self, is_ending || is_done || is_empty, "invariant 6: opened while {} {reason}", plan.status.phase);
        }
        Ok(())
    }

    /// Invariant 8: a step that waits for a person is left by that person's word alone, and the word is not lost.
    fn check_words(&self, rollout: &Rollout, plan: &Plan) -> Check {
        let (Some(before), Some(after)) =
            (rollout.status.as_ref().and_then(|s| s.canary_status.clone()), plan.status.canary_status.clone())
        else {
            return Ok(());
        };
        let Ok(release) = release::release(rollout) else { return Ok(()) };
        let from = before.current_step_index;
        // A workload that was rolled out by other means has no release any more.
        let is_same_release = plan.status.phase == "Progressing"
            && before.canary_revision == after.canary_revision
            && after.finalising_step.is_empty() | (after.current_step_state == "Completed")
            && before.finalising_step.is_empty()
            && before.current_step_state != "Completed";
        let is_jump = before.next_step_index != release.next(from) && before.rollout_hash == release.hash;
        let is_ending = rollout.spec.disabled || rollout.metadata.deletion_timestamp.is_some();
        if !is_same_release || is_jump || is_ending || from > release.count() || from < 1 {
            return Ok(());
        }
        let is_approved = before.current_step_state == "StepReady" && before.paused_step_index == Some(from);
        let to = if after.current_step_state == "Completed" { release.count() + 1 } else { after.current_step_index };
        for index in from..to {
            let step = release.step(index).unwrap();
            let is_free = step.pause != Pause::Approval
                || index == release.count() && serde_json::to_value(&step.replicas).unwrap() == json!("100%");
            ensure!(self, is_free || index == from && is_approved, "invariant 8: step {index} was left without a word");
        }
        let is_told = plan.events.iter().any(|e| e.reason == "ApprovalIgnored");
        let is_lost = is_approved && to == from && after.current_step_state != "StepReady" && !is_told;
        ensure!(self, !is_lost, "invariant 8: the approval of step {from} is lost");
        Ok(())
    }

    /// Controller and cluster work at one moment until nothing moves: invariants 11 and 12.
    fn rest(&mut self) -> Check {
        for _ in 0..300 {
            let before = self.world.objects.clone();
            let plan = self.pass(None, false)?;
            self.world.tick();
            if self.world.objects == before {
                let Some(plan) = plan else { return Ok(()) };
                ensure!(self, plan.effects.is_empty(), "invariant 12: {:?} changes nothing", plan.effects);
                ensure!(self, plan.events.is_empty(), "invariant 12: events without change: {:?}", plan.events);
                let is_done = matches!(plan.status.phase.as_str(), "Healthy" | "Disabled");
                ensure!(self, is_done || !plan.status.message.is_empty(), "invariant 11: a wait without a reason");
                return Ok(());
            }
        }
        ensure!(self, false, "invariant 12: never at rest");
        Ok(())
    }

    /// To the end, whatever happened: invariants 4 and 9.
    fn finish(&mut self, end: End) -> Check {
        writeln!(self.log, "end: {end:?}").unwrap();
        self.edit_rollout(|r| r["spec"]["strategy"]["paused"] = json!(false));
        if self.deployment()["spec"]["replicas"] == json!(0) {
            self.play(&Op::Scale(2))?;
        }
        // Without a release there is nothing to take back, and the old template would be a release like any other.
        let is_releasing = self.world.rollout().and_then(|r| r.status).is_some_and(|s| s.phase == "Progressing");
        let approves = matches!(end, End::Approvals) || matches!(end, End::Rollback) && !is_releasing;
        match end {
            End::Approvals => {}
            // As a person in a hurry: at once, whatever is going on, and without anybody's approval.
            End::Rollback if is_releasing => self.roll_back(),
            End::Rollback => {}
            End::Disable => self.play(&Op::Disable(true))?,
            End::Delete => self.play(&Op::Delete)?,
        }
        for _ in 0..60 {
            self.rest()?;
            let plan = match self.world.rollout() {
                Some(_) => self.world.decide(self.now, engine()).unwrap(),
                None => break,
            };
            let is_waiting =
                plan.status.phase == "Progressing" && self.sub().is_some_and(|s| s.current_step_state == "StepPaused");
            if let Some(time) = plan.requeue {
                ensure!(self, time > self.now, "requeue for a moment that has passed");
                self.now = time;
            } else if is_waiting && approves {
                self.play(&Op::Approve)?;
            } else {
                break;
            }
        }
        self.check_end()
    }

    fn check_end(&mut self) -> Check {
        let status = self.world.rollout().map(|r| r.status.unwrap_or_default());
        let phase = status.as_ref().map_or("gone", |s| s.phase.as_str()).to_owned();
        let message = status.map(|s| s.message).unwrap_or_default();
        ensure!(self, ["gone", "Healthy", "Disabled"].contains(&phase.as_str()), "ends in {phase}: {message}");
        for (kind, original) in ["VirtualService", "DestinationRule"].iter().zip(&self.originals) {
            let live = routes_of(self.world.of_kind(kind).next().unwrap());
            ensure!(self, live == *original, "invariant 4: {kind} is\n{live}\nnot\n{original}");
        }
        let service = self.world.get("", "Service", "nginx-service").unwrap();
        ensure!(self, service["spec"]["selector"] == json!({"app": "nginx"}), "invariant 4: {}", service["spec"]);
        for (group, kind, name) in [("apps", "Deployment", CANARY), ("", "Service", "nginx-service-canary")] {
            ensure!(self, self.world.get(group, kind, name).is_none(), "{kind} {name} is left");
        }
        let d = self.deployment();
        ensure!(self, mark(d).is_none(), "a mark is left: {}", d["metadata"]);
        ensure!(self, d["spec"]["paused"] != json!(true), "the Deployment is left paused");
        let has_label = object::label(d, "rollouts.kruise.io/workload-type").is_some();
        ensure!(self, has_label == (phase == "Healthy"), "the switch of the hold is {has_label} in {phase}");
        let count = |field: &str| d["status"][field].as_i64().unwrap_or(0);
        let wanted = d["spec"]["replicas"].as_i64().unwrap();
        ensure!(
            self,
            count("updatedReplicas") == wanted && count("replicas") == wanted,
            "not rolled out: {}",
            d["status"]
        );
        Ok(())
    }
}

/// What a release may change of a networkRef.
fn routes_of(object: &Value) -> Value {
    let map = |field: &str| object::at(object, &["metadata", field]).cloned().filter(|m| *m != json!({}));
    json!({"spec": object["spec"], "metadata": {"labels": map("labels"), "annotations": map("annotations").unwrap_or(json!({}))}})
}

/// Every destination that gets requests: with its rule, for a message.
fn destinations(world: &World) -> Vec<Value> {
    let rules =
        world.of_kind("VirtualService").flat_map(|vs| vs["spec"]["http"].as_array().cloned().unwrap_or_default());
    let routes = rules.flat_map(|rule| rule["route"].as_array().cloned().unwrap_or_default());
    routes.filter(|d| d["weight"] != json!(0)).map(|d| d["destination"].clone()).collect()
}

fn routes_to_canary(world: &World) -> bool {
    destinations(world).iter().any(|d| d["subset"] == "canary" || d["host"] == "nginx-service-canary")
}

/// Destinations of ours that get requests and have no ready pod.
fn black_holes(world: &World) -> BTreeSet<String> {
    let is_ours = |d: &Value| d["host"].as_str().is_some_and(|h| h.starts_with("nginx-service"));
    destinations(world)
        .into_iter()
        .filter(is_ours)
        .filter(|d| ready_pods(world, d) == 0)
        .map(|d| d.to_string())
        .collect()
}

fn ready_pods(world: &World, destination: &Value) -> i64 {
    let Some(service) = world.get("", "Service", destination["host"].as_str().unwrap()) else { return 0 };
    let mut selector = service["spec"]["selector"].as_object().unwrap().clone();
    if let Some(subset) = destination["subset"].as_str() {
        let rule = world.of_kind("DestinationRule").next().unwrap();
        let Some(found) = rule["spec"]["subsets"].as_array().unwrap().iter().find(|s| s["name"] == subset) else {
            return 0;
        };
        selector.extend(found["labels"].as_object().unwrap().clone());
    }
    let labels = |rs: &Value| rs["spec"]["template"]["metadata"]["labels"].clone();
    let matching = world.of_kind("ReplicaSet").filter(|rs| selector.iter().all(|(k, v)| labels(rs).get(k) == Some(v)));
    matching.map(|rs| rs["status"]["readyReplicas"].as_i64().unwrap_or(0)).sum()
}

/// Few histories in every run; `PROPTEST_CASES=5000 cargo test --test decide_properties` for a long look.
#[allow(clippy::disallowed_methods)]
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { 64 },
        max_shrink_iters: 3000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_history_keeps_the_invariants(setup in setup(), ops in prop::collection::vec(op(), 0..40), end in end()) {
        let mut history = History::new(setup);
        history.play(&Op::Rest)?;
        if history.setup.begins {
            history.play(&Op::Newer(1))?;
        }
        for op in &ops {
            history.play(op)?;
        }
        history.finish(end)?;
    }

    /// A release without interference, with a crash after any write.
    #[test]
    fn a_crash_after_any_write_is_harmless(setup in setup(), crashes in prop::collection::vec(0u8..4, 0..30), end in end()) {
        let mut history = History::new(setup);
        history.play(&Op::Rest)?;
        history.play(&Op::Newer(1))?;
        for n in crashes {
            history.play(&Op::Crash(n))?;
            history.play(&Op::Tick(1))?;
            history.play(&Op::Pass)?;
            history.play(&Op::Approve)?;
            history.play(&Op::Advance(2))?;
        }
        history.finish(end)?;
    }
}
