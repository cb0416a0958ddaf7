//! Rollouts as tests of the commands meet them.

use serde_json::{Value, json};

use crate::api::v1beta1::Rollout;

/// The story's Rollout, v1alpha1-shaped, at a step of its release.
pub fn at(step: i32, state: &str) -> Value {
    json!({
        "apiVersion": "rollouts.kruise.io/v1beta1",
        "kind": "Rollout",
        "metadata": {
            "name": "rollouts-demo", "namespace": "shop", "uid": "u-1", "generation": 1, "resourceVersion": "7",
            "creationTimestamp": "2026-11-22T05:00:00Z",
            "annotations": {"rollouts.kruise.io/rolling-style": "canary"}
        },
        "spec": {
            "disabled": false,
            "objectRef": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-deployment"}},
            "strategy": {"canary": {
                "steps": [
                    {"weight": 20},
                    {"replicas": 1, "matches": [{"headers": [{"type": "Exact", "name": "version", "value": "canary"}]}]}
                ],
                "trafficRoutings": [{
                    "service": "nginx-service",
                    "createCanaryService": false,
                    "networkRefs": [
                        {"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "name": "nginx-vs"},
                        {"apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule", "name": "nginx-dr"}
                    ]
                }],
                "patchPodTemplateMetadata": {"labels": {"version": "canary"}}
            }}
        },
        "status": {
            "phase": "Progressing",
            "message": format!("Rollout is in step({step}/2)"),
            "observedGeneration": 1,
            "currentStepIndex": step,
            "currentStepState": state,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "InRolling",
                "message": "Rollout is in Progressing", "lastTransitionTime": "2026-11-22T05:10:00Z"}],
            "canaryStatus": {
                "stableRevision": "stable1", "podTemplateHash": "canary1", "canaryRevision": "rev2",
                "canaryReplicas": 1, "canaryReadyReplicas": 1,
                "currentStepIndex": step, "nextStepIndex": if step < 2 { step + 1 } else { -1 },
                "currentStepState": state, "finalisingStep": "",
                "lastUpdateTime": "2026-11-22T05:12:00Z"
            }
        }
    })
}

/// The same with a merge patch applied.
pub fn with(mut value: Value, patch: &Value) -> Value {
    json_patch::merge(&mut value, patch);
    value
}

/// Read as the commands read it.
pub fn typed(value: &Value) -> Rollout {
    super::super::resources::typed(&serde_json::from_value(value.clone()).unwrap()).unwrap()
}

/// A Rollout whose only release is in blue-green style.
pub fn blue_green(step: i32, state: &str) -> Value {
    with(
        at(step, state),
        &json!({
            "spec": {"objectRef": null, "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                     "strategy": {"canary": null, "blueGreen": {"steps": [{"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%", "pause": {"duration": 60}}],
                                  "trafficRoutings": [{"service": "web", "gateway": {"httpRouteName": "web-route"}}]}}},
            "status": {"canaryStatus": null, "blueGreenStatus": {
                "stableRevision": "s", "podTemplateHash": "h", "updatedRevision": "u", "updatedReplicas": 3, "updatedReadyReplicas": 2,
                "currentStepIndex": step, "nextStepIndex": 2, "currentStepState": state, "finalisingStep": ""}}
        }),
    )
}
