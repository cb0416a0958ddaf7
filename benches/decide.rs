//! `decide` on the story of `examples/istio`, as it is and with 20 steps and 500 more routes: single decisions, and all
//! decisions of a whole release with their percentiles.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

#[path = "../tests/world/mod.rs"]
mod world;

use std::{
    fs,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::{
    lua::Engine,
    rollout::{Effect, Snapshot, decide},
    traffic::memory::Memory,
    yaml,
};
use world::{World, policy};

const RUNS: usize = 5;
const NOW: &str = "2026-11-22T06:00:00Z";

/// The story's cluster at rest with this many more routes in front of the story's own and, unless 0, this many steps.
fn at_rest(routes: usize, steps: usize, engine: &Engine) -> World {
    let mut world = World::default();
    policy().into_iter().for_each(|o| world.create(o));
    for file in ["deployment", "service", "virtualservice", "destinationrule", "rollout"] {
        let text = fs::read_to_string(format!("{}/examples/istio/{file}.yaml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        yaml::from_str_multi(&text).unwrap().into_iter().for_each(|o| world.create(o));
    }
    world.edit("VirtualService", "nginx-vs", |v| {
        let http = v["spec"]["http"].as_array_mut().unwrap();
        http.splice(0..0, (0..routes).map(other_route));
    });
    if steps > 0 {
        world.edit("Rollout", "rollouts-demo", |r| {
            let step = |i| json!({"weight": i * 100 / steps, "replicas": "100%", "pause": {"duration": 0}});
            r["spec"]["strategy"]["canary"]["steps"] = (1..=steps).map(step).collect();
        });
    }
    while !pass(&mut world, engine) {}
    world
}

fn change_template(world: &mut World) {
    world.edit("Deployment", "nginx-deployment", |d| {
        d["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!("nginx-configmap-canary");
    });
}

/// Whether nothing was left to write.
fn pass(world: &mut World, engine: &Engine) -> bool {
    world.settle();
    world.reconcile(NOW.parse().unwrap(), engine).unwrap().effects.is_empty()
}

/// The snapshots of the pass that routes step 1, and of the one after it.
fn routing_and_routed(mut world: World, engine: &Engine) -> (Snapshot, Snapshot) {
    let now: Timestamp = NOW.parse().unwrap();
    change_template(&mut world);
    loop {
        world.settle();
        let snapshot = world.snapshot(now, engine).unwrap();
        let plan = world.reconcile(now, engine).unwrap();
        if matches!(plan.effects.as_slice(), [Effect::Routes { .. }]) {
            while matches!(world.reconcile(now, engine).unwrap().effects.as_slice(), [Effect::Routes { .. }]) {}
            world.settle();
            return (snapshot, world.snapshot(now, engine).unwrap());
        }
    }
}

fn other_route(i: usize) -> Value {
    json!({"name": format!("r{i}"), "match": [{"uri": {"prefix": format!("/r{i}/")}}],
        "route": [{"destination": {"host": format!("service-{i}")}}]})
}

fn changed(snapshot: &Snapshot, i: u64) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let object = snapshot.networks.iter_mut().find(|n| n.reference.kind == "VirtualService").unwrap();
    let mut new = (**object.object.as_ref().unwrap()).clone();
    new["metadata"]["resourceVersion"] = json!(format!("{}", 1000 + i));
    new["status"] = json!({"observedGeneration": i});
    object.object = Ok(Arc::new(new));
    snapshot
}

/// Every decision of a whole release: the first about its routes, which asks every script for every step, and the others.
fn release(routes: usize, steps: usize) -> (Duration, Vec<Duration>) {
    let engine = Engine::new(1);
    let mut world = at_rest(routes, steps, &engine);
    change_template(&mut world);
    let mut now: Timestamp = NOW.parse().unwrap();
    let (mut first, mut times) = (Duration::ZERO, Vec::new());
    let memory = Memory::of(&engine);
    for _ in 0..10_000 {
        let snapshot = world.snapshot(now, &engine).unwrap();
        let asked = memory.work().asked;
        let started = Instant::now();
        let plan = black_box(decide(&snapshot));
        match started.elapsed() {
            took if memory.work().asked > asked => first += took,
            took => times.push(took),
        }
        let before = world.clone();
        world.reconcile(now, &engine);
        // Kubernetes' controllers make one small move at a time, and each wakes the controller.
        let moved = world.tick();
        now += Duration::from_secs(1);
        let is_done = world.rollout().unwrap().status.is_some_and(|s| s.phase == "Healthy");
        if plan.effects.is_empty() && !moved && is_done && before.objects == world.objects {
            return (first, times);
        }
    }
    panic!("the release has not ended");
}

fn percentiles(_: &mut Criterion) {
    for (routes, steps) in [(0, 2), (500, 2), (500, 20)] {
        // A release is the same every time, so what a busy machine adds to a decision is taken out.
        let (mut first, mut times) = release(routes, steps);
        for (again, others) in (1..RUNS).map(|_| release(routes, steps)) {
            first = first.min(again);
            times.iter_mut().zip(others).for_each(|(best, took)| *best = took.min(*best));
        }
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        println!(
            "{steps} steps, {routes} more routes, best of {RUNS}: first {:?}, then {} decisions, p50 {:?}, p90 {:?}, p99 {:?}, slowest {:?}",
            first,
            times.len(),
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
}

fn benches(c: &mut Criterion) {
    for (routes, steps) in [(0, 0), (500, 20)] {
        let engine = Engine::new(1);
        let (routing, routed) = routing_and_routed(at_rest(routes, steps, &engine), &engine);
        let mut group = c.benchmark_group(format!("decide/{routes} more routes"));
        group.bench_function("routing, first", |b| {
            let fresh = || Snapshot { engine: Engine::new(1), ..routing.clone() };
            b.iter_batched(fresh, |snapshot| decide(&snapshot), BatchSize::PerIteration);
        });
        group.bench_function("routing, again", |b| b.iter(|| decide(black_box(&routing))));
        group.bench_function("routed, again", |b| b.iter(|| decide(black_box(&routed))));
        let mut version = 0;
        group.bench_function("routed, one object changed", |b| {
            let another = || {
                version += 1;
                changed(&routed, version)
            };
            b.iter_batched(another, |snapshot| decide(&snapshot), BatchSize::PerIteration);
        });
        group.finish();
    }
}

criterion_group!(all, percentiles, benches);
criterion_main!(all);
