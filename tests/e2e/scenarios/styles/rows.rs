//! The releases of a Deployment that users of OpenKruise Rollouts know.

use serde_json::{Value, json};

use super::{
    super::story::{BASE, CANARY, VIRTUAL_SERVICE},
    Deed::{self, *},
    On, Row, THIRD,
};

const REPLICAS: usize = 6;

/// Of six pods one may be surplus and none missing.
pub const DEPLOYMENT: On = On {
    api_version: "apps/v1",
    kind: "Deployment",
    spec: || json!({"replicas": REPLICAS, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}),
    pods: REPLICAS,
    least: REPLICAS,
    is_on_nodes: false,
    behaves_as: None,
};

pub fn routing(mut strategy: Value) -> Value {
    let (api_version, kind, name) = VIRTUAL_SERVICE;
    for part in ["canary", "blueGreen"] {
        if let Some(part) = strategy.get_mut(part) {
            part["trafficRoutings"] = json!([{"service": "nginx-service",
                "networkRefs": [{"apiVersion": api_version, "kind": kind, "name": name}]}]);
        }
    }
    strategy
}

fn steps() -> Value {
    json!([{"replicas": "30%", "traffic": "20%"}, {"replicas": 3, "traffic": "50%"}, {"replicas": "100%"}])
}

fn in_place() -> Value {
    routing(json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": steps()}}))
}

fn in_place_without_traffic() -> Value {
    json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": [{"replicas": "50%"}, {"replicas": "60%"}, {"replicas": "100%"}]}})
}

fn canary() -> Value {
    routing(json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": steps()}}))
}

fn blue_green() -> Value {
    routing(json!({"blueGreen": {"steps": [
        {"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "50%"}, {"replicas": "100%", "traffic": "100%"}]}}))
}

/// Who a user is says which version answers him.
pub fn by_header() -> Value {
    asked_with(beta())
}

fn beta() -> Value {
    json!([{"headers": [{"type": "Exact", "name": USER.0, "value": USER.1}]}])
}

/// The same by a cookie among others.
fn by_cookie() -> Value {
    let cookie = json!({"type": "RegularExpression", "name": "cookie", "value": "^(.*; *)?user=beta(;.*)?$"});
    asked_with(json!([{"headers": [cookie]}]))
}

fn asked_with(matches: Value) -> Value {
    routing(json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": [
        {"replicas": 1, "matches": matches}, {"replicas": "50%", "traffic": "50%"}, {"replicas": "100%"}]}}))
}

const USER: (&str, &str) = ("x-user", "beta");

/// Its deeds, on a workload of so many pods.
pub fn asked_by_header() -> Vec<Deed> {
    vec![
        Mount(CANARY),
        Paused(1),
        Asked(USER, CANARY),
        Asked(("x-user", "other"), BASE),
        Answers(BASE, 1.0),
        Approve,
        Paused(2),
        Answers(CANARY, 0.5),
        Approve,
        End(CANARY),
    ]
}

/// Another id and nothing else: the pods of the step are labelled anew, and none is made anew.
pub fn named_anew() -> Vec<Deed> {
    vec![
        Id("first"),
        Mount(CANARY),
        Paused(1),
        Labelled("first", 1),
        Id("second"),
        Labelled("second", 1),
        Labelled("first", 0),
        Paused(1),
        Approve,
        Paused(2),
        Approve,
        End(CANARY),
    ]
}

fn five_steps() -> Value {
    let step = |share: &str| json!({"replicas": share, "traffic": share, "pause": {"duration": 1}});
    routing(json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": [
        step("20%"), step("40%"), step("60%"), step("80%"), {"replicas": "100%", "traffic": "100%"}]}}))
}

const BOTH: &[(&str, usize)] = &[(BASE, REPLICAS), (CANARY, REPLICAS)];

/// A blue-green release of three steps, with a third version in between that is refused. `both`: pods of both versions.
pub fn switch(both: &'static [(&'static str, usize)]) -> Vec<Deed> {
    vec![
        Mount(CANARY),
        Paused(1),
        Has(both),
        Answers(CANARY, 0.0),
        Mount(THIRD),
        Says("please rollback first"),
        Has(both),
        Mount(CANARY),
        Paused(1),
        Approve,
        Paused(2),
        Answers(CANARY, 0.5),
        Approve,
        Paused(3),
        Answers(CANARY, 1.0),
        Has(both),
        Approve,
        End(CANARY),
    ]
}

/// Of the five pods of the second step one may be missing.
fn tolerant() -> Value {
    let steps = json!([{"replicas": 2, "matches": beta()}, {"replicas": 5, "traffic": "50%"}, {"replicas": "100%"}]);
    routing(json!({"canary": {"enableExtraWorkloadForCanary": true, "failureThreshold": "20%", "steps": steps}}))
}

/// The scenarios that users of OpenKruise Rollouts know for Deployments.
pub const ROWS: &[Row] = &[
    Row { name: "canary_five_steps_by_time", strategy: five_steps, deeds: || vec![Mount(CANARY), End(CANARY)] },
    Row {
        name: "canary_third_version_and_back",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Has(&[(BASE, 6), (CANARY, 2)]),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Mount(THIRD),
                Has(&[(BASE, 6), (THIRD, 2)]),
                Paused(1),
                Answers(THIRD, 0.2),
                Mount(BASE),
                End(BASE),
            ]
        },
    },
    Row {
        name: "canary_scaled_up_and_down",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Deployment(json!({"replicas": 10})),
                Has(&[(BASE, 10), (CANARY, 3)]),
                Deployment(json!({"replicas": 6})),
                Paused(1),
                Answers(CANARY, 0.2),
                Approve,
                Paused(2),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "canary_jumps",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Jump(1),
                Paused(1),
                Answers(CANARY, 0.2),
                Jump(1),
                Paused(1),
                Jump(3),
                End(CANARY),
            ]
        },
    },
    Row {
        name: "canary_paused_resumed_and_edited",
        strategy: canary,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Rollout(json!([{"op": "add", "path": "/spec/strategy/paused", "value": true}])),
                Says("has been paused"),
                Approve,
                Answers(CANARY, 0.2),
                Rollout(json!([{"op": "replace", "path": "/spec/strategy/paused", "value": false}])),
                Paused(2),
                Rollout(json!([{"op": "replace", "path": "/spec/strategy/canary/steps/1/traffic", "value": "70%"}])),
                Paused(2),
                Answers(CANARY, 0.7),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "canary_that_never_gets_ready_then_a_good_one",
        strategy: canary,
        deeds: || {
            vec![
                MountBroken(CANARY),
                Says("waiting for canary pods"),
                Has(&[(BASE, 6)]),
                Mount(THIRD),
                Paused(1),
                Answers(THIRD, 0.2),
                Approve,
                Paused(2),
                Approve,
                End(THIRD),
            ]
        },
    },
    Row {
        name: "canary_that_may_miss_a_pod",
        strategy: tolerant,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Fails(CANARY),
                Has(&[(BASE, 6), (CANARY, 1)]),
                Answers(BASE, 1.0),
                Approve,
                Paused(2),
                Has(&[(BASE, 6), (CANARY, 4)]),
                Answers(CANARY, 0.5),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "canary_behind_a_node_port",
        strategy: canary,
        deeds: || {
            vec![
                Service(json!({"type": "NodePort"})),
                Mount(CANARY),
                Paused(1),
                Answers(CANARY, 0.2),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "in_place_by_cookie",
        strategy: by_cookie,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Asked(("cookie", "theme=dark; user=beta"), CANARY),
                Asked(("cookie", "user=beta; theme=dark"), CANARY),
                Asked(("cookie", "user=betatester"), BASE),
                Answers(BASE, 1.0),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "in_place_step_by_step",
        strategy: in_place,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Has(&[(BASE, 4), (CANARY, 2)]),
                Answers(CANARY, 0.2),
                Approve,
                Paused(2),
                Has(&[(BASE, 3), (CANARY, 3)]),
                Answers(CANARY, 0.5),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "in_place_third_version_and_back",
        strategy: in_place,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                // Pods of the version that goes are replaced first.
                Mount(THIRD),
                Has(&[(BASE, 3), (CANARY, 1), (THIRD, 2)]),
                Paused(1),
                Answers(THIRD, 0.2),
                Mount(BASE),
                End(BASE),
            ]
        },
    },
    Row {
        name: "in_place_scaled_and_edited",
        strategy: in_place_without_traffic,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Has(&[(BASE, 3), (CANARY, 3)]),
                Deployment(json!({"replicas": 10})),
                Has(&[(BASE, 5), (CANARY, 5)]),
                Rollout(json!([{"op": "replace", "path": "/spec/strategy/canary/steps/0/replicas", "value": "60%"}])),
                Has(&[(BASE, 4), (CANARY, 6)]),
                Paused(1),
                Approve,
                Paused(2),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "in_place_jumps",
        strategy: in_place,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Has(&[(BASE, 3), (CANARY, 3)]),
                Jump(1),
                Paused(1),
                // Pods do not come back; requests do.
                Has(&[(BASE, 3), (CANARY, 3)]),
                Answers(CANARY, 0.2),
                Jump(3),
                End(CANARY),
            ]
        },
    },
    Row { name: "in_place_by_header", strategy: by_header, deeds: asked_by_header },
    Row { name: "in_place_named_anew", strategy: by_header, deeds: named_anew },
    Row {
        name: "in_place_deleted_midway",
        strategy: in_place,
        deeds: || vec![Mount(CANARY), Paused(1), Answers(CANARY, 0.2), Delete, Left(CANARY)],
    },
    Row {
        name: "in_place_that_never_gets_ready_rolled_back",
        strategy: in_place,
        deeds: || vec![MountBroken(CANARY), Says("waiting for new pods"), Mount(BASE), End(BASE)],
    },
    Row { name: "blue_green_switch", strategy: blue_green, deeds: || switch(BOTH) },
    Row {
        name: "blue_green_and_back",
        strategy: blue_green,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Approve,
                Paused(3),
                Answers(CANARY, 1.0),
                Mount(BASE),
                Answers(BASE, 1.0),
                End(BASE),
            ]
        },
    },
    Row {
        name: "blue_green_scaled",
        strategy: blue_green,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Deployment(json!({"replicas": 8})),
                Has(&[(BASE, 8), (CANARY, 8)]),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Approve,
                Paused(3),
                Approve,
                End(CANARY),
            ]
        },
    },
    Row {
        name: "blue_green_disabled_midway",
        strategy: blue_green,
        deeds: || {
            vec![
                Mount(CANARY),
                Paused(1),
                Approve,
                Paused(2),
                Answers(CANARY, 0.5),
                Rollout(json!([{"op": "add", "path": "/spec/disabled", "value": true}])),
                Left(CANARY),
            ]
        },
    },
];
