//! Server-side apply.

use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails};
use serde_json::{Map, Value};

use super::super::core::Caller;
use super::super::crd;
use super::super::json;
use super::super::registry::{Kind, api_version};
use super::super::status;
use super::fields::{self, Set};
use super::managed::{self, Manager};
use super::shape::Shape;

/// Applies a configuration to the live object (null if there is none), with managed fields worked out.
///
/// A field that another manager owns and whose value would change is a conflict (409) unless `force` is set.
pub(crate) fn apply(
    kind: &Kind,
    caller: &Caller,
    live: &Value,
    config: &Value,
    force: bool,
    time: &str,
) -> Result<Value, Box<Status>> {
    if config.pointer("/metadata/managedFields").and_then(Value::as_array).is_some_and(|m| !m.is_empty()) {
        return Err(status::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(schema) = kind.version(&caller.version).and_then(|v| v.schema.as_deref()) {
        let errors = crd::untyped(schema, config);
        if !errors.is_empty() {
            let (namespace, name) = (json::namespace(config), json::name(config));
            let version = api_version(&kind.group, &caller.version);
            let errors = match errors.as_slice() {
                [one] => one.clone(),
                many => format!("errors:\n  {}", many.join("\n  ")),
            };
            let what = format!("({namespace}/{name}; {version}, Kind={})", kind.kind);
            return Err(status::failure(500, "", format!("failed to create typed patch object {what}: {errors}")));
        }
    }
    let shape = Shape::of(kind, &caller.version);
    let mut config = config.clone();
    reset(kind, caller, &mut config);
    let mut wanted = Set::default();
    fields::of_value(shape, &config, &mut wanted);
    managed::strip(&mut wanted);

    let mut merged = if live.is_null() { Value::Object(Map::new()) } else { live.clone() };
    merge(shape, &mut merged, &config);
    let mut managers = managed::read(live);
    if managers.is_empty() && !live.is_null() {
        managers.extend(managed::before_first_apply(kind, caller, live, time));
    }
    let me = Manager::new(kind, caller, "Apply", time);
    let mine = managers.iter().position(|m| m.is(&me));

    let mut changed = fields::compare(shape, if live.is_null() { &Value::Null } else { live }, &merged).changed;
    if live.is_null() {
        changed = wanted.clone();
    }
    let mut conflicts: Vec<(Manager, Set)> = Vec::new();
    for (_, manager) in managers.iter_mut().enumerate().filter(|(i, _)| Some(*i) != mine) {
        let clash = manager.set.intersection(&changed);
        if clash.is_empty() {
            continue;
        }
        if force {
            manager.set.subtract(&clash);
        } else {
            conflicts.push((manager.clone(), clash));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflict(conflicts));
    }

    if let Some(previous) = mine.and_then(|i| managers.get(i)).map(|m| m.set.clone()) {
        let mut kept = wanted.clone();
        for (i, manager) in managers.iter().enumerate() {
            if Some(i) != mine {
                kept.union(&manager.set);
            }
        }
        let mut dropped = previous;
        dropped.subtract(&kept);
        prune(shape, &mut merged, &dropped, &kept);
    }
    // A configuration that changes nothing leaves no new time.
    let same = !live.is_null() && without_managers(live) == without_managers(&merged);
    let old = mine.and_then(|i| managers.get(i));
    let kept = same || old.is_some_and(|old| old.set == wanted && old.api_version == me.api_version);
    let renewed = match old {
        _ if !kept => me,
        Some(old) => Manager { time: old.time.clone(), ..me },
        None => Manager { time: String::new(), ..me },
    };
    if let Some(i) = mine {
        managers.remove(i);
    }
    managers.insert(mine.unwrap_or(managers.len()), Manager { set: wanted, ..renewed });
    managed::write(&mut merged, &managers);
    Ok(merged)
}

fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    json::remove(&mut object, &["metadata", "managedFields"]);
    object
}

/// Takes out what this (sub)resource may not set.
fn reset(kind: &Kind, caller: &Caller, config: &mut Value) {
    let keep_only_status = caller.subresource == Some("status");
    if let Value::Object(map) = config {
        if keep_only_status {
            map.retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        } else if kind.status {
            map.remove("status");
        }
    }
    if let (true, Some(Value::Object(meta))) = (keep_only_status, config.get_mut("metadata")) {
        let kept = kind.kept_by_status();
        meta.retain(|k, _| {
            matches!(k.as_str(), "name" | "namespace" | "resourceVersion" | "uid")
                || (!kind.custom && !kept.contains(&k.as_str()))
        });
    }
    for field in ["creationTimestamp", "generation", "managedFields", "selfLink"] {
        json::remove(config, &["metadata", field]);
    }
}

fn merge<'v>(shape: Shape<'v>, live: &mut Value, config: &'v Value) {
    match config {
        Value::Object(map) if !shape.atomic_map() => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            let Value::Object(target) = live else { return };
            for (key, value) in map {
                merge(shape.child(key), target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        Value::Array(list) => {
            let Some(wanted) = fields::elements(shape, list) else {
                *live = config.clone();
                return;
            };
            let existing = live.as_array().cloned().unwrap_or_default();
            let Some(have) = fields::elements(shape, &existing) else {
                *live = config.clone();
                return;
            };
            let names: Vec<String> = have.into_iter().map(|(k, _)| k).collect();
            let mut result = existing;
            for (name, item) in wanted {
                match names.iter().position(|n| *n == name).and_then(|i| result.get_mut(i)) {
                    Some(slot) if item.is_object() => merge(shape.item(), slot, item),
                    Some(_) => {}
                    None => result.push(item.clone()),
                }
            }
            *live = Value::Array(result);
        }
        _ => *live = config.clone(),
    }
}

/// Removes fields that the manager dropped and nobody else owns. Containers that are left empty go as well.
fn prune(shape: Shape<'_>, value: &mut Value, dropped: &Set, kept: &Set) {
    let none = Set::default();
    match value {
        Value::Object(map) => {
            for (path, gone) in &dropped.kids {
                let Some(key) = path.strip_prefix("f:") else { continue };
                let stay = kept.kids.get(path).unwrap_or(&none);
                let Some(child) = map.get_mut(key) else { continue };
                if gone.member && stay.is_empty() {
                    map.remove(key);
                    continue;
                }
                let was_empty = is_hollow(child);
                prune(shape.child(key), child, gone, stay);
                if !was_empty && is_hollow(child) {
                    if stay.is_empty() {
                        map.remove(key);
                    } else {
                        // Somebody else owns it, but nothing in it: that is how the server leaves it.
                        *child = Value::Null;
                    }
                }
            }
        }
        Value::Array(list) => {
            let kind = shape.list();
            let mut keep = Vec::with_capacity(list.len());
            for mut item in std::mem::take(list) {
                let path = fields::element(shape, &kind, &item);
                let gone = path.as_ref().and_then(|p| dropped.kids.get(p));
                let stay = path.as_ref().and_then(|p| kept.kids.get(p)).unwrap_or(&none);
                match gone {
                    Some(gone) if gone.member && stay.is_empty() => continue,
                    Some(gone) => prune(shape.item(), &mut item, gone, stay),
                    None => {}
                }
                keep.push(item);
            }
            *list = keep;
        }
        _ => {}
    }
}

fn is_hollow(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn conflict(conflicts: Vec<(Manager, Set)>) -> Box<Status> {
    let mut causes = Vec::new();
    let mut groups = Vec::new();
    let mut count = 0;
    for (manager, set) in conflicts {
        let mut who = format!("\"{}\"", manager.name);
        if !manager.subresource.is_empty() {
            who.push_str(&format!(" with subresource \"{}\"", manager.subresource));
        }
        if manager.operation == "Update" {
            who.push_str(&format!(" using {}", manager.api_version));
        }
        let paths = set.paths();
        count += paths.len();
        for path in &paths {
            causes.push(StatusCause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {who}"),
                field: path.clone(),
            });
        }
        groups.push((who, paths));
    }
    let message = match groups.as_slice() {
        [(who, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {who}: {}", paths.concat())
        }
        many => {
            let parts: Vec<String> =
                many.iter().map(|(who, paths)| format!("conflicts with {who}:\n- {}", paths.join("\n- "))).collect();
            format!("Apply failed with {count} conflicts: {}", parts.join("\n"))
        }
    };
    let mut status = status::failure(409, "Conflict", message);
    status.details = Some(StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes,
        retry_after_seconds: 0,
    });
    status
}
