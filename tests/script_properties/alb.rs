//! The Ingress class that holds both versions in one Ingress: actions in annotations share each path's requests.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestCaseError};
use serde_json::{Value, json};

use crate::{
    in_place::{Class, annotations},
    ingress::{check, object},
    row::{Backend, ENGINE, Role, is_ours, match_step, split_is_right, weight_step},
};

const ACTIONS: &str = "alb.ingress.kubernetes.io/actions.";
const ALB: Class = Class { name: "alb", is_one: false };

// ---- objects ----

fn group(service: &str, port: u32, weight: u32) -> Value {
    json!({"serviceName": service, "servicePort": port, "weight": weight})
}

/// Actions that the user has written: two that forward, also to us, and one that does not.
fn actions() -> impl Strategy<Value = BTreeMap<String, String>> {
    // AWS counts to 999: shares of few per cent beside large ones come out rough.
    let weight = || select(vec![0_u32, 1, 3, 7]);
    (weight(), weight(), weight()).prop_map(|(a, b, c)| {
        let forward = |groups: Value| json!({"type": "forward", "forwardConfig": {"targetGroups": groups}}).to_string();
        let shared = forward(json!([group("app", 80, a), group("legacy", 80, b), group("app", 8080, c)]));
        let other = forward(json!([group("legacy", 80, 1), group("other", 80, 2)]));
        let redirect = json!({"type": "redirect", "redirectConfig": {"statusCode": "HTTP_301"}}).to_string();
        BTreeMap::from([
            (format!("{ACTIONS}shared"), shared),
            (format!("{ACTIONS}other"), other),
            (format!("{ACTIONS}redirect"), redirect),
            ("alb.ingress.kubernetes.io/scheme".to_owned(), "internal".to_owned()),
        ])
    })
}

fn backend() -> impl Strategy<Value = Value> {
    let plain = |name: &str, port: u32| json!({"service": {"name": name, "port": {"number": port}}});
    let annotated = |name: &str| json!({"service": {"name": name, "port": {"name": "use-annotation"}}});
    select(vec![
        plain("app", 80),
        plain("app", 80),
        plain("app", 8080),
        plain("legacy", 80),
        annotated("shared"),
        annotated("other"),
        annotated("redirect"),
    ])
}

fn objects() -> BoxedStrategy<Value> {
    let path = (select(vec!["/", "/a", "/a/b"]), select(vec!["Exact", "Prefix"]), backend())
        .prop_map(|(path, kind, backend)| json!({"path": path, "pathType": kind, "backend": backend}));
    let rule = (select(vec!["a.example.com", "b.example.com"]), vec(path, 1..4))
        .prop_map(|(host, paths)| json!({"host": host, "http": {"paths": paths}}));
    (vec(rule, 1..4), prop::option::of(backend()), actions())
        .prop_map(|(rules, default, annotations)| {
            let mut spec = json!({"ingressClassName": "alb", "rules": rules});
            if let Some(default) = default {
                spec["defaultBackend"] = default;
            }
            object(&spec, &annotations)
        })
        .boxed()
}

/// The target groups of a backend; none for an action that does not forward.
fn groups(backend: &Value, annotations: &BTreeMap<String, String>) -> Vec<Backend> {
    let service = &backend["service"];
    let list = if service["port"]["name"] == "use-annotation" {
        let action: Value =
            serde_json::from_str(&annotations[&format!("{ACTIONS}{}", service["name"].as_str().unwrap())]).unwrap();
        action["forwardConfig"]["targetGroups"].clone()
    } else {
        json!([{"serviceName": service["name"], "servicePort": service["port"]["number"], "weight": 1}])
    };
    let entries = list.as_array().into_iter().flatten().map(|entry| {
        let role = match entry["serviceName"].as_str().unwrap() {
            "app" => Role::Stable,
            "app-canary" => Role::Canary,
            _ => Role::Other,
        };
        crate::row::backend(role, entry, 1)
    });
    entries.collect()
}

/// Takes every backend out of a spec, as its target groups.
fn take(spec: &mut Value, annotations: &BTreeMap<String, String>) -> Vec<Vec<Backend>> {
    let mut lists = Vec::new();
    for rule in spec["rules"].as_array_mut().unwrap() {
        for path in rule["http"]["paths"].as_array_mut().unwrap() {
            lists.push(groups(&path["backend"].take(), annotations));
        }
    }
    if let Some(default) = spec.get_mut("defaultBackend") {
        lists.push(groups(&default.take(), annotations));
    }
    lists
}

// ---- properties ----

#[test]
fn weight_steps_split_what_is_ours() {
    check(objects(), |object| {
        let written = annotations(object);
        for weight in [0, 1, 20, 33, 50, 99, 100] {
            let mut before = object["spec"].clone();
            let old = take(&mut before, &written);
            let result = ALB.run(&ENGINE, object, &weight_step(weight));
            prop_assert_eq!(result.is_ok(), old.iter().any(|list| is_ours(list)), "{:?}", result);
            let Ok(parts) = result else { continue };
            let mut after = parts.spec;
            let new = take(&mut after, &parts.annotations);
            prop_assert_eq!(before, after);
            for (old, new) in old.iter().zip(&new) {
                split_is_right(old, new, u64::from(weight))
                    .map_err(|e| TestCaseError::fail(format!("{weight} %: {e}\n{old:#?}\n{new:#?}")))?;
            }
            for (key, value) in written.iter().filter(|(key, _)| **key != format!("{ACTIONS}shared")) {
                prop_assert_eq!(parts.annotations.get(key), Some(value));
            }
        }
        Ok(())
    });
}

/// Paths for the canary alone are added; all others stay, in order, with their actions.
#[test]
fn match_steps_add_paths_and_change_none() {
    check(objects(), |object| {
        let written = annotations(object);
        let result = ALB.run(&ENGINE, object, &match_step(&["x-one", "x-two"]));
        let mut rules_only = object["spec"].clone();
        rules_only.as_object_mut().unwrap().remove("defaultBackend");
        let is_found = take(&mut rules_only, &written).iter().any(|list| is_ours(list));
        prop_assert_eq!(result.is_ok(), is_found, "{:?}", result);
        let Ok(parts) = result else { return Ok(()) };
        prop_assert_eq!(parts.spec.get("defaultBackend"), object["spec"].get("defaultBackend"));
        let all = |spec: &Value| -> Vec<Value> {
            let rules = spec["rules"].as_array().unwrap().iter().enumerate();
            rules
                .flat_map(|(i, rule)| {
                    let paths = rule["http"]["paths"].as_array().unwrap().iter();
                    paths.map(move |path| json!([i, rule["host"], path])).collect::<Vec<_>>()
                })
                .collect()
        };
        let mut left = all(&object["spec"]).into_iter().peekable();
        for path in all(&parts.spec) {
            if left.peek() == Some(&path) {
                left.next();
                continue;
            }
            let list = groups(&path[2]["backend"], &parts.annotations);
            prop_assert!(!list.is_empty() && list.iter().all(|b| b.role == Role::Canary), "{}", path);
        }
        prop_assert_eq!(left.next(), None, "a path changed, moved or vanished");
        for (key, value) in &written {
            prop_assert_eq!(parts.annotations.get(key), Some(value));
        }
        let added = json!(parts.annotations).to_string();
        prop_assert!(added.contains("x-one") && added.contains("x-two"), "{}", added);
        Ok(())
    });
}

#[test]
fn steps_follow_each_other_and_the_end_restores() {
    let steps = [weight_step(20), match_step(&["x-one"]), weight_step(33), weight_step(0), weight_step(100)];
    check(objects(), |object| ALB.steps_follow_each_other_and_the_end_restores(object, &steps));
}
