//! OpenKruise's CloneSet, Advanced StatefulSet and Advanced DaemonSet (`apps.kruise.io`): all are held by a `partition`,
//! which CloneSet's two versions have in different places.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{
    Goal, Kind, Style, Surroundings, Workload, count, daemon_set,
    hold::{By, Field, Rule, field::Scalar},
    partition::{Partition, by_count, field, refusal},
    replicas::{Round, scaled},
    revisions::{CONTROLLER_REVISION, revisions},
    stateful_set,
};
use crate::api::{
    keys,
    object::{self, at, digest, int, text},
};

const GROUP: &str = "apps.kruise.io";
const ON_DELETE: Option<(&[&str], &str)> = Some((&["updateStrategy", "type"], "OnDelete"));

/// The field of all but the older version of CloneSet.
const fn in_rolling_update(shut: Scalar) -> By {
    By::Field(Field {
        path: &["updateStrategy", "rollingUpdate", "partition"],
        shut,
        free: Scalar::Count(0),
        remembers: keys::ORIGINAL_PARTITION,
        by_hand: ON_DELETE,
        pauses: Some(&["updateStrategy", "rollingUpdate", "paused"]),
    })
}

/// More than any workload has.
const MANY: Scalar = Scalar::Count(32767);
const ALL: Scalar = Scalar::Text("100%");

const fn rule(
    policy: &'static str,
    (version, resource): (&'static str, &'static str),
    (path, webhook): (&'static str, &'static str),
    by: By,
) -> Rule {
    Rule { policy, group: GROUP, version, resource, path, webhook, by }
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
    holds: &[
        rule(
            "tidegate-hold-kruise-statefulsets-v1beta1",
            ("v1beta1", "statefulsets"),
            ("/mutate-apps-kruise-io-v1beta1-statefulset", "mstatefulset-v1beta1.kb.io"),
            in_rolling_update(MANY),
        ),
        rule(
            "tidegate-hold-kruise-statefulsets-v1alpha1",
            ("v1alpha1", "statefulsets"),
            ("/mutate-apps-kruise-io-v1alpha1-statefulset", "mstatefulset-v1alpha1.kb.io"),
            in_rolling_update(MANY),
        ),
    ],
    read: |object, surroundings| stateful_set::ordinals(&STATEFUL_SET_ROW, object, surroundings),
    gate: &Partition { at: by_count, refusal, stuck: stateful_set::stuck },
};

static STATEFUL_SET_ROW: Kind = STATEFUL_SET;

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
    holds: &[
        rule(
            "tidegate-hold-kruise-daemonsets-v1beta1",
            ("v1beta1", "daemonsets"),
            ("/mutate-apps-kruise-io-v1beta1-daemonset", "mdaemonset-v1beta1.kb.io"),
            in_rolling_update(MANY),
        ),
        rule(
            "tidegate-hold-kruise-daemonsets-v1alpha1",
            ("v1alpha1", "daemonsets"),
            ("/mutate-apps-kruise-io-v1alpha1-daemonset", "mdaemonset.kb.io"),
            in_rolling_update(MANY),
        ),
    ],
    read: |object, surroundings| daemon_set::daemons(&DAEMON_SET_ROW, object, surroundings),
    gate: &Partition { at: by_count, refusal, stuck: none_stuck },
};

static DAEMON_SET_ROW: Kind = DAEMON_SET;

/// The row of CloneSet.
pub const CLONE_SET: Kind = Kind {
    group: GROUP,
    kind: "CloneSet",
    workload_type: "cloneset",
    revision_label: keys::POD_TEMPLATE_HASH,
    styles: &[Style::Partition],
    revisions: CONTROLLER_REVISION,
    counts_pods: true,
    holds: &[
        rule(
            "tidegate-hold-kruise-clonesets-v1beta1",
            ("v1beta1", "clonesets"),
            ("/mutate-apps-kruise-io-v1beta1-cloneset", "mcloneset-v1beta1.kb.io"),
            in_rolling_update(ALL),
        ),
        rule(
            "tidegate-hold-kruise-clonesets-v1alpha1",
            ("v1alpha1", "clonesets"),
            ("/mutate-apps-kruise-io-v1alpha1-cloneset", "mcloneset.kb.io"),
            By::Field(Field {
                path: &["updateStrategy", "partition"],
                shut: ALL,
                free: Scalar::Count(0),
                remembers: keys::ORIGINAL_PARTITION,
                by_hand: ON_DELETE,
                pauses: Some(&["updateStrategy", "paused"]),
            }),
        ),
    ],
    read: clone_set,
    gate: &Partition { at: as_the_step_says, refusal, stuck: none_stuck },
};

static CLONE_SET_ROW: Kind = CLONE_SET;

fn none_stuck(_: &Workload, _: &Surroundings<'_>) -> Vec<Arc<Value>> {
    Vec::new()
}

/// The last part of a revision's name: what its pods carry.
fn hash_of(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap_or_default()
}

fn clone_set(object: &Arc<Value>, surroundings: &Surroundings<'_>) -> Workload {
    let replicas = count(object, &["spec", "replicas"], 1);
    let status = |field| count(object, &["status", field], 0);
    let revision = |field| hash_of(text(object, &["status", field]));
    let (current, update) = (revision("currentRevision"), revision("updateRevision"));
    let mut revisions = revisions(
        surroundings.pods_of(object),
        keys::POD_TEMPLATE_HASH,
        &[(current, status("replicas") - status("updatedReplicas")), (update, status("updatedReplicas"))],
    );
    let strategy = |name: &str| {
        let path =
            field(&CLONE_SET_ROW, object).and_then(|f| f.path.split_last()).map_or(&[][..], |(_, parent)| parent);
        let value = at(at(object, &["spec"])?, path)?.get(name)?;
        serde_json::from_value::<IntOrString>(value.clone()).ok()
    };
    if let Some(new) = revisions.last_mut().filter(|new| new.is_present) {
        let old = strategy("partition").and_then(|p| scaled(&p, replicas, Round::Up)).unwrap_or(0);
        // Its own controller is on the way there.
        new.replicas = new.replicas.max(replicas - old);
        if surroundings.pods.is_empty() {
            new.ready = status("updatedReadyReplicas");
        }
    }
    let template = at(object, &["spec", "template"]).map(object::without_nulls).unwrap_or(Value::Null);
    let unavailable = strategy("maxUnavailable").unwrap_or(IntOrString::String("20%".to_owned()));
    Workload {
        kind: &CLONE_SET_ROW,
        replicas,
        revisions,
        template_name: if update.is_empty() { digest(&template) } else { update.to_owned() },
        existing: status("replicas"),
        ready: status("readyReplicas"),
        available: int(object, &["status", "availableReplicas"])
            .map_or(status("readyReplicas"), |_| status("availableReplicas")),
        updated: status("updatedReplicas"),
        max_unavailable: scaled(&unavailable, replicas, Round::Down).unwrap_or(0).clamp(0, replicas),
        trouble: None,
        object: object.clone(),
    }
}

/// A share stays a share, so that scaling keeps it, where it leaves as many old pods as the step does; a percentage of
/// old pods rounds up.
fn as_the_step_says(workload: &Workload, goal: &Goal<'_>) -> IntOrString {
    let (total, old) = (workload.replicas, (workload.replicas - goal.target).max(0));
    if let (IntOrString::String(_), true) = (goal.wanted, old > 0) {
        let share = IntOrString::String(format!("{}%", i64::from(old) * 100 / i64::from(total.max(1))));
        if scaled(&share, total, Round::Up) == Some(old) {
            return share;
        }
    }
    IntOrString::Int(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workload::hold;

    fn old(total: i32, wanted: &str) -> IntOrString {
        let object = Arc::new(json!({"apiVersion": "apps.kruise.io/v1beta1", "spec": {"replicas": total}}));
        let surroundings = Surroundings { revisions: &[], pods: &[] };
        let wanted = match wanted.parse() {
            Ok(count) => IntOrString::Int(count),
            Err(_) => IntOrString::String(wanted.to_owned()),
        };
        let target = scaled(&wanted, total, Round::Up).unwrap();
        let goal = Goal {
            rollout: "r",
            style: Style::Partition,
            target,
            wanted: &wanted,
            needed: target,
            surroundings,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        as_the_step_says(&clone_set(&object, &surroundings), &goal)
    }

    #[test]
    fn d_25_a_share_that_would_leave_one_pod_too_many_is_a_count() {
        for (total, wanted, expected) in [
            (10, "20%", "80%"),
            (7, "20%", "71%"),
            (300, "99%", "1%"),
            (250, "99%", "2"),
            (10, "100%", "0"),
            (10, "3", "7"),
        ] {
            let text = match old(total, wanted) {
                IntOrString::Int(count) => count.to_string(),
                IntOrString::String(share) => share,
            };
            assert_eq!(text, expected, "{wanted} of {total}");
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
