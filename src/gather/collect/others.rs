//! Other Rollouts: rivals for a workload, neighbours at a gateway, and those in flight.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Objects, TRAFFIC_ROUTING};
use crate::{
    api::{
        object,
        v1beta1::{NetworkRef, Rollout, WorkloadRef},
    },
    rollout::{
        is_releasing,
        line::{self, Line, Standing},
        release::{self, Scope, Traffic},
    },
};

/// Who is in flight and who waits; all Rollouts are looked at for one that waits only.
pub(super) fn line_of(objects: &impl Objects, rollout: &Rollout, limit: usize) -> Option<Line> {
    let mut line = Line { limit, in_flight: Vec::new(), waiting: Vec::new() };
    if !rollout.status.as_ref().is_some_and(line::is_waiting) {
        return Some(line);
    }
    for other in objects.list_all("rollouts.kruise.io/v1beta1", "Rollout")? {
        if Some(object::uid(&other)) == rollout.metadata.uid.as_deref() {
            continue;
        }
        match line::standing(&other) {
            Some(Standing::InFlight) => line.in_flight.push(line::place(&other)),
            Some(Standing::Waiting(since)) => line.waiting.push((since, line::place(&other))),
            None => {}
        }
    }
    Some(line)
}

/// Other Rollouts for the same workload that go before this one: one in the middle of a release before all others, an
/// enabled one before one that is disabled or being deleted, an older one before a younger; of two equally old ones the
/// first by name.
pub(super) fn rivals(objects: &impl Objects, rollout: &Rollout, scope: &Scope, namespace: &str) -> Option<Vec<String>> {
    let mine = rank(rollout);
    let others = others(objects, rollout, &scope.workload, namespace)?.into_iter();
    let before = others.filter(|other| rank(other) < mine);
    let mut rivals: Vec<String> = before.filter_map(|other| other.metadata.name).collect();
    rivals.sort();
    Some(rivals)
}

/// Other Rollouts that name a workload and are not letting go of it.
pub(super) fn others(
    objects: &impl Objects,
    rollout: &Rollout,
    workload: &WorkloadRef,
    namespace: &str,
) -> Option<Vec<Rollout>> {
    let namesakes = objects.tied("rollouts.kruise.io/v1beta1", "Rollout", namespace, &workload.name)?;
    let own = rollout.metadata.name.as_deref();
    Some(
        namesakes
            .iter()
            .filter(|other| Some(object::name(other)) != own)
            .filter_map(|other| Rollout::deserialize(&**other).ok())
            .filter(|other| rank(other).0 < IDLE)
            .filter(|other| {
                let scope_of = if is_releasing(other) { release::bare_scope } else { release::scope };
                scope_of(other).is_ok_and(|other| {
                    object::group(&other.workload.api_version) == object::group(&workload.api_version)
                        && (&other.workload.kind, &other.workload.name) == (&workload.kind, &workload.name)
                })
            })
            .collect(),
    )
}

/// Whether another Rollout, or a TrafficRouting, may have changed one of these networkRefs.
pub(super) fn is_routed_by_others(
    objects: &impl Objects,
    rollout: &Rollout,
    traffic: &Traffic,
    namespace: &str,
) -> Option<bool> {
    let is_same = |a: &NetworkRef, b: &NetworkRef| {
        object::group(&a.api_version) == object::group(&b.api_version) && (&a.kind, &a.name) == (&b.kind, &b.name)
    };
    let shares = |other: Option<Traffic>| {
        other.is_some_and(|other| other.networks.iter().any(|a| traffic.networks.iter().any(|b| is_same(a, b))))
    };
    let rollouts = objects.list("rollouts.kruise.io/v1beta1", "Rollout", namespace)?;
    let mut others = rollouts
        .iter()
        .filter_map(|other| serde_json::from_value::<Rollout>((**other).clone()).ok())
        .filter(|other| other.metadata.name != rollout.metadata.name && is_releasing(other));
    // Of a spec that is wrong nobody knows what it named before.
    if others.any(|other| release::scope(&other).map_or(true, |scope| shares(scope.traffic))) {
        return Some(true);
    }
    let (api_version, kind) = TRAFFIC_ROUTING;
    let routings = objects.list(api_version, kind, namespace)?;
    let mut routings = routings.iter().filter_map(|r| serde_json::from_value((**r).clone()).ok());
    Some(routings.any(|routing| shares(release::routing_traffic(&routing).ok())))
}

const IDLE: u8 = 2;

/// The lowest goes first.
fn rank(rollout: &Rollout) -> (u8, Option<Timestamp>, Option<&str>) {
    let metadata = &rollout.metadata;
    let tier = if is_releasing(rollout) {
        0
    } else if !rollout.spec.disabled && metadata.deletion_timestamp.is_none() {
        1
    } else {
        IDLE
    };
    (tier, metadata.creation_timestamp.as_ref().map(|t| t.0), metadata.name.as_deref())
}
