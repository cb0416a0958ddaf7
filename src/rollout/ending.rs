//! Why a release is wound up, and in which order.

use crate::workload::Style;

/// Why a release is wound up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All steps are done.
    Success,
    /// The template went back to stable.
    Rollback,
    /// A newer template arrived: only routes and canary go.
    Restart,
    /// `spec.disabled`: the workload goes on natively.
    Disabled,
    /// The Rollout is deleted: the workload goes on natively.
    Deleted,
    /// The workload is gone.
    WorkloadGone,
}

/// One part of winding up; the names are those of `finalisingStep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    RouteTrafficToNew,
    RestoreStableService,
    RouteTrafficToStable,
    RemoveCanaryService,
    ResumeWorkload,
    ReleaseWorkloadControl,
}

impl Part {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Part::RouteTrafficToNew => "FinalisingStepRouteTrafficToNew",
            Part::RestoreStableService => "RestoreStableService",
            Part::RouteTrafficToStable => "FinalisingStepRouteTrafficToStable",
            Part::RemoveCanaryService => "RemoveCanaryService",
            Part::ResumeWorkload => "ResumeWorkload",
            Part::ReleaseWorkloadControl => "ReleaseWorkloadControl",
        }
    }
}

pub(super) const END: &str = "END";

impl Ending {
    /// The order of contract 4.10: requests leave pods before the pods go.
    pub(super) fn parts(self, style: Style) -> &'static [Part] {
        use Part::*;
        match self {
            Ending::Success if style == Style::BlueGreen => &[
                RouteTrafficToNew,
                RestoreStableService,
                ResumeWorkload,
                RouteTrafficToStable,
                RemoveCanaryService,
                ReleaseWorkloadControl,
            ],
            Ending::Rollback if style == Style::BlueGreen => &[
                RouteTrafficToStable,
                ResumeWorkload,
                RestoreStableService,
                RemoveCanaryService,
                ReleaseWorkloadControl,
            ],
            // The old set is gone already, or this ending would have been refused.
            Ending::Restart if style == Style::BlueGreen => {
                &[RestoreStableService, RouteTrafficToStable, RemoveCanaryService]
            }
            Ending::Success => &[
                RestoreStableService,
                RouteTrafficToStable,
                RemoveCanaryService,
                ResumeWorkload,
                ReleaseWorkloadControl,
            ],
            // After a rollback the Service keeps its pin until the canary is gone. Where pods of the new version stay, a
            // part that comes twice would wait for its grace time again and again.
            Ending::Disabled | Ending::Deleted if style == Style::Canary => &[
                RestoreStableService,
                RouteTrafficToStable,
                RemoveCanaryService,
                ResumeWorkload,
                ReleaseWorkloadControl,
                RestoreStableService,
            ],
            Ending::Disabled | Ending::Deleted => &[
                RestoreStableService,
                RouteTrafficToStable,
                RemoveCanaryService,
                ResumeWorkload,
                ReleaseWorkloadControl,
            ],
            Ending::Rollback => &[
                RouteTrafficToStable,
                ResumeWorkload,
                ReleaseWorkloadControl,
                RestoreStableService,
                RemoveCanaryService,
            ],
            // The stable Service keeps its pin: the release goes on.
            Ending::Restart => &[RouteTrafficToStable, RemoveCanaryService, ReleaseWorkloadControl],
            Ending::WorkloadGone => {
                &[RestoreStableService, RouteTrafficToStable, RemoveCanaryService, ReleaseWorkloadControl]
            }
        }
    }
}
