//! The traffic side of a Rollout or TrafficRouting.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{
    object,
    v1alpha1::TrafficRoutingSpec,
    v1beta1::{PatchPodTemplateMetadata, RolloutSpec, Step, TrafficRoutingRef},
};
use crate::lua::Script;
use crate::traffic::{Names, Original, Parts, Strategy, ingress, output, script_input};

/// What a plan asks of a script, step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The Services that share requests.
    pub names: Names,
    /// Class of the Ingress that is routed by, when one is; empty for the default class.
    pub ingress_class: Option<String>,
    /// `spec.controller` of its IngressClass, where it is known.
    pub ingress_controller: Option<String>,
    /// What the canary's pods are patched with.
    pub patch: Option<PatchPodTemplateMetadata>,
    /// One for each step.
    pub steps: Vec<Strategy>,
}

impl Plan {
    /// Reads a `Rollout` (any version and spelling) or a `TrafficRouting`.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub fn read(object: &Value) -> Result<Plan, String> {
        match object.get("kind").and_then(Value::as_str) {
            Some("Rollout") => Plan::of_rollout(object),
            Some("TrafficRouting") => Plan::of_traffic_routing(object),
            Some(kind) => Err(format!("kind: {kind} is neither Rollout nor TrafficRouting")),
            None => Err("kind: is missing; it must be Rollout or TrafficRouting".to_owned()),
        }
    }

    /// Reads a `Rollout`. The canary Service is `<service>-canary` unless the Rollout asks for none.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub fn of_rollout(object: &Value) -> Result<Plan, String> {
        let spec: RolloutSpec = spec_of(object)?;
        let strategy = spec.strategy;
        let (style, steps, refs, disabled, patch) = match (strategy.canary, strategy.blue_green) {
            (Some(c), None) => {
                let patch = c.patch_pod_template_metadata;
                ("canary", c.steps, c.traffic_routings, c.disable_generate_canary_service, patch)
            }
            (None, Some(b)) => ("blueGreen", b.steps, b.traffic_routings, b.disable_generate_canary_service, None),
            _ => return Err("spec.strategy: exactly one of canary and blueGreen must be there".to_owned()),
        };
        if steps.is_empty() {
            return Err(format!("spec.strategy.{style}.steps: has no step"));
        }
        let routing = refs.first().ok_or_else(|| format!("spec.strategy.{style}.trafficRoutings: has no entry"))?;
        let own_service = disabled != Some(true) && routing.create_canary_service != Some(false);
        let steps = steps.iter().enumerate().map(|(i, step)| strategy_of(style, i, step)).collect::<Result<_, _>>()?;
        let ingress_class = class_of(routing);
        Ok(Plan { names: names(object, routing, own_service), ingress_class, ingress_controller: None, patch, steps })
    }

    /// Reads a `TrafficRouting`: one step, and no canary Service.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub fn of_traffic_routing(object: &Value) -> Result<Plan, String> {
        let spec: TrafficRoutingSpec = spec_of(object)?;
        let routing = spec.object_ref.first().ok_or("spec.objectRef: has no entry")?;
        let strategy = Strategy::from_traffic_routing(&spec.strategy).map_err(|e| format!("spec.strategy.{e}"))?;
        let ingress_class = class_of(routing);
        let names = names(object, routing, false);
        Ok(Plan { names, ingress_class, ingress_controller: None, patch: None, steps: vec![strategy] })
    }

    /// The class whose script changes this object, when it is the Ingress of a plan that routes by one.
    pub fn class_for(&self, original: &Original) -> Option<&str> {
        let is_ingress = original.group() == object::group(ingress::API_VERSION) && original.kind == ingress::KIND;
        self.ingress_class.as_deref().filter(|_| is_ingress)
    }

    /// Whether the script makes a canary Ingress of this object, and leaves the object itself alone.
    pub fn makes_canary_ingress(&self, original: &Original, script: &Script) -> bool {
        self.class_for(original).is_some() && !ingress::is_in_place(script)
    }

    /// The script's input for one of the steps, always from the original.
    pub fn input(&self, original: &Original, script: &Script, strategy: &Strategy) -> Value {
        if self.makes_canary_ingress(original, script) {
            return ingress::script_input(
                original,
                &self.names,
                self.patch.as_ref(),
                strategy,
                self.ingress_controller.as_deref(),
            );
        }
        script_input(original, &self.names, self.patch.as_ref(), strategy)
    }

    /// What comes of the value that the script returned: the object's parts, or those of its canary Ingress.
    ///
    /// # Errors
    /// When the value is not what such a script must return.
    pub fn output(&self, original: &Original, script: &Script, value: Value) -> Result<Parts, String> {
        if self.makes_canary_ingress(original, script) {
            return ingress::canary(original, &self.names, script, value);
        }
        output(value).map_err(|e| e.to_string())
    }
}

fn class_of(routing: &TrafficRoutingRef) -> Option<String> {
    routing.ingress.as_ref().map(|ingress| ingress.class_type.clone())
}

fn spec_of<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    let spec = object.get("spec").cloned().ok_or("spec: is missing")?;
    serde_json::from_value(spec).map_err(|e| format!("spec: {e}"))
}

fn strategy_of(style: &str, index: usize, step: &Step) -> Result<Strategy, String> {
    Strategy::from_step(step).map_err(|e| format!("spec.strategy.{style}.steps[{index}].{e}"))
}

fn names(object: &Value, routing: &TrafficRoutingRef, own_service: bool) -> Names {
    let stable = routing.service.clone();
    let canary = if own_service { format!("{stable}-canary") } else { stable.clone() };
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
    Names { stable_service: stable, canary_service: canary, namespace }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rollout(canary: Value) -> Value {
        json!({"kind": "Rollout", "metadata": {"namespace": "shop"}, "spec": {"strategy": {"canary": canary}}})
    }

    #[test]
    fn canary_service_unless_asked_for_none() {
        for (extra, disabled, canary) in [
            (json!({}), None, "app-canary"),
            (json!({"createCanaryService": true}), None, "app-canary"),
            (json!({"createCanaryService": false}), None, "app"),
            (json!({}), Some(false), "app-canary"),
            (json!({}), Some(true), "app"),
        ] {
            let mut routing = extra;
            routing["service"] = json!("app");
            let mut style = json!({"steps": [{"weight": 5}], "trafficRoutings": [routing]});
            if let Some(d) = disabled {
                style["disableGenerateCanaryService"] = json!(d);
            }
            let plan = Plan::read(&rollout(style)).unwrap();
            assert_eq!(plan.names.canary_service, canary);
            assert_eq!(plan.names.namespace.as_deref(), Some("shop"));
            assert_eq!(plan.steps[0].weight, Some(5));
        }
    }

    #[test]
    fn errors_name_the_field() {
        for (object, text) in [
            (json!({"kind": "Pod"}), "kind: Pod is neither Rollout nor TrafficRouting"),
            (json!({}), "kind: is missing; it must be Rollout or TrafficRouting"),
            (json!({"kind": "Rollout"}), "spec: is missing"),
            (
                json!({"kind": "Rollout", "spec": {"strategy": {}}}),
                "spec.strategy: exactly one of canary and blueGreen must be there",
            ),
            (rollout(json!({})), "spec.strategy.canary.steps: has no step"),
            (rollout(json!({"steps": [{}]})), "spec.strategy.canary.trafficRoutings: has no entry"),
            (
                rollout(json!({"steps": [{}, {"traffic": "x"}], "trafficRoutings": [{"service": "a"}]})),
                "spec.strategy.canary.steps[1].traffic: \"x\" is not a percentage from \"0%\" to \"100%\"",
            ),
            (json!({"kind": "TrafficRouting", "spec": {"objectRef": []}}), "spec.objectRef: has no entry"),
            (
                json!({"kind": "TrafficRouting", "spec": {"objectRef": [{"service": "a"}], "strategy": {"weight": 101}}}),
                "spec.strategy.weight: 101 is not from 0 to 100",
            ),
        ] {
            assert_eq!(Plan::read(&object).unwrap_err(), text);
        }
    }
}
