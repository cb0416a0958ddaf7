//! VirtualService: its row, and what holds for this script exactly.

use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use tidegate::{
    lua::{Engine, Library, Script},
    traffic::{Names, Original, Parts, Strategy as Step, checks::check, output, script_input},
};

use crate::row::{Backend, ENGINE, Matching, OTHER, Role, Row, backend, match_step, weight_step, without_nulls};

pub const VIRTUAL_SERVICE: Row = Row {
    group: "networking.istio.io",
    kind: "VirtualService",
    version: "v1",
    spec: || spec().boxed(),
    big: |rules| {
        let rule = |i: usize| {
            let host = if i == 0 { "app" } else { "other" };
            json!({"match": [{"uri": {"prefix": format!("/api/{i}")}}], "route": [{"destination": {"host": host}}]})
        };
        json!({"hosts": ["*"], "http": (0..rules).map(rule).collect::<Vec<_>>()})
    },
    take,
    matching: Some(Matching {
        rules: |spec| rules(spec, "http").to_vec(),
        roles: |rule, names| {
            rule["route"].as_array().into_iter().flatten().map(|e| role(&e["destination"], names)).collect()
        },
        finds: |spec, names| reachable(spec).iter().any(|r| has_share(r, names)),
    }),
};

fn take(spec: &mut Value, names: &Names) -> Vec<Vec<Backend>> {
    let mut lists = Vec::new();
    for protocol in PROTOCOLS {
        for rule in spec.get_mut(protocol).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(route) = rule.as_object_mut().unwrap().remove("route") else { continue };
            let entries = route.as_array().unwrap();
            let read = |e: &Value| Backend {
                // A lone destination gets everything.
                weight: if entries.len() == 1 { 1 } else { e["weight"].as_u64().unwrap_or(0) },
                ..backend(role(&e["destination"], names), e, 0)
            };
            lists.push(entries.iter().map(read).collect());
        }
    }
    lists
}

/// The http rules that Istio gets to: nothing after a rule without match is ever used.
fn reachable(spec: &Value) -> &[Value] {
    let http = rules(spec, "http");
    let last = http.iter().position(|r| r.get("match").is_none()).map_or(http.len(), |i| i + 1);
    &http[..last]
}

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Library::builtin("networking.istio.io", "VirtualService").unwrap());

const PROTOCOLS: [&str; 3] = ["http", "tcp", "tls"];

fn original(spec: &Value) -> Original {
    let object = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "vs", "namespace": "shop", "labels": {"team": "web"}}, "spec": spec});
    Original::from_object(&object).unwrap()
}

fn run_on(engine: &Engine, spec: &Value, names: &Names, step: &Step) -> Result<Value, String> {
    let original = original(spec);
    let outcome = engine.run(&SCRIPT, &script_input(&original, names, None, step)).map_err(|e| e.message)?;
    assert_eq!(outcome.warnings, Vec::<String>::new());
    let parts = output(outcome.value).unwrap();
    assert_eq!((&parts.labels, &parts.annotations), (&original.labels, &original.annotations));
    Ok(parts.spec)
}

fn run(spec: &Value, names: &Names, step: &Step) -> Result<Value, String> {
    run_on(&ENGINE, spec, names, step)
}

/// What the controller demands of every script's result.
fn post_conditions(before: &Value, after: &Value, names: &Names, step: &Step) -> Result<(), TestCaseError> {
    // They tell a Service of the same name elsewhere from ours by the first label only.
    if !before.to_string().contains("app.e") {
        let original = original(before);
        let parts = Parts { spec: after.clone(), ..original.parts() };
        let verdict = check(&original, &parts, names, step, false);
        prop_assert_eq!(verdict, Ok(()), "{}", after);
    }
    Ok(())
}

// ---- objects ----

fn host(service: &'static str) -> impl Strategy<Value = String> {
    select(vec!["", ".shop", ".shop.svc.cluster.local"]).prop_map(move |suffix| format!("{service}{suffix}"))
}

fn destination() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        4 => host("app"),
        2 => host("legacy"),
        1 => Just("app.elsewhere.svc.cluster.local".to_owned()),
        1 => Just("app.example.com".to_owned()),
    ];
    (name, prop::option::of(select(vec![80, 8080])), prop::option::of(select(vec!["v1", "v2"]))).prop_map(
        |(host, port, subset)| {
            let mut d = json!({ "host": host });
            if let Some(port) = port {
                d["port"] = json!({ "number": port });
            }
            if let Some(subset) = subset {
                d["subset"] = json!(subset);
            }
            d
        },
    )
}

/// Weights as users write them, and some that are hard to divide.
fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![4 => select(vec![0u32, 1, 3, 7, 25, 33, 50, 60, 67, 99, 100]), 1 => 1u32..1_000_000]
}

fn route() -> impl Strategy<Value = Value> {
    let entry = (destination(), weight(), prop::bool::weighted(0.2))
        .prop_map(|(destination, weight, headers)| {
            let mut entry = json!({"destination": destination, "weight": weight});
            if headers {
                entry["headers"] = json!({"response": {"set": {"x-a": "b"}, "remove": []}});
            }
            entry
        })
        .boxed();
    prop_oneof![
        1 => destination().prop_map(|d| json!([{ "destination": d }])),
        1 => entry.clone().prop_map(|e| json!([e])),
        3 => vec(entry, 2..4).prop_filter("Istio refuses a sum of 0", |entries| {
            entries.iter().any(|e| e["weight"] != json!(0))
        }).prop_map(Value::from),
    ]
}

fn http_rule() -> impl Strategy<Value = Value> {
    let matched = select(vec![
        Value::Null,
        json!([{"uri": {"prefix": "/a"}}]),
        json!([{"uri": {"exact": "/b"}}, {"method": {"exact": "GET"}, "withoutHeaders": {"x-bot": {}}}]),
        json!([{"headers": {"x-user": {}}, "queryParams": {}}]),
    ]);
    let action = prop_oneof![
        6 => route().prop_map(|r| ("route", r)),
        1 => Just(("redirect", json!({"uri": "/new"}))),
        1 => Just(("delegate", json!({"name": "d", "namespace": "n"}))),
    ];
    let extra = select(vec![
        json!({}),
        json!({"name": "primary", "timeout": "5s"}),
        json!({"name": "primary"}),
        json!({"corsPolicy": {"allowOrigins": [], "maxAge": null}, "big": 9_007_199_254_740_991_u64}),
    ]);
    (matched, action, extra).prop_map(|(matched, (key, value), mut rule)| {
        if !matched.is_null() {
            rule["match"] = matched;
        }
        rule[key] = value;
        rule
    })
}

fn l4_rule() -> impl Strategy<Value = Value> {
    route().prop_map(|route| json!({"match": [{"port": 443, "sniHosts": ["a.example.com"]}], "route": route}))
}

fn spec() -> impl Strategy<Value = Value> {
    (vec(http_rule(), 0..5), vec(l4_rule(), 0..2), vec(l4_rule(), 0..2)).prop_map(|(http, tcp, tls)| {
        let mut spec = json!({"hosts": ["*"], "exportTo": [], "big": 9_007_199_254_740_993_u64});
        for (protocol, rules) in PROTOCOLS.into_iter().zip([http, tcp, tls]) {
            if !rules.is_empty() {
                spec[protocol] = json!(rules);
            }
        }
        spec
    })
}

fn names() -> impl Strategy<Value = Names> {
    select(vec!["app-canary", "app"]).prop_map(|canary| Names {
        stable_service: "app".to_owned(),
        canary_service: canary.to_owned(),
        namespace: Some("shop".to_owned()),
    })
}

// ---- reading objects ----

fn role(destination: &Value, names: &Names) -> Role {
    let host = destination["host"].as_str().unwrap();
    let is = |service: &str| ["", ".shop", ".shop.svc.cluster.local"].iter().any(|s| host == format!("{service}{s}"));
    let by_subset = names.stable_service == names.canary_service;
    match () {
        () if by_subset && is("app") && destination["subset"] == "canary" => Role::Canary,
        () if is("app") => Role::Stable,
        () if !by_subset && is("app-canary") => Role::Canary,
        () => Role::Other,
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Shares {
    stable: u64,
    canary: u64,
    other: u64,
}

impl Shares {
    fn of(rule: &Value, names: &Names) -> Option<Shares> {
        let route = rule["route"].as_array()?;
        let mut shares = Shares::default();
        for entry in route {
            let weight = if route.len() == 1 { 1 } else { entry["weight"].as_u64().unwrap_or(0) };
            match role(&entry["destination"], names) {
                Role::Stable => shares.stable += weight,
                Role::Canary => shares.canary += weight,
                Role::Other => shares.other += weight,
            }
        }
        Some(shares)
    }

    fn sum(self) -> u64 {
        self.stable + self.canary + self.other
    }
}

fn rules<'a>(spec: &'a Value, protocol: &str) -> &'a [Value] {
    spec[protocol].as_array().map_or(&[], Vec::as_slice)
}

fn has_share(rule: &Value, names: &Names) -> bool {
    Shares::of(rule, names).is_some_and(|s| s.stable > 0)
}

fn is_partly_drained(rule: &Value, names: &Names) -> bool {
    let route = rule["route"].as_array().map_or(&[][..], Vec::as_slice);
    let stable = || route.iter().filter(|e| role(&e["destination"], names) == Role::Stable);
    let drained = stable().filter(|e| route.len() > 1 && e["weight"] == json!(0)).count();
    drained > 0 && drained < stable().count()
}

fn without(value: &Value, keys: &[&str]) -> Value {
    let map: Map<String, Value> = value
        .as_object()
        .unwrap()
        .iter()
        .filter(|(k, _)| !keys.contains(&k.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    Value::Object(map)
}

// ---- properties ----

fn check_split(before: &Value, after: &Value, names: &Names, c: u64) -> Result<(), TestCaseError> {
    let (old, new) = (Shares::of(before, names).unwrap(), Shares::of(after, names).unwrap());
    let mine: Vec<u64> = {
        let route = before["route"].as_array().unwrap();
        let weight = |e: &Value| if route.len() == 1 { 1 } else { e["weight"].as_u64().unwrap_or(0) };
        route.iter().filter(|e| role(&e["destination"], names) == Role::Stable).map(weight).filter(|w| *w > 0).collect()
    };
    let exact = mine.iter().all(|w| (w * c).is_multiple_of(100));
    // Both together have what stable had: other destinations get what they got.
    prop_assert_eq!((new.stable + new.canary) * old.sum(), old.stable * new.sum(), "{}", after);
    let sum = if old.other == 0 && (mine.len() == 1 || (old.sum() < 100 && !exact)) { 100 } else { old.sum() };
    if old.other == 0 || old.sum() >= 100 && !mine.contains(&1) || exact {
        prop_assert_eq!(new.sum(), sum, "{}", after);
        // Rounded by less than one a destination.
        let off = (new.canary * 100).abs_diff((new.stable + new.canary) * c);
        prop_assert!(off < 100 * mine.len() as u64, "{}", after);
    } else {
        prop_assert_eq!(new.canary * 100, (new.stable + new.canary) * c, "{}", after);
    }
    if new.stable + new.canary > 1 && c > 0 && c < 100 {
        prop_assert!(new.canary > 0 && new.stable > 0, "{}", after);
    }
    prop_assert!(new.sum() <= i32::MAX as u64);
    // Each old entry is still there, in place and but for its weight unchanged; new ones are canaries.
    let (before, after) = (before["route"].as_array().unwrap(), after["route"].as_array().unwrap());
    for (i, entry) in after.iter().enumerate() {
        match before.get(i) {
            Some(old) => prop_assert_eq!(without(entry, &["weight"]), without(old, &["weight"])),
            None => prop_assert_eq!(role(&entry["destination"], names), Role::Canary),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn weight_steps_split_what_is_ours(spec in spec(), names in names(), c in 0u32..=100) {
        let ours = PROTOCOLS.iter().flat_map(|p| rules(&spec, p)).any(|r| has_share(r, &names));
        let result = run(&spec, &names, &weight_step(c));
        prop_assert_eq!(result.is_ok(), ours, "{:?}", result);
        let Ok(after) = result else { return Ok(()) };
        post_conditions(&spec, &after, &names, &weight_step(c))?;
        prop_assert_eq!(without(&spec, &PROTOCOLS), without(&after, &PROTOCOLS));
        for protocol in PROTOCOLS {
            let (before, after) = (rules(&spec, protocol), rules(&after, protocol));
            prop_assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(after) {
                if has_share(before, &names) {
                    prop_assert_eq!(without(before, &["route"]), without(after, &["route"]));
                    check_split(before, after, &names, c.into())?;
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }

    #[test]
    fn match_steps_add_rules_and_change_none(spec in spec(), names in names(), n in 1usize..3) {
        let step = match_step(&["x-one", "x-two"][..n]);
        let result = run(&spec, &names, &step);
        let http = rules(&spec, "http");
        let reachable = reachable(&spec).len();
        let ours = http[..reachable].iter().filter(|r| has_share(r, &names)).count();
        prop_assert_eq!(result.is_ok(), ours > 0, "{:?}", result);
        let Ok(after) = result else { return Ok(()) };
        post_conditions(&spec, &after, &names, &step)?;
        prop_assert_eq!(without(&spec, &["http"]), without(&after, &["http"]));
        let mut rest = rules(&after, "http").iter();
        for (i, before) in http.iter().enumerate() {
            if i < reachable && has_share(before, &names) {
                for header in ["x-two", "x-one"].iter().skip(2 - n) {
                    let added = rest.next().unwrap();
                    let route = added["route"].as_array().unwrap();
                    prop_assert!(route.iter().all(|e| role(&e["destination"], &names) == Role::Canary), "{}", added);
                    for entry in added["match"].as_array().unwrap() {
                        prop_assert_eq!(&entry["headers"][header], &json!({"exact": "1"}));
                    }
                    let combinations = before["match"].as_array().map_or(1, Vec::len);
                    prop_assert_eq!(added["match"].as_array().unwrap().len(), combinations);
                    let own = ["match", "route", "name"];
                    prop_assert_eq!(without_nulls(&without(added, &own)), without_nulls(&without(before, &own)));
                }
            }
            prop_assert_eq!(rest.next(), Some(before));
        }
        prop_assert_eq!(rest.next(), None);
    }

    #[test]
    fn nothing_depends_on_what_ran_before(spec in spec(), names in names(), a in 0u32..=100, b in 0u32..=100) {
        let from_original = run_on(&OTHER, &spec, &names, &weight_step(b));
        let _ = run(&spec, &names, &weight_step(a));
        let _ = run(&spec, &names, &match_step(&["x-one"]));
        prop_assert_eq!(&run(&spec, &names, &weight_step(b)), &from_original);
        prop_assert_eq!(&run(&spec, &names, &weight_step(b)), &from_original);
    }

    #[test]
    fn a_script_that_sees_its_own_output_gives_the_same_shares(
        spec in spec(), names in names(), a in 0u32..=100, b in 0u32..=100,
    ) {
        // Which of two equal destinations a canary beside them belongs to, the one that is drained or the other, cannot
        // be told from the output.
        prop_assume!(PROTOCOLS.iter().flat_map(|p| rules(&spec, p)).all(|r| !is_partly_drained(r, &names)));
        let Ok(first) = run(&spec, &names, &weight_step(a)) else { return Ok(()) };
        let direct = run(&spec, &names, &weight_step(b)).unwrap();
        let again = run(&first, &names, &weight_step(b)).unwrap();
        for protocol in PROTOCOLS {
            for (direct, again) in rules(&direct, protocol).iter().zip(rules(&again, protocol)) {
                let (Some(d), Some(a)) = (Shares::of(direct, &names), Shares::of(again, &names)) else { continue };
                prop_assert_eq!(d.other * a.sum(), a.other * d.sum(), "{} {}", direct, again);
                prop_assert_eq!((d.stable + d.canary) * a.sum(), (a.stable + a.canary) * d.sum(), "{} {}", direct, again);
                // Rounding may differ by one a destination of a hundred.
                let share = |s: Shares| s.canary as f64 / s.sum() as f64;
                prop_assert!((share(d) - share(a)).abs() < 0.03, "{} {}", direct, again);
                prop_assert_eq!(direct["route"].as_array().unwrap().len(), again["route"].as_array().unwrap().len());
            }
        }
    }
}
