//! What a decision wants: effects, the whole status, events, and the next moment that matters.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::calls::Call;
use crate::{
    analysis::ask::Ask,
    api::{
        conditions::{self, types},
        object::ObjectRef,
        v1beta1::RolloutStatus,
    },
    traffic::routes::RouteWrite,
};

/// What a decision wants done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan<S = RolloutStatus> {
    /// Writes, in order. Each is idempotent; the first failure ends the pass.
    pub effects: Vec<Effect>,
    /// The whole desired status.
    pub status: S,
    /// What a person should read, once the status is stored.
    pub events: Vec<Event>,
    /// When to look again even if nothing changes.
    pub requeue: Option<Timestamp>,
    /// What is to be asked of metrics servers; nothing else is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Ask>,
    /// What is to be sent to servers of the user's; nothing else is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
    /// Somebody is told of the release; or nobody knows who, as that cannot be read.
    #[serde(skip)]
    pub has_listeners: bool,
}

/// One write, or one group of writes that belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "effect")]
pub enum Effect {
    /// Changes fields of an object. The API server refuses it when the object changed since it was read.
    Patch {
        /// Why.
        purpose: Purpose,
        /// The object.
        target: ObjectRef,
        /// The version that was read.
        resource_version: String,
        /// JSON patch operations.
        operations: Vec<Value>,
    },
    /// Creates an object of ours or makes it as described, by server-side apply; its status after it.
    Apply {
        /// Why.
        purpose: Purpose,
        /// The object.
        object: Value,
    },
    /// Deletes an object of ours.
    Delete {
        /// Why.
        purpose: Purpose,
        /// The object.
        target: ObjectRef,
        /// Only this very object.
        uid: String,
        /// It stays, being deleted, until everything that it owns is gone.
        foreground: bool,
    },
    /// Changes objects that route. All are tried by a dry run before the first is written.
    Routes {
        /// Why.
        purpose: Purpose,
        /// The changes, in order.
        writes: Vec<RouteWrite>,
        /// Changes that follow in a later pass; the API server must accept them now.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tried: Vec<RouteWrite>,
    },
}

/// What an effect is for: names it in logs, metrics and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Purpose {
    /// Puts our finalizer on the Rollout.
    AddFinalizer,
    /// Lets the Rollout go.
    RemoveFinalizer,
    /// Switches the hold of the workload on.
    WatchWorkload,
    /// Stops a change that was not held in time.
    HoldWorkload,
    /// Lets the workload roll as far as the step says.
    OpenWorkload,
    /// Sets the template back to the stable revision's, because a step failed.
    RollBack,
    /// Deletes a pod in whose place another comes.
    ReplacePod,
    /// Labels a new pod with the user's id of the release and the step.
    LabelPod,
    /// Brings canary pods up.
    ScaleCanary,
    /// Restricts the stable Service to stable pods.
    PinStableService,
    /// Takes that restriction away.
    UnpinStableService,
    /// Makes the canary Service.
    CreateCanaryService,
    /// Removes it.
    DeleteCanaryService,
    /// Routes as the step says.
    RouteStep,
    /// Routes as before the release.
    RestoreRoutes,
    /// Asks a shared TrafficRouting to route.
    ShareRoutes,
    /// Needs it no more, or cleans up after a Rollout that is gone.
    LeaveRoutes,
    /// Lets the workload roll to its template.
    ResumeWorkload,
    /// Removes the canary Deployment.
    DeleteCanary,
    /// Takes our marks off the workload and puts the user's fields back.
    ReleaseWorkload,
    /// Records what a release that has ended consisted of.
    RecordHistory,
    /// Removes the record of an older one.
    DropHistory,
    /// Runs the Job of a gate.
    RunJob,
}

impl Purpose {
    /// Whether it takes requests away from pods in favour of others: undone by whoever winds the release up, it must not be
    /// done once more by who has not heard of that.
    pub fn moves_requests(self) -> bool {
        matches!(self, Purpose::PinStableService | Purpose::RouteStep)
    }
}

impl Effect {
    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        match self {
            Effect::Patch { purpose, .. }
            | Effect::Apply { purpose, .. }
            | Effect::Delete { purpose, .. }
            | Effect::Routes { purpose, .. } => *purpose,
        }
    }

    /// Whether it changes this one object in place.
    pub fn is_patch_of(&self, object: &ObjectRef) -> bool {
        matches!(self, Effect::Patch { target, .. } if target == object)
    }
}

/// Something that a person should read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Something is wrong.
    pub is_warning: bool,
    /// One word; see [`crate::api::conditions::reasons`].
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Says in a status that a person must mend something. The event is for the first time: the same trouble again is no
/// news, and its condition stays as `before` has it.
pub fn stall(
    status: &mut RolloutStatus,
    before: Option<&RolloutStatus>,
    reason: &'static str,
    message: &str,
    now: Timestamp,
) -> Option<Event> {
    let known = before.and_then(|s| conditions::find(&s.conditions, types::STALLED));
    conditions::remove(&mut status.conditions, types::STALLED);
    status.conditions.extend(known.cloned());
    conditions::set(&mut status.conditions, types::STALLED, true, reason, message, now);
    message.clone_into(&mut status.message);
    let is_news = known.is_none_or(|c| c.reason != reason || c.message != message);
    is_news.then(|| Event { is_warning: true, reason, message: message.to_owned() })
}
