//! In which situations the cases of each script show it, as the cases themselves tell: shares, matches, other people's
//! weights, what a person has made already, and what only this gateway has.

mod own;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use libtest_mimic::Failed;
use serde_json::Value;
use tidegate::{
    lua::{Caps, Feature, Library},
    traffic::ingress,
    yaml,
};

const SHARES: [(&str, &str); 5] = [
    ("0%", "a share of 0"),
    ("1%", "a share of 1"),
    ("50%", "a share of 50"),
    ("99%", "a share of 99"),
    ("100%", "a share of 100"),
];
const MATCHES: &str = "matches";
const BOTH: &str = "matches beside a share";
const ODD: &str = "weights that do not sum to 100";
const OTHERS: &str = "something of another Service's that stays";
const PORTS: &str = "two ports";
const NOTHING: &str = "nothing routes to the Service";
const CANARY: &str = "a canary that is there already";

/// What cannot be shown of a script, and why.
const NOT: &[(&str, &str, &str)] = &[
    ("networking.istio.io/DestinationRule", "a share of 1", "every step makes the same subset"),
    ("networking.istio.io/DestinationRule", "a share of 99", "every step makes the same subset"),
    ("networking.istio.io/DestinationRule", BOTH, "every step makes the same subset"),
    ("consul.hashicorp.com/ServiceSplitter", ODD, "Consul refuses them"),
    ("k8s.nginx.org/VirtualServer", ODD, "the controller refuses them"),
    ("ingress/haproxy-pods", ODD, "they are in the text of an annotation"),
    ("ingress/alb", ODD, "they are in the text of an annotation"),
];

pub fn every_script_is_shown_in_every_situation(folder: &Path, cases: &[PathBuf]) -> Result<(), Failed> {
    let mut missing = Vec::new();
    let mut unknown = own::scripts();
    for script in Library::list() {
        let name = script.name.trim_end_matches("/trafficRouting.lua").trim_end_matches(".lua");
        let is_own = |case: &&PathBuf| case.parent() == Some(&folder.join(name));
        let own: Vec<PathBuf> = cases.iter().filter(is_own).cloned().collect();
        let shown: BTreeSet<&str> = own.iter().flat_map(|case| shown_by(case)).collect();
        let caps = Caps::parse(&script.source)?.expect("a header");
        let can = |feature: Feature| caps.features.contains(&feature);
        let is_object = !name.starts_with("ingress/") || ingress::is_in_place(&script);
        let shares = SHARES.iter().map(|(_, what)| *what).filter(|_| can(Feature::Weight));
        let matches = [MATCHES, BOTH].into_iter().filter(|_| can(Feature::Header));
        // The canary Ingress of another class is made by the host: what is in it is shown by the host's tests.
        let weights = [ODD, OTHERS].into_iter().filter(|_| can(Feature::Several));
        let ports = std::iter::once(PORTS).filter(|_| can(Feature::Ports));
        let of_objects = weights.chain(ports).chain([NOTHING, CANARY]).filter(|_| is_object);
        for what in shares.chain(matches).chain(of_objects) {
            let cannot = NOT.iter().any(|(of, not, _)| (*of, *not) == (name, what));
            if shown.contains(what) == cannot {
                missing.push(format!("{name}: {what}{}", if cannot { " (said to be impossible)" } else { "" }));
            }
        }
        missing.extend(own::missing(name, &own).iter().map(|what| format!("{name}: {what}")));
        unknown.retain(|script| script != name);
    }
    missing.extend(unknown.iter().map(|script| format!("{script}, which is no script")));
    if missing.is_empty() { Ok(()) } else { Err(format!("no case shows\n  {}", missing.join("\n  ")).into()) }
}

/// The situations that one case shows.
fn shown_by(path: &Path) -> BTreeSet<&'static str> {
    let case: Value = yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (steps, service) = plan(&case);
    let expected = case["expected"].as_array().cloned().unwrap_or_default();
    let original = &case["original"];
    let mut shown = BTreeSet::new();
    for (step, expected) in steps.iter().zip(&expected) {
        let share = step["traffic"].as_str();
        let has_matches = step["matches"].as_array().is_some_and(|m| !m.is_empty());
        if let Some(error) = expected["error"].as_str() {
            let words = ["routes to Service", "is not Service", "route that routes to"];
            shown.extend(words.iter().any(|word| error.contains(word)).then_some(NOTHING));
            continue;
        }
        shown.extend(SHARES.iter().filter(|(text, _)| Some(*text) == share).map(|(_, what)| *what));
        shown.extend(has_matches.then_some(MATCHES));
        shown.extend((has_matches && share.is_some()).then_some(BOTH));
        shown.extend(keeps_others(original, expected, &service).then_some(OTHERS));
    }
    shown.extend(has_odd_weights(original).then_some(ODD));
    let canary = format!("{service}-canary");
    let is_canary = |text: &str| text.contains(&canary) || text == "canary";
    shown.extend(has_text(original, &is_canary).then_some(CANARY));
    let name = path.file_stem().unwrap().to_string_lossy();
    shown.extend((name.contains("port") || name.contains("twice")).then_some(PORTS));
    shown
}

/// The steps, each as a Rollout's, and the Service.
fn plan(case: &Value) -> (Vec<Value>, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let routing = &case["trafficRouting"]["spec"];
    if routing.is_object() {
        let mut step = routing["strategy"].clone();
        if let Some(weight) = step["weight"].as_i64() {
            step["traffic"] = format!("{weight}%").into();
        }
        return (vec![step], text(&routing["objectRef"][0]["service"]));
    }
    let strategy = &case["rollout"]["spec"]["strategy"];
    let style = if strategy["blueGreen"].is_object() { &strategy["blueGreen"] } else { &strategy["canary"] };
    (style["steps"].as_array().cloned().unwrap_or_default(), text(&style["trafficRoutings"][0]["service"]))
}

/// Whether a list has an entry that is not about the Service, and that is the same afterwards.
fn keeps_others(before: &Value, after: &Value, service: &str) -> bool {
    match (before, after) {
        (Value::Array(old), Value::Array(new)) => {
            let is_other = |entry: &Value| entry.is_object() && !has_text(entry, &|text| text.contains(service));
            (old.len() > 1 && old.iter().any(|entry| is_other(entry) && new.contains(entry)))
                || old.iter().zip(new).any(|(old, new)| keeps_others(old, new, service))
        }
        (Value::Object(old), Value::Object(new)) => {
            old.iter().any(|(key, old)| new.get(key).is_some_and(|new| keeps_others(old, new, service)))
        }
        // An annotation of JSON.
        (Value::String(old), Value::String(new)) => {
            let parsed =
                |text: &str| serde_json::from_str::<Value>(text).ok().filter(|v| v.is_object() || v.is_array());
            parsed(old).zip(parsed(new)).is_some_and(|(old, new)| keeps_others(&old, &new, service))
        }
        _ => false,
    }
}

fn has_odd_weights(value: &Value) -> bool {
    match value {
        Value::Array(entries) => {
            let weights: Vec<f64> = entries.iter().filter_map(|entry| entry["weight"].as_f64()).collect();
            (weights.len() > 1 && weights.iter().sum::<f64>() != 100.0) || entries.iter().any(has_odd_weights)
        }
        Value::Object(map) => map.values().any(has_odd_weights),
        _ => false,
    }
}

fn has_text(value: &Value, wanted: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => wanted(text),
        Value::Array(entries) => entries.iter().any(|entry| has_text(entry, wanted)),
        Value::Object(map) => map.values().any(|value| has_text(value, wanted)),
        _ => false,
    }
}
