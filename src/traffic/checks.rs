//! Rules that every script's result must keep, whatever the gateway.

use serde_json::Value;

use super::{Names, Original, Parts, Strategy};
use crate::api::object::text;

/// Checks one result against its original. The message says which rule is broken and where.
pub fn check(
    original: &Original,
    result: &Parts,
    names: &Names,
    strategy: &Strategy,
    is_definition: bool,
) -> Result<(), String> {
    let is_unchanged = || {
        (&result.spec, &result.labels, &result.annotations) == (&original.spec, &original.labels, &original.annotations)
    };
    // An object that names the canary Service may be as the step wants it already.
    let names_canary =
        || names.canary_service != names.stable_service && names_service(&original.spec, &names.canary_service);
    if strategy.asks() && !is_definition && is_unchanged() && !names_canary() {
        return Err(format!(
            "the script changed nothing, so no rule routes to Service {}; correct the object or trafficRoutings.service",
            names.stable_service
        ));
    }
    unrelated_entries_stay(&original.spec, &result.spec, names)?;
    shares_add_up(&original.spec, &result.spec, names, "spec")
}

/// Entries of the lists under `spec` that do not speak of the stable Service stay as they are, in their order.
fn unrelated_entries_stay(original: &Value, result: &Value, names: &Names) -> Result<(), String> {
    for (key, value) in original.as_object().into_iter().flatten() {
        let Some(entries) = value.as_array() else { continue };
        let after = result.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut rest = after.iter();
        for (i, entry) in entries.iter().enumerate().filter(|(_, e)| e.is_object() && !mentions(e, names)) {
            if !rest.any(|a| a == entry) {
                return Err(format!(
                    "the script changed, moved or removed spec.{key}[{i}], which does not route to Service {}",
                    names.stable_service
                ));
            }
        }
    }
    Ok(())
}

/// A list of weighted entries keeps the shares of entries that are not ours, and sums to what it summed to or to 100.
fn shares_add_up(original: &Value, result: &Value, names: &Names, path: &str) -> Result<(), String> {
    match result {
        Value::Object(map) => {
            for (key, value) in map {
                shares_add_up(original.get(key).unwrap_or(&Value::Null), value, names, &format!("{path}.{key}"))?;
            }
            Ok(())
        }
        Value::Array(entries) => {
            if entries.iter().any(|e| e.get("weight").is_some_and(Value::is_number)) && original != result {
                list_adds_up(original.as_array().map_or(&[][..], Vec::as_slice), entries, names)
                    .map_err(|problem| format!("{path}: {problem}"))?;
            }
            let before = original.as_array().map_or(&[][..], Vec::as_slice);
            for (i, entry) in entries.iter().enumerate() {
                // A rule that was put in front shifts the others: compare with the entry that it was made from. Looking at
                // those two places first keeps an object with many routes cheap.
                let shifted = before.get((i + before.len()).saturating_sub(entries.len()));
                if shifted == Some(entry) || before.get(i) == Some(entry) || before.contains(entry) {
                    continue;
                }
                shares_add_up(shifted.unwrap_or(&Value::Null), entry, names, &format!("{path}[{i}]"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn list_adds_up(original: &[Value], result: &[Value], names: &Names) -> Result<(), String> {
    // Where no entry has a weight they share evenly; beside one that has, an absent weight is none, or the gateway's own
    // default that the API server writes.
    let default = if original.iter().all(|e| e.get("weight").is_none()) { 1.0 } else { 0.0 };
    let weight = |e: &Value| match e.get("weight") {
        None => Ok(default),
        Some(w) => w.as_f64().filter(|w| *w >= 0.0 && w.fract() == 0.0).ok_or(format!("weight {w} is no count")),
    };
    let sum = |entries: &[Value]| entries.iter().map(weight).sum::<Result<f64, String>>();
    let total = sum(result)?;
    let before = sum(original)?;
    let foreign: Vec<&Value> = result.iter().filter(|e| !mentions(e, names)).collect();
    if foreign.is_empty() {
        if total == 100.0 || (before > 0.0 && total == before) {
            return Ok(());
        }
        return Err(format!(
            "weights sum to {total}, not to 100{}",
            if before > 0.0 && before != 100.0 { format!(" or {before}") } else { String::new() }
        ));
    }
    if total <= 0.0 {
        return Err("all weights are 0".to_owned());
    }
    // A backend may be listed more than once.
    let share_of = |entries: &[Value], entry: &Value, total: f64| -> Result<f64, String> {
        let same: Vec<Value> =
            entries.iter().filter(|e| !mentions(e, names) && same_backend(e, entry)).cloned().collect();
        Ok(if total > 0.0 { sum(&same)? / total } else { 0.0 })
    };
    for entry in foreign {
        let (share, was) = (share_of(result, entry, total)?, share_of(original, entry, before)?);
        if (share - was).abs() > 0.01 {
            return Err(format!(
                "the share of a backend that is not ours changed from {:.0} % to {:.0} %",
                was * 100.0,
                share * 100.0
            ));
        }
    }
    Ok(())
}

fn same_backend(a: &Value, b: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        if let Some(map) = v.as_object_mut() {
            map.remove("weight");
        }
        v
    };
    strip(a) == strip(b)
}

/// Whether a value names one of the Services, alone or as the first label of a host.
fn mentions(value: &Value, names: &Names) -> bool {
    names_service(value, &names.stable_service) || names_service(value, &names.canary_service)
}

fn names_service(value: &Value, service: &str) -> bool {
    match value {
        Value::String(text) => text.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        Value::Array(items) => items.iter().any(|v| names_service(v, service)),
        Value::Object(map) => map.values().any(|v| names_service(v, service)),
        _ => false,
    }
}

/// Istio: a route to a subset that the DestinationRule of the same step does not define would answer 503.
pub fn check_subsets(results: &[(&str, &Parts)]) -> Result<(), String> {
    let rules: Vec<&Value> =
        results.iter().filter(|(kind, _)| *kind == "DestinationRule").map(|(_, p)| &p.spec).collect();
    for (_, service) in results.iter().filter(|(kind, _)| *kind == "VirtualService") {
        let mut destinations = Vec::new();
        collect_destinations(&service.spec, &mut destinations);
        for destination in destinations {
            let (host, subset) = (text(destination, &["host"]), text(destination, &["subset"]));
            let of_host: Vec<&&Value> =
                rules.iter().filter(|r| first_label(text(r, &["host"])) == first_label(host)).collect();
            let is_defined = of_host.iter().any(|r| {
                let subsets = r.get("subsets").and_then(Value::as_array).into_iter().flatten();
                subsets.into_iter().any(|s| text(s, &["name"]) == subset)
            });
            if !subset.is_empty() && !of_host.is_empty() && !is_defined {
                return Err(format!(
                    "a route names subset {subset:?} of host {host}, which its DestinationRule does not define"
                ));
            }
        }
    }
    Ok(())
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

fn collect_destinations<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            if let Some(destination) = map.get("destination").filter(|d| d.is_object()) {
                found.push(destination);
            }
            map.values().for_each(|v| collect_destinations(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_destinations(v, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
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
        assert!(
            run(original.clone(), with(30), Some(20)).unwrap_err().contains("spec.http[0].route: weights sum to 110")
        );
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
}
