//! What has happened so far, as far as judges need it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use tidegate::{cli::demo::world::CONTROLLER, sim::Write};

use super::routes;
use crate::{
    scenario::BASE,
    world::{CANARY, Eyes, WORKLOAD, version},
};

/// Steps of the story's Rollout.
pub const STEPS: i64 = 2;

/// What has happened so far.
pub struct Record {
    /// The workload ran and the Rollout was about to be made: judges look from here on.
    pub is_open: bool,
    /// Neither crashes nor faults disturb the controller.
    pub is_calm: bool,
    /// The version that is released; another may roll only when all its steps are approved.
    pub stable: String,
    /// Versions that may run beside it.
    pub approved_versions: BTreeSet<String>,
    /// The Rollout was disabled or deleted: the workload is on its own.
    pub is_native: bool,
    /// Which release it is, from 1.
    pub release: u64,
    /// Releases, revisions and steps that a person approved.
    pub approvals: BTreeSet<(u64, String, i64)>,
    /// When requests last had a way to the canary.
    pub last_routed: Option<Timestamp>,
    /// When anybody but the controller last wrote, and when the controller did.
    pub last_cause: Option<Timestamp>,
    pub last_write: Option<Timestamp>,
}

impl Record {
    pub fn new(is_calm: bool) -> Self {
        Record {
            is_open: false,
            is_calm,
            stable: BASE.to_owned(),
            approved_versions: BTreeSet::new(),
            is_native: false,
            release: 0,
            approvals: BTreeSet::new(),
            last_routed: None,
            last_cause: None,
            last_write: None,
        }
    }

    /// Before the judges: what people did.
    pub fn listen(&mut self, write: &Write, eyes: &Eyes) {
        if &*write.identity == CONTROLLER {
            return;
        }
        let null = Value::Null;
        let (before, after) = (write.before.as_deref().unwrap_or(&null), write.after.as_deref().unwrap_or(&null));
        match (&*write.identity, write.gvr.resource.as_str()) {
            ("user", "deployments") if write.name == WORKLOAD => {
                let wanted = version(&after["spec"]["template"]["spec"]);
                if version(&before["spec"]["template"]["spec"]) != wanted {
                    // What was approved before was approved for another release.
                    self.approved_versions.remove(wanted);
                }
            }
            ("user", "rollouts") => {
                if after["metadata"].get("deletionTimestamp").is_some()
                    || after.is_null()
                    || after["spec"]["disabled"] == true
                {
                    self.is_native = true;
                }
                let state = |o: &Value| o["status"]["canaryStatus"]["currentStepState"].clone();
                if state(after) == "StepReady" && state(before) != "StepReady" {
                    let sub = &after["status"]["canaryStatus"];
                    let step = sub["currentStepIndex"].as_i64().unwrap_or_default();
                    let revision = sub["canaryRevision"].as_str().unwrap_or_default().to_owned();
                    self.approvals.insert((self.release, revision, step));
                    if step == STEPS
                        && let Some(canary) = eyes.deployment(CANARY)
                    {
                        self.approved_versions.insert(version(&canary["spec"]["template"]["spec"]).to_owned());
                    }
                }
            }
            _ => {}
        }
    }

    /// After the judges: what the controller did.
    pub fn conclude(&mut self, write: &Write, eyes: &Eyes) {
        if &*write.identity == CONTROLLER {
            self.last_write = Some(write.time);
        } else {
            self.last_cause = Some(write.time);
        }
        if let ("virtualservices", Some(before)) = (write.gvr.resource.as_str(), &write.before)
            && routes::leads_to_canary(before)
        {
            self.last_routed = Some(write.time);
        }
        let (Some(after), "rollouts", CONTROLLER) = (&write.after, write.gvr.resource.as_str(), &*write.identity)
        else {
            return;
        };
        let null = Value::Null;
        let before = write.before.as_deref().unwrap_or(&null);
        if starts_release(before, after) {
            self.release += 1;
        }
        let (old, new) = (&before["status"], &after["status"]);
        let completed = |s: &Value| s["phase"] == "Healthy" && s["canaryStatus"]["currentStepState"] == "Completed";
        if completed(new) && !completed(old) {
            let revision = new["canaryStatus"]["stableRevision"].as_str().unwrap_or_default();
            let set = eyes.replica_set(&format!("{WORKLOAD}-{revision}"));
            if let Some(set) = set {
                // Pods of the version before may still be on their way out.
                let now = version(&set["spec"]["template"]["spec"]).to_owned();
                self.approved_versions.insert(std::mem::replace(&mut self.stable, now));
            }
        }
    }

    /// Whether a version of the workload may run outside the canary.
    pub fn may_run(&self, version: &str) -> bool {
        self.is_native || self.stable == version || self.approved_versions.contains(version)
    }
}

/// Whether a status begins a release: another revision, or the first of one.
pub fn starts_release(before: &Value, after: &Value) -> bool {
    let (old, new) = (&before["status"], &after["status"]);
    new["phase"] == "Progressing"
        && (old["phase"] != "Progressing"
            || old["canaryStatus"]["canaryRevision"] != new["canaryStatus"]["canaryRevision"])
}
