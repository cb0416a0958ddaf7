//! The shares of requests that versions get.

use serde_json::Value;

use super::{
    Scene, Sight,
    routes::{concerns, count, is_gateways, look, reachable},
    words::is_winding_up,
};
use crate::{
    api::object::{self, at, int, text},
    rehearsal::{
        script::{Gateway, Style},
        world::{release, version},
    },
};

/// A share rises only to what a step asks for that may be executed, and a step that waits has its share.
pub fn share(sight: &Sight<'_>) -> Result<(), String> {
    let record = sight.record;
    if sight.setup.gateway == Gateway::None || record.is_plan_new || sight.is_excused(super::Topic::Requests) {
        return Ok(());
    }
    // Whoever lets go of a workload with a template that is not stable lets all its versions answer.
    if record.is_let_go && record.wanted != record.stable {
        return Ok(());
    }
    let near = |a: f64, b: f64| (a - b).abs() < 0.5;
    if concerns(sight.write, sight.setup) {
        let seen = look(record, sight.sent, sight.eyes).shares;
        let before = record.seen.shares;
        let Some(rollout) = sight.eyes.rollout() else { return Ok(()) };
        if seen.0 > before.0 + 0.5 || seen.1 > before.1 + 0.5 {
            let steps = reachable(record, &rollout);
            let planned = |index: &i64| record.planned(*index);
            let fits = steps.iter().filter_map(planned).map(|p| p.shares());
            let replicas = sight.replicas();
            let is_whole = |index: &i64| planned(index).is_some_and(|p| p.is_whole(sight.setup.style, replicas));
            let is_over = is_over(sight);
            // Between a step that leaves the Service to pods of both and one that does not, endpoints follow a moment later.
            let may_be_any = record.plan.iter().any(|p| p.is_open)
                || steps.iter().any(|i| *i > count(record))
                || steps.iter().any(is_whole)
                || is_over;
            // What does not rise may be on its way down.
            let fit = |(plain, marked): (f64, f64)| {
                (near(seen.0, plain) || seen.0 <= before.0 + 0.5) && (near(seen.1, marked) || seen.1 <= before.1 + 0.5)
            };
            if !may_be_any && !fits.clone().any(fit) {
                let asked: Vec<String> =
                    fits.map(|(plain, marked)| format!("{plain} % and {marked} % with the header")).collect();
                return Err(format!(
                    "{:.1} % of requests, {:.1} % of those with the header, reach the new version; the steps that may \
                     be executed ({steps:?}) ask for {}",
                    seen.0,
                    seen.1,
                    asked.join(", or ")
                ));
            }
        }
    }
    waits_with_its_share(sight)
}

/// In place, no pod of the stable version is left to tell the others from.
fn is_over(scene: &Scene<'_>) -> bool {
    scene.setup.style != Style::Canary
        && !scene.eyes.pods().iter().any(|p| version(p) == scene.record.stable && !object::is_deleting(p))
}

fn waits_with_its_share(sight: &Sight<'_>) -> Result<(), String> {
    let (record, after) = (sight.record, sight.after());
    let state = text(release(after), &["currentStepState"]);
    let waits = sight.resource() == "rollouts"
        && sight.by_controller()
        && state == "StepPaused"
        && text(after, &["status", "phase"]) == "Progressing"
        && !is_winding_up(after)
        && !super::words::is_stalled(after)
        && !super::words::is_frozen(after)
        && !text(after, &["status", "message"]).contains("waiting for");
    if !waits || record.releasing(after) != Some(&record.wanted) || sight.record.may_run(&record.wanted) {
        return Ok(());
    }
    let index = int(release(after), &["currentStepIndex"]).unwrap_or_default();
    let Some(planned) = record.planned(index) else { return Ok(()) };
    let (seen, asked) = (record.seen.shares, planned.shares());
    // After a step that leaves the Service to pods of both, its endpoints follow the selector a moment later.
    if record.plan.iter().any(|p| p.is_open) || planned.is_whole(sight.setup.style, sight.replicas()) || is_over(sight)
    {
        return Ok(());
    }
    if (seen.0 - asked.0).abs() > 0.5 || (seen.1 - asked.1).abs() > 0.5 {
        return Err(format!(
            "step {index} waits, and {:.1} % of requests ({:.1} % with the header) reach the new version instead of {} % \
             ({} %)",
            seen.0, seen.1, asked.0, asked.1
        ));
    }
    Ok(())
}

/// Where a rule has several destinations, their weights sum to 100.
pub fn sums(sight: &Sight<'_>) -> Result<(), String> {
    if !is_gateways(sight.resource(), sight.setup) || !sight.by_controller() {
        return Ok(());
    }
    let (rules, destinations) = match sight.setup.gateway {
        Gateway::HttpRoute => (at(sight.after(), &["spec", "rules"]), "backendRefs"),
        _ => (at(sight.after(), &["spec", "http"]), "route"),
    };
    for (i, rule) in rules.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let routes = at(rule, &[destinations]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let sum: i64 = routes.iter().map(|r| int(r, &["weight"]).unwrap_or_default()).sum();
        if routes.len() > 1 && sum != 100 {
            return Err(format!("the weights of rule {i} sum to {sum}"));
        }
    }
    Ok(())
}
