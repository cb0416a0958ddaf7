//! Which Rollouts a change concerns, and which kinds none of them names any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::queue::Key;
use crate::{
    api::{
        keys,
        object::{self, ObjectRef},
        v1alpha1::TrafficRouting,
        v1beta1::Rollout,
    },
    gather::collect::{METRIC_TEMPLATE, NODE, named_cron_jobs, named_templates},
    rollout::{
        is_releasing,
        jobs::{CRON_JOB, JOB},
        release::{self, Traffic},
    },
    traffic::ingress,
    workload::canary::canary_name,
};

/// Kind (without version), namespace and name.
type Subject = (String, String, String);

/// API version and kind.
type Kind = (String, String);

/// Rollouts by the objects that their decisions read. Each name is in memory once: there are thousands.
#[derive(Debug, Default)]
pub struct Interests {
    /// In the order of keys; mostly one.
    by_subject: BTreeMap<Arc<Subject>, Vec<Arc<Key>>>,
    by_rollout: BTreeMap<Arc<Key>, Vec<Arc<Subject>>>,
    /// What Rollouts name, or need because of it, and how many of them do.
    by_kind: BTreeMap<Kind, usize>,
    kinds: BTreeMap<Arc<Key>, Arc<BTreeSet<Kind>>>,
    /// Every set of kinds that some Rollout has: they are few.
    sets: BTreeSet<Arc<BTreeSet<Kind>>>,
    /// What was taken out of `by_kind` since somebody asked.
    unnamed: BTreeSet<Kind>,
}

impl Interests {
    /// All Rollouts that are known.
    pub fn all(&self) -> Vec<Key> {
        self.by_rollout.keys().map(|key| Key::clone(key)).collect()
    }

    /// Learns what a Rollout reads now.
    pub fn set(&mut self, key: &Key, rollout: &Rollout) {
        self.remove(key);
        self.put_kinds(key, kinds_of(rollout));
        let mut subjects = Vec::new();
        if let Ok(scope) = release::scope(rollout) {
            let namespace = &key.0;
            let mut add = |kind: &str, name: &str| subjects.push((kind.to_owned(), namespace.clone(), name.to_owned()));
            add(&scope.workload.kind, &scope.workload.name);
            add("Deployment", &canary_name(&scope.workload.name));
            if let Some(traffic) = &scope.traffic {
                subjects_of(traffic).iter().for_each(|(kind, name)| add(kind, name));
            }
            if let Some(name) = &scope.shared {
                add("TrafficRouting", name);
            }
            for name in named_cron_jobs(rollout) {
                add(CRON_JOB.1, name);
            }
            for name in named_templates(rollout) {
                subjects.push((METRIC_TEMPLATE.1.to_owned(), String::new(), name.to_owned()));
            }
        }
        self.put(key, subjects);
    }

    /// Learns what a TrafficRouting reads now.
    pub fn set_routing(&mut self, key: &Key, routing: &TrafficRouting) {
        self.remove(key);
        let traffic = release::routing_traffic(routing).ok();
        self.put_kinds(key, traffic.iter().flat_map(kinds_of_traffic).collect());
        let subjects = traffic.iter().flat_map(subjects_of).map(|(kind, name)| (kind, key.0.clone(), name)).collect();
        self.put(key, subjects);
    }

    fn put(&mut self, key: &Key, subjects: Vec<Subject>) {
        let key = self.shared(key);
        let mut known: Vec<Arc<Subject>> = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let found = self.by_subject.get_key_value(&subject).map(|(subject, _)| subject.clone());
            let subject = found.unwrap_or_else(|| Arc::new(subject));
            let keys = self.by_subject.entry(subject.clone()).or_insert_with(|| Vec::with_capacity(1));
            if let Err(place) = keys.binary_search(&key) {
                keys.insert(place, key.clone());
            }
            known.push(subject);
        }
        self.by_rollout.insert(key, known);
    }

    /// The key as it is known already.
    fn shared(&self, key: &Key) -> Arc<Key> {
        let known = self.kinds.get_key_value(key).map(|(known, _)| known.clone());
        known.unwrap_or_else(|| Arc::new(key.clone()))
    }

    fn put_kinds(&mut self, key: &Key, kinds: BTreeSet<Kind>) {
        for kind in &kinds {
            *self.by_kind.entry(kind.clone()).or_default() += 1;
        }
        let kinds = self.sets.get(&kinds).cloned().unwrap_or_else(|| Arc::new(kinds));
        self.sets.insert(kinds.clone());
        self.kinds.insert(Arc::new(key.clone()), kinds);
    }

    /// Somebody names a kind, or needs it.
    pub fn names(&self, kind: &Kind) -> bool {
        self.by_kind.contains_key(kind)
    }

    /// Kinds that were named and no longer are, since the last call.
    pub fn take_unnamed(&mut self) -> Vec<Kind> {
        let unnamed = std::mem::take(&mut self.unnamed);
        unnamed.into_iter().filter(|kind| !self.names(kind)).collect()
    }

    /// Those of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Key> {
        self.by_rollout.keys().filter(|key| key.0 == namespace).map(|key| Key::clone(key)).collect()
    }

    /// Forgets a Rollout.
    pub fn remove(&mut self, key: &Key) {
        for kind in self.kinds.remove(key).unwrap_or_default().iter() {
            match self.by_kind.get_mut(kind) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.by_kind.remove(kind);
                    self.unnamed.insert(kind.clone());
                }
            }
        }
        for subject in self.by_rollout.remove(key).unwrap_or_default() {
            if let Some(keys) = self.by_subject.get_mut(&subject) {
                keys.retain(|other| **other != *key);
                if keys.is_empty() {
                    self.by_subject.remove(&subject);
                }
            }
        }
    }

    /// The Rollouts for the same workload, a Rollout itself among them: a rival may come or go.
    pub fn rivals(&self, key: &Key) -> Vec<Key> {
        let workload = self.by_rollout.get(key).and_then(|subjects| subjects.first());
        let keys = workload.and_then(|w| self.by_subject.get(w));
        keys.into_iter().flatten().map(|key| Key::clone(key)).collect()
    }

    /// The Rollouts that a change of an object other than a Rollout concerns. `home` is the controller's namespace.
    pub fn of(&self, target: &ObjectRef, object: &Value, home: &str) -> Vec<Key> {
        let namespace = target.namespace.as_str();
        let (kind, name) = match target.kind.as_str() {
            // Scripts for its own namespace alone.
            "ConfigMap" if namespace != home => return self.in_namespace(namespace),
            // Every Rollout may be the one that waits for a script, for a class, or for the hold.
            "ConfigMap"
            | ingress::CLASS_KIND
            | "MutatingAdmissionPolicy"
            | "MutatingAdmissionPolicyBinding"
            | "MutatingWebhookConfiguration" => {
                return self.all();
            }
            kind if kind == JOB.1 => match owner(object) {
                Some((_, rollout)) => return vec![(namespace.to_owned(), rollout.to_owned())],
                None => return Vec::new(),
            },
            "ReplicaSet" | "ControllerRevision" => match owner(object) {
                Some(owner) => owner,
                None => return Vec::new(),
            },
            "EndpointSlice" => match object::label(object, keys::SERVICE_NAME) {
                Some(service) => ("Service", service),
                None => return Vec::new(),
            },
            kind => (kind, target.name.as_str()),
        };
        // One of the controller's namespace is for all.
        let namespace = if kind == METRIC_TEMPLATE.1 { "" } else { namespace };
        let subject = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.by_subject.get(&subject).into_iter().flatten().map(|key| Key::clone(key)).collect()
    }
}

/// The kinds that are read for a Rollout because of what it names.
fn kinds_of(rollout: &Rollout) -> BTreeSet<Kind> {
    let of = |api_version: &str, kind: &str| (api_version.to_owned(), kind.to_owned());
    let former = rollout.status.as_ref().and_then(|status| status.workload_ref.as_ref());
    let mut kinds: BTreeSet<Kind> = former.iter().map(|former| of(&former.api_version, &former.kind)).collect();
    if let Ok(scope) = release::scope(rollout).or_else(|_| release::bare_scope(rollout)) {
        let (api_version, kind) = scope.kind.revisions;
        kinds.extend([of(&scope.workload.api_version, &scope.workload.kind), of(api_version, kind)]);
        kinds.extend((scope.kind.reads_nodes && is_releasing(rollout)).then(|| of(NODE.0, NODE.1)));
        kinds.extend(scope.traffic.iter().flat_map(kinds_of_traffic));
    }
    kinds
}

fn kinds_of_traffic(traffic: &Traffic) -> Vec<Kind> {
    let networks = traffic.networks.iter().map(|network| (network.api_version.clone(), network.kind.clone()));
    let ingress = traffic.ingress.iter().map(|_| (ingress::API_VERSION.to_owned(), ingress::KIND.to_owned()));
    networks.chain(ingress).collect()
}

/// Kind and name of everything that routing reads.
fn subjects_of(traffic: &Traffic) -> Vec<(String, String)> {
    let of = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    let mut subjects = vec![of("Service", &traffic.names.stable_service), of("Service", &traffic.names.canary_service)];
    subjects.extend(traffic.networks.iter().map(|network| of(&network.kind, &network.name)));
    if let Some(ingress) = &traffic.ingress {
        subjects.push(of(ingress::KIND, &ingress.name));
        subjects.push(of(ingress::KIND, &ingress::canary_name(&ingress.name)));
    }
    subjects
}

/// Kind and name of the owner that controls an object.
fn owner(object: &Value) -> Option<(&str, &str)> {
    let owners = object::at(object, &["metadata", "ownerReferences"])?.as_array()?;
    let owner = owners.iter().find(|o| o.get("controller").and_then(Value::as_bool) == Some(true))?;
    Some((object::text(owner, &["kind"]), object::text(owner, &["name"])))
}
