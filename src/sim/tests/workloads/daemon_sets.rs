use super::*;

async fn world(nodes: u32, strategy: Value) -> World {
    let object = workload("apps/v1", "DaemonSet", json!({"updateStrategy": strategy}));
    let builder = Cluster::builder().seed(4).nodes(nodes).object(object);
    World::new(builder, Gvr::new("apps", "v1", "daemonsets"), "DaemonSet").await
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

/// `node version` of each pod, `!` behind one that is not ready.
pub(super) fn by_node(world: &World) -> Vec<String> {
    let mut seen: Vec<String> = world
        .pods()
        .iter()
        .map(|p| {
            let node = p["spec"]["nodeName"].as_str().unwrap_or("?");
            format!("{node} {}{}", version(p), if is_ready(p) { "" } else { "!" })
        })
        .collect();
    seen.sort();
    seen
}

fn summary(world: &World) -> [i64; 6] {
    let fields = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "updatedNumberScheduled",
        "numberReady",
        "numberAvailable",
        "numberMisscheduled",
    ];
    fields.map(|f| world.count(f))
}

fn node(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
}

pub(super) async fn patch_node(world: &World, name: &str, patch: Value) {
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.cluster.client("user"));
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    world.rest().await;
}

/// At most how many pods were gone or unready at once, and how many there were beyond one a node.
pub(super) fn extremes(told: &[String], nodes: i64) -> (i64, i64) {
    let (mut ready, mut all, mut missing, mut surplus) = (nodes, nodes, 0, 0);
    for event in told {
        match event.as_bytes()[0] {
            b'+' => all += 1,
            b'~' => (all, ready) = (all - 1, ready - 1),
            b'*' => ready += 1,
            _ => {}
        }
        missing = missing.max(nodes - ready);
        surplus = surplus.max(all - nodes);
    }
    (missing, surplus)
}

#[tokio::test(start_paused = true)]
async fn every_node_gets_a_pod() {
    let world = world(3, rolling(json!(1), json!(0))).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1", "node-3 v1"]);
    assert_eq!(summary(&world), [3, 3, 3, 3, 3, 0]);
    let revisions = world.cluster.list(&Gvr::new("apps", "v1", "controllerrevisions"), Some("default"));
    let hash = revisions[0]["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap();
    assert_eq!(json::name(&revisions[0]), format!("web-{hash}"));
    let pod = &world.pods()[0];
    assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], hash);
    assert_eq!(pod["metadata"]["labels"]["pod-template-generation"], "1");
    let before = world.cluster.writes();
    world.rest().await;
    assert_eq!(world.cluster.writes(), before, "an idle cluster writes nothing");
}

/// What a rolling update does at most at once.
#[tokio::test(start_paused = true)]
async fn rolling_updates_keep_their_bounds() {
    for (unavailable, surge, missing, surplus) in [
        (json!(1), json!(0), 1, 0),
        (json!(2), json!(0), 2, 0),
        (json!("30%"), json!(0), 2, 0),
        (json!("100%"), json!(0), 5, 0),
        (json!(0), json!(1), 0, 1),
        (json!(0), json!("30%"), 0, 2),
        (json!(0), json!("100%"), 0, 5),
    ] {
        let case = format!("unavailable {unavailable}, surge {surge}");
        let world = world(5, rolling(unavailable, surge)).await;
        world.patch(to(2)).await;
        assert_eq!(extremes(&world.told(), 5), (missing, surplus), "{case}");
        assert_eq!(by_node(&world), ["node-1 v2", "node-2 v2", "node-3 v2", "node-4 v2", "node-5 v2"], "{case}");
        assert_eq!(summary(&world), [5, 5, 5, 5, 5, 0], "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn on_delete_updates_what_is_deleted() {
    let world = world(2, json!({"type": "OnDelete"})).await;
    world.patch(to(2)).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1"]);
    assert_eq!(summary(&world), [2, 2, 0, 2, 2, 0]);
    let first = world.pods().iter().find(|p| p["spec"]["nodeName"] == "node-1").cloned().unwrap();
    world.delete_pod(json::name(&first)).await;
    assert_eq!(by_node(&world), ["node-1 v2", "node-2 v1"]);
    assert_eq!(summary(&world), [2, 2, 1, 2, 2, 0]);
    // Rolled back, the pod of the middle counts as old again.
    world.patch(and(to(1), json!({"spec": {"updateStrategy": rolling(json!(1), json!(0))}}))).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1"]);
    assert_eq!(world.revisions(), [(2, "v2".into()), (3, "v1".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_gets_ready_stops_the_update() {
    for (strategy, seen) in [
        (rolling(json!(1), json!(0)), &["node-1 v2!", "node-2 v1", "node-3 v1"][..]),
        (rolling(json!(0), json!(1)), &["node-1 v1", "node-1 v2!", "node-2 v1", "node-3 v1"]),
    ] {
        let world = world(3, strategy).await;
        world.patch(to_broken(2)).await;
        assert_eq!(by_node(&world), seen);
        world.patch(repaired(3)).await;
        assert_eq!(by_node(&world), ["node-1 v3", "node-2 v3", "node-3 v3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_come_and_go() {
    let world = world(2, rolling(json!(1), json!(0))).await;
    world.cluster.create(node("node-9", json!({}))).unwrap();
    world.rest().await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1", "node-9 v1"]);
    assert_eq!(summary(&world), [3, 3, 3, 3, 3, 0]);

    // A cordoned node keeps its pod, is updated and gets a pod again.
    patch_node(&world, "node-2", json!({"spec": {"unschedulable": true}})).await;
    world.patch(to(2)).await;
    assert_eq!(by_node(&world), ["node-1 v2", "node-2 v2", "node-9 v2"]);

    // Taints: NoSchedule lets a pod stay and wants none, which the status says with the next change; NoExecute removes it.
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "down", "effect": effect}]}});
    patch_node(&world, "node-1", taint("NoSchedule")).await;
    assert_eq!(summary(&world), [3, 3, 3, 3, 3, 0]);
    world.patch(json!({"spec": {"revisionHistoryLimit": 3}})).await;
    assert_eq!(summary(&world), [2, 2, 2, 2, 2, 1]);
    world.patch(to(3)).await;
    assert_eq!(by_node(&world), ["node-2 v3", "node-9 v3"], "replaced where it is not wanted, it is not made again");
    patch_node(&world, "node-1", json!({"spec": {"taints": null}})).await;
    patch_node(&world, "node-1", taint("NoExecute")).await;
    assert_eq!(by_node(&world), ["node-2 v3", "node-9 v3"]);

    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.cluster.client("user"));
    nodes.delete("node-9", &Default::default()).await.unwrap();
    world.rest().await;
    assert_eq!(by_node(&world), ["node-2 v3"]);
    assert_eq!(summary(&world), [1, 1, 1, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_in_the_middle_gets_a_new_pod() {
    let world = world(2, json!({"type": "OnDelete"})).await;
    world.patch(to(2)).await;
    world.cluster.create(node("node-3", json!({}))).unwrap();
    world.rest().await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1", "node-3 v2"]);
}

#[tokio::test(start_paused = true)]
async fn labels_choose_nodes() {
    let world = world(3, rolling(json!(1), json!(0))).await;
    world.patch(json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}})).await;
    assert_eq!(by_node(&world), Vec::<String>::new());
    patch_node(&world, "node-2", json!({"metadata": {"labels": {"disk": "ssd"}}})).await;
    assert_eq!(by_node(&world), ["node-2 v1"]);
    assert_eq!(summary(&world), [1, 1, 1, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn min_ready_seconds_delay_each_step() {
    let world = world(2, rolling(json!(1), json!(0))).await;
    world.patch_at_once(and(to(2), json!({"spec": {"minReadySeconds": 100}}))).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(summary(&world), [2, 2, 1, 2, 1, 0]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(summary(&world), [2, 2, 2, 2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_server_counts_template_generations() {
    let world = world(1, rolling(json!(1), json!(0))).await;
    let generation =
        |w: &World| w.workload()["metadata"]["annotations"]["deprecated.daemonset.template.generation"].clone();
    world
        .patch(and(to(2), json!({"metadata": {"annotations": {"deprecated.daemonset.template.generation": "9"}}})))
        .await;
    assert_eq!(generation(&world), "2");
    world.patch(json!({"metadata": {"annotations": {"deprecated.daemonset.template.generation": null}}})).await;
    assert_eq!(generation(&world), "2");
    assert_eq!(world.pods()[0]["metadata"]["labels"]["pod-template-generation"], "2");
}

#[tokio::test(start_paused = true)]
async fn history_is_kept_up_to_the_limit() {
    let object = workload("apps/v1", "DaemonSet", json!({"revisionHistoryLimit": 2}));
    let gvr = Gvr::new("apps", "v1", "daemonsets");
    let world = World::new(Cluster::builder().nodes(1).object(object), gvr, "DaemonSet").await;
    for n in 2..=5 {
        world.patch(to(n)).await;
    }
    assert_eq!(world.revisions(), [(3, "v3".into()), (4, "v4".into()), (5, "v5".into())]);
}

/// Pods that fit nowhere wait for a node.
#[tokio::test(start_paused = true)]
async fn pods_without_a_node_wait() {
    let mut object = deployment("web", 1, "web:1");
    object["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let cluster = Cluster::builder().object(object).build().unwrap();
    settle().await;
    let pods = || cluster.list(&Gvr::new("", "v1", "pods"), Some("default"));
    assert_eq!((pods()[0]["spec"].get("nodeName"), pods()[0]["status"]["phase"].as_str()), (None, Some("Pending")));
    let mut node = node("new", json!({}));
    node["metadata"]["labels"] = json!({"disk": "ssd"});
    cluster.create(node).unwrap();
    settle().await;
    assert_eq!(pods()[0]["spec"]["nodeName"], "new");
    assert!(is_ready(&pods()[0]));
}
