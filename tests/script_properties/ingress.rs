//! Ingress classes with a canary Ingress: it holds what routes to the stable Service and no more, its annotations give the
//! canary its share, nothing of the user's changes, and the end leaves no canary Ingress.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use serde_json::{Value, json};
use tidegate::{
    api::keys,
    lua::{Engine, Library, Script},
    traffic::{
        Original, Parts, Strategy as Step,
        ingress::{self, Ingress},
        routes::{Change, Context, Missing},
    },
};

use crate::row::{ENGINE, OTHER, match_step, names, weight_step};

const NGINX: &str = "nginx.ingress.kubernetes.io/";

struct Class {
    name: &'static str,
    /// What annotations of its canary begin with.
    writes: &'static [&'static str],
    /// Whether it knows shares.
    has_shares: bool,
    /// Whether a canary Ingress may share the default backend.
    shares_default: bool,
    /// What shares are counted to, when an Ingress asks for a total.
    total: fn(Option<u64>) -> u64,
}

const CLASSES: [Class; 6] = [
    Class {
        name: "nginx",
        writes: &["nginx.ingress.kubernetes.io/canary"],
        has_shares: true,
        shares_default: true,
        total: |asked| asked.unwrap_or(100).max(100),
    },
    Class {
        name: "higress",
        writes: &["nginx.ingress.kubernetes.io/canary"],
        has_shares: true,
        shares_default: false,
        total: |asked| asked.unwrap_or(100),
    },
    Class {
        name: "mse",
        writes: &["nginx.ingress.kubernetes.io/canary"],
        has_shares: true,
        shares_default: false,
        total: |asked| asked.unwrap_or(100),
    },
    Class {
        name: "aliyun-alb",
        writes: &["alb.ingress.kubernetes.io/canary", "alb.ingress.kubernetes.io/order"],
        has_shares: true,
        shares_default: false,
        total: |_| 100,
    },
    Class {
        name: "haproxy",
        writes: &["haproxy-ingress.github.io/http-header-match"],
        has_shares: false,
        shares_default: false,
        total: |_| 100,
    },
    Class { name: "kong", writes: &["konghq.com/headers."], has_shares: false, shares_default: false, total: |_| 100 },
];

impl Class {
    fn script(&self) -> Script {
        Library::ingress(self.name).unwrap()
    }

    /// The canary Ingress of a step.
    fn run(&self, engine: &Engine, object: &Value, step: &Step) -> Result<Parts, String> {
        let (original, names) = (Original::from_object(object).unwrap(), names(false));
        let input = ingress::script_input(&original, &names, None, step, None);
        let value = engine.run(&self.script(), &input).map_err(|e| e.message)?.value;
        ingress::canary(&original, &names, &self.script(), value)
    }

    /// Steps that it knows.
    fn steps(&self) -> Vec<Step> {
        let shares = WEIGHTS.map(weight_step).into_iter().filter(|_| self.has_shares);
        shares.chain([match_step(&["x-one"]), match_step(&["x-two"])]).collect()
    }

    /// Whether there is something of ours in an Ingress.
    fn finds(&self, object: &Value) -> bool {
        let default = &object["spec"]["defaultBackend"]["service"]["name"];
        paths(&object["spec"]).iter().any(|path| path["service"] == "app") || self.shares_default && default == "app"
    }
}

const WEIGHTS: [u32; 6] = [0, 1, 33, 50, 99, 100];

/// Tries a property on generated objects, the same on every run.
pub fn check(objects: BoxedStrategy<Value>, property: impl Fn(&Value) -> Result<(), TestCaseError>) {
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    match TestRunner::new_with_rng(config, rng).run(&objects, |object| property(&object)) {
        Ok(()) => {}
        Err(TestError::Fail(why, object)) => panic!("{why}\n{object:#}"),
        Err(e) => panic!("{e}"),
    }
}

fn check_classes(property: impl Fn(&Class, &Value) -> Result<(), TestCaseError>) {
    for class in &CLASSES {
        let named = |e| match e {
            TestCaseError::Fail(why) => TestCaseError::fail(format!("{}: {why}", class.name)),
            other => other,
        };
        check(objects(), |object| property(class, object).map_err(named));
    }
}

// ---- objects ----

/// Of no class's canary, and nobody else's: they go along.
const UNRELATED: [(&str, &str); 5] = [
    ("nginx.ingress.kubernetes.io/rewrite-target", "/"),
    ("alb.ingress.kubernetes.io/scheme", "internet-facing"),
    ("haproxy-ingress.github.io/timeout-server", "5s"),
    ("konghq.com/plugins", "limit"),
    ("example.com/team", "web"),
];
/// Other controllers take an Ingress with these for theirs.
const FOREIGN: [(&str, &str); 2] =
    [("cert-manager.io/issuer", "main"), ("kubectl.kubernetes.io/last-applied-configuration", "{}")];

fn backend() -> impl Strategy<Value = Value> {
    let port = select(vec![json!({"number": 80}), json!({"number": 8080}), json!({"name": "http"})]);
    let service = (select(vec!["app", "app", "legacy", "app-canary"]), port)
        .prop_map(|(name, port)| json!({"service": {"name": name, "port": port}}));
    prop_oneof![8 => service, 1 => Just(json!({"resource": {"kind": "Bucket", "name": "app"}}))]
}

fn rules() -> impl Strategy<Value = Value> {
    let kind = select(vec!["Exact", "Prefix", "ImplementationSpecific"]);
    let path = (select(vec!["/", "/a", "/a/b"]), kind, backend())
        .prop_map(|(path, kind, backend)| json!({"path": path, "pathType": kind, "backend": backend}));
    let rule = prop_oneof![
        8 => vec(path, 1..4).prop_map(|paths| json!({"http": {"paths": paths}})),
        1 => Just(json!({})),
    ];
    vec(rule, 0..4).prop_map(|mut rules| {
        for (i, rule) in rules.iter_mut().enumerate() {
            rule["host"] = json!(format!("host-{i}.example.com"));
        }
        Value::from(rules)
    })
}

pub fn object(spec: &Value, annotations: &BTreeMap<String, String>) -> Value {
    json!({"apiVersion": ingress::API_VERSION, "kind": ingress::KIND, "spec": spec,
        "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "1", "uid": "1", "labels": {"team": "web"},
            "annotations": annotations}})
}

fn objects() -> BoxedStrategy<Value> {
    let stale = [("canary", "true"), ("canary-weight", "70"), ("canary-by-header", "x-old")];
    let stale = ["nginx.ingress.kubernetes.io/", "alb.ingress.kubernetes.io/"]
        .into_iter()
        .flat_map(|prefix| stale.map(|(key, value)| (format!("{prefix}{key}"), value)));
    let own = UNRELATED.iter().chain(&FOREIGN).map(|(key, value)| ((*key).to_owned(), *value));
    let all: Vec<(String, &str)> = own.chain(stale).collect();
    let annotations = prop::sample::subsequence(all.clone(), 0..=all.len());
    let total = prop::option::of(select(vec![1, 7, 50, 100, 1000]));
    (rules(), prop::option::of(backend()), annotations, total)
        .prop_map(|(rules, default, annotations, total)| {
            let mut annotations: BTreeMap<String, String> =
                annotations.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
            if let Some(total) = total {
                annotations.insert(format!("{NGINX}canary-weight-total"), total.to_string());
            }
            let mut spec =
                json!({"ingressClassName": "x", "tls": [{"hosts": ["a"], "secretName": "a"}], "rules": rules});
            if let Some(default) = default {
                spec["defaultBackend"] = default;
            }
            object(&spec, &annotations)
        })
        .boxed()
}

/// Where requests go: host, path, its kind and port, and the Service; resources are left out.
fn paths(spec: &Value) -> Vec<Value> {
    let rules = spec["rules"].as_array().into_iter().flatten();
    let paths = rules.flat_map(|rule| {
        let paths = rule["http"]["paths"].as_array().into_iter().flatten();
        paths.map(|path| (&rule["host"], path, &path["backend"]["service"]))
    });
    let with_service = paths.filter(|(_, _, service)| service.is_object());
    with_service
        .map(|(host, path, service)| {
            json!({"host": host, "path": path["path"], "kind": path["pathType"], "port": service["port"],
                "service": service["name"]})
        })
        .collect()
}

// ---- properties ----

#[test]
fn a_canary_ingress_holds_what_is_ours_and_no_more() {
    check_classes(|class, object| {
        for step in class.steps() {
            let made = class.run(&ENGINE, object, &step);
            prop_assert_eq!(made.is_ok(), class.finds(object), "{:?}", made);
            let Ok(canary) = made else { continue };
            let mut ours = paths(&object["spec"]);
            ours.retain(|path| path["service"] == "app");
            ours.iter_mut().for_each(|path| path["service"] = json!("app-canary"));
            prop_assert_eq!(paths(&canary.spec), ours);
            let default = &object["spec"]["defaultBackend"];
            if class.shares_default && default["service"]["name"] == "app" {
                let shared = json!({"service": {"name": "app-canary", "port": default["service"]["port"]}});
                prop_assert_eq!(&canary.spec["defaultBackend"], &shared);
            } else {
                prop_assert_eq!(canary.spec.get("defaultBackend"), None);
            }
            for key in ["ingressClassName", "tls"] {
                prop_assert_eq!(&canary.spec[key], &object["spec"][key]);
            }
            prop_assert_eq!(&json!(canary.labels), &object["metadata"]["labels"]);
        }
        Ok(())
    });
}

#[test]
fn annotations_of_the_stable_ingress_go_along() {
    check_classes(|class, object| {
        let before = &object["metadata"]["annotations"];
        for step in class.steps() {
            let Ok(canary) = class.run(&ENGINE, object, &step) else { continue };
            let after = json!(canary.annotations);
            for (key, _) in UNRELATED {
                prop_assert_eq!(after.get(key), before.get(key));
            }
            for (key, _) in FOREIGN {
                prop_assert_eq!(after.get(key), None);
            }
            for key in canary.annotations.keys().filter(|key| before.get(key.as_str()) != after.get(key.as_str())) {
                prop_assert!(class.writes.iter().any(|w| key.starts_with(w)), "{} was written", key);
            }
            if class.has_shares {
                let header = format!("{}-by-header", class.writes[0]);
                let asked = step.matches.first().map(|m| json!(m.headers[0].name));
                prop_assert_eq!(after.get(&header), asked.as_ref());
            } else {
                prop_assert!(class.writes.iter().any(|w| canary.annotations.keys().any(|key| key.starts_with(w))));
            }
        }
        Ok(())
    });
}

#[test]
fn the_canary_gets_its_share() {
    check_classes(|class, object| {
        let asked = &object["metadata"]["annotations"][format!("{NGINX}canary-weight-total")];
        let total = (class.total)(asked.as_str().map(|t| t.parse().unwrap()));
        for weight in WEIGHTS {
            let made = class.run(&ENGINE, object, &weight_step(weight));
            if !class.has_shares {
                prop_assert!(made.is_err(), "{:?}", made);
                continue;
            }
            let Ok(canary) = made else { continue };
            let share: u64 = canary.annotations[&format!("{}-weight", class.writes[0])].parse().unwrap();
            let exact = total as f64 * f64::from(weight) / 100.0;
            prop_assert!((share as f64 - exact).abs() <= 1.0, "{} of {} at {} %", share, total, weight);
            prop_assert!(weight > 0 || share == 0, "{} at 0 %", share);
            prop_assert!(weight < 100 || share == total, "{} of {} at 100 %", share, total);
            if total > 1 && weight > 0 && weight < 100 {
                prop_assert!(share > 0 && share < total, "{} of {} at {} %", share, total, weight);
            }
        }
        Ok(())
    });
}

fn owner() -> Value {
    json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout", "name": "web", "uid": "7", "controller": true})
}

/// Each step is computed from the stable Ingress: what ran before, and the canary Ingress that is there, make no
/// difference. The stable Ingress is never written, and in the end there is no canary Ingress.
#[test]
fn steps_follow_each_other_and_the_end_restores() {
    check_classes(|class, object| {
        if !class.finds(object) {
            return Ok(());
        }
        let names = names(false);
        let context = Context { names: &names, patch: None, engine: &ENGINE };
        let found = |canary: Option<&Value>| Ingress {
            name: "web".to_owned(),
            namespace: "shop".to_owned(),
            stable: Ok(Arc::new(object.clone())),
            canary: canary.map(|canary| Arc::new(canary.clone())).ok_or(Missing::Object),
            script: Ok(class.script()),
            working: None,
            controller: None,
        };
        let mut live: Option<Value> = None;
        let failed = |e: &dyn std::fmt::Display| TestCaseError::fail(e.to_string());
        for step in class.steps().into_iter().chain(class.steps().into_iter().rev()) {
            let expected = class.run(&OTHER, object, &step).map_err(|e| failed(&e))?;
            prop_assert_eq!(&class.run(&ENGINE, object, &step).map_err(|e| failed(&e))?, &expected);
            let write = found(live.as_ref()).plan_step(&context, &step, &owner()).map_err(|e| failed(&e.message))?;
            if let Some(write) = write {
                prop_assert_eq!(&write.target.name, "web-canary");
                let Change::Apply { object: mut wanted } = write.change else {
                    return Err(TestCaseError::fail("a canary Ingress is applied"));
                };
                wanted["metadata"]["uid"] = json!("9");
                live = Some(wanted);
            }
            let Some(live) = &live else {
                prop_assert_eq!(step.weight, Some(0));
                continue;
            };
            prop_assert_eq!(&live["spec"], &expected.spec);
            let mut annotations = live["metadata"]["annotations"].clone();
            annotations.as_object_mut().unwrap().remove(keys::CANARY_INGRESS);
            prop_assert_eq!(annotations, json!(expected.annotations));
            prop_assert!(found(Some(live)).plan_step(&context, &step, &owner()).unwrap().is_none(), "not at rest");
        }
        let end = found(live.as_ref()).plan_restore(&owner()).map_err(|e| failed(&e.message))?.unwrap();
        prop_assert_eq!((&*end.target.name, end.change), ("web-canary", Change::Delete { uid: "9".to_owned() }));
        prop_assert!(found(None).plan_restore(&owner()).unwrap().is_none());
        Ok(())
    });
}

/// As for other scripts: a count of steps, the same on every machine.
#[test]
fn budget_holds() {
    let rule = |i: usize| {
        json!({"host": format!("host-{i}.example.com"), "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": crate::references::service(i), "port": {"number": 80}}}}]}})
    };
    let spec = json!({"rules": (0..500).map(rule).collect::<Vec<_>>()});
    let original = Original::from_object(&object(&spec, &BTreeMap::new())).unwrap();
    for class in CLASSES.iter().map(|class| class.name).chain(["alb"]) {
        let input = ingress::script_input(&original, &names(false), None, &match_step(&["x-one"]), None);
        let outcome = ENGINE.run(&Library::ingress(class).unwrap(), &input).unwrap();
        assert!(outcome.fuel_used < 30_000, "{class}: {} steps", outcome.fuel_used);
    }
}

#[test]
fn every_class_has_a_row() {
    let scripts = Library::list();
    let classes = scripts.iter().filter_map(|script| script.name.strip_prefix("ingress/")?.strip_suffix(".lua"));
    for class in classes {
        let has_row = ["alb", "haproxy-pods"].contains(&class) || CLASSES.iter().any(|row| row.name == class);
        assert!(has_row, "{class}: add a row to tests/script_properties/ingress.rs");
    }
}
