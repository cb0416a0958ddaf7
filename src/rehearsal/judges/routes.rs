//! Where requests go: route → Service → EndpointSlice → pod.

use std::cell::OnceCell;

use serde_json::Value;

use super::{Scene, Sight, record::Record};
use crate::{
    api::object::{self, at, int, text},
    rehearsal::{
        script::{Gateway, Managed, Setup, Style},
        world::{
            CANARY, CANARY_SERVICE, Eyes, NAMESPACE, WORKLOAD, is_canary, is_ready, release, revision, strategy,
            version,
        },
    },
    sim::{
        View, Write,
        traffic::{Outcome, Request, route},
    },
};

/// What requests meet.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Percent of plain and of marked requests that reach a version which may not run everywhere.
    pub shares: (f64, f64),
    /// Any request has a way of its own to the canary.
    pub leads_to_canary: bool,
}

/// Whether a write can change what requests meet.
pub fn concerns(write: &Write, setup: &Setup) -> bool {
    match write.gvr.resource.as_str() {
        "destinationrules" | "services" | "endpointslices" => true,
        resource if is_gateways(resource, setup) => true,
        "pods" => {
            let ready = |o: &Option<std::sync::Arc<Value>>| o.as_ref().is_some_and(|o| is_ready(o));
            write.after.is_none() || ready(&write.before) != ready(&write.after)
        }
        _ => false,
    }
}

/// Whether it writes an object that requests may meet on their way.
pub fn is_on_the_way(write: &Write, setup: &Setup) -> bool {
    let resource = write.gvr.resource.as_str();
    let behind = ["services", "endpointslices", "pods", "destinationrules"];
    behind.contains(&resource) || is_gateways(resource, setup)
}

/// The gateway's own kind of objects.
pub(super) fn is_gateways(resource: &str, setup: &Setup) -> bool {
    setup.gateway.resource().is_some_and(|(_, _, plural)| plural == resource)
}

/// What becomes of a plain request and of one with the canary's header: found out once after each write of an object on
/// their way, since nothing else changes it.
#[derive(Default)]
pub struct Sent {
    now: OnceCell<(Outcome, Outcome)>,
    late: OnceCell<(Outcome, Outcome)>,
}

impl Sent {
    /// As the cluster is.
    fn now(&self, eyes: &Eyes) -> &(Outcome, Outcome) {
        self.now.get_or_init(|| send_by(&eyes.view, eyes))
    }

    /// By a gateway that knows the cluster as it was.
    fn late(&self, known: &View, eyes: &Eyes) -> &(Outcome, Outcome) {
        self.late.get_or_init(|| send_by(known, eyes))
    }

    /// The gateway has learnt of something.
    pub fn forget_late(&mut self) {
        self.late.take();
    }
}

fn send_by(view: &View, eyes: &Eyes) -> (Outcome, Outcome) {
    let plain = Request::get();
    let marked = Request::get().header("version", "canary");
    let send = |request: &Request| route(view, &eyes.routes, NAMESPACE, WORKLOAD, request);
    (send(&plain), send(&marked))
}

/// Looks at what requests meet now.
pub fn look(record: &Record, sent: &Sent, eyes: &Eyes) -> Seen {
    let (plain, marked) = sent.now(eyes);
    let share = |o: &Outcome| 100.0 * o.share(|pod| !record.may_run(&version(pod)));
    // Not through the Service of all pods: those that stop are no endpoints first.
    let leads = |o: &Outcome| o.hits.iter().any(|h| h.service == CANARY_SERVICE || h.subset == "canary");
    Seen { shares: (share(plain), share(marked)), leads_to_canary: leads(plain) || leads(marked) }
}

/// No request fails, whether the gateway knows of everything at once or learns of it within its grace time.
pub fn requests(scene: &Scene<'_>) -> Result<(), String> {
    if scene.is_excused(super::Topic::Requests) || promised(scene, scene.replicas()) < 1 {
        return Ok(());
    }
    // Its own controller scales both versions down without a look at who is ready: what is left of one that never will be
    // is there until somebody pushes another.
    let is_stable = |pod: &Value| version(pod) == scene.record.stable && !object::is_deleting(pod);
    if scene.record.is_stranded && !scene.eyes.pods().iter().any(|pod| is_stable(pod)) {
        return Ok(());
    }
    let slow = scene.known.as_ref().filter(|_| !scene.is_excused(super::Topic::Grace));
    let late = slow.map(|known| (scene.sent.late(known, scene.eyes), ", by a gateway that learns late"));
    for ((plain, marked), where_from) in [Some((scene.sent.now(scene.eyes), "")), late].into_iter().flatten() {
        for (who, outcome) in [("", plain), (" with the header", marked)] {
            if let Some((share, failure)) = outcome.failures.first() {
                return Err(format!("{:.0} % of requests{who} fail: {failure}{where_from}", 100.0 * share));
            }
        }
    }
    Ok(())
}

/// No request fails, and a share is raised only when the step's pods are ready.
pub fn capacity(sight: &Sight<'_>) -> Result<(), String> {
    if !concerns(sight.write, sight.setup) || sight.is_excused(super::Topic::Requests) {
        return Ok(());
    }
    requests(sight)?;
    let replicas = sight.replicas();
    if promised(sight, replicas) < 1 {
        return Ok(());
    }
    if !sight.by_controller() || !is_gateways(sight.resource(), sight.setup) {
        return Ok(());
    }
    let seen = look(sight.record, sight.sent, sight.eyes);
    if seen.shares.0 <= sight.record.seen.shares.0 && seen.shares.1 <= sight.record.seen.shares.1 {
        return Ok(());
    }
    let ready = sight.eyes.pods().iter().filter(|p| is_new(sight, p) && is_ready(p)).count();
    let needed = needed(sight, replicas);
    if i64::try_from(ready).unwrap_or(i64::MAX) < needed {
        return Err(format!("requests are routed to {ready} ready pods of the new version; the step has {needed}"));
    }
    Ok(())
}

/// Whether a pod is of the version that is being released.
fn is_new(scene: &Scene<'_>, pod: &Value) -> bool {
    match scene.setup.style {
        Style::Canary => is_canary(pod),
        Style::Partition | Style::BlueGreen => version(pod) == scene.record.wanted,
    }
}

/// Pods that the first step which may be executed now asks for, less what may be unready.
fn needed(sight: &Sight<'_>, replicas: i64) -> i64 {
    if sight.record.is_plan_new {
        return 1;
    }
    let Some(rollout) = sight.eyes.rollout() else { return 1 };
    let planned = |index| sight.record.planned(index).map(|p| p.target(sight.setup.style, replicas));
    let target = reachable(sight.record, &rollout).into_iter().filter_map(planned).min().unwrap_or(1).min(replicas);
    let tolerated = at(strategy(&rollout), &["failureThreshold"]);
    let tolerated = match tolerated {
        Some(value) => value.as_i64().or_else(|| {
            value.as_str().and_then(|s| s.trim_end_matches('%').parse::<i64>().ok()).map(|p| (p * target + 99) / 100)
        }),
        None => None,
    };
    (target - tolerated.unwrap_or(0)).max(target.min(1))
}

/// The most pods of a version that may run now; `None` if there is no bound.
pub fn most(scene: &Scene<'_>, version: &str) -> Option<i64> {
    let record = scene.record;
    if record.may_run(version) || record.is_plan_new {
        return None;
    }
    if version != record.wanted {
        return Some(0);
    }
    let rollout = scene.eyes.rollout()?;
    let replicas = record.most_replicas(scene.eyes, scene.now);
    let steps = reachable(record, &rollout);
    if steps.iter().any(|step| *step > count(record)) {
        return None;
    }
    steps.into_iter().filter_map(|step| record.planned(step)).map(|p| p.target(scene.setup.style, replicas)).max()
}

/// Steps that the controller may be executing, whatever it has stored.
///
/// One past the last is the end of the release.
pub(super) fn reachable(record: &Record, rollout: &Value) -> Vec<i64> {
    let sub = |field: &str| int(release(rollout), &[field]).unwrap_or(1).max(1);
    let revision = revision(rollout);
    let count = count(record);
    let mut steps = Vec::new();
    let mut from = |first: i64| {
        let mut index = first;
        while index <= count + 1 {
            if !steps.contains(&index) {
                steps.push(index);
            }
            if !record.passes(index, revision) {
                break;
            }
            index += 1;
        }
    };
    from(sub("currentStepIndex"));
    for jump in &record.jumps {
        from(*jump);
    }
    if text(rollout, &["status", "phase"]) != "Progressing" || record.releasing(rollout) != Some(&record.wanted) {
        from(1);
    }
    steps
}

pub(super) fn count(record: &Record) -> i64 {
    i64::try_from(record.plan.len()).unwrap_or(1)
}

/// Requests reach only versions that a person let them reach.
pub fn allowed(sight: &Sight<'_>) -> Result<(), String> {
    if !concerns(sight.write, sight.setup) {
        return Ok(());
    }
    let (plain, marked) = sight.sent.now(sight.eyes);
    for hit in plain.hits.iter().chain(&marked.hits) {
        let version = version(&hit.pod);
        if sight.record.may_run(&version) || is_canary(&hit.pod) {
            continue;
        }
        // In place, its pods stay until others come for them.
        if sight.setup.style != Style::Canary && sight.record.was_released(&version) {
            continue;
        }
        // It ran before its word was taken back.
        let made = text(&hit.pod, &["metadata", "creationTimestamp"]).parse::<jiff::Timestamp>().ok();
        let revoked = sight.record.revoked.get(&version);
        if let (Some(made), Some(revoked)) = (made, revoked)
            && made <= *revoked
        {
            continue;
        }
        return Err(format!(
            "requests reach pod {} of version {version}, whose steps are not approved",
            object::name(&hit.pod)
        ));
    }
    Ok(())
}

/// Pods, Service and subset of the canary go only when no request could reach them for the grace time.
pub fn drained(sight: &Sight<'_>) -> Result<(), String> {
    let (before, after) = (sight.before(), sight.after());
    if sight.setup.gateway == Gateway::None || before.is_null() || sight.is_excused(super::Topic::Requests) {
        return Ok(());
    }
    let going = |o: &Value| o.is_null() || object::is_deleting(o);
    let goes = going(after) && !going(before);
    let replicas = |o: &Value| int(o, &["spec", "replicas"]).unwrap_or_default();
    let subset = |o: &Value| {
        let subsets = at(o, &["spec", "subsets"]).and_then(Value::as_array);
        subsets.is_some_and(|s| s.iter().any(|s| text(s, &["name"]) == "canary"))
    };
    let name = sight.write.name.as_str();
    let concerned = match (sight.resource(), name) {
        ("deployments", CANARY) => goes || replicas(after) < replicas(before),
        ("pods", _) => goes && is_canary(before),
        ("services", CANARY_SERVICE) => goes,
        ("destinationrules", WORKLOAD) => subset(before) && !subset(after),
        _ => false,
    };
    if !concerned {
        return Ok(());
    }
    let seen = look(sight.record, sight.sent, sight.eyes);
    if seen.leads_to_canary {
        return Err(format!("{} {name} goes while requests can reach it", sight.resource()));
    }
    // Nobody could have answered, as when an autoscaler took the last pod of the new version.
    let answers = sight.eyes.pods().iter().any(|p| is_ready(p) && !sight.record.may_run(&version(p)));
    if sight.is_excused(super::Topic::Grace) || (name == CANARY_SERVICE && !answers) {
        return Ok(());
    }
    let grace = sight.setup.grace.unwrap_or(3) as f64;
    match sight.record.last_routed.map(|t| sight.write.time.duration_since(t).as_secs_f64()) {
        Some(seconds) if seconds < grace => Err(format!(
            "{} {name} goes {seconds:.3} s after requests were led away; {grace} s are promised",
            sight.resource()
        )),
        _ => Ok(()),
    }
}

/// Pods that the workload's own strategy promises of so many.
pub fn promised(scene: &Scene<'_>, replicas: i64) -> i64 {
    let unavailable = match scene.setup.workload {
        Managed::Deployment | Managed::CloneSet => scene.setup.unavailable.as_str(),
        // One after the other.
        _ => "1",
    };
    let unavailable = match unavailable.strip_suffix('%') {
        Some(percent) => percent.parse::<i64>().unwrap_or(0) * replicas / 100,
        None => unavailable.parse().unwrap_or(0),
    };
    replicas - unavailable
}

/// Ready pods never fall below replicas − maxUnavailable.
pub fn least(scene: &Scene<'_>) -> i64 {
    promised(scene, scene.replicas())
}
