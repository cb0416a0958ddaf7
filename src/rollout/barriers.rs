//! What keeps a step that is in place from being left, beside its own pause: everything that must let the next one in.

use super::{
    machine::Machine,
    release::{Release, ReleaseStep},
    turn::Turn,
};
use crate::workload::Workload;

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
        self.wait_for_gates(index, release)?;
        let next = release.next(index);
        if next > 0 {
            return self.wait_for_window(&format!("step {next} of {}", release.count()), release);
        }
        if step.is_all(self.style()) {
            // Nothing of the new version is left to come.
            return Ok(());
        }
        self.wait_for_window("promotion after the last step", release)
    }
}
