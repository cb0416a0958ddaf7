//! Workloads that own pods and ControllerRevisions.
//!
//! The controller of a kind is a pure function: [`Owned`], what a workload owns at one moment, gives an [`Outcome`],
//! the writes and the status that follow from it. Two thin shells run it: [`shell`] on the store of the in-memory
//! cluster, [`remote`] over a client of any API server.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::json::{self, controller_of, deleting, int, items, text};
use super::super::registry::split_api_version;
use super::super::selector::Labels;
use super::super::store::Store;
use super::pods::{availability, owner_reference, ready};

pub(crate) mod advanced_daemon_set;
pub(crate) mod advanced_stateful_set;
pub(crate) mod clone_set;
pub(crate) mod daemon_set;
pub(crate) mod daemons;
pub(crate) mod in_place;
pub(crate) mod remote;
pub(crate) mod revisions;
pub(crate) mod shell;
pub(crate) mod stateful_set;

/// A kind of workload and its controller.
pub(crate) struct Workload {
    pub group: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    /// Whether a node that is new or has changed concerns a workload; `None` if nodes do not matter to the kind.
    pub node_concerns: Option<NodeConcerns>,
    /// Whether an orphan with fitting labels may be adopted.
    pub adopts: fn(workload: &Value, pod: &Value) -> bool,
    pub decide: fn(&Owned) -> Outcome,
}

pub(crate) type NodeConcerns = fn(&Store, workload: &Value, before: Option<&Value>, node: &Value) -> bool;

/// A workload with what it owns, at one moment.
pub(crate) struct Owned {
    pub workload: Arc<Value>,
    /// Oldest first.
    pub revisions: Vec<Arc<Value>>,
    /// In the order of their names.
    pub pods: Vec<Arc<Value>>,
    /// All nodes in the order of their names, if the kind asks for them.
    pub nodes: Vec<Arc<Value>>,
    pub now: Timestamp,
}

/// What a controller does to the objects that it owns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    Create(Dependent, Value),
    /// A JSON merge patch. Nothing happens to an object that has another UID by now.
    Patch {
        of: Dependent,
        name: String,
        uid: String,
        patch: Value,
    },
    /// The same through the status subresource.
    PatchStatus {
        of: Dependent,
        name: String,
        uid: String,
        patch: Value,
    },
    Delete {
        of: Dependent,
        name: String,
        uid: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependent {
    Pod,
    Revision,
}

/// What follows from a look at a workload.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// In this order; the first that fails ends the look.
    pub writes: Vec<Write>,
    /// The whole new status, written last.
    pub status: Option<Value>,
    /// The next moment at which time alone changes something.
    pub again: Option<Duration>,
}

impl Write {
    pub fn delete(of: Dependent, object: &Value) -> Self {
        Write::Delete { of, name: json::name(object).to_owned(), uid: json::uid(object).to_owned() }
    }

    pub fn patch(of: Dependent, object: &Value, patch: Value) -> Self {
        Write::Patch { of, name: json::name(object).to_owned(), uid: json::uid(object).to_owned(), patch }
    }
}

impl Outcome {
    pub fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |a| a.min(after)));
    }
}

impl Workload {
    /// Whether an owner reference names this kind, in whatever version.
    fn is_named_by(&self, reference: &Value) -> bool {
        text(reference, "/kind") == self.kind && split_api_version(text(reference, "/apiVersion")).0 == self.group
    }

    /// One look: takes what could be the workload's, and tells what to do. Orphans that fit are adopted, owned pods that
    /// fit no more are let go; what changes hands counts from the next look on.
    pub fn look(&self, mut owned: Owned) -> Outcome {
        let Some(selector) = Labels::of_object(owned.workload.pointer("/spec/selector")) else {
            return Outcome::default();
        };
        let workload = owned.workload.clone();
        let mut hands = Vec::new();
        let fits = |pod: &Value| selector.selects(pod) && (self.adopts)(&workload, pod);
        owned.pods = claim(&workload, Dependent::Pod, owned.pods, fits, &mut hands);
        owned.revisions = claim(&workload, Dependent::Revision, owned.revisions, |r| selector.selects(r), &mut hands);
        owned.revisions.sort_by(|a, b| {
            let age = |r: &Value| (int(r, "/revision").unwrap_or(0), text(r, "/metadata/creationTimestamp").to_owned());
            age(a).cmp(&age(b)).then_with(|| json::name(a).cmp(json::name(b)))
        });
        let mut outcome = (self.decide)(&owned);
        hands.append(&mut outcome.writes);
        outcome.writes = hands;
        outcome
    }
}

fn claim(
    workload: &Value,
    of: Dependent,
    candidates: Vec<Arc<Value>>,
    fits: impl Fn(&Value) -> bool,
    hands: &mut Vec<Write>,
) -> Vec<Arc<Value>> {
    let mut kept = Vec::new();
    for object in candidates {
        let references = items(&object, "/metadata/ownerReferences");
        match controller_of(&object) {
            Some(owner) if text(owner, "/uid") != json::uid(workload) => {}
            Some(_) if fits(&object) || deleting(workload) => kept.push(object),
            Some(_) => {
                let others: Vec<&Value> =
                    references.iter().filter(|r| text(r, "/uid") != json::uid(workload)).collect();
                hands.push(Write::patch(of, &object, json!({"metadata": {"ownerReferences": others}})));
            }
            None if fits(&object) && !deleting(&object) && !deleting(workload) => {
                let mut all = references.to_vec();
                all.push(owner_reference(workload));
                hands.push(Write::patch(of, &object, json!({"metadata": {"ownerReferences": all}})));
            }
            None => {}
        }
    }
    kept
}

impl Owned {
    pub fn name(&self) -> &str {
        json::name(&self.workload)
    }

    /// The number at a JSON pointer of the workload.
    pub fn int(&self, pointer: &str) -> Option<i64> {
        int(&self.workload, pointer)
    }

    /// The workload's text at a JSON pointer, or the empty string.
    pub fn text(&self, pointer: &str) -> &str {
        text(&self.workload, pointer)
    }

    pub fn replicas(&self) -> i64 {
        self.int("/spec/replicas").unwrap_or(1).max(0)
    }

    /// Whether a pod runs and has been ready for this many seconds.
    pub fn available(&self, pod: &Value, min_ready: i64) -> bool {
        availability(self.now, pod, min_ready).is_ok()
    }

    /// When the next ready pod becomes available.
    pub fn next_available(&self, min_ready: i64) -> Option<Duration> {
        self.pods.iter().filter_map(|p| availability(self.now, p, min_ready).err().flatten()).min()
    }
}

/// A pod that runs and is ready.
pub(crate) fn running_and_ready(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running" && ready(pod)
}

/// A pod's label, or the empty string.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    json::object_of(object, "/metadata/labels").and_then(|l| l.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// Adds a number to a status as Go's `omitempty` writes it: zero is left out.
pub(crate) fn count(status: &mut Value, field: &str, number: i64) {
    if number != 0 {
        json::set(status, &[field], number);
    }
}
