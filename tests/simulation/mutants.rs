//! Deliberate bugs around `decide`, and the judges that must see them.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tidegate::{
    api::{keys, object::ObjectRef},
    apply::{Guard, guard::guard},
    controller::Decide,
    rollout::{Effect, Plan, Snapshot, decide, plan::Purpose},
    traffic::routes::Change,
};

use crate::world::{CANARY, NAMESPACE, SERVICE, WORKLOAD};

/// A deliberate bug.
pub struct Mutant {
    pub name: &'static str,
    /// The scenario in which it shows.
    pub scenario: &'static str,
    /// Which judge must see it.
    pub judge: &'static str,
    decide: fn(&Snapshot) -> Plan,
}

impl Mutant {
    /// Looks the other way, so that the judges see what it would have kept from them; unless it is the one to be proved.
    pub fn guard(&self) -> Guard {
        if self.judge == "write guard" { guard() } else { Arc::new(|_, _, _| Ok(())) }
    }

    pub fn decider(&self) -> Decide {
        Arc::new(self.decide)
    }
}

/// A mutant by its name.
pub fn find(name: &str) -> &'static Mutant {
    MUTANTS.iter().find(|m| m.name == name).expect("a mutant of this name")
}

/// All of them.
pub static MUTANTS: &[Mutant] = &[
    Mutant {
        name: "skips-the-grace-time",
        scenario: "story",
        judge: "1 drained before removal",
        decide: skips_the_grace_time,
    },
    Mutant {
        name: "deletes-the-canary-first",
        scenario: "rollback-at-1",
        judge: "1 drained before removal",
        decide: deletes_the_canary_first,
    },
    Mutant {
        name: "routes-before-pods-are-ready",
        scenario: "story",
        judge: "1 capacity before traffic",
        decide: routes_before_pods_are_ready,
    },
    Mutant { name: "loses-a-tenth", scenario: "story", judge: "2 traffic adds up", decide: loses_a_tenth },
    Mutant { name: "labels-the-route", scenario: "story", judge: "3 only our leaves", decide: labels_the_route },
    Mutant { name: "forgets-one-restore", scenario: "story", judge: "4 restore is exact", decide: forgets_one_restore },
    Mutant {
        name: "opens-the-workload-early",
        scenario: "story",
        judge: "6 no uncontrolled release",
        decide: opens_the_workload_early,
    },
    Mutant {
        name: "forgets-the-pin",
        scenario: "generated-service",
        judge: "6 only allowed versions",
        decide: forgets_the_pin,
    },
    Mutant {
        name: "approves-by-itself",
        scenario: "story",
        judge: "6 only allowed versions",
        decide: approves_by_itself,
    },
    Mutant { name: "drops-an-approval", scenario: "story", judge: "8 a person's word", decide: drops_an_approval },
    Mutant {
        name: "carries-an-approval-on",
        scenario: "story",
        judge: "8 a person's word",
        decide: carries_an_approval_on,
    },
    Mutant {
        name: "touches-a-neighbour",
        scenario: "story",
        judge: "10 nothing hijacked",
        decide: touches_a_neighbour,
    },
    Mutant { name: "says-nothing", scenario: "story", judge: "11 every wait has a reason", decide: says_nothing },
    Mutant { name: "is-restless", scenario: "story", judge: "12 idle costs nothing", decide: is_restless },
    Mutant { name: "loses-a-tenth-guarded", scenario: "story", judge: "write guard", decide: loses_a_tenth },
    Mutant { name: "labels-the-route-guarded", scenario: "story", judge: "write guard", decide: labels_the_route },
    Mutant {
        name: "forgets-one-restore-guarded",
        scenario: "story",
        judge: "write guard",
        decide: forgets_one_restore,
    },
    Mutant {
        name: "touches-a-neighbour-guarded",
        scenario: "story",
        judge: "write guard",
        decide: touches_a_neighbour,
    },
    Mutant { name: "never-rolls-back", scenario: "rollback-at-1", judge: "liveness", decide: never_rolls_back },
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

fn loses_a_tenth(snapshot: &Snapshot) -> Plan {
    with_route_operations(decide(snapshot), |operations| {
        if Value::Array(operations.clone()).to_string().contains("80") {
            operations.push(json!({"op": "replace", "path": "/spec/http/1/route/0/weight", "value": 70}));
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
        let mark = r#"{"rolloutName":"rollouts-demo","released":true}"#;
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
            object: json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other-service",
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

fn never_rolls_back(snapshot: &Snapshot) -> Plan {
    let plan = decide(snapshot);
    match plan.effects.first().map(Effect::purpose) {
        Some(Purpose::RestoreRoutes) => Plan { effects: Vec::new(), ..plan },
        _ => plan,
    }
}
