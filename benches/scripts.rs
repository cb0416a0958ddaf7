//! What one call of each built-in script takes, at one rule and at 500: `make script-times`. Without results known from
//! before, and with a VM ready, as in a controller, whose calls are far apart.
//!
//! `RUNS` sets how often each is called. The fastest and the middle one are told; the fastest is held to what is promised,
//! because the others also tell what else the machine does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods,
    // The rows come with tests of their own.
    dead_code,
    unused_imports
)]

#[path = "../tests/script_properties/gateway_api.rs"]
mod gateway_api;
#[path = "../tests/script_properties/istio.rs"]
mod istio;
#[path = "../tests/script_properties/mesh.rs"]
mod mesh;
#[path = "../tests/script_properties/references.rs"]
mod references;
#[path = "../tests/script_properties/row.rs"]
mod row;
#[path = "../tests/script_properties/upstreams.rs"]
mod upstreams;

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use row::{Row, names, weight_step};
use serde_json::{Value, json};
use tidegate::{
    lua::{Engine, Library, Limits, Origin, Script},
    traffic::{Original, acceptance, ingress, script_input},
};

/// What a call may take, at one rule and at so many.
const MOST: [(usize, Duration); 2] = [(1, Duration::from_micros(150)), (500, Duration::from_millis(8))];

const ROWS: [&Row; 18] = [
    &gateway_api::HTTP_ROUTE,
    &gateway_api::GRPC_ROUTE,
    &gateway_api::TCP_ROUTE,
    &gateway_api::TLS_ROUTE,
    &gateway_api::UDP_ROUTE,
    &istio::VIRTUAL_SERVICE,
    &references::TRAEFIK_SERVICE,
    &references::INGRESS_ROUTE,
    &references::APISIX_ROUTE,
    &references::HTTP_PROXY,
    &mesh::MESH_HTTP_ROUTE,
    &mesh::LINKERD_HTTP_ROUTE,
    &mesh::TRAFFIC_SPLIT,
    &mesh::SERVICE_SPLITTER,
    &upstreams::VIRTUAL_SERVER,
    &upstreams::ROUTE_GROUP,
    &upstreams::ROUTE_TABLE,
    &upstreams::UPSTREAM_GROUP,
];

/// An object as the controller gives it to a script.
fn original(api_version: &str, kind: &str, spec: Value) -> Original {
    let metadata =
        json!({"name": "route", "namespace": "shop", "labels": {"team": "web"}, "annotations": {"note": "kept"}});
    Original::from_object(&json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}))
        .unwrap()
}

fn ingress_of(paths: usize) -> Original {
    let path = |i: usize| {
        let service = if i == paths / 2 { "app".to_owned() } else { format!("other-{i}") };
        json!({"path": format!("/api/{i}"), "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": {"number": 80}}}})
    };
    let paths: Vec<Value> = (0..paths).map(path).collect();
    original(
        ingress::API_VERSION,
        ingress::KIND,
        json!({"rules": [{"host": "shop.example.com", "http": {"paths": paths}}]}),
    )
}

/// Every script with its input of so many rules.
fn calls(rules: usize) -> Vec<(Script, Value)> {
    let (names, share) = (names(false), weight_step(20));
    let mut calls = Vec::new();
    for row in ROWS {
        let original = original(&format!("{}/{}", row.group, row.version), row.kind, (row.big)(rules));
        let script = Library::builtin(row.group, row.kind).unwrap();
        calls.push((script, script_input(&original, &names, None, &share)));
    }
    let subset = |i: usize| json!({"name": format!("v{i}"), "labels": {"version": i.to_string()}});
    let subsets: Vec<Value> = (0..rules).map(subset).collect();
    let rule = original("networking.istio.io/v1", "DestinationRule", json!({"host": "app", "subsets": subsets}));
    let script = Library::builtin("networking.istio.io", "DestinationRule").unwrap();
    calls.push((script, script_input(&rule, &names, None, &share)));
    for script in Library::list() {
        let Some(class) = script.name.strip_prefix("ingress/").and_then(|name| name.strip_suffix(".lua")) else {
            continue;
        };
        let mut stable = ingress_of(rules);
        let only_matches = ingress::only_matches(&script);
        let step = if only_matches { row::match_step(&["x-user"]) } else { share.clone() };
        if class == "haproxy-pods" {
            // One Service, whose pods it tells apart by label.
            stable.annotations.insert("haproxy-ingress.github.io/blue-green-balance".into(), "track=stable=1".into());
            let names = row::names(true);
            calls.push((script, script_input(&stable, &names, row::patch_of(&names).as_ref(), &step)));
            continue;
        }
        let input = match ingress::is_in_place(&script) {
            true => script_input(&stable, &names, None, &step),
            false => ingress::script_input(&stable, &names, None, &step, Some(class)),
        };
        calls.push((script, input));
    }
    for script in Library::list_accepted() {
        let condition =
            |i: usize| json!({"type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": i});
        let parent = |i: usize| json!({"parentRef": {"name": format!("gate-{i}")}, "conditions": [condition(i)]});
        let parents: Vec<Value> = (0..rules.min(32)).map(parent).collect();
        let refs: Vec<&Value> = parents.iter().map(|parent| &parent["parentRef"]).collect();
        let object = json!({"metadata": {"name": "route", "namespace": "shop", "generation": 1},
            "spec": {"parentRefs": refs}, "status": {"parents": parents, "conditions": [condition(1)]}});
        calls.push((script, acceptance::script_input(&object)));
    }
    calls
}

/// The fastest and the middle one of some calls.
fn times(engine: &Engine, (script, input): &(Script, Value), runs: usize) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let started = Instant::now();
            let outcome = engine.run(script, input);
            let took = started.elapsed();
            outcome.unwrap_or_else(|e| panic!("{}: {e}", script.name));
            took
        })
        .collect();
    times.sort();
    (times[0], times[runs / 2])
}

/// Resident memory of this process in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Edits of a script of a ConfigMap, as the controller takes them up: the text is compiled, and run.
fn edits() {
    let engine = Engine::new(1);
    let vs = &istio::VIRTUAL_SERVICE;
    let script = Library::builtin(vs.group, vs.kind).unwrap();
    let object = original("networking.istio.io/v1", vs.kind, (vs.big)(1));
    let input = script_input(&object, &names(false), None, &weight_step(20));
    let edit = |i: usize| {
        let origin = Origin::ConfigMap { namespace: "n".into(), name: "scripts".into(), key: "k".into() };
        let text = format!("{}\n-- edit {i}: {}", script.source, "x".repeat(64 << 10));
        engine.run(&Script::new("k", text, origin), &input).unwrap();
    };
    let mut seen = Vec::new();
    for round in 0..20 {
        (0..100).for_each(|i| edit(round * 100 + i));
        seen.push(format!("{:.1}", memory() as f64 / 1024.0));
    }
    println!(
        "\nmemory of the process after 100, 200, … 2,000 edits of one script of {} KiB: {} MB; compiled scripts and results kept: {:?}",
        (script.source.len() >> 10) + 64,
        seen.join(", "),
        engine.kept()
    );
}

fn main() {
    let runs = std::env::var("RUNS").map_or(60, |runs| runs.parse().expect("RUNS: a number"));
    let engine = Engine::with_limits(1, Limits { results: 0, ..Limits::default() });
    let [small, large] = MOST.map(|(rules, _)| calls(rules));
    let measured: BTreeSet<&str> = small.iter().map(|(script, _)| script.name.as_str()).collect();
    for script in Library::list() {
        assert!(measured.contains(script.name.as_str()), "{}: add a row", script.name);
    }
    let mut rows: Vec<_> = small
        .iter()
        .zip(&large)
        .map(|(small, large)| (&small.0.name, times(&engine, small, runs), times(&engine, large, runs)))
        .collect();
    rows.sort_by_key(|(_, _, (fastest, _))| std::cmp::Reverse(*fastest));
    println!("{:60} {:>22} {:>22}", "microseconds: fastest, middle", "one rule", "500 rules");
    let show = |(fastest, middle): (Duration, Duration)| format!("{:8} {:8}", fastest.as_micros(), middle.as_micros());
    for (name, small, large) in &rows {
        println!("{name:60} {:>22} {:>22}", show(*small), show(*large));
    }
    edits();
    let slow = rows.iter().filter(|(_, small, large)| small.0 > MOST[0].1 || large.0 > MOST[1].1);
    let slow: Vec<&str> = slow.map(|(name, ..)| name.as_str()).collect();
    if !slow.is_empty() {
        println!("\nslower than {:?} and {:?}: {}", MOST[0].1, MOST[1].1, slow.join(", "));
        std::process::exit(1);
    }
}
