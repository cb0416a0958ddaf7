use super::*;

async fn world(spec: Value) -> World {
    world_of(Cluster::builder().seed(4), spec).await
}

async fn world_of(builder: Builder, spec: Value) -> World {
    let object = workload("apps/v1", "StatefulSet", spec);
    World::new(builder.object(object), Gvr::new("apps", "v1", "statefulsets"), "StatefulSet").await
}

fn partition(n: i64) -> Value {
    json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": n}}}})
}

fn summary(world: &World) -> [i64; 5] {
    ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"].map(|f| world.count(f))
}

fn hash_of(world: &World, field: &str) -> String {
    let name = world.status(field).as_str().unwrap().to_owned();
    let revisions = world.cluster.list(&Gvr::new("apps", "v1", "controllerrevisions"), Some("default"));
    let revision = revisions.iter().find(|r| json::name(r) == name).unwrap();
    version(&revision["data"]["spec"]["template"])
}

#[tokio::test(start_paused = true)]
async fn pods_come_up_one_after_the_other_and_go_the_other_way() {
    let object = workload("apps/v1", "StatefulSet", json!({"replicas": 3, "serviceName": "web"}));
    let gvr = Gvr::new("apps", "v1", "statefulsets");
    let world = World::new(Cluster::builder().object(object), gvr, "StatefulSet").await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v1"]);
    assert_eq!(summary(&world), [3, 3, 3, 3, 3]);
    let pod = &world.pods()[1];
    assert_eq!(pod["spec"]["hostname"], "web-1");
    assert_eq!(pod["spec"]["subdomain"], "web");
    assert_eq!(pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "web-1");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pod["metadata"]["labels"]["controller-revision-hash"], world.status("updateRevision"));

    world.patch(json!({"spec": {"replicas": 1}})).await;
    assert_eq!(world.told(), ["~web-2", "-web-2", "~web-1", "-web-1"]);
    world.patch(json!({"spec": {"replicas": 3}})).await;
    assert_eq!(world.told(), ["+web-1 v1", "*web-1 v1", "+web-2 v1", "*web-2 v1"]);
    let before = world.cluster.writes();
    world.rest().await;
    assert_eq!(world.cluster.writes(), before, "an idle cluster writes nothing");
}

#[tokio::test(start_paused = true)]
async fn parallel_pods_come_up_and_go_at_once() {
    let world = world(json!({"replicas": 3, "podManagementPolicy": "Parallel"})).await;
    world.patch(json!({"spec": {"replicas": 1}})).await;
    assert_eq!(world.told()[..2], ["~web-2", "~web-1"]);
    world.patch(json!({"spec": {"replicas": 3}})).await;
    assert_eq!(world.told()[..2], ["+web-1 v1", "+web-2 v1"]);
}

/// A rolling update goes from the highest ordinal to the partition, one pod at a time.
#[tokio::test(start_paused = true)]
async fn rolling_updates_pod_by_pod() {
    let step = |n: u32| [format!("~web-{n}"), format!("-web-{n}"), format!("+web-{n} v2"), format!("*web-{n} v2")];
    for policy in ["OrderedReady", "Parallel"] {
        for (at, replaced, status) in [
            (0, &[2, 1, 0][..], [3, 3, 3, 3, 3]),
            (1, &[2, 1], [3, 3, 3, 1, 2]),
            (3, &[], [3, 3, 3, 3, 0]),
            (9, &[], [3, 3, 3, 3, 0]),
        ] {
            let world = world(json!({"replicas": 3, "podManagementPolicy": policy})).await;
            world.patch(and(to(2), partition(at))).await;
            let expected: Vec<String> = replaced.iter().flat_map(|n| step(*n)).collect();
            assert_eq!(world.told(), expected, "{policy}, partition {at}");
            assert_eq!(summary(&world), status, "{policy}, partition {at}");
            let stable = if at == 0 { "v2" } else { "v1" };
            assert_eq!(
                (hash_of(&world, "currentRevision").as_str(), hash_of(&world, "updateRevision").as_str()),
                (stable, "v2")
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_keeps_old_pods_old_even_when_they_are_made_again() {
    let world = world(json!({"replicas": 3})).await;
    world.patch(and(to(2), partition(2))).await;
    world.delete_pod("web-0").await;
    world.delete_pod("web-2").await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v2"]);
    // Raised again, it takes nothing back: only pods below it that are made again are old.
    world.patch(partition(3)).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v2"]);
    world.delete_pod("web-2").await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v1"]);
}

#[tokio::test(start_paused = true)]
async fn rolling_back_numbers_the_old_revision_anew() {
    let world = world(json!({"replicas": 2})).await;
    let first = world.status("currentRevision");
    world.patch(and(to(2), partition(1))).await;
    assert_eq!(world.revisions(), [(1, "v1".into()), (2, "v2".into())]);
    world.told();
    world.patch(to(1)).await;
    assert_eq!(world.told(), ["~web-1", "-web-1", "+web-1 v1", "*web-1 v1"]);
    assert_eq!(world.revisions(), [(2, "v2".into()), (3, "v1".into())]);
    assert_eq!((world.status("currentRevision"), world.status("updateRevision")), (first.clone(), first));
    assert_eq!(summary(&world), [2, 2, 2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn scaling_in_the_middle_goes_before_updating() {
    let world = world(json!({"replicas": 3})).await;
    world.patch(and(to(2), partition(2))).await;
    world.told();
    // New ordinals are above the partition, so their pods are new.
    world.patch(json!({"spec": {"replicas": 5}})).await;
    assert_eq!(world.told(), ["+web-3 v2", "*web-3 v2", "+web-4 v2", "*web-4 v2"]);
    assert_eq!(summary(&world), [5, 5, 5, 2, 3]);
    world.patch(json!({"spec": {"replicas": 2}})).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1"]);
    assert_eq!(summary(&world), [2, 2, 2, 2, 0]);
}

/// One broken pod stops the update. Ordered sets are stuck with it even when the template is put right again; it has to
/// be deleted by hand (a limit of the real controller, too).
#[tokio::test(start_paused = true)]
async fn a_pod_that_never_gets_ready_stops_the_update() {
    for (policy, freed) in [("OrderedReady", false), ("Parallel", true)] {
        let world = world(json!({"replicas": 3, "podManagementPolicy": policy})).await;
        world.patch(to_broken(2)).await;
        assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v2!"]);
        assert_eq!(summary(&world), [3, 2, 2, 2, 1]);
        world.patch(repaired(1)).await;
        let last = if freed { "web-2 v1" } else { "web-2 v2!" };
        assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", last], "{policy}");
        world.delete_pod("web-2").await;
        assert_eq!(world.seen(), ["web-0 v1", "web-1 v1", "web-2 v1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn on_delete_updates_what_is_deleted() {
    let world = world(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}})).await;
    world.patch(to(2)).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v1"]);
    world.delete_pod("web-0").await;
    assert_eq!(world.seen(), ["web-0 v2", "web-1 v1"]);
    world.delete_pod("web-1").await;
    assert_eq!(summary(&world), [2, 2, 2, 0, 2]);
    assert_eq!(hash_of(&world, "currentRevision"), "v1", "only a rolling update is ever complete");
}

#[tokio::test(start_paused = true)]
async fn min_ready_seconds_delay_each_step() {
    let world = world(json!({"replicas": 2, "minReadySeconds": 100})).await;
    world.patch_at_once(to(2)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.seen(), ["web-0 v1", "web-1 v2"]);
    assert_eq!((world.count("readyReplicas"), world.count("availableReplicas")), (2, 1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.seen(), ["web-0 v2", "web-1 v2"]);
    assert_eq!(hash_of(&world, "currentRevision"), "v2", "complete when ready, not when available");
}

#[tokio::test(start_paused = true)]
async fn ordinals_may_start_elsewhere() {
    let world = world(json!({"replicas": 3, "ordinals": {"start": 5}})).await;
    assert_eq!(world.seen(), ["web-5 v1", "web-6 v1", "web-7 v1"]);
    // The partition counts places, not ordinals.
    world.patch(and(to(2), partition(1))).await;
    assert_eq!(world.seen(), ["web-5 v1", "web-6 v2", "web-7 v2"]);
    world.patch(json!({"spec": {"ordinals": {"start": 6}}})).await;
    assert_eq!(world.seen(), ["web-6 v2", "web-7 v2", "web-8 v2"]);
}

#[tokio::test(start_paused = true)]
async fn max_unavailable_where_the_server_has_it() {
    let spec = || {
        json!({"replicas": 5, "podManagementPolicy": "Parallel",
        "updateStrategy": {"rollingUpdate": {"maxUnavailable": "40%"}}})
    };
    let without = world(spec()).await;
    without.patch(to(2)).await;
    assert_eq!(without.told()[..3], ["~web-4", "-web-4", "+web-4 v2"]);
    assert_eq!(without.workload()["spec"]["updateStrategy"]["rollingUpdate"], json!({"partition": 0}));

    let with = world_of(Cluster::builder().seed(4).stateful_set_max_unavailable(), spec()).await;
    with.patch(to(2)).await;
    let told = with.told();
    assert_eq!(told[..2], ["~web-4", "~web-3"]);
    assert_eq!(with.seen(), ["web-0 v2", "web-1 v2", "web-2 v2", "web-3 v2", "web-4 v2"]);
    let mut missing = 0_i64;
    for event in told {
        match event.as_bytes()[0] {
            b'~' => missing += 1,
            b'*' => missing -= 1,
            _ => {}
        }
        assert!(missing <= 2, "{event}");
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_kept_up_to_the_limit() {
    let world = world(json!({"replicas": 1, "revisionHistoryLimit": 2})).await;
    for n in 2..=5 {
        world.patch(to(n)).await;
    }
    assert_eq!(world.revisions(), [(3, "v3".into()), (4, "v4".into()), (5, "v5".into())]);
}

#[tokio::test(start_paused = true)]
async fn ended_pods_are_made_again_and_orphans_adopted() {
    let world = world(json!({"replicas": 2})).await;
    let pods: Api<Pod> = api(&world.cluster, "user");
    let failed = Patch::Merge(json!({"status": {"phase": "Failed"}}));
    pods.patch_status("web-1", &PatchParams::default(), &failed).await.unwrap();
    world.rest().await;
    assert_eq!(world.told(), ["-web-1", "+web-1 v1", "*web-1 v1"], "a pod that has ended goes at once");
    let orphan = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    pods.patch("web-0", &PatchParams::default(), &orphan).await.unwrap();
    world.rest().await;
    assert_eq!(world.told(), Vec::<String>::new());
    assert_eq!(pods.get("web-0").await.unwrap().metadata.owner_references.unwrap().len(), 1);
}
