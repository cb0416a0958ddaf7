//! What has happened so far, as far as judges need it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    barriers, by_controller,
    routes::{self, Seen, Sent},
    words::is_winding_up,
};
use crate::{
    api::{
        keys,
        object::{self, at, digest, int, text},
    },
    rehearsal::{
        script::{Gateway, Managed, Setup, Style},
        world::{Eyes, WORKLOAD, release, revision, strategy, version},
    },
    sim::{NEVER_READY, Write},
};

/// What a deed of a person or of chance may break by itself, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Requests fail because somebody took what they need.
    Requests,
    /// Pods go or are unready without the controller's doing.
    Pods,
    /// The controller's clock jumped over a grace time.
    Grace,
}

/// A step, as judges need it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// Pods of the new version.
    pub replicas: Replicas,
    /// Percent of plain requests.
    pub weight: i64,
    /// Whether requests with the header are routed.
    pub by_header: bool,
    /// It routes nothing, so that pods of both versions answer for the Service.
    pub is_open: bool,
    /// It passes by itself: after seconds, or because it is the last with all pods.
    pub pause: Option<i64>,
    pub is_free: bool,
}

/// Pods, as a step asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    Count(i64),
    Percent(i64),
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
    /// Pods of other versions than the wanted one that somebody took from a DaemonSet since it is wanted.
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

    /// Before the judges: what people did, and whose time has come.
    pub fn listen(&mut self, write: &Write, setup: &Setup) {
        if let Some((_, version)) = self.free_from.take_if(|(from, _)| *from <= write.time) {
            self.free.insert(version);
        }
        let null = Value::Null;
        let (before, after) = (write.before.as_deref().unwrap_or(&null), write.after.as_deref().unwrap_or(&null));
        let is_workload = write.gvr.resource == setup.workload.resource().2 && write.name == WORKLOAD;
        if write.gvr.resource == "controllerrevisions" {
            // Such a workload's own controller names its versions.
            let version = at(after, &["data", "spec", "template"]).map(version).unwrap_or_default();
            if let Some(hash) = object::label(after, keys::CONTROLLER_REVISION_HASH) {
                self.revisions.insert(hash.to_owned(), version.clone());
            }
            let suffix = write.name.strip_prefix(WORKLOAD).and_then(|rest| rest.strip_prefix('-'));
            self.revisions.extend(suffix.map(|suffix| (suffix.to_owned(), version.clone())));
            self.revisions.insert(write.name.clone(), version);
        }
        if by_controller(write) {
            if is_workload && let Some(template) = at(after, &["spec", "template"]) {
                // A step that failed is rolled back.
                let wanted = version(template);
                self.has_rolled_back |= wanted != self.wanted;
                self.wanted = wanted;
            }
            return;
        }
        match (&*write.identity, write.gvr.resource.as_str()) {
            ("user" | "hpa", _) if is_workload => {
                let replicas = |o: &Value| int(o, &["spec", "replicas"]);
                if setup.style != Style::Canary && replicas(after) < replicas(before) {
                    // In place, its own controller may take every pod that requests are restricted to.
                    let seconds = if setup.is_slow { 60 } else { 15 };
                    self.excuse(Topic::Requests, write.time + SignedDuration::from_secs(seconds));
                    let annotations = at(after, &["spec", "template", "metadata", "annotations"]);
                    self.is_stranded |= annotations.is_some_and(|a| a.get(NEVER_READY).is_some());
                }
                self.hear_of_workload(before, after, write.time);
            }
            ("user", "rollouts") => self.hear_of_rollout(before, after, setup),
            ("chaos", "pods") if setup.workload == Managed::DaemonSet && object::is_deleting(after) => {
                self.lost += i64::from(!object::is_deleting(before) && version(before) != self.wanted);
            }
            _ => {}
        }
    }

    fn hear_of_workload(&mut self, before: &Value, after: &Value, now: Timestamp) {
        let replicas = |o: &Value| int(o, &["spec", "replicas"]);
        if let (Some(old), Some(new)) = (replicas(before), replicas(after))
            && old != new
        {
            let fewest = self.fewest(now).map_or(old.min(new), |n| n.min(old).min(new));
            self.fewest = Some((fewest, now + SignedDuration::from_secs(20)));
            let most = self.most.filter(|(_, until)| now <= *until).map_or(old.max(new), |(n, _)| n.max(old).max(new));
            self.most = Some((most, now + SignedDuration::from_secs(60)));
            // Scaling while pods are replaced shares out pods without a look at who is ready.
            self.excuse(Topic::Pods, now + SignedDuration::from_secs(60));
        }
        let null = Value::Null;
        let template = |o: &Value| at(o, &["spec", "template"]).unwrap_or(&null).clone();
        let wanted = version(&template(after));
        if after.is_null() || version(&template(before)) == wanted {
            return;
        }
        self.wanted.clone_from(&wanted);
        if std::mem::take(&mut self.is_stranded) {
            // Until its pods are ready.
            self.excuse(Topic::Requests, now + SignedDuration::from_secs(60));
        }
        self.lost = 0;
        self.revisions.insert(digest(&object::without_nulls(&template(after))), wanted.clone());
        let is_managed =
            !self.is_let_go && object::label(before, keys::WORKLOAD_TYPE).is_some() && replicas(after) != Some(0);
        if !is_managed {
            self.free.insert(wanted);
        } else if wanted != self.stable && self.free.remove(&wanted) {
            // What was approved before was approved for another release.
            self.revoked.insert(wanted, now);
        }
    }

    fn hear_of_rollout(&mut self, before: &Value, after: &Value, setup: &Setup) {
        let is_let_go = |o: &Value| {
            o.is_null()
                || object::is_deleting(o)
                || at(o, &["spec", "disabled"]) == Some(&Value::Bool(true))
                // Enabled again, it lets go first all the same.
                || ["Disabling", "Disabled", "Terminating"].contains(&text(o, &["status", "phase"]))
        };
        self.is_let_go = is_let_go(after);
        if self.is_let_go && !is_let_go(before) {
            self.free.insert(self.wanted.clone());
        }
        if at(before, &["spec", "strategy"]) != at(after, &["spec", "strategy"]) {
            self.plan = plan_of(after, setup);
            self.is_plan_new = true;
        }
        let (old, new) = (release(before), release(after));
        let index = int(new, &["currentStepIndex"]).unwrap_or_default();
        let state = |s: &Value| text(s, &["currentStepState"]).to_owned();
        let next = int(new, &["nextStepIndex"]).unwrap_or_default();
        if int(old, &["nextStepIndex"]) != Some(next) {
            self.jumps.insert(next);
        }
        let is_passed = |s: &Value| {
            let gates = at(s, &["gates"]).and_then(Value::as_array);
            gates.is_some_and(|g| g.iter().any(|g| g.get("isPassed") == Some(&Value::Bool(true))))
        };
        if is_passed(new) && !is_passed(old) {
            self.gates.insert((self.release, index));
            self.met.insert("gate-passed");
        }
        // Who writes the word at another moment has approved nothing.
        let is_measured = setup.barriers.metric.is_some() && state(old) == "StepMetricsAnalysis";
        let was_asked = state(old) == "StepPaused" || is_measured || int(old, &["pausedStepIndex"]) == Some(index);
        if state(new) == "StepReady" && was_asked && !is_winding_up(before) {
            let revision = revision(after).to_owned();
            self.approvals.insert((self.release, revision.clone(), index));
            if self.is_last(index, &revision)
                && let Some(version) = self.releasing(after).cloned()
            {
                self.free.insert(version);
            }
        }
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
        if state(after) && (!state(before) || int(release(before), &["currentStepIndex"]) != Some(index)) {
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

/// The plan of a Rollout.
pub fn plan_of(rollout: &Value, setup: &Setup) -> Vec<PlannedStep> {
    let steps = at(strategy(rollout), &["steps"]).and_then(Value::as_array);
    let steps: Vec<&Value> = steps.into_iter().flatten().collect();
    let count = steps.len();
    let routed = setup.gateway != Gateway::None;
    let percent = |value: &Value| value.as_str().and_then(|s| s.trim_end_matches('%').parse::<i64>().ok());
    steps
        .into_iter()
        .enumerate()
        .map(|(i, step)| {
            let weight = int(step, &["weight"]).or_else(|| percent(step.get("traffic")?));
            let by_header = step.get("matches").is_some();
            let pause = int(step, &["pause", "duration"]);
            let given = step.get("replicas").map(|v| (v.as_i64(), percent(v)));
            let replicas = match given {
                Some((Some(count), _)) => Replicas::Count(count),
                Some((_, Some(percent))) => Replicas::Percent(percent),
                _ => Replicas::Percent(weight.unwrap_or(100)),
            };
            // A number that happens to be all is no word that nobody need be asked.
            let is_all = replicas == Replicas::Percent(100);
            PlannedStep {
                replicas,
                weight: weight.filter(|_| routed).unwrap_or(0),
                by_header: by_header && routed,
                is_open: setup.has_canary_service() && !by_header && weight.is_none(),
                pause,
                is_free: i + 1 == count && pause.is_none() && is_all && setup.style != Style::BlueGreen,
            }
        })
        .collect()
}

impl PlannedStep {
    /// Percent of plain and of marked requests.
    pub fn shares(&self) -> (f64, f64) {
        if self.by_header { (0.0, 100.0) } else { (self.weight as f64, self.weight as f64) }
    }

    /// New pods for a workload of so many: in place, a share below all of them leaves one as it was.
    pub fn target(&self, style: Style, replicas: i64) -> i64 {
        match self.replicas {
            Replicas::Count(count) => count.min(replicas),
            Replicas::Percent(percent) => {
                let pods = (percent * replicas + 99) / 100;
                if style == Style::Partition && replicas > 1 && percent != 100 { pods.min(replicas - 1) } else { pods }
            }
        }
    }

    /// Nothing is left to tell apart.
    pub fn is_whole(&self, style: Style, replicas: i64) -> bool {
        style == Style::Partition && self.target(style, replicas) >= replicas
    }
}
