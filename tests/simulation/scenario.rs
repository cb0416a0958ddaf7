//! What the people in the story do, and when.

use std::{ops::RangeInclusive, time::Duration};

/// A story with its people.
#[derive(Debug, PartialEq)]
pub struct Scenario {
    /// Names it.
    pub name: &'static str,
    /// The controller makes a canary Service.
    pub generated_service: bool,
    /// What is done, in order, after the Rollout is healthy. Approvals come by themselves.
    pub deeds: &'static [(Moment, Deed)],
}

/// When something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// Within so many milliseconds of the deed before.
    Within(u64),
    /// When this step waits for approval, in place of the approval.
    Paused(i64),
    /// Within so many milliseconds of the last step's approval.
    Approved(u64),
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    /// The template mounts this ConfigMap.
    Template(&'static str),
    /// The same, and an approval of what was seen before, at once.
    TemplateAndLateApproval(&'static str),
    /// The Rollout is deleted.
    Delete,
    /// The Rollout is disabled.
    Disable,
    /// Somebody labels and changes the VirtualService and the DestinationRule elsewhere.
    EditRoutes,
    /// The template is sent again as it was, with the hold's marks dropped, by a tool that writes whole manifests.
    PutManifest,
}

pub const BASE: &str = "nginx-configmap-base";
pub const NEW: &str = "nginx-configmap-canary";
pub const THIRD: &str = "nginx-configmap-third";

use Deed::{Delete, Disable, EditRoutes, PutManifest, Template, TemplateAndLateApproval};
use Moment::{Approved, Paused, Within};

const START: (Moment, Deed) = (Within(3000), Template(NEW));

macro_rules! scenarios {
    ($($name:literal, $generated:literal, [$($deed:expr),*];)*) => {
        /// All of them; the first is the story itself.
        pub static SCENARIOS: &[Scenario] = &[
            $(Scenario { name: $name, generated_service: $generated, deeds: &[START, $($deed),*] }),*
        ];
    };
}

scenarios! {
    "story", false, [];
    "generated-service", true, [];
    "rollback-at-1", false, [(Paused(1), Template(BASE))];
    "rollback-at-2", false, [(Paused(2), Template(BASE))];
    "rollback-early", false, [(Within(9000), Template(BASE))];
    "rollback-late", false, [(Approved(20000), Template(BASE))];
    "generated-rollback-at-1", true, [(Paused(1), Template(BASE))];
    "generated-rollback-at-2", true, [(Paused(2), Template(BASE))];
    "generated-rollback-early", true, [(Within(12000), Template(BASE))];
    "generated-rollback-late", true, [(Approved(20000), Template(BASE))];
    "delete-at-1", false, [(Paused(1), Delete)];
    "delete-early", false, [(Within(9000), Delete)];
    "delete-late", false, [(Approved(15000), Delete)];
    "generated-delete-at-2", true, [(Paused(2), Delete)];
    "disable-at-1", false, [(Paused(1), Disable)];
    "disable-at-2", false, [(Paused(2), Disable)];
    "disable-early", false, [(Within(9000), Disable)];
    "generated-disable-at-1", true, [(Paused(1), Disable)];
    "third-at-1", false, [(Paused(1), Template(THIRD))];
    "third-at-2", false, [(Paused(2), Template(THIRD))];
    "third-early", false, [(Within(9000), Template(THIRD))];
    "third-late", false, [(Approved(20000), Template(THIRD))];
    "third-with-late-approval", false, [(Paused(1), TemplateAndLateApproval(THIRD))];
    "third-and-back", false, [(Paused(2), Template(THIRD)), (Within(15000), Template(BASE))];
    "third-and-second", false, [(Paused(1), Template(THIRD)), (Within(8000), Template(NEW))];
    "generated-third-at-2", true, [(Paused(2), Template(THIRD))];
    "generated-third-late", true, [(Approved(20000), Template(THIRD))];
    "edited-routes", false, [(Paused(1), EditRoutes)];
    "edited-routes-rollback", false, [(Paused(1), EditRoutes), (Paused(2), Template(BASE))];
    "put-manifest", false, [(Paused(1), PutManifest), (Within(5000), PutManifest)];
}

/// How long a person thinks.
pub const THINKING: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(40);
