//! How a rehearsal must end.

use serde_json::{Value, json};

use super::bounds::plain;
use crate::{
    api::{
        keys,
        object::{self, at, text},
    },
    rehearsal::{
        run::Ending,
        world::{CANARY_SERVICE, Eyes, SERVICE, is_ready, release, version},
    },
};

/// The objects that must be as they were, with what people changed in them.
#[derive(Clone, Debug)]
pub struct Originals {
    /// What routes.
    pub route: Option<Value>,
    /// The DestinationRule.
    pub rule: Option<Value>,
    /// The Service.
    pub service: Value,
    /// The Deployment; template and replicas are what people want now.
    pub workload: Value,
}

impl Originals {
    /// As they are now.
    pub fn now(eyes: &Eyes) -> Originals {
        let of = |o: Option<std::sync::Arc<Value>>| o.map(|o| (*o).clone());
        Originals {
            route: of(eyes.route()),
            rule: of(eyes.rule()),
            service: of(eyes.service(SERVICE)).unwrap_or_default(),
            workload: of(eyes.workload()).unwrap_or_default(),
        }
    }
}

/// Whether the end is reached as far as people can see it: the rest is judged by [`judge_end`].
pub fn is_over(eyes: &Eyes, ending: Ending, wanted: &str) -> Result<(), String> {
    let rollout = eyes.rollout();
    let phase = rollout.as_ref().map(|r| text(r, &["status", "phase"])).unwrap_or_default();
    let state = rollout.as_ref().map(|r| text(release(r), &["currentStepState"])).unwrap_or_default();
    let reached = match ending {
        Ending::Gone => rollout.is_none(),
        Ending::Disabled => phase == "Disabled",
        Ending::Healthy => phase == "Healthy" && state == "Completed",
    };
    if !reached {
        return Err(format!("the Rollout's phase is {phase:?}, its step {state:?}"));
    }
    let workload = eyes.workload().ok_or("the workload is gone")?;
    if at(&workload, &["spec", "paused"]) == Some(&json!(true)) {
        return Err("the workload is paused".to_owned());
    }
    let replicas = eyes.replicas().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
    let pods = eyes.pods();
    match pods.iter().find(|p| !is_ready(p) || version(p) != wanted) {
        Some(pod) => {
            Err(format!("pod {} has version {} and is ready: {}", object::name(pod), version(pod), is_ready(pod)))
        }
        None if pods.len() != replicas => Err(format!("{} pods are there instead of {replicas}", pods.len())),
        None => Ok(()),
    }
}

/// Everything is as it was, and only the template is new.
pub fn judge_end(eyes: &Eyes, originals: &Originals, ending: Ending, wanted: &str) -> Result<(), String> {
    is_over(eyes, ending, wanted)?;
    for (what, now, before) in [
        ("object that routes", eyes.route(), originals.route.as_ref()),
        ("DestinationRule", eyes.rule(), originals.rule.as_ref()),
        ("Service", eyes.service(SERVICE), Some(&originals.service)),
    ] {
        let Some(before) = before else { continue };
        let now = now.ok_or_else(|| format!("the {what} is gone"))?;
        if let Some(key) = mark(&now) {
            return Err(format!("{key} is left on the {what}"));
        }
        if plain(&now) != plain(before) {
            return Err(format!("the {what} is not what it was: {} instead of {}", plain(&now), plain(before)));
        }
    }
    let workload = eyes.workload().ok_or("the workload is gone")?;
    let (mut expected, mut now) = (plain(&originals.workload), plain(&workload));
    for object in [&mut expected, &mut now] {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("replicas");
            // Absent and false are the same word.
            if spec.get("paused") == Some(&json!(false)) {
                spec.remove("paused");
            }
        }
    }
    if now != expected {
        return Err(format!("the workload is not what it was: {now} instead of {expected}"));
    }
    if object::label(&originals.workload, keys::WORKLOAD_TYPE) == Some("statefulset") && eyes.switch == keys::MANAGED {
        let word = object::label(&workload, keys::WORKLOAD_TYPE);
        word.ok_or("what the workload's owner says of it is gone")?;
    }
    let label = object::label(&workload, eyes.switch).is_some();
    match (ending, label) {
        (Ending::Healthy, false) => return Err("the hold is not switched on for the next release".to_owned()),
        (Ending::Disabled | Ending::Gone, true) => return Err("the hold is left switched on".to_owned()),
        _ => {}
    }
    if let Some(key) = mark(&workload) {
        return Err(format!("{key} is left on the workload"));
    }
    if eyes.canary().is_some() || eyes.service(CANARY_SERVICE).is_some() || eyes.canary_ingress().is_some() {
        return Err("the canary Deployment, Service or Ingress is left".to_owned());
    }
    match eyes.rollout() {
        Some(rollout) if super::words::is_stalled(&rollout) => {
            Err(format!("the Rollout is still stalled: {}", text(&rollout, &["status", "message"])))
        }
        _ => Ok(()),
    }
}

/// An annotation or label of ours, other than the hold's switch and the user's id.
fn mark(object: &Value) -> Option<String> {
    let ours = |key: &&String| {
        key.starts_with("rollouts.kruise.io/")
            && ![keys::WORKLOAD_TYPE, keys::MANAGED, keys::ROLLOUT_ID].contains(&key.as_str())
    };
    ["annotations", "labels"]
        .into_iter()
        .filter_map(|map| at(object, &["metadata", map])?.as_object()?.keys().find(ours).cloned())
        .next()
}
