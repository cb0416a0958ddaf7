//! The shared state behind every client, controller and judge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::Mutator;
use super::builder::Options;
use super::clock::{Clock, rfc3339};
use super::controllers::Queue;
use super::faults::Faults;
use super::registry::{Gvr, Kind};
use super::store::{Change, Key, Store};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The verb as RBAC spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    /// True for verbs that change objects.
    pub fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// One committed change of one object, as judges see it. No-op writes and dry runs do not appear.
#[derive(Debug, Clone)]
pub struct Write {
    /// Who wrote: a client's identity, or the name of a built-in controller.
    pub identity: Arc<str>,
    /// How.
    pub verb: Verb,
    /// What, in the version that the request named.
    pub gvr: Gvr,
    /// `status` or `scale`, if the request named it.
    pub subresource: Option<&'static str>,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The object before; `None` if it is new.
    pub before: Option<Arc<Value>>,
    /// The object after; `None` if it is gone.
    pub after: Option<Arc<Value>>,
    /// When, by the cluster's clock.
    pub time: Timestamp,
    /// Number of this write in the cluster, from 1.
    pub n: u64,
}

/// Who asks, and how.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub identity: Arc<str>,
    pub verb: Verb,
    /// The API version in which the object is read and written.
    pub version: String,
    pub subresource: Option<&'static str>,
    pub manager: String,
    pub dry_run: bool,
    /// Built-in controllers: no admission, no tracking of managed fields.
    pub internal: bool,
}

pub(crate) type Observer = Box<dyn FnMut(&Write) + Send>;

pub(crate) struct State {
    pub store: Store,
    pub faults: Faults,
    pub queue: Queue,
    pub requests: BTreeMap<(Arc<str>, Verb), u64>,
    pub mutators: Arc<Vec<Mutator>>,
    pending: Vec<Write>,
    writes: u64,
    next_watch: u64,
}

pub(crate) struct Core {
    state: Mutex<State>,
    observers: Mutex<Vec<Observer>>,
    pub clock: Clock,
    pub options: Options,
    pub work: Arc<Notify>,
}

impl Core {
    pub fn new(options: Options, mutators: Vec<Mutator>, observers: Vec<Observer>) -> Self {
        let state = State {
            store: Store::new(options.seed, options.history),
            faults: Faults::new(options.seed),
            queue: Queue::new(options.seed, options.delays.controller.clone()),
            requests: BTreeMap::new(),
            mutators: Arc::new(mutators),
            pending: Vec::new(),
            writes: 0,
            next_watch: 0,
        };
        Self {
            state: Mutex::new(state),
            observers: Mutex::new(observers),
            clock: Clock::starting_at(options.start),
            options,
            work: Arc::new(Notify::new()),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything can panic, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one operation on the state, then tells the observers what it wrote. Observers see the state right after
    /// the operation, so an operation should write one object.
    pub fn run<R>(&self, operation: impl FnOnce(&mut State) -> R) -> R {
        let (result, writes) = {
            let mut state = self.lock();
            let result = operation(&mut state);
            (result, std::mem::take(&mut state.pending))
        };
        if !writes.is_empty() {
            let mut observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
            for write in &writes {
                for observer in observers.iter_mut() {
                    observer(write);
                }
            }
            drop(observers);
            self.work.notify_one();
        }
        result
    }

    pub fn observe(&self, observer: Observer) {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// The present moment as objects record it.
    pub fn timestamp(&self) -> String {
        rfc3339(self.clock.now())
    }

    /// Stores an object for a caller.
    pub fn put(&self, state: &mut State, caller: &Caller, kind: &Kind, key: Key, object: Value) -> Arc<Value> {
        let (change, object) = state.store.put(key, object, Instant::now());
        self.committed(state, caller, kind, change);
        object
    }

    /// As [`Core::put`], of an object that is of the next version already.
    pub fn place(&self, state: &mut State, caller: &Caller, kind: &Kind, key: Key, object: Arc<Value>) {
        let (change, _) = state.store.place(key, object, Instant::now());
        self.committed(state, caller, kind, change);
    }

    /// Removes an object for a caller; gives its last state.
    pub fn remove(&self, state: &mut State, caller: &Caller, kind: &Kind, key: Key) -> Option<Arc<Value>> {
        let (change, last) = state.store.remove(key, Instant::now())?;
        self.committed(state, caller, kind, change);
        Some(last)
    }

    fn committed(&self, state: &mut State, caller: &Caller, kind: &Kind, change: Change) {
        state.queue.route(&state.store, &change);
        state.writes += 1;
        state.pending.push(Write {
            identity: caller.identity.clone(),
            verb: caller.verb,
            gvr: kind.gvr(&caller.version),
            subresource: caller.subresource,
            namespace: change.key.namespace,
            name: change.key.name,
            before: change.before,
            after: change.after,
            time: self.clock.now(),
            n: state.writes,
        });
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // The controllers' task sees that the cluster is gone, and ends.
        self.work.notify_one();
    }
}

impl State {
    /// Number of writes committed so far.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    pub fn next_watch(&mut self) -> u64 {
        self.next_watch += 1;
        self.next_watch
    }
}
