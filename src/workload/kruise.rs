//! OpenKruise's Advanced StatefulSet and Advanced DaemonSet (`apps.kruise.io`): both are held by a `partition`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{
    Goal, Kind, Style, Surroundings, Workload, daemon_set,
    hold::{By, Field, Rule, field::Scalar},
    nodes,
    partition::{Partition, by_count, by_ordinal, none_first, refusal},
    pods::is_ready,
    replicas::{Round, scaled},
    revisions::CONTROLLER_REVISION,
    stateful_set,
};
use crate::api::{
    keys,
    object::{self, at, text},
};

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
    gate: &Partition { at: by_ordinal, refusal, stuck: stateful_set::stuck, first: none_first },
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
    reads_nodes: true,
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
    gate: &Partition { at: by_count, refusal, stuck: none_stuck, first: uncounted },
};

pub(super) fn none_stuck(_: &Workload, _: &Surroundings<'_>) -> Vec<Arc<Value>> {
    Vec::new()
}

/// Old pods that are not ready, as many as the step has room for. The own controller of an Advanced DaemonSet lets
/// `maxUnavailable` pods go among the nodes that the partition chooses, and does not count what is missing on the others.
/// Whatever the partition, a pod that goes comes back as a new one, and nodes with new pods are the first to be chosen.
///
/// None while it is still on the way to an earlier partition, where a selector chooses nodes, or where new pods surge;
/// and none on a node that is not known, or to which no pod would come back.
fn uncounted(workload: &Workload, goal: &Goal<'_>) -> Vec<Arc<Value>> {
    let object = workload.object();
    let rolling = |field| at(object, &["spec", "updateStrategy", "rollingUpdate", field]);
    let bound = |field| rolling(field).and_then(|v| serde_json::from_value::<IntOrString>(v.clone()).ok());
    let pods_of = |field| bound(field).and_then(|v| scaled(&v, workload.replicas, Round::Up)).unwrap_or(0);
    let surges = pods_of("maxSurge") > 0 || rolling("rollingUpdateType").is_some_and(|kind| kind == "Surging");
    let selects = rolling("selector").is_some_and(Value::is_object);
    let Some(new) = workload.current().filter(|_| object::is_observed(object) && !surges && !selects) else {
        return Vec::new();
    };
    let template = at(object, &["spec", "template"]).unwrap_or(&Value::Null);
    let closed = nodes::closed(goal.surroundings.nodes, template);
    let node_of = |pod: &Value| text(pod, &["spec", "nodeName"]).to_owned();
    let is_old = |pod: &&Arc<Value>| !new.pods.contains(object::name(pod)) && !closed.contains(node_of(pod).as_str());
    let mut old: Vec<&Arc<Value>> = goal.surroundings.pods_of(object).filter(is_old).collect();
    // What is missing comes back as a new one.
    let coming = new.existing.max(workload.replicas - i32::try_from(old.len()).unwrap_or(i32::MAX));
    if workload.replicas - pods_of("partition") > coming {
        return Vec::new();
    }
    let is_known = |pod: &Value| goal.surroundings.nodes.iter().any(|node| object::name(node) == node_of(pod));
    old.retain(|pod| !is_ready(pod) && is_known(pod));
    old.sort_by_key(|pod| object::name(pod));
    old.into_iter().take(usize::try_from(goal.target - coming).unwrap_or(0)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        daemon_set::tests::{pod, revision},
        *,
    };
    use crate::workload::hold;

    /// The nodes whose pods are to be replaced before the partition is written.
    fn replaced_first(rolling: Value, pods: &str, closed: &str, target: i32) -> String {
        let pods: Vec<Arc<Value>> = pods.split(' ').map(pod).collect();
        let object = Arc::new(json!({"metadata": {"uid": "set", "generation": 1},
            "spec": {"template": {"image": "new"}, "updateStrategy": {"rollingUpdate": rolling}},
            "status": {"desiredNumberScheduled": if closed.is_empty() { 4 } else { 3 }, "observedGeneration": 1}}));
        let taints =
            |name: &str| if closed == name { json!([{"key": "going", "effect": "NoSchedule"}]) } else { json!([]) };
        let nodes: Vec<Arc<Value>> = ["a", "b", "c"]
            .map(|name| Arc::new(json!({"metadata": {"name": name}, "spec": {"taints": taints(name)}})))
            .to_vec();
        let revisions = [revision(1, "old"), revision(2, "new")];
        let surroundings = Surroundings { revisions: &revisions, pods: &pods, nodes: &nodes };
        let wanted = IntOrString::Int(target);
        let goal = Goal { stable: "old", ..Goal::to(target, &wanted, surroundings) };
        let pods = uncounted(&daemon_set::daemons(&DAEMON_SET, &object, &surroundings), &goal);
        pods.iter().map(|pod| text(pod, &["spec", "nodeName"])).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_that_are_missing_anyway_are_the_first_that_an_advanced_daemonset_replaces() {
        let shut = || json!({"partition": 32767});
        for (rolling, pods, closed, target, expected) in [
            (shut(), "a:old b:old! c:old d:old", "", 1, "b"),
            (shut(), "a:old! b:old! c:old d:old", "", 1, "a"),
            (shut(), "a:old! b:old! c:old d:old", "", 3, "a b"),
            (shut(), "a:old b:old c:old d:old", "", 2, ""),
            // What is missing or not ready is a new one, or will be.
            (shut(), "a:old! b:old c:old d:new!", "", 1, ""),
            (shut(), "a:old! b:old c:old", "", 1, ""),
            (shut(), "a:old! b:old c:old", "", 2, "a"),
            // No pod would come back there, or nobody knows.
            (shut(), "a:old! b:old! c:old d:old", "a", 1, "b"),
            (shut(), "a:old b:old c:old d:old!", "", 1, ""),
            // Its own controller is still on the way to the step before.
            (json!({"partition": 2}), "a:old! b:old c:old d:new", "", 3, ""),
            (json!({"partition": 3}), "a:old! b:old c:old d:new", "", 3, "a"),
            // A new pod comes beside the old one, or only nodes of a choice are updated.
            (json!({"partition": 32767, "maxSurge": 1}), "a:old! b:old c:old d:old", "", 1, ""),
            (json!({"partition": 32767, "selector": {}}), "a:old! b:old c:old d:old", "", 1, ""),
        ] {
            let found = replaced_first(rolling.clone(), pods, closed, target);
            assert_eq!(found, expected, "{pods}, {target} wanted, {rolling}");
        }
    }

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
