//! OpenKruise's Advanced StatefulSet and Advanced DaemonSet (`apps.kruise.io`): both are held by a `partition`.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Kind, Style, Surroundings, Workload, daemon_set,
    hold::{By, Field, Rule, field::Scalar},
    partition::{Partition, by_count, by_ordinal, refusal},
    revisions::CONTROLLER_REVISION,
    stateful_set,
};
use crate::api::keys;

pub(super) const GROUP: &str = "apps.kruise.io";
pub(super) const ON_DELETE: Option<(&[&str], &str)> = Some((&["updateStrategy", "type"], "OnDelete"));

/// The number is more than any workload has pods.
const HELD_BY: By = By::Field(Field {
    path: &["updateStrategy", "rollingUpdate", "partition"],
    shut: Scalar::Count(32767),
    free: Scalar::Count(0),
    remembers: keys::ORIGINAL_PARTITION,
    by_hand: ON_DELETE,
    pauses: Some(&["updateStrategy", "rollingUpdate", "paused"]),
    surges: false,
});

pub(super) const fn rule(
    policy: &'static str,
    (version, resource): (&'static str, &'static str),
    (path, webhook): (&'static str, &'static str),
    by: By,
) -> Rule {
    Rule { switch: keys::WORKLOAD_TYPE, policy, group: GROUP, version, resource, path, webhook, by }
}

/// The row of Advanced StatefulSet.
pub const STATEFUL_SET: Kind = Kind {
    group: GROUP,
    kind: "StatefulSet",
    workload_type: "statefulset",
    revision_label: keys::CONTROLLER_REVISION_HASH,
    styles: &[Style::Partition],
    revisions: CONTROLLER_REVISION,
    counts_pods: true,
    reads_nodes: false,
    goes_back_in_batches: true,
    holds: &[
        rule(
            "tidegate-hold-kruise-statefulsets-v1beta1",
            ("v1beta1", "statefulsets"),
            ("/mutate-apps-kruise-io-v1beta1-statefulset", "mstatefulset-v1beta1.kb.io"),
            HELD_BY,
        ),
        rule(
            "tidegate-hold-kruise-statefulsets-v1alpha1",
            ("v1alpha1", "statefulsets"),
            ("/mutate-apps-kruise-io-v1alpha1-statefulset", "mstatefulset-v1alpha1.kb.io"),
            HELD_BY,
        ),
    ],
    read: stateful_set::ordinals,
    gate: &Partition { at: by_ordinal, refusal, stuck: stateful_set::stuck },
};

/// The row of Advanced DaemonSet. Its pods carry their revision in the label of a DaemonSet's, and its ControllerRevisions
/// tell which was there before.
pub const DAEMON_SET: Kind = Kind {
    group: GROUP,
    kind: "DaemonSet",
    workload_type: "daemonset",
    revision_label: keys::CONTROLLER_REVISION_HASH,
    styles: &[Style::Partition],
    revisions: CONTROLLER_REVISION,
    counts_pods: true,
    reads_nodes: false,
    goes_back_in_batches: false,
    holds: &[
        rule(
            "tidegate-hold-kruise-daemonsets-v1beta1",
            ("v1beta1", "daemonsets"),
            ("/mutate-apps-kruise-io-v1beta1-daemonset", "mdaemonset-v1beta1.kb.io"),
            HELD_BY,
        ),
        rule(
            "tidegate-hold-kruise-daemonsets-v1alpha1",
            ("v1alpha1", "daemonsets"),
            ("/mutate-apps-kruise-io-v1alpha1-daemonset", "mdaemonset.kb.io"),
            HELD_BY,
        ),
    ],
    read: daemon_set::daemons,
    gate: &Partition { at: by_count, refusal, stuck: none_stuck },
};

pub(super) fn none_stuck(_: &Workload, _: &Surroundings<'_>) -> Vec<Arc<Value>> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workload::hold;

    #[test]
    fn d_10_a_strategy_without_settings_is_held_all_the_same() {
        for rule in hold::rules().filter(|rule| rule.group == GROUP) {
            let object = |image: &str| json!({"metadata": {"labels": {"rollouts.kruise.io/workload-type": "x"}}, "spec": {"template": image}});
            let held = rule.hold(&object("a"), &object("b")).unwrap();
            let By::Field(by) = &rule.by else { panic!("{}", rule.policy) };
            assert!(by.is_shut(&held), "{held}");
            assert_eq!(by.remembered(&held), Some(None), "nothing is what comes back");
        }
    }
}
