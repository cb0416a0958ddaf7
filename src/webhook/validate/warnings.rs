//! What is legal but probably not meant. Each warning names the field, what it says, and what would be right; the API
//! server cuts them at 256 bytes.

use serde_json::{Value, json};

use super::Subject;
use crate::{
    api::object,
    lua::{Caps, Feature, Library, Script},
    workload::Style,
};

impl Subject<'_> {
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = (0..self.steps.len()).flat_map(|i| self.of_step(i)).collect();
        warnings.extend(self.unfinished());
        warnings.extend(self.idle_patch());
        warnings.extend(self.without_canary_service());
        warnings
    }

    fn path(&self) -> String {
        format!("spec.strategy.{}", self.name)
    }

    fn of_step(&self, i: usize) -> Vec<String> {
        let Some(step) = self.steps.get(i) else { return Vec::new() };
        let path = self.path();
        let share = step.get("traffic");
        let mut warnings = Vec::new();
        let asks: Vec<&str> =
            ["traffic", "matches", "requestHeaderModifier"].into_iter().filter(|k| step.contains_key(*k)).collect();
        // A v1alpha1 weight means pods as well.
        let by_weight = self.spelled(i, "weight") && asks == ["traffic"];
        if !asks.is_empty() && !self.routes() && !by_weight {
            let share = share.map(|share| format!(" ({share})")).unwrap_or_default();
            warnings.push(format!(
                "{path}.steps[{i}]: {}{share} routes nothing without {path}.trafficRoutings: name the Service and its \
                 route there, or leave it out",
                asks.join(" and ")
            ));
        }
        if let (Some(share), true, false) = (share, step.contains_key("matches"), self.can_both()) {
            warnings.push(format!(
                "{path}.steps[{i}]: matches win over the share ({share}): all matching requests go to the new version, no \
                 others; write the share in a step of its own"
            ));
        }
        warnings
    }

    /// What comes after the last step comes at once.
    fn unfinished(&self) -> Option<String> {
        let last = self.steps.last().filter(|_| self.style != Style::BlueGreen)?;
        let says = |key: &str| last.get(key).filter(|value| **value != Value::Null);
        if ["replicas", "traffic"].into_iter().any(|key| says(key) == Some(&json!("100%"))) {
            return None;
        }
        let (key, value) = ["replicas", "traffic"].into_iter().find_map(|key| Some((key, says(key)?)))?;
        Some(format!(
            "{}.steps[{}].{key}: {value}: the last step is not 100%: after it everything else rolls at once; end with \
             replicas: 100%",
            self.path(),
            self.steps.len().saturating_sub(1)
        ))
    }

    fn idle_patch(&self) -> Option<String> {
        let patch = self.strategy.get("patchPodTemplateMetadata").and_then(Value::as_object)?;
        (self.style != Style::Canary && !patch.is_empty()).then(|| {
            format!(
                "{}.patchPodTemplateMetadata has an effect in canary style only: set enableExtraWorkloadForCanary: true, or \
                 leave it out",
                self.path()
            )
        })
    }

    fn without_canary_service(&self) -> Vec<String> {
        if self.strategy.get("disableGenerateCanaryService") != Some(&Value::Bool(true)) {
            return Vec::new();
        }
        let routings = self.strategy.get("trafficRoutings").and_then(Value::as_array).into_iter().flatten();
        let kinds = routings.map(|routing| ["ingress", "gateway"].into_iter().find(|k| routing.get(*k).is_some()));
        let by_service = kinds.enumerate().filter_map(|(i, kind)| Some((i, kind?)));
        let warning = |(i, kind)| {
            format!(
                "{}.trafficRoutings[{i}].{kind} tells versions apart by Service: without a canary Service it cannot; leave \
                 out disableGenerateCanaryService",
                self.path()
            )
        };
        by_service.map(warning).collect()
    }

    /// Whether all that routes can send a share of the requests beside those that match.
    fn can_both(&self) -> bool {
        let routings = self.strategy.get("trafficRoutings").and_then(Value::as_array).into_iter().flatten();
        let mut scripts: Vec<Option<Script>> = Vec::new();
        for routing in routings {
            if routing.get("gateway").is_some() {
                scripts.push(Library::builtin("gateway.networking.k8s.io", "HTTPRoute"));
            }
            if let Some(ingress) = routing.get("ingress") {
                let class = object::text(ingress, &["classType"]);
                scripts.push(Library::ingress(if class.is_empty() { "nginx" } else { class }));
            }
            let lists = ["customNetworkRefs", "networkRefs"].into_iter().filter_map(|key| routing.get(key)?.as_array());
            scripts.extend(lists.flatten().map(|one| {
                Library::builtin(object::group(object::text(one, &["apiVersion"])), object::text(one, &["kind"]))
            }));
        }
        let can = |script: &Option<Script>| {
            let caps = script.as_ref().and_then(|script| Caps::parse(&script.source).ok().flatten());
            caps.is_some_and(|caps| caps.features.contains(&Feature::Both))
        };
        !scripts.is_empty() && scripts.iter().all(can)
    }

    /// Whether the author wrote this key in a step.
    fn spelled(&self, step: usize, key: &str) -> bool {
        self.rollout.pointer(&format!("/spec/strategy/{}/steps/{step}/{key}", self.name)).is_some()
    }
}
