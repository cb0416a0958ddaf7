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
    let namespace = names.namespace.as_deref().or(original.namespace.as_deref());
    let names_canary = || {
        names.canary_service != names.stable_service && names_service(&original.spec, &names.canary_service, namespace)
    };
    if strategy.asks() && !is_definition && is_unchanged() && !names_canary() {
        return Err(format!(
            "the script changed nothing, so no rule routes to Service {}; correct the object or trafficRoutings.service",
            names.stable_service
        ));
    }
    let mut ours = Ours {
        // A split of Consul that names no service is the object's own.
        takes_unnamed: original.kind == "ServiceSplitter" && original.name == names.stable_service,
        subset: is_definition.then_some(CANARY_SUBSET),
        namespace,
        ..Ours::of(&original.spec, &result.spec, names)
    };
    if original.kind == "Ingress" {
        let actions = original.annotations.iter().filter_map(|(key, action)| action_of(key, action, &ours));
        let actions: Vec<&str> = actions.collect();
        ours.aliases.extend(actions);
    }
    unrelated_entries_stay(&original.spec, &result.spec, &ours)?;
    shares_add_up(&original.spec, &result.spec, &ours, "spec")
}

/// The subset that scripts of definitions make for the canary.
const CANARY_SUBSET: &str = "canary";
/// Kinds of backends that are Services, or stand for one of their name.
const SERVICES: [&str; 2] = ["Service", "MeshService"];

/// What a route is known by as one of the stable Service or its canary.
struct Ours<'a> {
    names: &'a Names,
    /// The Services', where it is known.
    namespace: Option<&'a str>,
    /// Names of backends that are defined once and referred to by that name: the upstreams of a VirtualServer, the
    /// backends of a RouteGroup, the actions that the AWS controller reads from annotations.
    aliases: Vec<&'a str>,
    /// Whether an entry without a `service` is ours.
    takes_unnamed: bool,
    /// In an object that others refer to, the entry of this name is ours, also where the object had one already.
    subset: Option<&'a str>,
}

impl<'a> Ours<'a> {
    fn of(original: &'a Value, result: &'a Value, names: &'a Names) -> Ours<'a> {
        let lists = [original, result].into_iter().flat_map(|spec| ["upstreams", "backends"].map(|key| spec.get(key)));
        let defined = lists.flatten().filter_map(Value::as_array).flatten();
        let ours = defined.filter(|e| {
            let services = [e.get("service"), e.get("serviceName")];
            services.into_iter().flatten().filter_map(Value::as_str).any(|service| {
                let name = service.rsplit('/').next().unwrap_or(service);
                name == names.stable_service || name == names.canary_service
            })
        });
        let aliases = ours.filter_map(|e| e.get("name")?.as_str()).collect();
        Ours { names, namespace: None, aliases, takes_unnamed: false, subset: None }
    }

    /// Whether an entry of a weighted list is one of the Services. One of another kind only has their name.
    fn has_backend(&self, entry: &Value) -> bool {
        let is_service = entry.get("kind").and_then(Value::as_str).is_none_or(|kind| SERVICES.contains(&kind));
        is_service && self.has(entry)
    }

    fn is_named_by(&self, value: &Value) -> bool {
        [&self.names.stable_service, &self.names.canary_service]
            .iter()
            .any(|service| names_service(value, service, self.namespace))
    }

    /// Whether a value names one of the Services, alone or as the first label of a host, or a backend that is one.
    fn has(&self, value: &Value) -> bool {
        match value {
            Value::String(text) if self.aliases.contains(&text.as_str()) => true,
            Value::Array(items) => items.iter().any(|v| self.has(v)),
            Value::Object(map) => {
                let is_unnamed = map.get("service").is_none_or(|s| s.as_str() == Some(""));
                self.takes_unnamed && is_unnamed || map.values().any(|v| self.has(v))
            }
            _ => self.is_named_by(value),
        }
    }
}

/// The name of an action in an annotation that forwards to one of the Services.
fn action_of<'a>(key: &'a str, action: &str, ours: &Ours<'_>) -> Option<&'a str> {
    let (_, name) = key.split_once("/actions.")?;
    let action: Value = serde_json::from_str(action).ok()?;
    ours.is_named_by(&action).then_some(name)
}

/// Entries of the lists under `spec` that do not speak of the stable Service stay as they are, in their order.
fn unrelated_entries_stay(original: &Value, result: &Value, ours: &Ours<'_>) -> Result<(), String> {
    for (key, value) in original.as_object().into_iter().flatten() {
        let Some(entries) = value.as_array() else { continue };
        let after = result.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        // Whether the shares are right is looked at in `shares_add_up`.
        let is_split = after.iter().any(|e| e.get("weight").is_some());
        let mut rest = after.iter();
        let is_subset = |e: &Value| ours.subset.is_some() && e.get("name").and_then(Value::as_str) == ours.subset;
        let is_theirs = |e: &Value| e.is_object() && !ours.has(e) && !is_subset(e);
        for (i, entry) in entries.iter().enumerate().filter(|(_, e)| is_theirs(e)) {
            if !rest.any(|a| a == entry || is_split && same_backend(a, entry)) {
                return Err(format!(
                    "the script changed, moved or removed spec.{key}[{i}], which does not route to Service {}",
                    ours.names.stable_service
                ));
            }
        }
    }
    Ok(())
}

/// A list of weighted entries keeps the shares of entries that are not ours, and sums to what it summed to or to 100.
fn shares_add_up(original: &Value, result: &Value, ours: &Ours<'_>, path: &str) -> Result<(), String> {
    match result {
        Value::Object(map) => {
            let lists = ["backends", "upstreams"].map(|key| map.get(key).and_then(Value::as_array));
            if let [Some(backends), Some(upstreams)] = lists
                && result.get("match").is_some()
            {
                // APISIX: they share with each other.
                let list = |key| original.get(key).and_then(Value::as_array).into_iter().flatten().cloned();
                let before: Vec<Value> = list("backends").chain(list("upstreams")).collect();
                let after: Vec<Value> = backends.iter().chain(upstreams).cloned().collect();
                return if before == after { Ok(()) } else { list_adds_up(&before, &after, ours) }
                    .map_err(|problem| format!("{path}: {problem}"));
            }
            for (key, value) in map {
                shares_add_up(original.get(key).unwrap_or(&Value::Null), value, ours, &format!("{path}.{key}"))?;
            }
            Ok(())
        }
        Value::Array(entries) => {
            if entries.iter().any(|e| e.get("weight").is_some_and(Value::is_number)) && original != result {
                list_adds_up(original.as_array().map_or(&[][..], Vec::as_slice), entries, ours)
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
                shares_add_up(shifted.unwrap_or(&Value::Null), entry, ours, &format!("{path}[{i}]"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What an absent weight means, where another entry has one: nothing, one (also written by API servers), or a hundred.
/// Which of them is the gateway's own matter, so the list must add up by one of them.
const DEFAULTS: [f64; 3] = [0.0, 1.0, 100.0];

fn list_adds_up(original: &[Value], result: &[Value], ours: &Ours<'_>) -> Result<(), String> {
    let verdict = adds_up(original, result, ours, DEFAULTS[0]);
    if verdict.is_err() && DEFAULTS[1..].iter().any(|d| adds_up(original, result, ours, *d).is_ok()) {
        return Ok(());
    }
    verdict
}

/// Sums of hundredths are not exact.
fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

fn adds_up(original: &[Value], result: &[Value], ours: &Ours<'_>, default: f64) -> Result<(), String> {
    // A mirror answers nothing.
    let answering =
        |entries: &[Value]| entries.iter().filter(|e| e.get("mirror") != Some(&Value::Bool(true))).cloned().collect();
    let (original, result): (Vec<Value>, Vec<Value>) = (answering(original), answering(result));
    let (original, result) = (original.as_slice(), result.as_slice());
    // Where no entry has a weight they share evenly.
    let share_evenly = default == 0.0 && original.iter().all(|e| e.get("weight").is_none());
    let default = if share_evenly { 1.0 } else { default };
    // Some gateways take hundredths.
    let is_count = |w: &f64| *w >= 0.0 && w.fract() == 0.0;
    let has_fractions = original.iter().any(|e| e.get("weight").and_then(Value::as_f64).is_some_and(|w| !is_count(&w)));
    let weight = |e: &Value| match e.get("weight") {
        None => Ok(default),
        Some(w) => {
            w.as_f64().filter(|w| is_count(w) || has_fractions && *w >= 0.0).ok_or(format!("weight {w} is no count"))
        }
    };
    let sum = |entries: &[Value]| entries.iter().map(weight).sum::<Result<f64, String>>();
    let total = sum(result)?;
    // Of numbers that are all 0 gateways make even shares, or nothing, which a script then refuses.
    let evenly: Vec<Value>;
    let original = if sum(original)? > 0.0 {
        original
    } else {
        evenly = original.iter().map(|e| with_weight(e, 1)).collect();
        evenly.as_slice()
    };
    let before = sum(original)?;
    let foreign: Vec<&Value> = result.iter().filter(|e| !ours.has_backend(e)).collect();
    if foreign.is_empty() {
        // A lone backend has everything, whatever its number.
        let is_lone = result.len() == 1 && total > 0.0;
        if is_lone || is_close(total, 100.0) || (before > 0.0 && is_close(total, before)) {
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
            entries.iter().filter(|e| !ours.has_backend(e) && same_backend(e, entry)).cloned().collect();
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

fn with_weight(entry: &Value, weight: u32) -> Value {
    let mut entry = entry.clone();
    if let Some(map) = entry.as_object_mut() {
        map.insert("weight".to_owned(), weight.into());
    }
    entry
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

fn names_service(value: &Value, service: &str, namespace: Option<&str>) -> bool {
    match value {
        Value::String(text) => names_in_text(text, service, namespace),
        Value::Array(items) => items.iter().any(|v| names_service(v, service, namespace)),
        Value::Object(map) => map.values().any(|v| names_service(v, service, namespace)),
        _ => false,
    }
}

/// Alone, as the first label of a host, or in the names that gateways make of a Service's: `<name>_<namespace>_svc_<port>`
/// (Kuma) and `<namespace>-<name>-<port>` (Gloo).
fn names_in_text(text: &str, service: &str, namespace: Option<&str>) -> bool {
    let is_ours =
        |rest: &str| rest.is_empty() || rest.starts_with('.') || rest.starts_with('_') && rest.contains("_svc");
    if text.strip_prefix(service).is_some_and(is_ours) {
        return true;
    }
    let head = text.trim_end_matches(|c: char| c.is_ascii_digit());
    head.len() < text.len()
        && head
            .strip_suffix('-')
            .and_then(|h| h.strip_suffix(service))
            .and_then(|h| h.strip_suffix('-'))
            .is_some_and(|of| namespace.is_none_or(|known| known == of))
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
mod tests;
