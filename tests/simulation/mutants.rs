//! Deliberate bugs around `gather`, `decide` and `apply`, and the judges that must see them.

mod barriers;
mod routes;
mod wire;

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tidegate::{
    api::{keys, object::ObjectRef},
    apply::{Guard, guard::guard},
    rehearsal::{CANARY, Mind, NAMESPACE, SERVICE, WORKLOAD, Wire},
    rollout::{Effect, Plan, Snapshot, decide, plan::Purpose},
};

/// A deliberate bug.
pub struct Mutant {
    pub name: &'static str,
    /// The number of a generated release from which on it shows soon.
    pub seed: u64,
    /// Which judge sees it there.
    pub judge: &'static str,
    decide: fn(&Snapshot) -> Plan,
    wire: Option<Wire>,
}

const fn mutant(name: &'static str, seed: u64, judge: &'static str, decide: fn(&Snapshot) -> Plan) -> Mutant {
    Mutant { name, seed, judge, decide, wire: None }
}

/// One around `gather` and `apply`, as the API server sees it.
const fn on_the_wire(name: &'static str, seed: u64, judge: &'static str, wire: Wire) -> Mutant {
    Mutant { name, seed, judge, decide, wire: Some(wire) }
}

impl Mutant {
    /// The guard looks the other way, so that the judges see what it would have kept from them; unless it is the one to
    /// be proved.
    pub fn mind(&self) -> Mind {
        let blind: Guard = Arc::new(|_, _, _| Ok(()));
        let guard = if self.judge == "write guard" { guard() } else { blind };
        Mind { decide: Arc::new(self.decide), guard, wire: self.wire, ..Mind::real() }
    }
}

/// A mutant by its name.
pub fn find(name: &str) -> &'static Mutant {
    MUTANTS.iter().find(|m| m.name == name).expect("a mutant of this name")
}

/// All of them.
pub static MUTANTS: &[Mutant] = &[
    mutant("skips-the-grace-time", 11, "1 drained before removal", skips_the_grace_time),
    mutant("deletes-the-canary-first", 1, "1 drained before removal", deletes_the_canary_first),
    mutant("routes-before-pods-are-ready", 1, "1 capacity before traffic", routes::routes_before_pods_are_ready),
    mutant("loses-a-tenth", 1, "2 traffic adds up", routes::loses_a_tenth),
    mutant("labels-the-route", 1, "3 only our leaves", routes::labels_the_route),
    mutant("forgets-one-restore", 1, "4 restore is exact", routes::forgets_one_restore),
    mutant("opens-the-workload-early", 1, "6 no uncontrolled release", opens_the_workload_early),
    mutant("forgets-the-pin", 5, "6 the right share", forgets_the_pin),
    mutant("approves-by-itself", 3, "8 a person's word", approves_by_itself),
    mutant("drops-an-approval", 4, "liveness", drops_an_approval),
    mutant("carries-an-approval-on", 0, "8 a person's word", carries_an_approval_on),
    mutant("touches-a-neighbour", 0, "10 nothing hijacked", touches_a_neighbour),
    mutant("says-nothing", 0, "11 every wait has a reason", says_nothing),
    mutant("is-restless", 3, "12 idle costs nothing", is_restless),
    mutant("never-rolls-back", 3, "liveness", never_rolls_back),
    mutant("loses-a-tenth-guarded", 1, "write guard", routes::loses_a_tenth),
    mutant("labels-the-route-guarded", 1, "write guard", routes::labels_the_route),
    mutant("forgets-one-restore-guarded", 1, "write guard", routes::forgets_one_restore),
    mutant("touches-a-neighbour-guarded", 0, "write guard", touches_a_neighbour),
    mutant("routes-before-the-subset", 3, "1 capacity before traffic", routes::routes_before_the_subset),
    mutant("never-unpins", 4, "liveness", never_unpins),
    mutant("leaves-its-mark", 0, "liveness", leaves_its_mark),
    mutant("cuts-pauses-short", 0, "8 a person's word", cuts_pauses_short),
    mutant("opens-a-pod-too-far", 5, "6 no uncontrolled release", opens_a_pod_too_far),
    mutant("forgets-an-overtaken-version", 30, "1 drained before removal", forgets_an_overtaken_version),
    mutant("switches-to-pods-that-are-not-ready", 24, "1 capacity before traffic", switches_too_early),
    mutant("lets-the-old-set-go", 2, "1 capacity before traffic", lets_the_old_set_go),
    mutant("keeps-what-it-read-first", 4, "liveness", keeps_what_it_read_first),
    mutant("passes-gates", 101, "the gates", barriers::passes_gates),
    mutant("ignores-the-hours", 91, "the hours", barriers::ignores_the_hours),
    mutant("jumps-the-line", 51, "the hours", barriers::jumps_the_line),
    mutant("asks-no-board", 37, "the hooks", barriers::asks_no_board),
    mutant("takes-worse-for-same", 1, "the metrics", barriers::takes_worse_for_same),
    mutant("trusts-any-answer", 33, "the metrics", barriers::trusts_any_answer),
    mutant("asks-without-end", 33, "the metrics", barriers::asks_without_end),
    on_the_wire("writes-over-a-persons-word", 7, "11 every wait has a reason", wire::writes_over_a_persons_word),
    on_the_wire("reports-a-pin-that-was-not", 4, "liveness", wire::reports_a_pin_that_was_not),
    on_the_wire("reports-a-deletion-that-was-not", 1, "liveness", wire::reports_a_deletion_that_was_not),
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

/// Makes room for one more pod of the new version than the step asks for.
fn opens_a_pod_too_far(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    for effect in &mut plan.effects {
        if let Effect::Patch { purpose: Purpose::OpenWorkload, operations, .. } = effect {
            for operation in operations.iter_mut().filter(|o| o["path"] == "/spec/strategy") {
                let surge = &mut operation["value"]["rollingUpdate"]["maxSurge"];
                if let Some(pods) = surge.as_i64() {
                    *surge = json!(pods + 1);
                }
            }
        }
    }
    plan
}

/// Takes no time for requests to leave a version that a newer template overtakes before its first pod.
fn forgets_an_overtaken_version(snapshot: &Snapshot) -> Plan {
    let mut hasty = snapshot.clone();
    let status = hasty.rollout.status.as_mut();
    let restarts = status
        .as_ref()
        .is_some_and(|s| s.conditions.iter().any(|c| c.r#type == "Progressing" && c.reason == "Initializing"));
    if let Some(settling) = status.and_then(|s| s.canary_status.as_mut()).and_then(|s| s.settling.as_mut())
        && restarts
        && settling.what == "requests leave the canary"
    {
        settling.since = Some(Time(snapshot.now - SignedDuration::from_hours(1)));
    }
    decide(&hasty)
}

/// Takes every pod of the newest set for ready, and for an endpoint.
fn switches_too_early(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    let newest = snapshot.revisions.iter_mut().max_by_key(|set| {
        let number = set["metadata"]["annotations"][keys::DEPLOYMENT_REVISION].as_str().unwrap_or_default();
        number.parse::<i64>().unwrap_or_default()
    });
    let Some(set) = newest else { return decide(&snapshot) };
    let set = Arc::make_mut(set);
    set["status"]["readyReplicas"] = set["spec"]["replicas"].clone();
    let (name, pods) = (set["metadata"]["name"].clone(), set["spec"]["replicas"].as_i64().unwrap_or_default());
    for slice in &mut snapshot.endpoint_slices {
        if let Some(endpoints) = Arc::make_mut(slice)["endpoints"].as_array_mut() {
            endpoints.extend((0..pods).map(|n| {
                let name = format!("{}-fake{n}", name.as_str().unwrap_or_default());
                json!({"conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": name}})
            }));
        }
    }
    decide(&snapshot)
}

/// Lets the workload roll on at the first pause of a blue-green release.
fn lets_the_old_set_go(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    let waits = plan.status.blue_green_status.as_ref().is_some_and(|s| s.current_step_state == "StepPaused");
    if waits
        && plan.effects.is_empty()
        && let Some(workload) = snapshot.workload.as_ref().filter(|w| w["spec"]["minReadySeconds"] != 0)
    {
        let path = format!("/metadata/annotations/{}", keys::IN_PROGRESSING.replace('/', "~1"));
        plan.effects.push(Effect::Patch {
            purpose: Purpose::ResumeWorkload,
            target: ObjectRef::new("apps/v1", "Deployment", NAMESPACE, WORKLOAD),
            resource_version: workload["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            operations: vec![
                json!({"op": "add", "path": path, "value": r#"{"rolloutName":"web","released":true}"#}),
                json!({"op": "add", "path": "/spec/minReadySeconds", "value": 0}),
            ],
        });
    }
    plan
}

/// Once the stable Service was read, it is not read again.
fn keeps_what_it_read_first(snapshot: &Snapshot) -> Plan {
    thread_local! {
        static FIRST: std::cell::RefCell<Option<(String, Arc<Value>)>> = const { std::cell::RefCell::new(None) };
    }
    let mut stale = snapshot.clone();
    let uid = snapshot.rollout.metadata.uid.clone().unwrap_or_default();
    FIRST.with_borrow_mut(|first| match (first.as_ref(), &mut stale.stable_service) {
        (Some((of, known)), Some(service)) if *of == uid => *service = known.clone(),
        (_, Some(service)) => *first = Some((uid, service.clone())),
        _ => {}
    });
    decide(&stale)
}
