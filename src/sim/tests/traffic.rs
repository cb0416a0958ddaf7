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

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Routes requests through a Gateway API route with Services web and canary, and tells shares by Service.
async fn gateway_routed(kind: &str, spec: Value, requests: &[Request]) -> Vec<(Vec<(String, f64)>, Outcome)> {
    let plural = format!("{}s", kind.to_lowercase());
    let named = |name: &str| {
        let mut service = service(name);
        service["spec"]["selector"] = json!({"version": name});
        service
    };
    let cluster = Cluster::builder()
        .kind(GATEWAY_API, &["v1"], &plural, kind, true)
        .object(named("web"))
        .object(named("canary"))
        .object(versioned("web", "web", 2))
        .object(versioned("canary", "canary", 1))
        .object(
            json!({"apiVersion": format!("{GATEWAY_API}/v1"), "kind": kind, "metadata": {"name": "r"}, "spec": spec}),
        )
        .build()
        .unwrap();
    settle().await;
    let gvr = Gvr::new(GATEWAY_API, "v1", &plural);
    let shares = |outcome: &Outcome| outcome.by_label("version").into_iter().collect();
    let outcomes = requests.iter().map(|r| route(&cluster.view(), &gvr, "default", "r", r));
    outcomes.map(|o| (shares(&o), o)).collect()
}

#[tokio::test(start_paused = true)]
async fn http_routes_go_by_how_specific_they_are() {
    let to = |service: &str| json!([{"name": service, "port": 80}]);
    let spec = json!({"hostnames": ["*.shop.io"], "rules": [
        {"backendRefs": [{"name": "web", "port": 80, "weight": 3}, {"name": "canary", "port": 80}]},
        {"matches": [{"headers": [{"name": "X-Canary", "value": "1"}]}], "backendRefs": to("canary")},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/a"}}], "backendRefs": to("web")},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/a/b/"}}], "backendRefs": to("canary")},
        {"matches": [{"path": {"type": "Exact", "value": "/a/b"}, "method": "GET"}], "backendRefs": to("web")},
        {"matches": [{"path": {"type": "Exact", "value": "/a/b"}, "queryParams": [{"type": "RegularExpression", "name": "q", "value": "[0-9]+"}]}],
            "backendRefs": to("canary")},
        {"matches": [{"path": {"type": "Exact", "value": "/old"}}], "filters": [{"type": "RequestRedirect"}]},
        {"matches": [{"path": {"type": "Exact", "value": "/none"}}]},
        {"matches": [{"path": {"type": "Exact", "value": "/zero"}}], "backendRefs": [{"name": "web", "weight": 0}]},
        {"matches": [{"path": {"type": "Exact", "value": "/kind"}}], "backendRefs": [{"name": "web", "kind": "ServiceImport"}]},
    ]});
    let get = |path: &str| Request::get().path(path).host("eu.shop.io");
    let cases = [
        (get("/"), 0.25),
        (get("/").header("x-canary", "1"), 1.0),
        // A longer path wins over a header.
        (get("/a").header("x-canary", "1"), 0.0),
        (get("/ab"), 0.25),
        (get("/a/x"), 0.0),
        (get("/a/b/c"), 1.0),
        (get("/a/b"), 0.0),
        (Request { method: "POST".into(), query: [("q".into(), "12".into())].into(), ..get("/a/b") }, 1.0),
        (Request { method: "POST".into(), query: [("q".into(), "x".into())].into(), ..get("/a/b") }, 1.0),
    ];
    let requests: Vec<Request> = cases.iter().map(|(r, _)| r.clone()).collect();
    for ((request, canary), (shares, outcome)) in
        cases.iter().zip(gateway_routed("HTTPRoute", spec.clone(), &requests).await)
    {
        assert!(
            (outcome.share(|p| p["metadata"]["labels"]["version"] == "canary") - canary).abs() < 1e-9,
            "{request:?}: {shares:?}"
        );
        assert_eq!(outcome.failed(), 0.0);
    }
    let requests = [get("/old"), get("/none"), get("/zero"), get("/kind"), Request::get().host("shop.com")];
    let outcomes = gateway_routed("HTTPRoute", spec, &requests).await;
    assert!(outcomes[0].1.answered);
    let failures: Vec<_> = outcomes[1..].iter().map(|(_, o)| o.failures[0].1.clone()).collect();
    let no_service = Failure::NoService("ServiceImport web".into());
    assert_eq!(failures, [Failure::NoWeight, Failure::NoWeight, no_service, Failure::NoRoute]);
}

#[tokio::test(start_paused = true)]
async fn grpc_and_stream_routes() {
    let to = |service: &str| json!([{"name": service, "port": 80}]);
    let spec = json!({"rules": [
        {"backendRefs": to("web")},
        {"matches": [{"method": {"service": "shop.Cart"}}], "backendRefs": to("canary")},
        {"matches": [{"method": {"service": "shop.Cart", "method": "Add"}}], "backendRefs": to("web")},
        {"matches": [{"method": {"type": "RegularExpression", "service": "pay.*"}, "headers": [{"name": "a", "value": "b"}]}],
            "backendRefs": to("canary")},
    ]});
    let call = |path: &str| Request::get().path(path);
    let calls =
        [call("/x.Y/Z"), call("/shop.Cart/Get"), call("/shop.Cart/Add"), call("/pay.Card/Get").header("a", "b")];
    let outcomes = gateway_routed("GRPCRoute", spec, &calls).await;
    let reached: Vec<&str> = outcomes.iter().map(|(shares, _)| shares[0].0.as_str()).collect();
    assert_eq!(reached, ["web", "canary", "web", "canary"]);
    let split = json!({"hostnames": ["db.io"], "rules": [{"backendRefs": [{"name": "web", "weight": 80}, {"name": "canary", "weight": 20}]}]});
    let requests = [Request::default().host("db.io"), Request::default().host("other.io")];
    for kind in ["TCPRoute", "TLSRoute", "UDPRoute"] {
        let outcomes = gateway_routed(kind, split.clone(), &requests).await;
        assert_eq!(outcomes[0].0.len(), 2);
        assert!((outcomes[0].0[0].1 - 0.2).abs() < 1e-9, "{:?}", outcomes[0].0);
        assert_eq!(outcomes[1].1.failures, [(1.0, Failure::NoRoute)]);
    }
}
