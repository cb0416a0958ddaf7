//! What a release costs in work that grows with the size of its routes: a figure that no machine and no neighbour
//! changes. The times are in `benches/decide.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod world;

use std::{fs, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::{
    lua::{Engine, Limits},
    rollout::decide,
    traffic::memory::{Memory, Work},
    yaml,
};
use world::{World, policy};

const STEPS: usize = 20;
const NETWORKS: u64 = 2;

struct Run {
    world: World,
    engine: Engine,
    now: Timestamp,
}

impl Run {
    /// The story of examples/istio with 20 steps, of which one may wait for approval.
    fn new(waits: Option<usize>) -> Run {
        let mut world = World::default();
        policy().into_iter().for_each(|o| world.create(o));
        for file in ["deployment", "service", "virtualservice", "destinationrule", "rollout"] {
            let path = format!("{}/examples/istio/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
            let objects = yaml::from_str_multi(&fs::read_to_string(path).unwrap()).unwrap();
            objects.into_iter().for_each(|o| world.create(o));
        }
        world.edit("VirtualService", "nginx-vs", |v| {
            let other = |i| json!({"name": format!("r{i}"), "route": [{"destination": {"host": format!("s{i}")}}]});
            v["spec"]["http"].as_array_mut().unwrap().splice(0..0, (0..30).map(other));
        });
        world.edit("Rollout", "rollouts-demo", |r| {
            let pause = |i| if waits == Some(i) { json!({}) } else { json!({"duration": 0}) };
            let step = |i| json!({"weight": i * 5, "replicas": "100%", "pause": pause(i)});
            r["spec"]["strategy"]["canary"]["steps"] = (1..=STEPS).map(step).collect();
        });
        let limits = Limits { wall: Duration::from_secs(60), ..Limits::default() };
        let engine = Engine::with_limits(1, limits);
        let mut run = Run { world, engine, now: "2026-11-22T06:00:00Z".parse().unwrap() };
        run.until(|world| phase(world) == "Healthy");
        run
    }

    fn pass(&mut self) -> usize {
        self.world.settle();
        self.now += Duration::from_secs(1);
        self.world.reconcile(self.now, &self.engine).unwrap().effects.len()
    }

    fn until(&mut self, done: impl Fn(&World) -> bool) {
        for _ in 0..1000 {
            if self.pass() == 0 && done(&self.world) {
                return;
            }
        }
        panic!("{:?}", self.world.rollout().unwrap().status);
    }

    fn begin(&mut self) {
        self.world.edit("Deployment", "nginx-deployment", |d| {
            d["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!("nginx-configmap-canary");
        });
    }

    /// A release that waits at step 5.
    fn waiting() -> Run {
        let mut run = Run::new(Some(5));
        run.begin();
        run.until(|world| {
            let sub = world.rollout().unwrap().status.unwrap().canary_status.unwrap();
            sub.current_step_index == 5 && sub.current_step_state == "StepPaused"
        });
        run
    }

    /// What a piece of work cost.
    fn cost(&mut self, work: impl FnOnce(&mut Run)) -> Work {
        let memory = Memory::of(&self.engine);
        let before = memory.work();
        work(self);
        let after = memory.work();
        Work {
            read: after.read - before.read,
            asked: after.asked - before.asked,
            compared: after.compared - before.compared,
        }
    }
}

fn phase(world: &World) -> String {
    world.rollout().unwrap().status.unwrap_or_default().phase
}

#[test]
fn a_script_is_asked_once_for_every_step_and_object_of_a_release() {
    let mut run = Run::new(None);
    let cost = run.cost(|run| {
        run.begin();
        run.pass();
        run.until(|world| phase(world) == "Healthy");
    });
    assert_eq!(cost.asked, STEPS as u64 * NETWORKS, "{cost:?}");
    // Each state of an object is read once: the first, and what each write of ours left; a few times while the routes
    // are put back.
    assert!(cost.read <= STEPS as u64 + 6 * NETWORKS, "{cost:?}");
}

#[test]
fn a_decision_about_the_same_objects_costs_nothing() {
    let mut run = Run::waiting();
    let snapshot = run.world.snapshot(run.now, &run.engine).unwrap();
    decide(&snapshot);
    assert_eq!(run.cost(|_| drop(decide(&snapshot))), Work::default());
}

#[test]
fn an_object_that_changed_beside_its_routes_asks_no_script() {
    let mut run = Run::waiting();
    let touch = |object: &mut Value| object["status"] = json!({"observedGeneration": 1});
    run.world.edit("VirtualService", "nginx-vs", touch);
    let cost = run.cost(|run| drop(run.world.decide(run.now, &run.engine)));
    assert_eq!((cost.asked, cost.read), (0, 1), "{cost:?}");

    run.world.edit("VirtualService", "nginx-vs", |v| v["spec"]["hosts"] = json!(["other.example.com"]));
    let cost = run.cost(|run| drop(run.world.decide(run.now, &run.engine)));
    assert!(cost.asked > 0, "other routes give another result: {cost:?}");
}
