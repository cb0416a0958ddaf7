use kube::api::{Patch, PatchParams};

use super::super::traffic::{Failure, Outcome, Protocol, Request, route};
use super::*;

const ISTIO: &str = "networking.istio.io";

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
}

fn versioned(name: &str, version: &str, replicas: i64) -> Value {
    let mut object = deployment(name, replicas, "web:1");
    let labels = json!({"app": "web", "version": version});
    object["spec"]["selector"]["matchLabels"] = labels.clone();
    object["spec"]["template"]["metadata"]["labels"] = labels;
    object
}

fn rule() -> Value {
    json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule", "metadata": {"name": "dr"},
        "spec": {"host": "web", "subsets": [
            {"name": "base", "labels": {"version": "base"}}, {"name": "canary", "labels": {"version": "canary"}}]}})
}

fn virtual_service(http: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "metadata": {"name": "vs"},
        "spec": {"hosts": ["*"], "http": http}})
}

async fn routed(http: Value, request: Request) -> Outcome {
    let cluster = Cluster::builder()
        .kind(ISTIO, &["v1beta1", "v1alpha3"], "virtualservices", "VirtualService", true)
        .kind(ISTIO, &["v1beta1", "v1alpha3"], "destinationrules", "DestinationRule", true)
        .object(service("web"))
        .object(versioned("web-base", "base", 3))
        .object(versioned("web-canary", "canary", 1))
        .object(rule())
        .object(virtual_service(http))
        .build()
        .unwrap();
    settle().await;
    route(&cluster.view(), &Gvr::new(ISTIO, "v1alpha3", "virtualservices"), "default", "vs", &request)
}

fn to(subset: &str, weight: i64) -> Value {
    json!({"destination": {"host": "web", "subset": subset}, "weight": weight})
}

#[tokio::test(start_paused = true)]
async fn weights_and_matches() {
    let canary_first = json!([
        {"match": [{"headers": {"version": {"exact": "canary"}}, "uri": {"prefix": "/api"}}, {"headers": {"x": {"regex": "a+"}}}],
            "route": [to("canary", 100)]},
        {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new"}},
        {"route": [to("base", 80), to("canary", 20)]},
    ]);
    for (request, base, canary) in [
        (Request::get(), 0.8, 0.2),
        (Request::get().header("Version", "canary"), 0.8, 0.2),
        (Request::get().header("Version", "canary").path("/api/v1"), 0.0, 1.0),
        (Request::get().header("x", "aaa"), 0.0, 1.0),
        (Request::get().header("x", "aab"), 0.8, 0.2),
    ] {
        let outcome = routed(canary_first.clone(), request.clone()).await;
        let shares = outcome.by_label("version");
        let of = |v: &str| shares.get(v).copied().unwrap_or(0.0);
        assert!((of("base") - base).abs() < 1e-9 && (of("canary") - canary).abs() < 1e-9, "{request:?}: {shares:?}");
        assert_eq!(outcome.failed(), 0.0);
    }
    let outcome = routed(canary_first, Request::get().path("/old")).await;
    assert!(outcome.answered && outcome.hits.is_empty());
}

#[tokio::test(start_paused = true)]
async fn samples_follow_the_shares() {
    let outcome = routed(json!([{"route": [to("base", 80), to("canary", 20)]}]), Request::get()).await;
    let mut rng = Rng::new(9);
    let hits = (0..10_000).filter(|_| outcome.sample(&mut rng).unwrap().unwrap().subset == "canary").count();
    // Four sigma of 10,000 draws at 20 %.
    assert!((1840..=2160).contains(&hits), "{hits}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_reached_fails() {
    for (http, failure) in [
        (json!([{"match": [{"uri": {"exact": "/x"}}], "route": [to("base", 100)]}]), Failure::NoRoute),
        (json!([{"route": [to("blue", 100)]}]), Failure::NoSubset("web".into(), "blue".into())),
        (json!([{"route": [{"destination": {"host": "api"}}]}]), Failure::NoService("api".into())),
        (json!([{"route": [to("base", 0), to("canary", 0)]}]), Failure::NoWeight),
    ] {
        assert_eq!(routed(http, Request::get()).await.failures, [(1.0, failure)]);
    }
}

/// During a rolling update with requests all the time none may fail: pods leave the slices before they stop.
#[tokio::test(start_paused = true)]
async fn a_rolling_update_loses_no_request() {
    let mut web = deployment("web", 4, "web:1");
    web["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let cluster = Cluster::builder().seed(3).object(service("web")).object(web).build().unwrap();
    settle().await;
    let deployments: Api<Deployment> = api(&cluster, "user");
    let change = json!({"spec": {"template": {"metadata": {"labels": {"v": "2"}}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(change)).await.unwrap();
    let view = cluster.view();
    let mut mixed = 0;
    for _ in 0..12_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let outcome = route(&view, &Gvr::new("", "v1", "services"), "default", "web", &Request::get());
        assert_eq!(outcome.failures, []);
        let new = outcome.by_label("v").get("2").copied().unwrap_or(0.0);
        mixed += usize::from(new > 0.0 && new < 1.0);
    }
    assert!(mixed > 100, "both versions served for a while");
    let outcome = route(&view, &Gvr::new("", "v1", "services"), "default", "web", &Request::get());
    assert!((outcome.by_label("v")["2"] - 1.0).abs() < 1e-9);
}

/// Other protocols have rules of their own.
#[tokio::test(start_paused = true)]
async fn tcp_and_tls_routes() {
    let cluster = Cluster::builder()
        .kind(ISTIO, &["v1beta1", "v1alpha3"], "virtualservices", "VirtualService", true)
        .kind(ISTIO, &["v1beta1", "v1alpha3"], "destinationrules", "DestinationRule", true)
        .object(service("web"))
        .object(versioned("web-base", "base", 1))
        .object(versioned("web-canary", "canary", 1))
        .object(rule())
        .object(json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "metadata": {"name": "vs"}, "spec": {
            "hosts": ["web.default.svc.cluster.local"],
            "tls": [{"match": [{"port": 443, "sniHosts": ["*.shop.io"]}], "route": [to("canary", 100)]}],
            "tcp": [{"match": [{"port": 5432}], "route": [to("base", 30), to("canary", 70)]}]}}))
        .build()
        .unwrap();
    settle().await;
    let gateway = Gvr::new(ISTIO, "v1beta1", "virtualservices");
    let shares = |request: Request| route(&cluster.view(), &gateway, "default", "vs", &request).by_label("version");
    let tcp = |port| Request { protocol: Protocol::Tcp, port, ..Request::default() };
    let shared = shares(tcp(5432));
    assert!((shared["base"] - 0.3).abs() < 1e-9 && (shared["canary"] - 0.7).abs() < 1e-9, "{shared:?}");
    assert!(shares(tcp(1)).is_empty());
    let tls = |host: &str| Request { protocol: Protocol::Tls, port: 443, ..Request::default() }.host(host);
    assert_eq!(
        route(&cluster.view(), &gateway, "default", "vs", &tls("a.shop.io")).failures,
        [(1.0, Failure::NoRoute)]
    );
    let no_host = Request { protocol: Protocol::Tls, port: 443, ..Request::default() };
    assert_eq!(shares(no_host).keys().collect::<Vec<_>>(), ["canary"]);
    assert!(shares(Request::get().host("web")).is_empty(), "there is no http rule");
}
