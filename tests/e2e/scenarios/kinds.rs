//! Releases of every kind but Deployment on the real API server, under a steady load: one row each. StatefulSets and
//! DaemonSets by their real controllers, OpenKruise's kinds, and one that nobody knows by name, by those of the in-memory
//! cluster.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    story::{BASE, CANARY},
    styles::{self, Deed::*, On, Row, THIRD, routing},
};
use crate::rig::{
    Rig,
    kruise::{Kruise, definitions, grant},
    poll::{SOON, until},
};

const fn on(api_version: &'static str, kind: &'static str, spec: fn() -> Value, least: usize) -> On {
    On { api_version, kind, spec, pods: 4, least, is_on_nodes: false, behaves_as: None }
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
const GAME_SERVER_SET: On = On {
    behaves_as: Some("statefulset"),
    ..on("games.example.com/v1beta1", "GameServerSet", || json!({"replicas": 4}), 3)
};

fn in_place() -> Value {
    let steps = json!([{"replicas": 1, "traffic": "20%"}, {"replicas": "50%", "traffic": "50%"}, {"replicas": "100%"}]);
    routing(json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": steps}}))
}

fn without_traffic() -> Value {
    json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": [{"replicas": "50%"}, {"replicas": "100%"}]}})
}

fn three_steps() -> Value {
    let steps = ["50%", "80%", "100%"].map(|share| json!({"replicas": share}));
    json!({"canary": {"enableExtraWorkloadForCanary": false, "steps": steps}})
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

fn disabled_midway() -> Vec<styles::Deed> {
    let off = json!([{"op": "add", "path": "/spec/disabled", "value": true}]);
    vec![Mount(CANARY), Paused(1), Has(&[(BASE, 2), (CANARY, 2)]), Rollout(off), Left(CANARY)]
}

/// Half of four pods, then of six: `scaled` is how these are shared.
fn scaled_edited_and_paused(scaled: &'static [(&'static str, usize)]) -> Vec<styles::Deed> {
    let mut deeds =
        vec![Mount(CANARY), Paused(1), Has(&[(BASE, 2), (CANARY, 2)]), Deployment(json!({"replicas": 6})), Has(scaled)];
    deeds.extend(edited_and_paused("70%", &[(BASE, 1), (CANARY, 5)]));
    deeds
}

/// The present step has other pods, and then an approval waits for a person's pause to end.
fn edited_and_paused(share: &str, pods: &'static [(&'static str, usize)]) -> Vec<styles::Deed> {
    let paused = |value: bool| Rollout(json!([{"op": "add", "path": "/spec/strategy/paused", "value": value}]));
    vec![
        Rollout(json!([{"op": "replace", "path": "/spec/strategy/canary/steps/0/replicas", "value": share}])),
        Has(pods),
        Paused(1),
        paused(true),
        Says("has been paused"),
        Approve,
        Has(pods),
        paused(false),
        Paused(2),
        Approve,
        End(CANARY),
    ]
}

fn on_nodes_edited_and_paused() -> Vec<styles::Deed> {
    let mut deeds = vec![Mount(CANARY), Paused(1), Has(&[(BASE, 2), (CANARY, 2)])];
    deeds.extend(edited_and_paused("60%", &[(BASE, 1), (CANARY, 3)]));
    deeds
}

/// Pods that come by scaling stand behind the others, and are new ones.
const NUMBERED: &[(&str, usize)] = &[(BASE, 2), (CANARY, 4)];

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

/// Pods do not come back; requests do.
fn jumps() -> Vec<styles::Deed> {
    vec![
        Mount(CANARY),
        Paused(1),
        Approve,
        Paused(2),
        Answers(CANARY, 0.5),
        // A surplus old pod would stay, and a new one go for it.
        Has(&[(BASE, 2), (CANARY, 2)]),
        Jump(1),
        Paused(1),
        Has(&[(BASE, 2), (CANARY, 2)]),
        Answers(CANARY, 0.2),
        Jump(3),
        End(CANARY),
    ]
}

fn scaled_beside_the_old_set() -> Vec<styles::Deed> {
    let mut deeds = vec![Mount(CANARY), Paused(1), Has(BOTH), Deployment(json!({"replicas": 6})), Approve];
    deeds.extend([Says("a CloneSet makes no more"), Deployment(json!({"replicas": 4})), Paused(2)]);
    deeds.extend([Answers(CANARY, 0.5), Approve, Paused(3), Approve, End(CANARY)]);
    deeds
}

fn deleted_beside_the_old_set() -> Vec<styles::Deed> {
    vec![Mount(CANARY), Paused(1), Has(BOTH), Approve, Paused(2), Answers(CANARY, 0.5), Delete, Left(CANARY)]
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
    (STATEFUL_SET, row("stateful_set_scaled_edited_and_paused", three_steps, || scaled_edited_and_paused(NUMBERED))),
    (STATEFUL_SET, row("stateful_set_disabled_midway", without_traffic, disabled_midway)),
    (STATEFUL_SET, row("stateful_set_jumps", in_place, jumps)),
    (STATEFUL_SET, row("stateful_set_by_header", styles::by_header, styles::asked_by_header)),
    (STATEFUL_SET, row("stateful_set_named_anew", styles::by_header, styles::named_anew)),
    (DAEMON_SET, row("daemon_set_step_by_step", in_place, to_the_end)),
    (DAEMON_SET, row("daemon_set_third_version_and_back", in_place, third_and_back)),
    (DAEMON_SET, row("daemon_set_deleted_midway", without_traffic, deleted_midway)),
    (DAEMON_SET, row("daemon_set_edited_and_paused", three_steps, on_nodes_edited_and_paused)),
    (DAEMON_SET, row("daemon_set_jumps", in_place, jumps)),
    (CLONE_SET, row("clone_set_step_by_step", in_place, to_the_end)),
    (CLONE_SET, row("clone_set_third_version_and_back", in_place, third_and_back)),
    (
        CLONE_SET,
        row("clone_set_scaled_edited_and_paused", three_steps, || scaled_edited_and_paused(&[(BASE, 3), (CANARY, 3)])),
    ),
    (CLONE_SET, row("clone_set_back_in_batches", without_traffic, back_in_batches)),
    (CLONE_SET, row("clone_set_deleted_midway", without_traffic, deleted_midway)),
    (CLONE_SET, row("clone_set_blue_green_switch", blue_green, || styles::switch(BOTH))),
    (CLONE_SET, row("clone_set_blue_green_and_back", blue_green, switch_and_back)),
    (CLONE_SET, row("clone_set_jumps", in_place, jumps)),
    (CLONE_SET, row("clone_set_by_header", styles::by_header, styles::asked_by_header)),
    (CLONE_SET, row("clone_set_named_anew", styles::by_header, styles::named_anew)),
    (CLONE_SET, row("clone_set_blue_green_scaled", blue_green, scaled_beside_the_old_set)),
    (CLONE_SET, row("clone_set_blue_green_deleted_midway", blue_green, deleted_beside_the_old_set)),
    (ADVANCED_STATEFUL_SET, row("advanced_stateful_set_jumps", in_place, jumps)),
    (ADVANCED_STATEFUL_SET, row("advanced_stateful_set_step_by_step", in_place, to_the_end)),
    (ADVANCED_STATEFUL_SET, row("advanced_stateful_set_third_version_and_back", in_place, third_and_back)),
    (
        ADVANCED_STATEFUL_SET,
        row("advanced_stateful_set_scaled_edited_and_paused", three_steps, || scaled_edited_and_paused(NUMBERED)),
    ),
    (ADVANCED_STATEFUL_SET, row("advanced_stateful_set_back_in_batches", without_traffic, back_in_batches)),
    (ADVANCED_STATEFUL_SET, row("advanced_stateful_set_deleted_midway", without_traffic, deleted_midway)),
    (ADVANCED_DAEMON_SET, row("advanced_daemon_set_step_by_step", in_place, to_the_end)),
    (ADVANCED_DAEMON_SET, row("advanced_daemon_set_jumps", in_place, jumps)),
    (ADVANCED_DAEMON_SET, row("advanced_daemon_set_third_version_and_back", in_place, third_and_back)),
    (ADVANCED_DAEMON_SET, row("advanced_daemon_set_edited_and_paused", three_steps, on_nodes_edited_and_paused)),
    (ADVANCED_DAEMON_SET, row("advanced_daemon_set_disabled_midway", without_traffic, disabled_midway)),
    (GAME_SERVER_SET, row("unknown_kind_step_by_step", in_place, to_the_end)),
    (GAME_SERVER_SET, row("unknown_kind_third_version_and_back", in_place, third_and_back)),
    (GAME_SERVER_SET, row("unknown_kind_deleted_midway", without_traffic, deleted_midway)),
];

/// Plays one row.
pub async fn play(rig: Arc<Rig>, (on, row): &'static (On, Row)) -> Result<()> {
    let _kruise = if on.api_version == "apps/v1" { None } else { Some(Kruise::shared(&rig.objects).await?) };
    styles::play_on(rig, on, row).await
}

/// A definition that comes is found without a restart, and one that goes stops nobody else.
pub async fn kind_comes_and_goes(rig: Arc<Rig>) -> Result<()> {
    const ROLLOUT: (&str, &str) = ("rollouts.kruise.io/v1beta1", "Rollout");
    let _controller = rig.with_controller().await?;
    grant(&rig.objects, "late.example.com/GameServerSet").await?;
    let space = rig.space("kind-comes-and-goes").await?;
    let mut definition = definitions("v1beta1")?.pop().context("no definition")?;
    definition["metadata"]["name"] = json!("gameserversets.late.example.com");
    definition["spec"]["group"] = json!("late.example.com");
    let workload = json!({"apiVersion": "late.example.com/v1beta1", "kind": "GameServerSet", "name": "late"});
    space
        .apply(&json!({"apiVersion": ROLLOUT.0, "kind": ROLLOUT.1, "metadata": {"name": "late"},
            "spec": {"workloadRef": workload, "strategy": without_traffic()}}))
        .await?;
    let says = async |words: &str| {
        until(&format!("the Rollout says {words:?}"), 2 * SOON, async || {
            let status = space.get(ROLLOUT.0, ROLLOUT.1, "late").await?["status"].clone();
            ensure!(status["message"].as_str().is_some_and(|m| m.contains(words)), "{status}");
            Ok(())
        })
        .await
    };
    let missing = "does not serve late.example.com/v1beta1 GameServerSet";
    says(missing).await?;
    rig.objects.apply_crds(&[definition]).await?;
    says("GameServerSet late does not exist").await?;
    rig.objects
        .kill("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "gameserversets.late.example.com")
        .await?;
    says(missing).await
}
