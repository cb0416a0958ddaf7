use super::*;
use crate::api::keys;
use serde_json::json;

fn rollout(spec: Value) -> Rollout {
    serde_json::from_value(json!({
        "apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
        "metadata": {"name": "r", "namespace": "shop", "uid": "u"}, "spec": spec
    }))
    .unwrap()
}

/// A spec without fault, with a JSON merge patch.
fn patched(patch: Value) -> Rollout {
    let mut spec = json!({
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "strategy": {"canary": {
            "enableExtraWorkloadForCanary": true,
            "steps": [{"traffic": "20%"}],
            "trafficRoutings": [{"service": "web", "customNetworkRefs": [{"apiVersion": "mesh/v1", "kind": "Route", "name": "r"}]}],
        }},
    });
    json_patch::merge(&mut spec, &patch);
    rollout(spec)
}

fn canary(patch: Value) -> Value {
    json!({"strategy": {"canary": patch}})
}

fn routing(patch: Value) -> Rollout {
    let mut routing =
        json!({"service": "web", "networkRefs": [{"apiVersion": "mesh/v1", "kind": "Route", "name": "r"}]});
    json_patch::merge(&mut routing, &patch);
    patched(canary(json!({"trafficRoutings": [routing]})))
}

fn step(step: Value) -> Rollout {
    patched(canary(json!({"steps": [{"replicas": 1}, step]})))
}

#[test]
fn both_spellings_mean_the_same() {
    let ours = patched(json!({}));
    let other = patched(json!({
        "workloadRef": null,
        "objectRef": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
        "strategy": {"canary": {
            "enableExtraWorkloadForCanary": null,
            "steps": [{"weight": 20}],
            "trafficRoutings": [{"service": "web", "networkRefs": [{"apiVersion": "mesh/v1", "kind": "Route", "name": "r"}]}],
        }},
    }));
    assert_eq!(scope(&ours).unwrap(), scope(&other).unwrap());
    assert_eq!(release(&ours).unwrap().steps, release(&other).unwrap().steps);
    for service in
        [routing(json!({"createCanaryService": false})), patched(canary(json!({"disableGenerateCanaryService": true})))]
    {
        let traffic = scope(&service).unwrap().traffic.unwrap();
        assert!(!traffic.has_canary_service());
        assert_eq!(traffic.names.canary_service, "web");
    }
    assert_eq!(scope(&ours).unwrap().traffic.unwrap().names.canary_service, "web-canary");
}

#[test]
fn the_spelling_decides_the_style_that_nobody_named() {
    let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    for (by_object_ref, field, annotation, style) in [
        (false, None, None, Style::Partition),
        (true, None, None, Style::Canary),
        (false, None, Some("Canary"), Style::Canary),
        (true, None, Some("PARTITION"), Style::Partition),
        (true, None, Some(""), Style::Canary),
        (false, Some(true), None, Style::Canary),
        (true, Some(false), None, Style::Partition),
        (false, Some(true), Some("partition"), Style::Canary),
        (true, Some(false), Some("canary"), Style::Partition),
    ] {
        let reference = if by_object_ref {
            json!({"objectRef": {"workloadRef": workload}})
        } else {
            json!({"workloadRef": workload})
        };
        let mut spec = json!({"strategy": {"canary": {"enableExtraWorkloadForCanary": field, "steps": []}}});
        json_patch::merge(&mut spec, &reference);
        let mut rollout = rollout(spec);
        if let Some(annotation) = annotation {
            rollout.metadata.annotations = Some([(keys::ROLLING_STYLE.to_owned(), annotation.to_owned())].into());
        }
        assert_eq!(scope(&rollout).unwrap().style, style, "{by_object_ref} {field:?} {annotation:?}");
    }
    let blue = rollout(json!({"workloadRef": workload, "strategy": {"blueGreen": {"steps": []}}}));
    assert_eq!(scope(&blue).unwrap().style, Style::BlueGreen);
}

#[test]
fn what_is_wrong_with_the_reach_is_named() {
    let refs = |r: Value| routing(json!({"networkRefs": r}));
    let other = json!({"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}});
    let mut misspelt = patched(canary(json!({"enableExtraWorkloadForCanary": null})));
    misspelt.metadata.annotations = Some([(keys::ROLLING_STYLE.to_owned(), "canari".to_owned())].into());
    let mut shared = patched(canary(json!({"trafficRoutingRef": "other"})));
    shared.metadata.annotations = Some([(keys::TRAFFIC_ROUTING.to_owned(), "tr".to_owned())].into());
    let two = json!([{"service": "a"}, {"service": "b"}]);
    let field = |name: &str| format!("spec.strategy.canary.trafficRoutings[0].{name}");
    for (rollout, path, says) in [
        (patched(json!({"workloadRef": null})), "spec.workloadRef".to_owned(), "is missing"),
        (patched(json!({"objectRef": other})), "spec.workloadRef".to_owned(), "differs from spec.objectRef"),
        (patched(json!({"workloadRef": {"apiVersion": ""}})), "spec.workloadRef.apiVersion".to_owned(), "is empty"),
        (patched(json!({"workloadRef": {"kind": ""}})), "spec.workloadRef.kind".to_owned(), "is empty"),
        (patched(json!({"workloadRef": {"name": ""}})), "spec.workloadRef.name".to_owned(), "is empty"),
        (patched(json!({"strategy": {"canary": null}})), "spec.strategy".to_owned(), "exactly one"),
        (patched(json!({"strategy": {"blueGreen": {}}})), "spec.strategy".to_owned(), "exactly one"),
        (misspelt, format!("metadata.annotations[{}]", keys::ROLLING_STYLE), "canari"),
        (shared, "spec.strategy.canary.trafficRoutingRef".to_owned(), "keep one of them"),
        (
            patched(canary(json!({"trafficRoutings": two}))),
            "spec.strategy.canary.trafficRoutings".to_owned(),
            "has 2 entries",
        ),
        (routing(json!({"service": ""})), field("service"), "is empty"),
        (routing(json!({"ingress": {"name": ""}})), field("ingress.name"), "is empty"),
        (routing(json!({"ingress": {"name": "i".repeat(247)}})), field("ingress.name"), "is longer than 246"),
        (routing(json!({"gracePeriodSeconds": -1})), field("gracePeriodSeconds"), "is negative"),
        (routing(json!({"gateway": {"httpRouteName": ""}})), field("gateway.httpRouteName"), "is empty"),
        (
            refs(json!([{"apiVersion": "", "kind": "K", "name": "n"}])),
            field("networkRefs"),
            "apiVersion, kind and name",
        ),
        (
            refs(json!([{"apiVersion": "v1", "kind": "", "name": "n"}])),
            field("networkRefs"),
            "apiVersion, kind and name",
        ),
        (
            refs(json!([{"apiVersion": "v1", "kind": "K", "name": ""}])),
            field("networkRefs"),
            "apiVersion, kind and name",
        ),
        (refs(json!([])), "spec.strategy.canary.trafficRoutings[0]".to_owned(), "names no object that routes"),
        (
            patched(canary(json!({
                "disableGenerateCanaryService": true,
                "trafficRoutings": [{"service": "web", "createCanaryService": true}]
            }))),
            field("createCanaryService"),
            "contradicts",
        ),
    ] {
        let error = scope(&rollout).unwrap_err();
        assert_eq!(error.field, path, "{error}");
        assert!(error.problem.contains(says), "{error}");
        assert_eq!(error.to_string(), format!("{}: {}", error.field, error.problem));
    }
}

#[test]
fn what_is_wrong_with_the_plan_is_named() {
    let second = "spec.strategy.canary.steps[1]";
    for (rollout, path, says) in [
        (patched(json!({"strategy": {"canary": null}})), "spec.strategy".to_owned(), "exactly one"),
        (patched(canary(json!({"steps": []}))), "spec.strategy.canary.steps".to_owned(), "at least one step"),
        (
            patched(json!({"strategy": {"canary": null, "blueGreen": {"steps": []}}})),
            "spec.strategy.blueGreen.steps".to_owned(),
            "at least one step",
        ),
        (
            patched(canary(json!({"failureThreshold": "many"}))),
            "spec.strategy.canary.failureThreshold".to_owned(),
            "no percentage",
        ),
        (step(json!({"traffic": "20"})), second.to_owned(), "traffic"),
        (step(json!({"weight": 101})), second.to_owned(), "weight"),
        (step(json!({"weight": 30, "traffic": "20%"})), second.to_owned(), "disagree"),
        (step(json!({})), second.to_owned(), "needs replicas"),
        (step(json!({"matches": [{}]})), second.to_owned(), "needs replicas"),
        (step(json!({"replicas": -1})), format!("{second}.replicas"), "is negative"),
        (step(json!({"replicas": "101%"})), format!("{second}.replicas"), "0% to 100%"),
        (step(json!({"replicas": "x"})), format!("{second}.replicas"), "0% to 100%"),
        (step(json!({"replicas": 0, "weight": 1})), format!("{second}.replicas"), "needs a pod"),
        (step(json!({"replicas": "0%", "matches": [{}]})), format!("{second}.replicas"), "needs a pod"),
        (step(json!({"weight": 1, "pause": {"duration": -1}})), format!("{second}.pause.duration"), "is negative"),
    ] {
        let error = release(&rollout).unwrap_err();
        assert_eq!(error.field, path, "{error}");
        assert!(error.problem.contains(says), "{error}");
    }
}

#[test]
fn a_plan_is_read_with_its_defaults() {
    let steps = json!([
        {"weight": 20}, {"replicas": 2, "weight": 50, "pause": {}}, {"replicas": "100%", "pause": {"duration": 0}}, {"weight": 0}
    ]);
    let plan = release(&patched(canary(json!({"steps": steps})))).unwrap();
    let pods =
        |total: i32| plan.steps.iter().map(|s| s.target(crate::workload::Style::Canary, total)).collect::<Vec<_>>();
    assert_eq!(pods(10), [2, 2, 10, 0]);
    assert_eq!(pods(1), [1, 1, 1, 0]);
    assert_eq!(pods(0), [0, 0, 0, 0]);
    let pauses: Vec<Pause> = plan.steps.iter().map(|s| s.pause).collect();
    assert_eq!(pauses, [Pause::Approval, Pause::Approval, Pause::Seconds(0), Pause::Approval]);
    assert_eq!((plan.next(1), plan.next(4), plan.count()), (2, -1, 4));
    assert!(plan.step(0).is_none() && plan.step(5).is_none() && plan.step(-1).is_none());
}

#[test]
fn objects_that_are_named_twice_count_once() {
    let rollout = routing(json!({
        "gateway": {"httpRouteName": "h"},
        "networkRefs": [{"apiVersion": "mesh/v1", "kind": "Route", "name": "r"}],
        "customNetworkRefs": [{"apiVersion": "mesh/v2", "kind": "Route", "name": "r"},
            {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "HTTPRoute", "name": "h"}],
    }));
    let networks = scope(&rollout).unwrap().traffic.unwrap().networks;
    assert_eq!(networks.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["h", "r"]);
}

#[test]
fn only_what_a_step_executes_is_in_the_hash() {
    let hash = |patch: Value| release(&patched(patch)).unwrap().hash;
    let base = hash(json!({}));
    for same in [
        json!({"strategy": {"paused": true}}),
        canary(json!({"failureThreshold": "10%"})),
        canary(json!({"steps": [{"traffic": "20%", "pause": {"duration": 5}}]})),
    ] {
        assert_eq!(hash(same.clone()), base, "{same}");
    }
    let routed = |proof: Value| {
        canary(json!({"trafficRoutings": [{"service": "web", "ingress": {"name": "web"}, "proof": proof}]}))
    };
    assert_eq!(hash(routed(json!({"url": "http://a/"}))), hash(routed(Value::Null)), "a proof executes nothing");
    for other in [
        canary(json!({"steps": [{"traffic": "30%"}]})),
        canary(json!({"steps": [{"traffic": "20%"}, {"replicas": 1}]})),
        canary(json!({"patchPodTemplateMetadata": {"labels": {"a": "b"}}})),
    ] {
        assert_ne!(hash(other.clone()), base, "{other}");
    }
}

#[test]
fn a_wrong_spec_leaves_the_workload_known() {
    let rollout = routing(json!({"service": ""}));
    assert!(scope(&rollout).is_err());
    let bare = bare_scope(&rollout).unwrap();
    assert_eq!((bare.workload_name().as_str(), bare.traffic), ("Deployment web", None));
    assert!(bare_scope(&patched(json!({"workloadRef": null}))).is_err());
}
