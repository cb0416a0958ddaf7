//! Gateways whose rules hold lists of weighted references to Services: a name, perhaps a port, a weight.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use tidegate::traffic::Names;

use crate::row::{Backend, Matching, Role, Row, backend};

pub const TRAEFIK_SERVICE: Row = Row {
    group: "traefik.io",
    kind: "TraefikService",
    version: "v1alpha1",
    spec: || {
        let kind = select(vec!["weighted", "highestRandomWeight"]);
        let list = entries("name", Some("port"), TRAEFIK, 1..5);
        (kind, list)
            .prop_map(|(kind, services)| {
                let mut spec = json!({"later": 9_007_199_254_740_993_u64});
                spec[kind] = json!({"services": services, "other": {"kept": []}});
                spec
            })
            .boxed()
    },
    big: |services| {
        let service =
            |i: usize| json!({"name": if i == 0 { "app".to_owned() } else { format!("other-{i}") }, "port": 80});
        json!({"weighted": {"services": (0..services).map(service).collect::<Vec<_>>()}})
    },
    take: |spec, names| {
        let lists = ["weighted", "highestRandomWeight"].map(|kind| {
            let list = spec.get_mut(kind).and_then(|k| k.as_object_mut()?.remove("services"))?;
            Some(read(&list, |e| named(e, "name", names), 1, false))
        });
        lists.into_iter().flatten().collect()
    },
    matching: None,
};

pub const INGRESS_ROUTE: Row = Row {
    group: "traefik.io",
    kind: "IngressRoute",
    version: "v1alpha1",
    spec: || {
        let rule = select(vec![
            json!({"match": "Host(`a.example.com`)"}),
            json!({"match": "Host(`a`) || Host(`b`)", "priority": 7, "middlewares": [{"name": "retry"}]}),
            json!({"match": "PathPrefix(`/x`) && !Method(`GET`)", "priority": -1, "kind": "Rule"}),
        ]);
        rules("routes", "services", rule, entries("name", Some("port"), TRAEFIK, 1..4))
    },
    big: |count| {
        big(
            "routes",
            count,
            |i| json!({"match": format!("PathPrefix(`/api/{i}`)"), "services": [{"name": service(i), "port": 80}]}),
        )
    },
    take: |spec, names| take(spec, "routes", "services", |e| named(e, "name", names), 1, false),
    matching: Some(Matching {
        rules: |spec| spec["routes"].as_array().unwrap().clone(),
        roles: |rule, names| roles(rule, "services", |e| named(e, "name", names)),
        finds: |spec, names| finds(spec, "routes", "services", |e| named(e, "name", names), 1, false),
    }),
};

pub const APISIX_ROUTE: Row = Row {
    group: "apisix.apache.org",
    kind: "ApisixRoute",
    version: "v2",
    spec: || {
        let rule = select(vec![
            json!({"match": {"paths": ["/*"]}}),
            json!({"match": {"paths": ["/a", "/b*"], "hosts": ["a.example.com"], "methods": ["GET"]}, "priority": 3}),
            json!({"match": {"paths": ["/*"]}, "plugins": [{"name": "proxy-mirror", "enable": true, "config": {}}]}),
            json!({"match": {"paths": ["/*"]}, "upstreams": [{"name": "outside", "weight": 7}, {"name": "far"}]}),
        ]);
        rules("http", "backends", rule, entries("serviceName", Some("servicePort"), || vec![json!({})], 1..4))
            .prop_map(|mut spec| {
                for (i, rule) in spec["http"].as_array_mut().unwrap().iter_mut().enumerate() {
                    rule["name"] = json!(format!("rule-{i}"));
                }
                spec
            })
            .boxed()
    },
    big: |count| {
        big("http", count, |i| {
            json!({"name": format!("r{i}"), "match": {"paths": [format!("/api/{i}")]},
                "backends": [{"serviceName": service(i), "servicePort": 80}]})
        })
    },
    take: |spec, names| {
        let rules = spec["http"].as_array_mut().unwrap().iter_mut();
        let lists = rules.filter_map(|rule| {
            let rule = rule.as_object_mut().unwrap();
            let backends = rule.remove("backends")?;
            // They share with each other.
            let upstreams = if is_ours(&backends, "serviceName", names) { rule.remove("upstreams") } else { None };
            let lists = [upstreams.unwrap_or_else(|| json!([])), backends];
            let all: Vec<Value> = lists.iter().flat_map(|list| list.as_array().unwrap().clone()).collect();
            Some(read(&json!(all), |e| named(e, "serviceName", names), 100, false))
        });
        lists.collect()
    },
    matching: Some(Matching {
        rules: |spec| spec["http"].as_array().unwrap().clone(),
        roles: |rule, names| roles(rule, "backends", |e| named(e, "serviceName", names)),
        finds: |spec, names| finds(spec, "http", "backends", |e| named(e, "serviceName", names), 100, false),
    }),
};

pub const HTTP_PROXY: Row = Row {
    group: "projectcontour.io",
    kind: "HTTPProxy",
    version: "v1",
    spec: || {
        let rule = select(vec![
            json!({}),
            json!({"conditions": [{"header": {"name": ":method", "exact": "GET"}}], "retryPolicy": {"count": 3}}),
            json!({"pathRewritePolicy": {"replacePrefix": [{"replacement": "/"}]}, "timeoutPolicy": {"response": "1s"}}),
        ]);
        let list =
            || (entries("name", Some("port"), || vec![json!({}), json!({"protocol": "h2c"})], 1..4), any::<bool>());
        let list = || {
            list().prop_map(|(mut list, mirrored)| {
                if mirrored {
                    list.as_array_mut().unwrap().push(json!({"name": "app", "port": 80, "mirror": true, "weight": 5}));
                }
                list
            })
        };
        (rules("routes", "services", rule, list().boxed()), prop::option::weighted(0.3, list()))
            .prop_map(|(mut spec, tcp)| {
                // No two routes have the same conditions.
                for (i, route) in spec["routes"].as_array_mut().unwrap().iter_mut().enumerate() {
                    let mut conditions = route["conditions"].as_array().cloned().unwrap_or_default();
                    conditions.push(json!({"prefix": format!("/{i}")}));
                    route["conditions"] = json!(conditions);
                }
                if let Some(services) = tcp {
                    spec["tcpproxy"] = json!({"services": services});
                }
                spec["virtualhost"] = json!({"fqdn": "a.example.com"});
                spec
            })
            .boxed()
    },
    big: |count| {
        big(
            "routes",
            count,
            |i| json!({"conditions": [{"prefix": format!("/api/{i}")}], "services": [{"name": service(i), "port": 80}]}),
        )
    },
    take: |spec, names| {
        let mut holders: Vec<&mut Value> = Vec::new();
        let spec = spec.as_object_mut().unwrap();
        for (key, value) in spec.iter_mut() {
            match key.as_str() {
                "routes" => holders.extend(value.as_array_mut().unwrap()),
                "tcpproxy" => holders.push(value),
                _ => {}
            }
        }
        let lists = holders.into_iter().filter_map(|holder| {
            let services = holder.get_mut("services")?.as_array_mut()?;
            let (mirrors, answering): (Vec<Value>, Vec<Value>) = services.drain(..).partition(is_mirror);
            *services = mirrors;
            Some(read(&json!(answering), |e| named(e, "name", names), 0, true))
        });
        lists.collect()
    },
    matching: Some(Matching {
        rules: |spec| spec["routes"].as_array().unwrap().clone(),
        roles: |rule, names| roles(&without_mirrors(rule), "services", |e| named(e, "name", names)),
        finds: |spec, names| {
            let routes: Vec<Value> = spec["routes"].as_array().unwrap().iter().map(without_mirrors).collect();
            finds(&json!({"routes": routes}), "routes", "services", |e| named(e, "name", names), 0, true)
        },
    }),
};

fn is_mirror(entry: &Value) -> bool {
    entry.get("mirror").is_some()
}

fn without_mirrors(rule: &Value) -> Value {
    let mut rule = rule.clone();
    if let Some(services) = rule.get_mut("services").and_then(Value::as_array_mut) {
        services.retain(|e| !is_mirror(e));
    }
    rule
}

fn is_ours(list: &Value, field: &str, names: &Names) -> bool {
    list.as_array().unwrap().iter().any(|e| named(e, field, names) == Role::Stable)
}

const TRAEFIK: fn() -> Vec<Value> = || {
    vec![
        json!({}),
        json!({"kind": "Service", "sticky": {"cookie": {"name": "pod"}}}),
        json!({"kind": "TraefikService"}),
        json!({"namespace": "elsewhere"}),
    ]
};

// ---- objects ----

pub fn service(i: usize) -> &'static str {
    if i == 0 { "app" } else { "other" }
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![4 => select(vec![0u32, 1, 3, 7, 25, 33, 50, 60, 67, 99, 100]), 1 => 1u32..=1_000_000]
}

/// Lists of entries with a Service's name under `name`, a port of two under `port`, perhaps a weight, and one of these
/// further fields.
pub fn entries(
    name: &'static str,
    port: Option<&'static str>,
    extra: fn() -> Vec<Value>,
    count: std::ops::Range<usize>,
) -> BoxedStrategy<Value> {
    let service = prop_oneof![5 => Just("app"), 2 => Just("legacy"), 1 => Just("app-canary")];
    let entry = (service, select(vec![80, 8080]), prop::option::weighted(0.8, weight()), select(extra()));
    let entry = entry.prop_map(move |(service, number, weight, mut entry)| {
        entry[name] = json!(service);
        if let Some(port) = port {
            entry[port] = json!(number);
        }
        if let Some(weight) = weight {
            entry["weight"] = json!(weight);
        }
        entry
    });
    vec(entry, count).prop_map(Value::from).boxed()
}

/// Up to five rules, of which some have no list.
fn rules(
    rules: &'static str,
    list: &'static str,
    rule: impl Strategy<Value = Value> + 'static,
    entries: BoxedStrategy<Value>,
) -> BoxedStrategy<Value> {
    let rule = (rule, prop::option::weighted(0.85, entries)).prop_map(move |(mut rule, entries)| {
        if let Some(entries) = entries {
            rule[list] = entries;
        }
        rule
    });
    vec(rule, 1..6)
        .prop_map(move |list| {
            let mut spec = json!({"later": 9_007_199_254_740_993_u64, "hosts": []});
            spec[rules] = json!(list);
            spec
        })
        .boxed()
}

fn big(rules: &str, count: usize, rule: fn(usize) -> Value) -> Value {
    let mut spec = json!({});
    spec[rules] = (0..count).map(rule).collect();
    spec
}

// ---- reading objects ----

/// Whose an entry is that names a Service under `field`, here or in its `namespace`.
pub fn named(entry: &Value, field: &str, names: &Names) -> Role {
    let is_service = entry.get("kind").is_none_or(|k| k == "Service");
    let is_here = entry.get("namespace").is_none_or(|n| n == "shop");
    match entry[field].as_str() {
        Some(name) if is_service && is_here && name == names.stable_service => Role::Stable,
        Some(name) if is_service && is_here && name == names.canary_service => Role::Canary,
        _ => Role::Other,
    }
}

/// A list as its gateway understands it; with `even`, a lone entry gets everything and weights of 0 alone share evenly.
pub fn read(list: &Value, role: impl Fn(&Value) -> Role, default: u64, even: bool) -> Vec<Backend> {
    let entries = list.as_array().unwrap();
    let mut backends: Vec<Backend> = entries.iter().map(|e| backend(role(e), e, default)).collect();
    if even && (backends.len() == 1 || backends.iter().all(|b| b.weight == 0)) {
        backends.iter_mut().for_each(|b| b.weight = 1);
    }
    only_twins(backends)
}

/// A canary without a stable entry of its port is a backend like any other.
fn only_twins(mut list: Vec<Backend>) -> Vec<Backend> {
    let port = |b: &Backend| b.rest.get("port").or(b.rest.get("servicePort")).cloned().unwrap_or_default();
    let mut free: Vec<Value> = list.iter().filter(|b| b.role == Role::Stable).map(port).collect();
    for backend in list.iter_mut().filter(|b| b.role == Role::Canary) {
        match free.iter().position(|p| *p == port(backend)) {
            Some(at) => drop(free.remove(at)),
            None => backend.role = Role::Other,
        }
    }
    list
}

/// Where ports do not tell: a canary beyond the number of stable entries is a backend like any other.
pub fn paired(mut list: Vec<Backend>) -> Vec<Backend> {
    let stables = list.iter().filter(|b| b.role == Role::Stable).count();
    let more = list.iter_mut().filter(|b| b.role == Role::Canary).skip(stables);
    more.for_each(|b| b.role = Role::Other);
    list
}

fn take(
    spec: &mut Value,
    rules: &str,
    list: &str,
    role: impl Fn(&Value) -> Role,
    default: u64,
    even: bool,
) -> Vec<Vec<Backend>> {
    let rules = spec[rules].as_array_mut().unwrap().iter_mut();
    let lists = rules.filter_map(|rule| rule.as_object_mut().unwrap().remove(list));
    lists.map(|list| read(&list, &role, default, even)).collect()
}

fn roles(rule: &Value, list: &str, role: impl Fn(&Value) -> Role) -> Vec<Role> {
    rule[list].as_array().into_iter().flatten().map(role).collect()
}

/// Whether a rule gives the stable Service a share.
fn finds(spec: &Value, rules: &str, list: &str, role: impl Fn(&Value) -> Role, default: u64, even: bool) -> bool {
    let lists = spec[rules].as_array().unwrap().iter().filter_map(|rule| rule.get(list));
    lists.flat_map(|l| read(l, &role, default, even)).any(|b| b.role == Role::Stable && b.weight > 0)
}
