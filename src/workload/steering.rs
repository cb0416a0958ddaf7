//! What the state machine wants of a workload, and what its kind answers.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{Style, Surroundings, Workload};

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

    /// Beside the pods of older versions its own controller makes no more of the present template, though fewer than a
    /// target are there, however long one waits.
    fn is_at_most(&self, _workload: &Workload, _target: i32) -> bool {
        false
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

#[cfg(test)]
impl<'a> Goal<'a> {
    /// So many new pods in place, all of them ready, by a Rollout `r`.
    pub(super) fn to(target: i32, wanted: &'a IntOrString, surroundings: Surroundings<'a>) -> Goal<'a> {
        let (rollout, style, now) = ("r", Style::Partition, Timestamp::UNIX_EPOCH);
        Goal { rollout, style, target, kept: 0, wanted, needed: target, stable: "", surroundings, now }
    }
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
