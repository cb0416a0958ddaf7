//! A row, and the properties that every row must keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use serde_json::{Value, json};
use tidegate::{
    api::{
        keys, object,
        v1beta1::{HeaderMatch, HttpRouteMatch, NetworkRef, PatchPodTemplateMetadata},
    },
    lua::{Caps, Engine, Feature, Library, Limits, Script},
    traffic::{
        Names, Original, Strategy as Step, output,
        routes::{Change, Context, Network, plan_restore, plan_step},
        script_input,
    },
};

/// Objects tried for each property.
const CASES: u32 = 64;

/// Without result cache: equal results must come from equal runs.
pub static ENGINE: LazyLock<Engine> = LazyLock::new(engine);
/// One with another history.
pub static OTHER: LazyLock<Engine> = LazyLock::new(engine);

fn engine() -> Engine {
    Engine::with_limits(2, Limits { results: 0, ..Limits::default() })
}

/// Whose a backend is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Stable,
    Canary,
    Other,
}

/// One weighted backend as its gateway understands it.
#[derive(Clone, PartialEq, Debug)]
pub struct Backend {
    pub role: Role,
    /// The effective weight.
    pub weight: u64,
    /// The entry without its weight.
    pub rest: Value,
}

/// One script. Services are `app` and `app-canary` in namespace `shop`, where the object is too.
pub struct Row {
    pub group: &'static str,
    pub kind: &'static str,
    pub version: &'static str,
    /// Generates specs that the gateway's API server would take.
    pub spec: fn() -> BoxedStrategy<Value>,
    /// A spec of so many rules, of which one is ours.
    pub big: fn(usize) -> Value,
    /// Takes every list of weighted backends out of a spec. What is left must not be changed by a weight.
    pub take: fn(&mut Value, &Names) -> Vec<Vec<Backend>>,
    /// How match steps are read; none for a gateway that must refuse them.
    pub matching: Option<Matching>,
}

pub struct Matching {
    /// The rules that match steps add to, in order.
    pub rules: fn(&Value) -> Vec<Value>,
    /// Whose a rule's backends are; empty for a rule without any.
    pub roles: fn(&Value, &Names) -> Vec<Role>,
    /// Whether a match step finds a rule in this spec.
    pub finds: fn(&Value, &Names) -> bool,
}

impl Row {
    fn script(&self) -> Script {
        Library::builtin(self.group, self.kind).expect("a built-in script")
    }

    fn caps(&self) -> BTreeSet<Feature> {
        Caps::parse(&self.script().source).unwrap().unwrap().features
    }

    fn object(&self, spec: &Value) -> Value {
        json!({"apiVersion": format!("{}/{}", self.group, self.version), "kind": self.kind,
            "metadata": {"name": "route", "namespace": "shop", "resourceVersion": "1", "labels": {"team": "web"}}, "spec": spec})
    }

    /// The new spec; labels and annotations must stay.
    fn run(&self, engine: &Engine, spec: &Value, names: &Names, step: &Step) -> Result<Value, String> {
        let original = Original::from_object(&self.object(spec)).unwrap();
        let input = script_input(&original, names, patch_of(names).as_ref(), step);
        let outcome = engine.run(&self.script(), &input).map_err(|e| e.message)?;
        assert_eq!(outcome.warnings, Vec::<String>::new(), "{spec}");
        let parts = output(outcome.value).unwrap();
        assert_eq!((&parts.labels, &parts.annotations), (&original.labels, &original.annotations));
        Ok(parts.spec)
    }

    /// Tries a property on generated specs and Services.
    fn check(&self, property: impl Fn(&Value, &Names) -> Result<(), TestCaseError>) {
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let has_subset = self.caps().contains(&Feature::Subset);
        let input = ((self.spec)(), any::<bool>());
        // The same objects on every run: what fails here fails for everyone.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let verdict = TestRunner::new_with_rng(config, rng).run(&input, |(mut spec, one)| {
            if one && has_subset {
                by_labels(&mut spec);
            }
            property(&spec, &names(one && has_subset))
        });
        match verdict {
            Ok(()) => {}
            Err(TestError::Fail(why, (spec, one))) => panic!("{why}\none Service: {}\n{spec:#}", one && has_subset),
            Err(e) => panic!("{e}"),
        }
    }
}

pub fn names(is_one: bool) -> Names {
    Names {
        stable_service: "app".to_owned(),
        canary_service: if is_one { "app" } else { "app-canary" }.to_owned(),
        namespace: Some("shop".to_owned()),
    }
}

/// Writes a change of the user's object, as the controller does.
pub fn apply(live: &mut Value, change: &Change) {
    let Change::Patch { operations, .. } = change else { panic!("the user's object is patched: {change:?}") };
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    json_patch::patch(live, &patch).unwrap();
}

/// What the canary's pods are patched with where one Service is both versions.
pub fn patch_of(names: &Names) -> Option<PatchPodTemplateMetadata> {
    let patch = PatchPodTemplateMetadata { labels: pods("canary"), ..PatchPodTemplateMetadata::default() };
    (names.stable_service == names.canary_service).then_some(patch)
}

/// Labels that choose the pods of one version.
fn pods(version: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("track".to_owned(), version.to_owned())])
}

/// Whether what chooses pods by label, a backend's `subselector` or `subset`, chooses the canary's.
pub fn is_canary_by_labels(backend: &Value) -> bool {
    backend["subselector"]["track"] == "canary" || backend["subset"]["values"]["track"] == "canary"
}

/// Makes one Service of both in what chooses pods by label: upstreams of NGINX and destinations of Gloo.
fn by_labels(value: &mut Value) {
    let of = |name: &Value| match name.as_str() {
        Some("app" | "shop-app-80") => Some("stable"),
        Some("app-canary") => Some("canary"),
        _ => None,
    };
    match value {
        Value::Array(list) => list.iter_mut().for_each(by_labels),
        Value::Object(map) => {
            if let Some(version) = map.get("service").filter(|_| map.contains_key("port")).and_then(of) {
                map.insert("service".to_owned(), json!("app"));
                map.insert("subselector".to_owned(), json!(pods(version)));
            }
            let kube = map.get("kube").map(|kube| kube["ref"]["name"].clone());
            let name = kube.clone().or_else(|| map.get("upstream").and_then(|u| Some(u.get("name")?.clone())));
            if let Some(version) = name.as_ref().and_then(of) {
                if kube.is_some() {
                    map["kube"]["ref"]["name"] = json!("app");
                }
                map.insert("subset".to_owned(), json!({ "values": pods(version) }));
            }
            map.values_mut().for_each(by_labels);
        }
        _ => {}
    }
}

pub fn weight_step(weight: u32) -> Step {
    Step { weight: Some(weight), ..Step::default() }
}

pub fn match_step(headers: &[&str]) -> Step {
    let entry = |name: &&str| HttpRouteMatch {
        headers: vec![HeaderMatch { name: (*name).to_owned(), value: "1".to_owned(), ..HeaderMatch::default() }],
        ..HttpRouteMatch::default()
    };
    Step { matches: headers.iter().map(entry).collect(), ..Step::default() }
}

/// What an API server makes of a null: nothing.
pub fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// An entry of a list and its weight; `default` is what an absent one means.
pub fn backend(role: Role, entry: &Value, default: u64) -> Backend {
    let mut rest = entry.clone();
    let weight = rest.as_object_mut().and_then(|map| map.remove("weight"));
    Backend { role, weight: weight.and_then(|w| w.as_u64()).unwrap_or(default), rest }
}

fn sum(list: &[Backend], role: Option<Role>) -> u64 {
    list.iter().filter(|b| role.is_none_or(|r| r == b.role)).map(|b| b.weight).sum()
}

const WEIGHTS: [u32; 7] = [0, 1, 20, 33, 50, 99, 100];

/// Canary and stable together have what stable had, others keep their share, and everything else is as it was.
pub fn weight_steps_split_what_is_ours(row: &Row) {
    row.check(|spec, names| {
        for weight in WEIGHTS {
            let (mut before, result) = (spec.clone(), row.run(&ENGINE, spec, names, &weight_step(weight)));
            let old = (row.take)(&mut before, names);
            prop_assert_eq!(result.is_ok(), old.iter().any(|list| is_ours(list)), "{:?}", result);
            let Ok(mut after) = result else { continue };
            let new = (row.take)(&mut after, names);
            prop_assert_eq!(before, after);
            prop_assert_eq!(old.len(), new.len());
            for (old, new) in old.iter().zip(&new) {
                let c = u64::from(weight);
                split_is_right(old, new, c)
                    .map_err(|e| TestCaseError::fail(format!("{weight} %: {e}\n{old:#?}\n{new:#?}")))?;
            }
        }
        Ok(())
    });
}

/// Whether there is a share to split: the stable Service's, with that of the canary beside it.
pub fn is_ours(list: &[Backend]) -> bool {
    list.iter().any(|b| b.role == Role::Stable) && sum(list, Some(Role::Stable)) + sum(list, Some(Role::Canary)) > 0
}

pub fn split_is_right(old: &[Backend], new: &[Backend], c: u64) -> Result<(), String> {
    let rests = |list: &[Backend]| list.iter().map(|b| b.rest.clone()).collect::<Vec<_>>();
    if !is_ours(old) {
        return if old == new { Ok(()) } else { Err("a rule that is not ours changed".to_owned()) };
    }
    if rests(new).get(..old.len()) != Some(&rests(old)[..]) {
        return Err("a backend changed beyond its weight, moved or vanished".to_owned());
    }
    if let Some(added) = new[old.len()..].iter().find(|b| b.role != Role::Canary) {
        return Err(format!("a backend was added that is not the canary: {}", added.rest));
    }
    let share = |list: &[Backend], role| sum(list, Some(role)) as f64 / sum(list, None) as f64;
    let mine = |list: &[Backend]| share(list, Role::Stable) + share(list, Role::Canary);
    // A canary that is there beside a stable entry without a share is the user's own matter.
    let is_drained = old.iter().any(|b| b.role == Role::Stable && b.weight == 0);
    if (mine(old) - mine(new)).abs() > 1e-3 {
        return Err(format!("our share was {} and is {}", mine(old), mine(new)));
    }
    let stables = old.iter().filter(|b| b.role == Role::Stable).count() as f64;
    let ours = (sum(new, Some(Role::Stable)) + sum(new, Some(Role::Canary))) as f64;
    let canary = sum(new, Some(Role::Canary)) as f64;
    // Whole numbers are off by one an entry at most.
    let off = (canary - ours * c as f64 / 100.0).abs();
    if !is_drained && off > stables {
        return Err(format!("the canary has {canary} of {ours}"));
    }
    if !is_drained && (c == 0 && canary > 0.0 || c == 100 && canary < ours) {
        return Err(format!("the canary has {canary} of {ours} where it must have none or all"));
    }
    if c > 0 && c < 100 && ours > 1.0 && (canary < 1.0 || ours - canary < 1.0) {
        return Err(format!("one version has nothing: the canary has {canary} of {ours}"));
    }
    Ok(())
}

/// Rules for the canary alone are added; all others stay, in order.
pub fn match_steps_add_rules_and_change_none(row: &Row) {
    row.check(|spec, names| {
        let step = match_step(&["x-one", "x-two"]);
        let result = row.run(&ENGINE, spec, names, &step);
        let Some(matching) = &row.matching else {
            prop_assert!(result.is_err());
            return Ok(());
        };
        prop_assert_eq!(result.is_ok(), (matching.finds)(spec, names), "{:?}", result);
        let Ok(after) = result else { return Ok(()) };
        let after_rules = (matching.rules)(&after);
        let mut left = (matching.rules)(spec).into_iter().peekable();
        let mut added = Vec::new();
        for rule in after_rules {
            if left.peek() == Some(&rule) {
                left.next();
                continue;
            }
            let roles = (matching.roles)(&rule, names);
            prop_assert!(!roles.is_empty() && roles.iter().all(|r| *r == Role::Canary), "{}", rule);
            added.push(rule);
        }
        prop_assert_eq!(left.next(), None, "a rule changed, moved or vanished");
        let added = json!(added).to_string();
        prop_assert!(added.contains("x-one") && added.contains("x-two"), "{}", added);
        Ok(())
    });
}

/// Each step is computed from the original: what ran before, and where, makes no difference.
pub fn nothing_depends_on_what_ran_before(row: &Row) {
    row.check(|spec, names| {
        let expected = row.run(&OTHER, spec, names, &weight_step(30));
        for step in [weight_step(70), match_step(&["x-one"]), weight_step(0)] {
            let _ = row.run(&ENGINE, spec, names, &step);
            prop_assert_eq!(&row.run(&ENGINE, spec, names, &weight_step(30)), &expected);
        }
        Ok(())
    });
}

/// Steps in any order, written as the controller writes them and within its rules, and then the end: the object is what
/// it was.
pub fn finishing_restores(row: &Row) {
    row.check(|spec, names| {
        // The rules tell another backend of our name from ours by that name only.
        if ["elsewhere", "app.e", "ServiceImport"].iter().any(|other| spec.to_string().contains(other)) {
            return Ok(());
        }
        let is_strange = |b: &Backend| b.role == Role::Other && b.rest.to_string().contains("\"app");
        if (row.take)(&mut spec.clone(), names).iter().flatten().any(is_strange) {
            return Ok(());
        }
        let original = row.object(spec);
        let mut live = original.clone();
        let patch = patch_of(names);
        let context = Context { names, patch: patch.as_ref(), engine: &ENGINE };
        let reference = NetworkRef {
            api_version: object::text(&live, &["apiVersion"]).to_owned(),
            kind: row.kind.to_owned(),
            name: "route".to_owned(),
        };
        let network = |live: &Value| Network {
            reference: reference.clone(),
            namespace: "shop".to_owned(),
            object: Ok(Arc::new(live.clone())),
            script: Ok(row.script()),
            working: None,
            acceptance: None,
        };
        for step in [weight_step(20), match_step(&["x-one"]), weight_step(33), weight_step(0), weight_step(100)] {
            if row.run(&ENGINE, spec, names, &step).is_err() {
                continue;
            }
            let writes =
                plan_step(&[network(&live)], &context, &step).map_err(|e| TestCaseError::fail(e.to_string()))?;
            for write in writes {
                apply(&mut live, &write.change);
            }
            let wanted = row.run(&ENGINE, spec, names, &step).unwrap();
            prop_assert_eq!(without_nulls(&live["spec"]), without_nulls(&wanted));
        }
        let writes = plan_restore(&[network(&live)], &ENGINE).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for write in writes {
            apply(&mut live, &write.change);
        }
        let kept = object::annotation(&live, keys::ORIGINAL_SPEC);
        prop_assert_eq!(kept, None);
        prop_assert_eq!(&live["spec"], &original["spec"]);
        prop_assert_eq!(&live["metadata"]["labels"], &original["metadata"]["labels"]);
        Ok(())
    });
}

/// An object of 500 rules takes few of the steps that a script has. A count, not a time: the same on every machine.
pub fn budget_holds(row: &Row) {
    const MOST: u64 = 30_000;
    let original = Original::from_object(&row.object(&(row.big)(500))).unwrap();
    let input = script_input(&original, &names(false), None, &weight_step(20));
    let outcome = ENGINE.run(&row.script(), &input).unwrap();
    assert!(outcome.fuel_used < MOST, "{} steps", outcome.fuel_used);
}
