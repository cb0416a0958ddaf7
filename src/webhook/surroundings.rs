//! What around a Rollout makes its steps mean something else than its author may think: autoscalers and disruption
//! budgets of the workload. Only warned of, and never waited for long.

use std::time::Duration;

use k8s_openapi::{
    api::{
        autoscaling::v2::HorizontalPodAutoscaler,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    core::{Selector, SelectorExt as _},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::authority::{Target, targets};
use crate::api::{convert::to_v1beta1, object};

/// A warning is not worth a longer wait.
const LIMIT: Duration = Duration::from_secs(2);

/// What a workload has around it.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The workload; `Null` when it is not there.
    pub workload: Value,
    /// All of the namespace.
    pub autoscalers: Vec<HorizontalPodAutoscaler>,
    /// All of the namespace.
    pub budgets: Vec<PodDisruptionBudget>,
}

/// Reads them; what cannot be read is left out.
pub async fn read(client: &Client, namespace: &str, rollout: &Value) -> Surroundings {
    let reference = targets(rollout).into_iter().find(|t| t.field.ends_with("workloadRef"));
    let Some(Target { api_version, kind, name, .. }) = reference else { return Surroundings::default() };
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let workloads = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let work = async { tokio::join!(workloads.get_opt(&name), list(client, namespace), list(client, namespace)) };
    let Ok((workload, autoscalers, budgets)) = timeout(LIMIT, work).await else { return Surroundings::default() };
    let workload = workload.ok().flatten().and_then(|w| serde_json::to_value(w).ok()).unwrap_or_default();
    Surroundings { workload, autoscalers, budgets }
}

async fn list<K>(client: &Client, namespace: &str) -> Vec<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    match api.list(&Default::default()).await {
        Ok(list) => list.items,
        Err(error) => {
            tracing::debug!(kind = %K::kind(&()), %error, "not looked at for warnings");
            Vec::new()
        }
    }
}

/// What its author should know of a Rollout.
pub fn warnings(rollout: &Value, around: &Surroundings) -> Vec<String> {
    let mut warnings = Vec::new();
    if around.workload.is_null() {
        return warnings;
    }
    warnings.extend(around.autoscalers.iter().filter(|a| scales(a, &around.workload)).find_map(|a| moving(rollout, a)));
    warnings.extend(around.budgets.iter().filter_map(|b| impossible(b, &around.workload)));
    warnings
}

fn scales(autoscaler: &HorizontalPodAutoscaler, workload: &Value) -> bool {
    let Some(target) = autoscaler.spec.as_ref().map(|s| &s.scale_target_ref) else { return false };
    let group = |version: &str| object::group(version).to_owned();
    target.kind == object::text(workload, &["kind"])
        && target.name == object::name(workload)
        && target.api_version.as_deref().map(group) == Some(group(object::text(workload, &["apiVersion"])))
}

/// Steps by percentage follow whatever the autoscaler makes of the workload.
fn moving(rollout: &Value, autoscaler: &HorizontalPodAutoscaler) -> Option<String> {
    let one = to_v1beta1(rollout);
    let (style, steps) = ["canary", "blueGreen"]
        .into_iter()
        .find_map(|style| Some((style, one.pointer(&format!("/spec/strategy/{style}/steps"))?.as_array()?)))?;
    let percent = |step: &Value| -> Option<i64> { step.get("replicas")?.as_str()?.strip_suffix('%')?.parse().ok() };
    let (index, share) = steps.iter().enumerate().find_map(|(i, s)| Some((i, percent(s).filter(|p| *p < 100)?)))?;
    let spec = autoscaler.spec.as_ref()?;
    let (least, most) = (i64::from(spec.min_replicas.unwrap_or(1)), i64::from(spec.max_replicas));
    let pods = |replicas: i64| (replicas * share + 99) / 100;
    (pods(least) != pods(most)).then(|| {
        let name = autoscaler.metadata.name.as_deref().unwrap_or_default();
        format!(
            "spec.strategy.{style}.steps[{index}].replicas: {share}% follows HorizontalPodAutoscaler {}, which keeps {least} to {most} \
             pods: {} to {} of them; a number stays",
            short(name), pods(least), pods(most)
        )
    })
}

/// A budget under which no pod may ever be evicted, or that asks for more pods than there are.
fn impossible(budget: &PodDisruptionBudget, workload: &Value) -> Option<String> {
    let PodDisruptionBudgetSpec { min_available, max_unavailable, selector, .. } = budget.spec.as_ref()?;
    if !selects(selector.as_ref()?, workload) {
        return None;
    }
    let replicas = object::int(workload, &["spec", "replicas"]).filter(|n| *n > 0)?;
    let is_none = |value: &IntOrString| *value == IntOrString::Int(0) || *value == IntOrString::String("0%".to_owned());
    let why = match (min_available, max_unavailable) {
        (Some(IntOrString::Int(least)), _) if i64::from(*least) > replicas => {
            format!("minAvailable {least} is more than the {replicas} replicas: it is never met")
        }
        (Some(IntOrString::Int(least)), _) if i64::from(*least) == replicas => {
            format!("minAvailable {least} of {replicas} replicas lets no pod be evicted")
        }
        (Some(IntOrString::String(least)), _) if least == "100%" => {
            "minAvailable 100% lets no pod be evicted".to_owned()
        }
        (None, Some(most)) if is_none(most) => "maxUnavailable 0 lets no pod be evicted".to_owned(),
        _ => return None,
    };
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    Some(format!("PodDisruptionBudget {}: {why}; a node with a pod of the release cannot be drained", short(name)))
}

fn selects(selector: &LabelSelector, workload: &Value) -> bool {
    let labels = workload.pointer("/spec/template/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(&labels))
}

/// The API server cuts warnings at 256 bytes.
fn short(name: &str) -> &str {
    name.get(..name.floor_char_boundary(60)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKLOAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: 3, template: {metadata: {labels: {app: web, tier: front}}}}
";

    fn parsed<T: DeserializeOwned>(text: &str) -> T {
        crate::yaml::from_str(text).unwrap()
    }

    fn autoscaler(target: &str, least: i32, most: i32) -> HorizontalPodAutoscaler {
        parsed(&format!(
            "metadata: {{name: front}}\nspec: {{scaleTargetRef: {target}, minReplicas: {least}, maxReplicas: {most}}}"
        ))
    }

    fn said(steps: &str, autoscalers: Vec<HorizontalPodAutoscaler>, budgets: Vec<PodDisruptionBudget>) -> Vec<String> {
        let rollout: Value = parsed(&format!("kind: Rollout\nspec: {{strategy: {{canary: {{steps: [{steps}]}}}}}}"));
        let said = warnings(&rollout, &Surroundings { workload: parsed(WORKLOAD), autoscalers, budgets });
        assert!(said.iter().all(|w| w.len() <= 256), "{said:?}");
        said
    }

    #[test]
    fn a_share_of_a_workload_that_is_scaled_is_no_number() {
        let web = "{apiVersion: apps/v1, kind: Deployment, name: web}";
        let steps = "{replicas: 1}, {replicas: 20%}, {replicas: 100%}";
        assert_eq!(
            said(steps, vec![autoscaler(web, 2, 20)], Vec::new()),
            [
                "spec.strategy.canary.steps[1].replicas: 20% follows HorizontalPodAutoscaler front, which keeps 2 to 20 pods: 1 to 4 \
              of them; a number stays"
            ]
        );
        for (why, steps, autoscaler) in [
            ("the same number for every size", steps, autoscaler(web, 2, 5)),
            ("numbers only", "{replicas: 1}, {replicas: 100%}", autoscaler(web, 2, 20)),
            ("another workload", steps, autoscaler("{apiVersion: apps/v1, kind: Deployment, name: db}", 2, 20)),
            ("another kind", steps, autoscaler("{apiVersion: apps/v1, kind: StatefulSet, name: web}", 2, 20)),
            ("another group", steps, autoscaler("{apiVersion: example.io/v1, kind: Deployment, name: web}", 2, 20)),
        ] {
            assert_eq!(said(steps, vec![autoscaler], Vec::new()), [""; 0], "{why}");
        }
    }

    #[test]
    fn a_budget_that_cannot_be_kept_is_told() {
        for (spec, expected) in [
            (
                "minAvailable: 4, selector: {matchLabels: {app: web}}",
                Some("minAvailable 4 is more than the 3 replicas: it is never met"),
            ),
            (
                "minAvailable: 3, selector: {matchLabels: {app: web}}",
                Some("minAvailable 3 of 3 replicas lets no pod be evicted"),
            ),
            (
                "minAvailable: 100%, selector: {matchExpressions: [{key: app, operator: Exists}]}",
                Some("minAvailable 100%"),
            ),
            ("maxUnavailable: 0, selector: {matchLabels: {app: web}}", Some("maxUnavailable 0 lets no pod")),
            ("maxUnavailable: 0%, selector: {}", Some("maxUnavailable 0 lets no pod")),
            ("maxUnavailable: 1, selector: {matchLabels: {app: web}}", None),
            ("minAvailable: 2, selector: {matchLabels: {app: web}}", None),
            ("minAvailable: 4, selector: {matchLabels: {app: db}}", None),
            ("minAvailable: 4", None),
        ] {
            let budget = parsed(&format!("metadata: {{name: calm}}\nspec: {{{spec}}}"));
            let said = said("{replicas: 100%}", Vec::new(), vec![budget]);
            match expected {
                None => assert_eq!(said, [""; 0], "{spec}"),
                Some(part) => {
                    assert!(
                        said.len() == 1 && said[0].starts_with(&format!("PodDisruptionBudget calm: {part}")),
                        "{spec}: {said:?}"
                    );
                }
            }
        }
    }
}
