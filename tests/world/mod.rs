//! A list of objects that stands in for the cluster: writes as a plan asks for them, and the least of what Kubernetes
//! does by itself, one small move a tick. No clock, no threads, no randomness.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

pub mod controllers;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::{
    analysis::{Answer, Sample},
    api::{
        keys,
        object::{self, ObjectRef},
        v1beta1::{Rollout, RolloutStatus},
    },
    gather::collect::{Lookup, Objects, Settings, collect},
    lua::Engine,
    rollout::{
        Effect, Plan, Snapshot,
        calls::{Call, Outcome, Reply},
        decide,
    },
    traffic::routes::{Change, Missing, RouteWrite},
    workload::{self, hold::rules},
};

/// Group, kind, namespace, name: versions of a kind are one object, as on an API server.
pub type Key = (String, String, String, String);

#[derive(Clone, Debug, Default)]
pub struct World {
    pub objects: BTreeMap<Key, Arc<Value>>,
    pub missing: Vec<(String, String, Missing)>,
    /// Group and kind that are still being read.
    pub pending: Vec<(String, String)>,
    /// Releases that are recorded.
    pub history_limit: Option<usize>,
    pub max_in_flight: Option<usize>,
    /// What metrics servers answered.
    pub samples: BTreeMap<String, Sample>,
    /// What hooks and receivers of notifications said.
    pub replies: BTreeMap<String, Reply>,
    /// No webhook says who approves.
    pub is_anonymous: bool,
    version: i64,
}

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The object changed since it was read, or is gone.
    Conflict(String),
    /// The API server would not take it.
    Invalid(String),
}

pub fn key(object: &Value) -> Key {
    let group = object::group(object::text(object, &["apiVersion"]));
    let kind = object::text(object, &["kind"]);
    (group.into(), kind.into(), object::namespace(object).into(), object::name(object).into())
}

pub fn key_of(target: &ObjectRef) -> Key {
    (target.group().into(), target.kind.clone(), target.namespace.clone(), target.name.clone())
}

pub fn settings() -> Settings {
    Settings {
        script_namespace: "tidegate-system".into(),
        config_map_wins: false,
        namespace_scripts: false,
        history_limit: None,
        max_in_flight: None,
        names_people: true,
    }
}

impl World {
    /// Puts an object in as its author wrote it, with what an API server adds.
    pub fn create(&mut self, mut object: Value) {
        if object["kind"] == "Rollout" {
            object["apiVersion"] = json!("rollouts.kruise.io/v1beta1");
        }
        let cluster_scoped = object["kind"].as_str().is_some_and(|k| k.starts_with("Mutating"));
        self.version += 1;
        let key = {
            let meta = object.as_object_mut().unwrap().entry("metadata").or_insert(json!({})).as_object_mut().unwrap();
            if !cluster_scoped {
                meta.entry("namespace").or_insert(json!("demo"));
            }
            let uid = format!("uid-{}", self.version);
            meta.entry("uid").or_insert(json!(uid));
            meta.entry("resourceVersion").or_insert(json!(self.version.to_string()));
            meta.entry("generation").or_insert(json!(1));
            meta.entry("creationTimestamp").or_insert(json!("2026-11-22T05:00:00Z"));
            key(&object)
        };
        self.objects.insert(key, Arc::new(object));
    }

    pub fn get(&self, group: &str, kind: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects
            .iter()
            .find(|((g, k, _, n), _)| (g.as_str(), k.as_str(), n.as_str()) == (group, kind, name))
            .map(|(_, v)| v)
    }

    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Arc<Value>> {
        self.objects.iter().filter(move |((_, k, _, _), _)| k == kind).map(|(_, v)| v)
    }

    /// The only Rollout, or the first by name.
    pub fn rollout(&self) -> Option<Rollout> {
        self.of_kind("Rollout")
            .next()
            .map(|r| serde_json::from_value((**r).clone()).expect("a Rollout that the API server took"))
    }

    pub fn snapshot(&self, now: Timestamp, engine: &Engine) -> Option<Snapshot> {
        let settings = Settings {
            max_in_flight: self.max_in_flight,
            history_limit: self.history_limit,
            names_people: !self.is_anonymous,
            ..settings()
        };
        collect(self, self.rollout()?, now, engine, &settings)
    }

    pub fn decide(&self, now: Timestamp, engine: &Engine) -> Option<Plan> {
        self.snapshot(now, engine).map(|s| decide(&s))
    }

    /// Every question that is open at a moment, and has an answer, is answered then.
    pub fn answer(&mut self, at: Timestamp, answer: impl Fn(&str) -> Option<Answer>, engine: &Engine) {
        let asks = self.decide(at, engine).map(|plan| plan.asks).unwrap_or_default();
        self.samples
            .extend(asks.into_iter().filter_map(|ask| Some((ask.id, Sample { at, answer: answer(&ask.query)? }))));
    }

    /// Every request that is due at a moment, and is answered, is answered then.
    pub fn reply(&mut self, at: Timestamp, outcome: impl Fn(&Call) -> Option<Outcome>, engine: &Engine) {
        let calls = self.decide(at, engine).map(|plan| plan.calls).unwrap_or_default();
        let due = calls.into_iter().filter(|call| call.due <= at);
        let replies = due.filter_map(|call| Some((call.id.clone(), Reply { at, outcome: outcome(&call)? })));
        self.replies.extend(replies.collect::<Vec<_>>());
    }

    fn holds(&self) -> bool {
        ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"].iter().all(|k| self.of_kind(k).next().is_some())
    }

    /// Stores a new state of an object as a writer of `spec` and `metadata` would, with the hold.
    pub fn update(&mut self, mut new: Value) {
        let key = key(&new);
        let Some(old) = self.objects.get(&key).cloned() else { panic!("no {key:?}") };
        let api_version = object::text(&new, &["apiVersion"]);
        let kind = workload::kind(object::group(api_version), object::text(&new, &["kind"]));
        if let Some(rule) = kind.and_then(|kind| kind.hold(api_version))
            && self.holds()
            && let Some(held) = rule.hold(&old, &new)
        {
            new = held;
        }
        if *old == new {
            return;
        }
        self.version += 1;
        new["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if old.get("spec") != new.get("spec") {
            new["metadata"]["generation"] = json!(object::int(&old, &["metadata", "generation"]).unwrap_or(0) + 1);
        }
        let finalizers = object::at(&new, &["metadata", "finalizers"]).and_then(Value::as_array);
        if object::is_deleting(&new) && finalizers.is_none_or(Vec::is_empty) {
            self.remove(&key);
        } else {
            self.objects.insert(key, Arc::new(new));
        }
    }

    /// A person's or another tool's edit.
    pub fn edit(&mut self, kind: &str, name: &str, edit: impl FnOnce(&mut Value)) -> bool {
        let Some(object) = self.of_kind(kind).find(|o| object::name(o) == name) else { return false };
        let mut new = (**object).clone();
        edit(&mut new);
        self.update(new);
        true
    }

    /// Stores status without the hold and without a new generation.
    pub fn set_status(&mut self, key: &Key, status: Value) {
        let Some(object) = self.objects.get(key) else { return };
        if object.get("status") == Some(&status) {
            return;
        }
        let mut new = (**object).clone();
        new["status"] = status;
        self.version += 1;
        new["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key.clone(), Arc::new(new));
    }

    pub fn request_deletion(&mut self, key: &Key, now: Timestamp) {
        let Some(object) = self.objects.get(key) else { return };
        let finalizers = object::at(object, &["metadata", "finalizers"]).and_then(Value::as_array);
        if finalizers.is_none_or(Vec::is_empty) {
            return self.remove(key);
        }
        if !object::is_deleting(object) {
            let mut new = (**object).clone();
            new["metadata"]["deletionTimestamp"] = json!(now.to_string());
            self.update(new);
        }
    }

    /// The object goes, and what it controls.
    fn remove(&mut self, key: &Key) {
        let Some(gone) = self.objects.remove(key) else { return };
        let uid = object::uid(&gone).to_owned();
        let owned: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, o)| object::controller_uid(o) == Some(&uid))
            .map(|(k, _)| k.clone())
            .collect();
        owned.iter().for_each(|k| self.remove(k));
    }

    /// The single writes of an effect, in order. The first is preceded by a dry run of all, also of those that follow later.
    pub fn writes(effect: &Effect) -> Vec<Effect> {
        match effect {
            Effect::Routes { purpose, writes, .. } => writes
                .iter()
                .map(|w| match w.change.clone() {
                    Change::Patch { resource_version, operations } => {
                        Effect::Patch { purpose: *purpose, target: w.target.clone(), resource_version, operations }
                    }
                    Change::Apply { object } => Effect::Apply { purpose: *purpose, object },
                    Change::Delete { uid } => {
                        Effect::Delete { purpose: *purpose, target: w.target.clone(), uid, foreground: false }
                    }
                })
                .collect(),
            other => vec![other.clone()],
        }
    }

    /// Executes one single write.
    pub fn write(&mut self, effect: &Effect, now: Timestamp) -> Result<(), Refused> {
        match effect {
            Effect::Patch { target, resource_version, operations, .. } => {
                let new = self.patched(target, resource_version, operations)?;
                self.update(new);
            }
            Effect::Apply { object, .. } => {
                let key = key(object);
                match self.objects.get(&key) {
                    None => {
                        let mut object = object.clone();
                        object["metadata"]["creationTimestamp"] = json!(now.to_string());
                        self.create(object);
                    }
                    Some(old) => {
                        let mut new = (**old).clone();
                        overlay(&mut new, object);
                        self.update(new);
                    }
                }
            }
            Effect::Delete { target, uid, .. } => {
                let key = key_of(target);
                match self.objects.get(&key) {
                    None => {}
                    Some(object) if object::uid(object) != uid => {
                        return Err(Refused::Conflict(format!("{target} is another object")));
                    }
                    Some(_) => self.request_deletion(&key, now),
                }
            }
            Effect::Routes { writes, tried, .. } => {
                for w in writes.iter().chain(tried) {
                    self.dry_run(w)?;
                }
                for single in World::writes(effect) {
                    self.write(&single, now)?;
                }
            }
        }
        Ok(())
    }

    /// What a dry run tells of a change of an object that routes.
    pub fn dry_run(&self, write: &RouteWrite) -> Result<Option<Value>, Refused> {
        match &write.change {
            Change::Patch { resource_version, operations } => {
                self.patched(&write.target, resource_version, operations).map(Some)
            }
            Change::Apply { object } => Ok(Some(object.clone())),
            Change::Delete { .. } => Ok(None),
        }
    }

    /// What a patch makes of an object: also what a dry run tells.
    pub fn patched(&self, target: &ObjectRef, version: &str, operations: &[Value]) -> Result<Value, Refused> {
        let object =
            self.objects.get(&key_of(target)).ok_or_else(|| Refused::Conflict(format!("{target} does not exist")))?;
        if object::resource_version(object) != version {
            return Err(Refused::Conflict(format!("{target} changed")));
        }
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        let mut new = (**object).clone();
        json_patch::patch(&mut new, &patch).map_err(|e| Refused::Invalid(format!("{target}: {e}")))?;
        Ok(new)
    }

    /// Stores a status unless the Rollout changed since it was read.
    pub fn store_status(&mut self, read: &Rollout, version: &str, status: &RolloutStatus) -> Result<(), Refused> {
        let key = (
            "rollouts.kruise.io".into(),
            "Rollout".into(),
            read.metadata.namespace.clone().unwrap(),
            read.metadata.name.clone().unwrap(),
        );
        let Some(object) = self.objects.get(&key) else { return Ok(()) };
        if object::resource_version(object) != version {
            return Err(Refused::Conflict("Rollout changed".into()));
        }
        self.set_status(&key, serde_json::to_value(status).unwrap());
        Ok(())
    }

    /// One pass of the controller: decide, write, store the status.
    pub fn reconcile(&mut self, now: Timestamp, engine: &Engine) -> Option<Plan> {
        let rollout = self.rollout()?;
        let plan = self.decide(now, engine)?;
        for effect in &plan.effects {
            if self.write(effect, now).is_err() {
                return Some(plan);
            }
        }
        // Our own writes to the Rollout are known.
        let version = self.rollout()?.metadata.resource_version.unwrap();
        let _ = self.store_status(&rollout, &version, &plan.status);
        Some(plan)
    }
}

/// Server-side apply, as far as it goes here: maps are merged, everything else replaced.
fn overlay(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                overlay(old.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new.clone(),
    }
}

impl Objects for World {
    fn get(&self, target: &ObjectRef) -> Result<Arc<Value>, Lookup> {
        let kind = (target.group(), target.kind.as_str());
        if self.pending.iter().any(|(g, k)| (g.as_str(), k.as_str()) == kind) {
            return Err(Lookup::Pending);
        }
        if let Some((_, _, why)) = self.missing.iter().find(|(g, k, _)| (g.as_str(), k.as_str()) == kind) {
            return Err(Lookup::Missing(why.clone()));
        }
        self.objects.get(&key_of(target)).cloned().ok_or(Lookup::Missing(Missing::Object))
    }

    fn pods(&self, (namespace, _): &(String, String), _selector: &str) -> Option<Vec<Arc<Value>>> {
        self.list("v1", "Pod", namespace)
    }

    fn samples(&self, _: &(String, String)) -> BTreeMap<String, Sample> {
        self.samples.clone()
    }

    fn replies(&self, _: &(String, String)) -> BTreeMap<String, Reply> {
        self.replies.clone()
    }

    fn list_all(&self, api_version: &str, kind: &str) -> Option<Vec<Arc<Value>>> {
        let wanted = (object::group(api_version), kind);
        let objects = self.objects.iter().filter(|((g, k, ..), _)| (g.as_str(), k.as_str()) == wanted);
        Some(objects.map(|(_, o)| o.clone()).collect())
    }

    fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Option<Vec<Arc<Value>>> {
        let wanted = (object::group(api_version), kind, namespace);
        let objects = self.objects.iter().filter(|((g, k, ns, _), _)| (g.as_str(), k.as_str(), ns.as_str()) == wanted);
        Some(objects.map(|(_, o)| o.clone()).collect())
    }
}

/// The policy and its binding, as far as the decision looks at them.
pub fn policy() -> Vec<Value> {
    let kinds = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"];
    let policy =
        |kind, name| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
    rules().flat_map(|rule| kinds.map(|kind| policy(kind, rule.policy))).collect()
}

/// The mark of a captured release on a Deployment.
pub fn mark(deployment: &Value) -> Option<&str> {
    object::annotation(deployment, keys::IN_PROGRESSING)
}
