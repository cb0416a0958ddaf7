use kube::api::{Patch, PatchParams};

use super::*;

struct World {
    cluster: Cluster,
    api: Api<Deployment>,
}

impl World {
    async fn new(object: Value) -> Self {
        let cluster = Cluster::builder().seed(4).object(object).build().unwrap();
        settle().await;
        let api = api(&cluster, "user");
        Self { cluster, api }
    }

    async fn patch(&self, change: Value) -> Value {
        let patched = self.api.patch("web", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(120)).await;
        serde_json::to_value(patched).unwrap()
    }

    fn sets(&self) -> Vec<Arc<Value>> {
        let mut sets = self.cluster.list(&Gvr::new("apps", "v1", "replicasets"), Some("default"));
        sets.sort_by_key(|s| {
            s["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap().parse::<i64>().unwrap()
        });
        sets
    }

    /// Wanted pods by ReplicaSet, in the order of revisions.
    fn sizes(&self) -> Vec<i64> {
        self.sets().iter().map(|s| s["spec"]["replicas"].as_i64().unwrap()).collect()
    }

    /// Ready pods by ReplicaSet, in the order of revisions.
    fn ready(&self) -> Vec<i64> {
        self.sets().iter().map(|s| s["status"]["readyReplicas"].as_i64().unwrap_or(0)).collect()
    }

    fn deployment(&self) -> Arc<Value> {
        self.cluster.get(&Gvr::new("apps", "v1", "deployments"), "default", "web").unwrap()
    }

    fn progressing(&self) -> (String, String) {
        let web = self.deployment();
        let condition = super::json::condition(&web, "Progressing").unwrap();
        (condition["status"].as_str().unwrap().into(), condition["reason"].as_str().unwrap().into())
    }
}

fn web(replicas: i64, strategy: Value) -> Value {
    let mut object = deployment("web", replicas, "web:1");
    object["spec"]["strategy"] = strategy;
    object
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}})
}

const HOLD: i64 = 2_147_483_646;

/// What a real 1.36.3 controller did with new pods that are ready but never available (design of the partition style).
#[tokio::test(start_paused = true)]
async fn pods_that_never_become_available_bound_the_share() {
    let world = World::new(web(10, rolling(json!(1), json!(0)))).await;
    let mut change = image("web:2");
    change["spec"]["minReadySeconds"] = json!(HOLD);
    change["spec"]["progressDeadlineSeconds"] = json!(HOLD + 1);
    world.patch(change).await;
    assert_eq!(world.ready(), [10, 1]);
    for (unavailable, surge, expected) in [(1, 1, [9, 2]), (2, 1, [8, 3]), (3, 1, [7, 4]), (4, 0, [6, 4])] {
        world.patch(json!({"spec": {"strategy": rolling(json!(surge), json!(unavailable))}})).await;
        assert_eq!(world.ready(), expected, "unavailable {unavailable}, surge {surge}");
    }
    // As a percentage the share follows the size.
    world.patch(json!({"spec": {"strategy": rolling(json!(0), json!("40%"))}})).await;
    for (replicas, expected) in [(20, [12, 8]), (10, [6, 4]), (7, [4, 3]), (30, [17, 13]), (5, [3, 2]), (10, [6, 4])] {
        world.patch(json!({"spec": {"replicas": replicas}})).await;
        assert_eq!(world.ready(), expected, "{replicas} replicas");
    }
    let condition = super::json::condition(&world.deployment(), "Progressing").cloned();
    assert_eq!(condition, None, "without a deadline there is no condition that could fail");

    let mut back = image("web:1");
    back["spec"]["minReadySeconds"] = json!(0);
    back["spec"]["progressDeadlineSeconds"] = json!(600);
    back["spec"]["strategy"] = rolling(json!(1), json!(0));
    world.patch(back).await;
    assert_eq!(world.ready().iter().sum::<i64>(), 10);
    assert_eq!(world.ready(), [0, 10], "the old set has the newest revision now");
}

/// A count does not follow the size, as the real controller showed.
#[tokio::test(start_paused = true)]
async fn a_count_jumps_when_the_size_changes() {
    let world = World::new(web(10, rolling(json!(1), json!(0)))).await;
    let mut change = image("web:2");
    change["spec"]["minReadySeconds"] = json!(HOLD);
    change["spec"]["progressDeadlineSeconds"] = json!(HOLD + 1);
    world.patch(change).await;
    for (unavailable, surge) in [(1, 1), (2, 1), (3, 1), (4, 0)] {
        world.patch(json!({"spec": {"strategy": rolling(json!(surge), json!(unavailable))}})).await;
    }
    assert_eq!(world.ready(), [6, 4]);
    world.patch(json!({"spec": {"replicas": 20}})).await;
    assert_eq!(world.ready(), [13, 7]);
}

#[tokio::test(start_paused = true)]
async fn paused_does_not_roll_but_scales_in_proportion() {
    let world = World::new(web(10, rolling(json!(3), json!(2)))).await;
    let mut change = image("web:2");
    change["spec"]["paused"] = json!(true);
    world.patch(change).await;
    assert_eq!(world.sizes(), [10]);
    assert_eq!(world.progressing(), ("Unknown".into(), "DeploymentPaused".into()));
    world.patch(json!({"spec": {"replicas": 12}})).await;
    assert_eq!(world.sizes(), [12]);
    assert_eq!(world.ready(), [12]);
    world.patch(json!({"spec": {"paused": false}})).await;
    assert_eq!(world.sizes(), [0, 12]);
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
}

/// The example of the Kubernetes documentation: 10 replicas, surge 3, unavailable 2, new pods that never get ready,
/// scaled to 15: the 5 new ones are spread 3 to the old set and 2 to the new one.
#[tokio::test(start_paused = true)]
async fn scaling_in_the_middle_is_proportional() {
    let world = World::new(web(10, rolling(json!(3), json!(2)))).await;
    let mut change = image("web:2");
    change["spec"]["template"]["metadata"]["annotations"] = json!({NEVER_READY: "true"});
    world.patch(change).await;
    assert_eq!(world.sizes(), [8, 5]);
    assert_eq!(world.ready(), [8, 0]);
    world.patch(json!({"spec": {"replicas": 15}})).await;
    assert_eq!(world.sizes(), [11, 7]);
}

#[tokio::test(start_paused = true)]
async fn recreate_starts_when_the_old_pods_are_gone() {
    let world = World::new(web(3, json!({"type": "Recreate"}))).await;
    let view = world.cluster.view();
    world.cluster.on_write(Box::new(move |write| {
        if write.gvr.resource == "pods" {
            let pods = view.list(&Gvr::new("", "v1", "pods"), Some("default"));
            let images: std::collections::BTreeSet<_> =
                pods.iter().map(|p| p["spec"]["containers"][0]["image"].to_string()).collect();
            assert!(images.len() <= 1, "{images:?}");
        }
    }));
    world.patch(image("web:2")).await;
    assert_eq!(world.ready(), [0, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_does_not_move_times_out() {
    let mut object = web(2, rolling(json!(1), json!(0)));
    object["spec"]["progressDeadlineSeconds"] = json!(60);
    let world = World::new(object).await;
    let mut change = image("web:2");
    change["spec"]["template"]["metadata"]["annotations"] = json!({NEVER_READY: "true"});
    world.patch(change).await;
    assert_eq!(world.progressing(), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(world.ready(), [2, 0]);
    world.patch(json!({"spec": {"template": {"metadata": {"annotations": null}, "spec": {"containers": [{"name": "main", "image": "web:1"}]}}}})).await;
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[tokio::test(start_paused = true)]
async fn old_sets_are_kept_up_to_the_limit_and_used_again() {
    let mut object = web(1, rolling(json!(1), json!(0)));
    object["spec"]["revisionHistoryLimit"] = json!(2);
    let world = World::new(object).await;
    for n in 2..=5 {
        world.patch(image(&format!("web:{n}"))).await;
    }
    assert_eq!(world.sizes(), [0, 0, 1]);
    let hash = |s: &Value| s["metadata"]["labels"]["pod-template-hash"].clone();
    let before = hash(&world.sets()[0]);
    world.patch(image("web:3")).await;
    assert_eq!(world.sizes(), [0, 0, 1]);
    assert_eq!(hash(&world.sets()[2]), before);
    let annotations = &world.deployment()["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "6");
    assert_eq!(world.sets()[2]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "3");
}

#[tokio::test(start_paused = true)]
async fn availability_waits_for_min_ready_seconds() {
    let mut object = web(2, rolling(json!(1), json!(0)));
    object["spec"]["minReadySeconds"] = json!(100);
    let world = World::new(object).await;
    assert_eq!(world.deployment()["status"]["readyReplicas"], 2);
    assert_eq!(world.deployment()["status"]["availableReplicas"], Value::Null);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.deployment()["status"]["availableReplicas"], 2);
}

#[tokio::test(start_paused = true)]
async fn pods_are_made_again_and_orphans_adopted() {
    let world = World::new(web(3, rolling(json!(1), json!(0)))).await;
    let pods: Api<Pod> = api(&world.cluster, "user");
    let name = pods.list(&Default::default()).await.unwrap().items[0].metadata.name.clone().unwrap();
    pods.delete(&name, &Default::default()).await.unwrap();
    settle().await;
    assert_eq!(world.ready(), [3]);
    // A pod whose label is changed is released and replaced; labelled back, one of four goes.
    let name = pods.list(&Default::default()).await.unwrap().items[0].metadata.name.clone().unwrap();
    let relabel = |v: &str| Patch::Merge(json!({"metadata": {"labels": {"app": v}}}));
    pods.patch(&name, &PatchParams::default(), &relabel("debug")).await.unwrap();
    settle().await;
    assert_eq!(world.ready(), [3]);
    assert!(pods.get(&name).await.unwrap().metadata.owner_references.unwrap_or_default().is_empty());
    pods.patch(&name, &PatchParams::default(), &relabel("web")).await.unwrap();
    settle().await;
    assert_eq!(pods.list(&Default::default()).await.unwrap().items.len(), 3);
}
