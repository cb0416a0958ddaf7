//! Versions of a kind, and what a write may change in an object.

use super::super::kruise;
use super::super::registry::STATEFUL_SETS;
use super::*;

impl Core {
    /// The object in the caller's version. Conversion rewrites `apiVersion` only, but for OpenKruise's kinds.
    pub fn view_version(&self, kind: &Kind, caller: &Caller, object: &Arc<Value>) -> Arc<Value> {
        if caller.version == kind.storage {
            return object.clone();
        }
        let mut viewed = Value::clone(object);
        json::set(&mut viewed, &["apiVersion"], registry::api_version(&kind.group, &caller.version));
        kruise::convert(kind, &kind.storage, &caller.version, &mut viewed);
        self.shape(kind, caller, &mut viewed, None);
        Arc::new(viewed)
    }

    pub(super) fn store_version(&self, kind: &Kind, caller: &Caller, object: &mut Value) {
        json::set(object, &["apiVersion"], kind.storage_api_version());
        kruise::convert(kind, &caller.version, &kind.storage, object);
        if let (true, Some(schema)) =
            (caller.version != kind.storage, kind.version(&kind.storage).and_then(|v| v.schema.clone()))
        {
            crd::default_and_prune(&schema, object, None);
        }
    }

    /// Prunes and defaults a custom resource by its schema, but for what is as in an object that had its shape; built-in
    /// kinds lose their zero values and get defaults.
    pub(super) fn shape(&self, kind: &Kind, caller: &Caller, object: &mut Value, shaped: Option<&Value>) {
        compact::metadata(object);
        if let Some(schema) = kind.version(&caller.version).and_then(|v| v.schema.as_ref()) {
            crd::default_and_prune(schema, object, shaped);
        } else if !kind.custom {
            compact::built_in(kind, object);
            defaults::fill(kind, object);
            if kind.id == STATEFUL_SETS && !self.options.stateful_max_unavailable {
                json::remove(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]);
            }
        }
    }

    /// Puts back what a client's write of this (sub)resource may not change.
    pub(super) fn keep_outside(&self, kind: &Kind, caller: &Caller, new: &mut Value, old: &Value) {
        match caller.subresource {
            Some("status") => {
                let mut asked = std::mem::take(new);
                let status = asked.get_mut("status").map(Value::take);
                let managed = asked.pointer_mut("/metadata/managedFields").map(Value::take);
                let metadata = asked.get_mut("metadata").map(Value::take).filter(|_| !kind.custom);
                *new = without_status(old);
                // Of built-in kinds the status may be written together with most metadata.
                if let Some(metadata) = metadata {
                    json::set(new, &["metadata"], metadata);
                    for field in kind.kept_by_status() {
                        json::restore(new, old, &["metadata", field]);
                    }
                }
                match status.filter(|s| kind.custom || !s.is_null()) {
                    Some(status) => json::set(new, &["status"], status),
                    None if !kind.custom => json::set(new, &["status"], defaults::empty_status(kind)),
                    None => {
                        json::remove(new, &["status"]);
                    }
                }
                if let Some(managed) = managed {
                    json::set(new, &["metadata", "managedFields"], managed);
                }
            }
            _ => {
                if kind.status {
                    json::restore(new, old, &["status"]);
                }
            }
        }
        for field in [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
            "selfLink",
        ] {
            json::restore(new, old, &["metadata", field]);
        }
    }
}

fn without_status(object: &Value) -> Value {
    match object {
        Value::Object(map) => {
            map.iter().filter(|(key, _)| *key != "status").map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        other => other.clone(),
    }
}

/// Equal but for what the server itself keeps about writes. Empty and absent metadata are the same to its types.
pub(super) fn same_but_bookkeeping(new: &Value, old: &Value) -> bool {
    fn hollow(value: &Value) -> bool {
        value.as_object().is_some_and(|m| m.is_empty()) || value.as_array().is_some_and(Vec::is_empty)
    }
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return new == old };
    let others = |k: &String| k != "metadata";
    if a.keys().filter(|k| others(k)).count() != b.keys().filter(|k| others(k)).count()
        || a.iter().any(|(k, v)| others(k) && b.get(k) != Some(v))
    {
        return false;
    }
    let none = serde_json::Map::new();
    let a = a.get("metadata").and_then(Value::as_object).unwrap_or(&none);
    let b = b.get("metadata").and_then(Value::as_object).unwrap_or(&none);
    let counts = |k: &str| !matches!(k, "managedFields" | "resourceVersion");
    let covered = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
        a.iter()
            .filter(|(k, _)| counts(k))
            .all(|(k, v)| b.get(k).map_or(hollow(v), |w| w == v || (hollow(v) && hollow(w))))
    };
    covered(a, b) && covered(b, a)
}

pub(super) fn bumps_generation(kind: &Kind, new: &Value, old: &Value) -> bool {
    match kind.generation {
        Generation::None => false,
        Generation::Spec => new.get("spec") != old.get("spec"),
        Generation::AllButMetadata => {
            let counts = |k: &str| k != "metadata" && k != "apiVersion" && !(kind.status && k == "status");
            let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return false };
            a.iter().any(|(k, v)| counts(k) && b.get(k) != Some(v)) || b.keys().any(|k| counts(k) && !a.contains_key(k))
        }
    }
}
