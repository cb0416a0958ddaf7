//! `decide` on the story of `examples/istio`, as it is and with 500 routes.

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

use std::{fs, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::{
    lua::Engine,
    rollout::{Effect, Snapshot, decide},
    yaml,
};
use world::{World, policy};

/// The story's cluster with this many more routes in front of the story's own, at the pass that routes step 1, and
/// while step 1 waits for approval.
fn story(routes: usize, engine: &Engine) -> (Snapshot, Snapshot) {
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
    let now: Timestamp = "2026-11-22T06:00:00Z".parse().unwrap();
    let pass = |world: &mut World| {
        world.settle();
        world.reconcile(now, engine).unwrap()
    };
    while !pass(&mut world).effects.is_empty() {}
    world.edit("Deployment", "nginx-deployment", |d| {
        d["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!("nginx-configmap-canary");
    });
    loop {
        world.settle();
        let snapshot = world.snapshot(now, engine).unwrap();
        let plan = world.reconcile(now, engine).unwrap();
        if matches!(plan.effects.as_slice(), [Effect::Routes { .. }]) {
            while !pass(&mut world).effects.is_empty() {}
            return (snapshot, world.snapshot(now, engine).unwrap());
        }
    }
}

fn other_route(i: usize) -> Value {
    json!({"name": format!("r{i}"), "match": [{"uri": {"prefix": format!("/r{i}/")}}],
        "route": [{"destination": {"host": format!("service-{i}")}}]})
}

fn benches(c: &mut Criterion) {
    let engine = Engine::new(1);
    for routes in [0, 500] {
        let (routing, waiting) = story(routes, &engine);
        let mut group = c.benchmark_group(format!("decide/{routes} more routes"));
        group.bench_function("routing", |b| b.iter(|| decide(black_box(&routing))));
        group.bench_function("waiting", |b| b.iter(|| decide(black_box(&waiting))));
        group.finish();
    }
}

criterion_group!(all, benches);
criterion_main!(all);
