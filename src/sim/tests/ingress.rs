use super::super::traffic::{Failure, Request, route};
use super::*;

fn service(version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web-{version}")},
        "spec": {"selector": {"app": "web", "version": version}, "ports": [{"port": 80}]}})
}

fn versioned(version: &str) -> Value {
    let mut object = deployment(&format!("web-{version}"), 2, "web:1");
    let labels = json!({"app": "web", "version": version});
    object["spec"]["selector"]["matchLabels"] = labels.clone();
    object["spec"]["template"]["metadata"]["labels"] = labels;
    object
}

fn ingress(name: &str, service: &str, annotations: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": "web.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}}]}}]}})
}

async fn through_ingress(objects: &[Value]) -> Cluster {
    let mut builder = Cluster::builder();
    for version in ["base", "canary"] {
        builder = builder.object(service(version)).object(versioned(version));
    }
    let cluster = objects.iter().cloned().fold(builder, |b, o| b.object(o)).build().unwrap();
    settle().await;
    cluster
}

fn canary_of(cluster: &Cluster, request: &Request) -> Result<f64, Vec<(f64, Failure)>> {
    let outcome = route(&cluster.view(), &Gvr::new("networking.k8s.io", "v1", "ingresses"), "default", "web", request);
    if outcome.failed() > 0.0 {
        Err(outcome.failures)
    } else {
        Ok(outcome.share(|p| p["metadata"]["labels"]["version"] == "canary"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_canary_ingress_is_merged_as_ingress_nginx_does() {
    let key = |k: &str| format!("nginx.ingress.kubernetes.io/{k}");
    /// Annotations of the canary Ingress; requests by a header, and the canary's share of them.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, f64)]);
    let cases: [Case<'_>; 5] = [
        (&[("canary-weight", "20")], &[("", 0.2), ("a=1", 0.2)]),
        (&[("canary-weight", "30"), ("canary-weight-total", "1000")], &[("", 0.03)]),
        (
            &[("canary-by-header", "X-A"), ("canary-weight", "10")],
            &[("x-a=always", 1.0), ("x-a=never", 0.0), ("x-a=1", 0.1), ("", 0.1)],
        ),
        (
            &[
                ("canary-by-header", "a"),
                ("canary-by-header-value", "1"),
                ("canary-by-header-pattern", ".*"),
                ("canary-by-cookie", "c"),
            ],
            &[("a=1", 1.0), ("a=2", 0.0), ("cookie=b=1; c=always", 1.0), ("cookie=c=never", 0.0)],
        ),
        (&[("canary-by-header", "a"), ("canary-by-header-pattern", "^x+$")], &[("a=xx", 1.0), ("a=xy", 0.0)]),
    ];
    for (annotations, requests) in cases {
        let mut map: BTreeMap<String, &str> = annotations.iter().map(|(k, v)| (key(k), *v)).collect();
        map.insert(key("canary"), "true");
        let objects = [ingress("web", "web-base", json!({})), ingress("web-canary", "web-canary", json!(map))];
        let cluster = through_ingress(&objects).await;
        for (header, share) in requests {
            let request = match header.split_once('=') {
                Some((name, value)) => Request::get().header(name, value),
                None => Request::get(),
            };
            let found = canary_of(&cluster, &request).unwrap();
            assert!((found - share).abs() < 1e-9, "{annotations:?} {header}: {found}");
        }
        assert_eq!(canary_of(&cluster, &Request::get().host("other.example.com")), Err(vec![(1.0, Failure::NoRoute)]));
    }
    // Without the annotation two Ingresses own the path.
    let twins = [ingress("web", "web-base", json!({})), ingress("web-canary", "web-canary", json!({}))];
    assert_eq!(canary_of(&through_ingress(&twins).await, &Request::get()), Err(vec![(1.0, Failure::NoRoute)]));
}

#[tokio::test(start_paused = true)]
async fn actions_and_conditions_of_an_alb() {
    let group = |service: &str, weight: i64| json!({"serviceName": service, "servicePort": 80, "weight": weight});
    let forward = |groups: Value| json!({"type": "forward", "forwardConfig": {"targetGroups": groups}}).to_string();
    let path = |name: &str, path: &str, kind: &str| json!({"path": path, "pathType": kind, "backend": {"service": {"name": name, "port": {"name": "use-annotation"}}}});
    let mut object = ingress(
        "web",
        "web-base",
        json!({
            "alb.ingress.kubernetes.io/actions.split": forward(json!([group("web-base", 75), group("web-canary", 25)])),
            "alb.ingress.kubernetes.io/actions.new": forward(json!([{"serviceName": "web-canary", "servicePort": 80}])),
            "alb.ingress.kubernetes.io/conditions.new":
                r#"[{"field":"http-header","httpHeaderConfig":{"httpHeaderName":"X-A","values":["a\\*b*"]}}]"#,
        }),
    );
    object["spec"]["rules"][0]["http"]["paths"] =
        json!([path("new", "/", "Prefix"), path("split", "/", "Prefix"), path("new", "/new", "Exact")]);
    let cluster = through_ingress(&[object]).await;
    for (request, share) in [
        (Request::get(), 0.25),
        (Request::get().header("x-a", "a*b and more"), 1.0),
        (Request::get().header("x-a", "axb"), 0.25),
        (Request::get().path("/new").header("x-a", "a*b"), 1.0),
        (Request::get().path("/new"), 0.25),
    ] {
        let found = canary_of(&cluster, &request).unwrap();
        assert!((found - share).abs() < 1e-9, "{request:?}: {found}");
    }
}
