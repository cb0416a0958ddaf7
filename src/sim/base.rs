//! Objects that many clusters begin with.

use std::sync::Arc;

use kube::core::Status;
use serde_json::Value;

use super::Cluster;
use super::builder::Options;
use super::core::{Caller, Core, State};
use super::json;
use super::registry::{self, Kind};
use super::store::Key;

/// Objects that are made once and shared by all clusters that begin with them: definitions of kinds, and objects of
/// built-in kinds without a namespace. Making the definitions takes longer than all the rest of a small cluster.
#[derive(Clone)]
pub struct Base {
    objects: Arc<[Made]>,
}

struct Made {
    kind: Arc<Kind>,
    object: Arc<Value>,
    /// What a definition defines.
    defined: Option<Kind>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("objects", &self.objects.len()).finish()
    }
}

impl Base {
    /// Makes the objects, as by a user.
    ///
    /// # Errors
    /// The API server's answer to the first object that it refused.
    pub fn new(objects: Vec<Value>) -> Result<Base, Box<Status>> {
        let cluster = Cluster { core: Arc::new(Core::new(Options::default(), Vec::new(), Vec::new())) };
        let made = objects.into_iter().map(|object| {
            let (version, name) = (json::text(&object, "/apiVersion"), json::text(&object, "/kind"));
            let kind = cluster.core.lock().store.registry.find_kind(version, name).cloned();
            let object = cluster.create(object)?;
            let of = (json::text(&object, "/spec/group"), json::text(&object, "/spec/names/plural"));
            let defined = cluster.core.lock().store.registry.find(of.0, of.1).map(|kind| Kind::clone(kind));
            Ok(kind.map(|kind| Made { defined: defined.filter(|_| kind.id == registry::DEFINITIONS), kind, object }))
        });
        let made: Result<Vec<Option<Made>>, Box<Status>> = made.collect();
        Ok(Base { objects: made?.into_iter().flatten().collect() })
    }

    /// Puts the objects into a cluster in which there is nothing yet: their versions are its first.
    pub(super) fn put_into(&self, core: &Core, state: &mut State) {
        for Made { kind, object, defined } in self.objects.iter() {
            // A cluster draws the same names and UIDs whether it has made them itself or not.
            let _ = state.store.rng.uuid();
            if let Some(kind) = defined {
                state.store.registry.add(kind.clone());
            }
            let caller = Caller::user(super::core::Verb::Create, &kind.storage);
            core.place(state, &caller, kind, Key::new(kind.id, "", json::name(object)), object.clone());
        }
    }
}
