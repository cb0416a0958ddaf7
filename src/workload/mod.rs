//! A plain view of a workload of any kind, and the fields by which it is held, opened step by step and put back. Pure.
//!
//! The state machine knows a [`Workload`] and its [`Gate`], never a kind. A kind is one file and one row in [`KINDS`].

pub mod batches;
pub mod canary;
pub mod clone_set;
pub mod daemon_set;
pub mod deployment;
pub mod hold;
pub mod kruise;
pub mod like;
mod nodes;
mod partition;
pub mod pods;
pub mod replicas;
mod revisions;
pub mod stateful_set;

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::api::{
    keys::{self, InProgressing},
    object::{self, at, int},
};

/// How the new version comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// An extra Deployment beside the stable one.
    Canary,
    /// In place, batch by batch.
    Partition,
    /// A full new set beside the old, in place.
    BlueGreen,
}

/// A kind of workload that can be released.
pub struct Kind {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Value of the [switch](Kind::switch) of its hold.
    pub workload_type: &'static str,
    /// Label of its pods that names their revision.
    pub revision_label: &'static str,
    /// Styles that it can be released in.
    pub styles: &'static [Style],
    /// Objects that say its revisions: API version and kind.
    pub revisions: (&'static str, &'static str),
    /// Its versions are counted by its pods: nothing can be decided during a release before these are known.
    pub counts_pods: bool,
    /// Which of its pods may be taken away depends on their nodes, which are read during a release.
    pub reads_nodes: bool,
    /// Its pods may go back to the stable version step by step.
    pub goes_back_in_batches: bool,
    /// How the API server holds it, in each version that it is known in.
    pub holds: &'static [hold::Rule],
    /// Reads the view of a workload of this kind.
    pub read: fn(&'static Kind, &Arc<Value>, &Surroundings<'_>) -> Workload,
    /// Holds and opens it.
    pub gate: &'static dyn Gate,
}

/// The kinds that are known by name.
pub static KINDS: &[Kind] = &[
    deployment::KIND,
    stateful_set::KIND,
    daemon_set::KIND,
    clone_set::KIND,
    kruise::STATEFUL_SET,
    kruise::DAEMON_SET,
];

/// The row of a kind; that of StatefulSet-like ones for all that are not known by name and may be such.
pub fn kind(group: &str, kind: &str) -> Option<&'static Kind> {
    let known = KINDS.iter().find(|k| k.group == group && k.kind == kind);
    known.or_else(|| like::is_custom(group).then_some(&like::KIND))
}

/// What can be released, for people.
pub fn known() -> String {
    let kinds: Vec<String> = KINDS.iter().map(|kind| format!("{} of {}", kind.kind, kind.group)).collect();
    let label = keys::WORKLOAD_TYPE;
    format!(
        "{}, or a kind of your own that behaves as a StatefulSet and is labelled {label}: {}",
        kinds.join(", "),
        like::TYPE
    )
}

impl Kind {
    /// The style in which a wish can be followed: kinds without an extra workload are released in place.
    pub fn style(&self, wanted: Style) -> Option<Style> {
        let style = if wanted == Style::Canary && !self.styles.contains(&wanted) { Style::Partition } else { wanted };
        self.styles.contains(&style).then_some(style)
    }

    /// How the API server holds it in a version; `None` where that version is not known.
    pub fn hold(&self, api_version: &str) -> Option<&'static hold::Rule> {
        let version = api_version.rsplit('/').next();
        self.holds.iter().find(|rule| rule.version == hold::ANY || Some(rule.version) == version)
    }

    /// Label by which the API server holds it.
    pub fn switch(&self) -> &'static str {
        self.holds.first().map_or(keys::WORKLOAD_TYPE, |rule| rule.switch)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.kind) == (other.group, other.kind)
    }
}

/// What stands around a workload and says more of it than it does itself.
#[derive(Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Objects of [`Kind::revisions`] in its namespace; those that it controls count.
    pub revisions: &'a [Arc<Value>],
    /// Its pods, while it is under release.
    pub pods: &'a [Arc<Value>],
    /// Where [`Kind::reads_nodes`], the nodes of these pods; those that may not be read are not among them.
    pub nodes: &'a [Arc<Value>],
}

impl<'a> Surroundings<'a> {
    /// Pods that a workload controls and that are not going.
    pub fn pods_of(&self, workload: &Value) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        let uid = object::uid(workload).to_owned();
        let is_its = move |pod: &&Arc<Value>| object::controller_uid(pod) == Some(&uid) && !object::is_deleting(pod);
        self.pods.iter().filter(is_its)
    }
}

/// A version of the template that the server knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// The value of its pods' revision label.
    pub hash: String,
    /// Grows with each version.
    pub number: i64,
    /// Pods that it should have.
    pub replicas: i32,
    /// Pods that it has.
    pub existing: i32,
    /// Of those, ready ones.
    pub ready: i32,
    /// It is made from the present template.
    pub is_present: bool,
    /// Which pods are its.
    pub pods: PodNames,
}

/// Names of pods.
#[derive(Clone, Debug, PartialEq)]
pub enum PodNames {
    /// Those that begin so and end in a suffix without a dash.
    Prefixed(String),
    /// These.
    Listed(BTreeSet<String>),
}

impl PodNames {
    /// Whether a pod is one of them.
    pub fn contains(&self, pod: &str) -> bool {
        match self {
            // `web-abc-` must not take the pods of `web-abc-def`.
            PodNames::Prefixed(prefix) => pod.strip_prefix(prefix.as_str()).is_some_and(|rest| !rest.contains('-')),
            PodNames::Listed(names) => names.contains(pod),
        }
    }
}

/// A workload as the state machine sees it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The object as it was read.
    pub object: Arc<Value>,
    /// Its kind.
    pub kind: &'static Kind,
    /// Pods wanted.
    pub replicas: i32,
    /// Versions that the server knows, oldest first.
    pub revisions: Vec<Revision>,
    /// Names the present template; another template has another name.
    pub template_name: String,
    /// Pods that exist.
    pub existing: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that have been ready for long enough.
    pub available: i32,
    /// Pods of the present template.
    pub updated: i32,
    /// Pods that may be missing at any time, by its own strategy.
    pub max_unavailable: i32,
    /// What its own controller says of trouble.
    pub trouble: Option<String>,
}

impl Workload {
    /// The object as it was read.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// Its name.
    pub fn name(&self) -> &str {
        object::name(&self.object)
    }

    /// Its kind, by name.
    pub fn kind_name(&self) -> &str {
        match object::text(&self.object, &["kind"]) {
            "" => self.kind.kind,
            kind => kind,
        }
    }

    /// `Kind name`, for people.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind_name(), self.name())
    }

    /// The API server holds it.
    pub fn is_switched_on(&self) -> bool {
        object::label(&self.object, self.kind.switch()).is_some()
    }

    /// The mark of a captured release; an unreadable one counts as one without details.
    pub fn mark(&self) -> Option<InProgressing> {
        object::annotation(&self.object, keys::IN_PROGRESSING)
            .map(|text| serde_json::from_str(text).unwrap_or_default())
    }

    /// The user's id of the release: the label, else the annotation of the same name.
    pub fn rollout_id(&self) -> Option<&str> {
        let annotation = object::annotation(&self.object, keys::ROLLOUT_ID);
        object::label(&self.object, keys::ROLLOUT_ID).into_iter().chain(annotation).find(|id| !id.is_empty())
    }

    /// The pod template.
    pub fn template(&self) -> Value {
        at(&self.object, &["spec", "template"]).map(object::without_nulls).unwrap_or(Value::Null)
    }

    /// The version of the present template, once the server knows it.
    pub fn current(&self) -> Option<&Revision> {
        self.revisions.iter().rev().find(|r| r.is_present)
    }

    /// The oldest version that has pods: what runs while a newer template is held.
    pub fn oldest_active(&self) -> Option<&Revision> {
        self.revisions.iter().find(|r| r.replicas > 0)
    }

    /// A version by its hash.
    pub fn revision(&self, hash: &str) -> Option<&Revision> {
        self.revisions.iter().find(|r| r.hash == hash)
    }

    /// Whether the present template is the one of a version.
    pub fn is_at(&self, hash: &str) -> bool {
        self.revisions.iter().any(|r| r.hash == hash && r.is_present)
    }

    /// Whether a version has pods.
    pub fn runs(&self, hash: &str) -> bool {
        self.revision(hash).is_some_and(|r| r.replicas > 0)
    }

    /// Its own controller has finished: every pod is of the present template and as many as its strategy demands are
    /// available.
    pub fn is_rolled_out(&self) -> bool {
        object::is_observed(&self.object)
            && self.updated >= self.replicas
            && self.existing <= self.updated
            && self.has_enough()
    }

    /// As many pods are available as its strategy promises, and one at least.
    pub fn has_enough(&self) -> bool {
        self.available + self.max_unavailable >= self.replicas && (self.replicas == 0 || self.available > 0)
    }

    /// The operation that puts a mark on it.
    pub fn set_mark(&self, mark: &InProgressing) -> Value {
        let value = serde_json::to_string(mark).unwrap_or_default();
        if at(&self.object, &["metadata", "annotations"]).is_some() {
            let path = format!("/metadata/annotations/{}", object::pointer_key(keys::IN_PROGRESSING));
            json!({"op": "add", "path": path, "value": value})
        } else {
            json!({"op": "add", "path": "/metadata/annotations", "value": {keys::IN_PROGRESSING: value}})
        }
    }

    /// The operation that takes the mark off, if there is one.
    pub fn drop_mark(&self) -> Option<Value> {
        self.mark()?;
        let path = format!("/metadata/annotations/{}", object::pointer_key(keys::IN_PROGRESSING));
        Some(json!({"op": "remove", "path": path}))
    }
}

/// Holds a workload of one kind, opens it step by step, and puts it back. Every answer is made from what the cluster
/// says now, so that it may be given again after a crash.
pub trait Gate: Sync {
    /// No pod comes up beyond what was opened.
    fn is_kept(&self, workload: &Workload) -> bool;

    /// The operations that hold it where it is.
    fn shut(&self, workload: &Workload, rollout: &str) -> Vec<Value>;

    /// The next move towards a goal.
    fn open(&self, workload: &Workload, goal: &Goal<'_>) -> Move;

    /// The operations that give the user's own fields back and let its controller finish; none when that is so.
    /// `stays_paused`: what the user had paused stays so, because there is nothing to roll.
    fn release(&self, workload: &Workload, rollout: &str, stays_paused: bool) -> Vec<Value>;

    /// The pod template of a version that the server knows; `None` when it cannot be told.
    fn template_of(&self, _workload: &Workload, _surroundings: &Surroundings<'_>, _revision: &str) -> Option<Value> {
        None
    }

    /// The operations that take the mark off and give back what could not be given back before.
    fn take_off(&self, workload: &Workload) -> Vec<Value>;

    /// Why it is not to be held or opened at all, as long as its owner does not change it.
    fn refusal(&self, _workload: &Workload) -> Option<String> {
        None
    }

    /// Pods that its own controller waits for in vain: it goes on only without them.
    fn stuck(&self, _workload: &Workload, _surroundings: &Surroundings<'_>) -> Vec<Arc<Value>> {
        Vec::new()
    }

    /// What has to happen before its own controller rolls it to a version that is not the stable one: pods of older versions
    /// that opening made uncounted would be the first to go, however many of the others are ready.
    fn count_again(&self, _workload: &Workload, _surroundings: &Surroundings<'_>) -> Option<Move> {
        None
    }

    /// Changes of other objects that put back what opening changed there.
    fn tidy(&self, _workload: &Workload, _surroundings: &Surroundings<'_>) -> Option<Change> {
        None
    }
}

/// Pods of the present template that a step asks for.
#[derive(Clone, Copy)]
pub struct Goal<'a> {
    /// The Rollout that asks.
    pub rollout: &'a str,
    /// How they come up.
    pub style: Style,
    /// As many in all.
    pub target: i32,
    /// Those among them that had the present template before the first step.
    pub kept: i32,
    /// As the step says it.
    pub wanted: &'a IntOrString,
    /// So many of them ready are enough to go on.
    pub needed: i32,
    /// The version that is kept for the others.
    pub stable: &'a str,
    /// What stands around the workload.
    pub surroundings: Surroundings<'a>,
    /// The moment.
    pub now: Timestamp,
}

/// The answer to a [`Goal`].
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// It is reached, and what keeps it there is in place.
    Done,
    /// This has to be written first.
    Write(Change),
    /// These pods have to go first, so that others come in their places.
    Replace(Vec<Arc<Value>>),
    /// Something has to happen.
    Wait {
        /// What is waited for.
        reason: String,
        /// When time alone would bring it.
        until: Option<Timestamp>,
    },
}

/// A change of the workload, or of an object that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// API version and kind of the object.
    pub kind: (String, String),
    /// The object as it was read.
    pub object: Arc<Value>,
    /// JSON patch.
    pub operations: Vec<Value>,
}

/// A count in an object, with the API server's default.
pub(crate) fn count(object: &Value, path: &[&str], default: i32) -> i32 {
    int(object, path).and_then(|n| i32::try_from(n).ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_apart_by_prefix() {
        let names = PodNames::Prefixed("web-abc-".to_owned());
        assert!(names.contains("web-abc-x1y2z") && !names.contains("web-abc-def-x1y2z") && !names.contains("web-x"));
    }
}
