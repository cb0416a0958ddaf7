//! `tidegate uninstall`, with a controller that lets go, and without one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::time::Duration;

use serde_json::{Value, json};
use tidegate::{
    api::keys::LEASE,
    cli::{
        demo::world::{CONTROLLER, install, options, start_controller},
        uninstall::{OnRelease, leave, let_delete},
    },
    controller::{self, lease::Election},
    sim::{Cluster, Gvr},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

fn cluster() -> Cluster {
    let mut builder = install(Cluster::builder()).unwrap().namespace("shop").namespace("kruise-rollout");
    for name in ["web", "api"] {
        let meta = json!({"name": name, "namespace": "shop"});
        let app = json!({"app": name});
        builder = builder
            .object(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
                "spec": {"replicas": 5, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                         "spec": {"containers": [{"name": "main", "image": "main:1"}]}}}}))
            .object(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": meta,
                "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                         "strategy": {"canary": {"steps": [{"replicas": 1, "pause": {}}, {"replicas": "100%"}]}}}}));
    }
    builder.build().unwrap()
}

fn get(cluster: &Cluster, gvr: &Gvr, name: &str) -> Value {
    (*cluster.get(gvr, "shop", name).unwrap()).clone()
}

fn rollout(cluster: &Cluster, name: &str) -> Value {
    get(cluster, &Gvr::new("rollouts.kruise.io", "v1beta1", "rollouts"), name)
}

fn deployment(cluster: &Cluster, name: &str) -> Value {
    get(cluster, &Gvr::new("apps", "v1", "deployments"), name)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < 300 * SECOND, "{what}");
        sleep(SECOND / 10).await;
    }
}

/// A controller, and the release of `web` waiting at its first step.
async fn midway(cluster: &Cluster) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let controller = start_controller(cluster, cluster.client(CONTROLLER), stop.clone());
    let healthy = || ["web", "api"].iter().all(|name| rollout(cluster, name)["status"]["phase"] == "Healthy");
    until("both are healthy", healthy).await;
    let client = cluster.client("person");
    let done = leave(&client, &[], OnRelease::Refuse, SECOND).await.unwrap();
    assert!(done.contains("the controller may go"), "{done}");
    let api = kube::Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(client, "shop");
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}});
    api.patch("web", &Default::default(), &kube::api::Patch::Strategic(change)).await.unwrap();
    until("it waits", || rollout(cluster, "web")["status"]["currentStepState"] == "StepPaused").await;
    (stop, controller)
}

#[tokio::test(start_paused = true)]
async fn a_release_that_goes_on_is_a_reason_to_refuse() {
    let cluster = cluster();
    let (stop, controller) = midway(&cluster).await;
    let before = cluster.writes();
    let error = leave(&cluster.client("person"), &[], OnRelease::Refuse, SECOND).await.unwrap_err().to_string();
    for part in [
        "Rollout shop/web: Progressing at step 1, StepPaused",
        "deployments.apps shop/web is held",
        "tidegate uninstall --on-release finish",
    ] {
        assert!(error.contains(part), "{part:?} is not said: {error}");
    }
    assert!(!error.contains("shop/api"), "{error}");
    assert_eq!(cluster.writes(), before, "a look changes nothing");
    stop.cancel();
    controller.await.unwrap();
    // Nobody lets go: it is not said that it was done, and the Rollout is as its author wrote it.
    let spec = rollout(&cluster, "web")["spec"].clone();
    let error = leave(&cluster.client("person"), &[], OnRelease::Finish, 30 * SECOND).await.unwrap_err().to_string();
    assert!(error.contains("within 30 s the controller has not let go") && error.contains("shop/web"), "{error}");
    assert_eq!(rollout(&cluster, "web")["spec"], spec);
}

#[tokio::test(start_paused = true)]
async fn releases_are_let_go_and_nothing_stays_held() {
    let cluster = cluster();
    let (stop, _controller) = midway(&cluster).await;
    let spec = rollout(&cluster, "web")["spec"].clone();
    let done = leave(&cluster.client("person"), &[], OnRelease::Finish, 240 * SECOND).await.unwrap();
    assert!(done.starts_with("1 releases were let go"), "{done}");
    stop.cancel();
    assert_eq!(rollout(&cluster, "web")["spec"], spec, "as its author wrote it");
    let is_rolled = || {
        let web = deployment(&cluster, "web");
        web["spec"].get("paused").is_none_or(|paused| paused == false) && web["status"]["updatedReplicas"] == 5
    };
    until("the new version is everywhere", is_rolled).await;
    let web = deployment(&cluster, "web");
    assert_eq!(web["metadata"]["annotations"].get("rollouts.kruise.io/in-progressing"), None, "{web}");
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "main:2");
}

#[tokio::test(start_paused = true)]
async fn held_workloads_of_kinds_that_only_a_rollout_names_are_found() {
    let definition: Value = tidegate::yaml::from_str(include_str!("e2e/crds/gameserversets.yaml")).unwrap();
    let meta = json!({"name": "arena", "namespace": "shop"});
    let mut held = json!({"apiVersion": "games.example.com/v1beta1", "kind": "GameServerSet", "metadata": meta,
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "arena"}},
                 "template": {"metadata": {"labels": {"app": "arena"}}}}});
    held["metadata"]["annotations"] = json!({"rollouts.kruise.io/in-progressing": r#"{"rolloutName":"arena"}"#});
    let builder = install(Cluster::builder()).unwrap().namespace("shop").object(definition);
    let cluster = builder.build().unwrap();
    cluster.create(held).unwrap();
    let named = |name: &str, kind: &str| {
        json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"workloadRef": {"apiVersion": "games.example.com/v1beta1", "kind": kind, "name": "arena"},
                 "strategy": {"canary": {"steps": [{"replicas": 1}]}}}})
    };
    // One of a kind that is not served stands in nobody's way.
    cluster.create(named("gone", "NotServed")).unwrap();
    let client = cluster.client("person");
    let done = leave(&client, &[], OnRelease::Refuse, SECOND).await.unwrap();
    assert!(done.contains("the controller may go"), "nobody names its kind: {done}");
    cluster.create(named("arena", "GameServerSet")).unwrap();
    let error = leave(&client, &[], OnRelease::Refuse, SECOND).await.unwrap_err().to_string();
    assert!(error.contains("gameserversets.games.example.com shop/arena is held"), "{error}");
}

/// Everything that a Rollout's or TrafficRouting's deletion waits for.
fn finalizers(cluster: &Cluster) -> Vec<Value> {
    let of = |version: &str, plural: &str| cluster.list(&Gvr::new("rollouts.kruise.io", version, plural), None);
    let all = of("v1beta1", "rollouts").into_iter().chain(of("v1alpha1", "trafficroutings"));
    all.flat_map(|o| o["metadata"]["finalizers"].as_array().cloned().unwrap_or_default()).collect()
}

fn shared_route() -> Value {
    json!({"apiVersion": "rollouts.kruise.io/v1alpha1", "kind": "TrafficRouting", "metadata": {"name": "shared", "namespace": "shop",
        "finalizers": ["example.com/kept"]},
        "spec": {"objectRef": [{"service": "web", "networkRefs": [
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "name": "web"}]}]}})
}

#[tokio::test(start_paused = true)]
async fn what_stays_can_be_deleted_without_a_controller() {
    let cluster = cluster();
    cluster.create(shared_route()).unwrap();
    let stop = CancellationToken::new();
    for replica in ["first", "second"] {
        let election = Election {
            namespace: "kruise-rollout".to_owned(),
            name: LEASE.to_owned(),
            identity: replica.to_owned(),
            duration: 15 * SECOND,
            deadline: 10 * SECOND,
            retry: 2 * SECOND,
        };
        tokio::spawn(controller::run_elected(cluster.client(replica), options(&cluster), election, stop.clone()));
    }
    let all = || finalizers(&cluster).len() == 4;
    until("each has its finalizer", all).await;
    let client = cluster.client("person");
    let said = let_delete(&client, &[], "kruise-rollout").await.unwrap();
    assert!(said.starts_with("3 objects had this controller's finalizer"), "{said}");
    // No replica leads while Helm takes the Deployment away.
    sleep(90 * SECOND).await;
    assert_eq!(finalizers(&cluster), [json!("example.com/kept")]);
    assert!(let_delete(&client, &[], "kruise-rollout").await.unwrap().starts_with("0 objects"));
    // They were not taken away: they go on.
    until("each has its finalizer again", all).await;

    // A release that has begun is not abandoned, and its controller has to wait for nobody.
    let api = kube::Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(client.clone(), "shop");
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}});
    api.patch("web", &Default::default(), &kube::api::Patch::Strategic(change)).await.unwrap();
    let error = let_delete(&client, &[], "kruise-rollout").await.unwrap_err().to_string();
    assert!(error.contains("meanwhile these have begun") && error.contains("deployments.apps shop/web"), "{error}");
    let begin = Instant::now();
    until("it waits", || rollout(&cluster, "web")["status"]["currentStepState"] == "StepPaused").await;
    assert!(begin.elapsed() < 30 * SECOND, "{:?}", begin.elapsed());
    assert_eq!(finalizers(&cluster).len(), 4);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_minds_no_lease_is_told_of() {
    let cluster = cluster();
    let stop = CancellationToken::new();
    start_controller(&cluster, cluster.client(CONTROLLER), stop.clone());
    until("each has its finalizer", || finalizers(&cluster).len() == 2).await;
    let client = cluster.client("person");
    let error = let_delete(&client, &[], "kruise-rollout").await.unwrap_err().to_string();
    assert!(error.contains("a controller without leader election has put its finalizer back"), "{error}");
    stop.cancel();
    sleep(SECOND).await;
    let said = let_delete(&client, &["shop".to_owned()], "kruise-rollout").await.unwrap();
    assert!(said.starts_with("2 objects"), "{said}");
    assert!(finalizers(&cluster).is_empty());
}

/// Whoever is being deleted waits for the controller, and so does a route that is shared.
#[tokio::test(start_paused = true)]
async fn what_waits_for_the_controller_is_a_reason_to_refuse() {
    let cluster = cluster();
    let (stop, controller) = midway(&cluster).await;
    stop.cancel();
    controller.await.unwrap();
    cluster.create(shared_route()).unwrap();
    let client = cluster.client("person");
    let routes = kube::Api::<tidegate::api::v1alpha1::TrafficRouting>::namespaced(client.clone(), "shop");
    let status = kube::api::Patch::Merge(json!({"status": {"phase": "Finalizing"}}));
    routes.patch_status("shared", &Default::default(), &status).await.unwrap();
    let api = kube::Api::<tidegate::api::v1beta1::Rollout>::namespaced(client.clone(), "shop");
    api.delete("api", &Default::default()).await.unwrap();
    let error = leave(&client, &[], OnRelease::Refuse, SECOND).await.unwrap_err().to_string();
    for part in
        ["Rollout shop/api: Healthy, it is being deleted", "TrafficRouting shop/shared: its routes are not put back"]
    {
        assert!(error.contains(part), "{part:?} is not said: {error}");
    }
}
