//! During a release: the pods of the new version, in an extra Deployment or in place.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    going_back::is_kept,
    machine::Machine,
    plan::{Effect, Purpose},
    release::{Release, ReleaseStep, Scope, owner_reference},
    turn::{Turn, Wait},
};
use crate::{
    api::{
        conditions::StepState,
        keys,
        object::{self, ObjectRef, digest},
    },
    workload::{
        Goal, Move, Style, Workload,
        batches::{self, Labelling},
        canary::{canary_deployment, canary_template},
        replicas::{Round, scaled},
    },
};

impl Machine<'_> {
    pub(super) fn style(&self) -> Style {
        self.scope.as_ref().map_or(Style::Canary, |scope| scope.style)
    }

    /// Pods of another version than the stable one may be answering requests: the new one's, or those of a version that
    /// a newer template has overtaken.
    pub(super) fn has_new_pods(&self) -> bool {
        let stable = self.status.canary_status.as_ref().map(|s| s.stable_revision.as_str()).unwrap_or_default();
        let is_other = |workload: &Workload| workload.revisions.iter().any(|r| r.hash != stable && r.existing > 0);
        self.canary.is_some() || (self.style() != Style::Canary && self.workload.as_ref().is_some_and(is_other))
    }

    /// After this step no pod of the stable version is left to tell apart. In blue-green style none goes for it; but who
    /// scales to 0 and up again gets pods of the new version alone.
    pub(super) fn is_whole(&mut self, scope: &Scope, workload: &Workload, step: &ReleaseStep) -> bool {
        let stable = self.sub().stable_revision.clone();
        let is_all = step.target(scope.style, workload.replicas) >= workload.replicas;
        match scope.style {
            Style::Canary => false,
            Style::Partition => is_all || !workload.runs(&stable),
            Style::BlueGreen => !workload.runs(&stable),
        }
    }

    /// Brings the new pods up and waits until they are ready.
    pub(super) fn upgrade(
        &mut self,
        scope: &Scope,
        workload: &Workload,
        release: &Release,
        step: &ReleaseStep,
    ) -> Turn {
        if scope.style == Style::Canary {
            return self.upgrade_canary(workload, release, step);
        }
        match self.next_move(scope, workload, release, step) {
            Move::Done => Ok(()),
            Move::Write(change) => self.change(Purpose::OpenWorkload, change),
            Move::Replace(pods) => self.replace_pods(&pods),
            Move::Wait { reason, until } => {
                let place = format!("Rollout is in step({}/{})", self.sub().current_step_index, release.count());
                if let Some(until) = until {
                    self.look_again(until);
                }
                let message = format!("{place}, {reason}");
                let names = workload.current().map(|new| &new.pods);
                Err(names.map_or_else(|| Wait::on(&message), |names| self.wait_for_pods(names, message.clone())))
            }
        }
    }

    fn next_move(&self, scope: &Scope, workload: &Workload, release: &Release, step: &ReleaseStep) -> Move {
        let (target, kept) = self.target(scope, workload, step);
        workload.kind.gate.open(
            workload,
            &Goal {
                rollout: self.rollout_name(),
                style: scope.style,
                target,
                kept,
                wanted: &step.replicas,
                needed: needed(release, target),
                stable: self.status.canary_status.as_ref().map_or("", |s| &s.stable_revision),
                surroundings: self.snap.surroundings(),
                now: self.snap.now,
            },
        )
    }

    /// Deletes pods in whose places others come.
    pub(super) fn replace_pods<T>(&mut self, pods: &[Arc<Value>]) -> Turn<T> {
        let deletions = pods.iter().map(|pod| Effect::Delete {
            purpose: Purpose::ReplacePod,
            target: ObjectRef::new("v1", "Pod", object::namespace(pod), object::name(pod)),
            uid: object::uid(pod).to_owned(),
            foreground: false,
        });
        self.effects(deletions)
    }

    /// Brings the extra Deployment's pods up.
    fn upgrade_canary(&mut self, workload: &Workload, release: &Release, step: &ReleaseStep) -> Turn {
        let target = step.target(Style::Canary, workload.replicas);
        let Some(canary) = self.canary.clone() else {
            self.check_canary_name(workload)?;
            let owner = owner_reference(&self.snap.rollout);
            let mut object = canary_deployment(workload, release.patch.as_ref(), owner, target);
            let made_with = digest(&canary_template(workload, release.patch.as_ref()));
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("annotations".to_owned(), json!({keys::CANARY_TEMPLATE: made_with}));
            }
            return self.effect(Effect::Apply { purpose: Purpose::ScaleCanary, object });
        };
        if object::is_deleting(canary.object()) {
            return Err(Wait::on("waiting for the canary Deployment of an earlier release to go"));
        }
        if canary.replicas < target {
            let operations = vec![json!({"op": "add", "path": "/spec/replicas", "value": target})];
            return self.patch(Purpose::ScaleCanary, canary.object(), "apps/v1", "Deployment", operations);
        }
        let needed = needed(release, target);
        let ready = if object::is_observed(canary.object()) { canary.available } else { 0 };
        if ready < needed || canary.current().is_none() {
            let trouble = canary.trouble.as_ref().map(|t| format!("; {t}")).unwrap_or_default();
            let message = format!(
                "Rollout is in step({}/{}), waiting for canary pods: {ready} of {needed} available{trouble}",
                self.sub().current_step_index,
                release.count()
            );
            let names = canary.current().map(|new| &new.pods);
            return Err(names.map_or_else(|| Wait::on(&message), |names| self.wait_for_pods(names, message.clone())));
        }
        Ok(())
    }

    /// Keeps a step that is in place in place: more new pods when the workload was scaled up, all of them again when
    /// somebody deleted them. `false` when the step went back to bringing them up.
    pub(super) fn has_pods(
        &mut self,
        scope: &Scope,
        workload: &Workload,
        release: &Release,
        step: &ReleaseStep,
    ) -> Turn<bool> {
        let (target, _) = self.target(scope, workload, step);
        let pods = match scope.style {
            Style::Canary => {
                self.canary.as_ref().filter(|c| !object::is_deleting(c.object())).map_or(-1, |c| c.replicas)
            }
            _ => workload.current().map_or(0, |r| r.replicas),
        };
        let next = (scope.style != Style::Canary).then(|| self.next_move(scope, workload, release, step));
        // In place, pods that may be unready are waited for by nobody: those that follow them may be missing for good.
        if pods < target && next != Some(Move::Done) {
            self.set_state(StepState::StepUpgrade);
            return Ok(false);
        }
        let Some(next) = next else { return Ok(true) };
        match next {
            Move::Write(change) => return self.change(Purpose::OpenWorkload, change),
            Move::Replace(pods) => return self.replace_pods(&pods),
            Move::Wait { until: Some(at), .. } => self.look_again(at),
            Move::Wait { .. } | Move::Done => {}
        }
        Ok(true)
    }
}

impl Machine<'_> {
    /// Says on the pods which release and step brought them, where the user gave the release an id.
    pub(super) fn label_pods(&mut self, scope: &Scope, workload: &Workload, release: &Release) -> Turn {
        let (Some(id), Some(new)) = (workload.rollout_id(), self.new_revision()) else { return Ok(()) };
        let steps = usize::try_from(self.sub().current_step_index).unwrap_or(0);
        let steps = release.steps.iter().take(steps).map(|step| self.target(scope, workload, step));
        let targets: Vec<i32> = steps.map(|(all, kept)| all - kept).collect();
        let pods: Vec<Arc<Value>> = self.snap.pods.iter().filter(|pod| !is_kept(pod)).cloned().collect();
        let missing = batches::labels(&pods, &new.pods, id, &targets);
        let is_written = !missing.is_empty();
        for Labelling { pod, operations } in missing {
            let target = ObjectRef::new("v1", "Pod", object::namespace(&pod), object::name(&pod));
            let resource_version = object::resource_version(&pod).to_owned();
            self.write(Effect::Patch { purpose: Purpose::LabelPod, target, resource_version, operations });
        }
        if is_written { Err(Wait::default()) } else { Ok(()) }
    }
}

/// Ready pods that a step needs: its target less what may be unready, but at least one.
pub(super) fn needed(release: &Release, target: i32) -> i32 {
    let tolerated = release.failure_threshold.as_ref().and_then(|t| scaled(t, target, Round::Up)).unwrap_or(0);
    (target - tolerated.max(0)).clamp(target.min(1), target)
}
