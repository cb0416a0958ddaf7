//! What the watches of pods have told, and whose the pods are.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use kube::runtime::watcher::Event;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Key,
    kept::{Kept, stripped},
    selection::Selection,
};
use crate::{
    api::object,
    gather::{cache::version, raw::Raw},
};

/// Rollouts of one namespace that have a watch of their own.
pub(super) const OWN: usize = 8;

/// Pods that are at hand without parsing: those of the Rollouts that were worked on last.
const OPEN: usize = 256;

/// Whose pods a watch is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// One Rollout's.
    Own(Key),
    /// A namespace's.
    Shared(String),
}

impl Place {
    pub fn namespace(&self) -> &str {
        match self {
            Place::Own((namespace, _)) | Place::Shared(namespace) => namespace,
        }
    }
}

/// A watch that is to be started.
pub(super) struct Begun {
    pub place: Place,
    pub id: u64,
    /// Of whoever needs it first.
    pub selector: String,
    pub stop: CancellationToken,
}

/// What one watch has told.
struct Store {
    /// No other had it: a watch that was ended may have something to say still.
    id: u64,
    /// The Rollouts that it is for.
    releases: BTreeSet<Key>,
    pods: BTreeMap<String, Kept>,
    /// Names seen by the list that is being read.
    listed: Option<BTreeSet<String>>,
    is_synced: bool,
    stop: CancellationToken,
}

impl Store {
    fn close(&mut self, names: &BTreeSet<String>) {
        for name in names {
            if let Some(pod) = self.pods.get_mut(name) {
                pod.close();
            }
        }
    }
}

/// A Rollout whose pods are followed.
struct Release {
    selector: String,
    selection: Selection,
    place: Place,
    /// Its pods.
    names: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct State {
    releases: BTreeMap<Key, Release>,
    stores: BTreeMap<Place, Store>,
    /// How many stores there have been.
    made: u64,
    /// Rollouts whose pods are open, and how many; those that were read last come last.
    open: VecDeque<(Key, usize)>,
}

impl State {
    /// Follows the pods of a Rollout from now on. Returns the watch to start, if there is none for them yet.
    pub fn attach(&mut self, key: &Key, selector: &str, stop: &CancellationToken) -> Option<Begun> {
        if self.releases.get(key).is_some_and(|release| release.selector == selector) {
            return None;
        }
        self.detach(key);
        let of_namespace =
            self.releases.range((key.0.clone(), String::new())..).take_while(|(other, _)| other.0 == key.0);
        let own = of_namespace.filter(|(_, release)| matches!(release.place, Place::Own(_))).count();
        let place = if own < OWN { Place::Own(key.clone()) } else { Place::Shared(key.0.clone()) };
        let selection = Selection::of(selector);
        let mut begun = None;
        let store = self.stores.entry(place.clone()).or_insert_with(|| {
            self.made += 1;
            let (id, stop) = (self.made, stop.child_token());
            begun = Some(Begun { place: place.clone(), id, selector: selector.to_owned(), stop: stop.clone() });
            Store { id, releases: BTreeSet::new(), pods: BTreeMap::new(), listed: None, is_synced: false, stop }
        });
        store.releases.insert(key.clone());
        let its = store.pods.iter().filter(|(_, pod)| selection.selects(&pod.labels()));
        let names = its.map(|(name, _)| name.clone()).collect();
        let release = Release { selector: selector.to_owned(), selection, names, place };
        self.releases.insert(key.clone(), release);
        begun
    }

    /// Ends what is only for a Rollout.
    pub fn detach(&mut self, key: &Key) {
        let Some(release) = self.releases.remove(key) else { return };
        self.open.retain(|(other, _)| other != key);
        let Some(store) = self.stores.get_mut(&release.place) else { return };
        store.close(&release.names);
        store.releases.remove(key);
        if store.releases.is_empty() {
            store.stop.cancel();
            self.stores.remove(&release.place);
        }
    }

    /// The pods of a Rollout in the order of names, once they were read.
    pub fn read(&mut self, key: &Key) -> Option<Vec<Arc<Value>>> {
        let release = self.releases.get(key)?;
        let store = self.stores.get_mut(&release.place).filter(|store| store.is_synced)?;
        let pods: Vec<_> =
            release.names.iter().filter_map(|name| store.pods.get_mut(name).and_then(Kept::open)).collect();
        self.open.retain(|(other, _)| other != key);
        self.open.push_back((key.clone(), pods.len()));
        let mut open: usize = self.open.iter().map(|(_, count)| count).sum();
        while open > OPEN && self.open.len() > 1 {
            let Some((oldest, count)) = self.open.pop_front() else { break };
            open -= count;
            self.close(&oldest);
        }
        Some(pods)
    }

    fn close(&mut self, key: &Key) {
        let Some(release) = self.releases.get(key) else { return };
        let Some(store) = self.stores.get_mut(&release.place) else { return };
        store.close(&release.names);
    }

    /// A pod of any release.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let of_namespace = self.releases.range((namespace.to_owned(), String::new())..);
        let mut of_namespace = of_namespace.take_while(|(key, _)| key.0 == namespace);
        let (_, release) = of_namespace.find(|(_, release)| release.names.contains(name))?;
        self.stores.get(&release.place)?.pods.get(name)?.look()
    }

    fn places(&self, namespace: &str) -> Vec<Place> {
        self.stores.keys().filter(|place| place.namespace() == namespace).cloned().collect()
    }

    /// Puts in a state of a pod that is known, [`stripped`].
    pub fn put_written(&mut self, pod: &Value) {
        for place in self.places(object::namespace(pod)) {
            let known = self.stores.get(&place).and_then(|store| store.pods.get(object::name(pod)));
            if known.is_some_and(|known| known.is(object::uid(pod))) {
                self.put(&place, pod.clone());
            }
        }
    }

    /// Takes out a pod that is gone.
    pub fn remove_gone(&mut self, namespace: &str, name: &str, uid: &str) {
        for place in self.places(namespace) {
            self.remove(&place, name, uid);
        }
    }

    /// Whether a store is still the one that a watch fills.
    fn store(&mut self, place: &Place, id: u64) -> Option<&mut Store> {
        self.stores.get_mut(place).filter(|store| store.id == id)
    }

    /// Takes in what a watch says. Returns the Rollouts for which anything changed that a decision reads.
    pub fn note(&mut self, place: &Place, id: u64, event: Event<Raw>) -> BTreeSet<Key> {
        let Some(store) = self.store(place, id) else { return BTreeSet::new() };
        match event {
            Event::Init => {
                store.listed = Some(BTreeSet::new());
                BTreeSet::new()
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                let pod = stripped(&pod.object);
                let name = object::name(&pod);
                if let Some(listed) = &mut store.listed {
                    listed.insert(name.to_owned());
                }
                let known = store.pods.get(name);
                if known.is_some_and(|known| known.version() > version(&pod)) {
                    // Of before a write of ours.
                    return BTreeSet::new();
                }
                let is_told = store.listed.is_none() && known.is_none_or(|known| !known.is_same(&pod));
                let concerned = self.put(place, pod);
                if is_told { concerned } else { BTreeSet::new() }
            }
            Event::InitDone => {
                let listed = store.listed.take().unwrap_or_default();
                store.pods.retain(|name, _| listed.contains(name));
                store.is_synced = true;
                let releases = store.releases.clone();
                for key in &releases {
                    if let Some(release) = self.releases.get_mut(key) {
                        release.names.retain(|name| listed.contains(name));
                    }
                }
                releases
            }
            Event::Delete(pod) => self.remove(place, object::name(&pod.object), object::uid(&pod.object)),
        }
    }

    /// Nothing may be read: what can be decided without it goes on.
    pub fn go_without(&mut self, place: &Place, id: u64) -> BTreeSet<Key> {
        let Some(store) = self.store(place, id) else { return BTreeSet::new() };
        store.is_synced = true;
        store.releases.clone()
    }

    /// The Rollouts whose pod it was or is.
    fn put(&mut self, place: &Place, pod: Value) -> BTreeSet<Key> {
        let Some(store) = self.stores.get_mut(place) else { return BTreeSet::new() };
        let name = object::name(&pod).to_owned();
        let kept = Kept::of(pod);
        let labels = kept.labels();
        store.pods.insert(name.clone(), kept);
        let mut concerned = BTreeSet::new();
        for key in &store.releases {
            let Some(release) = self.releases.get_mut(key) else { continue };
            // What a watch of its own says, the API server has selected.
            let is_its = matches!(place, Place::Own(_)) || release.selection.selects(&labels);
            let was_its = if is_its { !release.names.insert(name.clone()) } else { release.names.remove(&name) };
            if is_its || was_its {
                concerned.insert(key.clone());
            }
        }
        concerned
    }

    /// A pod that was made anew under the name is another one.
    fn remove(&mut self, place: &Place, name: &str, uid: &str) -> BTreeSet<Key> {
        let Some(store) = self.stores.get_mut(place) else { return BTreeSet::new() };
        if store.pods.get(name).is_none_or(|known| !known.is(uid)) {
            return BTreeSet::new();
        }
        store.pods.remove(name);
        let mut concerned = BTreeSet::new();
        for key in &store.releases {
            if self.releases.get_mut(key).is_some_and(|release| release.names.remove(name)) {
                concerned.insert(key.clone());
            }
        }
        concerned
    }
}
