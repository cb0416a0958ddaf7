//! What stands in the way of a step beside people is passed only when it is open.

use serde_json::Value;

use super::{
    Sight, Topic,
    words::{is_stalled, is_winding_up, progressing},
};
use crate::{
    api::object::{at, int, text},
    rehearsal::{
        barriers::COUNT,
        hook_server::Moment,
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

/// The controller begins a step.
fn begins(sight: &Sight<'_>) -> bool {
    let (before, after) = (sight.before(), sight.after());
    let is_same = index(before) == index(after) && revision(before) == revision(after);
    let was_begun = is_executed(state(before)) || state(before) == "StepPaused";
    rolls(sight) && is_executed(state(after)) && !(progresses(before) && is_same && was_begun)
}

/// The step that is left, by the next or by the end of all.
fn left(sight: &Sight<'_>) -> Option<(i64, bool)> {
    let (record, before, after) = (sight.record, sight.before(), sight.after());
    if record.is_plan_new || revision(before) != revision(after) {
        return None;
    }
    let finalises = |o: &Value| progressing(o) == "Finalising";
    let is_release = sight.by_controller() && sight.resource() == "rollouts" && record.wanted != record.stable;
    let (old, new) = (index(before), index(after));
    if is_release && finalises(after) && !finalises(before) {
        return Some((new, true));
    }
    let is_left = rolls(sight) && progresses(before) && new == old + 1 && !record.jumps.contains(&new);
    is_left.then_some((old, false))
}

/// No step begins outside the hours, or without a place among those in flight.
pub fn hours(sight: &Sight<'_>) -> Result<(), String> {
    let after = sight.after();
    if !begins(sight) {
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
    let record = sight.record;
    match left(sight).filter(|_| sight.setup.barriers.has_gates) {
        Some((step, _)) if !record.gates.contains(&(record.release, step)) => {
            Err(format!("step {step} is left, and nobody has passed its gate"))
        }
        _ => Ok(()),
    }
}

/// No step begins or is left, and no release is finished, before the hook that is asked then has said that it may; and what
/// waits for it says so.
pub fn hooks(sight: &Sight<'_>) -> Result<(), String> {
    let (before, after) = (sight.before(), sight.after());
    let Some(hook) = sight.setup.barriers.hook else { return Ok(()) };
    let asked = [after, before].map(|rollout| text(rollout, &["status", "hooks", "release"]));
    let release = asked.into_iter().find(|id| !id.is_empty()).unwrap_or_default();
    let check = |moment: Moment, step: i64, what: &str| {
        if !hook.is_for(moment) || sight.servers.hooks.has_allowed(release, moment, step) {
            return Ok(());
        }
        Err(format!("{what} {step}, and the hook has not allowed it"))
    };
    if begins(sight) {
        check(Moment::Before, index(after), "pods or routes are changed for step")?;
    }
    if let Some((step, is_last)) = left(sight) {
        check(Moment::After, step, "what follows begins after step")?;
        if is_last {
            check(Moment::Promotion, step, "all pods are replaced after step")?;
        }
    }
    let waits = |rollout: &Value| progresses(rollout) && state(rollout) == "BeforeStepUpgrade";
    let statuses = at(after, &["status", "hooks", "hooks"]).and_then(Value::as_array);
    let is_asked = statuses.into_iter().flatten().any(|status| {
        let is_of_step = int(status, &["step"]) == Some(index(after)) && text(status, &["moment"]) == "BeforeStep";
        is_of_step && text(status, &["phase"]) != "Allowed"
    });
    let message = text(after, &["status", "message"]);
    let is_told = ["hook", "waiting for", "paused", "waits until", "please rollback first"];
    let is_told = is_told.iter().any(|why| message.contains(why)) || is_stalled(after);
    if rolls(sight) && waits(before) && waits(after) && is_asked && !is_told {
        return Err(format!("step {} waits for its hook, but its message is {message:?}", index(after)));
    }
    Ok(())
}

/// Metrics are good only if good values were measured, and a step that says that they are bad waits for a person.
pub fn metrics(sight: &Sight<'_>) -> Result<(), String> {
    if let Some(why) = sight.servers.metrics.misconduct() {
        return Err(format!("a metrics server is asked too often: {why}"));
    }
    let (before, after) = (sight.before(), sight.after());
    if !sight.setup.barriers.are_measured() || !rolls(sight) || !progresses(before) {
        return Ok(());
    }
    let index = index(after);
    if state(after) == "StepMetricsAnalysis" && !text(after, &["status", "message"]).contains("metric") {
        let message = text(after, &["status", "message"]);
        let waits = ["waiting for", "paused", "giving the gateways", "is kept", "rolled back", "please rollback first"];
        // For a moment it may wait for the cluster instead, or for a write that fails; and a third version is refused.
        let is_told = waits.iter().any(|why| message.contains(why)) || is_stalled(after);
        if !is_told && state(before) == "StepMetricsAnalysis" {
            return Err(format!("step {index} is measured, but its message is {message:?}"));
        }
    }
    if measured(after) == "Passed" && measured(before) != "Passed" {
        let since = sight.record.measured_since.unwrap_or(sight.write.time);
        let (barriers, server) = (&sight.setup.barriers, &sight.servers.metrics);
        if barriers.compared.is_some() && !server.was_same_since(since) {
            return Err(format!("step {index} is said to be as good as the stable version, and never was"));
        }
        let good = server.good_since(since);
        if barriers.metric.is_some() && good < COUNT {
            return Err(format!("the metrics of step {index} are said to be good after {good} good answers"));
        }
    }
    Ok(())
}
