use super::daemon_sets::{by_node, extremes, patch_node};
use super::*;

async fn world(version: &str, nodes: u32, rolling: Value) -> World {
    let spec = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
    let object = workload(&format!("apps.kruise.io/{version}"), "DaemonSet", spec);
    let builder = Cluster::builder().seed(4).nodes(nodes).definition(definition("daemonsets")).object(object);
    World::new(builder, Gvr::new("apps.kruise.io", version, "daemonsets"), "DaemonSet").await
}

fn rolling(rolling: Value) -> Value {
    json!({"spec": {"updateStrategy": {"rollingUpdate": rolling}}})
}

/// `partition` is how many pods stay old; those on the last nodes are updated first.
#[tokio::test(start_paused = true)]
async fn a_partition_holds_pods_back() {
    for (version, partition, seen) in [
        ("v1beta1", json!(0), ["node-1 v2", "node-2 v2", "node-3 v2", "node-4 v2"]),
        ("v1alpha1", json!(3), ["node-1 v1", "node-2 v1", "node-3 v1", "node-4 v2"]),
        ("v1beta1", json!(3), ["node-1 v1", "node-2 v1", "node-3 v1", "node-4 v2"]),
        ("v1beta1", json!("50%"), ["node-1 v1", "node-2 v1", "node-3 v2", "node-4 v2"]),
        ("v1beta1", json!("1%"), ["node-1 v1", "node-2 v2", "node-3 v2", "node-4 v2"]),
        ("v1beta1", json!("100%"), ["node-1 v1", "node-2 v1", "node-3 v1", "node-4 v1"]),
        ("v1beta1", json!(32767), ["node-1 v1", "node-2 v1", "node-3 v1", "node-4 v1"]),
    ] {
        let world = world(version, 4, json!({"partition": partition})).await;
        world.patch(to(2)).await;
        assert_eq!(by_node(&world), seen, "{version}, {partition}");
        let new = seen.iter().filter(|s| s.ends_with("v2")).count() as i64;
        assert_eq!(world.count("updatedNumberScheduled"), new, "{version}, {partition}");
        let hash = world.status(if version == "v1alpha1" { "daemonSetHash" } else { "updateRevision" });
        let labelled =
            world.pods().iter().filter(|p| p["metadata"]["labels"]["controller-revision-hash"] == hash).count();
        assert_eq!(labelled as i64, new, "{version}, {partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn updates_keep_their_bounds() {
    for (version, rules, missing, surplus) in [
        ("v1beta1", json!({}), 1, 0),
        ("v1beta1", json!({"maxUnavailable": "30%"}), 2, 0),
        ("v1beta1", json!({"maxUnavailable": 0, "maxSurge": 2}), 0, 2),
        ("v1alpha1", json!({"rollingUpdateType": "Surging"}), 0, 1),
        ("v1alpha1", json!({"rollingUpdateType": "Surging", "maxSurge": "30%"}), 0, 2),
    ] {
        let world = world(version, 5, rules.clone()).await;
        world.patch(to(2)).await;
        assert_eq!(extremes(&world.told(), 5), (missing, surplus), "{rules}");
        assert_eq!(by_node(&world), ["node-1 v2", "node-2 v2", "node-3 v2", "node-4 v2", "node-5 v2"], "{rules}");
    }
}

#[tokio::test(start_paused = true)]
async fn pause_selector_and_on_delete_wait() {
    let world = world("v1beta1", 3, json!({"paused": true})).await;
    world.patch(to(2)).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1", "node-3 v1"]);
    world.patch(rolling(json!({"paused": false, "selector": {"matchLabels": {"canary": "yes"}}}))).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1", "node-3 v1"]);
    patch_node(&world, "node-2", json!({"metadata": {"labels": {"canary": "yes"}}})).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v2", "node-3 v1"]);
    world.patch(rolling(json!({"selector": null, "partition": 2}))).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v2", "node-3 v1"], "the partition counts what is new already");
    world.patch(json!({"spec": {"updateStrategy": {"type": "OnDelete"}}})).await;
    let name = world.pods().iter().find(|p| p["spec"]["nodeName"] == "node-3").map(|p| json::name(p).to_owned());
    world.delete_pod(&name.unwrap()).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v2", "node-3 v2"]);
}

#[tokio::test(start_paused = true)]
async fn pods_are_updated_in_place() {
    let world = world("v1beta1", 3, json!({"rollingUpdateType": "InPlaceIfPossible", "partition": 1})).await;
    world.patch(to(2)).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v2", "node-3 v2"]);
    let told: Vec<u8> = world.told().iter().map(|e| e.as_bytes()[0]).collect();
    assert_eq!(told, *b"/^*/^*");
    // What is more than images is made again.
    let more = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}});
    world.patch(and(and(to(3), more), rolling(json!({"partition": 0})))).await;
    assert_eq!(by_node(&world), ["node-1 v3", "node-2 v3", "node-3 v3"]);
    assert!(world.told().iter().any(|e| e.starts_with('~')));
}

#[tokio::test(start_paused = true)]
async fn rolling_back_in_the_middle() {
    let world = world("v1beta1", 3, json!({"partition": 1})).await;
    world.patch(to(2)).await;
    world.patch(to(1)).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v2", "node-3 v1"], "one of v2 is within the partition");
    world.patch(rolling(json!({"partition": 0}))).await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1", "node-3 v1"]);
    assert_eq!(world.revisions(), [(2, "v2".into()), (3, "v1".into())]);
}

#[tokio::test(start_paused = true)]
async fn pods_that_never_get_ready_stop_the_update() {
    let world = world("v1beta1", 3, json!({})).await;
    world.patch(to_broken(2)).await;
    assert_eq!(by_node(&world), ["node-1 v2!", "node-2 v1", "node-3 v1"]);
    assert_eq!((world.count("numberReady"), world.count("numberUnavailable")), (2, 1));
    world.patch(repaired(3)).await;
    assert_eq!(by_node(&world), ["node-1 v3", "node-2 v3", "node-3 v3"]);
}

#[tokio::test(start_paused = true)]
async fn nodes_come_in_the_middle() {
    let world = world("v1beta1", 2, json!({"partition": 2})).await;
    world.patch(to(2)).await;
    world.cluster.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-3"}})).unwrap();
    world.rest().await;
    assert_eq!(by_node(&world), ["node-1 v1", "node-2 v1", "node-3 v2"], "a new node gets a new pod");
    assert_eq!(world.count("desiredNumberScheduled"), 3);
}
