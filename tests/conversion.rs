//! Conversion between the versions of Rollout loses nothing and changes no meaning: 10,000 generated objects, there and
//! back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use serde_json::{Map, Value, json};
use tidegate::{
    api::{
        convert::{to_v1alpha1, to_v1beta1},
        keys::{ROLLING_STYLE, TRAFFIC_ROUTING},
        v1beta1::Rollout,
    },
    rollout::release,
    sim::Rng,
};

fn below(random: &mut Rng, n: u64) -> u64 {
    random.next_u64() % n
}

fn pick<T: Clone>(random: &mut Rng, from: &[T]) -> T {
    from[usize::try_from(below(random, from.len() as u64)).unwrap()].clone()
}

fn analysis() -> Value {
    json!({"onFailure": "rollback", "metrics": [{"name": "errors", "template": {"name": "errors", "arguments": {"code": "5.."}},
        "max": 0.01, "interval": "30s", "onNoData": "fail"}]})
}

fn step(random: &mut Rng) -> Value {
    let mut step = Map::new();
    let share = below(random, 100) + 1;
    match below(random, 3) {
        0 => drop(step.insert("weight".into(), json!(share))),
        1 => drop(step.insert("traffic".into(), json!(format!("{share}%")))),
        _ => {}
    }
    if step.is_empty() || random.chance(0.5) {
        let replicas = if random.chance(0.5) { json!(share) } else { json!(format!("{}%", below(random, 100) + 1)) };
        step.insert("replicas".into(), replicas);
    }
    let matches = [
        json!([{"headers": [{"name": "x", "value": "1"}]}]),
        json!([{"path": {"type": "PathPrefix", "value": "/a"}, "queryParams": [{"name": "q", "value": "2"}]}, {"headers": []}]),
    ];
    if random.chance(0.3) {
        step.insert("matches".into(), pick(random, &matches));
    }
    if random.chance(0.2) {
        step.insert(
            "requestHeaderModifier".into(),
            json!({"set": [{"name": "v", "value": "canary"}], "remove": ["w"]}),
        );
    }
    if random.chance(0.2) {
        step.insert("gates".into(), json!([{"name": "load test"}, {"name": "qa"}]));
    }
    if random.chance(0.2) {
        step.insert("analysis".into(), analysis());
    }
    if random.chance(0.4) {
        step.insert("pause".into(), pick(random, &[json!({}), json!({"duration": 0}), json!({"duration": 600})]));
    }
    step.into()
}

fn routing(random: &mut Rng) -> Value {
    let mut routing = Map::new();
    routing.insert("service".into(), json!("web"));
    let reference =
        |name: &str| json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "name": name});
    for (key, value) in [
        ("networkRefs", json!([reference("a"), reference("b")])),
        ("customNetworkRefs", json!([reference("b"), reference("c")])),
        ("ingress", json!({"name": "web", "classType": "nginx"})),
        ("gateway", json!({"httpRouteName": "web"})),
        ("gracePeriodSeconds", json!(below(random, 9))),
        ("createCanaryService", json!(random.chance(0.5))),
    ] {
        if random.chance(0.4) {
            routing.insert(key.into(), value);
        }
    }
    routing.into()
}

fn rollout(random: &mut Rng) -> Value {
    let mut annotations = json!({"team": "web"});
    if random.chance(0.4) {
        annotations[ROLLING_STYLE] = pick(random, &["canary", "Partition", "partition", ""].map(|s| json!(s)));
    }
    let mut spec = json!({});
    let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    if random.chance(0.5) {
        spec["workloadRef"] = workload;
    } else {
        spec["objectRef"] = json!({"workloadRef": workload});
    }
    let style = if random.chance(0.8) { "canary" } else { "blueGreen" };
    let mut strategy = json!({"steps": (0..=below(random, 5)).map(|_| step(random)).collect::<Vec<_>>()});
    if random.chance(0.6) {
        strategy["trafficRoutings"] = json!([routing(random)]);
    } else if random.chance(0.2) {
        strategy["trafficRoutingRef"] = json!("shared");
    }
    for (key, value) in [
        ("failureThreshold", json!("20%")),
        ("disableGenerateCanaryService", json!(random.chance(0.5))),
        ("patchPodTemplateMetadata", json!({"labels": {"version": "canary"}})),
    ] {
        if random.chance(0.3) {
            strategy[key] = value;
        }
    }
    if random.chance(0.3) {
        spec["changeWindows"] = json!([{"days": ["Mon"], "from": "09:00", "to": "16:00", "timeZone": "Europe/Berlin"}]);
        spec["freezes"] = json!([{"name": "year's end", "from": "2026-12-20", "to": "2027-01-03"}]);
    }
    // The schema refuses the contradiction.
    if strategy["disableGenerateCanaryService"] == true && strategy["trafficRoutings"][0]["createCanaryService"] == true
    {
        strategy["disableGenerateCanaryService"] = json!(false);
    }
    if style == "canary" && random.chance(0.5) {
        strategy["enableExtraWorkloadForCanary"] = json!(random.chance(0.5));
    }
    spec["strategy"] = json!({style: strategy, "paused": random.chance(0.2)});
    if random.chance(0.2) {
        spec["strategy"]["analysis"] = analysis();
        spec["strategy"]["analysis"]["background"] = json!(true);
    }
    for (key, value) in [("disabled", json!(true)), ("rolloutID", json!("r-7"))] {
        if random.chance(0.2) {
            spec[key] = value;
        }
    }
    let mut rollout = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "annotations": annotations, "finalizers": ["f"]},
        "spec": spec});
    if random.chance(0.3) {
        let part = if style == "canary" { "canaryStatus" } else { "blueGreenStatus" };
        rollout["status"] = json!({"phase": "Progressing", "observedGeneration": 3, "conditions": [],
            part: {"currentStepIndex": 2, "currentStepState": "StepPaused", "podTemplateHash": "x", "observedRolloutID": "r-7"}});
        if random.chance(0.5) {
            rollout["status"]["currentStepIndex"] = json!(2);
            rollout["status"]["currentStepState"] = json!("StepPaused");
        }
    }
    rollout["apiVersion"] = json!(format!("rollouts.kruise.io/{}", pick(random, &["v1alpha1", "v1beta1"])));
    rollout
}

/// Every leaf with its path, without what conversion may add beside a field that says the same.
fn leaves(value: &Value) -> Vec<(String, Value)> {
    fn walk(value: &Value, path: String, out: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(map) if !map.is_empty() => map.iter().for_each(|(k, v)| walk(v, format!("{path}.{k}"), out)),
            Value::Array(items) if !items.is_empty() => {
                items.iter().enumerate().for_each(|(i, v)| walk(v, format!("{path}[{i}]"), out));
            }
            leaf => out.push((path, leaf.clone())),
        }
    }
    let mut out = Vec::new();
    walk(value, String::new(), &mut out);
    // v1beta1's default, said aloud.
    out.retain(|(path, value)| !(path.ends_with(".enableExtraWorkloadForCanary") && value == false));
    out.retain(|(path, _)| !path.ends_with(ROLLING_STYLE) && !path.ends_with(TRAFFIC_ROUTING));
    out
}

/// What the controller makes of it: the same for every way to say it.
fn meaning(rollout: &Value) -> String {
    let rollout: Rollout = serde_json::from_value(rollout.clone()).unwrap();
    let status = rollout.status.as_ref().map(|s| (s.current_step_index, s.current_step_state.clone(), s.phase.clone()));
    let plan = release::release(&rollout).map(|mut r| {
        // The hash says which spelling was read.
        r.hash = String::new();
        r
    });
    format!("{:?} {plan:?} {:?} {}", release::scope(&rollout), status.map(|s| s.2), rollout.spec.disabled)
}

#[test]
fn there_and_back_loses_nothing_and_changes_no_meaning() {
    let mut random = Rng::new(7);
    for n in 0..10_000 {
        let original = rollout(&mut random);
        let (new, old) = (to_v1beta1(&original), to_v1alpha1(&original));
        let about = || format!("object {n}: {original:#}");
        assert_eq!((to_v1beta1(&new), to_v1alpha1(&old)), (new.clone(), old.clone()), "twice is not once: {}", about());

        let expected = leaves(&new);
        let back = to_v1beta1(&to_v1alpha1(&new));
        assert_eq!(leaves(&back), expected, "v1beta1 is not what it was: {}", about());
        // v1alpha1 has two spellings of some things; what was said is compared in the words of v1beta1.
        assert_eq!(leaves(&to_v1beta1(&old)), expected, "the way there matters: {}", about());
        let back = to_v1alpha1(&to_v1beta1(&old));
        assert_eq!(leaves(&to_v1beta1(&back)), expected, "v1alpha1 is not what it was: {}", about());

        // Reading it is the slow part.
        if n % 8 == 0 {
            let meant = meaning(&original);
            for (what, converted) in [("v1beta1", &new), ("v1alpha1", &old), ("there and back", &back)] {
                assert_eq!(meaning(converted), meant, "{what} means something else: {}", about());
            }
        }
        // The API server lets a conversion change labels and annotations only.
        for converted in [&new, &old] {
            let others = |o: &Value| {
                let mut metadata = o["metadata"].clone();
                metadata.as_object_mut().unwrap().remove("annotations");
                metadata
            };
            assert_eq!(others(converted), others(&original));
        }
    }
}
