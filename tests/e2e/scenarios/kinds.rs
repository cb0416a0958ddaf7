//! Releases of every kind but Deployment on the real API server, under a steady load: one row each. StatefulSets and
//! DaemonSets by their real controllers, OpenKruise's kinds by those of the in-memory cluster.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    story::{BASE, CANARY},
    styles::{self, Deed::*, On, Row, THIRD, routing},
};
use crate::rig::{Rig, kruise::Kruise};

const fn on(api_version: &'static str, kind: &'static str, spec: fn() -> Value, least: usize) -> On {
    On { api_version, kind, spec, pods: 4, least, is_on_nodes: false }
}

const STATEFUL_SET: On = on("apps/v1", "StatefulSet", || json!({"replicas": 4, "serviceName": "nginx-service"}), 3);
const DAEMON_SET: On = On { is_on_nodes: true, ..on("apps/v1", "DaemonSet", || json!({}), 3) };
const CLONE_SET: On = on(
    "apps.kruise.io/v1beta1",
    "CloneSet",
    || json!({"replicas": 4, "updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0, "partition": "25%"}}}),
    4,
);
const ADVANCED_STATEFUL_SET: On =
    on("apps.kruise.io/v1beta1", "StatefulSet", || json!({"replicas": 4, "serviceName": "nginx-service"}), 3);
const ADVANCED_DAEMON_SET: On = On { is_on_nodes: true, ..on("apps.kruise.io/v1beta1", "DaemonSet", || json!({}), 3) };

fn in_place() -> Value {
    let steps = json!([{"replicas": 1, "traffic": "20%"}, {"replicas": "50%", "traffic": "50%"}, {"replicas": "100%"}]);
    routing(json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": steps}}))
}

fn without_traffic() -> Value {
    json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": [{"replicas": "50%"}, {"replicas": "100%"}]}})
}

fn blue_green() -> Value {
    let step = |traffic: &str| json!({"replicas": "100%", "traffic": traffic});
    routing(json!({"blueGreen": {"steps": [step("0%"), step("50%"), step("100%")]}}))
}

fn to_the_end() -> Vec<styles::Deed> {
    vec![
        Mount(CANARY),
        Paused(1),
        Has(&[(BASE, 3), (CANARY, 1)]),
        Answers(CANARY, 0.2),
        Approve,
        Paused(2),
        Has(&[(BASE, 2), (CANARY, 2)]),
        Answers(CANARY, 0.5),
        Approve,
        End(CANARY),
    ]
}

fn third_and_back() -> Vec<styles::Deed> {
    vec![
        Mount(CANARY),
        Paused(1),
        Mount(THIRD),
        Has(&[(BASE, 3), (THIRD, 1)]),
        Paused(1),
        Answers(THIRD, 0.2),
        Mount(BASE),
        End(BASE),
    ]
}

fn deleted_midway() -> Vec<styles::Deed> {
    vec![Mount(CANARY), Paused(1), Has(&[(BASE, 2), (CANARY, 2)]), Delete, Left(CANARY)]
}

fn back_in_batches() -> Vec<styles::Deed> {
    let wish = json!([{"op": "add", "path": "/metadata/annotations", "value": {"rollouts.kruise.io/rollback-in-batch": "true"}}]);
    vec![
        Mount(CANARY),
        Paused(1),
        Has(&[(BASE, 2), (CANARY, 2)]),
        Rollout(wish),
        Mount(BASE),
        Has(&[(BASE, 3), (CANARY, 1)]),
        Paused(1),
        Approve,
        End(BASE),
    ]
}

const BOTH: &[(&str, usize)] = &[(BASE, 4), (CANARY, 4)];

fn switch_and_back() -> Vec<styles::Deed> {
    vec![Mount(CANARY), Paused(1), Approve, Paused(2), Answers(CANARY, 0.5), Mount(BASE), End(BASE)]
}

const fn row(name: &'static str, strategy: fn() -> Value, deeds: fn() -> Vec<styles::Deed>) -> Row {
    Row { name, strategy, deeds }
}

/// The scenarios that users of OpenKruise Rollouts know for these kinds.
pub const ROWS: &[(On, Row)] = &[
    (STATEFUL_SET, row("stateful_set_step_by_step", in_place, to_the_end)),
    (STATEFUL_SET, row("stateful_set_third_version_and_back", in_place, third_and_back)),
    (STATEFUL_SET, row("stateful_set_back_in_batches", without_traffic, back_in_batches)),
    (DAEMON_SET, row("daemon_set_step_by_step", in_place, to_the_end)),
    (DAEMON_SET, row("daemon_set_third_version_and_back", in_place, third_and_back)),
    (DAEMON_SET, row("daemon_set_deleted_midway", without_traffic, deleted_midway)),
    (CLONE_SET, row("clone_set_step_by_step", in_place, to_the_end)),
    (CLONE_SET, row("clone_set_third_version_and_back", in_place, third_and_back)),
    (CLONE_SET, row("clone_set_blue_green_switch", blue_green, || styles::switch(BOTH))),
    (CLONE_SET, row("clone_set_blue_green_and_back", blue_green, switch_and_back)),
    (ADVANCED_STATEFUL_SET, row("advanced_stateful_set_step_by_step", in_place, to_the_end)),
    (ADVANCED_STATEFUL_SET, row("advanced_stateful_set_third_version_and_back", in_place, third_and_back)),
    (ADVANCED_DAEMON_SET, row("advanced_daemon_set_step_by_step", in_place, to_the_end)),
    (ADVANCED_DAEMON_SET, row("advanced_daemon_set_third_version_and_back", in_place, third_and_back)),
];

/// Plays one row.
pub async fn play(rig: Arc<Rig>, (on, row): &'static (On, Row)) -> Result<()> {
    let _kruise = if on.api_version == "apps/v1" { None } else { Some(Kruise::shared(&rig.objects).await?) };
    styles::play_on(rig, on, row).await
}
