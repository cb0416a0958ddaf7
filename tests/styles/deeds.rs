//! What is done in the middle of a release, and how that has to end.

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `StepReady` is written, whatever waits.
    ApproveBlindly,
    /// The same twice.
    ApproveTwice,
    /// The plugin approves what it read when the first step waited.
    ApproveOld,
    /// `strategy.paused` for a minute: nothing goes on.
    Freeze,
    /// `strategy.paused`, and back to the stable version (D-22).
    FreezeAndRollBack,
    JumpTo(i64),
    /// The second step is given more pods.
    EditStep,
    AddStep,
    RemoveStep,
    RollBack,
    /// A third version; blue-green wants a rollback first. While finalising it is a release of its own (D-11).
    Third,
    /// v1 → v2 → v3 → v2 → v1.
    ThirdAndAllTheWayBack,
    /// An annotation of the template: another version.
    TouchTemplate,
    /// An annotation of the workload: none.
    TouchWorkload,
    Scale(i64),
    ScaleToZeroAndBack,
    /// The release gets an id, or another one.
    GiveId,
    /// An autoscaler writes every three seconds.
    Autoscale,
    Disable,
    DisableAndEnable,
    Delete,
    DeleteAndCreate,
    WorkloadGone,
    WorkloadAgain,
    ServiceAgain,
    EditService,
    RouteAgain,
    EditRoute,
    /// A tool writes its whole manifest, without our marks (D-12).
    Put,
    NeverReadyThenFixed,
}

use Deed::*;

/// All of them.
pub const DEEDS: &[Deed] = &[
    ApproveBlindly,
    ApproveTwice,
    Freeze,
    FreezeAndRollBack,
    JumpTo(1),
    JumpTo(2),
    EditStep,
    AddStep,
    RemoveStep,
    RollBack,
    Third,
    ThirdAndAllTheWayBack,
    TouchTemplate,
    TouchWorkload,
    Scale(5),
    Scale(2),
    ScaleToZeroAndBack,
    Autoscale,
    Disable,
    DisableAndEnable,
    Delete,
    DeleteAndCreate,
    WorkloadGone,
    WorkloadAgain,
    ServiceAgain,
    EditService,
    RouteAgain,
    EditRoute,
    Put,
    NeverReadyThenFixed,
    ApproveOld,
    GiveId,
];

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Healthy,
    Disabled,
    Gone,
    /// Without a workload.
    Waiting,
}

impl Deed {
    pub fn end(self) -> End {
        match self {
            Disable => End::Disabled,
            Delete => End::Gone,
            WorkloadGone => End::Waiting,
            _ => End::Healthy,
        }
    }

    /// The version that is wanted in the end.
    pub fn wanted(self) -> &'static str {
        match self {
            FreezeAndRollBack | RollBack | ThirdAndAllTheWayBack | WorkloadAgain => "base",
            Third | NeverReadyThenFixed => "third",
            _ => "canary",
        }
    }

    /// It takes pods away by itself.
    pub fn takes_pods(self) -> bool {
        matches!(self, Scale(_) | ScaleToZeroAndBack | Autoscale | WorkloadGone | WorkloadAgain)
    }

    /// New pods may come up without an approval: nobody holds them, or a jump allows it.
    pub fn opens(self) -> bool {
        matches!(
            self,
            Disable
                | DisableAndEnable
                | Delete
                | DeleteAndCreate
                | JumpTo(_)
                | EditStep
                | AddStep
                | RemoveStep
                | ApproveBlindly
                | ApproveTwice
        ) || self.takes_pods()
    }

    /// Fewer pods may be ready than are wanted for a while.
    pub fn may_lack_pods(self, style: &str) -> bool {
        // Of two versions that go, the Deployment's controller takes the older one's pods first, ready or not.
        self.takes_pods() || (self == NeverReadyThenFixed && style == "partition")
    }
}
