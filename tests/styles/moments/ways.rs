//! What is released, and how.

use serde_json::{Value, json};

use crate::{
    deeds::Deed::{self, *},
    kinds::{
        ADVANCED_DAEMON_SET, ADVANCED_STATEFUL_SET, CLONE_SET, DAEMON_SET, GAME_SERVER_SET, NEWER_ADVANCED_DAEMON_SET,
        OLDER_CLONE_SET, STATEFUL_SET,
    },
    stage::{DEPLOYMENT, Row},
    stories::{partition, with_traffic},
};

pub const STYLES: [&str; 3] = ["canary", "partition", "blueGreen"];

/// A kind of workload in a style.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) style: &'static str,
    pub(super) row: &'static Row,
    /// What its spec has besides, so that of three pods `least` are ready at every moment.
    pub(super) spec: fn() -> Value,
    pub(super) least: usize,
    /// One in so many deeds is played without being asked for: what a moment does to the state machine shows with
    /// Deployments, and what it does to a partition with the kinds next to them.
    pub(super) turn: usize,
}

const fn way(style: &'static str, row: &'static Row, spec: fn() -> Value, least: usize, turn: usize) -> Way {
    Way { style, row, spec, least, turn }
}

fn a_surging_deployment() -> Value {
    json!({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}})
}

fn a_surging_clone_set() -> Value {
    json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}})
}

fn an_older_surging_clone_set() -> Value {
    json!({"updateStrategy": {"maxSurge": 1, "maxUnavailable": 0}})
}

fn as_it_is() -> Value {
    json!({})
}

fn two_at_a_time() -> Value {
    json!({"podManagementPolicy": "Parallel", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2, "podUpdatePolicy": "InPlaceIfPossible", "unorderedUpdate": {}}}})
}

fn with_a_new_pod_first() -> Value {
    json!({"updateStrategy": {"rollingUpdate": {"rollingUpdateType": "Surging", "maxSurge": 1, "maxUnavailable": 0}}})
}

pub(super) const WAYS: [Way; 14] = [
    way("canary", &DEPLOYMENT, a_surging_deployment, 3, 2),
    way("partition", &DEPLOYMENT, a_surging_deployment, 3, 2),
    way("blueGreen", &DEPLOYMENT, a_surging_deployment, 3, 2),
    way("blueGreen", &CLONE_SET, a_surging_clone_set, 3, 4),
    way("partition", &CLONE_SET, a_surging_clone_set, 3, 4),
    way("partition", &STATEFUL_SET, as_it_is, 2, 4),
    way("partition", &DAEMON_SET, as_it_is, 2, 10),
    way("partition", &ADVANCED_STATEFUL_SET, as_it_is, 2, 10),
    way("partition", &ADVANCED_STATEFUL_SET, two_at_a_time, 1, 10),
    way("partition", &NEWER_ADVANCED_DAEMON_SET, as_it_is, 2, 10),
    way("partition", &ADVANCED_DAEMON_SET, with_a_new_pod_first, 3, 10),
    way("partition", &OLDER_CLONE_SET, as_it_is, 2, 10),
    way("blueGreen", &OLDER_CLONE_SET, an_older_surging_clone_set, 3, 10),
    way("partition", &GAME_SERVER_SET, as_it_is, 2, 10),
];

impl Way {
    /// A CloneSet makes no more new pods beside its old ones: that needs a person.
    pub(super) fn gets_stuck(self, deed: Deed) -> bool {
        self.style == "blueGreen" && self.row.kind == "CloneSet" && matches!(deed, Scale(_) | Autoscale)
    }

    /// An Advanced DaemonSet's controller counts those that are missing among the nodes that its partition lets it update: of
    /// two releases that overlap, the second does not see what the first still misses (docs/workloads/advanced-daemonset.md).
    pub fn may_lack_pods(self, deed: Deed, at: &str) -> bool {
        let overlaps =
            at.ends_with("/ReleaseWorkloadControl") && matches!(deed, Third | ThirdAndAllTheWayBack | TouchTemplate);
        self.row.kind == "DaemonSet" && self.row.definition.is_some() && overlaps
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (group, version) = self.row.api_version.split_once('/').unwrap_or_default();
        let advanced = if group == "apps.kruise.io" && self.row.kind != "CloneSet" { "Advanced" } else { "" };
        let (older, spec) = (if version == "v1alpha1" { version } else { "" }, (self.spec)());
        let two = if spec["podManagementPolicy"].is_null() { "" } else { "Parallel" };
        // `blueGreen Advanced StatefulSet Parallel`
        let words = [self.style, advanced, self.row.kind, older, two];
        f.write_str(&words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }
}

pub(super) fn steps(style: &str) -> Value {
    match style {
        "blueGreen" => json!([{"replicas": "100%", "traffic": "0%"}, {"replicas": "100%", "traffic": "100%"}]),
        _ => json!([{"replicas": 1, "traffic": "20%"}, {"replicas": "60%", "traffic": "50%"}]),
    }
}

pub(super) fn key(style: &str) -> &'static str {
    if style == "blueGreen" { "blueGreen" } else { "canary" }
}

pub fn strategy(style: &str) -> Value {
    let strategy = match style {
        "canary" => json!({"canary": {"enableExtraWorkloadForCanary": true, "steps": steps(style)}}),
        "partition" => partition(steps(style)),
        _ => json!({"blueGreen": {"steps": steps(style)}}),
    };
    with_traffic(strategy, key(style))
}
