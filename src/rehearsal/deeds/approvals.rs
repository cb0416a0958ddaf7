//! What waits for a person's word, and the word.

use kube::{Api, api::Patch};
use serde_json::{Value, json};

use super::{NONE, People, Waiting};
use crate::{
    api::{
        object::{at, int, text},
        v1beta1::Rollout,
    },
    cli::rollout::approve::approval_patch,
    rehearsal::{
        judges::is_winding_up,
        world::{self, NAMESPACE, WORKLOAD},
    },
};

impl People {
    /// The step that waits for approval.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let rollout = self.eyes.rollout()?;
        let sub = world::release(&rollout);
        let index = int(sub, &["currentStepIndex"]).unwrap_or_default();
        let pause = usize::try_from(index - 1).ok().and_then(|i| self.plan.get(i)).and_then(|s| s.pause);
        // A step that was late waits for a person, whatever it says of its pause.
        let is_late = int(sub, &["failedStepIndex"]) == Some(index);
        // Who reads the message does not approve what is being wound up, or what passes by itself.
        let waits = text(&rollout, &["status", "phase"]) == "Progressing"
            && text(sub, &["currentStepState"]) == "StepPaused"
            && (pause.is_none() || is_late)
            && !is_winding_up(&rollout)
            && at(&rollout, &["spec", "disabled"]) != Some(&json!(true));
        waits.then(|| (world::revision(&rollout).to_owned(), index))
    }

    /// The step whose gate is closed.
    pub(super) fn closed_gate(&self) -> Option<Waiting> {
        let rollout = self.eyes.rollout().filter(|_| self.setup.barriers.has_gates)?;
        let sub = world::release(&rollout);
        let gates = at(sub, &["gates"]).and_then(Value::as_array);
        let is_closed = gates.into_iter().flatten().any(|gate| gate.get("isPassed") != Some(&json!(true)));
        let index = int(sub, &["currentStepIndex"]).unwrap_or_default();
        is_closed.then(|| (world::revision(&rollout).to_owned(), index))
    }

    /// Whether the step at which the Rollout waits has its approval.
    pub fn has_approved_what_waits(&self) -> bool {
        self.waiting().is_some_and(|w| self.approved.contains(&w))
    }

    pub(super) async fn set_status(&mut self, patch: Value) -> bool {
        let patch = json!({"status": {self.setup.status_key(): patch}});
        self.rollouts().patch_status(WORKLOAD, &NONE, &Patch::Merge(&patch)).await.is_ok()
    }

    pub(super) async fn say_ready(&mut self) -> bool {
        self.set_status(json!({"currentStepState": "StepReady"})).await
    }

    /// By the plugin's patch or by a plain one, as the dice fall.
    pub(super) async fn approve(&mut self, waiting: Waiting) {
        let rollouts: Api<Rollout> = Api::namespaced(self.cluster.client("user"), NAMESPACE);
        let Ok(rollout) = rollouts.get(WORKLOAD).await else { return };
        self.old_read = Some(rollout.clone());
        let is_done = if self.rng.chance(0.5) {
            self.say_ready().await
        } else {
            // It went on meanwhile: look again.
            let Ok(patch) = approval_patch(&rollout) else { return };
            rollouts.patch_status(WORKLOAD, &NONE, &Patch::<Value>::Json(patch)).await.is_ok()
        };
        if is_done {
            self.approved.push(waiting);
        }
    }
}
