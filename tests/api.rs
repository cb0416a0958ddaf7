//! The schema of the custom resource definitions accepts what the API promises, and loses no field of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use serde_json::{Value, json};
use tidegate::api::{crd, v1beta1::Rollout};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

static CRDS: LazyLock<Vec<Value>> = LazyLock::new(|| crd::all().unwrap());

fn schema_of(kind: &str, version: &str) -> &'static Value {
    let crd = CRDS.iter().find(|c| c["spec"]["names"]["kind"] == kind).expect(kind);
    let versions = crd["spec"]["versions"].as_array().unwrap();
    &versions.iter().find(|v| v["name"] == version).expect(version)["schema"]["openAPIV3Schema"]
}

/// What an API server would say of `value`, apart from CEL rules and patterns, including the fields it would drop.
fn judge(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true && schema.get("properties").is_none() {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        if !value.is_i64() && !value.is_string() {
            wrong.push(format!("{at}: neither a number nor a string"));
        }
        return;
    }
    let bound = |key: &str| schema[key].as_u64();
    match (schema["type"].as_str().unwrap_or("?"), value) {
        ("object", Value::Object(map)) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                if !map.contains_key(name.as_str().unwrap()) {
                    wrong.push(format!("{at}: {name} is missing"));
                }
            }
            for (key, child) in map {
                let field = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
                match field {
                    Some(field) => judge(field, child, &format!("{at}.{key}"), wrong),
                    None => wrong.push(format!("{at}.{key}: would be dropped")),
                }
            }
        }
        ("array", Value::Array(items)) => {
            if bound("maxItems").is_some_and(|max| items.len() as u64 > max) {
                wrong.push(format!("{at}: too many"));
            }
            if bound("minItems").is_some_and(|min| (items.len() as u64) < min) {
                wrong.push(format!("{at}: too few"));
            }
            let keys: Vec<String> = match schema["x-kubernetes-list-type"].as_str().unwrap() {
                "map" => {
                    let by = schema["x-kubernetes-list-map-keys"][0].as_str().unwrap();
                    items.iter().map(|i| i[by].to_string()).collect()
                }
                "set" => items.iter().map(Value::to_string).collect(),
                _ => vec![],
            };
            if keys.iter().collect::<BTreeSet<_>>().len() < keys.len() {
                wrong.push(format!("{at}: twice the same key"));
            }
            for (i, item) in items.iter().enumerate() {
                judge(&schema["items"], item, &format!("{at}[{i}]"), wrong);
            }
        }
        ("string", Value::String(text)) => {
            let allowed = schema["enum"].as_array();
            if allowed.is_some_and(|a| !a.contains(value)) {
                wrong.push(format!("{at}: not one of {allowed:?}"));
            }
            let length = text.chars().count() as u64;
            if bound("maxLength").is_some_and(|max| length > max) || bound("minLength").is_some_and(|min| length < min)
            {
                wrong.push(format!("{at}: length {length}"));
            }
        }
        ("integer", Value::Number(n)) => {
            let n = n.as_i64().unwrap();
            if schema["maximum"].as_i64().is_some_and(|max| n > max)
                || schema["minimum"].as_i64().is_some_and(|m| n < m)
            {
                wrong.push(format!("{at}: {n} is out of bounds"));
            }
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => {}
        (wanted, _) => wrong.push(format!("{at}: not of type {wanted}: {value}")),
    }
}

fn verdict(object: &Value) -> Vec<String> {
    let version = object["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap();
    let schema = schema_of(object["kind"].as_str().unwrap(), version);
    let mut wrong = Vec::new();
    for part in ["spec", "status"] {
        if let Some(value) = object.get(part) {
            judge(&schema["properties"][part], value, part, &mut wrong);
        }
    }
    wrong
}

#[test]
fn accepts_every_example_in_every_version() {
    for mut object in tidegate::yaml::from_str_multi(&read("tests/api/accepted.yaml")).unwrap() {
        assert_eq!(verdict(&object), [""; 0], "{}", object["metadata"]["name"]);
        if object["kind"] == "Rollout" {
            for version in ["rollouts.kruise.io/v1alpha1", "rollouts.kruise.io/v1beta1"] {
                object["apiVersion"] = json!(version);
                assert_eq!(verdict(&object), [""; 0], "{} as {version}", object["metadata"]["name"]);
            }
            // The controller's own view drops nothing either.
            let typed: Rollout = serde_json::from_value(object.clone()).unwrap();
            assert!(contains(&serde_json::to_value(&typed.spec).unwrap(), &object["spec"]), "{object}");
        }
    }
    let story: Value = tidegate::yaml::from_str(&read("examples/istio/rollout.yaml")).unwrap();
    assert_eq!(verdict(&story), [""; 0]);
}

/// Whether `big` has everything that `small` has, except what is empty or the default.
fn contains(big: &Value, small: &Value) -> bool {
    match (big, small) {
        (Value::Object(b), Value::Object(s)) => s.iter().all(|(k, v)| {
            b.get(k).map_or_else(|| v == &json!(false) || v == &json!({}) || v == &json!([]), |b| contains(b, v))
        }),
        (Value::Array(b), Value::Array(s)) => b.len() == s.len() && b.iter().zip(s).all(|(b, s)| contains(b, s)),
        // A whole number is the same number with and without a fraction: 5 and 5.0.
        (Value::Number(b), Value::Number(s)) => b.as_f64() == s.as_f64(),
        _ => big == small,
    }
}

#[test]
fn what_the_controller_writes_is_accepted() {
    use tidegate::api::v1beta1::{BlueGreenStatus, CanaryStatus, Condition, RolloutStatus};
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-11-22T05:00:00Z".parse().unwrap());
    let condition = Condition {
        r#type: "Progressing".into(),
        status: "True".into(),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
        ..Condition::default()
    };
    for status in [
        RolloutStatus::default(),
        RolloutStatus {
            conditions: vec![condition],
            canary_status: Some(CanaryStatus { last_update_time: Some(now), ..CanaryStatus::default() }),
            blue_green_status: Some(BlueGreenStatus::default()),
            observed_generation: Some(1),
            ..RolloutStatus::default()
        },
    ] {
        for version in ["v1alpha1", "v1beta1"] {
            let object =
                json!({"apiVersion": format!("rollouts.kruise.io/{version}"), "kind": "Rollout", "status": status});
            assert_eq!(verdict(&object), [""; 0], "{object}");
        }
    }
}

#[test]
fn the_judge_finds_what_is_wrong() {
    let story: Value = tidegate::yaml::from_str(&read("examples/istio/rollout.yaml")).unwrap();
    let spoil = |pointer: &str, value: Value| {
        let mut object = story.clone();
        *object.pointer_mut(pointer).unwrap() = value;
        verdict(&object)
    };
    assert_eq!(spoil("/spec/disabled", json!("no")), ["spec.disabled: not of type boolean: \"no\""]);
    assert_eq!(spoil("/spec/strategy/canary", json!({"step": []})), ["spec.strategy.canary.step: would be dropped"]);
    assert_eq!(spoil("/spec/strategy/canary/steps/0", json!({"weight": 101})).len(), 1);
    assert_eq!(spoil("/spec/strategy/canary/steps/0", json!({"replicas": true})).len(), 1);
    assert_eq!(spoil("/spec/objectRef/workloadRef", json!({"kind": "Deployment"})).len(), 2);
    let header = json!({"name": "a", "value": "b"});
    assert_eq!(spoil("/spec/strategy/canary/steps/1/matches", json!([{"headers": [header, header]}])).len(), 1);
}

/// Every schema node of a definition, with its path.
fn nodes(schema: &Value, path: String, visit: &mut impl FnMut(&str, &Value)) {
    visit(&path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        nodes(child, format!("{path}.{name}"), visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(key) {
            nodes(child, format!("{path}[]"), visit);
        }
    }
}

#[test]
fn the_schema_keeps_kubernetes_conventions() {
    for crd in CRDS.iter() {
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let has_status = crd["spec"]["names"]["kind"] != "MetricTemplate";
            let status = if has_status { json!({}) } else { Value::Null };
            assert_eq!(version["subresources"]["status"], status, "a status is a subresource");
            let schema = &version["schema"]["openAPIV3Schema"];
            nodes(schema, crd["metadata"]["name"].as_str().unwrap().to_owned(), &mut |path, node| {
                assert!(node.get("nullable").is_none(), "{path} is nullable");
                // Said once, in the version that `kubectl explain` shows: see `crd::ANALYSES`.
                let is_said_elsewhere = version["name"] == "v1alpha1" && path.contains(".analysis.");
                if path.contains(".spec") && !path.ends_with("[]") && !is_said_elsewhere {
                    assert!(node["description"].as_str().is_some_and(|d| !d.is_empty()), "{path} has no description");
                }
                if let Some(format) = node.get("format") {
                    assert!(["int32", "int64", "date-time"].contains(&format.as_str().unwrap()), "{path}: {format}");
                }
                if node["type"] == "array" {
                    assert!(node["x-kubernetes-list-type"].is_string(), "{path} has no list type");
                }
                for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                    assert!(rule["message"].as_str().is_some_and(|m| m.len() > 20), "{path}: {rule}");
                    let reads_old = rule["rule"].as_str().unwrap().contains("oldSelf");
                    let is_spec = path.contains(".spec");
                    assert!(reads_old != is_spec, "{path}: a rule judges the spec, or at the root its change: {rule}");
                }
            });
        }
    }
}

#[test]
fn versions_defaults_and_columns_are_the_contracts() {
    let rollout = CRDS.iter().find(|c| c["spec"]["names"]["kind"] == "Rollout").unwrap();
    let names = json!({"kind": "Rollout", "listKind": "RolloutList", "plural": "rollouts", "singular": "rollout"});
    assert_eq!(rollout["spec"]["names"], names);
    assert_eq!(rollout["spec"]["conversion"], json!({"strategy": "None", "webhook": null}));
    let versions = rollout["spec"]["versions"].as_array().unwrap();
    let facts: Vec<_> = versions.iter().map(|v| (v["name"].as_str().unwrap(), &v["served"], &v["storage"])).collect();
    assert_eq!(facts, [("v1alpha1", &json!(true), &json!(false)), ("v1beta1", &json!(true), &json!(true))]);
    for (version, step) in [(0, ".status.canaryStatus.currentStepIndex"), (1, ".status.currentStepIndex")] {
        let columns = versions[version]["additionalPrinterColumns"].as_array().unwrap();
        let names: Vec<_> = columns.iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["STATUS", "CANARY_STEP", "CANARY_STATE", "MESSAGE", "AGE"]);
        assert_eq!(columns[1]["jsonPath"], step);
        let spec = &versions[version]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        assert_eq!(spec["disabled"]["default"], false);
        let canary = &spec["strategy"]["properties"]["canary"]["properties"];
        let matches = &canary["steps"]["items"]["properties"]["matches"]["items"]["properties"];
        assert_eq!(matches["headers"]["items"]["properties"]["type"]["default"], "Exact");
        assert_eq!(matches["queryParams"]["items"]["properties"]["type"]["default"], "Exact");
        assert_eq!(matches["path"]["properties"]["type"]["default"], "PathPrefix");
        assert_eq!(matches["path"]["properties"]["value"]["default"], "/");
        let grace = &canary["trafficRoutings"]["items"]["properties"]["gracePeriodSeconds"];
        assert!(grace.get("default").is_none(), "absent means: by evidence");
    }
}

/// What the controller makes of a Rollout: the same whatever words it is said in.
fn meaning(rollout: &Value) -> String {
    let rollout: Rollout = serde_json::from_value(rollout.clone()).unwrap();
    let scope = tidegate::rollout::release::scope(&rollout);
    let release = tidegate::rollout::release::release(&rollout);
    format!("{scope:?} {:?}", release.map(|r| (r.steps, r.failure_threshold, r.patch, r.is_paused)))
}

#[test]
fn a_rollout_means_the_same_in_the_words_of_either_version() {
    use tidegate::api::convert::{to_v1alpha1, to_v1beta1};
    let mut rollouts = tidegate::yaml::from_str_multi(&read("tests/api/accepted.yaml")).unwrap();
    rollouts.retain(|o| o["kind"] == "Rollout");
    for refused in tidegate::yaml::from_str::<Vec<Value>>(&read("tests/api/refused.yaml")).unwrap() {
        rollouts.push(json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "metadata": {"name": "r"},
                             "spec": refused["spec"]}));
    }
    for style in ["", "canary", "Partition", "other"] {
        for rollout in &mut rollouts.clone() {
            if !style.is_empty() {
                rollout["metadata"]["annotations"] = json!({"rollouts.kruise.io/rolling-style": style});
            }
            let (alpha, beta) = (to_v1alpha1(rollout), to_v1beta1(rollout));
            assert_eq!(
                (to_v1alpha1(&alpha), to_v1beta1(&beta)),
                (alpha.clone(), beta.clone()),
                "said twice: {rollout}"
            );
            assert_eq!(to_v1alpha1(&beta)["spec"]["objectRef"], alpha["spec"]["objectRef"]);
            let accepted = verdict(rollout).is_empty() && rollout["metadata"]["name"] != "r";
            for other in [&alpha, &beta, &to_v1alpha1(&beta), &to_v1beta1(&alpha)] {
                if accepted {
                    assert_eq!(verdict(other), [""; 0], "{other}");
                    assert_eq!(meaning(other), meaning(rollout), "{rollout}\nas {other}");
                }
            }
        }
    }
}

#[test]
fn the_story_in_the_words_of_v1beta1() {
    use tidegate::api::convert::{to_v1alpha1, to_v1beta1};
    let stories = tidegate::yaml::from_str_multi(&read("tests/api/accepted.yaml")).unwrap();
    let mut expected = json!({
        "apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
        "metadata": {"name": "story", "annotations": {"rollouts.kruise.io/rolling-style": "canary"}},
        "spec": {
            "disabled": false,
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-deployment"},
            "strategy": {"canary": {
                "enableExtraWorkloadForCanary": true,
                "disableGenerateCanaryService": true,
                "steps": [
                    {"traffic": "20%", "replicas": "20%"},
                    {"replicas": 1, "matches": [{"headers": [{"type": "Exact", "name": "version", "value": "canary"}]}]},
                ],
                "trafficRoutings": [{"service": "nginx-service", "customNetworkRefs": [
                    {"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "name": "nginx-vs"},
                    {"apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule", "name": "nginx-dr"},
                ]}],
                "patchPodTemplateMetadata": {"labels": {"version": "canary"}},
            }},
        },
    });
    assert_eq!(to_v1beta1(&stories[0]), expected);
    // And back: every field has its place in v1alpha1.
    let canary = &mut expected["spec"]["strategy"]["canary"];
    canary.as_object_mut().unwrap().remove("enableExtraWorkloadForCanary");
    canary["steps"][0] = json!({"weight": 20, "replicas": "20%"});
    let workload = expected["spec"].as_object_mut().unwrap().remove("workloadRef").unwrap();
    expected["spec"]["objectRef"] = json!({"workloadRef": workload});
    expected["apiVersion"] = json!("rollouts.kruise.io/v1alpha1");
    assert_eq!(to_v1alpha1(&to_v1beta1(&stories[0])), expected);
}

/// The Rollouts that the documents show can be applied as they stand, and followed.
#[test]
fn rollouts_in_documents_are_right() {
    let mut found = 0;
    for page in [
        "README.md",
        "docs/cli.md",
        "docs/scripts.md",
        "docs/gateways/ingress.md",
        "examples/istio/README.md",
        "examples/nginx/README.md",
    ] {
        let text = read(page);
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            for object in tidegate::yaml::from_str_multi(block).unwrap_or_default() {
                if object["kind"] != "Rollout" || object.get("spec").is_none() {
                    continue;
                }
                assert_eq!(verdict(&object), Vec::<String>::new(), "{page}");
                let rollout: Rollout = serde_json::from_value(object).unwrap();
                tidegate::rollout::release::scope(&rollout).unwrap();
                tidegate::rollout::release::release(&rollout).unwrap();
                found += 1;
            }
        }
    }
    assert!(found >= 1, "no document shows a Rollout");
}
