//! How a run must end.

use serde_json::Value;

use super::bounds::plain;
use crate::world::{CANARY, CANARY_SERVICE, Eyes, REPLICAS, SERVICE, WORKLOAD, is_ready, version};
use tidegate::api::keys;

/// What the last deed asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A Rollout that is healthy.
    Healthy,
    /// A Rollout that is disabled.
    Disabled,
    /// No Rollout.
    Gone,
}

/// The objects that must be as they were.
pub struct Originals {
    route: Value,
    rule: Value,
    service: Value,
    workload: Value,
}

impl Originals {
    /// As they are now.
    pub fn now(eyes: &Eyes) -> Originals {
        let of = |o: Option<std::sync::Arc<Value>>| o.map(|o| (*o).clone()).unwrap_or_default();
        Originals {
            route: of(eyes.route()),
            rule: of(eyes.rule()),
            service: of(eyes.service(SERVICE)),
            workload: of(eyes.deployment(WORKLOAD)),
        }
    }

    /// What somebody else changed belongs to them.
    pub fn edit(&mut self, route: impl FnOnce(&mut Value), rule: impl FnOnce(&mut Value)) {
        route(&mut self.route);
        rule(&mut self.rule);
    }
}

/// Whether the end is reached as far as people can see it: the rest is judged by [`judge_end`].
pub fn is_over(eyes: &Eyes, ending: Ending, wanted: &str) -> bool {
    let rollout = eyes.rollout();
    let status = rollout.as_ref().map(|r| &r["status"]);
    let reached = match (ending, status) {
        (Ending::Gone, rollout) => rollout.is_none(),
        (_, None) => false,
        (Ending::Disabled, Some(status)) => status["phase"] == "Disabled",
        (Ending::Healthy, Some(status)) => {
            status["phase"] == "Healthy" && status["canaryStatus"]["currentStepState"] == "Completed"
        }
    };
    let Some(workload) = eyes.deployment(WORKLOAD) else { return false };
    let pods = eyes.pods();
    reached
        && workload["spec"]["paused"] != true
        && pods.len() == REPLICAS
        && pods.iter().all(|p| is_ready(p) && version(&p["spec"]) == wanted)
}

/// Everything is as it was, and only the template is new.
pub fn judge_end(eyes: &Eyes, originals: &Originals, ending: Ending, wanted: &str) -> Result<(), String> {
    if !is_over(eyes, ending, wanted) {
        return Err("it is not over".to_owned());
    }
    for (what, now, before) in [
        ("VirtualService", eyes.route(), &originals.route),
        ("DestinationRule", eyes.rule(), &originals.rule),
        ("Service", eyes.service(SERVICE), &originals.service),
    ] {
        let now = now.ok_or_else(|| format!("the {what} is gone"))?;
        if let Some(key) = mark(&now) {
            return Err(format!("{key} is left on the {what}"));
        }
        if plain(&now) != plain(before) {
            return Err(format!("the {what} is not what it was: {} instead of {}", now["spec"], before["spec"]));
        }
    }
    let workload = eyes.deployment(WORKLOAD).ok_or("the Deployment is gone")?;
    let mut expected = plain(&originals.workload);
    expected["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = wanted.into();
    let mut now = plain(&workload);
    for object in [&mut expected, &mut now] {
        // Absent and false are the same word.
        if object["spec"]["paused"] == false {
            object["spec"].as_object_mut().expect("a spec").remove("paused");
        }
    }
    if now != expected {
        return Err(format!("the Deployment is not what it was: {now} instead of {expected}"));
    }
    let label = workload["metadata"]["labels"].get(keys::WORKLOAD_TYPE).is_some();
    match (ending, label) {
        (Ending::Healthy, false) => return Err("the hold is not switched on for the next release".to_owned()),
        (Ending::Disabled | Ending::Gone, true) => return Err("the hold is left switched on".to_owned()),
        _ => {}
    }
    if let Some(key) = mark(&workload) {
        return Err(format!("{key} is left on the Deployment"));
    }
    if eyes.deployment(CANARY).is_some() || eyes.service(CANARY_SERVICE).is_some() {
        return Err("the canary Deployment or Service is left".to_owned());
    }
    let conditions = eyes.rollout().map(|r| r["status"]["conditions"].to_string()).unwrap_or_default();
    if conditions.contains("\"Stalled\"") {
        return Err(format!("the Rollout is still stalled: {conditions}"));
    }
    Ok(())
}

/// An annotation or label of ours, other than the hold's switch.
fn mark(object: &Value) -> Option<String> {
    ["annotations", "labels"]
        .into_iter()
        .flat_map(|map| object["metadata"][map].as_object().into_iter().flat_map(|m| m.keys().cloned()))
        .find(|key| key.starts_with("rollouts.kruise.io/") && key != keys::WORKLOAD_TYPE)
}
