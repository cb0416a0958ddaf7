//! An exhaustive small model: two pods, a plan of two steps, and every order in which a pod can become ready, the
//! controller can look, a person can approve, roll back, scale or delete, and a crash or a conflict can come between,
//! up to a depth. Equal states are visited once.
//!
//! `DEPTH=11 cargo test --test decide_model` goes deeper.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod world;

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::{
    api::{keys, object, v1beta1::CanaryStatus},
    gather::collect,
    lua::{Engine, Limits},
    rollout::decide,
    yaml,
};
use world::{World, key, policy, settings};

const APP: &str = "nginx-deployment";
const CANARY: &str = "nginx-deployment-canary";
const NEW: &str = "nginx-configmap-canary";
const OLD: &str = "nginx-configmap-base";
/// Fits into 20 seconds of one core, unoptimised.
const DEPTH: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// One move of the cluster's own controllers: a pod comes, becomes ready, or goes.
    PodReady,
    /// The controller looks, writes, and stores its status.
    Look,
    /// It dies after so many writes of its pass.
    Crash(usize),
    /// Its status is refused: somebody wrote the Rollout meanwhile.
    Conflict,
    Approve,
    Rollback,
    Again,
    Scale(i64),
    Delete,
}

use Action::*;

const ACTIONS: [Action; 11] =
    [PodReady, Look, Crash(1), Crash(2), Conflict, Approve, Rollback, Again, Scale(1), Scale(3), Delete];

#[derive(Clone)]
struct State {
    world: World,
    /// Steps of the present release that a person approved.
    approved: [bool; 2],
    /// The new template may run: its steps were approved, or the Rollout lets go of the workload.
    is_free: bool,
    history: Vec<Action>,
}

fn now() -> Timestamp {
    "2026-11-22T06:00:00Z".parse().unwrap()
}

struct Model {
    engine: Engine,
    passes: u64,
}

impl Model {
    fn start(&mut self) -> State {
        let mut world = World::default();
        policy().into_iter().for_each(|o| world.create(o));
        for file in ["deployment", "service", "virtualservice", "destinationrule", "rollout"] {
            let path = format!("{}/examples/istio/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            yaml::from_str_multi(&text).unwrap().into_iter().for_each(|o| world.create(o));
        }
        world.edit("Deployment", APP, |d| d["spec"]["replicas"] = json!(2));
        // Without waits the clock may stand still.
        world.edit("Rollout", "rollouts-demo", |r| {
            r["spec"]["strategy"]["canary"]["trafficRoutings"][0]["gracePeriodSeconds"] = json!(0);
        });
        world.settle();
        let mut state = State { world, approved: [false; 2], is_free: false, history: Vec::new() };
        for _ in 0..4 {
            self.look(&mut state, None, false);
            state.world.settle();
        }
        assert_eq!(state.world.rollout().unwrap().status.unwrap().phase, "Healthy");
        push(&mut state, NEW);
        state
    }

    /// One pass; dies after `writes` of it, or loses its status.
    fn look(&mut self, state: &mut State, writes: Option<usize>, loses_status: bool) {
        self.passes += 1;
        let Some(read) = state.world.rollout() else { return };
        let mut present = read.clone();
        let mut left = writes;
        for _ in 0..8 {
            let snapshot = collect(&state.world, present.clone(), now(), &self.engine, &settings()).unwrap();
            let plan = decide(&snapshot);
            for write in plan.effects.iter().flat_map(World::writes) {
                if left == Some(0) {
                    return;
                }
                left = left.map(|n| n - 1);
                let outcome = state.world.write(&write, now());
                assert!(outcome.is_ok(), "{write:?}: {outcome:?} after {:?}", state.history);
                judge(state);
            }
            let Some(after) = state.world.rollout() else { return };
            present.metadata = after.metadata;
            let before = present.status.and_then(|s| s.canary_status);
            self.check_words(state, &before, &plan.status.canary_status);
            let revision = |s: &Option<CanaryStatus>| s.as_ref().map(|s| s.canary_revision.clone());
            if revision(&before) != revision(&plan.status.canary_status) {
                state.approved = [false; 2];
            }
            present.status = Some(plan.status);
            if plan.effects.is_empty() {
                break;
            }
        }
        if !loses_status && left != Some(0) {
            let version = present.metadata.resource_version.clone().unwrap();
            state.world.store_status(&present.clone(), &version, &present.status.unwrap()).unwrap();
        }
    }

    /// A step is left only with its approval.
    fn check_words(&self, state: &State, before: &Option<CanaryStatus>, after: &Option<CanaryStatus>) {
        let (Some(before), Some(after)) = (before, after) else { return };
        if before.canary_revision == after.canary_revision && after.current_step_index > before.current_step_index {
            let step = before.current_step_index as usize;
            let is_rolling = after.current_step_state != "Completed";
            assert!(
                !is_rolling || state.approved[step - 1],
                "step {step} is left, which nobody approved, after {:?}",
                state.history
            );
        }
    }

    fn play(&mut self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.history.push(action);
        match action {
            PodReady => {
                if !next.world.tick() {
                    return None;
                }
                judge(&next);
            }
            Look => self.look(&mut next, None, false),
            Crash(writes) => self.look(&mut next, Some(writes), false),
            Conflict => self.look(&mut next, None, true),
            Approve => {
                let sub = next.world.rollout()?.status?.canary_status?;
                if sub.current_step_state != "StepPaused" || !sub.finalising_step.is_empty() {
                    return None;
                }
                next.approved[sub.current_step_index as usize - 1] = true;
                next.is_free |= next.approved[1];
                let at = next.world.of_kind("Rollout").next().map(|r| key(r))?;
                let mut status = next.world.objects[&at]["status"].clone();
                status["canaryStatus"]["currentStepState"] = json!("StepReady");
                next.world.set_status(&at, status);
            }
            Rollback if template(&next) == OLD => return None,
            Rollback => push(&mut next, OLD),
            Again if template(&next) == NEW => return None,
            Again => push(&mut next, NEW),
            Scale(replicas) => {
                if !next.world.edit("Deployment", APP, |d| d["spec"]["replicas"] = json!(replicas)) {
                    return None;
                }
            }
            Delete => {
                let at = next.world.of_kind("Rollout").next().map(|r| key(r))?;
                if object::is_deleting(&next.world.objects[&at]) {
                    return None;
                }
                next.world.request_deletion(&at, now());
                next.is_free = true;
            }
        }
        Some(next)
    }

    /// With nothing more in its way it ends: everything is put back, and nothing more is written.
    fn ends(&mut self, state: &State) {
        let mut state = state.clone();
        for _ in 0..60 {
            state.world.settle();
            self.look(&mut state, None, false);
            if let Some(next) = self.play(&state, Approve) {
                state = next;
                continue;
            }
            let before = state.world.objects.clone();
            state.world.settle();
            self.look(&mut state, None, false);
            if before == state.world.objects {
                let phase = state.world.rollout().map(|r| r.status.unwrap_or_default());
                let is_over = phase.as_ref().is_none_or(|s| s.phase == "Healthy");
                assert!(is_over, "it stands still after {:?}: {phase:?}", state.history);
                assert!(
                    state.world.get("apps", "Deployment", CANARY).is_none(),
                    "a canary is left: {:?}",
                    state.history
                );
                let route = state.world.get("networking.istio.io", "VirtualService", "nginx-vs").unwrap();
                assert!(object::annotation(route, keys::ORIGINAL_SPEC).is_none(), "not restored: {:?}", state.history);
                return;
            }
        }
        panic!("it does not end after {:?}", state.history);
    }
}

fn template(state: &State) -> String {
    let app = state.world.get("apps", "Deployment", APP).unwrap();
    app["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"].as_str().unwrap().to_owned()
}

fn push(state: &mut State, version: &str) {
    state.world.edit("Deployment", APP, |d| {
        d["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!(version);
    });
    let is_managed = state.world.rollout().is_some_and(|r| r.metadata.deletion_timestamp.is_none());
    // What was approved counts until the controller has seen another template.
    state.is_free = !is_managed || state.approved[1];
}

fn judge(state: &State) {
    let app = state.world.get("apps", "Deployment", APP).unwrap();
    let number = |o: &Value, path: &[&str]| object::int(o, path).unwrap_or(0);
    for set in state.world.replica_sets(app) {
        let is_new = set["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == NEW;
        let replicas = number(&set, &["spec", "replicas"]);
        let is_held = app["spec"]["paused"] == true;
        assert!(
            !is_new || replicas == 0 || state.is_free || is_held || template(state) == OLD,
            "{replicas} pods of the workload are new before their steps are approved, after {:?}",
            state.history
        );
    }
    let route = state.world.get("networking.istio.io", "VirtualService", "nginx-vs").unwrap();
    let mut leads_to_canary = false;
    for rule in route["spec"]["http"].as_array().unwrap() {
        let to = rule["route"].as_array().unwrap();
        let sum: i64 = to.iter().map(|t| t["weight"].as_i64().unwrap_or(0)).sum();
        assert!(to.len() < 2 || sum == 100, "weights sum to {sum} after {:?}", state.history);
        leads_to_canary |= to.iter().any(|t| t["destination"]["subset"] == "canary" && t["weight"] != 0);
    }
    if leads_to_canary {
        let rule = state.world.get("networking.istio.io", "DestinationRule", "nginx-dr").unwrap();
        let has_subset = rule["spec"]["subsets"].as_array().unwrap().iter().any(|s| s["name"] == "canary");
        let canary = state.world.get("apps", "Deployment", CANARY);
        let ready: i64 = canary
            .map(|c| state.world.replica_sets(c).iter().map(|rs| number(rs, &["status", "readyReplicas"])).sum())
            .unwrap_or_default();
        assert!(has_subset && ready > 0, "requests go to {ready} pods of the canary after {:?}", state.history);
    }
}

/// What tells states apart: everything but numbers that only ever grow.
fn fingerprint(state: &State) -> u64 {
    fn walk(value: &Value, generation: i64, hasher: &mut DefaultHasher) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match key.as_str() {
                        "resourceVersion" | "uid" | "creationTimestamp" | "generation" => continue,
                        "observedGeneration" | "observedWorkloadGeneration" => {
                            (key, value.as_i64() == Some(generation)).hash(hasher);
                        }
                        _ => {
                            key.hash(hasher);
                            walk(value, generation, hasher);
                        }
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|v| walk(v, generation, hasher)),
            other => other.to_string().hash(hasher),
        }
    }
    let mut hasher = DefaultHasher::new();
    for (key, object) in &state.world.objects {
        key.hash(&mut hasher);
        walk(object, object::int(object, &["metadata", "generation"]).unwrap_or(0), &mut hasher);
    }
    (state.approved, state.is_free).hash(&mut hasher);
    hasher.finish()
}

#[test]
fn every_order_is_sound() {
    let depth = std::env::var("DEPTH").ok().map_or(DEPTH, |d| d.parse().unwrap());
    let limits = Limits { wall: std::time::Duration::from_secs(60), ..Limits::default() };
    let mut model = Model { engine: Engine::with_limits(1, limits), passes: 0 };
    let began = std::time::Instant::now();
    let mut layer = vec![model.start()];
    let mut seen: HashSet<u64> = layer.iter().map(fingerprint).collect();
    let mut moves = 0;
    for deep in 1..=depth {
        let mut next = Vec::new();
        for state in &layer {
            for action in ACTIONS {
                let Some(after) = model.play(state, action) else { continue };
                moves += 1;
                if seen.insert(fingerprint(&after)) {
                    next.push(after);
                }
            }
        }
        println!("depth {deep}: {} new states, {} in all, {moves} moves", next.len(), seen.len());
        layer = next;
        // Not from each: what follows is nearly the same for most.
        for state in layer.iter().step_by(8) {
            model.ends(state);
        }
    }
    println!("{} states, {moves} moves, {} passes in {:.1} s", seen.len(), model.passes, began.elapsed().as_secs_f64());
    assert!(seen.len() > 500, "the model is too small to say anything");
}
