use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::json;

use super::*;

const ROLLOUT: &str = "
apiVersion: rollouts.kruise.io/v1beta1
kind: Rollout
metadata: {name: web, namespace: shop, annotations: {rollouts.kruise.io/trafficrouting: front}}
spec:
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  strategy:
    canary:
      steps: [{traffic: 20%}]
      trafficRoutingRef: front
      trafficRoutings:
      - service: web
        ingress: {name: web}
        gateway: {httpRouteName: web}
        customNetworkRefs:
        - {apiVersion: networking.istio.io/v1, kind: VirtualService, name: web}
        networkRefs:
        - {apiVersion: networking.istio.io/v1, kind: VirtualService, name: web}
        - {apiVersion: example.io/v1, kind: Mesh, name: all}
";

fn parsed(text: &str) -> Value {
    crate::yaml::from_str(text).unwrap()
}

fn named(object: &Value) -> Vec<String> {
    targets(object).iter().map(|t| format!("{} {} {}: {}", t.api_version, t.kind, t.name, t.field)).collect()
}

#[test]
fn everything_that_is_named_is_asked_for_once() {
    assert_eq!(
        named(&parsed(ROLLOUT)),
        [
            "apps/v1 Deployment web: spec.workloadRef",
            "v1 Service web: spec.strategy.canary.trafficRoutings[0].service",
            "networking.k8s.io/v1 Ingress web: spec.strategy.canary.trafficRoutings[0].ingress.name",
            "gateway.networking.k8s.io/v1 HTTPRoute web: spec.strategy.canary.trafficRoutings[0].gateway.httpRouteName",
            "networking.istio.io/v1 VirtualService web: spec.strategy.canary.trafficRoutings[0].customNetworkRefs[0]",
            "example.io/v1 Mesh all: spec.strategy.canary.trafficRoutings[0].networkRefs[1]",
            "rollouts.kruise.io/v1alpha1 TrafficRouting front: spec.strategy.canary.trafficRoutingRef",
        ]
    );
    let old = "
kind: Rollout
metadata: {annotations: {rollouts.kruise.io/trafficrouting: front}}
spec: {objectRef: {workloadRef: {apiVersion: apps/v1, kind: StatefulSet, name: db}}}
";
    assert_eq!(
        named(&parsed(old)),
        [
            "apps/v1 StatefulSet db: spec.objectRef.workloadRef",
            "rollouts.kruise.io/v1alpha1 TrafficRouting front: metadata.annotations[rollouts.kruise.io/trafficrouting]",
        ]
    );
    let blue_green = "
kind: Rollout
spec: {strategy: {blueGreen: {trafficRoutings: [{service: web}]}}}
";
    assert_eq!(named(&parsed(blue_green)), ["v1 Service web: spec.strategy.blueGreen.trafficRoutings[0].service"]);
    let gates = "
kind: Rollout
spec: {strategy: {canary: {steps: [{gates: [{name: qa}, {name: smoke, job: {cronJob: smoke}}]}]}}}
";
    assert_eq!(named(&parsed(gates)), ["batch/v1 CronJob smoke: spec.strategy.canary.steps[0].gates[1].job.cronJob"]);
    let metrics = "
kind: Rollout
spec: {strategy: {analysis: {metrics: [{name: a, query: up}, {name: b, query: load, provider: {job: {}}}]}}}
";
    assert_eq!(named(&parsed(metrics)), ["batch/v1 CronJob load: spec.strategy.analysis.metrics[1].query"]);
    let routing = "
kind: TrafficRouting
spec: {objectRef: [{service: web, ingress: {name: edge}}]}
";
    assert_eq!(
        named(&parsed(routing)),
        [
            "v1 Service web: spec.objectRef[0].service",
            "networking.k8s.io/v1 Ingress edge: spec.objectRef[0].ingress.name"
        ]
    );
    assert_eq!(named(&json!({"kind": "Rollout", "spec": 3})), [""; 0]);
}

#[test]
fn only_what_changes_our_doing_is_asked_about() {
    let old = parsed(ROLLOUT);
    assert!(is_asked(&old, None), "creation");
    for (what, pointer, value, asked) in [
        ("nothing", "/metadata/generation", json!(2), false),
        ("a finalizer", "/metadata/finalizers", json!(["x"]), false),
        ("a label", "/metadata/labels", json!({"team": "web"}), false),
        ("status", "/status", json!({"phase": "Healthy"}), false),
        ("halting", "/spec/strategy/paused", json!(true), false),
        ("steps", "/spec/strategy/canary/steps", json!([{"traffic": "50%"}]), true),
        ("the workload", "/spec/workloadRef/name", json!("db"), true),
        ("disabling", "/spec/disabled", json!(true), true),
        ("another shared routing", "/metadata/annotations", json!({keys::TRAFFIC_ROUTING: "other"}), true),
        (
            "the style",
            "/metadata/annotations",
            json!({keys::TRAFFIC_ROUTING: "front", keys::ROLLING_STYLE: "canary"}),
            true,
        ),
    ] {
        let mut new = old.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[key] = value;
        assert_eq!(is_asked(&new, Some(&old)), asked, "{what}");
        new["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_asked(&new, Some(&old)), "{what}, while it is deleted");
    }
}

/// An API server that knows who may patch what, and counts what it is asked.
fn api_server(may: &'static [(&'static str, &'static str)], asked: &Arc<AtomicUsize>) -> Client {
    let asked = asked.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let asked = asked.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let answer = match path.as_str() {
                "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let (spec, wanted) = (&body["spec"], &body["spec"]["resourceAttributes"]);
                    assert_eq!((&wanted["verb"], &wanted["namespace"]), (&json!("patch"), &json!("shop")));
                    let resource =
                        format!("{}/{}", wanted["resource"].as_str().unwrap(), wanted["name"].as_str().unwrap());
                    let allowed = may.iter().any(|(user, what)| spec["user"] == *user && resource == *what)
                        || spec["groups"].as_array().is_some_and(|g| g.contains(&json!("admins")));
                    json!({"spec": spec, "status": {"allowed": allowed}})
                }
                "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
                    json!({"status": {"userInfo": {"username": "system:serviceaccount:tidegate:tidegate"}}})
                }
                "/apis/example.io/v1" => {
                    json!({"kind": "APIResourceList", "groupVersion": "example.io/v1", "resources": [
                        {"name": "meshen", "singularName": "mesh", "namespaced": true, "kind": "Mesh", "verbs": ["patch"]}]})
                }
                _ => {
                    // As an API server says it of a group that it does not know.
                    let text = Body::from(b"404 page not found\n".to_vec());
                    return Ok(http::Response::builder().status(404).body(text).unwrap());
                }
            };
            Ok::<_, std::convert::Infallible>(response(200, &answer))
        }
    });
    Client::new(service, "default")
}

fn response(code: u16, body: &Value) -> http::Response<Body> {
    http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}

fn request(user: &str, groups: &[&str], new: &str, old: Option<&str>) -> AdmissionRequest {
    AdmissionRequest {
        operation: if old.is_some() { "UPDATE" } else { "CREATE" }.to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        user_info: UserInfo {
            username: Some(user.to_owned()),
            groups: Some(groups.iter().map(|g| (*g).to_owned()).collect()),
            ..UserInfo::default()
        },
        object: Some(parsed(new)),
        old_object: old.map(parsed),
        ..AdmissionRequest::default()
    }
}

const JANE: &[(&str, &str)] = &[
    ("jane", "deployments/web"),
    ("jane", "services/web"),
    ("jane", "ingresses/web"),
    ("jane", "httproutes/web"),
    ("jane", "virtualservices/web"),
    ("jane", "meshen/all"),
    ("jane", "trafficroutings/front"),
    ("joe", "deployments/web"),
];

#[tokio::test(start_paused = true)]
async fn who_may_not_patch_what_is_named_is_told_what_is_lacking() {
    let asked = Arc::new(AtomicUsize::new(0));
    let authority = Authority::new(api_server(JANE, &asked));
    let mut count = 0;
    let mut more = |reviews: usize| {
        count += reviews;
        assert_eq!(asked.load(Ordering::Relaxed), count);
    };
    assert!(authority.refuses(&request("jane", &[], ROLLOUT, None)).await.is_none());
    more(7);
    assert!(authority.refuses(&request("jane", &[], ROLLOUT, None)).await.is_none());
    more(0);
    tokio::time::advance(KEPT + Duration::from_secs(1)).await;
    assert!(authority.refuses(&request("jane", &[], ROLLOUT, None)).await.is_none());
    more(7);
    assert!(authority.refuses(&request("root", &["admins"], ROLLOUT, None)).await.is_none(), "by the group");
    more(7);

    let refusal = authority.refuses(&request("joe", &[], ROLLOUT, None)).await.unwrap();
    more(7);
    assert_eq!((refusal.code, refusal.reason), (403, "Forbidden"));
    let expected = "Rollout shop/web: user \"joe\" may not patch services \"web\" in namespace \"shop\", which \
         spec.strategy.canary.trafficRoutings[0].service makes this controller do; nor patch ingresses.networking.k8s.io \"web\"";
    assert!(refusal.message.starts_with(expected), "{}", refusal.message);
    assert!(refusal.message.contains("patch meshen.example.io \"all\""), "as the server names it: {}", refusal.message);
    assert!(
        refusal.message.contains("kubectl -n shop create role … --verb=patch --resource=services"),
        "{}",
        refusal.message
    );
    authority.refuses(&request("joe", &[], ROLLOUT, None)).await.unwrap();
    more(6);

    // Nobody is asked about what changes nothing, nor when this process itself writes.
    assert!(authority.refuses(&request("joe", &[], ROLLOUT, Some(ROLLOUT))).await.is_none());
    let own = "system:serviceaccount:tidegate:tidegate";
    assert!(authority.refuses(&request(own, &[], ROLLOUT, None)).await.is_none());
    more(0);
}

#[tokio::test(start_paused = true)]
async fn rights_that_are_not_known_are_not_assumed() {
    let gone = Client::new(
        tower::service_fn(|_: http::Request<Body>| async {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": "may not create subjectaccessreviews"});
            Ok::<_, std::convert::Infallible>(response(403, &status))
        }),
        "default",
    );
    let silent = Client::new(
        tower::service_fn(|_: http::Request<Body>| {
            std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
        }),
        "default",
    );
    for (client, why) in [(gone, "may not create subjectaccessreviews"), (silent, "no answer in time")] {
        let refusal = Authority::new(client).refuses(&request("jane", &[], ROLLOUT, None)).await.unwrap();
        assert_eq!((refusal.code, refusal.reason), (500, "InternalError"));
        assert!(
            refusal.message.starts_with("Rollout shop/web: it is not known whether user \"jane\" may"),
            "{}",
            refusal.message
        );
        assert!(
            refusal.message.contains(why) && refusal.message.contains("--check-authority=false"),
            "{}",
            refusal.message
        );
    }
}
