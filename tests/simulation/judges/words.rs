//! What people said, and what they are told.

use serde_json::Value;

use super::{
    Sight,
    record::{STEPS, starts_release},
};

/// Without a cause nothing is written for longer than this: the grace time and the slowest pod are shorter.
const QUIET: f64 = 15.0;

fn sub(object: &Value) -> &Value {
    &object["status"]["canaryStatus"]
}

fn progressing(object: &Value) -> &str {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|c| c["type"] == "Progressing").and_then(|c| c["reason"].as_str()).unwrap_or_default()
}

/// A step is left only with the approval that names it, of the same release.
pub fn approvals(sight: &Sight<'_>) -> Result<(), String> {
    if !sight.by_controller() || sight.resource() != "rollouts" || sight.after().is_null() {
        return Ok(());
    }
    let (before, after) = (sight.before(), sight.after());
    let index = |o: &Value| sub(o)["currentStepIndex"].as_i64().unwrap_or_default();
    let revision = sub(after)["canaryRevision"].as_str().unwrap_or_default();
    if starts_release(before, after) {
        let cancelled = progressing(after) == "Cancelling";
        return if index(after) == 1 || cancelled {
            Ok(())
        } else {
            Err(format!("release {revision} begins at step {}", index(after)))
        };
    }
    let is_approved = |step: i64| {
        let approval = (sight.record.release, revision.to_owned(), step);
        sight.record.approvals.contains(&approval)
    };
    let is_releasing = before["status"]["phase"] == "Progressing" && after["status"]["phase"] == "Progressing";
    if is_releasing && let Some(step) = (index(before)..index(after)).find(|s| !is_approved(*s)) {
        return Err(format!("step {step} of {revision} is left, which nobody approved"));
    }
    let finalises = |o: &Value| progressing(o) == "Finalising";
    if finalises(after) && !finalises(before) && !is_approved(STEPS) {
        return Err(format!("release {revision} is finished, although nobody approved step {STEPS}"));
    }
    Ok(())
}

/// A Rollout always says what it is doing, and a step that waits for a person says so.
pub fn reasons(sight: &Sight<'_>) -> Result<(), String> {
    let after = sight.after();
    if sight.resource() != "rollouts" || after["status"]["phase"].as_str().unwrap_or_default().is_empty() {
        return Ok(());
    }
    let message = after["status"]["message"].as_str().unwrap_or_default();
    if message.is_empty() {
        return Err(format!("phase {} has no message", after["status"]["phase"]));
    }
    for condition in after["status"]["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "Stalled" && condition["status"] == "True" && condition["message"] != message {
            return Err(format!("it stalls with {} but its message is {message:?}", condition["message"]));
        }
    }
    let waits = sub(after)["currentStepState"] == "StepPaused" && after["status"]["phase"] == "Progressing";
    let is_stalled = after["status"]["conditions"].to_string().contains("\"Stalled\"");
    let winds_up = !["", "END"].contains(&sub(after)["finalisingStep"].as_str().unwrap_or_default());
    // For a moment it may wait for the cluster instead.
    let says_why = ["manually confirm", "waiting for"].iter().any(|why| message.contains(why));
    if sight.by_controller() && waits && !is_stalled && !winds_up && !says_why {
        return Err(format!(
            "step {} waits for approval, but its message is {message:?}",
            sub(after)["currentStepIndex"]
        ));
    }
    Ok(())
}

/// The write guard never has anything to stop.
pub fn guard(sight: &Sight<'_>) -> Result<(), String> {
    let conditions = sight.after()["status"]["conditions"].as_array().into_iter().flatten();
    let mut stopped = conditions.filter(|c| c["reason"] == "WriteGuarded");
    match stopped.next().filter(|_| sight.resource() == "rollouts") {
        Some(condition) => Err(condition["message"].to_string()),
        None => Ok(()),
    }
}

/// Nothing is written without a cause.
pub fn idle(sight: &Sight<'_>) -> Result<(), String> {
    let record = sight.record;
    if !sight.by_controller() || !record.is_calm {
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
