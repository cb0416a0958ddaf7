//! A StatefulSet-like workload of any other kind: its owner says by the label [`keys::WORKLOAD_TYPE`] that it has the
//! fields of a StatefulSet and that its own controller follows them (contract 3.5, 5.1).
//!
//! That label stays whether a Rollout names the workload or not, so it cannot be the switch of the hold as for other
//! kinds: that is [`keys::MANAGED`]. As the switch stands on nothing else, one rule holds all such kinds, whatever they
//! are called.

use serde_json::Value;

use super::{
    Kind, Style, Workload,
    hold::{ANY, By, Rule},
    partition::{Partition, by_ordinal, none_first, refusal},
    revisions::CONTROLLER_REVISION,
    stateful_set::{HELD_BY, ordinals, stuck},
};
use crate::api::{
    keys,
    object::{self, at, text},
};

/// What its owner says of it, in any case.
pub const TYPE: &str = "statefulset";

/// The row of every kind that is not known by name.
pub static KIND: Kind = Kind {
    group: ANY,
    kind: "StatefulSet-like workload",
    workload_type: TYPE,
    revision_label: keys::CONTROLLER_REVISION_HASH,
    styles: &[Style::Partition],
    revisions: CONTROLLER_REVISION,
    counts_pods: true,
    reads_nodes: false,
    goes_back_in_batches: true,
    holds: &[Rule {
        switch: keys::MANAGED,
        policy: "tidegate-hold-statefulset-like-workloads",
        group: ANY,
        version: ANY,
        resource: ANY,
        path: "/mutate-statefulset-like-workload",
        webhook: "mstatefulsetlike.kb.io",
        by: By::Field(HELD_BY),
    }],
    read: ordinals,
    gate: &Partition { at: by_ordinal, refusal: refused, stuck, first: none_first },
};

/// Whether a group may have such kinds: not those of Kubernetes itself, nor our own.
pub fn is_custom(group: &str) -> bool {
    group.contains('.') && !group.ends_with(".k8s.io") && group != crate::api::GROUP
}

/// Its owner says that it behaves as a StatefulSet.
pub fn is_declared(object: &Value) -> bool {
    object::label(object, keys::WORKLOAD_TYPE).is_some_and(|said| said.eq_ignore_ascii_case(TYPE))
}

/// How its owner would say so.
pub fn remedy() -> String {
    format!(
        "label it {}: {TYPE}, if it has the fields of a StatefulSet and its controller follows them",
        keys::WORKLOAD_TYPE
    )
}

/// Once a Rollout has taken it over, its owner's word counts until the Rollout lets go: what is held has to be opened.
fn refused(workload: &Workload) -> Option<String> {
    let object = workload.object();
    if !is_declared(object) && workload.mark().is_none() && !workload.is_switched_on() {
        return Some(format!(
            "{} is of a kind that is not known and cannot be released in steps, and its changes are not held; {}",
            workload.title(),
            remedy()
        ));
    }
    let has = |path: &[&str]| at(object, path).is_some_and(|v| !v.is_null());
    if !has(&["spec", "template"]) {
        return Some(format!("{} has no spec.template: it does not behave as a StatefulSet", workload.title()));
    }
    if object::is_observed(object) && text(object, &["status", "updateRevision"]).is_empty() {
        return Some(format!(
            "{} says no status.updateRevision: its versions cannot be told apart, so it cannot be released in steps",
            workload.title()
        ));
    }
    refusal(workload)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::workload::{Surroundings, hold, kind};

    fn set(labels: Value, image: &str) -> Value {
        json!({"apiVersion": "games.example.com/v1", "kind": "GameServerSet",
            "metadata": {"name": "lobby", "generation": 1, "labels": labels},
            "spec": {"replicas": 3, "template": {"spec": {"containers": [{"image": image}]}}},
            "status": {"observedGeneration": 1, "updateRevision": "lobby-1", "currentRevision": "lobby-1"}})
    }

    fn refused(object: Value) -> Option<String> {
        let row = kind("games.example.com", "GameServerSet").unwrap();
        row.gate.refusal(&(row.read)(row, &Arc::new(object), &Surroundings::default()))
    }

    #[test]
    fn known_kinds_and_those_of_kubernetes_are_not_looked_at_by_label() {
        for (group, name, is_like) in [
            ("apps", "StatefulSet", Some(false)),
            ("apps.kruise.io", "CloneSet", Some(false)),
            ("apps.kruise.io", "SidecarSet", Some(true)),
            ("games.example.com", "StatefulSet", Some(true)),
            ("agents.x-k8s.io", "Sandbox", Some(true)),
            ("apps", "ReplicaSet", None),
            ("batch", "Job", None),
            ("", "Pod", None),
            ("storage.k8s.io", "StorageClass", None),
            ("rollouts.kruise.io", "Rollout", None),
        ] {
            assert_eq!(kind(group, name).map(|k| k == &KIND), is_like, "{group} {name}");
        }
        assert!(KIND.hold("games.example.com/v2alpha3").is_some());
    }

    #[test]
    fn its_owner_has_to_say_so() {
        for (label, is_refused) in [("statefulset", false), ("StatefulSet", false), ("deployment", true), ("", true)] {
            let refusal = refused(set(json!({keys::WORKLOAD_TYPE: label}), "a"));
            assert_eq!(refusal.is_some(), is_refused, "{label:?}: {refusal:?}");
        }
        let text = refused(set(json!({}), "a")).unwrap();
        assert!(text.starts_with("GameServerSet lobby is of a kind that is not known"), "{text}");
        assert!(text.contains("label it rollouts.kruise.io/workload-type: statefulset"), "{text}");
        let mut held = set(json!({}), "a");
        held["metadata"]["annotations"][keys::IN_PROGRESSING] = json!(hold::MARK);
        assert_eq!(refused(held), None, "in the middle of a release nobody is left alone");
        assert_eq!(refused(set(json!({keys::MANAGED: TYPE}), "a")), None, "nor what is held");
        let mut mute = set(json!({keys::WORKLOAD_TYPE: TYPE}), "a");
        mute["status"].as_object_mut().unwrap().remove("updateRevision");
        assert!(refused(mute).unwrap().contains("status.updateRevision"));
    }

    #[test]
    fn only_the_switch_holds_it() {
        let rule = hold::rule("games.example.com", "v1", "gameserversets").unwrap();
        let labels = |managed: bool| match managed {
            true => json!({keys::WORKLOAD_TYPE: TYPE, keys::MANAGED: TYPE}),
            false => json!({keys::WORKLOAD_TYPE: TYPE}),
        };
        assert_eq!(rule.hold(&set(labels(false), "a"), &set(labels(false), "b")), None, "no Rollout names it");
        // Also against a tool that writes its whole manifest.
        let held = rule.hold(&set(labels(true), "a"), &set(labels(false), "b")).unwrap();
        assert_eq!(held["spec"]["updateStrategy"]["rollingUpdate"]["partition"], 32767);
        assert_eq!(held["metadata"]["labels"], labels(true));
        // What carries the switch and is no such workload is left alone.
        let other = |data: &str| json!({"metadata": {"labels": labels(true)}, "data": data});
        assert_eq!(rule.hold(&other("a"), &other("b")), None);
    }
}
