//! Manual gates: named permissions that several people or tools give one by one before a step is left.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    clock::whole_second_after,
    machine::Machine,
    release::{Release, ReleaseStep},
    turn::{Turn, Wait},
};
use crate::api::{conditions::reasons, v1beta1::GateStatus};

impl Machine<'_> {
    /// Shows the gates of a step that is in place, so that they can be passed, and hears which were.
    pub(super) fn show_gates(&mut self, index: i32, step: &ReleaseStep, release: &Release) {
        let now = Time(whole_second_after(self.snap.now));
        let known = std::mem::take(&mut self.sub().gates);
        let mut heard = Vec::new();
        let gates = step.gates.iter().map(|name| {
            let stored = known.iter().find(|gate| gate.name == *name).cloned();
            let mut gate = stored.unwrap_or_else(|| GateStatus { name: name.clone(), ..GateStatus::default() });
            if gate.is_passed && gate.time.is_none() {
                gate.time = Some(now.clone());
                heard.push(name.clone());
            } else if !gate.is_passed {
                gate.time = None;
            }
            gate
        });
        let gates: Vec<GateStatus> = gates.collect();
        self.sub().gates = gates;
        for name in heard {
            self.event(reasons::GATE_PASSED, format!("gate {name:?} of step {index} of {} is passed", release.count()));
        }
    }

    /// Whether all gates of a step are passed.
    pub(super) fn wait_for_gates(&mut self, index: i32, release: &Release) -> Turn {
        let closed: Vec<String> =
            self.sub().gates.iter().filter(|gate| !gate.is_passed).map(|gate| format!("{:?}", gate.name)).collect();
        if closed.is_empty() {
            return Ok(());
        }
        let (gates, one) = if closed.len() == 1 { ("gate", "it") } else { ("gates", "each") };
        Err(Wait::on(format!(
            "step {index} of {} is in place and waits for the {gates} {}; whoever passes {one} sets isPassed of its entry under \
             gates in the status",
            release.count(),
            closed.join(", ")
        )))
    }
}
