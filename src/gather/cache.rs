//! Watch caches of raw objects, one a kind, started when the kind is first asked for and stopped when nobody names it any
//! more.
//!
//! The result of every write of ours is put in as well, and an older version never replaces a newer one: a decision is
//! never made from a state before our own last write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Client, api::ApiResource};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    collect::{BASE_KINDS, Lookup, Objects},
    desk::{Answerer, Clock, Desk},
    measures::{Means, Measures, measures},
    pods::{self, Pods},
    shelf::{Name, Shelf, name_of},
    watches::{Namespaces, Place, is_in},
};
use crate::{
    analysis::{Sample, ask::Ask},
    api::object::{self, ObjectRef},
    rollout::calls::{Call, Reply},
    traffic::routes::Missing,
};

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One object was added, changed or deleted; the last state that was seen.
    Object(ObjectRef, Arc<Value>),
    /// A kind was read for the first time, or its absence became known.
    Kind(String, String),
    /// Pods of the release of a Rollout; its namespace and name.
    Pods(pods::Key),
    /// Somebody has answered a question about the release of a Rollout; its namespace and name.
    Answered(pods::Key),
    /// The same, and others are being asked as well.
    AnsweredInPart(pods::Key),
}

pub(super) type Kind = (String, String);

/// Watch caches. Cloning shares them.
#[derive(Clone)]
pub struct Cache {
    pub(super) client: Client,
    pub(super) namespaces: Namespaces,
    shelves: Arc<Mutex<BTreeMap<Kind, Shelf>>>,
    changes: mpsc::UnboundedSender<Change>,
    stop: CancellationToken,
    tasks: TaskTracker,
    pods: Pods,
    measures: Option<Measures>,
    calls: Option<Desk<Call>>,
}

impl Cache {
    /// Starts watching the kinds that are always needed. Changes arrive at the receiver until `stop`.
    pub fn start(
        client: Client,
        namespaces: Namespaces,
        stop: CancellationToken,
    ) -> (Cache, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let tasks = TaskTracker::new();
        let cache = Cache {
            pods: Pods::new(client.clone(), changes.clone(), stop.clone(), tasks.clone()),
            client,
            namespaces,
            shelves: Arc::default(),
            changes,
            stop,
            tasks,
            measures: None,
            calls: None,
        };
        for (api_version, kind) in BASE_KINDS {
            cache.ensure(api_version, kind);
        }
        (cache, receiver)
    }

    /// With questions to metrics servers.
    pub fn measuring(self, means: Means) -> Cache {
        let measures = measures(means, self.changes.clone(), self.stop.clone(), self.tasks.clone());
        Cache { measures: Some(measures), ..self }
    }

    /// What is to be asked of metrics servers about the release of a Rollout; nothing else any more.
    pub fn want(&self, rollout: &pods::Key, asks: Vec<Ask>) {
        if let Some(measures) = &self.measures {
            measures.want(rollout, asks);
        }
    }

    /// With requests to servers of the user's.
    pub fn calling(self, caller: Box<dyn Answerer<Call>>, clock: Clock) -> Cache {
        let calls = Desk::new(caller, clock, self.changes.clone(), self.stop.clone(), self.tasks.clone());
        Cache { calls: Some(calls), ..self }
    }

    /// What is to be sent for a Rollout to servers of the user's; nothing else any more.
    pub fn call(&self, rollout: &pods::Key, calls: Vec<Call>) {
        if let Some(desk) = &self.calls {
            desk.want(rollout, calls);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps the caches from being used; the hold is not needed for that.
    pub fn problem(&self) -> Option<String> {
        let shelves = self.lock();
        BASE_KINDS.iter().find_map(|(version, kind)| {
            let shelf = shelves.get(&((*version).to_owned(), (*kind).to_owned()));
            match shelf {
                Some(shelf) if shelf.is_synced => match &shelf.missing {
                    // Only who uses one needs it.
                    _ if *kind == "TrafficRouting" || kind.starts_with("MutatingAdmissionPolicy") => None,
                    Some(Missing::Kind) => {
                        Some(format!("{version} {kind} is not served; install it: `tidegate crd | kubectl apply -f -`"))
                    }
                    Some(Missing::Forbidden(why)) => {
                        Some(format!("{version} {kind} may not be read: {why}; grant it: `tidegate rbac`"))
                    }
                    Some(Missing::Object) | None => None,
                },
                _ => Some(format!("still reading {version} {kind}")),
            }
        })
    }

    /// Starts watching a kind unless it is watched already.
    fn ensure(&self, api_version: &str, kind: &str) {
        let key = (api_version.to_owned(), kind.to_owned());
        let mut shelves = self.lock();
        if shelves.contains_key(&key) {
            return;
        }
        let stop = self.stop.child_token();
        shelves.entry(key.clone()).or_default().stop = stop.clone();
        let cache = Cache { stop: stop.clone(), ..self.clone() };
        self.tasks.spawn(async move { stop.run_until_cancelled(cache.watch(key)).await });
    }

    /// Stops watching a kind that nobody names any more; whoever asks for it next starts again.
    pub fn stop_watching(&self, key: &(String, String)) {
        if !BASE_KINDS.contains(&(key.0.as_str(), key.1.as_str()))
            && let Some(shelf) = self.lock().remove(key)
        {
            shelf.stop.cancel();
        }
    }

    /// The shelf that a watch fills; `None` once it was stopped, when another may stand in its place.
    pub(super) fn filled<'a>(&self, shelves: &'a mut BTreeMap<Kind, Shelf>, key: &Kind) -> Option<&'a mut Shelf> {
        shelves.get_mut(key).filter(|_| !self.stop.is_cancelled())
    }

    /// Puts in the answer to a write of ours.
    pub fn put_written(&self, object: Arc<Value>) {
        if object::text(&object, &["kind"]) == "Pod" {
            self.pods.put(&object);
        }
        if let Some(shelf) = self.lock().get_mut(&kind_of(&object)) {
            shelf.written.insert(name_of(&object));
        }
        self.put(object);
    }

    pub(super) fn put(&self, object: Arc<Value>) {
        let key = kind_of(&object);
        let changed = {
            let mut shelves = self.lock();
            let Some(shelf) = self.filled(&mut shelves, &key) else { return };
            shelf.put(&object)
        };
        if changed {
            self.tell(&object);
        }
    }

    /// Takes out an object of which the API server said that it is gone.
    pub fn forget(&self, target: &ObjectRef, uid: &str) {
        if target.kind == "Pod" {
            self.pods.remove((&target.namespace, &target.name), uid);
            return;
        }
        let known = self.get(target);
        if let Ok(known) = known
            && object::uid(&known) == uid
        {
            self.remove(&known);
        }
    }

    /// Ends the watch of a release's pods.
    pub fn forget_pods(&self, rollout: &pods::Key) {
        self.pods.forget(rollout);
    }

    /// How the API server names a kind that is watched.
    pub fn resource(&self, api_version: &str, kind: &str) -> Option<ApiResource> {
        self.lock().get(&(api_version.to_owned(), kind.to_owned()))?.resource.clone()
    }

    pub(super) fn remove(&self, object: &Arc<Value>) {
        {
            let mut shelves = self.lock();
            let Some(shelf) = self.filled(&mut shelves, &kind_of(object)) else { return };
            shelf.remove(&name_of(object), object::uid(object));
        }
        self.tell(object);
    }

    /// A list of a place is over: what it lacks is gone.
    pub(super) fn end_of_list(&self, key: &Kind, place: &Place, listed: &BTreeSet<Name>) {
        let (gone, is_whole) = {
            let mut shelves = self.lock();
            let Some(shelf) = self.filled(&mut shelves, key) else { return };
            shelf.awaited.remove(place);
            if shelf.awaited.is_empty() {
                shelf.is_synced = true;
                shelf.missing = None;
            }
            (shelf.retain(|name| !is_in(place, name) || listed.contains(name)), shelf.awaited.is_empty())
        };
        gone.iter().for_each(|object| self.tell(object));
        if !is_whole {
            return;
        }
        let _ = self.changes.send(Change::Kind(key.0.clone(), key.1.clone()));
    }

    pub(super) fn set_missing(&self, key: &Kind, missing: Missing) {
        let changed = {
            let mut shelves = self.lock();
            let Some(shelf) = self.filled(&mut shelves, key) else { return };
            let changed = shelf.missing.as_ref() != Some(&missing);
            shelf.clear();
            shelf.is_synced = true;
            shelf.missing = Some(missing);
            changed
        };
        if changed {
            let _ = self.changes.send(Change::Kind(key.0.clone(), key.1.clone()));
        }
    }

    /// Reads a kind, unless it still is being read for the first time itself.
    fn synced<T>(&self, api_version: &str, kind: &str, read: impl FnOnce(&mut Shelf) -> T) -> Option<T> {
        self.ensure(api_version, kind);
        let mut shelves = self.lock();
        shelves.get_mut(&(api_version.to_owned(), kind.to_owned())).filter(|s| s.is_synced).map(read)
    }

    fn tell(&self, object: &Arc<Value>) {
        let (api_version, kind) = kind_of(object);
        let (namespace, name) = name_of(object);
        let target = ObjectRef { api_version, kind, namespace, name };
        // Nobody listens any more when the controller stops.
        let _ = self.changes.send(Change::Object(target, object.clone()));
    }
}

impl Objects for Cache {
    fn get(&self, target: &ObjectRef) -> Result<Arc<Value>, Lookup> {
        if (target.api_version.as_str(), target.kind.as_str()) == ("v1", "Pod") {
            // Never all pods of a cluster.
            let pod = self.pods.get(&target.namespace, &target.name);
            return pod.ok_or(Lookup::Missing(Missing::Object));
        }
        self.ensure(&target.api_version, &target.kind);
        let mut shelves = self.lock();
        let Some(shelf) = shelves.get_mut(&(target.api_version.clone(), target.kind.clone())) else {
            return Err(Lookup::Pending);
        };
        if let Some(missing) = &shelf.missing {
            return Err(Lookup::Missing(missing.clone()));
        }
        match shelf.get(&(target.namespace.clone(), target.name.clone())) {
            Some(object) => Ok(object),
            None if shelf.is_synced => Err(Lookup::Missing(Missing::Object)),
            None => Err(Lookup::Pending),
        }
    }

    fn samples(&self, rollout: &pods::Key) -> BTreeMap<String, Sample> {
        self.measures.as_ref().map(|measures| measures.answers(rollout)).unwrap_or_default()
    }

    fn replies(&self, rollout: &pods::Key) -> BTreeMap<String, Reply> {
        self.calls.as_ref().map(|desk| desk.answers(rollout)).unwrap_or_default()
    }

    fn pods(&self, rollout: &pods::Key, selector: &str) -> Option<Vec<Arc<Value>>> {
        self.pods.of(rollout, selector)
    }

    fn list_all(&self, api_version: &str, kind: &str) -> Option<Vec<Arc<Value>>> {
        self.synced(api_version, kind, |shelf| shelf.all())
    }

    fn list(&self, api_version: &str, kind: &str, namespace: &str) -> Option<Vec<Arc<Value>>> {
        self.synced(api_version, kind, |shelf| shelf.of_namespace(namespace))
    }

    fn tied(&self, api_version: &str, kind: &str, namespace: &str, tie: &str) -> Option<Vec<Arc<Value>>> {
        self.synced(api_version, kind, |shelf| shelf.tied(namespace, tie))
    }
}

fn kind_of(object: &Value) -> Kind {
    (object::text(object, &["apiVersion"]).to_owned(), object::text(object, &["kind"]).to_owned())
}

/// Resource versions are integers that grow (Kubernetes API conventions since 1.35, and etcd always).
pub(super) fn version(object: &Value) -> u64 {
    object::resource_version(object).parse().unwrap_or(0)
}
