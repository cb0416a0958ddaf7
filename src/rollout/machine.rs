//! One pass over a Rollout: what holds in every phase, and which phase comes next.

use std::{cell::OnceCell, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    blue_green,
    calls::Call,
    clock::{heed_clock, whole_second_after},
    plan::{Effect, Event, Plan, Purpose, stall},
    release::{self, Release, Scope, SpecError},
    snapshot::{Hold, Snapshot},
    turn::{Turn, Wait},
};
use crate::{
    analysis::ask::Ask,
    api::{
        conditions::{self, StepState, phases, reasons, types},
        keys, object,
        v1beta1::{CanaryStatus, Rollout, RolloutStatus},
    },
    traffic::{ingress::Ingress, routes::Network},
    workload::{Revision, Style, Workload, canary::canary_name, deployment},
};

/// Whether a release of this Rollout is going on or being wound up.
pub fn is_releasing(rollout: &Rollout) -> bool {
    let Some(status) = &rollout.status else { return false };
    match status.phase.as_str() {
        phases::PROGRESSING | phases::DISABLING => true,
        phases::TERMINATING => {
            conditions::find(&status.conditions, types::PROGRESSING).is_some_and(|c| c.status == "True")
        }
        _ => false,
    }
}

/// Decides what to do next. Total: whatever is wrong becomes a condition.
pub fn decide(snapshot: &Snapshot) -> Plan {
    let mut machine = Machine::new(snapshot);
    let wait = machine.run().err().unwrap_or_default();
    machine.into_plan(wait)
}

/// A pass in the making.
pub(super) struct Machine<'a> {
    pub(super) snap: &'a Snapshot,
    pub(super) status: RolloutStatus,
    pub(super) workload: Option<Workload>,
    /// The extra Deployment of canary style.
    pub(super) canary: Option<Workload>,
    pub(super) scope: Result<Scope, SpecError>,
    /// The plan, once it was asked for.
    release: OnceCell<Result<Arc<Release>, SpecError>>,
    /// The objects that route, each with the text of its script that serves it.
    pub(super) networks: Vec<Network>,
    /// The Ingress beside which a canary stands, the same.
    pub(super) ingress: Option<Ingress>,
    pub(super) effects: Vec<Effect>,
    pub(super) events: Vec<Event>,
    pub(super) asks: Vec<Ask>,
    pub(super) calls: Vec<Call>,
    /// Steps that came into place, each with a sentence.
    pub(super) done: Vec<(i32, String)>,
    /// A moment that brings something to do, whatever the pass waits for.
    pub(super) again: Option<Timestamp>,
    /// Why a person's jump to another step is not followed yet.
    pub(super) barred_jump: Option<Wait>,
    /// The release waits for one of those in flight to end.
    pub(super) is_in_line: bool,
}

impl<'a> Machine<'a> {
    fn new(snap: &'a Snapshot) -> Self {
        let scope = release::scope(&snap.rollout);
        let kind = scope.as_ref().ok().map(|s| s.kind);
        let kind = kind.or_else(|| release::bare_scope(&snap.rollout).ok().map(|s| s.kind));
        let surroundings = snap.surroundings();
        let canary = snap.canary.as_ref().filter(|c| is_ours(snap, c));
        let mut status = snap.rollout.status.clone().unwrap_or_default();
        blue_green::unfold(&mut status);
        heed_clock(&mut status, snap.now);
        Machine {
            snap,
            status,
            workload: snap.workload.as_ref().zip(kind).map(|(w, kind)| (kind.read)(kind, w, &surroundings)),
            canary: canary.map(|c| deployment::read(c, &surroundings)),
            scope,
            release: OnceCell::new(),
            networks: snap.networks.clone(),
            ingress: snap.ingress.clone(),
            effects: Vec::new(),
            events: Vec::new(),
            asks: Vec::new(),
            calls: Vec::new(),
            done: Vec::new(),
            again: None,
            barred_jump: None,
            is_in_line: false,
        }
    }

    fn into_plan(mut self, wait: Wait) -> Plan {
        self.tell_hooks();
        let before = self.snap.rollout.status.as_ref();
        let stalled = match wait.stall {
            Some((reason, message)) => stall(&mut self.status, before, reason, &message, self.snap.now),
            None => {
                conditions::remove(&mut self.status.conditions, types::STALLED);
                if let Some(message) = wait.message {
                    self.status.message = message;
                }
                None
            }
        };
        self.tell_people(stalled.as_ref());
        self.events.extend(stalled);
        let requeue = [wait.until, self.again].into_iter().flatten().min();
        self.count_pods();
        self.leave_line();
        if let Some(sub) = &self.status.canary_status {
            self.status.current_step_index = sub.current_step_index;
            self.status.current_step_state = sub.current_step_state.clone();
        }
        if self.is_blue_green() {
            blue_green::fold(&mut self.status);
        }
        let Machine { snap, effects, status, events, asks, calls, .. } = self;
        let has_listeners = snap.receivers.as_ref().map_or(true, |receivers| !receivers.is_empty());
        Plan { effects, status, events, requeue, asks, calls, has_listeners }
    }

    fn count_pods(&mut self) {
        let is_progressing = self.status.phase == phases::PROGRESSING;
        let Some(sub) = self.status.canary_status.clone().filter(|_| is_progressing) else { return };
        // A template that went back to the stable one brings no new pods, and one that is refused is not the release's.
        let is_its =
            self.canary.is_some() || self.workload.clone().is_some_and(|workload| self.is_of_release(&workload));
        let goes_back = self.workload.as_ref().is_some_and(|workload| self.goes_back_in_batches(workload));
        let new = self.new_revision().filter(|new| is_its && (goes_back || new.hash != sub.stable_revision));
        let pods = match &self.canary {
            Some(canary) => Some((canary.existing, canary.ready)),
            None => new.as_ref().map(|new| (new.existing, new.ready)),
        };
        let sub = self.sub();
        if let Some((existing, ready)) = pods {
            (sub.canary_replicas, sub.canary_ready_replicas) = (existing, ready);
        }
        if let Some(new) = new {
            sub.pod_template_hash = new.hash;
        }
    }

    /// The version that the release brings, once it has pods or could have.
    pub(super) fn new_revision(&self) -> Option<Revision> {
        match &self.scope {
            Ok(scope) if scope.style != Style::Canary => self.workload.as_ref()?.current().cloned(),
            _ => self.canary.as_ref()?.current().cloned(),
        }
    }

    fn is_blue_green(&self) -> bool {
        match &self.scope {
            Ok(scope) => scope.style == Style::BlueGreen,
            Err(_) => self.snap.rollout.status.as_ref().is_some_and(|s| s.blue_green_status.is_some()),
        }
    }

    fn run(&mut self) -> Turn {
        let rollout = &self.snap.rollout;
        self.status.observed_generation = rollout.metadata.generation;
        let scope = self.scope.clone();
        self.check_readable()?;
        self.check_not_the_originals()?;
        self.let_go_of_former()?;
        if rollout.metadata.deletion_timestamp.is_some() {
            return self.terminate(scope);
        }
        if rollout.spec.disabled {
            let scope = self.scope_to_leave(scope)?;
            self.ensure_finalizer()?;
            return self.disable(&scope);
        }
        if self.status.phase.is_empty() || self.status.phase == phases::DISABLED {
            self.status.phase = phases::INITIAL.to_owned();
            self.status.message = "the workload is being looked at".to_owned();
        }
        let scope = scope?;
        self.ensure_finalizer()?;
        if let Some(rival) = self.snap.rivals.first() {
            return Err(Wait::stall(
                reasons::WORKLOAD_SHARED,
                format!(
                    "{} is released by Rollout {rival} already; delete one of the two Rollouts",
                    scope.workload_name()
                ),
            ));
        }
        match &self.snap.hold {
            Hold::InForce => conditions::remove(&mut self.status.conditions, types::DEGRADED),
            Hold::Unavailable(why) => self.set_condition(types::DEGRADED, true, reasons::HOLD_UNAVAILABLE, why),
        }
        let Some(workload) = self.workload.clone() else { return self.without_workload(&scope) };
        if self.status.phase == phases::DISABLING {
            // Winding up always completes first, so that no half-finished release is mistaken for a new one.
            self.finish(super::ending::Ending::Disabled, &scope)?;
            self.close_record();
            self.status.phase = phases::DISABLED.to_owned();
        }
        if let Some(why) = workload.kind.gate.refusal(&workload) {
            return Err(Wait::stall(reasons::NOT_OURS_TO_ROLL, why));
        }
        let is_progressing = self.status.phase == phases::PROGRESSING;
        if is_progressing && self.is_another_workload(&workload) {
            self.abandon(&scope)?;
        } else if is_progressing && self.is_rolling() {
            self.keep_held(&workload)?;
        } else if !is_progressing && self.slipped_through(&workload) {
            // At once: every moment the Deployment's own controller replaces more pods.
            return self.hold_late(&workload);
        }
        self.ensure_label(&workload)?;
        if self.status.phase != phases::PROGRESSING {
            self.status.workload_ref = Some(scope.workload.clone());
        }
        if !object::is_observed(workload.object()) {
            if self.status.phase == phases::HEALTHY {
                // Nothing of ours waits for it.
                return Err(Wait::default());
            }
            return Err(Wait::on(format!(
                "waiting for the {} controller to see generation {} of {}",
                workload.kind_name(),
                object::int(workload.object(), &["metadata", "generation"]).unwrap_or_default(),
                workload.name()
            )));
        }
        if self.status.phase != phases::PROGRESSING {
            self.idle(&scope, &workload)?;
        }
        if self.status.phase == phases::PROGRESSING {
            self.progress(&scope, &workload)?;
        }
        Ok(())
    }

    fn progress(&mut self, scope: &Scope, workload: &Workload) -> Turn {
        self.choose_scripts(scope);
        use super::ending::Ending;
        match self.progressing_reason() {
            reasons::FINALISING => self.finalise(Ending::Success, scope, workload),
            reasons::CANCELLING => self.finalise(Ending::Rollback, scope, workload),
            _ => self.rolling(scope, workload),
        }
    }

    /// The reason of the `Progressing` condition.
    pub(super) fn progressing_reason(&self) -> &'static str {
        let found = conditions::find(&self.status.conditions, types::PROGRESSING).map(|c| c.reason.as_str());
        [reasons::FINALISING, reasons::CANCELLING, reasons::PAUSED, reasons::IN_ROLLING]
            .into_iter()
            .find(|reason| found == Some(reason))
            .unwrap_or(reasons::INITIALIZING)
    }

    fn ensure_finalizer(&mut self) -> Turn {
        let finalizers = self.snap.rollout.metadata.finalizers.clone().unwrap_or_default();
        if finalizers.iter().any(|f| f == keys::ROLLOUT_FINALIZER) {
            return Ok(());
        }
        let all: Vec<String> = finalizers.into_iter().chain([keys::ROLLOUT_FINALIZER.to_owned()]).collect();
        // Until it is in place nothing may be changed that would have to be put back.
        self.patch_rollout(Purpose::AddFinalizer, json!({"op": "add", "path": "/metadata/finalizers", "value": all}))
    }

    fn ensure_label(&mut self, workload: &Workload) -> Turn {
        let (switch, value) = (workload.kind.switch(), workload.kind.workload_type);
        if object::label(workload.object(), switch) == Some(value) {
            return Ok(());
        }
        let operation = if object::at(workload.object(), &["metadata", "labels"]).is_some() {
            let path = format!("/metadata/labels/{}", object::pointer_key(switch));
            json!({"op": "add", "path": path, "value": value})
        } else {
            json!({"op": "add", "path": "/metadata/labels", "value": {switch: value}})
        };
        self.patch_workload(Purpose::WatchWorkload, workload, vec![operation])
    }

    /// Name of the Rollout.
    pub(super) fn rollout_name(&self) -> &'a str {
        self.snap.rollout.metadata.name.as_deref().unwrap_or_default()
    }

    /// The release's own status.
    pub(super) fn sub(&mut self) -> &mut CanaryStatus {
        self.status.canary_status.get_or_insert_default()
    }

    pub(super) fn set_state(&mut self, state: StepState) {
        let now = self.snap.now;
        let sub = self.sub();
        if matches!(state, StepState::BeforeStepUpgrade | StepState::Completed) {
            sub.step_start_time = None;
            sub.failed_step_index = None;
            // What was not taken up by now was said to a step that is left.
            sub.said_by = None;
            sub.approved_step_index = None;
            sub.gates.clear();
        }
        if state == StepState::BeforeStepUpgrade {
            self.status.proof = None;
        }
        let sub = self.sub();
        if state == StepState::BeforeStepUpgrade
            && let Some(analysis) = &mut sub.analysis
        {
            analysis.step = None;
        }
        if sub.current_step_state != state.as_str() {
            sub.current_step_state = state.as_str().to_owned();
            // Stored in whole seconds: rounded down, a pause would be short by up to one.
            sub.last_update_time = Some(Time(whole_second_after(now)));
            sub.settling = None;
        }
    }

    /// The plan; a spec that cannot be followed stalls.
    pub(super) fn release(&self) -> Turn<Arc<Release>> {
        let read = || release::release(&self.snap.rollout).map(Arc::new);
        Ok(self.release.get_or_init(read).clone()?)
    }

    /// Whether the object with the canary Deployment's name may be changed and deleted by us.
    pub(super) fn check_canary_name(&self, workload: &Workload) -> Turn {
        match &self.snap.canary {
            Some(other) if !is_ours(self.snap, other) => Err(Wait::stall(
                reasons::NAME_TAKEN,
                format!(
                    "Deployment {} exists and does not belong to this Rollout; rename or delete it",
                    canary_name(workload.name())
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The canary Service, if it is ours.
    pub(super) fn own_canary_service(&self) -> Option<&'a Value> {
        self.snap.canary_service.as_deref().filter(|s| is_ours(self.snap, s))
    }
}

/// Whether an object carries our owner reference.
pub(super) fn is_ours(snap: &Snapshot, object: &Value) -> bool {
    object::controller_uid(object).is_some() && object::controller_uid(object) == snap.rollout.metadata.uid.as_deref()
}
