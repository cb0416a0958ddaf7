//! Notifications: what people are told of a release. Nothing waits for them; what has been told is kept, so that after a
//! restart everybody is told the rest once more at most.

pub mod config;
pub mod message;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use self::message::About;
use super::{
    calls::{Body, Call, Keys, Kind, backoff, short},
    clock::second_before,
    machine::Machine,
    plan::Event,
};
use crate::{
    analysis::query::{Value, Values, fill},
    api::{
        conditions::{self, reasons, types},
        notifications::{News, NotificationsStatus, Occasion, Receiver, ReceiverStatus},
        object::digest,
        v1beta1::{Condition, RolloutStatus},
    },
};

/// News that wait at most; older ones are forgotten.
const MOST_NEWS: usize = 20;
/// Tries after which a receiver is not told of something any more.
const MOST_TRIES: i32 = 6;
/// Seconds in which an answer has to be there, and between two tries at most.
const TIMEOUT: i64 = 10;
const LONGEST_PAUSE: i64 = 60;

const TEMPLATE: &str = "{{ namespace }}/{{ rollout }}: {{ message }}";

/// Notes for people that a write of this pass was refused, which is known only after everything was decided; the next pass
/// tells them. The same reason again is no news.
pub fn note_refusal(status: &mut RolloutStatus, before: Option<&RolloutStatus>, stalled: &Event, now: Timestamp) {
    let known = before.and_then(|before| conditions::find(&before.conditions, types::STALLED));
    // An API server that is away mends itself, and everybody would be told at once.
    if stalled.reason == reasons::API_UNAVAILABLE || known.is_some_and(|known| known.reason == stalled.reason) {
        return;
    }
    let step = status.current_step_index;
    status.notifications.get_or_insert_default().add(Occasion::Failed, step, &stalled.message, now);
}

impl NotificationsStatus {
    fn add(&mut self, event: Occasion, step: i32, message: &str, now: Timestamp) {
        self.last = self.last.saturating_add(1);
        let (number, time) = (self.last, Some(Time(second_before(now))));
        self.news.push(News { number, event, step, message: short(message), time });
        let surplus = self.news.len().saturating_sub(MOST_NEWS);
        self.news.drain(..surplus);
    }
}

impl Machine<'_> {
    /// Notes what people are to be told of this pass, takes in who knows what, and tells the rest.
    pub(super) fn tell_people(&mut self, stalled: Option<&Event>) {
        let receivers = match &self.snap.receivers {
            Ok(receivers) => receivers.clone(),
            Err(why) => {
                let text = format!("nobody is notified: {why}");
                if !self.news_of_pass(stalled).is_empty() {
                    self.warn(reasons::NOTIFICATION_FAILED, text);
                }
                return;
            }
        };
        if receivers.is_empty() {
            self.status.notifications = None;
            return;
        }
        let news = self.news_of_pass(stalled);
        if news.is_empty() && self.status.notifications.is_none() {
            return;
        }
        let mut status = self.status.notifications.take().unwrap_or_default();
        // Who is there from the beginning is told everything.
        let told = if status.release.is_empty() { 0 } else { status.last };
        if status.release.is_empty() || news.iter().any(|(event, ..)| *event == Occasion::Started) {
            self.begin_telling(&mut status);
        }
        status.receivers.retain(|known| receivers.iter().any(|receiver| receiver.name == known.name));
        for receiver in &receivers {
            if !status.receivers.iter().any(|known| known.name == receiver.name) {
                let name = receiver.name.clone();
                status.receivers.push(ReceiverStatus { name, told, ..ReceiverStatus::default() });
            }
        }
        let step = self.status.canary_status.as_ref().map_or(0, |sub| sub.current_step_index);
        for (event, of_step, message) in news {
            status.add(event, of_step.unwrap_or(step), &message, self.snap.now);
        }
        for receiver in &receivers {
            self.tell(receiver, &mut status);
        }
        let known_to_all = status.receivers.iter().map(|receiver| receiver.told).min().unwrap_or(status.last);
        status.news.retain(|news| news.number > known_to_all);
        self.status.notifications = Some(status);
    }

    /// A release of its own: another id, and messages of its own.
    fn begin_telling(&mut self, status: &mut NotificationsStatus) {
        let sub = self.status.canary_status.as_ref();
        let revision = sub.map(|sub| sub.canary_revision.as_str()).unwrap_or_default();
        status.release = digest(&json!([self.snap.rollout.metadata.uid, revision, self.snap.now.to_string()]));
        for receiver in &mut status.receivers {
            receiver.reference = String::new();
        }
    }

    /// What this pass brings that people are told.
    fn news_of_pass(&self, stalled: Option<&Event>) -> Vec<(Occasion, Option<i32>, String)> {
        let why = self.status.canary_status.as_ref().map(|sub| sub.message.as_str()).unwrap_or_default();
        let events = self.events().iter().filter_map(|event| {
            Some(match event.reason {
                reasons::INITIALIZING => (Occasion::Started, None, event.message.clone()),
                reasons::STEP_PAUSED => (Occasion::WaitingForApproval, None, event.message.clone()),
                reasons::ROLLED_BACK if why.is_empty() => (Occasion::RolledBack, None, "is rolled back".to_owned()),
                reasons::ROLLED_BACK => (Occasion::RolledBack, None, format!("is rolled back: {why}")),
                reasons::COMPLETED => (Occasion::Finished, None, event.message.clone()),
                _ => return None,
            })
        });
        let (mut news, rest): (Vec<_>, Vec<_>) = events.partition(|(occasion, ..)| *occasion == Occasion::Started);
        news.extend(self.done.iter().map(|(step, text)| (Occasion::StepDone, Some(*step), text.clone())));
        news.extend(rest);
        let before = self.snap.rollout.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let reason =
            |all: &[Condition], r#type| conditions::find(all, r#type).map(|c| c.reason.clone()).unwrap_or_default();
        let is_paused = |all: &[Condition]| reason(all, types::PROGRESSING) == reasons::PAUSED;
        if is_paused(&self.status.conditions) && !is_paused(before) {
            news.push((Occasion::Paused, None, self.status.message.clone()));
        }
        // The same trouble in other words is no news.
        if let Some(event) = stalled.filter(|event| reason(before, types::STALLED) != event.reason) {
            news.push((Occasion::Failed, None, event.message.clone()));
        }
        news
    }

    /// Tells a receiver the first thing that it does not know, and the rest when it has taken that.
    fn tell(&mut self, receiver: &Receiver, status: &mut NotificationsStatus) {
        let release = status.release.clone();
        let Some(known) = status.receivers.iter_mut().find(|known| known.name == receiver.name) else { return };
        loop {
            let told = known.told;
            let wants = |news: &&News| receiver.events.is_empty() || receiver.events.contains(&news.event);
            let mut open = status.news.iter().filter(|news| news.number > told).filter(wants);
            let Some(news) = open.next().cloned() else {
                (known.told, known.tries, known.next_time) = (status.last, 0, None);
                return;
            };
            let id = format!("{release}-{}-{}", receiver.name, news.number);
            let due = known.next_time.get_or_insert(Time(second_before(self.snap.now))).0;
            let reply = self.snap.replies.get(&id).filter(|reply| reply.at >= due).cloned();
            if let Some(reply) = reply {
                match message::taken(receiver, &reply.outcome) {
                    Ok(reference) => {
                        known.reference = reference.unwrap_or_else(|| std::mem::take(&mut known.reference));
                        (known.told, known.tries, known.next_time) = (news.number, 0, None);
                        continue;
                    }
                    Err((why, wish)) => {
                        known.tries = known.tries.saturating_add(1);
                        if message::is_gone(&why) {
                            known.reference = String::new();
                        }
                        if known.tries >= MOST_TRIES {
                            let (name, event) = (&receiver.name, news.event.as_str());
                            self.warn(
                                reasons::NOTIFICATION_FAILED,
                                format!("receiver {name:?} was not told of {event}: {why}"),
                            );
                            (known.told, known.tries, known.next_time) = (news.number, 0, None);
                            continue;
                        }
                        let pause = wish.unwrap_or_default().clamp(backoff(known.tries, LONGEST_PAUSE), LONGEST_PAUSE);
                        let next = second_before(reply.at).checked_add(SignedDuration::from_secs(pause));
                        known.next_time = next.ok().map(Time);
                    }
                }
            }
            let due = known.next_time.as_ref().map_or(due, |time| time.0);
            let about = self.about(receiver, &news, &release, &id);
            let message = message::write(receiver, &news, &about, &known.reference);
            let secret = config::secret_of(receiver).map(|name| Keys {
                namespace: self.snap.home.clone(),
                name: name.to_owned(),
                prefix: format!("{}.", receiver.name),
            });
            self.call(Call {
                id,
                due,
                to: format!("receiver {:?}", receiver.name),
                url: message.url,
                body: Body::Post(message.body.0, message.body.1),
                headers: message.headers.into_iter().map(|(name, value)| (name.into(), value)).collect(),
                timeout: TIMEOUT,
                secret,
                trust: None,
                kind: Kind::Notification,
            });
            return;
        }
    }

    fn about(&self, receiver: &Receiver, news: &News, release: &str, id: &str) -> About {
        let metadata = &self.snap.rollout.metadata;
        let (namespace, rollout) =
            (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let workload = self.scope.as_ref().map(|scope| scope.workload_name()).unwrap_or_default();
        let sub = self.status.canary_status.clone().unwrap_or_default();
        let strategy = &self.snap.rollout.spec.strategy;
        let steps = strategy.canary.as_ref().map(|c| &c.steps).or(strategy.blue_green.as_ref().map(|b| &b.steps));
        let steps = steps.map_or(0, Vec::len);
        let time = news.time.as_ref().map(|t| t.0.to_string()).unwrap_or_default();
        let values: Values = [
            ("namespace", namespace.clone()),
            ("rollout", rollout.clone()),
            ("workload", workload.clone()),
            ("event", news.event.as_str().to_owned()),
            ("step", news.step.to_string()),
            ("steps", steps.to_string()),
            ("message", news.message.clone()),
            ("stable-revision", sub.stable_revision.clone()),
            ("canary-revision", sub.canary_revision.clone()),
            ("release", release.to_owned()),
            ("time", time.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), Value::Text(value)))
        .into();
        let template = receiver.template.as_deref().unwrap_or(TEMPLATE);
        // Was checked when the receivers were read.
        let text = fill(template, &values).unwrap_or_else(|why| why);
        let data = json!({
            "event": news.event,
            "id": id,
            "release": release,
            "rollout": {"namespace": namespace, "name": rollout, "uid": metadata.uid},
            "workload": workload,
            "stableRevision": sub.stable_revision,
            "canaryRevision": sub.canary_revision,
            "step": news.step,
            "steps": steps,
            "message": news.message,
            "text": text,
            "time": time,
        });
        About { namespace, rollout, data, id: id.to_owned(), text }
    }
}
