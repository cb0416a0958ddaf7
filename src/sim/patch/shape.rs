//! What the API server knows about the shape of objects: which lists merge by which keys, which maps are one value.

use std::borrow::Cow;

use serde_json::Value;

use super::super::json::{items, text};
use super::super::registry::Kind;

/// How a list's elements belong together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum List {
    /// One value.
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects identified by these fields.
    Map(Vec<Cow<'static, str>>),
}

/// A position in the schema of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    /// A built-in type, by the names on the way.
    BuiltIn { kind: &'a str, parent: &'a str, field: &'a str },
    /// A custom resource: its schema there, if it says anything.
    Custom(Option<&'a Value>),
    /// The root of a custom resource.
    CustomRoot(Option<&'a Value>),
}

impl<'a> Shape<'a> {
    pub fn of(kind: &'a Kind, version: &str) -> Self {
        if kind.custom {
            Shape::CustomRoot(kind.version(version).and_then(|v| v.schema.as_deref()))
        } else {
            Shape::BuiltIn { kind: &kind.kind, parent: "", field: "" }
        }
    }

    pub fn child(self, key: &'a str) -> Self {
        match self {
            Shape::BuiltIn { kind, parent, field } => {
                // An element of a list has no name of its own: its fields belong to the list's.
                Shape::BuiltIn { kind, parent: if field.is_empty() { parent } else { field }, field: key }
            }
            Shape::CustomRoot(_) if key == "metadata" => Shape::BuiltIn { kind: "", parent: "", field: "metadata" },
            Shape::CustomRoot(schema) | Shape::Custom(schema) => Shape::Custom(schema.and_then(|s| {
                s.get("properties")
                    .and_then(|p| p.get(key))
                    .or_else(|| s.get("additionalProperties").filter(|a| a.is_object()))
            })),
        }
    }

    /// True if the schema names this field of an object.
    pub fn declares(self, key: &str) -> bool {
        match self {
            Shape::BuiltIn { .. } => true,
            Shape::CustomRoot(_) if matches!(key, "apiVersion" | "kind" | "metadata") => true,
            Shape::CustomRoot(schema) | Shape::Custom(schema) => {
                schema.and_then(|s| s.get("properties")).is_some_and(|p| p.get(key).is_some())
            }
        }
    }

    pub fn item(self) -> Self {
        match self {
            Shape::BuiltIn { kind, field, .. } => Shape::BuiltIn { kind, parent: field, field: "" },
            Shape::CustomRoot(schema) | Shape::Custom(schema) => Shape::Custom(schema.and_then(|s| s.get("items"))),
        }
    }

    /// True if an object here is one value to server-side apply.
    pub fn atomic_map(self) -> bool {
        match self {
            Shape::BuiltIn { kind, parent, field } => {
                (field == "selector" && parent == "spec")
                    || (field.is_empty() && matches!(parent, "ownerReferences" | "imagePullSecrets"))
                    || matches!(
                        field,
                        "labelSelector"
                            | "namespaceSelector"
                            | "objectSelector"
                            | "nodeSelector"
                            | "fieldRef"
                            | "resourceFieldRef"
                            | "secretKeyRef"
                            | "configMapKeyRef"
                            | "targetRef"
                            | "involvedObject"
                            | "regarding"
                            | "related"
                    )
                    || (kind == "PodDisruptionBudget" && field == "selector")
            }
            Shape::Custom(schema) | Shape::CustomRoot(schema) => {
                schema.is_some_and(|s| text(s, "/x-kubernetes-map-type") == "atomic")
            }
        }
    }

    /// True where the server's own types always have the object or list here, so that it cannot be added.
    pub fn always_there(self) -> bool {
        match self {
            Shape::BuiltIn { field, .. } => {
                matches!(
                    field,
                    "spec"
                        | "metadata"
                        | "status"
                        | "template"
                        | "strategy"
                        | "updateStrategy"
                        | "containers"
                        | "names"
                        | "scaleTargetRef"
                )
            }
            Shape::Custom(_) | Shape::CustomRoot(_) => false,
        }
    }

    pub fn list(self) -> List {
        match self {
            Shape::BuiltIn { kind, parent, field } => built_in_list(kind, parent, field),
            Shape::Custom(Some(schema)) | Shape::CustomRoot(Some(schema)) => {
                match text(schema, "/x-kubernetes-list-type") {
                    "set" => List::Set,
                    "map" => List::Map(
                        items(schema, "/x-kubernetes-list-map-keys")
                            .iter()
                            .filter_map(|k| k.as_str().map(|k| Cow::Owned(k.to_owned())))
                            .collect(),
                    ),
                    _ => List::Atomic,
                }
            }
            _ => List::Atomic,
        }
    }

    /// Default of a key field of a list element, where the schema has one.
    pub fn key_default(self, key: &str) -> Option<Value> {
        match self {
            Shape::BuiltIn { .. } => (key == "protocol").then(|| "TCP".into()),
            Shape::Custom(schema) | Shape::CustomRoot(schema) => {
                schema?.get("items")?.get("properties")?.get(key)?.get("default").cloned()
            }
        }
    }
}

fn built_in_list(kind: &str, parent: &str, field: &str) -> List {
    let map = |keys: &[&'static str]| List::Map(keys.iter().map(|k| Cow::Borrowed(*k)).collect());
    match field {
        "finalizers" | "loadBalancerSourceRanges" if parent != "volumes" => List::Set,
        "ownerReferences" => map(&["uid"]),
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => {
            map(&["name"])
        }
        "volumeMounts" => map(&["mountPath"]),
        "volumeDevices" => map(&["devicePath"]),
        "hostAliases" => map(&["ip"]),
        "podIPs" | "hostIPs" => map(&["ip"]),
        "conditions" => map(&["type"]),
        "topologySpreadConstraints" => map(&["topologyKey", "whenUnsatisfiable"]),
        "resourceClaims" | "claims" => map(&["name"]),
        "ports" if kind == "Service" => map(&["port", "protocol"]),
        "ports" if parent == "containers" || parent == "initContainers" || parent == "ephemeralContainers" => {
            map(&["containerPort", "protocol"])
        }
        "secrets" if kind == "ServiceAccount" => map(&["name"]),
        _ => List::Atomic,
    }
}
