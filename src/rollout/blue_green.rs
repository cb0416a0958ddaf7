//! The status of a release in blue-green style has names of its own (contract 1.3). The state machine works on one form.

use crate::api::v1beta1::{BlueGreenStatus, CanaryStatus, RolloutStatus};

/// Into the form that the state machine works on.
pub(super) fn unfold(status: &mut RolloutStatus) {
    let Some(stored) = status.blue_green_status.take() else { return };
    status.canary_status.get_or_insert(CanaryStatus {
        observed_workload_generation: stored.observed_workload_generation,
        observed_rollout_id: stored.observed_rollout_id,
        rollout_hash: stored.rollout_hash,
        stable_revision: stored.stable_revision,
        pod_template_hash: stored.pod_template_hash,
        canary_revision: stored.updated_revision,
        canary_replicas: stored.updated_replicas,
        canary_ready_replicas: stored.updated_ready_replicas,
        current_step_index: stored.current_step_index,
        next_step_index: stored.next_step_index,
        current_step_state: stored.current_step_state,
        finalising_step: stored.finalising_step,
        message: stored.message,
        last_update_time: stored.last_update_time,
        paused_step_index: stored.paused_step_index,
        settling: stored.settling,
        step_start_time: stored.step_start_time,
        gates: stored.gates,
        approved_step_index: stored.approved_step_index,
        failed_step_index: stored.failed_step_index,
        failed_revision: stored.failed_revision,
        analysis: stored.analysis,
        said_by: stored.said_by,
        words: stored.words,
    });
}

/// Into the form that is stored.
pub(super) fn fold(status: &mut RolloutStatus) {
    let Some(sub) = status.canary_status.take() else { return };
    status.blue_green_status = Some(BlueGreenStatus {
        observed_workload_generation: sub.observed_workload_generation,
        observed_rollout_id: sub.observed_rollout_id,
        rollout_hash: sub.rollout_hash,
        stable_revision: sub.stable_revision,
        pod_template_hash: sub.pod_template_hash,
        updated_revision: sub.canary_revision,
        updated_replicas: sub.canary_replicas,
        updated_ready_replicas: sub.canary_ready_replicas,
        current_step_index: sub.current_step_index,
        next_step_index: sub.next_step_index,
        current_step_state: sub.current_step_state,
        finalising_step: sub.finalising_step,
        message: sub.message,
        last_update_time: sub.last_update_time,
        paused_step_index: sub.paused_step_index,
        settling: sub.settling,
        step_start_time: sub.step_start_time,
        gates: sub.gates,
        approved_step_index: sub.approved_step_index,
        failed_step_index: sub.failed_step_index,
        failed_revision: sub.failed_revision,
        analysis: sub.analysis,
        said_by: sub.said_by,
        words: sub.words,
    });
}
