//! Gates: named permissions that people, tools or Jobs give one by one before a step is left.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    clock::whole_second_after,
    jobs::{self, CRON_JOB, JobState, Run},
    machine::Machine,
    plan::{Effect, Purpose},
    release::{Release, ReleaseStep, SpecError, wrong},
    turn::{Turn, Wait},
};
use crate::{
    analysis::metric::seconds,
    api::{
        analysis::OnFailure,
        conditions::{self, StepState, reasons, types},
        object,
        v1beta1::{GateStatus, Step},
    },
    workload::Workload,
};

/// A gate of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Its name, once in a step.
    pub name: String,
    /// The Job that passes it.
    pub job: Option<GateJob>,
}

/// A Job that passes a gate.
#[derive(Clone, Debug, PartialEq)]
pub struct GateJob {
    /// The CronJob that it is made from.
    pub cron_job: String,
    /// What follows when it fails.
    pub on_failure: OnFailure,
    /// Seconds that it may run.
    pub timeout: i64,
}

/// How long a Job may run where nothing is said, in seconds.
const DEFAULT_TIMEOUT: i64 = 600;

/// Reads the gates of a step.
///
/// # Errors
/// The field, what is wrong, and what would be right.
pub(super) fn read(field: &str, step: &Step) -> Result<Vec<Gate>, SpecError> {
    let mut gates: Vec<Gate> = Vec::new();
    for (i, gate) in step.gates.iter().enumerate() {
        let field = format!("{field}.gates[{i}]");
        if gate.name.is_empty() {
            return wrong(format!("{field}.name"), "is empty");
        }
        if gates.iter().any(|other| other.name == gate.name) {
            let problem = format!("{:?} is there twice; give each its own name", gate.name);
            return wrong(format!("{field}.name"), problem);
        }
        let job = match &gate.job {
            None => None,
            Some(job) if job.cron_job.is_empty() => return wrong(format!("{field}.job.cronJob"), "is empty"),
            Some(job) => {
                let timeout = job.timeout.as_deref().map_or(Some(DEFAULT_TIMEOUT), seconds).filter(|s| *s > 0);
                let Some(timeout) = timeout else {
                    return wrong(format!("{field}.job.timeout"), "is no duration, such as 30s, 5m or 1h30m");
                };
                let on_failure = job.on_failure.unwrap_or_default();
                Some(GateJob { cron_job: job.cron_job.clone(), on_failure, timeout })
            }
        };
        gates.push(Gate { name: gate.name.clone(), job });
    }
    Ok(gates)
}

impl Machine<'_> {
    /// Shows the gates of a step that is in place, so that they can be passed, and hears which were.
    pub(super) fn show_gates(&mut self, index: i32, step: &ReleaseStep, release: &Release) {
        let now = Time(whole_second_after(self.snap.now));
        let known = std::mem::take(&mut self.sub().gates);
        let mut heard = Vec::new();
        let mut gates = Vec::new();
        for wanted in &step.gates {
            let name = &wanted.name;
            let stored = known.iter().find(|gate| gate.name == *name).cloned();
            let mut gate = stored.unwrap_or_else(|| GateStatus { name: name.clone(), ..GateStatus::default() });
            if wanted.job.is_some() && self.job_state(index, name) == Some(JobState::Succeeded) {
                gate.is_passed = true;
            }
            if gate.is_passed && gate.time.is_none() {
                gate.time = Some(now.clone());
                heard.push(name.clone());
            } else if !gate.is_passed {
                gate.time = None;
            }
            gates.push(gate);
        }
        self.sub().gates = gates;
        for name in heard {
            self.event(reasons::GATE_PASSED, format!("gate {name:?} of step {index} of {} is passed", release.count()));
        }
    }

    /// Makes the Jobs of a step's gates, each once.
    pub(super) fn run_gates(&mut self, index: i32, step: &ReleaseStep) -> Turn {
        let mut effects = Vec::new();
        for gate in &step.gates {
            let Some(job) = &gate.job else { continue };
            let is_passed = self.sub().gates.iter().any(|status| status.name == gate.name && status.is_passed);
            let Some(template) = self.snap.cron_jobs.get(&job.cron_job).cloned() else { continue };
            if is_passed || self.job_state(index, &gate.name).is_some() {
                continue;
            }
            let (name, told) = (self.job_name(index, &gate.name), self.told(index));
            let object = self.job(Run::Gate, &name, &template, job.timeout, &told);
            effects.push(Effect::Apply { purpose: Purpose::RunJob, object });
        }
        if effects.is_empty() { Ok(()) } else { self.effects(effects) }
    }

    /// Whether all gates of a step are passed.
    pub(super) fn wait_for_gates(&mut self, index: i32, step: &ReleaseStep, release: &Release) -> Turn {
        self.check_jobs(index, step, release)?;
        let mut by_hand = Vec::new();
        let mut waits = Vec::new();
        for status in self.sub().gates.clone().iter().filter(|gate| !gate.is_passed) {
            let name = &status.name;
            if step.gates.iter().any(|gate| gate.name == *name && gate.job.is_some()) {
                waits.push(format!("the gate {name:?}, which Job {} passes", self.job_name(index, name)));
            } else {
                by_hand.push(format!("{name:?}"));
            }
        }
        let hint = match by_hand.len() {
            0 => "",
            1 => "; whoever passes it sets isPassed of its entry under gates in the status",
            _ => "; whoever passes each sets isPassed of its entry under gates in the status",
        };
        if !by_hand.is_empty() {
            let gates = if by_hand.len() == 1 { "gate" } else { "gates" };
            waits.insert(0, format!("the {gates} {}", by_hand.join(", ")));
        }
        if waits.is_empty() {
            return Ok(());
        }
        let place = format!("step {index} of {} is in place and waits for", release.count());
        Err(Wait::on(format!("{place} {}{hint}", waits.join(" and "))))
    }

    /// What a person has to know of the Jobs of a step that is in place, also while it waits for something else.
    pub(super) fn check_gates(
        &mut self,
        index: i32,
        step: &ReleaseStep,
        workload: &Workload,
        release: &Release,
    ) -> Turn {
        if self.goes_back_in_batches(workload) { Ok(()) } else { self.check_jobs(index, step, release) }
    }

    fn check_jobs(&mut self, index: i32, step: &ReleaseStep, release: &Release) -> Turn {
        let place = format!("step {index} of {}", release.count());
        for gate in &step.gates {
            let Some(job) = &gate.job else { continue };
            if self.sub().gates.iter().any(|status| status.name == gate.name && status.is_passed) {
                continue;
            }
            let name = self.job_name(index, &gate.name);
            match self.job_state(index, &gate.name) {
                Some(JobState::Failed(why)) => {
                    return Err(Wait::stall(
                        reasons::GATE_FAILED,
                        format!(
                            "{place}: gate {:?}: Job {name} has failed: {why}. Delete the Job to run it again, set isPassed of \
                             the gate in the status to go on all the same, or set the template back to roll back",
                            gate.name
                        ),
                    ));
                }
                None if !self.snap.cron_jobs.contains_key(&job.cron_job) => {
                    return Err(Wait::stall(
                        reasons::GATE_FAILED,
                        format!(
                            "{place}: gate {:?}: {} {} is missing, or may not be read; create it, or grant it (the chart's jobs.enabled)",
                            gate.name, CRON_JOB.1, job.cron_job
                        ),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Goes back where a Job has failed that has the power to.
    pub(super) fn judge_gates(&mut self, workload: &Workload, release: &Release) -> Turn {
        let index = self.sub().current_step_index;
        let state = StepState::parse(&self.sub().current_step_state);
        let Some(step) = release.step(index).filter(|_| state == Some(StepState::StepPaused)) else { return Ok(()) };
        if self.goes_back_in_batches(workload) {
            return Ok(());
        }
        for gate in &step.gates {
            let is_passed = self.sub().gates.iter().any(|status| status.name == gate.name && status.is_passed);
            let has_power = gate.job.as_ref().is_some_and(|job| job.on_failure == OnFailure::Rollback);
            if let (true, false, Some(JobState::Failed(why))) =
                (has_power, is_passed, self.job_state(index, &gate.name))
            {
                let name = self.job_name(index, &gate.name);
                let place = format!("step {index} of {}", release.count());
                let why = format!("{place}: gate {:?}: Job {name} has failed: {why}", gate.name);
                return self.roll_back_for(workload, reasons::GATE_FAILED, why);
            }
        }
        Ok(())
    }

    /// A Job of this release has failed.
    pub(super) fn has_failed_job(&self) -> bool {
        let why = self.status.canary_status.as_ref().map(|sub| sub.message.as_str()).unwrap_or_default();
        self.snap
            .jobs
            .iter()
            .any(|job| matches!(jobs::state(job), JobState::Failed(_)) && why.contains(object::name(job)))
    }

    fn job_state(&self, index: i32, gate: &str) -> Option<JobState> {
        let name = self.job_name(index, gate);
        self.snap.jobs.iter().find(|job| object::name(job) == name).map(|job| jobs::state(job))
    }

    /// The same for the same release, plan, step and gate, so that it is made once.
    fn job_name(&self, index: i32, gate: &str) -> String {
        let began = conditions::find(&self.status.conditions, types::PROGRESSING);
        let began = began.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0.as_second());
        let sub = self.status.canary_status.as_ref();
        let (revision, plan) = sub.map(|s| (s.canary_revision.as_str(), s.rollout_hash.as_str())).unwrap_or_default();
        let id: Value = json!([self.snap.rollout.metadata.uid, began, revision, plan, index, gate]);
        self.name_of_job(&id)
    }
}
