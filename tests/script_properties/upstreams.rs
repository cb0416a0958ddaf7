//! Gateways whose backends are defined once in an object and referred to by their names, and Gloo's destinations.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use tidegate::traffic::Names;

use crate::{
    references::{named, paired, read, service},
    row::{Backend, Matching, Role, Row, backend, is_canary_by_labels},
};

/// Whose a backend's name is. Of the original's backends only `tea` and `admin` are the stable Service, `coffee` is
/// another, and `app-next` the canary beside `tea`.
fn role(name: &str) -> Role {
    match name {
        "tea" | "admin" => Role::Stable,
        "app-next" | "tea-canary" | "admin-canary" => Role::Canary,
        _ => Role::Other,
    }
}

/// The canary's backends that a step added are no change of the object.
fn drop_added(spec: &mut Value, list: &str) {
    let is_canary = |b: &Value| {
        let service = if list == "upstreams" { &b["service"] } else { &b["serviceName"] };
        service == "app-canary" && b["type"] != "network" || is_canary_by_labels(b)
    };
    let backends = spec[list].as_array_mut().unwrap();
    backends.retain(|b| b["name"] == "app-next" || !is_canary(b));
}

// ---- F5 ----

pub const VIRTUAL_SERVER: Row = Row {
    group: "k8s.nginx.org",
    kind: "VirtualServer",
    version: "v1",
    spec: || {
        let upstreams = |with_next: bool| {
            let mut list = json!([
                {"name": "tea", "service": "app", "port": 80, "lb-method": "round_robin"},
                {"name": "admin", "service": "app", "port": 81},
                {"name": "coffee", "service": "other", "port": 80},
            ]);
            if with_next {
                list.as_array_mut().unwrap().push(json!({"name": "app-next", "service": "app-canary", "port": 80}));
            }
            list
        };
        (vec(virtual_route(), 1..5), any::<bool>())
            .prop_map(move |(mut routes, with_next)| {
                for (i, route) in routes.iter_mut().enumerate() {
                    route["path"] = json!(format!("/{i}"));
                }
                let mut spec = json!({"host": "a.example.com", "upstreams": upstreams(with_next), "routes": routes});
                if !with_next {
                    spec = serde_json::from_str(&spec.to_string().replace("\"app-next\"", "\"coffee\"")).unwrap();
                }
                spec
            })
            .boxed()
    },
    big: |count| {
        let route =
            |i: usize| json!({"path": format!("/{i}"), "action": {"pass": if i == 0 { "tea" } else { "coffee" }}});
        json!({"upstreams": [{"name": "tea", "service": "app", "port": 80}, {"name": "coffee", "service": "other", "port": 80}],
            "routes": (0..count).map(route).collect::<Vec<_>>()})
    },
    take: |spec, _| {
        drop_added(spec, "upstreams");
        let mut lists = Vec::new();
        for route in spec["routes"].as_array_mut().unwrap() {
            lists.extend(take_actions(route));
            for m in route.get_mut("matches").and_then(Value::as_array_mut).into_iter().flatten() {
                lists.extend(take_actions(m));
            }
        }
        lists
    },
    matching: Some(Matching {
        rules: holders,
        roles: |holder, _| actions(holder).iter().map(|b| b.role).collect(),
        finds: |spec, _| {
            holders(spec).iter().any(|h| actions(h).iter().any(|b| b.role == Role::Stable && b.weight > 0))
        },
    }),
};

fn action() -> impl Strategy<Value = Value> {
    let name = select(vec!["tea", "tea", "admin", "coffee", "app-next"]);
    (name, any::<bool>()).prop_map(|(name, passes)| {
        if passes { json!({"pass": name}) } else { json!({"proxy": {"upstream": name, "rewritePath": "/"}}) }
    })
}

fn what_follows() -> BoxedStrategy<Value> {
    let splits = (action(), action(), 2u32..=98).prop_map(
        |(a, b, weight)| json!({"splits": [{"weight": weight, "action": a}, {"weight": 100 - weight, "action": b}]}),
    );
    prop_oneof![3 => action().prop_map(|action| json!({ "action": action })), 2 => splits].boxed()
}

fn virtual_route() -> impl Strategy<Value = Value> {
    let redirect = json!({"action": {"redirect": {"url": "https://example.com"}}});
    let main = prop_oneof![6 => what_follows(), 1 => Just(redirect)];
    let matched = what_follows().prop_map(|mut m| {
        m["conditions"] = json!([{"cookie": "beta", "value": "yes"}]);
        m
    });
    (main, prop::option::weighted(0.3, matched)).prop_map(|(mut route, matched)| {
        if let Some(matched) = matched {
            route["matches"] = json!([matched]);
        }
        route
    })
}

/// A route's own actions, or those of an entry of its matches.
fn actions(holder: &Value) -> Vec<Backend> {
    let read = |action: &Value, weight: u64| {
        let name = action["pass"].as_str().or(action["proxy"]["upstream"].as_str())?;
        Some(Backend { role: role(name), weight, rest: action.clone() })
    };
    match holder.get("splits") {
        Some(splits) => {
            let splits = splits.as_array().unwrap().iter();
            splits.filter_map(|s| read(&s["action"], s["weight"].as_u64().unwrap())).collect()
        }
        None => read(&holder["action"], 100).into_iter().collect(),
    }
}

fn take_actions(holder: &mut Value) -> Option<Vec<Backend>> {
    // A canary belongs to one stable entry.
    let list = only_twins(actions(holder));
    if list.is_empty() {
        return None;
    }
    let map = holder.as_object_mut().unwrap();
    map.remove("splits");
    map.remove("action");
    Some(list)
}

fn only_twins(mut list: Vec<Backend>) -> Vec<Backend> {
    let name =
        |b: &Backend| b.rest["pass"].as_str().or(b.rest["proxy"]["upstream"].as_str()).unwrap_or_default().to_owned();
    let mut free: Vec<String> = list.iter().filter(|b| b.role == Role::Stable).map(name).collect();
    for backend in list.iter_mut().filter(|b| b.role == Role::Canary) {
        let of = if name(backend) == "admin-canary" { "admin" } else { "tea" };
        match free.iter().position(|n| n == of) {
            Some(at) => drop(free.remove(at)),
            None => backend.role = Role::Other,
        }
    }
    list
}

/// What requests come to, in order: each entry of a route's matches, then the route without them.
fn holders(spec: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for route in spec["routes"].as_array().unwrap() {
        all.extend(route.get("matches").and_then(Value::as_array).into_iter().flatten().cloned());
        let mut rest = route.clone();
        rest.as_object_mut().unwrap().remove("matches");
        all.push(rest);
    }
    all
}

// ---- Skipper ----

pub const ROUTE_GROUP: Row = Row {
    group: "zalando.org",
    kind: "RouteGroup",
    version: "v1",
    spec: || {
        let reference = (
            select(vec!["tea", "admin", "coffee", "app-next"]),
            prop::option::weighted(0.8, select(vec![0u32, 1, 3, 25, 50, 100])),
        );
        let list = vec(reference, 1..4).prop_map(|list| {
            let mut seen = Vec::new();
            let mut entries = Vec::new();
            // A name is there once.
            for (name, weight) in list {
                if !seen.contains(&name) {
                    seen.push(name);
                    entries.push(
                        weight.map_or(json!({"backendName": name}), |w| json!({"backendName": name, "weight": w})),
                    );
                }
            }
            json!(entries)
        });
        let extra = select(vec![
            json!({}),
            json!({"filters": ["status(201)"], "methods": ["GET"]}),
            json!({"predicates": ["True()"]}),
        ]);
        let route = (extra, prop::option::weighted(0.7, list.clone())).prop_map(|(mut route, list)| {
            if let Some(list) = list {
                route["backends"] = list;
            }
            route
        });
        (list, vec(route, 1..4))
            .prop_map(|(default, mut routes)| {
                for (i, route) in routes.iter_mut().enumerate() {
                    route["pathSubtree"] = json!(format!("/{i}"));
                }
                json!({"hosts": ["a.example.com"], "defaultBackends": default, "routes": routes, "backends": [
                    {"name": "tea", "type": "service", "serviceName": "app", "servicePort": 80},
                    {"name": "admin", "type": "service", "serviceName": "app", "servicePort": 81},
                    {"name": "coffee", "type": "network", "address": "https://example.com"},
                    {"name": "app-next", "type": "service", "serviceName": "app-canary", "servicePort": 80},
                ]})
            })
            .boxed()
    },
    big: |count| {
        let route = |i: usize| json!({"path": format!("/{i}"), "backends": [{"backendName": if i == 0 { "tea" } else { "coffee" }}]});
        json!({"backends": [{"name": "tea", "type": "service", "serviceName": "app", "servicePort": 80}, {"name": "coffee", "type": "shunt"}],
            "routes": (0..count).map(route).collect::<Vec<_>>()})
    },
    take: |spec, _| {
        drop_added(spec, "backends");
        let mut lists = vec![spec.as_object_mut().unwrap().remove("defaultBackends").unwrap()];
        let routes = spec["routes"].as_array_mut().unwrap().iter_mut();
        lists.extend(routes.filter_map(|route| route.as_object_mut().unwrap().remove("backends")));
        lists.iter().map(group_list).collect()
    },
    matching: Some(Matching {
        rules: |spec| spec["routes"].as_array().unwrap().clone(),
        roles: |rule, _| {
            rule["backends"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| role(e["backendName"].as_str().unwrap()))
                .collect()
        },
        finds: |spec, _| {
            let lists = spec["routes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r.get("backends").unwrap_or(&spec["defaultBackends"]));
            lists.flat_map(group_list).any(|b| b.role == Role::Stable && b.weight > 0)
        },
    }),
};

fn group_list(list: &Value) -> Vec<Backend> {
    let name = |e: &Value| e["backendName"].as_str().unwrap().to_owned();
    let entries = list.as_array().unwrap();
    let has_tea = entries.iter().any(|e| name(e) == "tea");
    read(list, |e| if name(e) == "app-next" && !has_tea { Role::Other } else { role(&name(e)) }, 0, true)
}

// ---- Gloo ----

pub const ROUTE_TABLE: Row = Row {
    group: "gateway.solo.io",
    kind: "RouteTable",
    version: "v1",
    spec: || {
        let extra = select(vec![
            json!({"matchers": [{"prefix": "/a"}]}),
            json!({"matchers": [{"exact": "/b", "methods": ["GET"]}, {"regex": "/c.*"}], "options": {"timeout": "1s"}}),
            json!({}),
        ]);
        let action = prop_oneof![
            3 => destination().prop_map(|d| json!({"routeAction": {"single": d}})),
            4 => destinations().prop_map(|d| json!({"routeAction": {"multi": {"destinations": d}}})),
            1 => Just(json!({"redirectAction": {"hostRedirect": "b.example.com"}})),
        ];
        let route = (extra, action).prop_map(|(mut route, action)| {
            route.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
            route
        });
        vec(route, 1..5).prop_map(|routes| json!({"routes": routes, "weight": 7})).boxed()
    },
    big: |count| {
        let route = |i: usize| {
            json!({"matchers": [{"prefix": format!("/{i}")}],
                "routeAction": {"single": {"kube": {"ref": {"name": service(i), "namespace": "shop"}, "port": 80}}}})
        };
        json!({"routes": (0..count).map(route).collect::<Vec<_>>()})
    },
    take: |spec, names| {
        let routes = spec["routes"].as_array_mut().unwrap().iter_mut();
        let lists = routes.filter_map(|route| {
            let list = gloo_list(route)?;
            route["routeAction"] = json!({});
            Some(gloo(&list, names))
        });
        lists.collect()
    },
    matching: Some(Matching {
        rules: |spec| spec["routes"].as_array().unwrap().clone(),
        roles: |rule, names| {
            let list = gloo_list(rule).unwrap_or_default();
            list.as_array().into_iter().flatten().map(|e| gloo_role(e, names)).collect()
        },
        finds: |spec, names| {
            let lists = spec["routes"].as_array().unwrap().iter().filter_map(gloo_list);
            lists.flat_map(|l| gloo(&l, names)).any(|b| b.role == Role::Stable && b.weight > 0)
        },
    }),
};

pub const UPSTREAM_GROUP: Row = Row {
    group: "gloo.solo.io",
    kind: "UpstreamGroup",
    version: "v1",
    spec: || destinations().prop_map(|d| json!({"destinations": d})).boxed(),
    big: |count| {
        json!({"destinations": (0..count).map(|i| {
        json!({"destination": {"kube": {"ref": {"name": service(i), "namespace": "shop"}, "port": 80}}, "weight": 1})
    }).collect::<Vec<_>>()})
    },
    take: |spec, names| vec![gloo(&spec.as_object_mut().unwrap().remove("destinations").unwrap(), names)],
    matching: None,
};

fn destination() -> impl Strategy<Value = Value> {
    let kube =
        |name: &str, namespace: &str| json!({"kube": {"ref": {"name": name, "namespace": namespace}, "port": 80}});
    select(vec![
        kube("app", "shop"),
        kube("app", "shop"),
        kube("app", "elsewhere"),
        kube("legacy", "shop"),
        kube("app-canary", "shop"),
        json!({"upstream": {"name": "shop-app-80", "namespace": "gloo-system"}}),
        json!({"upstream": {"name": "by-hand", "namespace": "gloo-system"}}),
    ])
}

fn destinations() -> impl Strategy<Value = Value> {
    let entry =
        (destination(), select(vec![0u32, 1, 3, 33, 50, 100]), any::<bool>()).prop_map(|(d, weight, has_options)| {
            let mut entry = json!({"destination": d, "weight": weight});
            if has_options {
                entry["options"] = json!({"extensions": {}});
            }
            entry
        });
    vec(entry, 1..4)
        .prop_filter("Gloo refuses a sum of 0", |list| list.iter().any(|e| e["weight"] != 0))
        .prop_map(Value::from)
}

/// A route's weighted destinations.
fn gloo_list(route: &Value) -> Option<Value> {
    let action = route.get("routeAction")?;
    Some(match action.get("single") {
        Some(single) => json!([{"destination": single}]),
        None => action["multi"]["destinations"].clone(),
    })
}

fn gloo_role(entry: &Value, names: &Names) -> Role {
    let (kube, upstream) = (&entry["destination"]["kube"]["ref"], &entry["destination"]["upstream"]["name"]);
    let name = upstream.as_str().and_then(|n| n.strip_prefix("shop-")?.strip_suffix("-80"));
    match named(&name.map_or(kube.clone(), |name| json!({ "name": name })), "name", names) {
        Role::Stable if is_canary_by_labels(&entry["destination"]) => Role::Canary,
        role => role,
    }
}

fn gloo(list: &Value, names: &Names) -> Vec<Backend> {
    let entries = list.as_array().unwrap();
    let mut backends: Vec<Backend> = entries.iter().map(|e| backend(gloo_role(e, names), e, 0)).collect();
    // A lone destination gets everything.
    if let [lone] = backends.as_mut_slice() {
        lone.weight = 1;
    }
    paired(backends)
}
