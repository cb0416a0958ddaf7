//! Objects, their versions, and the log that watches read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use serde_json::Value;
use tokio::time::Instant;

use super::json::{self, items, text};
use super::registry::{KindId, Registry};
use super::rng::Rng;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub kind: KindId,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: KindId, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One committed write.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub key: Key,
    pub before: Option<Arc<Value>>,
    pub after: Option<Arc<Value>>,
}

/// One line of a kind's history.
#[derive(Debug)]
pub(crate) struct Entry {
    pub version: u64,
    pub at: Instant,
    pub before: Option<Arc<Value>>,
    pub after: Option<Arc<Value>>,
    /// The last state of a deleted object, with the version of its deletion.
    pub tombstone: Option<Arc<Value>>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    objects: BTreeMap<String, BTreeMap<String, Arc<Value>>>,
    log: VecDeque<Entry>,
    /// A watch may start at this version or later.
    pub oldest: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Table {
    /// History after a version, oldest first.
    pub fn since(&self, version: u64) -> impl Iterator<Item = &Entry> {
        self.log.range(self.log.partition_point(|e| e.version <= version)..)
    }

    pub fn wait(&mut self, watch: u64, waker: &Waker) {
        self.wakers.insert(watch, waker.clone());
    }

    pub fn forget(&mut self, watch: u64) {
        self.wakers.remove(&watch);
    }

    pub fn wake_all(&mut self) {
        for waker in std::mem::take(&mut self.wakers).into_values() {
            waker.wake();
        }
    }
}

/// All objects of the cluster.
#[derive(Debug)]
pub(crate) struct Store {
    pub registry: Registry,
    pub rng: Rng,
    tables: Vec<Table>,
    version: u64,
    owners: BTreeMap<String, BTreeSet<Key>>,
    history: usize,
}

impl Store {
    pub fn new(seed: u64, history: usize) -> Self {
        Self {
            registry: Registry::new(),
            rng: Rng::new(seed),
            tables: Vec::new(),
            version: 1,
            owners: BTreeMap::new(),
            history: history.max(1),
        }
    }

    /// The version of the latest write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Uses up a version.
    pub fn skip_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub fn table(&self, kind: KindId) -> Option<&Table> {
        self.tables.get(kind.0)
    }

    pub fn table_mut(&mut self, kind: KindId) -> &mut Table {
        if self.tables.len() <= kind.0 {
            self.tables.resize_with(kind.0 + 1, Table::default);
        }
        match self.tables.get_mut(kind.0) {
            Some(table) => table,
            None => unreachable!("resized above"),
        }
    }

    pub fn get(&self, kind: KindId, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.table(kind)?.objects.get(namespace)?.get(name)
    }

    pub fn at(&self, key: &Key) -> Option<&Arc<Value>> {
        self.get(key.kind, &key.namespace, &key.name)
    }

    /// Objects of a kind in name order, of one namespace or of all.
    pub fn list<'a>(&'a self, kind: KindId, namespace: Option<&str>) -> Box<dyn Iterator<Item = &'a Arc<Value>> + 'a> {
        let Some(table) = self.table(kind) else { return Box::new(std::iter::empty()) };
        match namespace {
            Some(namespace) => Box::new(table.objects.get(namespace).into_iter().flat_map(BTreeMap::values)),
            None => Box::new(table.objects.values().flat_map(BTreeMap::values)),
        }
    }

    /// Objects that name this UID among their owners.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.owners.get(uid).into_iter().flatten()
    }

    /// Objects of a kind whose controller has this UID, in name order.
    pub fn controlled_by(&self, uid: &str, kind: KindId) -> Vec<Arc<Value>> {
        self.owned_by(uid)
            .filter(|key| key.kind == kind)
            .filter_map(|key| self.at(key))
            .filter(|o| json::controller_of(o).is_some_and(|r| text(r, "/uid") == uid))
            .cloned()
            .collect()
    }

    /// Stores an object under the next version.
    pub fn put(&mut self, key: Key, mut object: Value, at: Instant) -> (Change, Arc<Value>) {
        json::set(&mut object, &["metadata", "resourceVersion"], (self.version + 1).to_string());
        self.place(key, Arc::new(object), at)
    }

    /// Stores an object that says itself that it is of the next version.
    pub fn place(&mut self, key: Key, object: Arc<Value>, at: Instant) -> (Change, Arc<Value>) {
        self.version += 1;
        let version = self.version;
        let names = self.table_mut(key.kind).objects.entry(key.namespace.clone()).or_default();
        let before = names.insert(key.name.clone(), object.clone());
        self.index(&key, before.as_deref(), Some(&object));
        let entry = Entry { version, at, before: before.clone(), after: Some(object.clone()), tombstone: None };
        self.record(key.kind, entry);
        (Change { key, before, after: Some(object.clone()) }, object)
    }

    /// Takes an object out; its last state gets the version of the deletion.
    pub fn remove(&mut self, key: Key, at: Instant) -> Option<(Change, Arc<Value>)> {
        let names = self.table_mut(key.kind).objects.get_mut(&key.namespace)?;
        let before = names.remove(&key.name)?;
        self.version += 1;
        let version = self.version;
        let mut last = Value::clone(&before);
        json::set(&mut last, &["metadata", "resourceVersion"], version.to_string());
        let last = Arc::new(last);
        self.index(&key, Some(&before), None);
        let entry = Entry { version, at, before: Some(before.clone()), after: None, tombstone: Some(last.clone()) };
        self.record(key.kind, entry);
        Some((Change { key, before: Some(before), after: None }, last))
    }

    fn record(&mut self, kind: KindId, entry: Entry) {
        let history = self.history;
        let table = self.table_mut(kind);
        table.log.push_back(entry);
        while table.log.len() > history {
            if let Some(gone) = table.log.pop_front() {
                table.oldest = gone.version;
            }
        }
        table.wake_all();
    }

    fn index(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        let refs = |o: Option<&Value>| -> BTreeSet<String> {
            o.map_or(&[][..], |o| items(o, "/metadata/ownerReferences"))
                .iter()
                .map(|r| text(r, "/uid").to_owned())
                .collect()
        };
        let (old, new) = (refs(before), refs(after));
        for uid in old.difference(&new) {
            if let Some(keys) = self.owners.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owners.remove(uid);
                }
            }
        }
        for uid in new.difference(&old) {
            self.owners.entry(uid.clone()).or_default().insert(key.clone());
        }
    }

    /// Forgets the history of a kind, as etcd's compaction does: watches from older versions get 410.
    pub fn compact(&mut self, kind: KindId) {
        let version = self.version;
        let table = self.table_mut(kind);
        table.log.clear();
        table.oldest = version;
        table.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::{PODS, REPLICA_SETS};
    use super::*;
    use serde_json::json;

    fn pod(name: &str, owner: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "n",
            "ownerReferences": [{"uid": owner, "controller": true}]}})
    }

    #[tokio::test(start_paused = true)]
    async fn versions_rise_and_history_is_bounded() {
        let mut store = Store::new(1, 2);
        let at = Instant::now();
        let versions: Vec<u64> = (0..4)
            .map(|i| {
                let (_, o) = store.put(Key::new(PODS, "n", &format!("p{i}")), pod("p", "u"), at);
                text(&o, "/metadata/resourceVersion").parse().unwrap()
            })
            .collect();
        assert_eq!(versions, [2, 3, 4, 5]);
        let table = store.table(PODS).unwrap();
        assert_eq!(table.oldest, 3);
        assert_eq!(table.since(3).map(|e| e.version).collect::<Vec<_>>(), [4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn owners_are_indexed() {
        let mut store = Store::new(1, 100);
        let at = Instant::now();
        store.put(Key::new(PODS, "n", "a"), pod("a", "u1"), at);
        store.put(Key::new(PODS, "n", "b"), pod("b", "u2"), at);
        assert_eq!(store.controlled_by("u1", PODS).len(), 1);
        assert!(store.controlled_by("u1", REPLICA_SETS).is_empty());
        store.put(Key::new(PODS, "n", "a"), pod("a", "u2"), at);
        assert!(store.controlled_by("u1", PODS).is_empty());
        assert_eq!(store.controlled_by("u2", PODS).len(), 2);
        store.remove(Key::new(PODS, "n", "a"), at);
        assert_eq!(store.controlled_by("u2", PODS).len(), 1);
    }
}
