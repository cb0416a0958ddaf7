//! The doctor looks at clusters in memory; what those do not do themselves is answered beside.

use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::*;
use crate::{cli::demo::world::install, sim::Cluster};

type Answer = http::Response<Body>;

fn answer(code: u16, body: &Value) -> Answer {
    http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}

/// A client of `cluster` that may be told who may do what: `granted` are pairs of a namespace, none for all of them, and a
/// resource.
fn client(cluster: &Cluster, granted: &'static [(&'static str, &'static str)], is_validated: bool) -> Client {
    let inner = cluster.client("admin");
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let inner = inner.clone();
        async move {
            let path = request.uri().path().to_owned();
            if path == "/version" {
                let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
                    "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
                return Ok(answer(200, &version));
            }
            if path.ends_with("/subjectaccessreviews") {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let asked: Value = serde_json::from_slice(&body).unwrap();
                let wanted = &asked["spec"]["resourceAttributes"];
                let of = (wanted["namespace"].as_str().unwrap_or_default(), wanted["resource"].as_str().unwrap());
                let allowed =
                    granted.iter().any(|(place, resource)| *resource == of.1 && (place.is_empty() || *place == of.0));
                return Ok(answer(201, &json!({"spec": asked["spec"], "status": {"allowed": allowed}})));
            }
            if is_validated && request.method() == http::Method::POST && path.ends_with("/rollouts") {
                return Ok(answer(
                    422,
                    &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid",
                        "message": "metadata.annotations[rollouts.kruise.io/rolling-style] is \"doctor\"; choose canary or partition"}),
                ));
            }
            inner.send(request).await
        }
    });
    Client::new(service, "default")
}

fn deployment(arguments: &[&str]) -> Value {
    let labels = json!({"app.kubernetes.io/name": "tidegate", "app.kubernetes.io/version": env!("CARGO_PKG_VERSION")});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tidegate", "namespace": "tidegate", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "tidegate", "image": "tidegate:1", "args": arguments}]}}}})
}

fn rollout(namespace: &str) -> Value {
    let steps = json!([{"replicas": 1, "gates": [{"name": "load", "job": {"cronJob": "load"}}]}]);
    json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "strategy": {"canary": {"steps": steps}}}})
}

/// What is said of an installation with these objects.
async fn said(objects: &[Value], granted: &'static [(&'static str, &'static str)], is_whole: bool) -> Vec<String> {
    let mut builder = Cluster::builder();
    if is_whole {
        builder = install(builder).unwrap();
    }
    builder = builder.namespace("tidegate").namespace("shop").namespace("ops");
    for (plural, kind) in [("cronjobs", "CronJob"), ("jobs", "Job")] {
        builder = builder.kind("batch", &["v1"], plural, kind, true);
    }
    for object in objects {
        builder = builder.object(object.clone());
    }
    let cluster = builder.build().unwrap();
    let look = Look {
        client: client(&cluster, granted, is_whole),
        namespace: "tidegate".to_owned(),
        user: "tidegate".to_owned(),
        namespaces: Vec::new(),
        namespace_scripts: false,
    };
    judge(&look.facts().await).iter().map(ToString::to_string).collect()
}

fn has(said: &[String], begins: &str) {
    assert!(said.iter().any(|line| line.starts_with(begins)), "{begins:?} is not said: {said:#?}");
}

const GRANTED: &[(&str, &str)] = &[("", "deployments"), ("", "cronjobs"), ("", "jobs")];
/// By Roles of two namespaces.
const IN_SOME: &[(&str, &str)] =
    &[("shop", "deployments"), ("shop", "cronjobs"), ("shop", "jobs"), ("ops", "deployments")];

#[tokio::test]
async fn rights_are_asked_for_where_the_controller_has_them() {
    let everywhere = said(&[deployment(&["controller"]), rollout("shop")], GRANTED, true).await;
    has(&everywhere, "ok    API server: v1.36.0");
    has(&everywhere, "ok    version of the controller: ");
    has(&everywhere, "ok    definition rollouts.rollouts.kruise.io: as this version has it");
    has(&everywhere, "ok    hold of changed workloads: by ");
    has(&everywhere, "ok    apps/Deployment (Rollout shop/web): served, with the rights that it needs");
    assert!(!everywhere.iter().any(|line| line.contains("namespaces:")), "{everywhere:#?}");

    let arguments = ["controller", "--namespaces=shop,ops"];
    let in_some = said(&[deployment(&arguments), rollout("shop")], IN_SOME, true).await;
    has(&in_some, "ok    namespaces: only shop, ops watched, and no Rollout is elsewhere");
    has(&in_some, "ok    apps/Deployment (Rollout shop/web): served, with the rights that it needs");
    has(&in_some, "ok    batch/Job (Rollout shop/web): served, with the rights that it needs");

    let lacking = said(&[deployment(&arguments), rollout("ops"), rollout("default")], IN_SOME, true).await;
    has(&lacking, "warn  namespaces: only shop, ops watched: 1 Rollouts and TrafficRoutings elsewhere");
    has(&lacking, "ok    apps/Deployment (Rollout default/web): served");
    has(
        &lacking,
        "FAIL  batch/Job (Rollout default/web): the controller may not get, list, watch, create, patch it in namespace ops: set",
    );
}

#[tokio::test]
async fn what_is_missing_and_what_the_original_has_begun_is_found() {
    let begun = |kind: &str| {
        let mut set = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web", "namespace": "shop",
            "annotations": {"batchrelease.rollouts.kruise.io/control-info": "{}"}},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "web:1"}]}}}});
        if kind == "StatefulSet" {
            set["spec"]["serviceName"] = json!("web");
        }
        set
    };
    let bare = said(&[begun("StatefulSet"), begun("DaemonSet")], &[], false).await;
    has(&bare, "FAIL  definition rollouts.rollouts.kruise.io: it is not there");
    has(&bare, "FAIL  hold of changed workloads: nothing holds them");
    has(&bare, "warn  webhook that validates: it is not there");
    has(&bare, "FAIL  leader: nobody leads");
    has(&bare, "FAIL  releases of OpenKruise Rollouts: 2 begun and not taken over, StatefulSet shop/web first");
}
