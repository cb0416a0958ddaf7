//! What can happen in a rehearsal, and when.

use super::{State, names};

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Milliseconds after the curtain.
    At(u64),
    /// Milliseconds after the Rollout was first stored in a state of a step.
    In(State, i64, u64),
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub when: When,
    /// What.
    pub act: Act,
}

/// What happens, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub kind: Kind,
    /// How much, for how long, or which; the row of [`ACTS`] says.
    pub arg: i64,
}

/// What can happen: one row of [`ACTS`].
#[derive(Debug)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// How often it is drawn beside the others of its class.
    pub weight: u64,
    /// A fault, not a moment.
    pub is_fault: bool,
    /// The least number.
    pub low: i64,
    /// The greatest.
    pub high: i64,
}

macro_rules! acts {
    ($($(#[$doc:meta])* $kind:ident = $text:literal, $fault:literal, $weight:literal, $range:expr;)*) => {
        names! {
            /// What can happen; the documentation tells what the number means.
            Kind { $($(#[$doc])* $kind = $text,)* }
        }

        /// Every moment and every fault.
        pub const ACTS: &[Row] = &[$(Row {
            kind: Kind::$kind, weight: $weight, is_fault: $fault, low: *$range.start(), high: *$range.end(),
        },)*];
    };
}

acts! {
    /// A new version of the template is pushed: its number.
    Template = "template", false, 8, (2..=4);
    /// The template is touched by an annotation only: its number.
    Touch = "touch", false, 3, (1..=3);
    /// A version that never becomes ready is pushed: its number.
    Unready = "unready", false, 3, (5..=6);
    /// A version that crash-loops is pushed: its number.
    CrashLoop = "crash-loop", false, 2, (7..=8);
    /// The template goes back to the stable version.
    Rollback = "rollback", false, 9, (0..=0);
    /// The waiting step is approved twice at once.
    ApproveTwice = "approve-twice", false, 3, (0..=0);
    /// `StepReady` is written, whatever the state.
    ApproveBlindly = "approve-blindly", false, 3, (0..=0);
    /// The step before is approved by the plugin from an old read.
    ApproveOld = "approve-old", false, 3, (0..=0);
    /// `strategy.paused` for so many seconds.
    Freeze = "freeze", false, 4, (1..=60);
    /// `nextStepIndex` points to this step.
    Jump = "jump", false, 4, (1..=4);
    /// A step is put before the last one.
    AddStep = "add-step", false, 2, (0..=0);
    /// The last step is removed, if another is left.
    RemoveStep = "remove-step", false, 2, (0..=0);
    /// The weight or the replicas of this step are changed.
    EditStep = "edit-step", false, 3, (1..=4);
    /// The workload is scaled to so many pods.
    Scale = "scale", false, 6, (0..=9);
    /// An autoscaler writes every three seconds, for so many seconds.
    Hpa = "hpa", false, 3, (6..=60);
    /// Disabled, and enabled again after so many seconds; 0 is never.
    Disable = "disable", false, 4, (0..=60);
    /// The Rollout is deleted, and created again so many seconds after it has gone; 0 is never.
    Delete = "delete", false, 4, (0..=60);
    /// The workload is deleted, and created again after so many seconds.
    WorkloadGone = "workload-gone", false, 2, (1..=30);
    /// The Service is deleted, and created again after so many seconds.
    ServiceGone = "service-gone", false, 2, (1..=30);
    /// The route is deleted, and created again after so many seconds.
    RouteGone = "route-gone", false, 2, (1..=30);
    /// Somebody changes other fields of route and rule.
    EditRoutes = "edit-routes", false, 4, (1..=9);
    /// Somebody changes other fields of the Service.
    EditService = "edit-service", false, 2, (1..=9);
    /// A tool that knows nothing of us writes the whole Deployment.
    Put = "put", false, 4, (0..=0);
    /// A person deletes the canary Deployment.
    CanaryGone = "canary-gone", false, 2, (0..=0);
    /// The release gets an id.
    Id = "rollout-id", false, 2, (1..=9);

    /// Writes are refused with 409, for so many seconds.
    Conflict = "conflict", true, 3, (1..=40);
    /// Requests are refused with 429.
    TooManyRequests = "too-many-requests", true, 3, (1..=40);
    /// Requests fail with 500.
    InternalError = "internal-error", true, 3, (1..=40);
    /// Requests get lost.
    TimeoutBefore = "timeout-before", true, 3, (1..=40);
    /// Writes are done, but their answers get lost.
    TimeoutAfter = "timeout-after", true, 3, (1..=40);
    /// Answers take their time.
    Latency = "latency", true, 2, (1..=40);
    /// New watches break after some events, which are lost.
    WatchGap = "watch-gap", true, 3, (1..=40);
    /// All watches break now.
    WatchBreak = "watch-break", true, 3, (0..=0);
    /// Watches that begin now bring their events late.
    Stale = "stale-cache", true, 3, (1..=40);
    /// Watches that begin now bring events twice.
    Duplicate = "duplicate-events", true, 3, (1..=40);
    /// A pod becomes unready for so many seconds.
    Flap = "flap", true, 3, (1..=15);
    /// A pod is deleted.
    Evict = "evict", true, 2, (0..=0);
    /// The controller dies after so many more writes.
    Crash = "crash", true, 8, (0..=14);
    /// The controller is away for so many minutes.
    Away = "away", true, 2, (10..=180);
    /// A second controller runs for so many seconds.
    Twins = "twins", true, 3, (5..=30);
    /// The controller's clock jumps by so many seconds.
    Clock = "clock", true, 3, (-90..=90);
}

impl Row {
    /// The row of a kind.
    pub fn of(kind: Kind) -> Option<&'static Row> {
        ACTS.iter().find(|r| r.kind == kind)
    }
}

impl Kind {
    /// A fault, not a moment.
    pub fn is_fault(self) -> bool {
        Row::of(self).is_some_and(|r| r.is_fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        assert!(Kind::ALL.iter().all(|k| Row::of(*k).is_some()));
        assert_eq!(Kind::ALL.len(), ACTS.len());
    }
}
