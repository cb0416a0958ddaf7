//! What people do to a release, taken down before the judges look.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Record, Topic};
use crate::{
    api::{
        keys,
        object::{self, at, digest, int, text},
    },
    rehearsal::{
        judges::{barriers, by_controller, plan::plan_of, words::is_winding_up},
        script::{Setup, Style},
        world::{WORKLOAD, release, revision, version},
    },
    sim::{NEVER_READY, Write},
    workload::hold::RELEASED,
};

impl Record {
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
                self.hear_of_workload(before, after, write.time, setup);
            }
            ("user", "rollouts") => self.hear_of_rollout(before, after, setup),
            ("chaos", "pods") if setup.workload.is_on_nodes() && object::is_deleting(after) => {
                self.lost += i64::from(!object::is_deleting(before) && version(before) != self.wanted);
            }
            _ => {}
        }
    }

    fn hear_of_workload(&mut self, before: &Value, after: &Value, now: Timestamp, setup: &Setup) {
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
        if object::annotation(before, keys::IN_PROGRESSING).is_some_and(|mark| mark.contains(RELEASED)) {
            self.excuse(Topic::Sharing, now + SignedDuration::from_secs(60));
        }
        if std::mem::take(&mut self.is_stranded) {
            // Until its pods are ready.
            self.excuse(Topic::Requests, now + SignedDuration::from_secs(60));
        }
        self.lost = 0;
        self.revisions.insert(digest(&object::without_nulls(&template(after))), wanted.clone());
        let is_managed =
            !self.is_let_go && object::label(before, setup.workload.switch()).is_some() && replicas(after) != Some(0);
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
        // Also while pods that somebody took come up again.
        let is_measured = setup.barriers.are_measured()
            && (state(old) == "StepMetricsAnalysis" || barriers::measured(before) == "Running");
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
}
