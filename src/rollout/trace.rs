//! A release as a trace: a span for the whole, one for each step, and one for winding up. Spans are told when they end,
//! from what two statuses say that follow each other; nothing is kept in between but in the status itself.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use sha2::{Digest as _, Sha256};

use crate::api::{
    conditions::{self, phases, reasons, types},
    trace::TraceStatus,
    v1beta1::{CanaryStatus, RolloutStatus, Word},
};

/// Something that took time, and has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The release.
    pub trace: u128,
    /// It, within the trace.
    pub id: u64,
    /// What it is part of; `None` of the release itself.
    pub parent: Option<u64>,
    /// What a person reads: `release`, `step 2` or `wind up`.
    pub name: String,
    /// When it began.
    pub from: Timestamp,
    /// When it ended.
    pub to: Timestamp,
    /// What it is about, by the names of docs/operating.md.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it counts as an error.
    pub error: Option<String>,
    /// What people said meanwhile.
    pub events: Vec<Said>,
}

/// What a person said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// When the controller took it up.
    pub at: Timestamp,
    /// `Approved` or `Jumped`.
    pub deed: String,
    /// Who; empty where nobody is named.
    pub by: String,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Completed,
    /// Another step than the next one was chosen.
    Jumped,
    /// A newer version came.
    Superseded,
    /// The template went back to the stable one.
    RolledBack,
    /// The controller itself took it back: a step, a metric, a gate or a hook failed.
    Failed,
    /// `spec.disabled`.
    Disabled,
    /// The Rollout is deleted.
    Deleted,
    /// The workload is gone, or was rolled out by other means.
    Abandoned,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Jumped => "jumped",
            Outcome::Superseded => "superseded",
            Outcome::RolledBack => "rolled-back",
            Outcome::Failed => "failed",
            Outcome::Disabled => "disabled",
            Outcome::Deleted => "deleted",
            Outcome::Abandoned => "abandoned",
        }
    }
}

/// Notes in a status where its release's trace stands, and returns what has ended since the status before it.
pub fn follow(
    meta: &ObjectMeta,
    before: Option<&RolloutStatus>,
    status: &mut RolloutStatus,
    now: Timestamp,
) -> Vec<Span> {
    let open = before.and_then(|before| before.trace.clone());
    let here = place(status);
    let began = here.as_ref().map(|_| began(status).unwrap_or(now));
    // A release may end and another begin within one pass.
    let goes_on = open.as_ref().zip(began).is_some_and(|(open, began)| trace_id(meta, began) == open.trace_id);
    if let (Some(open), Some((step, revision)), true) = (&open, &here, goes_on) {
        let is_there = (open.step, &open.revision) == (*step, revision);
        let (step, revision) = (*step, revision.clone());
        let next = TraceStatus { step, step_since: MicroTime(now), revision, ..open.clone() };
        let ended = (!is_there).then(|| step_span(meta, open, status, outcome(open, Some(&next), status), now));
        status.trace = Some(if is_there { open.clone() } else { next });
        return ended.into_iter().collect();
    }
    let mut ended = Vec::new();
    if let Some(open) = &open {
        let outcome = outcome(open, None, status);
        ended.push(step_span(meta, open, status, outcome, now));
        ended.push(release_span(meta, open, status, release_outcome(status), now));
    }
    status.trace = here.zip(began).map(|((step, revision), began)| {
        let is_news = before.and_then(place).is_none() || open.is_some();
        let since = sub(status).and_then(|sub| sub.1).filter(|_| !is_news).unwrap_or(began).max(began);
        TraceStatus {
            trace_id: trace_id(meta, began),
            since: MicroTime(began),
            step,
            step_since: MicroTime(since),
            revision,
        }
    });
    ended
}

/// What ends when a Rollout goes: no status tells of it any more.
pub fn close(meta: &ObjectMeta, last: &RolloutStatus, now: Timestamp) -> Vec<Span> {
    let Some(open) = &last.trace else { return Vec::new() };
    vec![step_span(meta, open, last, Outcome::Deleted, now), release_span(meta, open, last, Outcome::Deleted, now)]
}

/// Revision, start of the state, what people said, and the revision that was taken back, of a release of any style.
type Sub<'a> = (&'a str, Option<Timestamp>, &'a [Word], &'a str);

fn sub(status: &RolloutStatus) -> Option<Sub<'_>> {
    let time = |time: &Option<Time>| time.as_ref().map(|Time(at)| *at);
    if let Some(CanaryStatus { canary_revision, last_update_time, words, failed_revision, .. }) = &status.canary_status
    {
        return Some((canary_revision, time(last_update_time), words, failed_revision));
    }
    let sub = status.blue_green_status.as_ref()?;
    Some((&sub.updated_revision, time(&sub.last_update_time), &sub.words, &sub.failed_revision))
}

fn progressing(status: &RolloutStatus) -> Option<&crate::api::v1beta1::Condition> {
    conditions::find(&status.conditions, types::PROGRESSING).filter(|c| c.status == "True")
}

fn began(status: &RolloutStatus) -> Option<Timestamp> {
    progressing(status)?.last_transition_time.as_ref().map(|Time(at)| *at)
}

/// Step and revision of a release that goes on.
fn place(status: &RolloutStatus) -> Option<(i32, String)> {
    let reason = progressing(status)?.reason.as_str();
    let (revision, ..) = sub(status)?;
    let is_ending = matches!(reason, reasons::FINALISING | reasons::CANCELLING);
    match status.phase.as_str() {
        phases::PROGRESSING if !is_ending => Some((status.current_step_index.max(1), revision.to_owned())),
        phases::PROGRESSING | phases::DISABLING | phases::TERMINATING => Some((0, revision.to_owned())),
        _ => None,
    }
}

/// Of the step, or the winding up, that was open.
fn outcome(open: &TraceStatus, next: Option<&TraceStatus>, status: &RolloutStatus) -> Outcome {
    match (open.step, next) {
        (0, Some(next)) if next.step > 0 => Outcome::Superseded,
        (0, _) => release_outcome(status),
        (step, Some(next)) if next.step > 0 => match next {
            next if next.revision != open.revision => Outcome::Superseded,
            next if next.step == step + 1 => Outcome::Completed,
            _ => Outcome::Jumped,
        },
        (_, Some(_)) => match (status.phase.as_str(), progressing(status).map(|c| c.reason.as_str())) {
            (phases::DISABLING, _) => Outcome::Disabled,
            (phases::TERMINATING, _) => Outcome::Deleted,
            (_, Some(reasons::CANCELLING)) if sub(status).is_some_and(|sub| sub.3 == open.revision) => Outcome::Failed,
            (_, Some(reasons::CANCELLING)) => Outcome::RolledBack,
            _ => Outcome::Completed,
        },
        (_, None) => match release_outcome(status) {
            // Everything was in order at once.
            Outcome::Completed => Outcome::Completed,
            other => other,
        },
    }
}

/// Of a release that has ended with this status.
fn release_outcome(status: &RolloutStatus) -> Outcome {
    match status.phase.as_str() {
        phases::HEALTHY | phases::PROGRESSING => {
            let succeeded = conditions::find(&status.conditions, types::SUCCEEDED);
            let is_success = succeeded.is_none_or(|c| c.status == "True");
            let is_failed = sub(status).is_some_and(|sub| !sub.3.is_empty());
            match (is_success, is_failed) {
                (true, _) => Outcome::Completed,
                (false, true) => Outcome::Failed,
                (false, false) => Outcome::RolledBack,
            }
        }
        phases::DISABLED | phases::DISABLING => Outcome::Disabled,
        phases::TERMINATING => Outcome::Deleted,
        _ => Outcome::Abandoned,
    }
}

/// The same for the same Rollout and release, whichever process asks.
fn trace_id(meta: &ObjectMeta, began: Timestamp) -> String {
    format!("{:032x}", number::<16>(&format!("{}/{}", meta.uid.as_deref().unwrap_or_default(), began.as_second())))
}

/// A number of so many bytes that stands for a text, and is not 0.
fn number<const BYTES: usize>(text: &str) -> u128 {
    Sha256::digest(text).iter().take(BYTES).fold(0, |sum, byte| (sum << 8) | u128::from(*byte)).max(1)
}

fn id(text: &str) -> u64 {
    u64::try_from(number::<8>(text)).unwrap_or(1)
}

fn release_id(open: &TraceStatus) -> u64 {
    id(&format!("{}/release", open.trace_id))
}

fn release_span(
    meta: &ObjectMeta,
    open: &TraceStatus,
    status: &RolloutStatus,
    outcome: Outcome,
    now: Timestamp,
) -> Span {
    let base =
        Span { id: release_id(open), parent: None, from: open.since.0, ..span(meta, open, status, outcome, now) };
    Span { name: "release".to_owned(), ..base }
}

fn step_span(meta: &ObjectMeta, open: &TraceStatus, status: &RolloutStatus, outcome: Outcome, now: Timestamp) -> Span {
    let MicroTime(from) = open.step_since;
    let mut made = span(meta, open, status, outcome, now);
    if open.step == 0 {
        return Span { name: "wind up".to_owned(), ..made };
    }
    made.attributes.push(("tidegate.step", open.step.to_string()));
    let words = sub(status).map(|sub| sub.2).unwrap_or_default();
    made.events = words
        .iter()
        .filter_map(|word| {
            let Time(at) = *word.time.as_ref()?;
            // Times of words are in whole seconds.
            let is_its = word.step == open.step && at.as_second() >= from.as_second();
            is_its.then(|| Said { at, deed: word.deed.clone(), by: word.by.clone() })
        })
        .collect();
    Span { name: format!("step {}", open.step), ..made }
}

/// What all spans have; of the one that is open.
fn span(meta: &ObjectMeta, open: &TraceStatus, status: &RolloutStatus, outcome: Outcome, now: Timestamp) -> Span {
    let MicroTime(from) = open.step_since;
    let is_error = matches!(outcome, Outcome::Failed | Outcome::RolledBack | Outcome::Abandoned);
    let reason = conditions::find(&status.conditions, types::STALLED).map(|c| c.message.clone());
    let workload = status.workload_ref.as_ref().map(|w| format!("{} {}", w.kind, w.name)).unwrap_or_default();
    let attributes = [
        ("k8s.namespace.name", meta.namespace.clone().unwrap_or_default()),
        ("tidegate.rollout", meta.name.clone().unwrap_or_default()),
        ("tidegate.workload", workload),
        ("tidegate.revision", open.revision.clone()),
        ("tidegate.outcome", outcome.as_str().to_owned()),
    ];
    Span {
        trace: u128::from_str_radix(&open.trace_id, 16).unwrap_or(1),
        id: id(&format!("{}/{}/{}", open.trace_id, open.step, from.as_microsecond())),
        parent: Some(release_id(open)),
        name: String::new(),
        from: from.min(now),
        to: now,
        attributes: attributes.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
        error: is_error.then(|| reason.unwrap_or_else(|| outcome.as_str().to_owned())),
        events: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
