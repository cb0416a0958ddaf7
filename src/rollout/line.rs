//! A limit on the releases of the whole cluster that are in flight at the same time. Who has a place and who waits is
//! read from the statuses of all Rollouts: a restart forgets nothing.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::Value;

use super::{
    machine::Machine,
    turn::{Turn, Wait},
};
use crate::api::{
    conditions::{StepState, phases},
    object,
    v1beta1::{RolloutStatus, Slot},
};

/// What a decision knows of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Releases that may be in flight.
    pub limit: usize,
    /// Those of other Rollouts, as `namespace/name`; only known while this one waits.
    pub in_flight: Vec<String>,
    /// Those that wait, and since when.
    pub waiting: Vec<(Timestamp, String)>,
}

/// Where the release of a Rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for its first step since this moment.
    Waiting(Timestamp),
    /// It has begun.
    InFlight,
}

/// For so long a place in line is not used: whoever came before has been stored by then.
const SETTLING: SignedDuration = SignedDuration::from_secs(1);

/// `namespace/name`, by which those are told apart that came at the same moment.
pub fn place(rollout: &Value) -> String {
    format!("{}/{}", object::namespace(rollout), object::name(rollout))
}

/// Reads a Rollout as it is stored; `None` for one without a release.
pub fn standing(rollout: &Value) -> Option<Standing> {
    let slot = rollout.pointer("/status/slot");
    if let Some(since) = slot.and_then(|slot| slot.get("since")).and_then(Value::as_str) {
        let is_taken = slot.and_then(|slot| slot.get("isTaken")).and_then(Value::as_bool).unwrap_or_default();
        let since = since.parse().unwrap_or(Timestamp::MIN);
        return Some(if is_taken { Standing::InFlight } else { Standing::Waiting(since) });
    }
    // It began while there was no limit.
    let has_begun = object::text(rollout, &["status", "phase"]) == phases::PROGRESSING
        && (object::int(rollout, &["status", "currentStepIndex"]) > Some(1)
            || object::text(rollout, &["status", "currentStepState"]) != StepState::BeforeStepUpgrade.as_str());
    has_begun.then_some(Standing::InFlight)
}

impl Machine<'_> {
    /// Before the first write of a release.
    pub(super) fn wait_for_slot(&mut self, index: i32) -> Turn {
        let Some(line) = &self.snap.line else { return Ok(()) };
        let slot = self.status.slot.clone();
        if slot.as_ref().is_some_and(|slot| slot.is_taken) || (slot.is_none() && index > 1) {
            return Ok(());
        }
        self.is_in_line = true;
        let now = self.snap.now;
        let since = slot.map_or(now, |slot| slot.since.0.min(now));
        let mut own = Slot { since: MicroTime(since), is_taken: false };
        let settled = since.checked_add(SETTLING).unwrap_or(now);
        if now < settled {
            self.status.slot = Some(own);
            return Err(
                Wait::until("the release takes its place in the line of those that want to begin", settled).barred()
            );
        }
        let me =
            format!("{}/{}", self.snap.rollout.metadata.namespace.as_deref().unwrap_or_default(), self.rollout_name());
        let ahead = line.waiting.iter().filter(|(at, name)| (at, name) < (&since, &me)).count();
        own.is_taken = line.in_flight.len() + ahead < line.limit;
        let is_taken = own.is_taken;
        self.status.slot = Some(own);
        if is_taken {
            // Stored before anything is done with it.
            return Err(Wait::until("the release has its place and begins", now).barred());
        }
        let some: Vec<&str> = line.in_flight.iter().take(3).map(String::as_str).collect();
        let named = match line.in_flight.len() - some.len() {
            0 if some.is_empty() => String::new(),
            0 => format!(" ({})", some.join(", ")),
            more => format!(" ({} and {more} more)", some.join(", ")),
        };
        Err(Wait::on(format!(
            "step {index} waits: {} of at most {} releases are in flight{named}, and this one is number {} in line. It begins \
             when enough of them have ended, or --max-releases-in-flight is raised",
            line.in_flight.len(),
            line.limit,
            ahead + 1
        ))
        .barred())
    }

    /// A place is for who stands in line, and a slot for a release.
    pub(super) fn leave_line(&mut self) {
        let is_writing = self.is_writing();
        let status = &mut self.status;
        let is_over = ![phases::PROGRESSING, phases::DISABLING, phases::TERMINATING].contains(&status.phase.as_str());
        // A pass that writes has not come as far as the line.
        let is_elsewhere = !self.is_in_line && !is_writing && status.slot.as_ref().is_some_and(|slot| !slot.is_taken);
        if is_over || is_elsewhere {
            status.slot = None;
        }
    }
}

/// Whether a status has a place in line that is not a slot yet.
pub fn is_waiting(status: &RolloutStatus) -> bool {
    status.slot.as_ref().is_some_and(|slot| !slot.is_taken)
}
