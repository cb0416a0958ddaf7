//! What keeps a step that is in place from being left, beside its own pause: everything that must let the next one in.

use super::{
    hooks::left,
    machine::Machine,
    release::{Release, ReleaseStep},
    turn::Turn,
};
use crate::{api::hooks::HookMoment, workload::Workload};

impl Machine<'_> {
    /// Whether what follows a step may begin.
    pub(super) fn wait_for_next(
        &mut self,
        index: i32,
        step: &ReleaseStep,
        workload: &Workload,
        release: &Release,
    ) -> Turn {
        if self.goes_back_in_batches(workload) {
            return Ok(());
        }
        self.show_gates(index, step, release);
        self.wait_for_gates(index, step, release)?;
        self.wait_for_hooks(HookMoment::AfterStep, index, &left(index, release), release)?;
        let next = release.next(index);
        if next > 0 {
            return self.wait_for_window(&format!("step {next} of {}", release.count()), release);
        }
        let what = "promotion after the last step";
        // With all pods nothing of the new version is left to come.
        if !step.is_all(self.style()) {
            self.wait_for_window(what, release)?;
        }
        self.ask_hooks(HookMoment::BeforePromotion, index, release);
        self.wait_for_hooks(HookMoment::BeforePromotion, index, what, release)
    }
}
