//! Traffic proof: a gateway may take a route and answer it with 500 all the same. Requests that the controller sends
//! through it show that it does not, before a step's routes count as taken.

pub mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

pub use self::spec::Proof;
use self::spec::Requests;
use super::{
    calls::{Body, Call, Kind, Outcome, Reply, backoff},
    clock::second_before,
    machine::Machine,
    release::{Release, ReleaseStep, Traffic},
    turn::{Turn, Wait},
};
use crate::api::{
    conditions::reasons,
    object::digest,
    proof::{ProofPhase, ProofStatus},
};

/// The longest time between two tries, in seconds.
const LONGEST_PAUSE: i64 = 60;
/// Tries in vain after which a person has to know.
const TROUBLE: i32 = 2;
/// Tries in vain, over half a minute, after which the routes from before the step come back.
const MOST_TRIES: i32 = 6;

impl Machine<'_> {
    /// Goes on when requests through the gateway are answered as the proof wants it.
    pub(super) fn prove(&mut self, traffic: &Traffic, release: &Release, step: &ReleaseStep) -> Turn {
        let Some(proof) = &release.proof else {
            self.status.proof = None;
            return Ok(());
        };
        let index = self.sub().current_step_index;
        let requests = proof.requests(&step.strategy);
        let key = digest(&json!([self.snap.rollout.metadata.uid, index, requests, proof.expected]));
        let known = self.status.proof.take().filter(|known| known.key == key && known.phase != ProofPhase::Proven);
        let mut status = known.unwrap_or_else(|| ProofStatus { step: index, key, ..ProofStatus::default() });
        if let Some(reply) = self.reply_of(&status) {
            take_in(&mut status, &reply, proof, &requests);
        }
        let text = format!("the traffic proof of step {index} fails: {}", status.message);
        let wait = match status.phase {
            ProofPhase::Proven => {
                self.event(reasons::TRAFFIC_PROVEN, format!("step {index}: {}", status.message));
                self.status.proof = Some(status);
                return Ok(());
            }
            ProofPhase::Unproven if status.tries >= MOST_TRIES => {
                self.status.proof = Some(status);
                return self.take_back(traffic, release, step, text);
            }
            ProofPhase::Asked => Wait::on(format!("waiting for the traffic proof of step {index}: {}", requests.url)),
            ProofPhase::Unproven if status.tries < TROUBLE => Wait::on(text),
            ProofPhase::Unproven | ProofPhase::Mistaken => Wait::stall(reasons::TRAFFIC_UNPROVEN, text),
        };
        self.probe(proof, &requests, &mut status);
        self.status.proof = Some(status);
        Err(wait)
    }

    fn reply_of(&self, status: &ProofStatus) -> Option<Reply> {
        let due = status.next_time.as_ref()?.0;
        self.snap.replies.get(&status.key).filter(|reply| reply.at >= due).cloned()
    }

    fn probe(&mut self, proof: &Proof, requests: &Requests, status: &mut ProofStatus) {
        let due = status.next_time.get_or_insert(Time(second_before(self.snap.now))).0;
        let namespace = self.snap.rollout.metadata.namespace.clone().unwrap_or_default();
        self.call(Call {
            id: status.key.clone(),
            due,
            to: format!("gateway {}", requests.url),
            url: Some(requests.url.clone()),
            body: Body::Probe { count: requests.count },
            headers: requests.headers.iter().map(|(name, value)| (name.clone().into(), value.clone())).collect(),
            timeout: proof.timeout,
            secret: None,
            trust: proof.trust.clone().map(|name| (namespace, name)),
            kind: Kind::Proof,
        });
    }
}

fn take_in(status: &mut ProofStatus, reply: &Reply, proof: &Proof, requests: &Requests) {
    let (phase, said) = match &reply.outcome {
        Outcome::Probed(statuses) => (proof.judge(statuses), count(statuses)),
        Outcome::Answered { status, .. } => (proof.judge(&BTreeMap::from([(*status, 1)])), status.to_string()),
        Outcome::Unavailable(why) => (ProofPhase::Unproven, why.clone()),
        Outcome::Mistake(why) => (ProofPhase::Mistaken, why.clone()),
    };
    let tries = if status.phase == phase { status.tries } else { 0 };
    status.tries = tries.saturating_add(1);
    status.phase = phase;
    status.message = format!("{} to {}: {said}", plural(requests.count), requests.url);
    let pause = backoff(status.tries, LONGEST_PAUSE);
    status.next_time = (phase != ProofPhase::Proven).then(|| Time(after(reply.at, pause)));
}

/// Such as `503 for 3, 200 for 2`: the worst first.
fn count(statuses: &BTreeMap<u16, u32>) -> String {
    let parts: Vec<String> = statuses.iter().rev().map(|(status, times)| format!("{status} for {times}")).collect();
    if parts.is_empty() { "no answer".to_owned() } else { parts.join(", ") }
}

fn plural(count: u32) -> String {
    format!("{count} request{}", if count == 1 { "" } else { "s" })
}

fn after(moment: Timestamp, seconds: i64) -> Timestamp {
    second_before(moment).checked_add(SignedDuration::from_secs(seconds)).unwrap_or(moment)
}
