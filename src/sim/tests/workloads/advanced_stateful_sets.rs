use super::clone_sets::counts;
use super::*;

async fn world(spec: Value) -> World {
    world_in("v1beta1", spec).await
}

async fn world_in(version: &str, spec: Value) -> World {
    let object = workload(&format!("apps.kruise.io/{version}"), "StatefulSet", spec);
    let builder = Cluster::builder().seed(4).definition(definition("statefulsets")).object(object);
    World::new(builder, Gvr::new("apps.kruise.io", version, "statefulsets"), "StatefulSet").await
}

fn rolling(rolling: Value) -> Value {
    json!({"updateStrategy": {"rollingUpdate": rolling}})
}

fn spec(spec: Value) -> Value {
    json!({"spec": spec})
}

fn of(replicas: i64, policy: &str, rules: Value) -> Value {
    and(json!({"replicas": replicas, "podManagementPolicy": policy}), rolling(rules))
}

fn summary(world: &World) -> [i64; 5] {
    ["replicas", "currentReplicas", "updatedReplicas", "updatedReadyReplicas", "updatedAvailableReplicas"]
        .map(|f| world.count(f))
}

#[tokio::test(start_paused = true)]
async fn rolling_updates_stop_at_the_partition() {
    for version in ["v1beta1", "v1alpha1"] {
        for (partition, seen, status) in [
            (0, ["web-0 v2", "web-1 v2", "web-2 v2"], [3, 3, 3, 3, 3]),
            (2, ["web-0 v1", "web-1 v1", "web-2 v2"], [3, 2, 1, 1, 1]),
            (3, ["web-0 v1", "web-1 v1", "web-2 v1"], [3, 3, 0, 0, 0]),
        ] {
            let world = world_in(version, of(3, "OrderedReady", json!({"partition": partition}))).await;
            world.patch(to(2)).await;
            assert_eq!(world.seen(), seen, "{version}, {partition}");
            assert_eq!(summary(&world), status, "{version}, {partition}");
        }
    }
    // The native kind of the same name is another kind.
    let world = world(of(1, "OrderedReady", json!({}))).await;
    assert!(world.cluster.list(&Gvr::new("apps", "v1", "statefulsets"), None).is_empty());
}

/// `maxUnavailable` rounds down, to one at least.
#[tokio::test(start_paused = true)]
async fn updates_keep_their_bounds() {
    for (unavailable, most) in [(json!(1), 1), (json!(2), 2), (json!("50%"), 2), (json!("10%"), 1)] {
        let world = world(of(5, "Parallel", json!({"maxUnavailable": unavailable}))).await;
        world.patch(to(2)).await;
        let (mut missing, mut seen) = (0, 0);
        for event in world.told() {
            match event.as_bytes()[0] {
                b'~' => missing += 1,
                b'*' => missing -= 1,
                _ => {}
            }
            seen = seen.max(missing);
        }
        assert_eq!((seen, counts(&world).as_str()), (most, "5 v2"), "{unavailable}");
    }
}

#[tokio::test(start_paused = true)]
async fn paused_and_on_delete_wait() {
    let world = world(of(2, "OrderedReady", json!({"paused": true}))).await;
    world.patch(to(2)).await;
    assert_eq!(counts(&world), "2 v1");
    world.patch(spec(rolling(json!({"paused": false})))).await;
    assert_eq!(counts(&world), "2 v2");
    world.patch(and(to(3), spec(json!({"updateStrategy": {"type": "OnDelete"}})))).await;
    assert_eq!(counts(&world), "2 v2");
    world.delete_pod("web-0").await;
    assert_eq!(world.seen(), ["web-0 v3", "web-1 v2"]);
}

/// Reserved ordinals have no pod, and the size counts the others.
#[tokio::test(start_paused = true)]
async fn ordinals_may_be_reserved() {
    let world = world(json!({"replicas": 3, "reserveOrdinals": [1]})).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-2 v1", "web-3 v1"]);
    world.patch(spec(json!({"reserveOrdinals": [0, "2-3"]}))).await;
    assert_eq!(world.seen(), ["web-1 v1", "web-4 v1", "web-5 v1"]);
    // The partition counts pods, not ordinals.
    world.patch(and(to(2), spec(rolling(json!({"partition": 2}))))).await;
    assert_eq!(world.seen(), ["web-1 v1", "web-4 v1", "web-5 v2"]);
    world.delete_pod("web-4").await;
    assert_eq!(world.seen(), ["web-1 v1", "web-4 v1", "web-5 v2"]);
    world.patch(spec(json!({"reserveOrdinals": [], "ordinals": {"start": 4}}))).await;
    assert_eq!(world.seen(), ["web-4 v1", "web-5 v2", "web-6 v2"]);
}

/// Without order, `partition` says how many stay old, wherever they are.
#[tokio::test(start_paused = true)]
async fn unordered_updates_count_what_is_new_already() {
    let world = world(of(4, "Parallel", json!({"unorderedUpdate": {}, "partition": 3}))).await;
    world.patch(to(2)).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v1", "web-3 v2"]);
    // An old pod made again stays old while there are not enough of them.
    world.delete_pod("web-1").await;
    assert_eq!(counts(&world), "3 v1, 1 v2");
    world.patch(spec(rolling(json!({"partition": 2})))).await;
    assert_eq!(counts(&world), "2 v1, 2 v2");
}

#[tokio::test(start_paused = true)]
async fn pods_are_updated_in_place() {
    for policy in ["InPlaceIfPossible", "InPlaceOnly"] {
        let world = world(of(3, "OrderedReady", json!({"podUpdatePolicy": policy, "partition": 1}))).await;
        world.patch(to(2)).await;
        let expected = ["/web-2", "^web-2 v2", "*web-2 v2", "/web-1", "^web-1 v2", "*web-1 v2"];
        assert_eq!(world.told(), expected, "{policy}");
        assert_eq!(summary(&world), [3, 1, 2, 2, 2], "{policy}");
        assert_eq!(world.pods()[2]["metadata"]["labels"]["controller-revision-hash"], world.status("updateRevision"));
        // Back in place.
        world.patch(to(1)).await;
        assert_eq!(counts(&world), "3 v1");
        assert!(!world.told().iter().any(|e| e.starts_with('~')));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_gets_ready_stops_the_update() {
    let world = world(of(3, "Parallel", json!({}))).await;
    world.patch(to_broken(2)).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v2!"]);
    assert_eq!(summary(&world), [3, 2, 1, 0, 0]);
    world.patch(repaired(1)).await;
    assert_eq!(counts(&world), "3 v1");
}

#[tokio::test(start_paused = true)]
async fn scaling_in_the_middle_goes_before_updating() {
    let world = world(of(3, "OrderedReady", json!({"partition": 2}))).await;
    world.patch(to(2)).await;
    world.patch(spec(json!({"replicas": 5}))).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v2", "web-3 v2", "web-4 v2"]);
    world.patch(spec(json!({"replicas": 1}))).await;
    assert_eq!(world.seen(), ["web-0 v1"]);
}

#[tokio::test(start_paused = true)]
async fn min_ready_seconds_are_part_of_the_rolling_update() {
    let world = world(of(2, "OrderedReady", json!({"minReadySeconds": 100}))).await;
    world.patch_at_once(to(2)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v2"]);
    assert_eq!((world.count("updatedReadyReplicas"), world.count("updatedAvailableReplicas")), (1, 0));
    world.rest().await;
    assert_eq!(counts(&world), "2 v2");
}

/// `scaleStrategy.maxUnavailable` bounds how many pods come up at once.
#[tokio::test(start_paused = true)]
async fn parallel_sets_may_come_up_in_groups() {
    let world =
        world(json!({"replicas": 0, "podManagementPolicy": "Parallel", "scaleStrategy": {"maxUnavailable": 2}})).await;
    world.patch(spec(json!({"replicas": 5}))).await;
    let told = world.told();
    assert_eq!(told[..2], ["+web-0 v1", "+web-1 v1"]);
    assert!(told[2].starts_with('*'), "{told:?}");
    assert_eq!(counts(&world), "5 v1");
}
