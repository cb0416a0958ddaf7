//! What the original has changed to route requests and keeps no original of: the rules of an HTTPRoute, and the Ingress
//! that it has made beside the user's. Other objects have theirs in an annotation that Tidegate reads.

use serde_json::{Value, json};

use super::{Found, Step, patch};
use crate::{
    api::{
        keys,
        object::{self, at, text},
    },
    traffic::Names,
};

/// Entries of `metadata.managedFields` that server-side apply by Tidegate goes on from.
const APPLY: &str = "Apply";

/// What makes the objects Tidegate's; no request takes another way by it.
pub(super) fn routes(found: &Found, names: &Names) -> Vec<Step> {
    let routes = found.routes.iter().filter_map(|route| http_route(route, names));
    routes.chain(found.canary_ingress.iter().filter_map(canary_ingress)).collect()
}

/// The original of an HTTPRoute is what the original would make of it in the end: without the canary Service, and the
/// stable one with a weight of 1.
fn http_route(route: &Value, names: &Names) -> Option<Step> {
    if object::annotation(route, keys::ORIGINAL_SPEC).is_some() || names.canary_service == names.stable_service {
        return None;
    }
    let mut spec = route.get("spec")?.clone();
    let rules = spec.get_mut("rules")?.as_array_mut()?;
    let is_of = |backend: &Value, name: &str| {
        let is_service = matches!(text(backend, &["kind"]), "" | "Service");
        is_service && text(backend, &["name"]) == name
    };
    let mut is_changed = false;
    rules.retain_mut(|rule| {
        let Some(backends) = rule.get_mut("backendRefs").and_then(Value::as_array_mut) else { return true };
        let before = backends.len();
        backends.retain(|backend| !is_of(backend, &names.canary_service));
        if backends.len() == before {
            return true;
        }
        is_changed = true;
        for stable in backends.iter_mut().filter(|backend| is_of(backend, &names.stable_service)) {
            if let Some(stable) = stable.as_object_mut() {
                stable.insert("weight".to_owned(), json!(1));
            }
        }
        !backends.is_empty()
    });
    if !is_changed {
        return None;
    }
    let map = |field: &str| at(route, &["metadata", field]).cloned().unwrap_or_else(|| json!({}));
    let original = json!({"spec": spec, "labels": map("labels"), "annotations": map("annotations")}).to_string();
    let add = match map("annotations").as_object().is_some_and(|a| !a.is_empty()) {
        true => json!({"op": "add", "path": annotation(keys::ORIGINAL_SPEC), "value": original}),
        false => json!({"op": "add", "path": "/metadata/annotations", "value": {keys::ORIGINAL_SPEC: original}}),
    };
    let why = "it keeps its rules, and in an annotation those that come back in the end".to_owned();
    Some(patch(route, false, vec![add], why))
}

/// The Ingress that the original has made stays, and becomes one that Tidegate applies: the fields of whoever has set its
/// owner are handed over, so that what the next step does not want goes.
fn canary_ingress(ingress: &Value) -> Option<Step> {
    let is_ours = object::annotation(ingress, keys::CANARY_INGRESS).is_some();
    if is_ours || object::is_deleting(ingress) {
        return None;
    }
    let managers = at(ingress, &["metadata", "managedFields"]).and_then(Value::as_array);
    let its = |m: &Value| {
        text(m, &["subresource"]).is_empty() && at(m, &["fieldsV1", "f:metadata", "f:ownerReferences"]).is_some()
    };
    let handed_over: Vec<Value> = managers?
        .iter()
        .map(|manager| {
            let is_its = its(manager);
            let mut manager = manager.clone();
            if let Some(map) = manager.as_object_mut().filter(|_| is_its) {
                map.insert("manager".to_owned(), json!(keys::FIELD_MANAGER));
                map.insert("operation".to_owned(), json!(APPLY));
            }
            manager
        })
        .collect();
    if !managers?.iter().any(its) {
        return None;
    }
    let mut operations = vec![json!({"op": "replace", "path": "/metadata/managedFields", "value": handed_over})];
    // Without a digest: what is wanted is applied once.
    operations.push(match at(ingress, &["metadata", "annotations"]).is_some() {
        true => json!({"op": "add", "path": annotation(keys::CANARY_INGRESS), "value": ""}),
        false => json!({"op": "add", "path": "/metadata/annotations", "value": {keys::CANARY_INGRESS: ""}}),
    });
    Some(patch(ingress, false, operations, "it routes on, and Tidegate applies it from the next step".to_owned()))
}

fn annotation(key: &str) -> String {
    format!("/metadata/annotations/{}", object::pointer_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(route: Value) -> Found {
        Found { routes: vec![route], ..Found::default() }
    }

    fn names() -> Names {
        Names { stable_service: "web".to_owned(), canary_service: "web-canary".to_owned(), ..Names::default() }
    }

    fn kept(rules: Value) -> Option<Value> {
        let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "1"}, "spec": {"rules": rules}});
        let steps = routes(&found(route), &names());
        let super::super::Deed::Patch { operations, .. } = &steps.first()?.deed else { return None };
        let text = operations[1]["value"][keys::ORIGINAL_SPEC].as_str()?;
        Some(serde_json::from_str::<Value>(text).unwrap()["spec"]["rules"].clone())
    }

    #[test]
    fn the_rules_that_come_back_are_those_that_the_original_would_leave() {
        let stable = |weight: i64| json!({"name": "web", "kind": "Service", "port": 80, "weight": weight});
        let canary = |weight: i64| json!({"name": "web-canary", "port": 80, "weight": weight});
        let other = json!({"name": "other", "port": 80, "weight": 10});
        let redirect = json!({"filters": [{"type": "RequestRedirect"}]});
        let rule = |backends: &[&Value]| json!({"backendRefs": backends});
        let by_match = json!({"matches": [{"headers": [{"name": "user", "value": "me"}]}], "backendRefs": [canary(1)]});
        for (rules, expected) in [
            // A share, beside a rule that routes nowhere.
            (json!([rule(&[&stable(80), &canary(20)]), redirect]), Some(json!([rule(&[&stable(1)]), redirect]))),
            // Matches: the clone goes, and the rule that it was made from is as it was.
            (json!([rule(&[&stable(7), &other]), by_match]), Some(json!([rule(&[&stable(7), &other])]))),
            // Nothing of the original's.
            (json!([rule(&[&stable(1)]), redirect]), None),
        ] {
            assert_eq!(kept(rules.clone()), expected, "{rules}");
        }
    }

    #[test]
    fn an_ingress_is_handed_over_once() {
        let entry = |manager: &str, operation: &str, metadata: Value| {
            json!({"manager": manager, "operation": operation, "apiVersion": "networking.k8s.io/v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": metadata}})
        };
        let owners = json!({"f:ownerReferences": {}});
        let managers =
            [entry("rollouts", "Update", owners.clone()), entry("kubectl-edit", "Update", json!({"f:labels": {}}))];
        let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "web-canary", "namespace": "shop", "annotations": {}, "managedFields": managers}});
        let of = |ingress: &Value| Found { canary_ingress: Some(ingress.clone()), ..Found::default() };
        let steps = routes(&of(&ingress), &names());
        let super::super::Deed::Patch { operations, .. } = &steps[0].deed else { panic!("{steps:?}") };
        assert_eq!(operations[1]["value"], json!([entry("tidegate", "Apply", owners), managers[1]]));
        let mut ours = ingress;
        ours["metadata"]["annotations"] = json!({keys::CANARY_INGRESS: "1"});
        assert_eq!(routes(&of(&ours), &names()), []);
    }
}
