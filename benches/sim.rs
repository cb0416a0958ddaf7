//! The in-memory cluster: five pods come up and are replaced by a rolling update, in virtual time.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tidegate::sim::Cluster;

async fn rolling_update(seed: u64) -> u64 {
    let template = |image: &str| json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}});
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": template("web:1")}});
    let cluster = Cluster::builder().seed(seed).object(object).build().unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client("user"));
    let change = Patch::Strategic(json!({"spec": {"template": template("web:2")}}));
    deployments.patch("web", &PatchParams::default(), &change).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(deployments.get("web").await.unwrap().status.unwrap().updated_replicas, Some(5));
    cluster.writes()
}

fn bench(c: &mut Criterion) {
    let mut seed = 0;
    c.bench_function("rolling update of five pods", |b| {
        b.iter(|| {
            seed += 1;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(rolling_update(seed))
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
