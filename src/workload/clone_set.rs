//! OpenKruise's CloneSet (`apps.kruise.io`): it names its revisions itself; it is held by its `partition`, which its two
//! versions have in different places.
//!
//! In blue-green style it rolls all the way, with a `maxSurge` of 100 %, no pod that may be missing, and a
//! `minReadySeconds` that none ever reaches: its own controller then sees no pod of either version as available, and
//! takes no ready one away. It makes no more pods beyond those that are wanted than new ones are missing, so that a part
//! of the new set could never become the whole: the first step that asks for pods brings all of them.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::{
    Gate, Goal, Kind, Move, Style, Surroundings, Workload, count,
    hold::{
        By, Field, HELD_DEADLINE, HELD_READY,
        field::{BOUNDS, Scalar, set},
    },
    kruise::{GROUP, ON_DELETE, none_stuck, rule},
    partition::{Partition, await_ready, change, field, none_first, refusal},
    replicas::{Round, scaled},
    revisions::{CONTROLLER_REVISION, revisions},
};
use crate::api::{
    keys::{self, InProgressing, Opening, OriginalFields},
    object::{self, at, digest, int, text},
};

const fn held_by(path: &'static [&'static str], pauses: &'static [&'static str]) -> By {
    By::Field(Field {
        path,
        shut: Scalar::Text("100%"),
        free: Scalar::Count(0),
        remembers: keys::ORIGINAL_PARTITION,
        by_hand: ON_DELETE,
        pauses: Some(pauses),
        surges: true,
    })
}

/// The row of CloneSet.
pub const KIND: Kind = Kind {
    group: GROUP,
    kind: "CloneSet",
    workload_type: "cloneset",
    revision_label: keys::POD_TEMPLATE_HASH,
    styles: &[Style::Partition, Style::BlueGreen],
    revisions: CONTROLLER_REVISION,
    counts_pods: true,
    reads_nodes: false,
    goes_back_in_batches: true,
    holds: &[
        rule(
            "tidegate-hold-kruise-clonesets-v1beta1",
            ("v1beta1", "clonesets"),
            ("/mutate-apps-kruise-io-v1beta1-cloneset", "mcloneset-v1beta1.kb.io"),
            held_by(&["updateStrategy", "rollingUpdate", "partition"], &["updateStrategy", "rollingUpdate", "paused"]),
        ),
        rule(
            "tidegate-hold-kruise-clonesets-v1alpha1",
            ("v1alpha1", "clonesets"),
            ("/mutate-apps-kruise-io-v1alpha1-cloneset", "mcloneset.kb.io"),
            held_by(&["updateStrategy", "partition"], &["updateStrategy", "paused"]),
        ),
    ],
    read,
    gate: &CloneSet,
};

/// The last part of a revision's name: what its pods carry.
fn hash_of(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap_or_default()
}

fn read(kind: &'static Kind, object: &Arc<Value>, surroundings: &Surroundings<'_>) -> Workload {
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
        let path = field(kind, object).and_then(|f| f.path.split_last()).map_or(&[][..], |(_, parent)| parent);
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
        kind,
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

/// A share of old pods wherever one leaves as many as the step does, also where the step says a count: when somebody
/// scales, the CloneSet's own controller applies it at once to what there is then, and a number of old pods would let every
/// pod that comes besides be a new one. A percentage of old pods rounds up.
fn as_the_step_says(workload: &Workload, goal: &Goal<'_>) -> IntOrString {
    let (total, old) = (workload.replicas, (workload.replicas - goal.target).max(0));
    if old > 0 {
        let share = IntOrString::String(format!("{}%", i64::from(old) * 100 / i64::from(total.max(1))));
        if scaled(&share, total, Round::Up) == Some(old) {
            return share;
        }
    }
    IntOrString::Int(old)
}

const PARTITION: Partition = Partition { at: as_the_step_says, refusal, stuck: none_stuck, first: none_first };

/// The gate of a CloneSet.
struct CloneSet;

/// What brings a full new set up beside the old one.
fn surge() -> Opening {
    Opening {
        max_surge: Some(IntOrString::String("100%".to_owned())),
        max_unavailable: Some(IntOrString::Int(0)),
        partition: Some(IntOrString::Int(0)),
    }
}

/// The values of [`BOUNDS`] in an opening.
fn bounds(opening: &Opening) -> [Option<Value>; 2] {
    [&opening.max_surge, &opening.max_unavailable].map(|bound| bound.as_ref().map(|bound| json!(bound)))
}

/// The fields are those that the controller wrote.
fn is_in_place(field: &Field, workload: &Workload, opening: &Opening) -> bool {
    let object = workload.object();
    let live = BOUNDS.map(|bound| field.value_beside(object, bound).cloned());
    field.keeps_both(object)
        && field.value(object) == opening.partition.as_ref().map(|p| json!(p)).as_ref()
        && live == bounds(opening)
}

/// The user's own fields: as recorded where the live ones are ours, else as they are.
fn originals(field: &Field, workload: &Workload, mark: &InProgressing) -> OriginalFields {
    let object = workload.object();
    let recorded = mark.original.clone().unwrap_or_default();
    let ours = mark.original.as_ref().and(mark.written()).map(bounds).unwrap_or_default();
    let mut strategy = Map::new();
    for (bound, ours) in BOUNDS.into_iter().zip(ours) {
        let live = field.value_beside(object, bound);
        let own = if live.is_some() && live == ours.as_ref() { recorded.strategy.get(bound) } else { live };
        strategy.extend(own.map(|own| (bound.to_owned(), own.clone())));
    }
    let seconds = |name: &str, held: i64, recorded: Option<i64>| match int(object, &["spec", name]) {
        Some(live) if live == held => recorded,
        live => live,
    };
    OriginalFields {
        strategy: Value::Object(strategy),
        min_ready_seconds: seconds("minReadySeconds", HELD_READY, recorded.min_ready_seconds),
        progress_deadline_seconds: seconds(
            "progressDeadlineSeconds",
            HELD_DEADLINE,
            recorded.progress_deadline_seconds,
        ),
    }
}

/// The operations that keep both sets.
fn keep_both(field: &Field, workload: &Workload, opening: &Opening) -> Vec<Value> {
    let object = workload.object();
    let mut operations = set(object, &["minReadySeconds"], Some(HELD_READY.into()));
    if int(object, &["spec", "progressDeadlineSeconds"]).is_some() {
        // It has to be greater.
        operations.extend(set(object, &["progressDeadlineSeconds"], Some(HELD_DEADLINE.into())));
    }
    for (bound, value) in BOUNDS.into_iter().zip(bounds(opening)) {
        operations.extend(set(object, &field.beside(bound), value));
    }
    operations
}

/// The operations that give the user's own fields back, where they are not his already.
fn restore(field: &Field, workload: &Workload, mark: &InProgressing) -> Vec<Value> {
    if mark.original.is_none() {
        return Vec::new();
    }
    let (object, original) = (workload.object(), originals(field, workload, mark));
    let mut operations = Vec::new();
    let mut give = |path: &[&str], own: Option<Value>| {
        if object.get("spec").and_then(|spec| at(spec, path)) != own.as_ref() {
            operations.extend(set(object, path, own));
        }
    };
    for bound in BOUNDS {
        give(&field.beside(bound), original.strategy.get(bound).cloned());
    }
    give(&["minReadySeconds"], original.min_ready_seconds.map(Value::from));
    give(&["progressDeadlineSeconds"], original.progress_deadline_seconds.map(Value::from));
    operations
}

/// Its own controller makes no more pods beyond those that are wanted than new ones are missing: after scaling up, or
/// when a new pod was lost, that may be none.
fn old_pods_at_most(workload: &Workload, target: i32) -> Option<i32> {
    let new = workload.current()?.existing;
    let all: i32 = workload.revisions.iter().map(|r| r.existing).sum();
    let most = workload.replicas + (workload.replicas - new).max(0);
    (object::is_observed(workload.object()) && new < target && all >= most).then_some(all - new)
}

fn remedy(workload: &Workload, target: i32) -> Option<String> {
    let (old, new) = (old_pods_at_most(workload, target)?, workload.current()?.existing);
    Some(format!("; beside {old} old pods a CloneSet makes no more: scale it to {new}, or roll back"))
}

impl Gate for CloneSet {
    fn is_kept(&self, workload: &Workload) -> bool {
        let Some((mark, field)) = workload.mark().zip(field(workload.kind, workload.object())) else { return false };
        match &mark.open {
            Some(opening) if mark.original.is_some() => is_in_place(field, workload, opening),
            None if mark.original.is_some() && !field.keeps_both(workload.object()) => false,
            _ => PARTITION.is_kept(workload),
        }
    }

    fn shut(&self, workload: &Workload, rollout: &str) -> Vec<Value> {
        let mut operations = PARTITION.shut(workload, rollout);
        let mark = workload.mark().unwrap_or_default();
        if let (Some(field), Some(_), Some(written)) =
            (field(workload.kind, workload.object()), &mark.original, mark.written())
        {
            // Else its own controller would take the pods of one set away.
            operations.extend(keep_both(field, workload, written));
        }
        operations
    }

    fn open(&self, workload: &Workload, goal: &Goal<'_>) -> Move {
        if goal.style != Style::BlueGreen {
            return PARTITION.open(workload, goal);
        }
        let Some(field) = field(workload.kind, workload.object()).filter(|_| goal.target > 0) else {
            return Move::Done;
        };
        let mark = workload.mark().unwrap_or_default();
        let original = originals(field, workload, &mark);
        let seconds = original.min_ready_seconds.unwrap_or(0);
        let opening = surge();
        let is_open = mark.open.as_ref() == Some(&opening) && is_in_place(field, workload, &opening);
        if is_open && !PARTITION.is_paused(workload) {
            return match await_ready(workload, goal, seconds) {
                Move::Wait { reason, until } => {
                    let remedy = remedy(workload, goal.target).unwrap_or_default();
                    Move::Wait { reason: reason + &remedy, until }
                }
                other => other,
            };
        }
        let mut operations = PARTITION.opening(workload, goal, opening.clone(), Some(original));
        operations.extend(keep_both(field, workload, &opening));
        Move::Write(change(workload, operations))
    }

    fn is_at_most(&self, workload: &Workload, target: i32) -> bool {
        old_pods_at_most(workload, target).is_some_and(|old| old > 0)
    }

    fn release(&self, workload: &Workload, rollout: &str, stays_paused: bool) -> Vec<Value> {
        let mut operations = PARTITION.release(workload, rollout, stays_paused);
        if let (Some(field), Some(mark), false) =
            (field(workload.kind, workload.object()), workload.mark(), operations.is_empty())
        {
            operations.extend(restore(field, workload, &mark));
        }
        operations
    }

    fn take_off(&self, workload: &Workload) -> Vec<Value> {
        let mut operations = PARTITION.take_off(workload);
        if let Some((field, mark)) = field(workload.kind, workload.object()).zip(workload.mark()) {
            operations.extend(restore(field, workload, &mark));
        }
        operations
    }

    fn template_of(&self, workload: &Workload, surroundings: &Surroundings<'_>, revision: &str) -> Option<Value> {
        PARTITION.template_of(workload, surroundings, revision)
    }

    fn refusal(&self, workload: &Workload) -> Option<String> {
        PARTITION.refusal(workload)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn old(total: i32, wanted: &str) -> IntOrString {
        let object = Arc::new(json!({"apiVersion": "apps.kruise.io/v1beta1", "spec": {"replicas": total}}));
        let surroundings = Surroundings::default();
        let wanted = match wanted.parse() {
            Ok(count) => IntOrString::Int(count),
            Err(_) => IntOrString::String(wanted.to_owned()),
        };
        let target = scaled(&wanted, total, Round::Up).unwrap();
        let goal = Goal::to(target, &wanted, surroundings);
        as_the_step_says(&(read)(crate::workload::kind(GROUP, "CloneSet").unwrap(), &object, &surroundings), &goal)
    }

    #[test]
    fn d_25_a_share_that_would_leave_one_pod_too_many_is_a_count() {
        for (total, wanted, expected) in [
            (10, "20%", "80%"),
            (7, "20%", "71%"),
            (300, "99%", "1%"),
            (250, "99%", "2"),
            (10, "100%", "0"),
            (10, "3", "70%"),
            (300, "1", "299"),
        ] {
            let text = match old(total, wanted) {
                IntOrString::Int(count) => count.to_string(),
                IntOrString::String(share) => share,
            };
            assert_eq!(text, expected, "{wanted} of {total}");
        }
    }
}
