//! Holding and opening a Deployment.
//!
//! Held, it is paused. To roll in place up to a step it is unpaused with a `minReadySeconds` that no pod ever reaches:
//! its controller then sees every new pod as unavailable and takes old pods away only as far as `maxUnavailable` says,
//! which the steps raise. Nothing but the Deployment's own controller makes or deletes pods, and nothing moves while
//! this one is away.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::opening::{as_paused, covering, partition, strategy};
use crate::{
    api::{
        keys::{InProgressing, Opening, OriginalFields, POD_TEMPLATE_HASH, WANTED_FIELDS},
        object::{self, at, int},
    },
    workload::{
        Change, Gate, Goal, Move, Style, Surroundings, Workload,
        hold::{HELD_DEADLINE, HELD_READY},
        pods::{Ready, ready_for},
        replicas::{Round, scaled},
    },
};

/// The gate of a Deployment.
pub(super) struct Deployment;

fn is_paused(workload: &Workload) -> bool {
    at(workload.object(), &["spec", "paused"]).and_then(Value::as_bool).unwrap_or(false)
}

/// The fields are those that the controller wrote.
fn is_in_place(workload: &Workload, opening: &Opening) -> bool {
    let spec = |field: &str| at(workload.object(), &["spec", field]);
    spec("strategy") == Some(&strategy(opening))
        && spec("minReadySeconds").and_then(Value::as_i64) == Some(HELD_READY)
        && spec("progressDeadlineSeconds").and_then(Value::as_i64) == Some(HELD_DEADLINE)
}

/// What somebody has written into the fields while the hold kept them.
fn wanted(workload: &Workload) -> Option<OriginalFields> {
    let text = object::annotation(workload.object(), WANTED_FIELDS)?;
    let wanted: OriginalFields = serde_json::from_str(text).ok()?;
    // The API server has not judged them.
    let is_valid = ["maxSurge", "maxUnavailable"].into_iter().all(|field| {
        let bound = at(&wanted.strategy, &["rollingUpdate", field]).cloned().map(serde_json::from_value);
        bound.is_none_or(|bound| bound.is_ok_and(|bound| scaled(&bound, 1, Round::Up).is_some_and(|pods| pods >= 0)))
    });
    // Stored, 0 seconds are none.
    is_valid.then(|| OriginalFields { min_ready_seconds: wanted.min_ready_seconds.filter(|s| *s != 0), ..wanted })
}

/// The operation that takes the word of [`wanted`] off: it is in the mark by then, or back in place.
fn forget_wanted(workload: &Workload) -> Option<Value> {
    object::annotation(workload.object(), WANTED_FIELDS)?;
    let path = format!("/metadata/annotations/{}", object::pointer_key(WANTED_FIELDS));
    Some(json!({"op": "remove", "path": path}))
}

/// The user's own fields: as recorded where the live ones are ours, else as they are.
fn originals(workload: &Workload, mark: &InProgressing) -> OriginalFields {
    let live = wanted(workload).unwrap_or_else(|| OriginalFields {
        strategy: at(workload.object(), &["spec", "strategy"]).cloned().unwrap_or(Value::Null),
        min_ready_seconds: int(workload.object(), &["spec", "minReadySeconds"]),
        progress_deadline_seconds: int(workload.object(), &["spec", "progressDeadlineSeconds"]),
    });
    let Some(recorded) = &mark.original else { return live };
    let is_ours = mark.written().is_some_and(|written| live.strategy == strategy(written));
    OriginalFields {
        strategy: if is_ours { recorded.strategy.clone() } else { live.strategy },
        min_ready_seconds: match live.min_ready_seconds {
            Some(HELD_READY) => recorded.min_ready_seconds,
            other => other,
        },
        progress_deadline_seconds: match live.progress_deadline_seconds {
            Some(HELD_DEADLINE) => recorded.progress_deadline_seconds,
            other => other,
        },
    }
}

fn change(object: &Arc<Value>, kind: &str, operations: Vec<Value>) -> Change {
    Change { kind: ("apps/v1".to_owned(), kind.to_owned()), object: object.clone(), operations }
}

fn set(field: &str, value: impl Into<Value>) -> Value {
    json!({"op": "add", "path": format!("/spec/{field}"), "value": value.into()})
}

fn set_or_remove(workload: &Workload, field: &str, value: Option<Value>) -> Option<Value> {
    match value {
        Some(value) => Some(set(field, value)),
        None => {
            at(workload.object(), &["spec", field]).map(|_| json!({"op": "remove", "path": format!("/spec/{field}")}))
        }
    }
}

/// New pods that are ready by the user's own `minReadySeconds`.
fn ready(workload: &Workload, goal: &Goal<'_>, seconds: i64) -> Ready {
    let Some(current) = workload.current() else { return Ready::default() };
    if seconds <= 0 {
        return Ready { pods: current.ready, next: None };
    }
    let ready = ready_for(goal.surroundings.pods.iter().map(AsRef::as_ref), &current.pods, seconds, goal.now);
    Ready { pods: ready.pods.min(current.replicas), ..ready }
}

/// ReplicaSets of a Deployment, other than the present one, whose `minReadySeconds` is ours or not, as asked.
fn older_sets<'a>(
    workload: &'a Workload,
    surroundings: &Surroundings<'a>,
    held: bool,
) -> impl Iterator<Item = &'a Arc<Value>> {
    let present = workload.current().map(|r| r.hash.clone());
    let uid = object::uid(workload.object());
    surroundings.revisions.iter().filter(move |set| {
        object::controller_uid(set) == Some(uid)
            && object::label(set, POD_TEMPLATE_HASH) != present.as_deref()
            && (int(set, &["spec", "minReadySeconds"]) == Some(HELD_READY)) == held
    })
}

/// New pods that somebody's write has made available would count as such for a moment after the Deployment is opened
/// again, and old ones would go for them: they have to be held first, while it is paused.
fn before_reopening(
    workload: &Workload,
    goal: &Goal<'_>,
    mark: &InProgressing,
    original: &OriginalFields,
    opening: &Opening,
) -> Option<Move> {
    let present = workload.current().filter(|r| r.replicas > 0)?;
    if int(workload.object(), &["spec", "minReadySeconds"]) != Some(HELD_READY) {
        let opening = as_paused(opening, workload);
        let mark = InProgressing {
            rollout_name: goal.rollout.to_owned(),
            released: false,
            open: None,
            was: Some(opening.clone()),
            original: Some(original.clone()),
            ..mark.clone()
        };
        return Some(Move::Write(change(
            &workload.object,
            "Deployment",
            vec![
                workload.set_mark(&mark),
                set("strategy", strategy(&opening)),
                set("minReadySeconds", HELD_READY),
                set("progressDeadlineSeconds", HELD_DEADLINE),
            ],
        )));
    }
    let uid = object::uid(workload.object());
    let set = goal.surroundings.revisions.iter().find(|set| {
        object::controller_uid(set) == Some(uid) && object::label(set, POD_TEMPLATE_HASH) == Some(present.hash.as_str())
    })?;
    let is_held = int(set, &["spec", "minReadySeconds"]) == Some(HELD_READY)
        && object::is_observed(set)
        && int(set, &["status", "availableReplicas"]).unwrap_or(0) == 0;
    (!is_held).then(|| Move::Wait {
        reason: "waiting for the Deployment's controller to hold the pods that have become available".to_owned(),
        until: None,
    })
}

/// A version that took over from an older stable one may have come up in a release itself: its pods have to count as
/// available again before others may go for those of the next version, or they would be the first to go.
fn before_replacing(
    workload: &Workload,
    goal: &Goal<'_>,
    mark: &InProgressing,
    original: &OriginalFields,
) -> Option<Move> {
    let is_stable = |set: &&Arc<Value>| object::label(set, POD_TEMPLATE_HASH) == Some(goal.stable);
    if let Some(stable) = older_sets(workload, &goal.surroundings, true).find(is_stable) {
        let seconds = original.min_ready_seconds.unwrap_or(0);
        return Some(Move::Write(change(stable, "ReplicaSet", vec![set("minReadySeconds", seconds)])));
    }
    let stable = older_sets(workload, &goal.surroundings, false).find(is_stable)?;
    (!is_counted(stable, original) && mark.was.is_some()).then(|| Move::Wait {
        reason: "waiting for the pods of the stable revision to be counted as available".to_owned(),
        until: None,
    })
}

/// Its ready pods count as available, as far as that does not take time anyway.
fn is_counted(set: &Value, original: &OriginalFields) -> bool {
    let status = |field| int(set, &["status", field]).unwrap_or(0);
    object::is_observed(set)
        && (status("availableReplicas") > 0 || status("readyReplicas") == 0 || original.min_ready_seconds > Some(0))
}

impl Gate for Deployment {
    fn is_kept(&self, workload: &Workload) -> bool {
        let Some(mark) = workload.mark() else { return false };
        match &mark.open {
            Some(opening) => is_in_place(workload, opening),
            None => is_paused(workload) && !mark.released,
        }
    }

    fn shut(&self, workload: &Workload, rollout: &str) -> Vec<Value> {
        let mark = workload.mark().unwrap_or(InProgressing { paused: is_paused(workload), ..Default::default() });
        let was = mark.open.clone().or(mark.was.clone());
        let mark = InProgressing { rollout_name: rollout.to_owned(), released: false, open: None, was, ..mark };
        vec![workload.set_mark(&mark), set("paused", true)]
    }

    fn open(&self, workload: &Workload, goal: &Goal<'_>) -> Move {
        if goal.target == 0 {
            return Move::Done;
        }
        if goal.style == Style::BlueGreen
            && let Some(old) = older_sets(workload, &goal.surroundings, false)
                .find(|set| int(set, &["spec", "replicas"]).is_some_and(|n| n > 0))
        {
            // When the template goes back, the paused Deployment must not take this set for a finished release and
            // delete the other one's pods before requests have left them.
            return Move::Write(change(old, "ReplicaSet", vec![set("minReadySeconds", HELD_READY)]));
        }
        let mark = workload.mark().unwrap_or_default();
        let original = originals(workload, &mark);
        if goal.style == Style::Partition
            && is_paused(workload)
            && let Some(step) = before_replacing(workload, goal, &mark, &original)
        {
            return step;
        }
        let ready = ready(workload, goal, original.min_ready_seconds.unwrap_or(0));
        let opening = match goal.style {
            Style::BlueGreen => Opening {
                max_surge: Some(goal.wanted.clone()),
                max_unavailable: Some(IntOrString::Int(0)),
                partition: None,
            },
            _ => partition(workload, &original.strategy, goal.target, ready.pods),
        };
        let opening = covering(opening, workload, &goal.surroundings);
        if is_paused(workload)
            && let Some(step) = before_reopening(workload, goal, &mark, &original, &opening)
        {
            return step;
        }
        let forget = forget_wanted(workload);
        if is_paused(workload)
            || forget.is_some()
            || mark.open.as_ref() != Some(&opening)
            || !is_in_place(workload, &opening)
        {
            let mark = InProgressing {
                rollout_name: goal.rollout.to_owned(),
                released: false,
                open: Some(opening.clone()),
                was: None,
                original: Some(original),
                ..mark
            };
            let mut operations = vec![
                workload.set_mark(&mark),
                set("strategy", strategy(&opening)),
                set("minReadySeconds", HELD_READY),
                set("progressDeadlineSeconds", HELD_DEADLINE),
                set("paused", false),
            ];
            operations.extend(forget);
            return Move::Write(change(&workload.object, "Deployment", operations));
        }
        if ready.pods >= goal.needed {
            return Move::Done;
        }
        let trouble = workload.trouble.as_ref().map(|t| format!("; {t}")).unwrap_or_default();
        Move::Wait {
            reason: format!("waiting for new pods: {} of {} ready{trouble}", ready.pods, goal.needed),
            until: ready.next,
        }
    }

    fn release(&self, workload: &Workload, rollout: &str, stays_paused: bool) -> Vec<Value> {
        let mark = workload.mark().unwrap_or_default();
        let opens = is_paused(workload) && !(stays_paused && mark.paused);
        if !opens && mark.released {
            return Vec::new();
        }
        let released = InProgressing {
            rollout_name: rollout.to_owned(),
            paused: mark.paused,
            released: true,
            open: None,
            was: None,
            original: None,
        };
        let mut operations = vec![workload.set_mark(&released)];
        if mark.original.is_some() {
            let original = originals(workload, &mark);
            let strategy = Some(original.strategy).filter(|s| !s.is_null());
            operations.extend(set_or_remove(workload, "strategy", strategy));
            let seconds = original.min_ready_seconds.map(Value::from);
            operations.extend(set_or_remove(workload, "minReadySeconds", seconds));
            let seconds = original.progress_deadline_seconds.map(Value::from);
            operations.extend(set_or_remove(workload, "progressDeadlineSeconds", seconds));
        }
        operations.extend(forget_wanted(workload));
        if opens {
            operations.push(set("paused", false));
        }
        operations
    }

    fn template_of(&self, workload: &Workload, surroundings: &Surroundings<'_>, revision: &str) -> Option<Value> {
        let uid = object::uid(workload.object());
        let is_its = |set: &&Arc<Value>| {
            object::controller_uid(set) == Some(uid) && object::label(set, POD_TEMPLATE_HASH) == Some(revision)
        };
        surroundings.revisions.iter().find(is_its).map(|set| super::plain_template(set))
    }

    fn take_off(&self, workload: &Workload) -> Vec<Value> {
        let mut operations: Vec<Value> = workload.drop_mark().into_iter().chain(forget_wanted(workload)).collect();
        if workload.mark().is_some_and(|mark| mark.paused) && !is_paused(workload) {
            operations.push(set("paused", true));
        }
        operations
    }

    fn count_again(&self, workload: &Workload, surroundings: &Surroundings<'_>) -> Option<Move> {
        let mark = workload.mark().filter(|mark| mark.original.is_some())?;
        let original = originals(workload, &mark);
        let has_pods = |set: &&Arc<Value>| int(set, &["spec", "replicas"]).is_some_and(|n| n > 0);
        if let Some(held) = older_sets(workload, surroundings, true).find(has_pods) {
            let seconds = original.min_ready_seconds.unwrap_or(0);
            return Some(Move::Write(change(held, "ReplicaSet", vec![set("minReadySeconds", seconds)])));
        }
        let mut older = older_sets(workload, surroundings, false).filter(has_pods);
        older.any(|set| !is_counted(set, &original)).then(|| Move::Wait {
            reason: "waiting for the pods of older revisions to be counted as available".to_owned(),
            until: None,
        })
    }

    fn tidy(&self, workload: &Workload, surroundings: &Surroundings<'_>) -> Option<Change> {
        let seconds = int(workload.object(), &["spec", "minReadySeconds"]).unwrap_or(0);
        let older = older_sets(workload, surroundings, true).next().filter(|_| seconds != HELD_READY)?;
        Some(change(older, "ReplicaSet", vec![set("minReadySeconds", seconds)]))
    }
}
