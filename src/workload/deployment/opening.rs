//! The bounds by which an unpaused Deployment rolls in place: `maxSurge` and `maxUnavailable`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::budget;
use crate::{
    api::{
        keys::{DESIRED_REPLICAS, Opening},
        object::{self, at, int},
    },
    workload::{
        Surroundings, Workload,
        replicas::{Round, scaled},
    },
};

/// The strategy of an opening.
pub(super) fn strategy(opening: &Opening) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": opening})
}

/// The fields that bring new pods up to a target and never beyond it, and that keep `replicas - unavailable` pods ready.
pub(super) fn partition(workload: &Workload, original: &Value, target: i32, ready: i32) -> Opening {
    let total = workload.replicas;
    let (surge, unavailable) = match budget(original, total) {
        // As with `Recreate` there are never more pods than wanted.
        _ if object::text(original, &["type"]) == "Recreate" => (0, 1),
        budget => budget,
    };
    let new = workload.current().map_or(0, |r| r.replicas);
    let old: i32 = workload.revisions.iter().map(|r| r.replicas).sum::<i32>() - new;
    // While pods are about to go, the Deployment's controller still counts them as available and would take others
    // besides. What it is allowed at present may stay.
    let shrinks = workload.revisions.iter().any(|r| r.existing > r.replicas);
    let most = if shrinks { workload.max_unavailable.max(unavailable) } else { total };
    // Never lowered below what is gone already: the room would be filled with new pods beyond the target.
    let open = (ready + unavailable).min(target).min(most).max(total - old).clamp(0, total);
    let share = share_of(target, total).filter(|_| open >= target && ready >= target);
    Opening {
        partition: None,
        max_surge: Some(IntOrString::Int(surge.min(target - open).max(0))),
        max_unavailable: Some(share.map_or(IntOrString::Int(open), |p| IntOrString::String(format!("{p}%")))),
    }
}

/// The least percentage that allows so many pods, or else the greatest that allows fewer: the Deployment's controller
/// then keeps the share by itself when somebody scales. None when that would allow no pod at all.
fn share_of(pods: i32, total: i32) -> Option<i32> {
    if total <= 0 || pods >= total {
        return Some(100);
    }
    let allowed = |share: i32| i64::from(share) * i64::from(total) / 100;
    let share = i32::try_from((i64::from(pods) * 100 + i64::from(total) - 1) / i64::from(total)).ok()?;
    [share, share - 1].into_iter().find(|p| (1..=i64::from(pods)).contains(&allowed(*p)))
}

/// Its own controller has given every ReplicaSet that has pods its part of the present `spec.replicas`.
fn is_shared_out(workload: &Workload, surroundings: &Surroundings<'_>) -> bool {
    let uid = object::uid(workload.object());
    let is_of_another_size = |set: &Arc<Value>| {
        int(set, &["spec", "replicas"]).is_some_and(|n| n > 0)
            && object::annotation(set, DESIRED_REPLICAS)
                .and_then(|n| n.parse().ok())
                .is_some_and(|n: i32| n != workload.replicas)
    };
    let mut sets = surroundings.revisions.iter().filter(|set| object::controller_uid(set) == Some(uid));
    !sets.any(is_of_another_size)
}

/// An opening whose `maxSurge` covers the new pods that are there beyond it, as after a change that was held late: paused
/// or scaled, the Deployment's own controller would take what is beyond `maxSurge` from every ReplicaSet in proportion,
/// from the stable one as well. Not before it has shared out a change of the size: what it is about to take away would come
/// back as new pods.
pub(super) fn covering(opening: Opening, workload: &Workload, surroundings: &Surroundings<'_>) -> Opening {
    let pods = |bound: &Option<IntOrString>, round| {
        bound.as_ref().and_then(|bound| scaled(bound, workload.replicas, round)).unwrap_or(0)
    };
    let new = workload.current().map_or(0, |r| r.replicas);
    let surplus = workload.revisions.iter().map(|r| r.replicas).sum::<i32>() - workload.replicas;
    let beyond = surplus.min(new - pods(&opening.max_unavailable, Round::Down));
    if beyond <= pods(&opening.max_surge, Round::Up) || !is_shared_out(workload, surroundings) {
        return opening;
    }
    Opening { max_surge: Some(IntOrString::Int(beyond)), ..opening }
}

/// An opening with the `maxSurge` that the Deployment is paused with: with any other its own controller would add pods to
/// every ReplicaSet, or take some from each.
pub(super) fn as_paused(opening: &Opening, workload: &Workload) -> Opening {
    let surge = at(workload.object(), &["spec", "strategy", "rollingUpdate", "maxSurge"]);
    let Some(surge) = surge.and_then(|surge| serde_json::from_value::<IntOrString>(surge.clone()).ok()) else {
        return opening.clone();
    };
    let is_none = |bound: &IntOrString| scaled(bound, 100, Round::Up) == Some(0);
    let unavailable = opening.max_unavailable.clone().filter(|bound| !is_none(bound) || !is_none(&surge));
    Opening {
        // The API server refuses two that are both 0.
        max_unavailable: Some(unavailable.unwrap_or(IntOrString::Int(1))),
        max_surge: Some(surge),
        partition: None,
    }
}

#[cfg(test)]
mod tests;
