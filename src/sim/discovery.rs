//! `/version`, `/api`, `/apis` and the resource lists below them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::registry::{Kind, Registry, api_version};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

pub(crate) fn version() -> Value {
    json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.26", "compiler": "gc", "platform": "linux/amd64"})
}

pub(crate) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group_versions(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in registry.iter().filter(|k| !k.group.is_empty()) {
        let versions = groups.entry(kind.group.clone()).or_default();
        for version in &kind.versions {
            if !versions.contains(&version.name) {
                versions.push(version.name.clone());
            }
        }
    }
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let list: Vec<Value> =
        versions.iter().map(|v| json!({"groupVersion": api_version(name, v), "version": v})).collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

pub(crate) fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = group_versions(registry).iter().map(|(name, versions)| group(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

pub(crate) fn one_group(registry: &Registry, name: &str) -> Option<Value> {
    let versions = group_versions(registry).remove(name)?;
    let mut value = group(name, &versions);
    if let Value::Object(map) = &mut value {
        map.insert("kind".into(), "APIGroup".into());
        map.insert("apiVersion".into(), "v1".into());
    }
    Some(value)
}

/// Resources of a group version; `None` if nothing is served there.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for kind in registry.iter().filter(|k| k.group == group && k.version(version).is_some()) {
        list.push(resource(kind));
        if kind.status {
            list.push(subresource(kind, "status"));
        }
        if kind.scale.is_some() {
            let mut scale = subresource(kind, "scale");
            if let Value::Object(map) = &mut scale {
                map.insert("kind".into(), "Scale".into());
                map.insert("group".into(), "autoscaling".into());
                map.insert("version".into(), "v1".into());
            }
            list.push(scale);
        }
    }
    (!list.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": list})
    })
}

fn resource(kind: &Kind) -> Value {
    json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "verbs": VERBS, "shortNames": kind.short_names})
}

fn subresource(kind: &Kind, name: &str) -> Value {
    json!({"name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": ["get", "patch", "update"]})
}
