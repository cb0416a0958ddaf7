//! Going back in batches (contract 5.11): a template that was set back to the stable one goes through the steps, where the
//! user wants that. Pods that have it already are no part of the batches; a label on them says so.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    machine::Machine,
    plan::{Effect, Purpose},
    release::{Release, ReleaseStep, Scope},
    turn::Turn,
};
use crate::{
    api::{
        conditions::{StepState, reasons},
        keys,
        object::{self, ObjectRef},
    },
    workload::{Style, Workload},
};

impl Machine<'_> {
    /// The template went back to the stable one, some pods have it not yet, and they are to go back step by step.
    pub(super) fn goes_back_in_batches(&self, workload: &Workload) -> bool {
        let Ok(scope) = &self.scope else { return false };
        let annotations = self.snap.rollout.metadata.annotations.as_ref();
        let is_wanted = annotations.and_then(|a| a.get(keys::ROLLBACK_IN_BATCH)).is_some_and(|v| v == "true");
        let stable = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        is_wanted
            && scope.style == Style::Partition
            && scope.kind.goes_back_in_batches
            && scope.traffic.is_none()
            && scope.shared.is_none()
            && self.is_rolling()
            && workload.is_at(stable)
            && workload.revisions.iter().any(|r| r.existing > 0 && !r.is_present)
    }

    /// Every pod went back step by step. That is a release like any other, and has succeeded (contract 4.8); the way back
    /// from a version that failed has not.
    pub(super) fn has_gone_back(&mut self, workload: &Workload) -> bool {
        let can_go_back = workload.kind.goes_back_in_batches;
        let sub = self.sub();
        can_go_back && sub.failed_revision.is_empty() && sub.canary_revision == workload.template_name
    }

    /// Starts with the first step again, for the way back.
    pub(super) fn begin_going_back(&mut self, workload: &Workload, release: &Release) {
        if self.sub().canary_revision == workload.template_name {
            return;
        }
        self.note_rollback();
        let sub = self.sub();
        sub.canary_revision.clone_from(&workload.template_name);
        sub.rollout_hash.clone_from(&release.hash);
        sub.current_step_index = 1;
        sub.next_step_index = release.next(1);
        sub.paused_step_index = None;
        sub.finalising_step = String::new();
        self.set_state(StepState::BeforeStepUpgrade);
        self.event(reasons::ROLLED_BACK, "the workload has been rolled back, and its pods go back step by step");
    }

    /// Labels the pods that are of the present template before any other becomes so.
    pub(super) fn mark_kept_pods(&mut self, workload: &Workload) -> Turn {
        let is_first = self.sub().current_step_index == 1 && workload.mark().is_none_or(|mark| mark.open.is_none());
        if !is_first || !self.goes_back_in_batches(workload) {
            return Ok(());
        }
        let id = workload.rollout_id().map_or_else(|| format!("rollback-{}", workload.template_name), str::to_owned);
        let label = |pod: &Value| match object::at(pod, &["metadata", "labels"]) {
            Some(_) => json!({"op": "add", "path": label_path(), "value": id}),
            None => json!({"op": "add", "path": "/metadata/labels", "value": {keys::NO_NEED_UPDATE: id}}),
        };
        let unmarked = self.present_pods(workload).into_iter().filter(|pod| !is_kept(pod)).cloned();
        let effects: Vec<Effect> = unmarked.map(|pod| patch(&pod, label(&pod))).collect();
        if effects.is_empty() { Ok(()) } else { self.effects(effects) }
    }

    /// Takes these labels off again.
    pub(super) fn unmark_kept_pods(&mut self) -> Turn {
        let kept = self.snap.pods.iter().filter(|pod| is_kept(pod));
        let effects: Vec<Effect> = kept.map(|pod| patch(pod, json!({"op": "remove", "path": label_path()}))).collect();
        if effects.is_empty() { Ok(()) } else { self.effects(effects) }
    }

    fn present_pods(&self, workload: &Workload) -> Vec<&Arc<Value>> {
        let Some(present) = workload.current() else { return Vec::new() };
        let pods = self.snap.surroundings().pods_of(workload.object());
        pods.filter(|pod| present.pods.contains(object::name(pod))).collect()
    }

    /// Pods of the present template that a step asks for in all, and how many of them had it before the first step.
    pub(super) fn target(&self, scope: &Scope, workload: &Workload, step: &ReleaseStep) -> (i32, i32) {
        if !self.goes_back_in_batches(workload) {
            return (step.target(scope.style, workload.replicas), 0);
        }
        let kept = self.present_pods(workload).into_iter().filter(|pod| is_kept(pod)).count();
        let kept = i32::try_from(kept).unwrap_or(i32::MAX).min(workload.replicas);
        (kept + step.target(scope.style, workload.replicas - kept), kept)
    }
}

pub(super) fn is_kept(pod: &Value) -> bool {
    object::label(pod, keys::NO_NEED_UPDATE).is_some()
}

fn label_path() -> String {
    format!("/metadata/labels/{}", object::pointer_key(keys::NO_NEED_UPDATE))
}

fn patch(pod: &Value, operation: Value) -> Effect {
    Effect::Patch {
        purpose: Purpose::LabelPod,
        target: ObjectRef::new("v1", "Pod", object::namespace(pod), object::name(pod)),
        resource_version: object::resource_version(pod).to_owned(),
        operations: vec![operation],
    }
}
