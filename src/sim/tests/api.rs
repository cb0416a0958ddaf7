use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};

use super::*;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test(start_paused = true)]
async fn create_get_update_delete() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    let made = maps.create(&PostParams::default(), &from(config_map("a", json!({"k": "1"})))).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(maps.get("a").await.unwrap(), made);

    let again = maps.create(&PostParams::default(), &from(config_map("a", json!({})))).await;
    assert_eq!(code(again), (409, "configmaps \"a\" already exists".into()));
    assert_eq!(code(maps.get("b").await), (404, "configmaps \"b\" not found".into()));

    let mut changed = made.clone();
    changed.data = Some([("k".to_owned(), "2".to_owned())].into());
    let changed = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(changed.resource_version(), made.resource_version());
    let same = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(same.resource_version(), changed.resource_version(), "nothing changed, nothing written");
    let stale = maps.replace("a", &PostParams::default(), &made).await;
    assert_eq!(
        code(stale),
        (
            409,
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again".into()
        )
    );

    let wrong = DeleteParams {
        preconditions: Some(kube::api::Preconditions { resource_version: Some("1".into()), uid: None }),
        ..DeleteParams::default()
    };
    assert_eq!(code(maps.delete("a", &wrong).await).0, 409);
    assert!(maps.delete("a", &DeleteParams::default()).await.unwrap().is_right());
    assert_eq!(code(maps.get("a").await).0, 404);
    let other: Api<ConfigMap> = Api::namespaced(cluster.client("user"), "nowhere");
    let lost = other.create(&PostParams::default(), &from(config_map("a", json!({})))).await;
    assert_eq!(code(lost), (404, "namespaces \"nowhere\" not found".into()));
}

#[tokio::test(start_paused = true)]
async fn server_side_apply_keeps_what_others_own() {
    let cluster = Cluster::builder().object(deployment("web", 2, "web:1")).build().unwrap();
    let deployments: Api<Deployment> = api(&cluster, "user");
    let apply = |replicas: Option<i64>, labels: Value| {
        let mut o =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": labels}});
        if let Some(r) = replicas {
            o["spec"] = json!({"replicas": r});
        }
        Patch::Apply(o)
    };
    let mine = PatchParams::apply("tidegate");
    let taken = deployments.patch("web", &mine, &apply(Some(5), json!({}))).await;
    assert_eq!(
        code(taken),
        (409, "Apply failed with 1 conflict: conflict with \"user\" using apps/v1: .spec.replicas".into())
    );
    let forced =
        deployments.patch("web", &mine.clone().force(), &apply(Some(5), json!({"a": "1", "b": "2"}))).await.unwrap();
    assert_eq!(forced.spec.as_ref().unwrap().replicas, Some(5));
    assert_eq!(forced.labels().get("app").map(String::as_str), Some("web"));
    let again = deployments.patch("web", &mine, &apply(Some(5), json!({"a": "1", "b": "2"}))).await.unwrap();
    assert_eq!(again.resource_version(), forced.resource_version(), "the same configuration is no write");
    let less = deployments.patch("web", &mine, &apply(None, json!({"a": "1"}))).await.unwrap();
    assert_eq!(less.labels().get("b"), None, "a dropped field goes");
    assert_eq!(less.labels().get("app").map(String::as_str), Some("web"));
    assert_eq!(less.spec.as_ref().unwrap().replicas, Some(1), "a dropped field falls back to its default");
    let managers: Vec<String> = less.managed_fields().iter().filter_map(|m| m.manager.clone()).collect();
    assert_eq!(managers, ["tidegate", "user"]);
}

#[tokio::test(start_paused = true)]
async fn apply_creates_and_shares() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    let config = |data: Value| Patch::Apply(config_map("a", data));
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    maps.patch("a", &one, &config(json!({"x": "1", "y": "1"}))).await.unwrap();
    maps.patch("a", &two, &config(json!({"x": "1", "z": "1"}))).await.unwrap();
    let conflict = code(maps.patch("a", &two, &config(json!({"x": "2", "z": "1"}))).await);
    assert_eq!(conflict, (409, "Apply failed with 1 conflict: conflict with \"one\": .data.x".into()));
    // Shared fields stay when one of the owners drops them.
    let left = maps.patch("a", &one, &config(json!({}))).await.unwrap();
    assert_eq!(left.data, Some([("x".to_owned(), "1".to_owned()), ("z".to_owned(), "1".to_owned())].into()));
    assert_eq!(code(maps.patch("a", &PatchParams::default(), &config(json!({}))).await).0, 422);
}

#[tokio::test(start_paused = true)]
async fn json_patch_tests_guard_the_write() {
    let cluster = Cluster::builder().object(deployment("web", 2, "web:1")).build().unwrap();
    let deployments: Api<Deployment> = api(&cluster, "user");
    let patch = |ops: Value| Patch::<()>::Json(from(ops));
    let none = PatchParams::default();
    let good = patch(
        json!([{"op": "test", "path": "/spec/replicas", "value": 2}, {"op": "replace", "path": "/spec/replicas", "value": 3}]),
    );
    let web = deployments.patch("web", &none, &good).await.unwrap();
    assert_eq!(web.metadata.generation, Some(2));
    let (status, message) = code(deployments.patch("web", &none, &good).await);
    assert_eq!(status, 422);
    assert_eq!(message, "the server rejected our request due to an error in our request");
    let stale = patch(json!([{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}]));
    assert_eq!(code(deployments.patch("web", &none, &stale).await).0, 409);
    let missing = patch(json!([{"op": "remove", "path": "/spec/nothing"}]));
    assert_eq!(code(deployments.patch("web", &none, &missing).await).0, 422);
}

#[tokio::test(start_paused = true)]
async fn dry_run_writes_nothing() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    let before = cluster.writes();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &from(config_map("a", json!({})))).await.unwrap();
    assert_eq!(code(maps.get("a").await).0, 404);
    assert_eq!(cluster.writes(), before);
}

#[tokio::test(start_paused = true)]
async fn status_and_scale_are_their_own() {
    let cluster = Cluster::builder().object(deployment("web", 2, "web:1")).build().unwrap();
    cluster.enable_controller("deployment-controller", false);
    let deployments: Api<Deployment> = api(&cluster, "user");
    let none = PatchParams::default();
    let scaled = deployments.patch_scale("web", &none, &Patch::Merge(json!({"spec": {"replicas": 4}}))).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(4));
    assert_eq!(scaled.status.unwrap().selector.as_deref(), Some("app=web"));
    let change = Patch::Merge(json!({"spec": {"replicas": 9}, "status": {"readyReplicas": 1}}));
    let web = deployments.patch_status("web", &none, &change).await.unwrap();
    assert_eq!(web.spec.unwrap().replicas, Some(4));
    assert_eq!(web.status.unwrap().ready_replicas, Some(1));
    let web = deployments.patch("web", &none, &Patch::Merge(json!({"status": {"readyReplicas": 7}}))).await.unwrap();
    assert_eq!(web.status.unwrap().ready_replicas, Some(1));
    assert_eq!(web.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_scale_takes_over_replicas_that_somebody_owns() {
    let apply = |spec: Value| Patch::Apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}));
    for (given_up, owner) in [(false, Some("Scaler")), (true, None)] {
        let cluster = Cluster::builder().object(deployment("web", 2, "web:1")).build().unwrap();
        cluster.enable_controller("deployment-controller", false);
        let deployments: Api<Deployment> = api(&cluster, "user");
        if given_up {
            let force = PatchParams::apply("tide").force();
            deployments.patch("web", &force, &apply(json!({"replicas": 3}))).await.unwrap();
            deployments.patch("web", &force, &apply(json!({"paused": true}))).await.unwrap();
        }
        let scaler = PatchParams { field_manager: Some("Scaler".into()), ..PatchParams::default() };
        deployments.patch_scale("web", &scaler, &Patch::Merge(json!({"spec": {"replicas": 4}}))).await.unwrap();
        let web = deployments.get("web").await.unwrap();
        assert_eq!(web.spec.unwrap().replicas, Some(4));
        let owns =
            |m: &&ManagedFieldsEntry| m.fields_v1.as_ref().is_some_and(|f| !f.0["f:spec"]["f:replicas"].is_null());
        let managers = web.metadata.managed_fields.unwrap();
        assert_eq!(managers.iter().find(owns).and_then(|m| m.manager.as_deref()), owner, "given up: {given_up}");
    }
}

#[tokio::test(start_paused = true)]
async fn custom_resources_have_versions() {
    let cluster = Cluster::builder()
        .kind("rollouts.kruise.io", &["v1beta1", "v1alpha1"], "rollouts", "Rollout", true)
        .build()
        .unwrap();
    let beta = dynamic(&cluster, "user", "rollouts.kruise.io/v1beta1", "Rollout", "rollouts");
    let alpha = dynamic(&cluster, "user", "rollouts.kruise.io/v1alpha1", "Rollout", "rollouts");
    let object = json!({"apiVersion": "rollouts.kruise.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "r"}, "spec": {"a": 1}, "status": {"x": 1}});
    let made = alpha.create(&PostParams::default(), &from(object)).await.unwrap();
    assert_eq!(made.types.unwrap().api_version, "rollouts.kruise.io/v1alpha1");
    assert_eq!(made.data.get("status"), None);
    assert_eq!(made.metadata.generation, Some(1));
    let read = beta.get("r").await.unwrap();
    assert_eq!(read.types.as_ref().unwrap().api_version, "rollouts.kruise.io/v1beta1");
    let none = PatchParams::default();
    let read = beta.patch("r", &none, &Patch::Merge(json!({"spec": {"b": 1}}))).await.unwrap();
    assert_eq!(read.metadata.generation, Some(2));
    let read = beta.patch_status("r", &none, &Patch::Merge(json!({"status": {"y": 1}}))).await.unwrap();
    assert_eq!((read.metadata.generation, read.data["status"].clone()), (Some(2), json!({"y": 1})));
    assert_eq!(beta.list(&ListParams::default().labels("x=y")).await.unwrap().items.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_back() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    let mut object = config_map("a", json!({}));
    object["metadata"]["finalizers"] = json!(["x.io/y"]);
    maps.create(&PostParams::default(), &from(object)).await.unwrap();
    let waiting = maps.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    let none = PatchParams::default();
    let more = maps.patch("a", &none, &Patch::Merge(json!({"metadata": {"finalizers": ["x.io/y", "z.io/z"]}}))).await;
    assert_eq!(code(more).0, 422);
    maps.patch("a", &none, &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
    assert_eq!(code(maps.get("a").await).0, 404);
}

#[tokio::test(start_paused = true)]
async fn deletion_cascades() {
    for (params, left) in [
        (DeleteParams::background(), 0),
        (DeleteParams::foreground(), 0),
        (DeleteParams { propagation_policy: Some(kube::api::PropagationPolicy::Orphan), ..DeleteParams::default() }, 2),
    ] {
        let cluster = Cluster::builder().object(deployment("web", 2, "web:1")).build().unwrap();
        settle().await;
        let deployments: Api<Deployment> = api(&cluster, "user");
        deployments.delete("web", &params).await.unwrap();
        settle().await;
        assert_eq!(code(deployments.get("web").await).0, 404);
        let pods: Api<Pod> = api(&cluster, "user");
        assert_eq!(pods.list(&Default::default()).await.unwrap().items.len(), left, "{params:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_supported_says_so() {
    let cluster = cluster();
    let request = http::Request::post("/api/v1/namespaces/default/pods/a/eviction").body(Vec::new()).unwrap();
    let answer = cluster.client("user").request::<Value>(request).await;
    assert_eq!(code(answer), (501, "the in-memory API server does not support post on pods/eviction".into()));
    let version = cluster.client("user").apiserver_version().await.unwrap();
    assert_eq!(version.git_version, "v1.36.3");
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_kinds() {
    let cluster = Cluster::builder().kind("g.io", &["v1"], "things", "Thing", true).build().unwrap();
    let discovery = kube::Discovery::new(cluster.client("user")).run().await.unwrap();
    for (group, kind) in [("apps", "Deployment"), ("", "Pod"), ("g.io", "Thing")] {
        let gvk = GroupVersionKind::gvk(group, "v1", kind);
        assert!(discovery.resolve_gvk(&gvk).is_some(), "{gvk:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_hold_is_part_of_the_write() {
    let mut object = deployment("web", 2, "web:1");
    object["metadata"]["labels"][crate::api::keys::WORKLOAD_TYPE] = json!("deployment");
    let cluster = Cluster::builder().hold().object(object).build().unwrap();
    settle().await;
    let deployments: Api<Deployment> = api(&cluster, "user");
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:2"}]}}}});
    let web = deployments.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await.unwrap();
    assert_eq!(web.spec.as_ref().unwrap().paused, Some(true));
    settle().await;
    let sets: Api<ReplicaSet> = api(&cluster, "user");
    assert_eq!(sets.list(&Default::default()).await.unwrap().items.len(), 1, "nothing rolls");
}

#[tokio::test(start_paused = true)]
async fn admission_may_refuse() {
    let cluster = Cluster::builder()
        .admission(|request| match request.name {
            "bad" => Err(Box::new(kube::core::Status::failure("no", "Forbidden").with_code(403))),
            _ => Ok(None),
        })
        .build()
        .unwrap();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    let refused = maps.create(&PostParams::default(), &from(config_map("bad", json!({})))).await;
    assert_eq!(code(refused), (403, "no".into()));
    maps.create(&PostParams::default(), &from(config_map("good", json!({})))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_selector() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    for (name, label) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let mut object = config_map(name, json!({}));
        object["metadata"]["labels"] = json!({"x": label});
        maps.create(&PostParams::default(), &from(object)).await.unwrap();
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("x=1")).await.unwrap();
    let left: Vec<String> = maps.list(&ListParams::default()).await.unwrap().iter().map(|m| m.name_any()).collect();
    assert_eq!(left, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let mut web = deployment("web", 2, "web:1");
    web["metadata"]["namespace"] = json!("shop");
    let cluster = Cluster::builder().namespace("shop").object(web).build().unwrap();
    settle().await;
    let pods = Gvr::new("", "v1", "pods");
    assert_eq!(cluster.list(&pods, Some("shop")).len(), 2);
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client("user"));
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client("user"), "shop");
    let late = maps.create(&PostParams::default(), &from(config_map("late", json!({})))).await;
    assert_eq!(code(late).0, 403);
    settle().await;
    assert_eq!(code(namespaces.get("shop").await).0, 404);
    for plural in ["deployments", "replicasets"] {
        assert!(cluster.list(&Gvr::new("apps", "v1", plural), Some("shop")).is_empty(), "{plural}");
    }
    assert!(cluster.list(&pods, Some("shop")).is_empty());
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    for i in 0..5 {
        maps.create(&PostParams::default(), &from(config_map(&format!("m{i}"), json!({})))).await.unwrap();
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = maps
            .list(&ListParams { limit: Some(2), continue_token: Some(token), ..ListParams::default() })
            .await
            .unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.iter().map(|m| m.name_any()));
        match page.metadata.continue_.filter(|t| !t.is_empty()) {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_client_and_verb() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "controller");
    maps.create(&PostParams::default(), &from(config_map("a", json!({})))).await.unwrap();
    for _ in 0..2 {
        maps.get("a").await.unwrap();
    }
    let counts = cluster.requests();
    assert_eq!(counts.get(&(Arc::from("controller"), Verb::Get)), Some(&2));
    assert_eq!(counts.get(&(Arc::from("controller"), Verb::Create)), Some(&1));
    assert_eq!(counts.get(&(Arc::from("user"), Verb::Get)), None);
}

#[tokio::test(start_paused = true)]
async fn zero_values_of_built_in_kinds_are_not_stored() {
    let cluster = cluster();
    let deployments: Api<DynamicObject> = dynamic(&cluster, "user", "apps/v1", "Deployment", "deployments");
    let mut web = deployment("web", 1, "web:1");
    web["spec"]["paused"] = json!(false);
    web["metadata"]["annotations"] = json!({});
    let made = deployments.create(&PostParams::default(), &from(web)).await.unwrap();
    assert_eq!(made.data["spec"].get("paused"), None);
    assert_eq!(made.metadata.annotations, None);
    let patch = Patch::Merge(json!({"spec": {"paused": false, "minReadySeconds": 0}}));
    let same = deployments.patch("web", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(same.resource_version(), made.resource_version());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_in_the_body_deletes_nothing() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    maps.create(&PostParams::default(), &from(config_map("a", json!({})))).await.unwrap();
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    assert!(maps.delete("a", &dry).await.unwrap().is_right());
    assert!(maps.get_opt("a").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_owned_belongs_to_before_first_apply() {
    let cluster = cluster();
    let maps: Api<ConfigMap> = api(&cluster, "user");
    maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "a"}}))).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"k": "1"}}));
    let changed = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert!(changed.managed_fields().is_empty(), "an object that was not tracked is not tracked");
    let config = Patch::Apply(config_map("a", json!({"k": "2"})));
    let taken = code(maps.patch("a", &PatchParams::apply("one"), &config).await);
    assert_eq!(taken.0, 409);
    assert!(taken.1.contains("\"before-first-apply\" using v1: .data.k"), "{}", taken.1);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_made_by_an_update_and_keeps_its_address() {
    let cluster = cluster();
    let services: Api<DynamicObject> = dynamic(&cluster, "user", "v1", "Service", "services");
    let web =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let made = services.replace("web", &PostParams::default(), &from(web.clone())).await.unwrap();
    let again = services.replace("web", &PostParams::default(), &from(web)).await.unwrap();
    assert_eq!(again.data["spec"]["clusterIP"], made.data["spec"]["clusterIP"]);
    assert_eq!(again.resource_version(), made.resource_version());
}
