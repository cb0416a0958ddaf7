//! Meshes: Kuma, Linkerd, SMI, Consul.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use tidegate::traffic::Names;

use crate::{
    references::{entries, named, paired, read, service},
    row::{Backend, Matching, Role, Row, backend},
};

// ---- Kuma ----

pub const MESH_HTTP_ROUTE: Row = Row {
    group: "kuma.io",
    kind: "MeshHTTPRoute",
    version: "v1alpha1",
    spec: || {
        let list = vec(mesh_service(), 1..4).prop_map(Value::from);
        let matches = select(vec![
            json!([{"path": {"type": "PathPrefix", "value": "/a"}}]),
            json!([{"path": {"type": "Exact", "value": "/b"}, "method": "GET"}, {"headers": [{"type": "Present", "name": "x"}]}]),
        ]);
        let default = select(vec![json!({}), json!({"filters": [{"type": "RequestMirror", "requestMirror": {}}]})]);
        let rule = (matches, default, list).prop_map(|(matches, mut default, list)| {
            default["backendRefs"] = list;
            json!({"matches": matches, "default": default})
        });
        let to = vec(rule, 0..3)
            .prop_map(|rules| json!({"targetRef": {"kind": "MeshService", "name": "front"}, "rules": rules}));
        vec(to, 1..4).prop_map(|to| json!({"targetRef": {"kind": "Mesh"}, "to": to})).boxed()
    },
    big: |count| {
        let rule = |i: usize| {
            json!({"matches": [{"path": {"type": "PathPrefix", "value": format!("/api/{i}")}}],
                "default": {"backendRefs": [{"kind": "MeshService", "name": service(i), "port": 80, "weight": 1}]}})
        };
        json!({"to": [{"targetRef": {"kind": "Mesh"}, "rules": (0..count).map(rule).collect::<Vec<_>>()}]})
    },
    take: |spec, names| {
        let to = spec["to"].as_array_mut().unwrap().iter_mut();
        let rules = to.flat_map(|to| to["rules"].as_array_mut().unwrap());
        let lists = rules.filter_map(|rule| rule["default"].as_object_mut().unwrap().remove("backendRefs"));
        lists.map(|list| read(&list, |e| mesh_role(e, names), 1, false)).collect()
    },
    matching: Some(Matching {
        rules: mesh_rules,
        roles: |rule, names| {
            rule["default"]["backendRefs"].as_array().unwrap().iter().map(|e| mesh_role(e, names)).collect()
        },
        finds: |spec, names| {
            let lists = mesh_rules(spec).into_iter().map(|rule| rule["default"]["backendRefs"].clone());
            let has_share = |b: Backend| b.role == Role::Stable && b.weight > 0;
            lists.flat_map(|list| read(&list, |e| mesh_role(e, names), 1, false)).any(has_share)
        },
    }),
};

fn mesh_service() -> impl Strategy<Value = Value> {
    let form = |service: &str| {
        vec![
            json!({"kind": "MeshService", "name": service}),
            json!({"kind": "MeshService", "labels": {"kuma.io/display-name": service, "k8s.kuma.io/namespace": "shop"}}),
            json!({"kind": "MeshService", "name": format!("{service}_shop_svc_80")}),
            json!({"kind": "MeshExternalService", "name": service}),
        ]
    };
    let all: Vec<Value> = ["app", "app", "legacy", "app-canary"].into_iter().flat_map(form).collect();
    (select(all), select(vec![80, 8080]), select(vec![0, 1, 3, 7, 33, 50, 99, 100, 4_000_000_000_u32])).prop_map(
        |(mut entry, port, weight)| {
            entry["port"] = json!(port);
            entry["weight"] = json!(weight);
            entry
        },
    )
}

fn mesh_role(entry: &Value, names: &Names) -> Role {
    let name = entry["labels"]["kuma.io/display-name"].as_str().or(entry["name"].as_str()).unwrap();
    let name = name.strip_suffix("_shop_svc_80").unwrap_or(name);
    let kind = if entry["kind"] == "MeshService" { "Service" } else { "Other" };
    named(&json!({"kind": kind, "name": name}), "name", names)
}

fn mesh_rules(spec: &Value) -> Vec<Value> {
    spec["to"].as_array().unwrap().iter().flat_map(|to| to["rules"].as_array().unwrap().clone()).collect()
}

// ---- Linkerd ----

pub const LINKERD_HTTP_ROUTE: Row =
    Row { group: "policy.linkerd.io", version: "v1beta3", ..crate::gateway_api::HTTP_ROUTE };

// ---- SMI ----

pub const TRAFFIC_SPLIT: Row = Row {
    group: "split.smi-spec.io",
    kind: "TrafficSplit",
    version: "v1alpha2",
    spec: || {
        entries("service", None, || vec![json!({})], 1..5)
            .prop_map(
                |backends| json!({"service": "root", "backends": backends, "matches": [{"kind": "HTTPRouteGroup"}]}),
            )
            .boxed()
    },
    big: |count| {
        json!({"service": "root", "backends": (0..count).map(|i| {
        json!({"service": if i == 0 { "app".to_owned() } else { format!("other-{i}") }, "weight": 1})
    }).collect::<Vec<_>>()})
    },
    take: |spec, names| {
        let list = spec.as_object_mut().unwrap().remove("backends").unwrap();
        // A lone backend gets everything.
        let mut backends = read(&list, |e| named(e, "service", names), 0, false);
        if let [lone] = backends.as_mut_slice() {
            lone.weight = 1;
        }
        vec![backends]
    },
    matching: None,
};

// ---- Consul ----

/// The object is named `route`, which is no service of ours: entries name theirs.
pub const SERVICE_SPLITTER: Row = Row {
    group: "consul.hashicorp.com",
    kind: "ServiceSplitter",
    version: "v1alpha1",
    spec: || {
        let names = select(vec!["app", "app", "legacy", "app-canary"]);
        let subset = prop::option::of(select(vec!["v1", "canary"]));
        let entry = (names, subset, select(vec![1u32, 2, 5, 10, 20, 50]));
        vec(entry, 1..5)
            .prop_map(|entries| {
                let count = entries.len() as u32;
                let sum: u32 = entries.iter().map(|(_, _, part)| part).sum();
                let mut left = 100;
                let splits = entries.into_iter().enumerate().map(|(i, (name, subset, part))| {
                    // Whole, together 100, and each at least 2, which can be split.
                    let weight = if i as u32 + 1 == count { left } else { 2 + (100 - 2 * count) * part / sum };
                    left -= weight;
                    let mut split = json!({"service": name, "weight": weight});
                    if let Some(subset) = subset {
                        split["serviceSubset"] = json!(subset);
                    }
                    split
                });
                json!({"splits": splits.collect::<Vec<_>>()})
            })
            .boxed()
    },
    big: |count| {
        json!({"splits": (0..count).map(|i| {
        json!({"service": if i == 0 { "app".to_owned() } else { format!("other-{i}") }, "weight": if i == 0 { 100 } else { 0 }})
    }).collect::<Vec<_>>()})
    },
    take: |spec, names| {
        let list = spec.as_object_mut().unwrap().remove("splits").unwrap();
        vec![paired(list.as_array().unwrap().iter().map(|e| backend(splitter_role(e, names), e, 0)).collect())]
    },
    matching: None,
};

fn splitter_role(entry: &Value, names: &Names) -> Role {
    let is_one = names.stable_service == names.canary_service;
    match named(entry, "service", names) {
        Role::Stable if is_one && entry["serviceSubset"] == "canary" => Role::Canary,
        role => role,
    }
}
