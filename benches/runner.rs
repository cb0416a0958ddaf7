//! The test-case runner on one thread: every shipped case, files read and scripts run each time.
#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods)]

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::lua::testcase::{ScriptSource, discover, run};
use tidegate::lua::{Engine, Limits};

fn bench(c: &mut Criterion) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cases = discover(&[root.join("testcases")], false).unwrap().cases;
    let engine = Engine::with_limits(1, Limits { results: 0, ..Limits::default() });
    let report = run(&engine, &cases, &ScriptSource::under(root), 1);
    assert_eq!(report.passed(), cases.len());
    println!("{} cases, {} steps", cases.len(), report.steps());
    let mut group = c.benchmark_group("testcases");
    group.throughput(Throughput::Elements(cases.len() as u64));
    group.bench_function("all cases, one thread", |b| {
        b.iter(|| run(&engine, &cases, &ScriptSource::under(root), 1));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
