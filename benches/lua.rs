//! One call of the VirtualService script: a small object, and one of 500 routes.
#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use tidegate::lua::{Engine, Library, Limits, Script};

fn input(routes: usize) -> Value {
    let route = |i: usize| {
        json!({
            "name": format!("route-{i}"),
            "match": [{"uri": {"prefix": format!("/api/v1/{i}")}, "headers": {"user": {"exact": format!("user-{i}")}}}],
            "route": [{"destination": {"host": "other-service", "port": {"number": 8080}}, "weight": 100}],
            "retries": {"attempts": 3, "perTryTimeout": "2s"}, "timeout": "10s",
        })
    };
    let mut http: Vec<Value> = (1..routes).map(route).collect();
    http.push(json!({"route": [{"destination": {"host": "nginx-service"}}]}));
    json!({
        "data": {"spec": {"hosts": ["*"], "gateways": ["nginx-gateway"], "http": http}},
        "canaryWeight": 20, "stableWeight": 80, "canaryService": "nginx-service-canary", "stableService": "nginx-service",
    })
}

fn engine(results: usize) -> Engine {
    Engine::with_limits(1, Limits { results, ..Limits::default() })
}

/// Times calls with a VM ready, as in a controller, whose calls are far apart.
fn warm(engine: &Engine, script: &Script, obj: &Value, calls: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..calls {
        std::thread::sleep(Duration::from_millis(1));
        let start = Instant::now();
        let outcome = engine.run(script, obj);
        total += start.elapsed();
        outcome.unwrap();
    }
    total
}

fn bench(c: &mut Criterion) {
    let script = Library::builtin("networking.istio.io", "VirtualService").unwrap();
    for (name, routes) in [("small", 1), ("500 routes", 500)] {
        let obj = input(routes);
        let fresh = engine(0);
        let outcome = fresh.run(&script, &obj).unwrap();
        println!("{name}: {} bytes, {} steps", serde_json::to_string(&obj).unwrap().len(), outcome.fuel_used);
        c.bench_function(&format!("VirtualService, {name}, VM ready"), |b| {
            b.iter_custom(|calls| warm(&fresh, &script, &obj, calls));
        });
        c.bench_function(&format!("VirtualService, {name}, one after the other"), |b| {
            b.iter(|| fresh.run(&script, &obj).unwrap());
        });
        let remembering = engine(256);
        c.bench_function(&format!("VirtualService, {name}, result known"), |b| {
            b.iter(|| remembering.run(&script, &obj).unwrap());
        });
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
