//! Bugs at gates, windows, hooks and metrics.

use tidegate::{
    analysis::Answer,
    api::{analysis::AnalysisPhase, hooks::HookPhase},
    rollout::{Plan, Snapshot, decide},
};

pub fn passes_gates(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    if let Some(status) = &mut snapshot.rollout.status {
        let canary = status.canary_status.iter_mut().flat_map(|sub| &mut sub.gates);
        let blue_green = status.blue_green_status.iter_mut().flat_map(|sub| &mut sub.gates);
        canary.chain(blue_green).for_each(|gate| gate.is_passed = true);
    }
    decide(&snapshot)
}

pub fn ignores_the_hours(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    snapshot.rollout.spec.change_windows.clear();
    snapshot.rollout.spec.freezes.clear();
    decide(&snapshot)
}

pub fn jumps_the_line(snapshot: &Snapshot) -> Plan {
    decide(&Snapshot { line: None, ..snapshot.clone() })
}

pub fn asks_no_board(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    if let Some(hooks) = snapshot.rollout.status.as_mut().and_then(|status| status.hooks.as_mut()) {
        hooks.hooks.iter_mut().for_each(|hook| hook.phase = HookPhase::Allowed);
    }
    decide(&snapshot)
}

pub fn takes_worse_for_same(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    let sub = plan.status.canary_status.as_mut().and_then(|sub| sub.analysis.as_mut());
    if let Some(run) = sub.and_then(|analysis| analysis.step.as_mut()) {
        run.phase = AnalysisPhase::Passed;
    }
    plan
}

pub fn trusts_any_answer(snapshot: &Snapshot) -> Plan {
    let mut snapshot = snapshot.clone();
    snapshot.samples.values_mut().for_each(|sample| sample.answer = Answer::Value(0.0));
    decide(&snapshot)
}

pub fn asks_without_end(snapshot: &Snapshot) -> Plan {
    let mut plan = decide(snapshot);
    plan.asks.iter_mut().for_each(|ask| ask.due = snapshot.now);
    plan
}
