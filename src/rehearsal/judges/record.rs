//! What has happened so far, as far as judges need it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    barriers, by_controller,
    plan::PlannedStep,
    routes::{self, Seen, Sent},
};
use crate::{
    api::object::{at, int, text},
    rehearsal::{
        script::Setup,
        world::{Eyes, release, revision},
    },
    sim::Write,
};

mod hearing;

/// What a deed of a person or of chance may break by itself, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Requests fail because somebody took what they need.
    Requests,
    /// Pods go or are unready without the controller's doing.
    Pods,
    /// The controller's clock jumped over a grace time.
    Grace,
    /// A Deployment was shut in the middle of rolling by itself: its own controller shares out what it may surge among the
    /// versions that have pods, also while it is paused.
    Sharing,
}

/// What has happened so far.
#[derive(Default)]
pub struct Record {
    /// The workload ran and the Rollout was about to be made: judges look from here on.
    pub is_open: bool,
    /// No fault strikes and no second process runs; set for good when the schedule has ended.
    pub is_calm: bool,
    /// The version that is released; another may roll only when all its steps are approved.
    pub stable: String,
    /// The Rollout is disabled, going or gone.
    pub is_let_go: bool,
    /// The version that the workload's template has.
    pub wanted: String,
    /// Versions by the digests under which statuses name them.
    pub revisions: BTreeMap<String, String>,
    /// Versions that may run beside it.
    pub free: BTreeSet<String>,
    /// When the last pause of a version ends.
    pub free_from: Option<(Timestamp, String)>,
    /// Since when a version that was free is none any more.
    pub revoked: BTreeMap<String, Timestamp>,
    /// The workload was scaled down while a version was wanted that never becomes ready.
    pub is_stranded: bool,
    /// Pods of other versions than the wanted one that somebody took from a DaemonSet, of either kind, since it is wanted.
    pub lost: i64,
    /// Which release it is, from 1.
    pub release: u64,
    /// Releases, revisions and steps that a person approved.
    pub approvals: BTreeSet<(u64, String, i64)>,
    /// The plan as it is, and whether it changed since the controller last looked.
    pub plan: Vec<PlannedStep>,
    pub is_plan_new: bool,
    /// Where a person pointed.
    pub jumps: BTreeSet<i64>,
    /// Since when the present step has been paused.
    pub paused_since: Option<Timestamp>,
    /// When requests last had a way to the new version, and the share of plain and of marked requests (percent).
    pub last_routed: Option<Timestamp>,
    pub seen: Seen,
    /// When anybody but the controller last wrote, and when the controller did.
    pub last_cause: Option<Timestamp>,
    pub last_write: Option<Timestamp>,
    /// The fewest and the most pods that the workload wanted lately, and until when that counts.
    pub fewest: Option<(i64, Timestamp)>,
    pub most: Option<(i64, Timestamp)>,
    /// Versions of which a release has begun.
    pub begun: BTreeSet<String>,
    /// A step was not in place in time; it was rolled back for that; a release was recorded.
    pub has_failed: bool,
    pub has_rolled_back: bool,
    pub has_history: bool,
    /// Since when the metrics of the present step are measured.
    pub measured_since: Option<Timestamp>,
    /// Releases, revisions and steps whose metrics were good.
    pub promoted: BTreeSet<(u64, String, i64)>,
    /// Releases and steps whose gate was passed.
    pub gates: BTreeSet<(u64, i64)>,
    /// Barriers that were met.
    pub met: BTreeSet<&'static str>,
    excuses: BTreeMap<Topic, Timestamp>,
}

impl Record {
    /// Until then nobody is accused of this.
    pub fn excuse(&mut self, topic: Topic, until: Timestamp) {
        let excuse = self.excuses.entry(topic).or_insert(until);
        *excuse = until.max(*excuse);
    }

    /// Nobody is there who could put things in order: what is excused stays so for longer.
    pub fn excuse_longer(&mut self, now: Timestamp, seconds: i64) {
        for until in self.excuses.values_mut().filter(|until| now <= **until) {
            *until += SignedDuration::from_secs(seconds);
        }
    }

    pub fn is_excused(&self, topic: Topic, now: Timestamp) -> bool {
        self.excuses.get(&topic).is_some_and(|until| now <= *until)
    }

    /// Whether all steps after one pass by themselves.
    fn is_last(&self, index: i64, revision: &str) -> bool {
        let count = i64::try_from(self.plan.len()).unwrap_or_default();
        (index + 1..=count).all(|step| self.passes(step, revision))
    }

    /// After the judges: what the controller did, and how things are now.
    pub fn conclude(&mut self, write: &Write, sent: &Sent, eyes: &Eyes, setup: &Setup) {
        let is_ours = by_controller(write);
        if is_ours {
            self.last_write = Some(write.time);
            self.has_history |= write.gvr.resource == "rollouthistories";
            let failed = |o: &Value| int(release(o), &["failedStepIndex"]).is_some();
            self.has_failed |= write.gvr.resource == "rollouts" && write.after.as_deref().is_some_and(failed);
        } else {
            self.last_cause = Some(write.time);
        }
        if routes::concerns(write, setup) {
            let seen = routes::look(self, sent, eyes);
            if seen.leads_to_canary || self.seen.leads_to_canary {
                self.last_routed = Some(write.time);
            }
            self.seen = seen;
        }
        let (Some(after), "rollouts", true) = (&write.after, write.gvr.resource.as_str(), is_ours) else { return };
        let null = Value::Null;
        let lets_go = ["Disabling", "Disabled", "Terminating"].contains(&text(after, &["status", "phase"]));
        self.is_let_go = lets_go || at(after, &["spec", "disabled"]) == Some(&Value::Bool(true));
        let before = write.before.as_deref().unwrap_or(&null);
        if starts_release(before, after) {
            self.release += 1;
            self.begun.extend(self.releasing(after).cloned());
            self.paused_since = None;
            self.jumps.clear();
        }
        let sub = |o: &Value, field: &str| text(release(o), &[field]).to_owned();
        let index = |o: &Value| int(release(o), &["currentStepIndex"]);
        if index(before) != index(after) {
            self.jumps.clear();
        }
        if sub(after, "currentStepState") != "StepPaused" {
            self.paused_since = None;
        } else if sub(before, "currentStepState") != "StepPaused" || index(before) != index(after) {
            self.paused_since = Some(write.time);
        }
        self.meet_barriers(before, after, write.time);
        self.expect_end(after, write.time);
        if sub(before, "rolloutHash") != sub(after, "rolloutHash") {
            self.is_plan_new = false;
        }
        self.free_what_is_approved(after);
        let completed =
            |o: &Value| text(o, &["status", "phase"]) == "Healthy" && sub(o, "currentStepState") == "Completed";
        if completed(after) && (!completed(before) || sub(before, "stableRevision") != sub(after, "stableRevision")) {
            let now = eyes.version_of(&sub(after, "stableRevision"));
            if !now.is_empty() {
                // Pods of the version before may still be on their way out.
                let old = std::mem::replace(&mut self.stable, now);
                self.free.insert(old);
            }
        }
    }

    /// What the controller says of barriers.
    fn meet_barriers(&mut self, before: &Value, after: &Value, now: Timestamp) {
        let state = |o: &Value| text(release(o), &["currentStepState"]) == "StepMetricsAnalysis";
        let index = int(release(after), &["currentStepIndex"]).unwrap_or_default();
        // Scaled meanwhile, a step may have gone back to bringing up pods; it goes on to be measured.
        let goes_on = !barriers::measured(before).is_empty();
        if state(after) && !goes_on && (!state(before) || int(release(before), &["currentStepIndex"]) != Some(index)) {
            self.measured_since = Some(now);
        }
        match barriers::measured(after) {
            "Passed" => {
                self.promoted.insert((self.release, revision(after).to_owned(), index));
                self.met.insert("metric-passed");
            }
            "Failed" => {
                self.met.insert("metric-failed");
            }
            "Inconclusive" => {
                self.met.insert("metric-unclear");
            }
            _ => {}
        }
        let message = text(after, &["status", "message"]);
        for (is, met) in [
            (message.contains(" waits until "), "outside-hours"),
            (at(after, &["status", "slot"]).is_some(), "in-line"),
            (at(release(after), &["analysis", "background"]).is_some(), "background-metric"),
        ] {
            if is {
                self.met.insert(met);
            }
        }
    }

    /// The present step passes by itself, and no other waits for a person.
    fn expect_end(&mut self, after: &Value, now: Timestamp) {
        let sub = release(after);
        let index = int(sub, &["currentStepIndex"]).unwrap_or_default();
        let planned = self.planned(index);
        let pause = planned.and_then(|p| p.pause.or(p.is_free.then_some(0)));
        let state = text(sub, &["currentStepState"]);
        // Without a pause it may be left in the pass that ends it.
        let since = match self.waits_since(revision(after), index) {
            Some(since) => since,
            None if pause == Some(0) && state != "BeforeStepUpgrade" => now,
            None => return,
        };
        if let (Some(seconds), Some(version)) = (pause, self.releasing(after).cloned())
            && self.is_last(index, revision(after))
        {
            self.free_from = Some((since + SignedDuration::from_secs(seconds - 1), version));
        }
    }

    /// All steps are done: the version that went through them may run.
    fn free_what_is_approved(&mut self, after: &Value) {
        let conditions = at(after, &["status", "conditions"]).and_then(Value::as_array);
        let finalises = conditions.into_iter().flatten().any(|c| text(c, &["reason"]) == "Finalising");
        if let Some(version) = self.revisions.get(revision(after)).filter(|_| finalises) {
            self.free.insert(version.clone());
        }
    }

    /// Since when a step runs its pause: one whose metrics were good, since it was in place.
    pub fn waits_since(&self, revision: &str, step: i64) -> Option<Timestamp> {
        let is_promoted = self.promoted.contains(&(self.release, revision.to_owned(), step));
        match self.measured_since.filter(|_| is_promoted) {
            Some(measured) => Some(self.paused_since.map_or(measured, |paused| paused.min(measured))),
            None => self.paused_since,
        }
    }

    /// The version that a stored status releases.
    pub fn releasing(&self, rollout: &Value) -> Option<&String> {
        self.revisions.get(revision(rollout))
    }

    fn fewest(&self, now: Timestamp) -> Option<i64> {
        self.fewest.filter(|(_, until)| now <= *until).map(|(n, _)| n)
    }

    /// Pods that the workload wants, or wanted a moment ago if that was less.
    pub fn replicas(&self, eyes: &Eyes, now: Timestamp) -> i64 {
        let wanted = eyes.replicas().unwrap_or(0);
        self.fewest(now).map_or(wanted, |n| n.min(wanted))
    }

    /// Pods that the workload wants, or wanted a moment ago if that was more.
    pub fn most_replicas(&self, eyes: &Eyes, now: Timestamp) -> i64 {
        let wanted = eyes.replicas().unwrap_or(0);
        self.most.filter(|(_, until)| now <= *until).map_or(wanted, |(n, _)| n.max(wanted))
    }

    /// A step of the plan, by its number.
    pub fn planned(&self, index: i64) -> Option<&PlannedStep> {
        usize::try_from(index - 1).ok().and_then(|i| self.plan.get(i))
    }

    /// Whether a version may run outside the canary.
    pub fn may_run(&self, version: &str) -> bool {
        self.stable == version || self.free.contains(version)
    }

    /// Whether a release of a version has begun, or begins.
    pub fn was_released(&self, version: &str) -> bool {
        self.wanted == version || self.begun.contains(version)
    }

    /// Whether a step lets go on without a person.
    pub fn passes(&self, step: i64, revision: &str) -> bool {
        let planned = self.planned(step);
        self.approvals.contains(&(self.release, revision.to_owned(), step))
            || self.promoted.contains(&(self.release, revision.to_owned(), step))
            || planned.is_none_or(|p| p.pause.is_some() || p.is_free)
    }
}

/// Whether a status begins a release: another revision, or the first of one.
pub fn starts_release(before: &Value, after: &Value) -> bool {
    let phase = |o: &Value| text(o, &["status", "phase"]).to_owned();
    phase(after) == "Progressing" && (phase(before) != "Progressing" || revision(before) != revision(after))
}
