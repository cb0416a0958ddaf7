//! What the administrator says in his ConfigMap.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Lookup, Objects, Settings, optional};
use crate::{
    api::{
        keys,
        notifications::{Notifications, Receiver},
        object::{self, ObjectRef},
        v1beta1::Rollout,
        windows::ClusterWindows,
    },
    lua::OfNamespace,
    rollout::{calls::short, notifications::config, windows::ForAll},
    traffic::routes::Missing,
    yaml,
};

/// The administrator's change windows.
pub(super) fn windows_for_all(objects: &impl Objects, settings: &Settings) -> Option<Result<ForAll, String>> {
    let target = ObjectRef::new("v1", "ConfigMap", &settings.script_namespace, keys::SCRIPT_CONFIG_MAP);
    let map = match objects.get(&target) {
        Ok(map) => map,
        Err(Lookup::Pending) => return None,
        Err(Lookup::Missing(Missing::Forbidden(why))) => return Some(Err(why)),
        Err(Lookup::Missing(Missing::Object | Missing::Kind)) => return Some(Ok(ForAll::default())),
    };
    let text = object::text(&map, &["data", keys::CHANGE_WINDOWS]);
    if text.is_empty() {
        return Some(Ok(ForAll::default()));
    }
    let read = yaml::from_str::<ClusterWindows>(text).map_err(|e| e.to_string());
    let read = read.and_then(|windows| ForAll::try_from(&windows).map_err(|e| e.to_string()));
    let place = format!("ConfigMap {}/{}", settings.script_namespace, keys::SCRIPT_CONFIG_MAP);
    Some(read.map_err(|why| format!("{place}, key {}: {why}", keys::CHANGE_WINDOWS)))
}

/// Who is told of a Rollout.
pub(super) fn receivers(
    objects: &impl Objects,
    rollout: &Rollout,
    settings: &Settings,
) -> Option<Result<Vec<Receiver>, String>> {
    let target = ObjectRef::new("v1", "ConfigMap", &settings.script_namespace, keys::SCRIPT_CONFIG_MAP);
    let Some(map) = optional(objects.get(&target))? else { return Some(Ok(Vec::new())) };
    let text = object::text(&map, &["data", keys::NOTIFICATIONS]);
    if text.is_empty() {
        return Some(Ok(Vec::new()));
    }
    let read = yaml::from_str::<Notifications>(text).map_err(|e| e.to_string());
    let read = read.and_then(|read| config::check(&read).map(|()| read.receivers));
    let annotation = rollout.metadata.annotations.as_ref().and_then(|a| a.get(keys::NOTIFY)).map(String::as_str);
    let place = format!("ConfigMap {}/{}, key {}", settings.script_namespace, target.name, keys::NOTIFICATIONS);
    Some(read.map(|all| config::receivers_of(&all, annotation)).map_err(|why| format!("{place}: {}", short(&why))))
}

/// The data of the administrator's ConfigMap.
pub(super) fn scripts(objects: &impl Objects, settings: &Settings) -> Option<Option<BTreeMap<String, String>>> {
    data(objects, &settings.script_namespace)
}

/// What the ConfigMap of a Rollout's own namespace has, if namespaces may bring scripts.
pub(super) fn scripts_of(objects: &impl Objects, namespace: &str, settings: &Settings) -> Option<Option<OfNamespace>> {
    if !settings.namespace_scripts || namespace == settings.script_namespace {
        return Some(None);
    }
    Some(Some(OfNamespace { namespace: namespace.to_owned(), data: data(objects, namespace)? }))
}

fn data(objects: &impl Objects, namespace: &str) -> Option<Option<BTreeMap<String, String>>> {
    let target = ObjectRef::new("v1", "ConfigMap", namespace, keys::SCRIPT_CONFIG_MAP);
    Some(optional(objects.get(&target))?.map(|map| {
        let data = object::at(&map, &["data"]).and_then(Value::as_object).into_iter().flatten();
        data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }))
}
