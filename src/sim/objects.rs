//! Create, update and delete, with the bookkeeping that the API server does around each.

use std::sync::Arc;

use kube::core::Status;
use serde_json::{Value, json};

use super::admission::{AdmissionRequest, Operation};
use super::clock::rfc3339;
use super::core::{Caller, Core, State};
use super::json::{self, deleting, int, items, text};
use super::patch::managed;
use super::registry::{self, Generation, Kind, NAMESPACES, PODS};
use super::status::{self, FieldError};
use super::store::Key;
use super::{compact, crd, defaults, validate};

use self::checks::check_preconditions;
use self::versions::{bumps_generation, same_but_bookkeeping};

/// What a deletion asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub grace: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<String>,
}

/// What became of a deleted object.
pub(crate) enum Deleted {
    /// It is gone; its last state.
    Gone(Arc<Value>),
    /// It waits for finalizers or its grace period.
    Waiting(Arc<Value>),
}

mod checks;
mod definitions;
mod versions;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

impl Core {
    /// Creates an object. `object` is in the caller's version.
    pub fn create(
        &self,
        state: &mut State,
        caller: &Caller,
        kind: &Arc<Kind>,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Value>, Box<Status>> {
        self.name_type(caller, kind, &mut object);
        self.check_type(caller, kind, &object)?;
        if kind.namespaced {
            match json::namespace(&object) {
                "" => json::set(&mut object, &["metadata", "namespace"], namespace),
                other if other != namespace => {
                    return Err(status::bad_request(
                        "the namespace of the provided object does not match the namespace sent on the request",
                    ));
                }
                _ => {}
            }
        } else {
            json::remove(&mut object, &["metadata", "namespace"]);
        }
        if json::name(&object).is_empty() {
            match text(&object, "/metadata/generateName") {
                "" => {
                    let required = FieldError::required("metadata.name", "name or generateName is required");
                    return Err(status::invalid(kind, "", vec![required]));
                }
                prefix => {
                    let name = format!("{prefix}{}", state.store.rng.suffix(5));
                    json::set(&mut object, &["metadata", "name"], name);
                }
            }
        }
        let name = json::name(&object).to_owned();
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(status::failure(500, "", "resourceVersion should not be set on objects to be created"));
        }
        self.check_namespace(state, kind, namespace, &name)?;

        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            json::remove(&mut object, &["metadata", field]);
        }
        json::set(&mut object, &["metadata", "uid"], state.store.rng.uuid());
        json::set(&mut object, &["metadata", "creationTimestamp"], self.timestamp());
        if kind.generation != Generation::None {
            json::set(&mut object, &["metadata", "generation"], 1);
        }
        if kind.status && !caller.internal {
            json::remove(&mut object, &["status"]);
        }
        self.shape(kind, caller, &mut object, None);
        if !caller.internal {
            let admitted = self.admit(state, caller, kind, Operation::Create, &name, &object, None)?;
            if admitted.is_some() || !kind.custom {
                object = admitted.unwrap_or(object);
                self.shape(kind, caller, &mut object, None);
            }
        }
        self.validate(kind, caller, &object, None, Vec::new())?;
        let key = Key::new(kind.id, if kind.namespaced { namespace } else { "" }, &name);
        if let Some(there) = state.store.at(&key) {
            return Err(match text(&object, "/metadata/generateName") {
                "" => status::already_exists(kind, &name, deleting(there)),
                _ => status::not_unique(kind, &name),
            });
        }
        let is_tracked = !caller.internal && !self.options.tracks_from_first_apply;
        if is_tracked && managed_by_hand(&object).is_none() {
            managed::track(kind, caller, None, &mut object, &self.timestamp());
        }
        defaults::on_create(kind, &mut object);
        self.store_version(kind, caller, &mut object);
        if caller.dry_run {
            return Ok(Arc::new(object));
        }
        if kind.id == registry::DEFINITIONS {
            self.define(state, &mut object)?;
        }
        Ok(self.put(state, caller, kind, key, object))
    }

    /// Changes an object. `make` gets the stored object in the caller's version and gives the new one.
    /// The flag in its result says that managed fields are already worked out (server-side apply).
    pub fn update(
        &self,
        state: &mut State,
        caller: &Caller,
        kind: &Arc<Kind>,
        namespace: &str,
        name: &str,
        make: impl FnOnce(&Value) -> Result<(Value, bool), Box<Status>>,
    ) -> Result<Arc<Value>, Box<Status>> {
        let key = Key::new(kind.id, if kind.namespaced { namespace } else { "" }, name);
        let stored = state.store.at(&key).cloned().ok_or_else(|| status::not_found(kind, name))?;
        let viewed = self.view_version(kind, caller, &stored);
        let (mut new, fields_done) = make(&viewed)?;
        self.name_type(caller, kind, &mut new);
        self.check_type(caller, kind, &new)?;
        self.check_url(kind, namespace, name, &new)?;
        match text(&new, "/metadata/resourceVersion") {
            "" if kind.custom && caller.verb == super::core::Verb::Update => {
                let field = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
                return Err(status::invalid_as(&kind.plural, &kind.group, name, vec![field]));
            }
            "" => {}
            version if version != text(&viewed, "/metadata/resourceVersion") => {
                return Err(status::modified(kind, name));
            }
            _ => {}
        }
        let mut errors = Vec::new();
        match json::uid(&new) {
            "" => {}
            uid if uid == json::uid(&viewed) => {}
            uid if caller.verb == super::core::Verb::Update => {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    json::uid(&viewed)
                );
                return Err(status::conflict(kind, name, &why));
            }
            _ if kind.custom && caller.subresource == Some("status") => {}
            uid => errors.push(FieldError::invalid("metadata.uid", format!("\"{uid}\""), "field is immutable")),
        }

        if !caller.internal && managed_by_hand(&new).is_none() {
            json::restore(&mut new, &viewed, &["metadata", "managedFields"]);
        }
        if !caller.internal {
            self.keep_outside(kind, caller, &mut new, &viewed);
            self.shape(kind, caller, &mut new, Some(&viewed));
            defaults::on_update(kind, &mut new, &viewed);
            let admitted = self.admit(state, caller, kind, Operation::Update, name, &new, Some(&viewed))?;
            if admitted.is_some() || !kind.custom {
                new = admitted.unwrap_or(new);
                self.keep_outside(kind, caller, &mut new, &viewed);
                self.shape(kind, caller, &mut new, Some(&viewed));
            }
        }
        if deleting(&viewed) {
            let old = items(&viewed, "/metadata/finalizers");
            let added: Vec<String> = items(&new, "/metadata/finalizers")
                .iter()
                .filter(|f| !old.contains(f))
                .map(|f| format!("\"{}\"", f.as_str().unwrap_or_default()))
                .collect();
            if !added.is_empty() {
                let why = format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                );
                // Custom resources are checked twice, and both say so.
                let times = if kind.custom { 2 } else { 1 };
                let errors = vec![FieldError::forbidden("metadata.finalizers", &why); times];
                return Err(status::invalid(kind, name, errors));
            }
        }
        self.validate(kind, caller, &new, Some(&viewed), errors)?;

        let same = same_but_bookkeeping(&new, &viewed);
        if same && !(fields_done && managed::changed(&new, &viewed)) {
            return Ok(stored);
        }
        if !same && bumps_generation(kind, &new, &viewed) {
            let generation = int(&viewed, "/metadata/generation").unwrap_or(0) + 1;
            json::set(&mut new, &["metadata", "generation"], generation);
        }
        if !caller.internal && !fields_done {
            managed::track(kind, caller, Some(&viewed), &mut new, &self.timestamp());
        }
        self.store_version(kind, caller, &mut new);
        let held = !items(&new, "/metadata/finalizers").is_empty()
            || int(&new, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) > 0
            || (kind.id == NAMESPACES && !items(&new, "/spec/finalizers").is_empty());
        let gone = deleting(&new) && !held;
        if caller.dry_run {
            return Ok(Arc::new(new));
        }
        if kind.id == registry::DEFINITIONS && !gone {
            self.define(state, &mut new)?;
        }
        if gone {
            self.remove(state, caller, kind, key);
            self.undefine(state, kind, &new);
            return Ok(Arc::new(new));
        }
        Ok(self.put(state, caller, kind, key, new))
    }

    /// Deletes an object, or marks it for deletion.
    pub fn delete(
        &self,
        state: &mut State,
        caller: &Caller,
        kind: &Arc<Kind>,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Box<Status>> {
        let key = Key::new(kind.id, if kind.namespaced { namespace } else { "" }, name);
        let stored = state.store.at(&key).cloned().ok_or_else(|| status::not_found(kind, name))?;
        check_preconditions(kind, name, &stored, options)?;
        if !caller.internal {
            let viewed = self.view_version(kind, caller, &stored);
            self.admit(state, caller, kind, Operation::Delete, name, &Value::Null, Some(&viewed))?;
        }
        let mut new = Value::clone(&stored);
        let finalizers = json::object_mut(&mut new, &["metadata"]).entry("finalizers").or_insert(json!([]));
        if let Value::Array(list) = finalizers {
            let wanted = match options.propagation.as_deref() {
                Some("Orphan") => Some(ORPHAN),
                Some("Foreground") => Some(FOREGROUND),
                _ => None,
            };
            if options.propagation.is_some() {
                list.retain(|f| f != ORPHAN && f != FOREGROUND);
            }
            if let Some(finalizer) = wanted {
                list.push(finalizer.into());
            }
            if list.is_empty() {
                json::remove(&mut new, &["metadata", "finalizers"]);
            }
        }
        let grace = grace_period(kind, &stored, options);
        let waits = !items(&new, "/metadata/finalizers").is_empty()
            || grace > 0
            || (kind.id == NAMESPACES && !items(&new, "/spec/finalizers").is_empty());
        if !waits {
            if caller.dry_run {
                return Ok(Deleted::Gone(stored));
            }
            // A pod that goes at once is marked first all the same.
            if kind.id == PODS && !caller.internal {
                let mut marked = new;
                json::default(&mut marked, &["metadata", "deletionTimestamp"], self.timestamp());
                json::set(&mut marked, &["metadata", "deletionGracePeriodSeconds"], 0);
                if !deleting(&stored) {
                    let generation = int(&marked, "/metadata/generation").unwrap_or(0) + 1;
                    json::set(&mut marked, &["metadata", "generation"], generation);
                }
                let marked = self.put(state, caller, kind, key.clone(), marked);
                let last = self.remove(state, caller, kind, key).unwrap_or(marked);
                return Ok(Deleted::Gone(last));
            }
            let last = self.remove(state, caller, kind, key).unwrap_or_else(|| stored.clone());
            self.undefine(state, kind, &stored);
            return Ok(Deleted::Gone(last));
        }
        if deleting(&stored) {
            let left = int(&stored, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
            if grace >= left && new == *stored {
                return Ok(Deleted::Waiting(stored));
            }
            json::set(&mut new, &["metadata", "deletionGracePeriodSeconds"], grace.min(left));
        } else {
            let seconds = jiff::SignedDuration::from_secs(grace);
            let until = self.clock.now().saturating_add(seconds).map_or_else(|_| self.timestamp(), rfc3339);
            json::set(&mut new, &["metadata", "deletionTimestamp"], until);
            json::set(&mut new, &["metadata", "deletionGracePeriodSeconds"], grace);
            if let Some(generation) = int(&new, "/metadata/generation") {
                json::set(&mut new, &["metadata", "generation"], generation + 1);
            }
            if kind.id == NAMESPACES {
                json::set(&mut new, &["status", "phase"], "Terminating");
            }
        }
        if caller.dry_run {
            return Ok(Deleted::Waiting(Arc::new(new)));
        }
        Ok(Deleted::Waiting(self.put(state, caller, kind, key, new)))
    }

    /// What admission makes of a write; `None` leaves it as it is.
    #[allow(clippy::too_many_arguments)]
    fn admit(
        &self,
        state: &State,
        caller: &Caller,
        kind: &Kind,
        operation: Operation,
        name: &str,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Value>, Box<Status>> {
        if state.mutators.is_empty() {
            return Ok(None);
        }
        let gvr = kind.gvr(&caller.version);
        let namespace = json::namespace(old.unwrap_or(object)).to_owned();
        let mut admitted = None;
        for mutator in state.mutators.iter() {
            let changed = mutator(&AdmissionRequest {
                operation,
                gvr: &gvr,
                namespace: &namespace,
                name,
                object: admitted.as_ref().unwrap_or(object),
                old_object: old,
                subresource: caller.subresource,
                dry_run: caller.dry_run,
            })?;
            admitted = changed.or(admitted);
        }
        Ok(admitted)
    }
}

impl Caller {
    /// Whoever sets a cluster up.
    pub fn user(verb: super::core::Verb, version: &str) -> Self {
        Self { verb, internal: false, ..Self::controller("user", version) }
    }

    /// A built-in controller.
    pub fn controller(name: &str, version: &str) -> Self {
        Self {
            identity: Arc::from(name),
            verb: super::core::Verb::Update,
            version: version.to_owned(),
            subresource: None,
            manager: name.to_owned(),
            dry_run: false,
            internal: true,
        }
    }
}

fn managed_by_hand(object: &Value) -> Option<&Vec<Value>> {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).filter(|m| !m.is_empty())
}

fn grace_period(kind: &Kind, stored: &Value, options: &DeleteOptions) -> i64 {
    if kind.id != PODS {
        return 0;
    }
    let ended = matches!(text(stored, "/status/phase"), "Succeeded" | "Failed");
    if ended || text(stored, "/spec/nodeName").is_empty() {
        return 0;
    }
    options.grace.or_else(|| int(stored, "/spec/terminationGracePeriodSeconds")).unwrap_or(30).max(0)
}
