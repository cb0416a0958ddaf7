use super::*;
use serde_json::json;

fn names() -> Names {
    Names { stable_service: "app".into(), canary_service: "app-canary".into(), namespace: None }
}

fn run(original: Value, result: Value, weight: Option<u32>) -> Result<(), String> {
    let original = Original { spec: original, ..Default::default() };
    let strategy = Strategy { weight, ..Default::default() };
    check(&original, &Parts { spec: result, ..Default::default() }, &names(), &strategy, false)
}

fn route(backends: &[(&str, i64)]) -> Value {
    json!(backends.iter().map(|(h, w)| json!({"destination": {"host": h}, "weight": w})).collect::<Vec<_>>())
}

#[test]
fn weights_must_add_up() {
    let original = json!({"http": [{"route": [{"destination": {"host": "app"}}]}]});
    let with = |k: i64| json!({"http": [{"route": route(&[("app", 80), ("app-canary", k)])}]});
    assert_eq!(run(original.clone(), with(20), Some(20)), Ok(()));
    assert!(run(original.clone(), with(30), Some(20)).unwrap_err().contains("spec.http[0].route: weights sum to 110"));
    assert!(run(original, with(-80), Some(20)).unwrap_err().contains("is no count"));
}

#[test]
fn shares_of_others_must_stay() {
    let original = json!({"http": [{"route": route(&[("app", 60), ("other", 40)])}]});
    let good = json!({"http": [{"route": route(&[("app", 30), ("app-canary", 30), ("other", 40)])}]});
    let bad = json!({"http": [{"route": route(&[("app", 50), ("app-canary", 50), ("other", 40)])}]});
    assert_eq!(run(original.clone(), good, Some(50)), Ok(()));
    assert!(run(original, bad, Some(50)).unwrap_err().contains("from 40 % to 29 %"));
}

/// A backend of another kind only has the Service's name, and keeps its share by other numbers.
#[test]
fn a_backend_of_another_kind_is_not_ours() {
    let list = |weights: [u32; 2], more: Value| {
        let mut entries = vec![json!({"name": "app", "weight": weights[0]})];
        entries.push(json!({"name": "app", "kind": "TraefikService", "weight": weights[1]}));
        entries.extend(more.as_array().unwrap().iter().cloned());
        json!({"routes": [{"services": entries}]})
    };
    let canary = json!([{"name": "app-canary", "weight": 1}]);
    assert_eq!(run(list([1, 3], json!([])), list([1, 6], canary.clone()), Some(50)), Ok(()));
    let refused = run(list([1, 3], json!([])), list([1, 3], canary), Some(50)).unwrap_err();
    assert!(refused.contains("not ours changed from 75 % to 60 %"), "{refused}");
}

/// Gloo names an Upstream by namespace, Service and port.
#[test]
fn an_upstream_of_another_namespace_is_not_ours() {
    let list = |weights: &[(&str, u32)]| {
        let entry =
            |(name, weight): &(&str, u32)| json!({"weight": weight, "destination": {"upstream": {"name": name}}});
        json!({"destinations": weights.iter().map(entry).collect::<Vec<_>>()})
    };
    let in_shop = |spec: Value| Original { spec, namespace: Some("shop".to_owned()), ..Default::default() };
    let result = list(&[("shop-app-80", 36), ("other-app-80", 5), ("shop-app-canary-80", 9)]);
    let strategy = Strategy { weight: Some(20), ..Default::default() };
    let judge = |original: Value| {
        check(&in_shop(original), &Parts { spec: result.clone(), ..Default::default() }, &names(), &strategy, false)
    };
    assert_eq!(judge(list(&[("shop-app-80", 9), ("other-app-80", 1)])), Ok(()));
    assert!(judge(list(&[("shop-app-80", 1), ("other-app-80", 1)])).unwrap_err().contains("not ours changed"));
}

/// The canary's subset is written also where the user had one; the others stay.
#[test]
fn a_definition_may_have_the_canarys_subset() {
    let rule = |canary: &str, base: &str| json!({"host": "app", "subsets": [{"name": "canary", "labels": {"v": canary}}, {"name": "base", "labels": {"v": base}}]});
    let judge = |result: Value| {
        let original = Original { spec: rule("2", "1"), ..Default::default() };
        let strategy = Strategy { weight: Some(20), ..Default::default() };
        check(&original, &Parts { spec: result, ..Default::default() }, &names(), &strategy, true)
    };
    assert_eq!(judge(rule("3", "1")), Ok(()));
    assert!(judge(rule("3", "3")).unwrap_err().contains("spec.subsets[1]"));
}

#[test]
fn entries_without_weights_share_evenly() {
    let bare = |name: &str| json!({"destination": {"host": name}});
    let original = json!({"http": [{"route": [bare("app"), bare("other")]}]});
    let mut good = route(&[("app", 1), ("app-canary", 1)]);
    good.as_array_mut().unwrap().push(json!({"destination": {"host": "other"}, "weight": 2}));
    assert_eq!(run(original.clone(), json!({"http": [{"route": good}]}), Some(50)), Ok(()));
    let mut bad = route(&[("app", 1), ("app-canary", 1)]);
    bad.as_array_mut().unwrap().push(bare("other"));
    assert!(run(original, json!({"http": [{"route": bad}]}), Some(50)).unwrap_err().contains("from 50 % to 33 %"));
}

#[test]
fn an_absent_weight_is_what_the_gateway_takes_it_for() {
    let list = |entries: Value| json!({"weighted": {"services": entries}});
    for default in [1, 100] {
        // The others have three times as much.
        let original = list(json!([{"name": "app"}, {"name": "other", "weight": 3 * default}]));
        let split = |c: i64| {
            list(json!([{"name": "app", "weight": 100 - c}, {"name": "other", "weight": 300},
                {"name": "app-canary", "weight": 20}]))
        };
        assert_eq!(run(original.clone(), split(20), Some(20)), Ok(()));
        assert!(run(original, split(90), Some(20)).unwrap_err().contains("not ours"));
    }
}

#[test]
fn numbers_of_others_may_grow_in_a_list_of_the_spec() {
    let original = json!({"backends": [{"service": "app", "weight": 1}, {"service": "other", "weight": 1}]});
    let split = |other: Value| json!({"backends": [{"service": "app", "weight": 4}, other, {"service": "app-canary", "weight": 1}]});
    assert_eq!(run(original.clone(), split(json!({"service": "other", "weight": 5})), Some(20)), Ok(()));
    assert!(run(original.clone(), split(json!({"service": "other", "weight": 1})), Some(20)).is_err());
    assert!(run(original, split(json!({"service": "another", "weight": 5})), Some(20)).is_err());
}

#[test]
fn weights_of_zero_share_evenly() {
    let original = json!({"backends": [{"name": "app", "weight": 0}, {"name": "other"}]});
    let split = |k: i64| {
        json!({"backends": [{"name": "app", "weight": 4}, {"name": "other", "weight": 5},
            {"name": "app-canary", "weight": k}]})
    };
    assert_eq!(run(original.clone(), split(1), Some(20)), Ok(()));
    assert!(run(original, split(20), Some(20)).unwrap_err().contains("from 50 % to 17 %"));
}

#[test]
fn mirrors_answer_nothing() {
    let mirror = json!({"name": "app", "mirror": true, "weight": 5});
    let original = json!({"routes": [{"services": [{"name": "app"}, mirror]}]});
    let split = |k: i64| json!({"routes": [{"services": [{"name": "app", "weight": 80}, mirror, {"name": "app-canary", "weight": k}]}]});
    assert_eq!(run(original.clone(), split(20), Some(20)), Ok(()));
    assert!(run(original, split(25), Some(20)).unwrap_err().contains("sum to 105"));
}

#[test]
fn backends_and_upstreams_share() {
    let rule = |backends: Value, upstreams: Value| json!({"http": [{"match": {}, "backends": backends, "upstreams": upstreams}]});
    let original = rule(json!([{"serviceName": "app", "weight": 3}]), json!([{"name": "outside", "weight": 1}]));
    let split = |outside: i64| {
        let ours = json!([{"serviceName": "app", "weight": 60}, {"serviceName": "app-canary", "weight": 15}]);
        rule(ours, json!([{"name": "outside", "weight": outside}]))
    };
    assert_eq!(run(original.clone(), split(25), Some(20)), Ok(()));
    assert!(run(original, split(1), Some(20)).unwrap_err().contains("from 25 % to 1 %"));
}

#[test]
fn a_backend_is_known_by_its_name_too() {
    let upstream = |name: &str, service: &str| json!({"name": name, "service": service, "port": 80});
    let pass = |name: &str, weight: i64| json!({"weight": weight, "action": {"pass": name}});
    let legacy = json!({"path": "/old", "action": {"pass": "legacy"}});
    let original = json!({"upstreams": [upstream("tea", "shop/app"), upstream("legacy", "legacy")],
        "routes": [{"path": "/", "action": {"pass": "tea"}}, legacy]});
    let split = |legacy: &Value| {
        json!({"upstreams": [upstream("tea", "shop/app"), upstream("legacy", "legacy"), upstream("tea-2", "shop/app-canary")],
            "routes": [{"path": "/", "splits": [pass("tea", 80), pass("tea-2", 20)]}, legacy]})
    };
    assert_eq!(run(original.clone(), split(&legacy), Some(20)), Ok(()));
    assert!(run(original, split(&json!({"path": "/old"})), Some(20)).unwrap_err().contains("spec.routes[1]"));
}

#[test]
fn a_rule_whose_action_forwards_to_us_is_ours() {
    let path = |action: &str| json!({"path": "/", "backend": {"service": {"name": action, "port": {"name": "use-annotation"}}}});
    let rules = |paths: Value| json!({"rules": [{"http": {"paths": paths}}]});
    let action =
        |service: &str| json!({"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": service}]}});
    let run = |service: &str| {
        let key = "alb.ingress.kubernetes.io/actions.shared".to_owned();
        let original = Original {
            kind: "Ingress".into(),
            spec: rules(json!([path("shared")])),
            annotations: [(key, action(service).to_string())].into(),
            ..Default::default()
        };
        let spec = rules(json!([path("app-canary-1"), path("shared")]));
        let result = Parts { spec, annotations: original.annotations.clone(), ..Default::default() };
        check(&original, &result, &names(), &Strategy { weight: Some(20), ..Default::default() }, false)
    };
    assert_eq!(run("app"), Ok(()));
    assert!(run("legacy").unwrap_err().contains("spec.rules[0]"));
}

#[test]
fn names_that_gateways_make_are_known() {
    for (text, is_ours) in [
        ("app", true),
        ("app.shop.svc", true),
        ("app_shop_svc_80", true),
        ("shop-app-80", true),
        ("app_shop", false),
        ("my-app", false),
        ("app-80", false),
        ("shop-myapp-80", false),
        ("shop-app-canary", false),
    ] {
        assert_eq!(names_in_text(text, "app", None), is_ours, "{text}");
    }
}

#[test]
fn a_split_without_a_name_is_its_objects_own() {
    let original = Original {
        kind: "ServiceSplitter".into(),
        name: "app".into(),
        spec: json!({"splits": [{"weight": 66.67}, {"weight": 33.33, "service": "other"}]}),
        ..Default::default()
    };
    let check = |c: f64| {
        let spec = json!({"splits": [{"weight": 50}, {"weight": 33.33, "service": "other"},
            {"weight": c, "service": "app-canary"}]});
        check(&original, &Parts { spec, ..Default::default() }, &names(), &Strategy::default(), false)
    };
    assert_eq!(check(16.67), Ok(()));
    assert!(check(50.0).unwrap_err().contains("not ours"));
}

#[test]
fn unrelated_rules_must_stay() {
    let other = json!({"redirect": {"uri": "/x"}});
    let rule = json!({"route": [{"destination": {"host": "app"}}]});
    let changed = json!({"route": route(&[("app", 80), ("app-canary", 20)])});
    let original = json!({"http": [other, rule]});
    assert_eq!(run(original.clone(), json!({"http": [other, changed]}), Some(20)), Ok(()));
    assert!(run(original.clone(), json!({"http": [changed]}), Some(20)).unwrap_err().contains("spec.http[0]"));
    assert!(run(original, json!({"http": [{"redirect": {"uri": "/y"}}, changed]}), Some(20)).is_err());
}

#[test]
fn changing_nothing_is_an_error() {
    let original = json!({"http": [{"route": [{"destination": {"host": "other"}}]}]});
    assert!(run(original.clone(), original.clone(), Some(20)).unwrap_err().contains("Service app"));
    assert_eq!(run(original.clone(), original, Some(0)), Ok(()));
    let there = json!({"http": [{"route": route(&[("app", 67), ("app-canary", 33)])}]});
    assert_eq!(run(there.clone(), there, Some(33)), Ok(()));
}

#[test]
fn a_subset_must_be_defined() {
    let route = Parts {
        spec: json!({"http": [{"route": [{"destination": {"host": "app.shop.svc", "subset": "canary"}}]}]}),
        ..Default::default()
    };
    let rule =
        |subset: &str| Parts { spec: json!({"host": "app", "subsets": [{"name": subset}]}), ..Default::default() };
    assert!(check_subsets(&[("VirtualService", &route), ("DestinationRule", &rule("base"))]).is_err());
    assert_eq!(check_subsets(&[("VirtualService", &route), ("DestinationRule", &rule("canary"))]), Ok(()));
    assert_eq!(check_subsets(&[("VirtualService", &route)]), Ok(()));
}
