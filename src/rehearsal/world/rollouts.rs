//! The Rollout of a setup, and what is read of one.

use serde_json::{Value, json};

use super::{SERVICE, WORKLOAD};
use crate::{
    api::{
        keys,
        object::{at, text},
    },
    rehearsal::script::{Gateway, Route, Setup, Step, Style},
};

pub(super) fn int_or_text(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n))
}

fn step(step: &Step, setup: &Setup) -> Value {
    let mut object = serde_json::Map::new();
    if !step.replicas.is_empty() {
        object.insert("replicas".to_owned(), int_or_text(&step.replicas));
    }
    let header = |kind: &str, value: &str| json!([{"headers": [{"type": kind, "name": "version", "value": value}]}]);
    match step.route {
        Route::None => {}
        Route::Weight(weight) if setup.is_old_api => {
            object.insert("weight".to_owned(), json!(weight));
        }
        Route::Weight(weight) => {
            object.insert("traffic".to_owned(), json!(format!("{weight}%")));
        }
        Route::Exact => {
            object.insert("matches".to_owned(), header("Exact", "canary"));
        }
        Route::Regex => {
            object.insert("matches".to_owned(), header("RegularExpression", "^canary.*$"));
        }
    }
    if let Some(seconds) = step.pause {
        object.insert("pause".to_owned(), json!({"duration": seconds}));
    }
    setup.barriers.of_step(setup, &mut object);
    object.into()
}

/// The plan as the Rollout spells it.
pub fn steps(steps: &[Step], setup: &Setup) -> Value {
    steps.iter().map(|s| step(s, setup)).collect()
}

/// What routes, as a Rollout refers to it.
fn traffic(setup: &Setup) -> Option<Value> {
    let (api_version, kind, _) = setup.gateway.resource()?;
    let mut routing = json!({"service": SERVICE});
    if let Some(grace) = setup.grace {
        json_patch::merge(&mut routing, &json!({"gracePeriodSeconds": grace}));
    }
    let network = |kind: &str| json!({"apiVersion": api_version, "kind": kind, "name": WORKLOAD});
    let refs = if setup.is_old_api { "networkRefs" } else { "customNetworkRefs" };
    let reference = match setup.gateway {
        Gateway::None => return None,
        Gateway::IstioSubset => json!({refs: [network(kind), network("DestinationRule")]}),
        Gateway::IstioService => json!({refs: [network(kind)]}),
        Gateway::HttpRoute => json!({"gateway": {"httpRouteName": WORKLOAD}}),
        Gateway::Ingress => json!({"ingress": {"name": WORKLOAD, "classType": "nginx"}}),
    };
    json_patch::merge(&mut routing, &reference);
    if setup.is_old_api {
        json_patch::merge(&mut routing, &json!({"createCanaryService": setup.gateway != Gateway::IstioSubset}));
    }
    Some(routing)
}

/// The Rollout of a setup with a plan.
pub fn rollout(setup: &Setup, plan: &[Step]) -> Value {
    let (api_version, kind, _) = setup.workload.resource();
    let workload = json!({"apiVersion": api_version, "kind": kind, "name": WORKLOAD});
    let mut style = json!({"steps": steps(plan, setup)});
    let mut merge = |patch: Value| json_patch::merge(&mut style, &patch);
    if let Some(threshold) = &setup.threshold {
        merge(json!({"failureThreshold": int_or_text(threshold)}));
    }
    if let Some(routing) = traffic(setup) {
        if !setup.is_old_api {
            merge(json!({"disableGenerateCanaryService": setup.gateway == Gateway::IstioSubset}));
        }
        merge(json!({"trafficRoutings": [routing]}));
    }
    if setup.gateway == Gateway::IstioSubset {
        merge(json!({"patchPodTemplateMetadata": {"labels": {"version": "canary"}}}));
    }
    let (version, reference) = if setup.is_old_api {
        ("v1alpha1", json!({"objectRef": {"workloadRef": workload}}))
    } else {
        ("v1beta1", json!({"workloadRef": workload}))
    };
    let mut annotations = json!({});
    match (setup.style, setup.is_old_api) {
        (Style::Canary | Style::Partition, true) => {
            annotations = json!({keys::ROLLING_STYLE: setup.style.as_str()});
        }
        (Style::Canary, false) => merge(json!({"enableExtraWorkloadForCanary": true})),
        (Style::Partition, false) => merge(json!({"enableExtraWorkloadForCanary": false})),
        (Style::BlueGreen, _) => {}
    }
    let mut strategy = json!({setup.strategy_key(): style});
    if let Some(deadline) = setup.deadline {
        json_patch::merge(&mut strategy, &json!({"stepDeadlineSeconds": deadline}));
        if setup.rolls_back {
            json_patch::merge(&mut strategy, &json!({"onStepFailure": "Rollback"}));
        }
    }
    let mut spec = json!({"strategy": strategy});
    json_patch::merge(&mut spec, &reference);
    json_patch::merge(&mut spec, &setup.barriers.of_spec(setup));
    json!({"apiVersion": format!("rollouts.kruise.io/{version}"), "kind": "Rollout",
        "metadata": {"name": WORKLOAD, "annotations": annotations}, "spec": spec})
}

/// The part of a Rollout's status that tells of the release, in whatever style.
pub fn release(rollout: &Value) -> &Value {
    let sub = |key: &str| at(rollout, &["status", key]).filter(|sub| sub.is_object());
    sub("canaryStatus").or_else(|| sub("blueGreenStatus")).unwrap_or(&Value::Null)
}

/// The version that a Rollout's status releases, as the status names it.
pub fn revision(rollout: &Value) -> &str {
    let sub = release(rollout);
    match text(sub, &["canaryRevision"]) {
        "" => text(sub, &["updatedRevision"]),
        revision => revision,
    }
}

/// The plan of a Rollout, as it is written.
pub fn strategy(rollout: &Value) -> &Value {
    let style = |key: &str| at(rollout, &["spec", "strategy", key]);
    style("canary").or_else(|| style("blueGreen")).unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::v1beta1::Rollout, rehearsal::draw};

    /// The API server would drop what it does not know without a word, and the release would be another than the one
    /// that was drawn.
    #[test]
    fn the_api_knows_every_field_that_is_drawn() {
        for seed in 0..400 {
            let setup = draw(seed).setup;
            if setup.is_old_api {
                continue;
            }
            let asked = rollout(&setup, &setup.steps);
            let known: Rollout = serde_json::from_value(asked.clone()).unwrap();
            let known = serde_json::to_value(&known.spec).unwrap();
            let missing = json_patch::diff(&known, &asked["spec"]).0.into_iter();
            let missing = missing.filter(|op| !matches!(op, json_patch::PatchOperation::Remove(_)));
            // Absent and false are the same word.
            let dropped: Vec<String> =
                missing.map(|op| json!(op).to_string()).filter(|op| !op.contains(r#""value":false"#)).collect();
            assert!(dropped.is_empty(), "seed {seed}: {dropped:?}");
        }
    }
}
