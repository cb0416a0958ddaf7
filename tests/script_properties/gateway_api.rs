//! Routes of the Gateway API.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use tidegate::traffic::Names;

use crate::row::{Backend, Matching, Role, Row, backend};

const GROUP: &str = "gateway.networking.k8s.io";

pub const HTTP_ROUTE: Row = Row {
    group: GROUP,
    kind: "HTTPRoute",
    version: "v1",
    spec: || spec(http_matches(), http_extra(), 1..6),
    big: |rules| big(rules, |i| json!({"path": {"type": "PathPrefix", "value": format!("/api/{i}")}})),
    take,
    matching: Some(Matching { rules, roles, finds }),
};

pub const GRPC_ROUTE: Row = Row {
    kind: "GRPCRoute",
    spec: || spec(grpc_matches(), Just(json!({})).boxed(), 1..6),
    big: |rules| big(rules, |i| json!({"method": {"service": format!("api.V{i}")}})),
    ..HTTP_ROUTE
};

pub const TCP_ROUTE: Row = Row {
    kind: "TCPRoute",
    spec: || spec(Just(Value::Null).boxed(), Just(json!({})).boxed(), 1..2),
    big: |rules| big(rules, |_| Value::Null),
    matching: None,
    ..HTTP_ROUTE
};

pub const TLS_ROUTE: Row = Row { kind: "TLSRoute", ..TCP_ROUTE };
pub const UDP_ROUTE: Row = Row { kind: "UDPRoute", ..TCP_ROUTE };

// ---- objects ----

fn backend_ref() -> impl Strategy<Value = Value> {
    let name = prop_oneof![5 => Just("app"), 2 => Just("legacy"), 1 => Just("app-canary")];
    let weight = prop_oneof![4 => select(vec![0u32, 1, 3, 7, 25, 33, 50, 60, 67, 99, 100]), 1 => 1u32..=1_000_000];
    let extra = select(vec![
        json!({}),
        json!({"group": "", "kind": "Service"}),
        json!({"namespace": "shop"}),
        json!({"namespace": "elsewhere"}),
        json!({"group": "multicluster.x-k8s.io", "kind": "ServiceImport"}),
        json!({"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["server"]}}]}),
    ]);
    (name, select(vec![80, 8080]), weight, extra).prop_map(|(name, port, weight, mut entry)| {
        entry["name"] = json!(name);
        entry["port"] = json!(port);
        // As the API server hands it out.
        entry["weight"] = json!(weight);
        entry
    })
}

fn http_matches() -> BoxedStrategy<Value> {
    select(vec![
        Value::Null,
        json!([{"path": {"type": "PathPrefix", "value": "/"}}]),
        json!([{"path": {"type": "PathPrefix", "value": "/a"}}, {"path": {"type": "Exact", "value": "/b"}, "method": "GET"}]),
        json!([{"path": {"type": "RegularExpression", "value": "/v[0-9]+"}, "queryParams": [{"type": "Exact", "name": "q", "value": "1"}]}]),
        json!([{"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"type": "Exact", "name": "X-User", "value": "bob"}]}]),
    ])
    .boxed()
}

fn grpc_matches() -> BoxedStrategy<Value> {
    select(vec![
        Value::Null,
        json!([{"method": {"type": "Exact", "service": "shop.Cart"}}]),
        json!([{"method": {"type": "RegularExpression", "service": "shop.*"}, "headers": [{"type": "Exact", "name": "a", "value": "b"}]}]),
    ])
    .boxed()
}

fn http_extra() -> BoxedStrategy<Value> {
    select(vec![
        json!({}),
        json!({"name": "primary", "timeouts": {"request": "10s"}}),
        json!({"filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "app", "port": 80}}}]}),
        json!({"retry": {"codes": [503], "attempts": 2}, "sessionPersistence": {"sessionName": "s"}}),
    ])
    .boxed()
}

fn spec(
    matches: BoxedStrategy<Value>,
    extra: BoxedStrategy<Value>,
    count: std::ops::Range<usize>,
) -> BoxedStrategy<Value> {
    let has_redirects = count.end > 2;
    let backends = vec(backend_ref(), 1..4).prop_map(Value::from);
    let backends = prop_oneof![6 => backends, usize::from(has_redirects) as u32 => Just(Value::Null)];
    let rule = (matches, backends, extra).prop_map(|(matches, backends, mut rule)| {
        if !matches.is_null() {
            rule["matches"] = matches;
        }
        match backends {
            Value::Null => {
                rule["filters"] = json!([{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}])
            }
            backends => rule["backendRefs"] = backends,
        }
        rule
    });
    vec(rule, count)
        .prop_map(|mut rules| {
            // Names are unique in a route.
            for (i, rule) in rules.iter_mut().enumerate() {
                if rule.get("name").is_some() {
                    rule["name"] = json!(format!("rule-{i}"));
                }
            }
            json!({"parentRefs": [{"name": "web"}], "rules": rules, "later": 9_007_199_254_740_993_u64})
        })
        .boxed()
}

fn big(rules: usize, matches: fn(usize) -> Value) -> Value {
    let rule = |i: usize| {
        let service = if i == 0 { "app" } else { "other" };
        let mut rule = json!({"backendRefs": [{"name": service, "port": 80, "weight": 1}]});
        if !matches(i).is_null() {
            rule["matches"] = json!([matches(i)]);
        }
        rule
    };
    json!({"rules": (0..rules).map(rule).collect::<Vec<_>>()})
}

// ---- reading objects ----

fn role(entry: &Value, names: &Names) -> Role {
    let is_service = entry.get("kind").is_none_or(|k| k == "Service") && entry.get("group").is_none_or(|g| g == "");
    let is_here = entry.get("namespace").is_none_or(|n| n == "shop");
    match entry["name"].as_str() {
        Some(name) if is_service && is_here && name == names.stable_service => Role::Stable,
        Some(name) if is_service && is_here && name == names.canary_service => Role::Canary,
        _ => Role::Other,
    }
}

fn take(spec: &mut Value, names: &Names) -> Vec<Vec<Backend>> {
    let rules = spec["rules"].as_array_mut().unwrap().iter_mut();
    let lists = rules.filter_map(|rule| rule.as_object_mut().unwrap().remove("backendRefs"));
    lists
        .map(|list| {
            let entries = list.as_array().unwrap().clone();
            let backends: Vec<Backend> = entries.iter().map(|e| backend(role(e, names), e, 1)).collect();
            only_twins(backends)
        })
        .collect()
}

/// A canary without a stable entry of its port is a backend like any other.
fn only_twins(mut list: Vec<Backend>) -> Vec<Backend> {
    let mut free: Vec<Value> = list.iter().filter(|b| b.role == Role::Stable).map(|b| b.rest["port"].clone()).collect();
    for backend in list.iter_mut().filter(|b| b.role == Role::Canary) {
        match free.iter().position(|port| *port == backend.rest["port"]) {
            Some(at) => drop(free.remove(at)),
            None => backend.role = Role::Other,
        }
    }
    list
}

fn rules(spec: &Value) -> Vec<Value> {
    spec["rules"].as_array().unwrap().clone()
}

fn roles(rule: &Value, names: &Names) -> Vec<Role> {
    rule["backendRefs"].as_array().into_iter().flatten().map(|e| role(e, names)).collect()
}

fn finds(spec: &Value, names: &Names) -> bool {
    let has_share = |e: &Value| role(e, names) == Role::Stable && e["weight"] != json!(0);
    rules(spec).iter().any(|rule| rule["backendRefs"].as_array().into_iter().flatten().any(has_share))
}
