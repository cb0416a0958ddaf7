use std::sync::{Arc, Mutex};

use kube::api::{Patch, PatchParams};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_deployment_comes_up() {
    let cluster = Cluster::builder().seed(1).object(deployment("web", 3, "web:1")).build().unwrap();
    settle().await;
    let deployments: Api<Deployment> = api(&cluster, "user");
    let web = deployments.get("web").await.unwrap();
    let status = web.status.unwrap();
    assert_eq!(status.ready_replicas, Some(3));
    assert_eq!(status.available_replicas, Some(3));
    assert_eq!(status.updated_replicas, Some(3));
    let conditions: Vec<(String, String)> =
        status.conditions.unwrap().into_iter().map(|c| (c.type_, c.reason.unwrap())).collect();
    assert!(conditions.contains(&("Available".into(), "MinimumReplicasAvailable".into())), "{conditions:?}");
    assert!(conditions.contains(&("Progressing".into(), "NewReplicaSetAvailable".into())), "{conditions:?}");
    let pods: Api<Pod> = api(&cluster, "user");
    assert_eq!(pods.list(&Default::default()).await.unwrap().items.len(), 3);
    let before = cluster.writes();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(cluster.writes(), before, "an idle cluster writes nothing");
}

/// Pods that the ReplicaSets ask for: what `maxSurge` bounds. (Pods themselves may be more for a moment, in a real
/// cluster as well: one set makes its pod before the other has removed one.)
fn asked(view: &View) -> i64 {
    let sets = view.list(&Gvr::new("apps", "v1", "replicasets"), Some("default"));
    sets.iter().filter_map(|s| s.pointer("/spec/replicas")?.as_i64()).sum()
}

fn counts(view: &View) -> (i64, i64) {
    let pods = view.list(&Gvr::new("", "v1", "pods"), Some("default"));
    let active: Vec<_> = pods.iter().filter(|p| p.pointer("/metadata/deletionTimestamp").is_none()).collect();
    let ready = active
        .iter()
        .filter(|p| {
            p.pointer("/status/conditions")
                .and_then(Value::as_array)
                .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        })
        .count();
    (active.len() as i64, ready as i64)
}

/// A rolling update stays within surge and unavailability at every moment.
#[test]
fn a_rolling_update_is_bounded_at_every_moment() {
    for (seed, replicas, surge, unavailable, most, least) in [
        (1, 4, json!("25%"), json!("25%"), 5, 3),
        (2, 10, json!(1), json!(0), 11, 10),
        (3, 10, json!(0), json!(2), 10, 8),
        (4, 7, json!("30%"), json!("30%"), 10, 5),
        (5, 3, json!("100%"), json!(0), 6, 3),
        (6, 1, json!("1%"), json!("1%"), 2, 1),
        (7, 5, json!(0), json!("1%"), 5, 4),
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut object = deployment("web", replicas, "web:1");
            object["spec"]["strategy"] =
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
            let cluster = Cluster::builder().seed(seed).object(object).build().unwrap();
            settle().await;
            let view = cluster.view();
            assert_eq!(counts(&view), (replicas, replicas));
            let worst = Arc::new(Mutex::new((0, i64::MAX)));
            let seen = worst.clone();
            cluster.on_write(Box::new(move |write| {
                if matches!(write.gvr.resource.as_str(), "pods" | "replicasets") {
                    let mut worst = seen.lock().unwrap();
                    *worst = (worst.0.max(asked(&view)), worst.1.min(counts(&view).1));
                }
            }));
            let deployments: Api<Deployment> = api(&cluster, "user");
            let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:2"}]}}}});
            deployments.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await.unwrap();
            tokio::time::sleep(Duration::from_secs(300)).await;
            let status = deployments.get("web").await.unwrap().status.unwrap();
            assert_eq!(status.updated_replicas, Some(replicas as i32), "seed {seed}");
            assert_eq!(status.available_replicas, Some(replicas as i32), "seed {seed}");
            let (max, min) = *worst.lock().unwrap();
            assert!(max <= most, "seed {seed}: {max} pods, at most {most}");
            assert!(min >= least, "seed {seed}: {min} ready, at least {least}");
            let sets: Api<ReplicaSet> = api(&cluster, "user");
            let sizes: Vec<i32> = sets
                .list(&Default::default())
                .await
                .unwrap()
                .items
                .into_iter()
                .map(|s| s.spec.unwrap().replicas.unwrap())
                .collect();
            assert_eq!(sizes.iter().sum::<i32>(), replicas as i32);
            assert_eq!(sizes.len(), 2);
        });
    }
}
