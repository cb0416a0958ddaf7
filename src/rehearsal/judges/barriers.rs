//! What stands in the way of a step beside people is passed only when it is open.

use serde_json::Value;

use super::{
    Sight, Topic,
    words::{is_winding_up, progressing},
};
use crate::{
    api::object::{at, int, text},
    rehearsal::{
        barriers::COUNT,
        world::{release, revision},
    },
};

fn state(rollout: &Value) -> &str {
    text(release(rollout), &["currentStepState"])
}

fn index(rollout: &Value) -> i64 {
    int(release(rollout), &["currentStepIndex"]).unwrap_or_default()
}

/// Phase of the analysis of the step that a Rollout is in.
pub fn measured(rollout: &Value) -> &str {
    let run =
        at(release(rollout), &["analysis", "step"]).filter(|run| int(run, &["stepIndex"]) == Some(index(rollout)));
    run.map(|run| text(run, &["phase"])).unwrap_or_default()
}

fn progresses(rollout: &Value) -> bool {
    text(rollout, &["status", "phase"]) == "Progressing" && !is_winding_up(rollout)
}

/// The controller says how a release of a new version goes. The way back waits for nobody.
fn rolls(sight: &Sight<'_>) -> bool {
    let is_told = sight.by_controller() && sight.resource() == "rollouts" && progresses(sight.after());
    is_told && sight.record.wanted != sight.record.stable
}

/// Pods or routes of a step are being changed.
fn is_executed(state: &str) -> bool {
    ["StepUpgrade", "StepTrafficRouting", "StepMetricsAnalysis"].contains(&state)
}

/// No step begins outside the hours, or without a place among those in flight.
pub fn hours(sight: &Sight<'_>) -> Result<(), String> {
    let (before, after) = (sight.before(), sight.after());
    if !rolls(sight) || !is_executed(state(after)) {
        return Ok(());
    }
    let is_same = index(before) == index(after) && revision(before) == revision(after);
    let was_begun = is_executed(state(before)) || state(before) == "StepPaused";
    if progresses(before) && is_same && was_begun {
        return Ok(());
    }
    let barriers = &sight.setup.barriers;
    if barriers.forbid(sight.write.time) && !sight.is_excused(Topic::Grace) {
        return Err(format!("step {} begins, and no step may begin now", index(after)));
    }
    if barriers.is_limited && at(after, &["status", "slot", "isTaken"]) != Some(&Value::Bool(true)) {
        return Err(format!("step {} begins without a place among the releases in flight", index(after)));
    }
    Ok(())
}

/// No step is left, and no release finished, before the gate of the step is passed.
pub fn gates(sight: &Sight<'_>) -> Result<(), String> {
    let (record, before, after) = (sight.record, sight.before(), sight.after());
    if !sight.setup.barriers.has_gates || record.is_plan_new || revision(before) != revision(after) {
        return Ok(());
    }
    let finalises = |o: &Value| progressing(o) == "Finalising";
    let is_release = sight.by_controller() && sight.resource() == "rollouts" && record.wanted != record.stable;
    let finishes = is_release && finalises(after) && !finalises(before);
    let (old, new) = (index(before), index(after));
    let is_left = rolls(sight) && progresses(before) && new == old + 1 && !record.jumps.contains(&new);
    let step = if finishes { new } else { old };
    if !(finishes || is_left) || record.gates.contains(&(record.release, step)) {
        return Ok(());
    }
    Err(format!("step {step} is left, and nobody has passed its gate"))
}

/// Metrics are good only if good values were measured, and a step that says that they are bad waits for a person.
pub fn metrics(sight: &Sight<'_>) -> Result<(), String> {
    if let Some(why) = sight.server.misconduct() {
        return Err(format!("a metrics server is asked too often: {why}"));
    }
    let (before, after) = (sight.before(), sight.after());
    if sight.setup.barriers.metric.is_none() || !rolls(sight) || !progresses(before) {
        return Ok(());
    }
    let index = index(after);
    if state(after) == "StepMetricsAnalysis" && !text(after, &["status", "message"]).contains("metric") {
        let message = text(after, &["status", "message"]);
        let waits = ["waiting for", "paused", "giving the gateways", "is kept", "rolled back", "please rollback first"];
        // For a moment it may wait for the cluster instead, or for a write that fails; and a third version is refused.
        let is_told = waits.iter().any(|why| message.contains(why)) || super::words::is_stalled(after);
        if !is_told && state(before) == "StepMetricsAnalysis" {
            return Err(format!("step {index} is measured, but its message is {message:?}"));
        }
    }
    if measured(after) == "Passed" && measured(before) != "Passed" {
        let since = sight.record.measured_since.unwrap_or(sight.write.time);
        let good = sight.server.good_since(since);
        if good < COUNT {
            return Err(format!("the metrics of step {index} are said to be good after {good} good answers"));
        }
    }
    Ok(())
}
