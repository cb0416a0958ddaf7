use super::*;

/// A CloneSet, its strategy in the spelling of a version.
async fn world(version: &str, replicas: i64, strategy: Value) -> World {
    let object = workload(
        &format!("apps.kruise.io/{version}"),
        "CloneSet",
        json!({"replicas": replicas, "updateStrategy": strategy}),
    );
    let builder = Cluster::builder().seed(4).definition(definition("clonesets")).object(object);
    World::new(builder, Gvr::new("apps.kruise.io", version, "clonesets"), "CloneSet").await
}

/// The same with the strategy of v1alpha1, which is short to write.
async fn alpha(replicas: i64, strategy: Value) -> World {
    world("v1alpha1", replicas, strategy).await
}

fn strategy(strategy: Value) -> Value {
    json!({"spec": {"updateStrategy": strategy}})
}

/// How many pods there are of each version, `!` behind those that are not ready.
pub(super) fn counts(world: &World) -> String {
    let mut all = std::collections::BTreeMap::new();
    for pod in world.pods() {
        *all.entry(format!("{}{}", version(&pod), if is_ready(&pod) { "" } else { "!" })).or_insert(0) += 1;
    }
    all.iter().map(|(k, n)| format!("{n} {k}")).collect::<Vec<_>>().join(", ")
}

fn summary(world: &World) -> [i64; 7] {
    let fields = [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
        "updatedReadyReplicas",
        "updatedAvailableReplicas",
        "expectedUpdatedReplicas",
    ];
    fields.map(|f| world.count(f))
}

/// Whether each event of a kind comes while at most `most` pods are away.
fn missing_at_most(told: &[String]) -> i64 {
    let (mut missing, mut most) = (0_i64, 0);
    for event in told {
        match event.as_bytes()[0] {
            b'~' | b'/' => missing += 1,
            b'*' => missing -= 1,
            _ => {}
        }
        most = most.max(missing);
    }
    most
}

#[tokio::test(start_paused = true)]
async fn pods_have_ids_and_gates() {
    let world = alpha(3, json!({})).await;
    assert_eq!(counts(&world), "3 v1");
    assert_eq!(summary(&world), [3, 3, 3, 3, 3, 3, 3]);
    assert_eq!(world.status("labelSelector"), "app=web");
    let revision = world.status("updateRevision");
    assert_eq!(world.status("currentRevision"), revision);
    for pod in world.pods() {
        let labels = &pod["metadata"]["labels"];
        assert_eq!(
            json::name(&pod),
            format!("web-{}", labels["apps.kruise.io/cloneset-instance-id"].as_str().unwrap())
        );
        assert_eq!(labels["controller-revision-hash"], revision);
        assert!(revision.as_str().unwrap().ends_with(labels["pod-template-hash"].as_str().unwrap()));
        assert_eq!(pod["spec"]["readinessGates"], json!([{"conditionType": "InPlaceUpdateReady"}]));
    }
    let before = world.cluster.writes();
    world.rest().await;
    assert_eq!(world.cluster.writes(), before, "an idle cluster writes nothing");
}

/// `partition` is how many pods stay old: a percentage rounds up, but leaves one new pod below 100 %.
#[tokio::test(start_paused = true)]
async fn a_partition_holds_pods_back() {
    for (partition, seen, expected) in [
        (json!(0), "5 v2", 5),
        (json!(2), "2 v1, 3 v2", 3),
        (json!(9), "5 v1", 0),
        (json!("0%"), "5 v2", 5),
        (json!("1%"), "1 v1, 4 v2", 4),
        (json!("50%"), "3 v1, 2 v2", 2),
        (json!("99%"), "4 v1, 1 v2", 1),
        (json!("100%"), "5 v1", 0),
    ] {
        let world = alpha(5, json!({})).await;
        world.patch(and(to(2), strategy(json!({"partition": partition})))).await;
        assert_eq!(counts(&world), seen, "{partition}");
        assert_eq!(summary(&world), [5, 5, 5, expected, expected, expected, expected], "{partition}");
        let whole = world.status("currentRevision") == world.status("updateRevision");
        assert_eq!(whole, expected == 5, "{partition}: the current revision follows when all pods are new");
    }
}

/// What each version spells differently means the same, and both see the same object.
#[tokio::test(start_paused = true)]
async fn both_versions_roll_alike() {
    let rolling = json!({"podUpdatePolicy": "ReCreate", "partition": "60%", "maxUnavailable": 1, "maxSurge": 0});
    let world = world("v1beta1", 5, json!({"type": "RollingUpdate", "rollingUpdate": rolling.clone()})).await;
    world.patch(to(2)).await;
    assert_eq!(counts(&world), "3 v1, 2 v2");
    let other = world.cluster.get(&Gvr::new("apps.kruise.io", "v1alpha1", "clonesets"), "default", "web").unwrap();
    assert_eq!(
        other["spec"]["updateStrategy"],
        json!({"type": "ReCreate", "partition": "60%", "maxUnavailable": 1, "maxSurge": 0})
    );
    // A write in the other version.
    let alpha = dynamic(&world.cluster, "user", "apps.kruise.io/v1alpha1", "CloneSet", "clonesets");
    let open = Patch::Merge(strategy(json!({"partition": 1, "type": "InPlaceIfPossible"})));
    alpha.patch("web", &PatchParams::default(), &open).await.unwrap();
    world.rest().await;
    assert_eq!(counts(&world), "1 v1, 4 v2");
    let rolling = &world.workload()["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!((&rolling["partition"], &rolling["podUpdatePolicy"]), (&json!(1), &json!("InPlaceIfPossible")));
}

/// A new pod is made when an old one is gone, or before it with surge; `maxUnavailable` rounds up without surge and down
/// with it.
#[tokio::test(start_paused = true)]
async fn updates_keep_their_bounds() {
    for (unavailable, surge, missing, most) in [
        (json!(1), json!(0), 1, 5),
        (json!("30%"), json!(0), 2, 5),
        (json!("100%"), json!(0), 5, 5),
        (json!(0), json!(1), 0, 6),
        (json!("30%"), json!("30%"), 1, 7),
    ] {
        let case = format!("unavailable {unavailable}, surge {surge}");
        let world = alpha(5, json!({"maxUnavailable": unavailable, "maxSurge": surge})).await;
        let (view, seen) = (world.cluster.view(), Arc::new(Mutex::new((0, 5))));
        let extremes = seen.clone();
        world.cluster.on_write(Box::new(move |_| {
            let pods = view.list(&Gvr::new("", "v1", "pods"), Some("default"));
            let here: Vec<_> = pods.iter().filter(|p| !json::deleting(p)).collect();
            let ready = here.iter().filter(|p| is_ready(p)).count() as i64;
            let mut extremes = extremes.lock().unwrap();
            *extremes = (extremes.0.max(5 - ready), extremes.1.max(here.len()));
        }));
        world.patch(to(2)).await;
        assert_eq!(counts(&world), "5 v2", "{case}");
        assert_eq!(*seen.lock().unwrap(), (missing, most), "{case}");
        assert_eq!(summary(&world), [5, 5, 5, 5, 5, 5, 5], "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn paused_and_on_delete_wait() {
    let world = alpha(3, json!({"paused": true})).await;
    world.patch(to(2)).await;
    assert_eq!(counts(&world), "3 v1");
    world.patch(json!({"spec": {"replicas": 4}})).await;
    assert_eq!(counts(&world), "3 v1, 1 v2", "scaling goes on, and new pods are new");
    world.patch(strategy(json!({"paused": false}))).await;
    assert_eq!(counts(&world), "4 v2");

    world.patch(and(to(3), strategy(json!({"type": "OnDelete"})))).await;
    assert_eq!(counts(&world), "4 v2");
    let name = json::name(&world.pods()[0]).to_owned();
    world.delete_pod(&name).await;
    assert_eq!(counts(&world), "3 v2, 1 v3");
}

#[tokio::test(start_paused = true)]
async fn pods_are_updated_in_place() {
    for policy in ["InPlaceIfPossible", "InPlaceOnly"] {
        let world = alpha(4, json!({"type": policy, "maxUnavailable": 1})).await;
        let names: Vec<String> = world.pods().iter().map(|p| json::name(p).to_owned()).collect();
        world.patch(and(to(2), strategy(json!({"partition": 2})))).await;
        assert_eq!(counts(&world), "2 v1, 2 v2", "{policy}");
        assert_eq!(summary(&world), [4, 4, 4, 2, 2, 2, 2], "{policy}");
        let told = world.told();
        assert_eq!(missing_at_most(&told), 1, "{told:?}");
        assert_eq!(world.pods().iter().map(|p| json::name(p).to_owned()).collect::<Vec<_>>(), names, "{policy}");
        let pod = world.pods().into_iter().find(|p| version(p) == "v2").unwrap();
        assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], world.status("updateRevision"));
        assert_eq!(pod["metadata"]["labels"]["lifecycle.apps.kruise.io/state"], "Normal");
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
        let state = pod["metadata"]["annotations"]["apps.kruise.io/inplace-update-state"].as_str().unwrap();
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["revision"], world.status("updateRevision"));
        assert!(state["lastContainerStatuses"]["main"]["imageID"].as_str().unwrap().starts_with("sha256:"));
        // The gate closes, the image changes, the gate opens: of one pod after the other.
        let gone: Vec<_> = told.iter().map(|e| e.as_bytes()[0]).collect();
        assert_eq!(gone, *b"/^*/^*", "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_updated_in_place_is_made_again_or_waits() {
    let more = |n: u32| and(to(n), json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}));
    let world = alpha(2, json!({"type": "InPlaceIfPossible"})).await;
    world.patch(more(2)).await;
    assert_eq!(counts(&world), "2 v2");
    assert!(world.told().iter().any(|e| e.starts_with('~')));

    let world = alpha(2, json!({"type": "InPlaceOnly"})).await;
    world.patch(more(2)).await;
    assert_eq!(counts(&world), "2 v1");
    assert_eq!(world.told(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn pods_are_unready_for_their_grace_time_before_they_are_updated() {
    let strategy = json!({"type": "InPlaceIfPossible", "inPlaceUpdateStrategy": {"gracePeriodSeconds": 30}});
    let world = alpha(1, strategy).await;
    world.patch_at_once(to(2)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(counts(&world), "1 v1!");
    world.rest().await;
    assert_eq!(counts(&world), "1 v2");
    assert_eq!(world.pods()[0]["metadata"]["annotations"].get("apps.kruise.io/inplace-update-grace"), None);
}

#[tokio::test(start_paused = true)]
async fn rolling_back_goes_to_the_old_revision() {
    let world = alpha(4, json!({"partition": 2})).await;
    let first = world.status("currentRevision");
    world.patch(to(2)).await;
    assert_eq!(counts(&world), "2 v1, 2 v2");
    assert_eq!(world.status("currentRevision"), first);
    // Two pods are of the wanted revision already, so nothing is left to do; those of v2 are within the partition.
    world.patch(to(1)).await;
    assert_eq!(counts(&world), "2 v1, 2 v2");
    world.patch(strategy(json!({"partition": 0}))).await;
    assert_eq!(counts(&world), "4 v1");
    assert_eq!((world.status("currentRevision"), world.status("updateRevision")), (first.clone(), first));
    assert_eq!(world.revisions(), [(2, "v2".into()), (3, "v1".into())]);
}

#[tokio::test(start_paused = true)]
async fn scaling_in_the_middle_keeps_the_partition() {
    let world = alpha(4, json!({"partition": 2})).await;
    world.patch(to(2)).await;
    for (replicas, seen) in [(6, "2 v1, 4 v2"), (3, "2 v1, 1 v2"), (1, "1 v1"), (4, "2 v1, 2 v2")] {
        world.patch(json!({"spec": {"replicas": replicas}})).await;
        assert_eq!(counts(&world), seen, "{replicas}");
    }
    let world = alpha(4, json!({"partition": "50%"})).await;
    world.patch(to(2)).await;
    for (replicas, seen) in [(8, "4 v1, 4 v2"), (3, "2 v1, 1 v2")] {
        world.patch(json!({"spec": {"replicas": replicas}})).await;
        assert_eq!(counts(&world), seen, "{replicas}");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_never_get_ready_stop_the_update() {
    let world = alpha(5, json!({"maxUnavailable": 2})).await;
    world.patch(to_broken(2)).await;
    assert_eq!(counts(&world), "3 v1, 2 v2!");
    assert_eq!(summary(&world), [5, 3, 3, 2, 0, 0, 5]);
    world.patch(repaired(1)).await;
    assert_eq!(counts(&world), "5 v1");
}

#[tokio::test(start_paused = true)]
async fn chosen_pods_go_first() {
    let world = alpha(3, json!({})).await;
    let name = json::name(&world.pods()[1]).to_owned();
    world.patch(json!({"spec": {"replicas": 2, "scaleStrategy": {"podsToDelete": [name]}}})).await;
    assert_eq!(world.told(), [format!("~{name}"), format!("-{name}")]);
    // Without a smaller size another is made in its place.
    let name = json::name(&world.pods()[0]).to_owned();
    world.patch(json!({"spec": {"scaleStrategy": {"podsToDelete": [name]}}})).await;
    assert!(!world.pods().iter().any(|p| json::name(p) == name));
    assert_eq!(counts(&world), "2 v1");
}

#[tokio::test(start_paused = true)]
async fn min_ready_seconds_delay_each_step() {
    let world = alpha(2, json!({"maxUnavailable": 1})).await;
    world.patch_at_once(and(to(2), json!({"spec": {"minReadySeconds": 100}}))).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(&world), "1 v1, 1 v2");
    assert_eq!((world.count("updatedReadyReplicas"), world.count("updatedAvailableReplicas")), (1, 0));
    world.rest().await;
    assert_eq!(counts(&world), "2 v2");
}
