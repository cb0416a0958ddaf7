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
mod steering;
mod view;

use std::sync::Arc;

use serde_json::Value;

use crate::api::{keys, object::int};

pub use steering::{Change, Gate, Goal, Move};
pub use view::{PodNames, Revision, Surroundings, Workload};

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

/// A count in an object, with the API server's default.
pub(crate) fn count(object: &Value, path: &[&str], default: i32) -> i32 {
    int(object, path).and_then(|n| i32::try_from(n).ok()).unwrap_or(default)
}
