//! Deliberate bugs around `decide`, and the judges that must see them.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tidegate::{
    api::{keys, object::ObjectRef},
    apply::{Guard, guard::guard},
    rehearsal::{CANARY, Mind, NAMESPACE, SERVICE, WORKLOAD},
    rollout::{Effect, Plan, Snapshot, decide, plan::Purpose},
    traffic::routes::Change,
};

/// A deliberate bug.
pub struct Mutant {
    pub name: &'static str,
    /// The number of a generated release in which it shows.
    pub seed: u64,
    /// Which judge sees it there.
    pub judge: &'static str,
    decide: fn(&Snapshot) -> Plan,
}

impl Mutant {
    /// The guard looks the other way, so that the judges see what it would have kept from them; unless it is the one to
    /// be proved.
    pub fn mind(&self) -> Mind {
        let blind: Guard = Arc::new(|_, _, _| Ok(()));
        let guard = if self.judge == "write guard" { guard() } else { blind };
        Mind { decide: Arc::new(self.decide), guard }
    }
}

/// A mutant by its name.
pub fn find(name: &str) -> &'static Mutant {
    MUTANTS.iter().find(|m| m.name == name).expect("a mutant of this name")
}

/// All of them.
pub static MUTANTS: &[Mutant] = &[
    Mutant { name: "skips-the-grace-time", seed: 0, judge: "1 drained before removal", decide: skips_the_grace_time },
    Mutant {
        name: "deletes-the-canary-first",
        seed: 0,
        judge: "1 drained before removal",
        decide: deletes_the_canary_first,
    },
    Mutant {
        name: "routes-before-pods-are-ready",
        seed: 0,
        judge: "1 capacity before traffic",
        decide: routes_before_pods_are_ready,
    },
    Mutant { name: "loses-a-tenth", seed: 1, judge: "2 traffic adds up", decide: loses_a_tenth },
    Mutant { name: "labels-the-route", seed: 0, judge: "3 only our leaves", decide: labels_the_route },
    Mutant { name: "forgets-one-restore", seed: 0, judge: "4 restore is exact", decide: forgets_one_restore },
    Mutant {
        name: "opens-the-workload-early",
        seed: 0,
        judge: "6 no uncontrolled release",
        decide: opens_the_workload_early,
    },
    Mutant { name: "forgets-the-pin", seed: 5, judge: "6 the right share", decide: forgets_the_pin },
    Mutant { name: "approves-by-itself", seed: 0, judge: "6 the right share", decide: approves_by_itself },
    Mutant { name: "drops-an-approval", seed: 0, judge: "liveness", decide: drops_an_approval },
    Mutant { name: "carries-an-approval-on", seed: 0, judge: "8 a person's word", decide: carries_an_approval_on },
    Mutant { name: "touches-a-neighbour", seed: 0, judge: "10 nothing hijacked", decide: touches_a_neighbour },
    Mutant { name: "says-nothing", seed: 0, judge: "11 every wait has a reason", decide: says_nothing },
    Mutant { name: "is-restless", seed: 0, judge: "12 idle costs nothing", decide: is_restless },
    Mutant { name: "never-rolls-back", seed: 0, judge: "liveness", decide: never_rolls_back },
    Mutant { name: "loses-a-tenth-guarded", seed: 1, judge: "write guard", decide: loses_a_tenth },
    Mutant { name: "labels-the-route-guarded", seed: 0, judge: "write guard", decide: labels_the_route },
    Mutant { name: "forgets-one-restore-guarded", seed: 0, judge: "write guard", decide: forgets_one_restore },
    Mutant { name: "touches-a-neighbour-guarded", seed: 0, judge: "write guard", decide: touches_a_neighbour },
    Mutant {
        name: "routes-before-the-subset",
        seed: 0,
        judge: "1 capacity before traffic",
        decide: routes_before_the_subset,
    },
    Mutant { name: "never-unpins", seed: 4, judge: "liveness", decide: never_unpins },
    Mutant { name: "leaves-its-mark", seed: 0, judge: "liveness", decide: leaves_its_mark },
    Mutant { name: "cuts-pauses-short", seed: 2, judge: "8 a person's word", decide: cuts_pauses_short },
];

fn skips_the_grace_time(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    loop {
        let plan = decide(&snapshot);
        let settles = plan.status.canary_status.as_ref().is_some_and(|s| s.settling.is_some());
        if !plan.effects.is_empty() || plan.requeue.is_none() || !settles {
            return plan;
        }
        let mut status = plan.status;
        if let Some(settling) = status.canary_status.as_mut().and_then(|s| s.settling.as_mut()) {
            settling.since = Some(Time(snapshot.now - SignedDuration::from_hours(1)));
        }
        snapshot.rollout.status = Some(status);
    }
}

fn deletes_the_canary_first(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    if let (Some(Effect::Routes { purpose: Purpose::RestoreRoutes, .. }), Some(canary)) =
        (plan.effects.first(), &snapshot.canary)
    {
        plan.effects.insert(
            0,
            Effect::Delete {
                purpose: Purpose::DeleteCanary,
                target: ObjectRef::new("apps/v1", "Deployment", NAMESPACE, CANARY),
                uid: canary["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
                foreground: true,
            },
        );
    }
    plan
}

/// Takes every canary pod for ready.
fn routes_before_pods_are_ready(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    if let Some(canary) = &mut snapshot.canary {
        let canary = Arc::make_mut(canary);
        canary["status"]["availableReplicas"] = canary["spec"]["replicas"].clone();
        canary["status"]["readyReplicas"] = canary["spec"]["replicas"].clone();
        canary["status"]["observedGeneration"] = canary["metadata"]["generation"].clone();
    }
    for set in &mut snapshot.revisions {
        let set = Arc::make_mut(set);
        set["status"]["availableReplicas"] = set["spec"]["replicas"].clone();
        set["status"]["readyReplicas"] = set["spec"]["replicas"].clone();
    }
    let canary_sets: Vec<String> = snapshot
        .revisions
        .iter()
        .filter_map(|s| s["metadata"]["name"].as_str())
        .filter(|name| name.starts_with(CANARY))
        .map(str::to_owned)
        .collect();
    for slice in &mut snapshot.endpoint_slices {
        if let Some(endpoints) = Arc::make_mut(slice)["endpoints"].as_array_mut() {
            endpoints.extend(canary_sets.iter().map(|set| {
                json!({"conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": format!("{set}-faked")}})
            }));
        }
    }
    decide(&snapshot)
}

/// Applies a change to every operation of every route write.
fn with_route_operations(mut plan: Plan, change: impl Fn(&mut Vec<Value>)) -> Plan {
    for effect in &mut plan.effects {
        if let Effect::Routes { writes, .. } = effect {
            for write in writes.iter_mut().filter(|w| !w.is_definition) {
                if let Change::Patch { operations, .. } = &mut write.change {
                    change(operations);
                }
            }
        }
    }
    plan
}

/// Takes ten from the first weight that has them to spare.
fn loses_a_tenth(snapshot: &Snapshot) -> Plan {
    fn spend(value: &mut Value) -> bool {
        match value {
            Value::Object(map) => map.iter_mut().any(|(key, value)| match value.as_i64() {
                Some(weight) if key == "weight" && weight > 10 => {
                    *value = json!(weight - 10);
                    true
                }
                _ => spend(value),
            }),
            Value::Array(list) => list.iter_mut().any(spend),
            _ => false,
        }
    }
    with_route_operations(decide(snapshot), |operations| {
        for operation in
            operations.iter_mut().filter(|o| o["path"].as_str().is_some_and(|p| p.starts_with("/spec/http")))
        {
            let mut value = json!({"weight": operation["value"].clone()});
            let is_weight = operation["path"].as_str().is_some_and(|p| p.ends_with("/weight"));
            if if is_weight { spend(&mut value) } else { spend(&mut value["weight"]) } {
                operation["value"] = value["weight"].clone();
                return;
            }
        }
    })
}

fn labels_the_route(snapshot: &Snapshot) -> Plan {
    with_route_operations(decide(snapshot), |operations| {
        operations.push(json!({"op": "add", "path": "/metadata/labels/tidegate", "value": "was-here"}));
    })
}

/// Takes the bookkeeping off the DestinationRule, but leaves the subset.
fn forgets_one_restore(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    for effect in &mut plan.effects {
        if let Effect::Routes { purpose: Purpose::RestoreRoutes, writes, .. } = effect {
            for write in writes.iter_mut().filter(|w| w.is_definition) {
                if let Change::Patch { operations, .. } = &mut write.change {
                    operations.retain(|o| o["path"].as_str().is_some_and(|p| p.starts_with("/metadata")));
                }
            }
        }
    }
    plan
}

fn at_pause(plan: &Plan, step: i32) -> bool {
    plan.effects.is_empty()
        && plan
            .status
            .canary_status
            .as_ref()
            .is_some_and(|s| s.current_step_index == step && s.current_step_state == "StepPaused")
}

fn opens_the_workload_early(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    if at_pause(&plan, 1)
        && let Some(workload) = snapshot.workload.as_ref().filter(|w| w["spec"]["paused"] == true)
    {
        let mark = r#"{"rolloutName":"web","released":true}"#;
        let path = format!("/metadata/annotations/{}", keys::IN_PROGRESSING.replace('/', "~1"));
        plan.effects.push(Effect::Patch {
            purpose: Purpose::ResumeWorkload,
            target: ObjectRef::new("apps/v1", "Deployment", NAMESPACE, WORKLOAD),
            resource_version: workload["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            operations: vec![
                json!({"op": "add", "path": path, "value": mark}),
                json!({"op": "add", "path": "/spec/paused", "value": false}),
            ],
        });
    }
    plan
}

/// Believes that the stable Service is pinned.
fn forgets_the_pin(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    let sub = snapshot.rollout.status.as_ref().and_then(|s| s.canary_status.as_ref());
    let stable = sub.map(|s| s.stable_revision.clone()).unwrap_or_default();
    let winds_up = sub.is_some_and(|s| s.current_step_state != "Completed" && !s.finalising_step.is_empty());
    let releases = !winds_up && snapshot.workload.as_ref().is_some_and(|w| w["spec"]["paused"] == true);
    if let Some(service) = snapshot.stable_service.as_mut().filter(|s| releases && s["metadata"]["name"] == SERVICE) {
        Arc::make_mut(service)["spec"]["selector"]["pod-template-hash"] = json!(stable);
    }
    decide(&snapshot)
}

fn approves_by_itself(snapshot: &Snapshot) -> Plan {
    let plan = decide(snapshot);
    if !at_pause(&plan, 1) {
        return plan;
    }
    let mut approved = snapshot.clone();
    let mut status = plan.status;
    if let Some(sub) = status.canary_status.as_mut() {
        sub.current_step_state = "StepReady".to_owned();
    }
    approved.rollout.status = Some(status);
    decide(&approved)
}

fn drops_an_approval(snapshot: &Snapshot) -> Plan {
    let mut forgetful = snapshot.clone();
    if let Some(sub) = forgetful.rollout.status.as_mut().and_then(|s| s.canary_status.as_mut())
        && sub.current_step_state == "StepReady"
    {
        sub.current_step_state = "StepPaused".to_owned();
    }
    decide(&forgetful)
}

/// An approval of step 1 counts for step 2 as well.
fn carries_an_approval_on(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    if at_pause(&plan, 2)
        && let Some(sub) = plan.status.canary_status.as_mut()
    {
        sub.current_step_state = "StepReady".to_owned();
    }
    plan
}

fn touches_a_neighbour(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    if let Some(Effect::Patch { purpose, .. }) = plan.effects.first()
        && *purpose == Purpose::ResumeWorkload
    {
        plan.effects.push(Effect::Apply {
            purpose: Purpose::ResumeWorkload,
            object: json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other",
                "namespace": NAMESPACE, "labels": {"tidegate": "was-here"}}}),
        });
    }
    plan
}

fn says_nothing(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    if plan.status.canary_status.as_ref().is_some_and(|s| s.current_step_state == "StepPaused") {
        plan.status.message = String::new();
    }
    plan
}

/// Looks again and again, and writes down when.
fn is_restless(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    if plan.status.phase == "Healthy" && plan.effects.is_empty() {
        plan.status.message = format!("looked at {}", snapshot.now.as_second() / 60);
        plan.requeue = Some(snapshot.now + SignedDuration::from_secs(60));
    }
    plan
}

/// Two writes in the wrong order: requests go to a subset that is made afterwards.
fn routes_before_the_subset(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    for effect in &mut plan.effects {
        if let Effect::Routes { purpose: Purpose::RouteStep, writes, tried } = effect
            && !tried.is_empty()
        {
            *writes = std::mem::take(tried);
        }
    }
    plan
}

fn without(mut plan: Plan, purpose: Purpose) -> Plan {
    plan.effects.retain(|e| e.purpose() != purpose);
    plan
}

fn never_unpins(snapshot: &Snapshot) -> Plan {
    without(decide(snapshot), Purpose::UnpinStableService)
}

fn leaves_its_mark(snapshot: &Snapshot) -> Plan {
    without(decide(snapshot), Purpose::ReleaseWorkload)
}

/// Takes a pause that has begun for one that began ten seconds earlier.
fn cuts_pauses_short(snapshot: &Snapshot) -> Plan {
    let mut hasty = snapshot.clone();
    if let Some(sub) = hasty.rollout.status.as_mut().and_then(|s| s.canary_status.as_mut())
        && sub.current_step_state == "StepPaused"
        && let Some(Time(since)) = sub.last_update_time
    {
        sub.last_update_time = Some(Time(since - SignedDuration::from_secs(10)));
    }
    decide(&hasty)
}

fn never_rolls_back(snapshot: &Snapshot) -> Plan {
    let plan = decide(snapshot);
    match plan.effects.first().map(Effect::purpose) {
        Some(Purpose::RestoreRoutes) => Plan { effects: Vec::new(), ..plan },
        _ => plan,
    }
}
