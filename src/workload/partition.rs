//! Holding and opening a workload by its `partition`: so many of its pods stay at the version before. Its own
//! controller makes and deletes the pods, and nothing moves while this one is away.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{
    Change, Gate, Goal, Kind, Move, Surroundings, Workload,
    hold::{
        By, Field,
        field::{Scalar, set},
    },
    pods::ready_for,
    revisions::template_of,
};
use crate::api::{
    keys::{InProgressing, Opening, OriginalFields},
    object,
};

/// The gate of a kind that is held by its `partition`.
pub(super) struct Partition {
    /// The partition at which the pods that a step asks for are new.
    pub at: fn(&Workload, &Goal<'_>) -> IntOrString,
    /// See [`Gate::refusal`].
    pub refusal: fn(&Workload) -> Option<String>,
    /// See [`Gate::stuck`].
    pub stuck: fn(&Workload, &Surroundings<'_>) -> Vec<Arc<Value>>,
    /// Pods in whose places others come before the partition is written.
    pub first: fn(&Workload, &Goal<'_>) -> Vec<Arc<Value>>,
}

/// Its own controller counts what is missing, whatever the partition.
pub(super) fn none_first(_: &Workload, _: &Goal<'_>) -> Vec<Arc<Value>> {
    Vec::new()
}

/// The field that a workload is held by, in its version.
pub(super) fn field(kind: &Kind, object: &Value) -> Option<&'static Field> {
    match &kind.hold(object::text(object, &["apiVersion"]))?.by {
        By::Field(field) => Some(field),
        By::Paused => None,
    }
}

/// What the user wants the field to be: as remembered where the live value is ours, else as it is.
pub(super) fn own(field: &Field, workload: &Workload) -> Option<Value> {
    let live = field.value(workload.object());
    let is_ours = workload.mark().is_some_and(|mark| {
        let written = mark.written().and_then(|o| o.partition.as_ref()).map(|p| json!(p));
        field.is_shut(workload.object())
            || (written.is_some() && written.as_ref() == live)
            || (mark.released && live == Some(&field.free.value()))
    });
    match field.remembered(workload.object()) {
        Some(remembered) if is_ours => remembered,
        _ => live.cloned(),
    }
}

/// So many pods stay old as the step leaves.
pub(super) fn by_count(workload: &Workload, goal: &Goal<'_>) -> IntOrString {
    IntOrString::Int((workload.replicas - goal.target).max(0))
}

/// So many pods from the first one stay as they are: those that had the present template before are among them, because
/// the last ones go first.
pub(super) fn by_ordinal(workload: &Workload, goal: &Goal<'_>) -> IntOrString {
    let rolling = object::at(workload.object(), &["spec", "updateStrategy", "rollingUpdate"]);
    let is_unordered = rolling.and_then(|r| r.get("unorderedUpdate")).is_some_and(Value::is_object);
    let kept = if is_unordered { 0 } else { goal.kept };
    let first = (workload.replicas - goal.target + kept).max(0);
    let is_counted = is_unordered || goal.kept > 0;
    IntOrString::Int(if is_counted { first } else { past_those_there(workload, goal, first) })
}

/// Pods that came by scaling while the partition stood lower are new ones before it, and stay so: as many fewer are
/// replaced behind it.
fn past_those_there(workload: &Workload, goal: &Goal<'_>, first: i32) -> i32 {
    let Some(new) = workload.current() else { return first };
    let ordinal = |pod: &Arc<Value>| object::name(pod).rsplit('-').next().and_then(|n| n.parse::<i32>().ok());
    let pods = goal.surroundings.pods_of(workload.object()).filter(|pod| new.pods.contains(object::name(pod)));
    let there = pods.filter(|pod| ordinal(pod).is_some_and(|ordinal| ordinal < first)).count();
    first + i32::try_from(there).unwrap_or(i32::MAX).min(goal.target)
}

/// A workload whose pods are replaced by whoever deletes them is not released step by step.
pub(super) fn refusal(workload: &Workload) -> Option<String> {
    let (path, by_hand) = field(workload.kind, workload.object()).filter(|f| !f.rolls(workload.object()))?.by_hand?;
    Some(format!(
        "{} has {} {by_hand}: its pods are replaced by whoever deletes them, and the Rollout leaves them alone; set it to \
         RollingUpdate to have it released step by step",
        workload.title(),
        path.join(".")
    ))
}

/// The operations that put a mark on a workload and give its field a value, with the user's own remembered.
pub(super) fn mark_and_set(field: &Field, workload: &Workload, mark: &InProgressing, value: Scalar) -> Vec<Value> {
    let mut operations = vec![workload.set_mark(mark), remember(field, workload)];
    operations.extend(field.set(workload.object(), Some(value.value())));
    operations
}

/// The annotations are there by then: a mark was set before.
fn remember(field: &Field, workload: &Workload) -> Value {
    let path = format!("/metadata/annotations/{}", object::pointer_key(field.remembers));
    json!({"op": "add", "path": path, "value": Field::text(own(field, workload).as_ref())})
}

/// The mark of a workload that is shut.
pub(super) fn shut_mark(workload: &Workload, rollout: &str) -> InProgressing {
    let mark = workload.mark().unwrap_or_default();
    let was = mark.open.clone().or(mark.was.clone());
    InProgressing { rollout_name: rollout.to_owned(), released: false, open: None, was, ..mark }
}

/// The operations that take mark and memory off a workload, and give the user's own value back unless somebody else has
/// changed it since.
pub(super) fn take_off(field: &Field, workload: &Workload) -> Vec<Value> {
    let object = workload.object();
    let mut operations: Vec<Value> = workload.drop_mark().into_iter().collect();
    if object::annotation(object, field.remembers).is_some() {
        let path = format!("/metadata/annotations/{}", object::pointer_key(field.remembers));
        operations.push(json!({"op": "remove", "path": path}));
    }
    let own = own(field, workload);
    if own.as_ref() != field.value(object) {
        operations.extend(field.set(object, own));
    }
    operations
}

/// The answer while new pods are not ready yet, or once enough are.
pub(super) fn await_pods(workload: &Workload, goal: &Goal<'_>) -> Move {
    let seconds = |path: &[&str]| object::int(workload.object(), path).unwrap_or(0);
    // Where an Advanced StatefulSet has it.
    let rolling = seconds(&["spec", "updateStrategy", "rollingUpdate", "minReadySeconds"]);
    await_ready(workload, goal, seconds(&["spec", "minReadySeconds"]).max(rolling))
}

/// The same, for pods that have to be ready for so many seconds.
pub(super) fn await_ready(workload: &Workload, goal: &Goal<'_>, seconds: i64) -> Move {
    let pods = goal.surroundings.pods.iter().map(AsRef::as_ref);
    let ready = workload.current().map(|new| ready_for(pods, &new.pods, seconds, goal.now)).unwrap_or_default();
    if ready.pods >= goal.needed {
        return Move::Done;
    }
    let trouble = workload.trouble.as_ref().map(|t| format!("; {t}")).unwrap_or_default();
    Move::Wait {
        reason: format!("waiting for new pods: {} of {} ready{trouble}", ready.pods, goal.needed),
        until: ready.next,
    }
}

/// A change of the workload itself.
pub(super) fn change(workload: &Workload, operations: Vec<Value>) -> Change {
    let object = &workload.object;
    let kind = |field| object::text(object, &[field]).to_owned();
    Change { kind: (kind("apiVersion"), kind("kind")), object: object.clone(), operations }
}

impl Partition {
    pub(super) fn is_paused(&self, workload: &Workload) -> bool {
        field(workload.kind, workload.object()).is_some_and(|field| is_paused(field, workload))
    }

    /// The operations that write an opening's partition and its mark.
    pub(super) fn opening(
        &self,
        workload: &Workload,
        goal: &Goal<'_>,
        opening: Opening,
        original: Option<OriginalFields>,
    ) -> Vec<Value> {
        let Some(field) = field(workload.kind, workload.object()) else { return Vec::new() };
        let (mark, is_paused) = (workload.mark().unwrap_or_default(), is_paused(field, workload));
        let partition = opening.partition.as_ref().map(|p| json!(p));
        let mark = InProgressing {
            rollout_name: goal.rollout.to_owned(),
            paused: mark.paused || is_paused,
            released: false,
            open: Some(opening),
            was: None,
            original,
        };
        let mut operations = vec![workload.set_mark(&mark), remember(field, workload)];
        operations.extend(field.set(workload.object(), partition));
        if is_paused {
            operations.extend(pause(field, workload, false));
        }
        operations
    }
}

fn is_paused(field: &Field, workload: &Workload) -> bool {
    let switch = field.pauses.and_then(|path| object::at(workload.object().get("spec")?, path));
    switch.and_then(Value::as_bool).unwrap_or(false)
}

fn pause(field: &Field, workload: &Workload, on: bool) -> Vec<Value> {
    field.pauses.map(|path| set(workload.object(), path, Some(on.into()))).unwrap_or_default()
}

impl Gate for Partition {
    fn is_kept(&self, workload: &Workload) -> bool {
        let Some((mark, field)) = workload.mark().zip(field(workload.kind, workload.object())) else { return false };
        match &mark.open {
            Some(opening) => opening.partition.as_ref().map(|p| json!(p)).as_ref() == field.value(workload.object()),
            None => field.is_shut(workload.object()) && !mark.released,
        }
    }

    fn shut(&self, workload: &Workload, rollout: &str) -> Vec<Value> {
        let Some(field) = field(workload.kind, workload.object()) else { return Vec::new() };
        mark_and_set(field, workload, &shut_mark(workload, rollout), field.shut)
    }

    fn open(&self, workload: &Workload, goal: &Goal<'_>) -> Move {
        let Some(field) = field(workload.kind, workload.object()).filter(|_| goal.target > 0) else {
            return Move::Done;
        };
        let partition = (self.at)(workload, goal);
        let mark = workload.mark().unwrap_or_default();
        let opening = Opening { partition: Some(partition.clone()), ..Opening::default() };
        let is_paused = is_paused(field, workload);
        if mark.open.as_ref() != Some(&opening)
            || field.value(workload.object()) != Some(&json!(partition))
            || is_paused
        {
            let first = (self.first)(workload, goal);
            if !first.is_empty() {
                return Move::Replace(first);
            }
            let operations = self.opening(workload, goal, opening, mark.original);
            return Move::Write(change(workload, operations));
        }
        let stuck = self.stuck(workload, &goal.surroundings);
        if stuck.is_empty() { await_pods(workload, goal) } else { Move::Replace(stuck) }
    }

    fn release(&self, workload: &Workload, rollout: &str, stays_paused: bool) -> Vec<Value> {
        let Some(field) = field(workload.kind, workload.object()).filter(|f| f.rolls(workload.object())) else {
            return Vec::new();
        };
        let mark = workload.mark().unwrap_or_default();
        let paused = mark.paused || is_paused(field, workload);
        let opens = is_paused(field, workload) && !(stays_paused && mark.paused);
        if mark.released && !opens {
            return Vec::new();
        }
        let released =
            InProgressing { rollout_name: rollout.to_owned(), paused, released: true, ..InProgressing::default() };
        let mut operations = mark_and_set(field, workload, &released, field.free);
        if opens {
            operations.extend(pause(field, workload, false));
        }
        operations
    }

    fn take_off(&self, workload: &Workload) -> Vec<Value> {
        let Some(field) = field(workload.kind, workload.object()) else { return Vec::new() };
        let mut operations = take_off(field, workload);
        if workload.mark().is_some_and(|mark| mark.paused) && !is_paused(field, workload) {
            operations.extend(pause(field, workload, true));
        }
        operations
    }

    fn template_of(&self, workload: &Workload, surroundings: &Surroundings<'_>, revision: &str) -> Option<Value> {
        template_of(workload, surroundings, revision)
    }

    fn refusal(&self, workload: &Workload) -> Option<String> {
        (self.refusal)(workload)
    }

    fn stuck(&self, workload: &Workload, surroundings: &Surroundings<'_>) -> Vec<Arc<Value>> {
        (self.stuck)(workload, surroundings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::kind;

    /// A StatefulSet of as many pods as there are letters: `n` of the present template, `o` of the one before.
    fn partition_of(pods: &str, target: i32) -> IntOrString {
        let replicas = pods.len();
        let set = Arc::new(json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "uid": "uid", "generation": 1}, "spec": {"replicas": replicas},
            "status": {"observedGeneration": 1, "replicas": replicas, "currentRevision": "db-o", "updateRevision": "db-n"}}));
        let pods: Vec<Arc<Value>> = pods
            .chars()
            .enumerate()
            .map(|(ordinal, version)| {
                Arc::new(json!({"metadata": {"name": format!("db-{ordinal}"),
                    "labels": {"controller-revision-hash": format!("db-{version}")},
                    "ownerReferences": [{"kind": "StatefulSet", "uid": "uid", "controller": true}]}}))
            })
            .collect();
        let surroundings = Surroundings { pods: &pods, ..Surroundings::default() };
        let row = kind("apps", "StatefulSet").unwrap();
        let wanted = IntOrString::Int(target);
        let goal = Goal { stable: "db-o", ..Goal::to(target, &wanted, surroundings) };
        by_ordinal(&(row.read)(row, &set, &surroundings), &goal)
    }

    #[test]
    fn new_pods_before_the_partition_count_for_the_step() {
        for (pods, target, expected) in
            [("oooooo", 2, 4), ("oooonn", 2, 4), ("oonnon", 2, 6), ("oonoon", 2, 5), ("nnnnoo", 2, 6), ("oonnon", 6, 0)]
        {
            assert_eq!(partition_of(pods, target), IntOrString::Int(expected), "{pods}, {target} wanted");
        }
    }
}
