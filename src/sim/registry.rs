//! The kinds that the cluster serves: built-in ones from a table, others from their definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::json::{flag, items, text};

/// A resource as a URL names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gvr {
    /// API group; empty for the core group.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// Plural, lower case: `deployments`.
    pub resource: String,
}

impl Gvr {
    /// A resource by group, version and plural.
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Self { group: group.into(), version: version.into(), resource: resource.into() }
    }
}

/// `apiVersion` of a group and version.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Index of a kind in the registry; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KindId(pub usize);

impl KindId {
    /// Not from a CustomResourceDefinition.
    pub fn is_built_in(self) -> bool {
        self.0 < BUILT_IN.len()
    }
}

/// How a write to a kind counts generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// `metadata.generation` is not kept.
    None,
    /// It goes up when `spec` changes.
    Spec,
    /// It goes up when anything but metadata and (with the subresource) status changes: custom resources.
    AllButMetadata,
}

/// JSON pointers behind the `scale` subresource.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

/// One served version of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub name: String,
    /// `openAPIV3Schema` of a custom resource.
    pub schema: Option<Arc<Value>>,
}

/// A kind of object.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub id: KindId,
    pub group: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub short_names: Vec<String>,
    pub versions: Vec<Version>,
    /// Objects are stored with this version's `apiVersion`.
    pub storage: String,
    pub namespaced: bool,
    pub status: bool,
    pub scale: Option<Scale>,
    pub generation: Generation,
    pub custom: bool,
}

impl Kind {
    /// `deployments.apps`, or `pods`: as error messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Metadata that a write of the status of a built-in kind does not change.
    pub fn kept_by_status(&self) -> &'static [&'static str] {
        match self.kind.as_str() {
            "Deployment" => &["labels"],
            "Pod" => &["ownerReferences"],
            _ => &[],
        }
    }

    /// True if a PUT of an object that is not there makes it.
    pub fn update_creates(&self) -> bool {
        !self.custom && matches!(self.plural.as_str(), "services" | "leases" | "events")
    }

    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name)
    }

    pub fn gvr(&self, version: &str) -> Gvr {
        Gvr::new(&self.group, version, &self.plural)
    }

    pub fn storage_api_version(&self) -> String {
        api_version(&self.group, &self.storage)
    }
}

type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, u8);
const NS: u8 = 1;
const STATUS: u8 = 2;
const GEN: u8 = 4;
const SCALE: u8 = 8;

/// group, version, plural, kind, short name, flags.
const BUILT_IN: &[Row] = &[
    ("", "v1", "namespaces", "Namespace", "ns", STATUS),
    ("", "v1", "pods", "Pod", "po", NS | STATUS | GEN),
    ("", "v1", "services", "Service", "svc", NS | STATUS),
    ("", "v1", "configmaps", "ConfigMap", "cm", NS),
    ("", "v1", "secrets", "Secret", "", NS),
    ("", "v1", "events", "Event", "ev", NS),
    ("", "v1", "nodes", "Node", "no", STATUS),
    ("", "v1", "serviceaccounts", "ServiceAccount", "sa", NS),
    ("apps", "v1", "deployments", "Deployment", "deploy", NS | STATUS | GEN | SCALE),
    ("apps", "v1", "replicasets", "ReplicaSet", "rs", NS | STATUS | GEN | SCALE),
    ("apps", "v1", "statefulsets", "StatefulSet", "sts", NS | STATUS | GEN | SCALE),
    ("apps", "v1", "daemonsets", "DaemonSet", "ds", NS | STATUS | GEN),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", "", NS),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "", NS | GEN),
    ("events.k8s.io", "v1", "events", "Event", "ev", NS),
    ("coordination.k8s.io", "v1", "leases", "Lease", "", NS),
    ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", "", GEN),
    (
        "admissionregistration.k8s.io",
        "v1",
        "mutatingadmissionpolicybindings",
        "MutatingAdmissionPolicyBinding",
        "",
        GEN,
    ),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", NS | STATUS),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", NS | STATUS | GEN),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "crd", STATUS | GEN),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", "ing", NS | STATUS | GEN),
    ("networking.k8s.io", "v1", "ingressclasses", "IngressClass", "", GEN),
];

pub(crate) const NAMESPACES: KindId = KindId(0);
pub(crate) const PODS: KindId = KindId(1);
pub(crate) const SERVICES: KindId = KindId(2);
pub(crate) const DEPLOYMENTS: KindId = KindId(8);
pub(crate) const REPLICA_SETS: KindId = KindId(9);
pub(crate) const NODES: KindId = KindId(6);
pub(crate) const STATEFUL_SETS: KindId = KindId(10);
pub(crate) const DAEMON_SETS: KindId = KindId(11);
pub(crate) const CONTROLLER_REVISIONS: KindId = KindId(12);
pub(crate) const ENDPOINT_SLICES: KindId = KindId(13);
pub(crate) const DEFINITIONS: KindId = KindId(20);

/// All kinds; looked up by group and plural or by group and kind.
#[derive(Debug)]
pub(crate) struct Registry {
    kinds: Vec<Arc<Kind>>,
    served: BTreeMap<String, BTreeMap<String, KindId>>,
}

impl Registry {
    pub fn new() -> Self {
        let mut registry = Self { kinds: Vec::new(), served: BTreeMap::new() };
        for (group, version, plural, kind, short, flags) in BUILT_IN {
            registry.add(Kind {
                id: KindId(0),
                group: (*group).into(),
                plural: (*plural).into(),
                singular: kind.to_lowercase(),
                kind: (*kind).into(),
                short_names: if short.is_empty() { Vec::new() } else { vec![(*short).into()] },
                versions: vec![Version { name: (*version).into(), schema: None }],
                storage: (*version).into(),
                namespaced: flags & NS != 0,
                status: flags & STATUS != 0,
                scale: (flags & SCALE != 0).then(|| Scale {
                    spec_replicas: "/spec/replicas".into(),
                    status_replicas: "/status/replicas".into(),
                    selector: None,
                }),
                generation: if flags & GEN != 0 { Generation::Spec } else { Generation::None },
                custom: false,
            });
        }
        registry
    }

    /// Adds a kind, or replaces the one with the same group and plural.
    pub fn add(&mut self, mut kind: Kind) -> KindId {
        let group = self.served.entry(kind.group.clone()).or_default();
        let id = *group.entry(kind.plural.clone()).or_insert(KindId(self.kinds.len()));
        kind.id = id;
        match self.kinds.get_mut(id.0) {
            Some(slot) => *slot = Arc::new(kind),
            None => self.kinds.push(Arc::new(kind)),
        }
        id
    }

    /// Stops serving a kind.
    pub fn remove(&mut self, group: &str, plural: &str) -> Option<KindId> {
        self.served.get_mut(group)?.remove(plural)
    }

    pub fn get(&self, id: KindId) -> Option<&Arc<Kind>> {
        self.kinds.get(id.0)
    }

    pub fn find(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.get(*self.served.get(group)?.get(plural)?)
    }

    /// The kind that an `apiVersion` and `kind` name.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = split_api_version(api_version);
        self.served
            .get(group)?
            .values()
            .filter_map(|id| self.get(*id))
            .find(|k| k.kind == kind && (k.version(version).is_some()))
    }

    /// The kind of a group and `kind`, in whatever version.
    pub fn find_group_kind(&self, group: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.served.get(group)?.values().filter_map(|id| self.get(*id)).find(|k| k.kind == kind)
    }

    /// All served kinds, by group and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.served.values().flat_map(|g| g.values()).filter_map(|id| self.get(*id))
    }
}

/// Group and version of an `apiVersion`.
pub(crate) fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A kind from its CustomResourceDefinition; the error names the missing field.
pub(crate) fn kind_of_definition(definition: &Value) -> Result<Kind, String> {
    let need = |pointer: &str| match text(definition, pointer) {
        "" => Err(format!("{} is required", pointer.trim_start_matches('/').replace('/', "."))),
        s => Ok(s.to_owned()),
    };
    let versions = items(definition, "/spec/versions");
    let served: Vec<Version> = versions
        .iter()
        .filter(|v| flag(v, "/served"))
        .map(|v| Version {
            name: text(v, "/name").to_owned(),
            schema: v.pointer("/schema/openAPIV3Schema").cloned().map(Arc::new),
        })
        .collect();
    let storage = versions.iter().find(|v| flag(v, "/storage")).ok_or("spec.versions has no storage version")?;
    if !matches!(text(definition, "/spec/conversion/strategy"), "" | "None") {
        return Err("spec.conversion.strategy: only None is supported by the in-memory API server".into());
    }
    let kind = need("/spec/names/kind")?;
    let singular = match text(definition, "/spec/names/singular") {
        "" => kind.to_lowercase(),
        s => s.to_owned(),
    };
    Ok(Kind {
        id: KindId(0),
        group: need("/spec/group")?,
        plural: need("/spec/names/plural")?,
        singular,
        kind,
        short_names: items(definition, "/spec/names/shortNames")
            .iter()
            .filter_map(|s| s.as_str().map(str::to_owned))
            .collect(),
        versions: served,
        storage: text(storage, "/name").to_owned(),
        namespaced: text(definition, "/spec/scope") == "Namespaced",
        status: storage.pointer("/subresources/status").is_some(),
        scale: storage.pointer("/subresources/scale").map(|s| Scale {
            spec_replicas: text(s, "/specReplicasPath").replace('.', "/"),
            status_replicas: text(s, "/statusReplicasPath").replace('.', "/"),
            selector: s.get("labelSelectorPath").and_then(Value::as_str).map(|p| p.replace('.', "/")),
        }),
        generation: Generation::AllButMetadata,
        custom: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn well_known_indexes_name_their_kinds() {
        let registry = Registry::new();
        for (id, plural) in [
            (NAMESPACES, "namespaces"),
            (PODS, "pods"),
            (SERVICES, "services"),
            (DEPLOYMENTS, "deployments"),
            (REPLICA_SETS, "replicasets"),
            (NODES, "nodes"),
            (STATEFUL_SETS, "statefulsets"),
            (DAEMON_SETS, "daemonsets"),
            (CONTROLLER_REVISIONS, "controllerrevisions"),
            (ENDPOINT_SLICES, "endpointslices"),
            (DEFINITIONS, "customresourcedefinitions"),
        ] {
            assert_eq!(registry.get(id).unwrap().plural, plural);
        }
    }

    #[test]
    fn a_definition_becomes_a_kind() {
        let kind = kind_of_definition(&json!({"spec": {
            "group": "g.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}},
                {"name": "v1alpha1", "served": true, "storage": false},
                {"name": "v0", "served": false, "storage": false}]}}))
        .unwrap();
        assert_eq!((kind.versions.len(), kind.storage.as_str(), kind.status), (2, "v1", true));
        assert_eq!(kind.qualified(), "things.g.io");
        assert!(kind_of_definition(&json!({"spec": {"versions": []}})).unwrap_err().contains("storage version"));
    }
}
