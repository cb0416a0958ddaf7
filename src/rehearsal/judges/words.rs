//! What people said, and what they are told.

use serde_json::Value;

use super::{Sight, record::starts_release};
use crate::{
    api::object::{at, int, text},
    rehearsal::world::{release, revision},
};

/// Without a cause nothing is written for longer than this: grace times, pauses and the slowest pod are shorter.
const QUIET: f64 = 62.0;

fn conditions(rollout: &Value) -> impl Iterator<Item = &Value> {
    at(rollout, &["status", "conditions"]).and_then(Value::as_array).into_iter().flatten()
}

/// Reason of the condition that says how a release goes.
pub fn progressing(rollout: &Value) -> &str {
    conditions(rollout).find(|c| text(c, &["type"]) == "Progressing").map(|c| text(c, &["reason"])).unwrap_or_default()
}

fn phase(rollout: &Value) -> &str {
    text(rollout, &["status", "phase"])
}

fn index(rollout: &Value) -> i64 {
    int(release(rollout), &["currentStepIndex"]).unwrap_or_default()
}

/// Whether a release is being wound up.
pub fn is_winding_up(rollout: &Value) -> bool {
    !["", "END"].contains(&text(release(rollout), &["finalisingStep"]))
        || ["Finalising", "Cancelling"].contains(&progressing(rollout))
}

/// Whether a person must mend something.
pub fn is_stalled(rollout: &Value) -> bool {
    conditions(rollout).any(|c| text(c, &["type"]) == "Stalled" && text(c, &["status"]) == "True")
}

/// Whether a person has stopped the release.
pub fn is_frozen(rollout: &Value) -> bool {
    at(rollout, &["spec", "strategy", "paused"]) == Some(&Value::Bool(true)) || progressing(rollout) == "Paused"
}

/// A step is left only with the approval that names it, of the same release, or when its time has passed.
pub fn approvals(sight: &Sight<'_>) -> Result<(), String> {
    if !sight.by_controller() || sight.resource() != "rollouts" || sight.after().is_null() {
        return Ok(());
    }
    let (record, before, after) = (sight.record, sight.before(), sight.after());
    let revision = revision(after);
    if starts_release(before, after) {
        let cancelled = progressing(after) == "Cancelling";
        let first = (1..index(after)).all(|step| record.passes(step, revision));
        // A template for a workload without pods ends its release at once: no step would do anything.
        let has_none = sight.replicas() == 0 && is_winding_up(after);
        return if first || cancelled || has_none {
            Ok(())
        } else {
            Err(format!("release {revision} begins at step {}", index(after)))
        };
    }
    if phase(before) != "Progressing" || record.is_plan_new {
        return Ok(());
    }
    let (old, new) = (index(before), index(after));
    let is_releasing = phase(after) == "Progressing" && !record.jumps.contains(&new);
    if is_releasing && let Some(step) = (old..new).find(|s| !record.passes(*s, revision)) {
        return Err(format!("step {step} of {revision} is left, which nobody approved"));
    }
    let finalises = |o: &Value| progressing(o) == "Finalising";
    let count = i64::try_from(record.plan.len()).unwrap_or_default();
    if finalises(after)
        && !finalises(before)
        && let first = record.jumps.iter().copied().filter(|j| (old..=count).contains(j)).max().unwrap_or(old)
        && let Some(step) = (first.max(1)..=count).find(|s| !record.passes(*s, revision))
    {
        return Err(format!("release {revision} is finished, although nobody approved step {step}"));
    }
    in_time(sight, old, new, finalises(after) && !finalises(before))
}

/// A step with a pause is not left before its time, unless somebody says so.
fn in_time(sight: &Sight<'_>, old: i64, new: i64, finishes: bool) -> Result<(), String> {
    let record = sight.record;
    let revision = revision(sight.after());
    let planned = usize::try_from(old - 1).ok().and_then(|i| record.plan.get(i));
    let approved = record.approvals.contains(&(record.release, revision.to_owned(), old));
    // Whoever gives a release up records how things are; that is no step.
    let goes_on = new > old && phase(sight.after()) == "Progressing";
    if !(goes_on || finishes) || approved || record.jumps.contains(&new) || sight.is_excused(super::Topic::Grace) {
        return Ok(());
    }
    let Some(seconds) = planned.and_then(|p| p.pause) else { return Ok(()) };
    let waited = record.waits_since(revision, old).map_or(0.0, |t| sight.write.time.duration_since(t).as_secs_f64());
    if waited + 1.0 < seconds as f64 {
        return Err(format!("step {old} is left after {waited:.1} s; its pause has {seconds} s"));
    }
    Ok(())
}

/// A Rollout always says what it is doing, and a step that waits for a person says so.
pub fn reasons(sight: &Sight<'_>) -> Result<(), String> {
    let after = sight.after();
    if sight.resource() != "rollouts" || !sight.by_controller() || phase(after).is_empty() {
        return Ok(());
    }
    let message = text(after, &["status", "message"]);
    if message.is_empty() {
        return Err(format!("phase {} has no message", phase(after)));
    }
    for condition in conditions(after) {
        let says = text(condition, &["message"]);
        if text(condition, &["type"]) == "Stalled" && text(condition, &["status"]) == "True" && says != message {
            return Err(format!("it stalls with {says:?} but its message is {message:?}"));
        }
    }
    let waits = text(release(after), &["currentStepState"]) == "StepPaused"
        && phase(after) == "Progressing"
        && !is_stalled(after)
        && !is_winding_up(after);
    // For a moment it may wait for the cluster instead, or for a write that fails.
    let says_why = [
        "manually confirm",
        "waiting for",
        "wait duration",
        "paused",
        "giving the gateways",
        "please rollback first",
        "cannot be reached",
        // Barriers.
        "waits for the gate",
        " waits until ",
        "releases are in flight",
        "place in the line",
        "metric",
        "hook",
    ];
    if waits && !says_why.iter().any(|why| message.contains(why)) {
        return Err(format!("step {} waits, but its message is {message:?}", index(after)));
    }
    Ok(())
}

/// The write guard never has anything to stop.
pub fn guard(sight: &Sight<'_>) -> Result<(), String> {
    let stopped = conditions(sight.after()).find(|c| text(c, &["reason"]) == "WriteGuarded");
    match stopped.filter(|_| sight.resource() == "rollouts") {
        Some(condition) => Err(text(condition, &["message"]).to_owned()),
        None => Ok(()),
    }
}

/// Nothing is written without a cause.
pub fn idle(sight: &Sight<'_>) -> Result<(), String> {
    let record = sight.record;
    if !sight.by_controller() || !record.is_calm || sight.resource() == "events" {
        return Ok(());
    }
    let last = record.last_cause.max(record.last_write);
    match last.map(|t| sight.write.time.duration_since(t).as_secs_f64()) {
        Some(seconds) if seconds > QUIET => {
            Err(format!("{} is written after nothing had changed for {seconds:.0} s", sight.write.name))
        }
        _ => Ok(()),
    }
}
