//! Which Rollouts a change concerns.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::queue::Key;
use crate::{
    api::{
        keys,
        object::{self, ObjectRef},
        v1beta1::Rollout,
    },
    rollout::release,
    traffic::ingress,
    workload::canary::canary_name,
};

/// Kind (without version), namespace and name.
type Subject = (String, String, String);

/// Rollouts by the objects that their decisions read.
#[derive(Debug, Default)]
pub struct Interests {
    by_subject: BTreeMap<Subject, BTreeSet<Key>>,
    by_rollout: BTreeMap<Key, Vec<Subject>>,
}

impl Interests {
    /// All Rollouts that are known.
    pub fn all(&self) -> Vec<Key> {
        self.by_rollout.keys().cloned().collect()
    }

    /// Learns what a Rollout reads now.
    pub fn set(&mut self, key: &Key, rollout: &Rollout) {
        self.remove(key);
        let mut subjects = Vec::new();
        if let Ok(scope) = release::scope(rollout) {
            let namespace = &key.0;
            let mut add = |kind: &str, name: &str| subjects.push((kind.to_owned(), namespace.clone(), name.to_owned()));
            add(&scope.workload.kind, &scope.workload.name);
            add("Deployment", &canary_name(&scope.workload.name));
            if let Some(traffic) = &scope.traffic {
                add("Service", &traffic.names.stable_service);
                add("Service", &traffic.names.canary_service);
                for network in &traffic.networks {
                    add(&network.kind, &network.name);
                }
                if let Some(ingress) = &traffic.ingress {
                    add(ingress::KIND, &ingress.name);
                    add(ingress::KIND, &ingress::canary_name(&ingress.name));
                }
            }
        }
        for subject in &subjects {
            self.by_subject.entry(subject.clone()).or_default().insert(key.clone());
        }
        self.by_rollout.insert(key.clone(), subjects);
    }

    /// Forgets a Rollout.
    pub fn remove(&mut self, key: &Key) {
        for subject in self.by_rollout.remove(key).unwrap_or_default() {
            if let Some(keys) = self.by_subject.get_mut(&subject) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_subject.remove(&subject);
                }
            }
        }
    }

    /// The Rollouts for the same workload, a Rollout itself among them: a rival may come or go.
    pub fn rivals(&self, key: &Key) -> Vec<Key> {
        let workload = self.by_rollout.get(key).and_then(|subjects| subjects.first());
        workload.and_then(|w| self.by_subject.get(w)).into_iter().flatten().cloned().collect()
    }

    /// The Rollouts that a change of an object other than a Rollout concerns.
    pub fn of(&self, target: &ObjectRef, object: &Value) -> Vec<Key> {
        let namespace = target.namespace.as_str();
        let (kind, name) = match target.kind.as_str() {
            // Every Rollout may be the one that waits for a script, for a class, or for the hold.
            "ConfigMap" | ingress::CLASS_KIND | "MutatingAdmissionPolicy" | "MutatingAdmissionPolicyBinding" => {
                return self.all();
            }
            "ReplicaSet" => match owner(object) {
                Some(owner) => ("Deployment", owner),
                None => return Vec::new(),
            },
            "EndpointSlice" => match object::label(object, keys::SERVICE_NAME) {
                Some(service) => ("Service", service),
                None => return Vec::new(),
            },
            kind => (kind, target.name.as_str()),
        };
        let subject = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.by_subject.get(&subject).into_iter().flatten().cloned().collect()
    }
}

fn owner(object: &Value) -> Option<&str> {
    let owners = object::at(object, &["metadata", "ownerReferences"])?.as_array()?;
    owners.iter().find(|o| object::text(o, &["kind"]) == "Deployment").map(|o| object::text(o, &["name"]))
}
