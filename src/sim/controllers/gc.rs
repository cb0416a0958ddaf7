//! The garbage collector, and the deletion of a namespace's content.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::json::{self, deleting, items, text};
use super::super::objects::DeleteOptions;
use super::super::registry::{KindId, NAMESPACES, split_api_version};
use super::super::store::{Change, Key, Store};
use super::{Access, Reconcile};

pub(crate) struct Collector;

/// A change concerns the object itself, if it has owners or waits for its dependents, and its dependents, if it is
/// gone.
pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    match &change.after {
        None => {
            if let Some(before) = &change.before {
                keys.extend(store.owned_by(json::uid(before)).cloned());
                // Owners that wait for this dependent to go, and a namespace that waits for its content.
                for owner in items(before, "/metadata/ownerReferences") {
                    if let Some(kind) = kind_of(store, owner) {
                        keys.push(Key::new(kind, &change.key.namespace, text(owner, "/name")));
                    }
                }
                if !change.key.namespace.is_empty() {
                    let namespace = store.get(NAMESPACES, "", &change.key.namespace);
                    if namespace.is_some_and(|n| deleting(n)) {
                        keys.push(Key::new(NAMESPACES, "", &change.key.namespace));
                    }
                }
            }
        }
        Some(after) => {
            let owners = |o: &Value| items(o, "/metadata/ownerReferences").to_vec();
            let changed = change.before.as_ref().is_none_or(|b| owners(b) != owners(after));
            if (changed && !owners(after).is_empty()) || deleting(after) {
                keys.push(change.key.clone());
            }
        }
    }
}

fn kind_of(store: &Store, reference: &Value) -> Option<KindId> {
    let (group, _) = split_api_version(text(reference, "/apiVersion"));
    store.registry.find_group_kind(group, text(reference, "/kind")).map(|k| k.id)
}

impl Reconcile for Collector {
    fn reconcile(&mut self, access: &Access<'_>, key: &Key) -> Option<Duration> {
        let object = access.at(key)?;
        if deleting(&object) {
            if key.kind == NAMESPACES {
                empty_namespace(access, &object);
                return None;
            }
            let finalizers = items(&object, "/metadata/finalizers");
            if finalizers.iter().any(|f| f == "orphan") {
                orphan(access, &object, key);
            } else if finalizers.iter().any(|f| f == "foregroundDeletion") {
                foreground(access, &object, key);
            }
            return None;
        }
        let owners = items(&object, "/metadata/ownerReferences");
        if owners.is_empty() {
            return None;
        }
        let (mut living, mut gone, mut waiting) = (0, Vec::new(), false);
        {
            let state = access.core.lock();
            for owner in owners {
                let found = kind_of(&state.store, owner).and_then(|kind| {
                    let name = text(owner, "/name");
                    state.store.get(kind, &key.namespace, name).or_else(|| state.store.get(kind, "", name))
                });
                match found {
                    Some(o) if json::uid(o) == text(owner, "/uid") => {
                        let foreground =
                            deleting(o) && items(o, "/metadata/finalizers").iter().any(|f| f == "foregroundDeletion");
                        if foreground {
                            waiting = true;
                        } else {
                            living += 1;
                        }
                    }
                    _ => gone.push(text(owner, "/uid").to_owned()),
                }
            }
        }
        if living == 0 {
            let propagation = waiting.then(|| "Foreground".to_owned());
            let options =
                DeleteOptions { uid: Some(json::uid(&object).to_owned()), propagation, ..DeleteOptions::default() };
            access.delete(key.kind, &key.namespace, &key.name, &options);
        } else if !gone.is_empty() {
            access.update(key.kind, &key.namespace, &key.name, |o| drop_owners(o, &gone));
        }
        None
    }
}

fn drop_owners(object: &mut Value, uids: &[String]) {
    if let Some(Value::Array(refs)) = object.pointer_mut("/metadata/ownerReferences") {
        refs.retain(|r| !uids.iter().any(|u| u == text(r, "/uid")));
        if refs.is_empty() {
            json::remove(object, &["metadata", "ownerReferences"]);
        }
    }
}

fn dependents(access: &Access<'_>, owner: &Value) -> Vec<(Key, Arc<Value>)> {
    let state = access.core.lock();
    let keys = state.store.owned_by(json::uid(owner));
    keys.filter_map(|k| state.store.at(k).map(|o| (k.clone(), o.clone()))).collect()
}

fn remove_finalizer(access: &Access<'_>, key: &Key, name: &str) {
    access.update(key.kind, &key.namespace, &key.name, |o| {
        if let Some(Value::Array(list)) = o.pointer_mut("/metadata/finalizers") {
            list.retain(|f| f != name);
            if list.is_empty() {
                json::remove(o, &["metadata", "finalizers"]);
            }
        }
    });
}

fn orphan(access: &Access<'_>, object: &Value, key: &Key) {
    let uid = [json::uid(object).to_owned()];
    for (dependent, _) in dependents(access, object) {
        access.update(dependent.kind, &dependent.namespace, &dependent.name, |o| drop_owners(o, &uid));
    }
    remove_finalizer(access, key, "orphan");
}

fn foreground(access: &Access<'_>, object: &Value, key: &Key) {
    let mut blocked = false;
    for (dependent, value) in dependents(access, object) {
        let blocks = items(&value, "/metadata/ownerReferences")
            .iter()
            .any(|r| text(r, "/uid") == json::uid(object) && json::flag(r, "/blockOwnerDeletion"));
        blocked |= blocks;
        if !deleting(&value) {
            let propagation = Some("Foreground".to_owned());
            let options =
                DeleteOptions { uid: Some(json::uid(&value).to_owned()), propagation, ..DeleteOptions::default() };
            access.delete(dependent.kind, &dependent.namespace, &dependent.name, &options);
        }
    }
    if !blocked || dependents(access, object).is_empty() {
        remove_finalizer(access, key, "foregroundDeletion");
    }
}

fn empty_namespace(access: &Access<'_>, namespace: &Value) {
    let name = json::name(namespace).to_owned();
    let content: Vec<(Key, bool)> = {
        let state = access.core.lock();
        let kinds = state.store.registry.iter().filter(|k| k.namespaced).map(|k| k.id);
        let of_kind = |kind| {
            let objects = state.store.list(kind, Some(&name));
            objects.map(move |o| (Key::new(kind, json::namespace(o), json::name(o)), deleting(o)))
        };
        kinds.flat_map(of_kind).collect()
    };
    if content.is_empty() {
        access.update(NAMESPACES, "", &name, |n| {
            json::remove(n, &["spec", "finalizers"]);
        });
        return;
    }
    for (key, waits) in content {
        if !waits {
            access.delete(key.kind, &key.namespace, &key.name, &DeleteOptions::default());
        }
    }
}
