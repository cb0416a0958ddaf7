//! The CRDs on a real API server: nothing that a user may write is pruned, and what the contract forbids is refused.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::rig::{
    Rig,
    poll::{SOON, until},
    space,
};

const V1ALPHA1: &str = "rollouts.kruise.io/v1alpha1";
const V1BETA1: &str = "rollouts.kruise.io/v1beta1";

/// Whether all that was sent is in what was stored.
fn kept(sent: &Value, stored: &Value, path: &str) -> Result<()> {
    match (sent, stored) {
        (Value::Object(sent), Value::Object(stored)) => sent.iter().try_for_each(|(key, value)| {
            let field = format!("{path}.{key}");
            kept(value, stored.get(key).with_context(|| format!("{field} was pruned"))?, &field)
        }),
        (Value::Array(sent), Value::Array(stored)) if sent.len() == stored.len() => {
            sent.iter().zip(stored).enumerate().try_for_each(|(i, (a, b))| kept(a, b, &format!("{path}[{i}]")))
        }
        _ if sent == stored => Ok(()),
        _ => bail!("{path}: sent {sent}, stored {stored}"),
    }
}

fn workload() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "some-workload"})
}

/// A step with every field of the contract.
fn whole_step(share: Value) -> Value {
    let mut step = json!({
        "replicas": "20%",
        "matches": [
            {"path": {"type": "Exact", "value": "/one"},
             "headers": [{"type": "Exact", "name": "user-agent", "value": "pc"}, {"type": "RegularExpression", "name": "x-id", "value": "^1.*"}],
             "queryParams": [{"type": "Exact", "name": "q", "value": "1"}, {"type": "RegularExpression", "name": "r", "value": ".+"}]},
            {"path": {"type": "PathPrefix", "value": "/two"}},
            {"path": {"type": "RegularExpression", "value": "/three/.*"}},
        ],
        "requestHeaderModifier": {"set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "2"}], "remove": ["c"]},
        "pause": {"duration": 60},
    });
    for (key, value) in share.as_object().into_iter().flatten() {
        step[key] = value.clone();
    }
    step
}

fn routing(refs: &str) -> Value {
    json!({
        "service": "some-service", "gracePeriodSeconds": 7,
        "ingress": {"classType": "aliyun-alb", "name": "some-ingress"},
        "gateway": {"httpRouteName": "some-route"},
        refs: [{"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "name": "some-vs"}],
    })
}

/// Every Rollout and TrafficRouting of the contract's section 1, in both versions and spellings.
fn accepted() -> Vec<(&'static str, Value)> {
    let object = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "spec": spec});
    let metadata = json!({"labels": {"version": "canary"}, "annotations": {"note": "x"}});
    let canary = json!({
        "steps": [
            whole_step(json!({"traffic": "20%"})), {"replicas": "40%", "traffic": "40%", "pause": {}},
            {"replicas": "60%"}, {"replicas": "100%", "pause": {"duration": 0}},
        ],
        "trafficRoutings": [routing("customNetworkRefs")], "failureThreshold": "10%", "patchPodTemplateMetadata": metadata,
        "enableExtraWorkloadForCanary": true, "trafficRoutingRef": "some-routing", "disableGenerateCanaryService": true,
    });
    let counted = json!({"steps": [{"replicas": 1}, {"replicas": 5, "traffic": "100%"}], "failureThreshold": 2});
    let blue_green = json!({
        "steps": [{"replicas": "100%", "traffic": "0%"}, whole_step(json!({"traffic": "50%", "replicas": "100%"})), {"replicas": "100%", "traffic": "100%"}],
        "trafficRoutings": [routing("customNetworkRefs")], "failureThreshold": 1, "trafficRoutingRef": "some-routing",
        "disableGenerateCanaryService": false,
    });
    let mut alpha_routing = routing("networkRefs");
    alpha_routing["createCanaryService"] = json!(false);
    let alpha = json!({
        "steps": [whole_step(json!({"weight": 20})), {"weight": 50, "replicas": 2}, {"weight": 100}],
        "trafficRoutings": [alpha_routing], "failureThreshold": "10%", "patchPodTemplateMetadata": metadata,
        "disableGenerateCanaryService": true,
    });
    vec![
        (
            "canary, every field",
            object(
                V1BETA1,
                "Rollout",
                json!({"workloadRef": workload(), "disabled": false, "strategy": {"paused": true, "canary": canary}}),
            ),
        ),
        (
            "canary, counts",
            object(V1BETA1, "Rollout", json!({"workloadRef": workload(), "strategy": {"canary": counted}})),
        ),
        (
            "blue-green",
            object(V1BETA1, "Rollout", json!({"workloadRef": workload(), "strategy": {"blueGreen": blue_green}})),
        ),
        (
            "v1alpha1, every field",
            object(
                V1ALPHA1,
                "Rollout",
                json!({"objectRef": {"workloadRef": workload()}, "rolloutID": "one", "disabled": true,
            "strategy": {"paused": true, "canary": alpha}}),
            ),
        ),
        (
            "the v1alpha1 spelling as v1beta1",
            object(
                V1BETA1,
                "Rollout",
                json!({"objectRef": {"workloadRef": workload()}, "strategy": {"canary": alpha}}),
            ),
        ),
        (
            "the v1beta1 spelling as v1alpha1",
            object(V1ALPHA1, "Rollout", json!({"workloadRef": workload(), "strategy": {"canary": canary}})),
        ),
        (
            "TrafficRouting",
            object(
                V1ALPHA1,
                "TrafficRouting",
                json!({"objectRef": [routing("customNetworkRefs")], "strategy": {
            "weight": 20, "matches": [{"headers": [{"type": "Exact", "name": "a", "value": "b"}]}],
            "requestHeaderModifier": {"set": [{"name": "a", "value": "1"}]}}}),
            ),
        ),
    ]
}

/// The examples that the tests of the schema share.
fn examples(name: &str) -> Result<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api").join(name);
    Ok(tidegate::yaml::from_str_multi(&fs::read_to_string(path)?)?)
}

/// What the controller writes, with every field of section 1.3.
fn whole_status(sub: &str, prefix: &str) -> Value {
    json!({
        "phase": "Progressing", "message": "m", "observedGeneration": 1, "currentStepIndex": 0, "currentStepState": "",
        "conditions": [{"type": "Progressing", "status": "True", "reason": "InRolling", "message": "m",
                        "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        sub: {
            "observedWorkloadGeneration": 2, "observedRolloutID": "id", "rolloutHash": "h", "stableRevision": "s", "podTemplateHash": "",
            "currentStepIndex": 1, "nextStepIndex": -1, "finalisingStep": "", "currentStepState": "StepPaused", "message": "m",
            "lastUpdateTime": "2026-01-01T00:00:00Z",
            format!("{prefix}Revision"): "", format!("{prefix}Replicas"): 0, format!("{prefix}ReadyReplicas"): 0,
        },
    })
}

pub async fn nothing_is_pruned(rig: Arc<Rig>) -> Result<()> {
    rig.crds().await?;
    let space = rig.space("schema").await?;
    let mut objects = accepted();
    let story = space::example("istio")?
        .into_iter()
        .find(|o| o["kind"] == "Rollout")
        .context("no Rollout in examples/istio")?;
    objects.push(("the story", story));
    objects
        .extend(examples("accepted.yaml")?.into_iter().map(|object| ("an example of tests/api/accepted.yaml", object)));
    for (i, (what, object)) in objects.iter_mut().enumerate() {
        object["metadata"]["name"] = json!(format!("accepted-{i}"));
        let stored = space.apply(object).await.with_context(|| format!("{what} was refused"))?;
        kept(&object["spec"], &stored["spec"], "spec").with_context(|| (*what).to_owned())?;
        if object["kind"] != "Rollout" {
            continue;
        }
        // Stored once, served as either version: nothing may be lost on the way.
        for version in [V1ALPHA1, V1BETA1] {
            let served = space.get(version, "Rollout", &format!("accepted-{i}")).await?;
            kept(&object["spec"], &served["spec"], "spec").with_context(|| format!("{what}, served as {version}"))?;
        }
    }
    for (sub, prefix, i) in [("canaryStatus", "canary", 1), ("blueGreenStatus", "updated", 2)] {
        let status = whole_status(sub, prefix);
        let resource = crate::rig::objects::resource(V1BETA1, "Rollout");
        let api =
            kube::Api::<kube::api::DynamicObject>::namespaced_with(rig.objects.client.clone(), &space.name, &resource);
        let dry = PatchParams { dry_run: true, ..Default::default() };
        let patch = Patch::Merge(json!({"status": status}));
        let stored = serde_json::to_value(api.patch_status(&format!("accepted-{i}"), &dry, &patch).await?)?;
        kept(&status, &stored["status"], "status")?;
    }
    Ok(())
}

pub async fn mistakes_are_refused(rig: Arc<Rig>) -> Result<()> {
    rig.crds().await?;
    let space = rig.space("schema-refused").await?;
    let good = |steps: Value| {
        json!({"apiVersion": V1BETA1, "kind": "Rollout", "metadata": {"name": "refused"},
               "spec": {"workloadRef": workload(), "strategy": {"canary": {"steps": steps, "trafficRoutings": [routing("customNetworkRefs")]}}}})
    };
    let with = |path: &str, value: Value| {
        let mut rollout = good(
            json!([{"replicas": "20%", "traffic": "20%", "matches": [{"headers": [{"name": "a", "value": "b"}]}]}]),
        );
        *rollout.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
        rollout
    };
    const CANARY: &str = "/spec/strategy/canary";
    let step = |field: &str| format!("{CANARY}/steps/0/{field}");
    let many = |n: usize, item: Value| Value::Array(vec![item; n]);
    // What is wrong, the object, and the field that the answer must name.
    let refused = [
        ("51 steps", good(many(51, json!({"replicas": 1}))), "steps"),
        ("17 matches", with(&step("matches"), many(17, json!({}))), "matches"),
        (
            "a path type that does not exist",
            with(&step("matches"), json!([{"path": {"type": "Glob", "value": "/"}}])),
            "type",
        ),
        ("a path of 1025 characters", with(&step("matches"), json!([{"path": {"value": "/".repeat(1025)}}])), "value"),
        ("a header name with a space", with(&step("matches/0/headers/0/name"), json!("a b")), "name"),
        ("an empty header value", with(&step("matches/0/headers/0/value"), json!("")), "value"),
        ("traffic without a percent sign", with(&step("traffic"), json!("20")), "traffic"),
        ("no workload name", with("/spec/workloadRef", json!({"apiVersion": "apps/v1", "kind": "Deployment"})), "name"),
        ("no strategy", with("/spec", json!({"workloadRef": workload()})), "strategy"),
        ("neither canary nor blueGreen", with("/spec/strategy", json!({})), "strategy"),
        (
            "both canary and blueGreen",
            with(
                "/spec/strategy",
                json!({"canary": {"steps": [{"replicas": 1}]}, "blueGreen": {"steps": [{"replicas": 1}]}}),
            ),
            "strategy",
        ),
        ("no steps", good(json!([])), "step"),
        ("fewer pods than the step before", good(json!([{"replicas": 3}, {"replicas": 2}])), "steps"),
        ("a step that says nothing", good(json!([{"pause": {}}])), "steps[0]"),
        ("no traffic in a canary step", with(&step("traffic"), json!("0%")), "traffic"),
        ("more traffic than there is", with(&step("traffic"), json!("101%")), "traffic"),
        ("more than all pods", with(&step("replicas"), json!("101%")), "replicas"),
        (
            "a blue-green release of a StatefulSet",
            json!({"apiVersion": V1BETA1, "kind": "Rollout", "metadata": {"name": "refused"}, "spec": {
                "workloadRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "w"},
                "strategy": {"blueGreen": {"steps": [{"replicas": "100%", "traffic": "100%"}]}}}}),
            "blueGreen",
        ),
        (
            "two traffic routings",
            with(&format!("{CANARY}/trafficRoutings"), many(2, routing("customNetworkRefs"))),
            "trafficRoutings",
        ),
        (
            "a negative grace period",
            with(&format!("{CANARY}/trafficRoutings/0/gracePeriodSeconds"), json!(-1)),
            "gracePeriodSeconds",
        ),
        ("no service", with(&format!("{CANARY}/trafficRoutings"), json!([{"ingress": {"name": "i"}}])), "service"),
        (
            "a networkRef without a kind",
            with(&format!("{CANARY}/trafficRoutings/0/customNetworkRefs/0"), json!({"apiVersion": "v1", "name": "n"})),
            "kind",
        ),
    ];
    let api = rig.objects.api(V1BETA1, "Rollout", &space.name);
    let dry = PostParams { dry_run: true, ..Default::default() };
    let create = async |object: &Value| {
        api.create(&dry, &serde_json::from_value(object.clone())?).await.map_err(anyhow::Error::from)
    };
    // The object that all the others differ from by one mistake.
    create(&with(&step("traffic"), json!("20%"))).await.context("the good object")?;
    for (what, object, field) in &refused {
        let Err(error) = create(object).await else { bail!("{what} was accepted") };
        let text = error.to_string();
        ensure!(text.contains(field), "{what}: the answer does not name {field}: {text}");
    }
    for case in examples("refused.yaml")?.iter().flat_map(|list| list.as_array().into_iter().flatten()) {
        let (message, spec) = (case["message"].as_str().context("no message")?, &case["spec"]);
        for version in [V1ALPHA1, V1BETA1] {
            let object =
                json!({"apiVersion": version, "kind": "Rollout", "metadata": {"name": "refused"}, "spec": spec});
            let api = rig.objects.api(version, "Rollout", &space.name);
            let answer = api.create(&dry, &serde_json::from_value(object)?).await;
            let Err(error) = answer else { bail!("accepted as {version}: {spec}") };
            ensure!(error.to_string().contains(message), "{spec}: the answer does not say {message:?}: {error:#}");
        }
    }

    // While a release is going on, the plan keeps its shape.
    let rollout = |steps: Value| {
        let mut rollout = good(steps);
        rollout["metadata"]["name"] = json!("releasing");
        rollout
    };
    space.apply(&rollout(json!([{"replicas": 1}, {"replicas": 2}]))).await?;
    let status = Patch::Merge(
        json!({"status": {"phase": "Progressing", "currentStepIndex": 1, "currentStepState": "StepPaused"}}),
    );
    api.patch_status("releasing", &PatchParams::default(), &status).await?;
    space.apply(&rollout(json!([{"replicas": 1}, {"replicas": 3}]))).await.context("another number of pods")?;
    let shapes = [
        ("another number of steps", "/spec/strategy/canary/steps", json!([{"replicas": 1}])),
        ("another workload", "/spec/workloadRef/name", json!("other")),
        ("another service", "/spec/strategy/canary/trafficRoutings/0/service", json!("other")),
    ];
    for (what, path, value) in shapes {
        let mut changed = rollout(json!([{"replicas": 1}, {"replicas": 3}]));
        *changed.pointer_mut(path).context("no such field")? = value;
        let dry = PatchParams { dry_run: true, ..PatchParams::apply("e2e").force() };
        changed["metadata"]["namespace"] = json!(space.name);
        // A controller that runs for other scenarios takes the phase away: there is no such workload.
        until(&format!("{what} in the middle of a release is refused"), SOON, async || {
            api.patch_status("releasing", &PatchParams::default(), &status).await?;
            ensure!(api.patch("releasing", &dry, &Patch::Apply(&changed)).await.is_err(), "it was accepted");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
