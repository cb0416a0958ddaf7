//! Hooks: servers of the user's that are asked at moments of a release, and told of its rollback.

pub mod answer;
pub mod spec;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use self::answer::Meaning;
pub use self::spec::{Hook, read};
use super::{
    calls::{Body, Call, Keys, Kind, Reply, backoff},
    clock::second_before,
    machine::Machine,
    release::Release,
    turn::{Turn, Wait},
};
use crate::{
    analysis::metric::duration,
    api::{
        analysis::OnFailure,
        conditions::reasons,
        hooks::{HookMoment, HookPhase, HookStatus, HooksStatus, OnUnreachable},
        object::digest,
    },
    workload::Workload,
};

/// The longest time that a hook may want not to be asked again, in seconds.
const LONGEST_WISH: i64 = 3600;

impl Machine<'_> {
    /// Asks the hooks of a moment that have not allowed yet, and takes in what they said.
    pub(super) fn ask_hooks(&mut self, moment: HookMoment, index: i32, release: &Release) {
        let hooks: Vec<&Hook> = release.hooks.iter().filter(|hook| hook.is_for(moment, index)).collect();
        if hooks.is_empty() {
            return;
        }
        self.hooks().hooks.retain(|status| status.moment == HookMoment::OnRollback || status.step == index);
        for hook in hooks {
            let key = self.hook_key(hook, moment, index);
            let known = self.hooks().hooks.iter().position(|s| s.name == hook.name && s.moment == moment);
            let known = known.map(|i| self.hooks().hooks.remove(i)).filter(|status| status.key == key);
            let mut status = known.unwrap_or_else(|| HookStatus {
                name: hook.name.clone(),
                moment,
                step: index,
                key,
                since: Some(Time(second_before(self.snap.now))),
                ..HookStatus::default()
            });
            if status.phase != HookPhase::Allowed {
                self.take_in(hook, &mut status);
            }
            if status.phase != HookPhase::Allowed {
                self.call_hook(hook, &mut status);
            }
            self.hooks().hooks.push(status);
        }
    }

    /// Whether the hooks of a moment let the release go on; `what` waits meanwhile.
    pub(super) fn wait_for_hooks(&mut self, moment: HookMoment, index: i32, what: &str, release: &Release) -> Turn {
        let mut waits = Vec::new();
        for hook in release.hooks.iter().filter(|hook| hook.is_for(moment, index)) {
            let key = self.hook_key(hook, moment, index);
            let status = self.hooks().hooks.iter().find(|status| status.key == key).cloned().unwrap_or_default();
            let name = &hook.name;
            let said = &status.message;
            let (rank, text, reason) = match status.phase {
                HookPhase::Allowed => continue,
                HookPhase::Mistaken => (0, format!("hook {name:?} cannot be asked: {said}"), Some(reasons::HOOK_STUCK)),
                HookPhase::Refused => (1, format!("hook {name:?} refuses: {said}"), Some(reasons::HOOK_REFUSED)),
                HookPhase::Unreachable | HookPhase::GivenUp => {
                    let is_overdue = status.tries > hook.retries;
                    let reason = is_overdue.then_some(reasons::HOOK_UNREACHABLE);
                    (2, format!("hook {name:?} cannot be reached: {said}"), reason)
                }
                HookPhase::Held => (3, format!("hook {name:?} holds it: {said}"), None),
                HookPhase::Asked => (4, format!("hook {name:?} has not answered yet"), None),
            };
            waits.push((reason.is_none(), rank, text, reason));
        }
        waits.sort();
        let Some((_, _, _, reason)) = waits.first() else { return Ok(()) };
        let texts: Vec<&str> = waits.iter().map(|(_, _, text, _)| text.as_str()).collect();
        let text = format!("{what} waits: {}", texts.join("; "));
        Err(match reason {
            Some(reason) => Wait::stall(reason, text),
            None => Wait::on(text),
        })
    }

    /// What a person has to know of the hooks of a step that is in place, also while it waits for something else.
    pub(super) fn check_hooks(&mut self, index: i32, workload: &Workload, release: &Release) -> Turn {
        if self.goes_back_in_batches(workload) {
            return Ok(());
        }
        let wait = self.wait_for_hooks(HookMoment::AfterStep, index, &left(index, release), release);
        wait.or_else(|wait| if wait.stall.is_some() { Err(wait) } else { Ok(()) })
    }

    /// Goes back where a hook has refused that has the power to.
    pub(super) fn judge_hooks(&mut self, workload: &Workload, release: &Release) -> Turn {
        let index = self.sub().current_step_index;
        if self.goes_back_in_batches(workload) {
            return Ok(());
        }
        let Some(status) = &self.status.hooks else { return Ok(()) };
        let refused = status.hooks.iter().filter(|s| s.phase == HookPhase::Refused && s.step == index);
        let mut with_power = refused
            .filter(|s| release.hooks.iter().any(|hook| hook.name == s.name && hook.on_refusal == OnFailure::Rollback));
        let Some(refused) = with_power.next().cloned() else { return Ok(()) };
        let why = format!("step {index} of {}: hook {:?} refuses: {}", release.count(), refused.name, refused.message);
        self.roll_back_for(workload, reasons::HOOK_REFUSED, why)
    }

    /// A hook has refused the release.
    pub(super) fn is_refused(&self) -> bool {
        self.status.hooks.iter().flat_map(|h| &h.hooks).any(|status| status.phase == HookPhase::Refused)
    }

    /// The release goes back: whoever wants to know is told, however it ends.
    pub(super) fn note_rollback(&mut self) {
        let Ok(hooks) = spec::read(&self.snap.rollout) else { return };
        let index = self.sub().current_step_index;
        for hook in hooks.iter().filter(|hook| hook.is_for(HookMoment::OnRollback, index)) {
            let key = self.hook_key(hook, HookMoment::OnRollback, index);
            if self.hooks().hooks.iter().any(|status| status.key == key) {
                continue;
            }
            let message = self.sub().message.clone();
            let message = if message.is_empty() { "the workload has been rolled back".to_owned() } else { message };
            let since = Some(Time(second_before(self.snap.now)));
            let (name, moment) = (hook.name.clone(), HookMoment::OnRollback);
            let status = HookStatus { name, moment, step: index, key, message, since, ..HookStatus::default() };
            self.hooks().hooks.push(status);
        }
    }

    /// Tells of a rollback until it is known, or has been tried often enough. Nothing waits for it.
    pub(super) fn tell_hooks(&mut self) {
        let is_pending = |status: &HookStatus| {
            status.moment == HookMoment::OnRollback && !matches!(status.phase, HookPhase::Allowed | HookPhase::GivenUp)
        };
        let Some(all) = self.status.hooks.as_mut().filter(|status| status.hooks.iter().any(is_pending)) else { return };
        let mut all = std::mem::take(&mut all.hooks);
        let hooks = spec::read(&self.snap.rollout).unwrap_or_default();
        for status in all.iter_mut().filter(|status| is_pending(status)) {
            let Some(hook) = hooks.iter().find(|hook| hook.name == status.name) else {
                status.phase = HookPhase::GivenUp;
                continue;
            };
            if let Some(reply) = self.reply(status) {
                let told = match answer::read(&reply.outcome) {
                    Meaning::Unreachable(why) | Meaning::Mistaken(why) => Err(why),
                    _ => Ok(()),
                };
                status.tries = status.tries.saturating_add(1);
                let (phase, next) = match told {
                    Ok(()) => (HookPhase::Allowed, None),
                    Err(why) if status.tries > hook.retries => {
                        let text = format!("hook {:?} was not told of the rollback: {why}", hook.name);
                        self.warn(reasons::HOOK_UNREACHABLE, text);
                        (HookPhase::GivenUp, None)
                    }
                    Err(_) => (HookPhase::Unreachable, Some(after(reply.at, backoff(status.tries, hook.interval)))),
                };
                (status.phase, status.next_time) = (phase, next.map(Time));
            }
            if is_pending(status) {
                self.call_hook(hook, status);
            }
        }
        if let Some(known) = &mut self.status.hooks {
            known.hooks = all;
        }
    }

    /// What hooks have said in this release; a release gets its id when it is first needed.
    fn hooks(&mut self) -> &mut HooksStatus {
        let sub = self.sub();
        let (revision, rollout_id) = (sub.canary_revision.clone(), sub.observed_rollout_id.clone());
        let id = json!([self.snap.rollout.metadata.uid, revision, self.snap.now.to_string()]);
        self.status.hooks.get_or_insert_with(|| HooksStatus {
            release: digest(&id),
            revision,
            rollout_id,
            hooks: Vec::new(),
        })
    }

    fn hook_key(&mut self, hook: &Hook, moment: HookMoment, index: i32) -> String {
        let plan = self.sub().rollout_hash.clone();
        let release = self.hooks().release.clone();
        format!("{release}-{}", digest(&json!([plan, moment, index, hook.name, hook.url])))
    }

    fn reply(&self, status: &HookStatus) -> Option<Reply> {
        let due = status.next_time.as_ref()?.0;
        self.snap.replies.get(&status.key).filter(|reply| reply.at >= due).cloned()
    }

    fn take_in(&mut self, hook: &Hook, status: &mut HookStatus) {
        let Some(reply) = self.reply(status) else { return };
        let place = format!("hook {:?}, {} of step {}", hook.name, status.moment.as_str(), status.step);
        let (mut phase, mut message, wish) = match answer::read(&reply.outcome) {
            Meaning::Allows(text) => (HookPhase::Allowed, text, None),
            Meaning::Holds(text, wish) => (HookPhase::Held, text, wish),
            Meaning::Refuses(text) => (HookPhase::Refused, text, None),
            Meaning::Unreachable(text) => (HookPhase::Unreachable, text, None),
            Meaning::Mistaken(text) => (HookPhase::Mistaken, text, None),
        };
        let has_changed = status.phase != phase;
        if has_changed {
            status.tries = 0;
            status.since = Some(Time(second_before(reply.at)));
        }
        status.tries = status.tries.saturating_add(1);
        let since = status.since.as_ref().map_or(reply.at, |t| t.0);
        if phase == HookPhase::Unreachable && reply.at.duration_since(since).as_secs() >= hook.unreachable_timeout {
            let text = format!("unreachable for {}: {message}", duration(hook.unreachable_timeout));
            match hook.on_unreachable {
                OnUnreachable::Wait => {}
                OnUnreachable::Allow => {
                    self.warn(reasons::HOOK_UNREACHABLE, format!("{place}: {text}; the release goes on without it"));
                    (phase, message) = (HookPhase::Allowed, text);
                }
                OnUnreachable::Refuse => (phase, message) = (HookPhase::Refused, text),
            }
        }
        match phase {
            HookPhase::Allowed if has_changed => self.event(reasons::HOOK_ALLOWED, said(&place, "allows", &message)),
            HookPhase::Held if has_changed => self.event(reasons::HOOK_HELD, said(&place, "holds", &message)),
            // Stored before anything is done about it.
            HookPhase::Refused if hook.on_refusal == OnFailure::Rollback => self.look_again(self.snap.now),
            _ => {}
        }
        let pause = wish.map_or_else(|| backoff(status.tries, hook.interval), |wish| wish.clamp(1, LONGEST_WISH));
        status.next_time = (phase != HookPhase::Allowed).then(|| Time(after(reply.at, pause)));
        (status.phase, status.message) = (phase, message);
    }

    fn call_hook(&mut self, hook: &Hook, status: &mut HookStatus) {
        let due = status.next_time.get_or_insert(Time(second_before(self.snap.now))).0;
        let metadata = &self.snap.rollout.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let strategy = &self.snap.rollout.spec.strategy;
        let steps = strategy.canary.as_ref().map(|c| &c.steps).or(strategy.blue_green.as_ref().map(|b| &b.steps));
        let sub = self.status.canary_status.clone().unwrap_or_default();
        let release = self.status.hooks.clone().unwrap_or_default();
        let mut body = json!({
            "hook": hook.name,
            "moment": status.moment,
            "key": status.key,
            "rollout": {"namespace": namespace, "name": metadata.name, "uid": metadata.uid},
            "workload": self.scope.as_ref().ok().map(|scope| &scope.workload),
            "release": {
                "id": release.release,
                "rolloutID": release.rollout_id,
                "stableRevision": sub.stable_revision,
                "canaryRevision": release.revision,
            },
            "step": status.step,
            "steps": steps.map_or(0, Vec::len),
            "phase": self.status.phase,
        });
        if let (HookMoment::OnRollback, Some(map)) = (status.moment, body.as_object_mut()) {
            map.insert("message".to_owned(), status.message.clone().into());
        }
        let secret = hook.secret.as_ref();
        self.call(Call {
            id: status.key.clone(),
            due,
            to: format!("hook {:?}", hook.name),
            url: Some(hook.url.clone()),
            body: Body::Post("application/json", body.to_string()),
            headers: Vec::new(),
            timeout: hook.timeout,
            secret: secret.map(|name| Keys { namespace: namespace.clone(), name: name.clone(), prefix: String::new() }),
            trust: hook.trust.clone().map(|name| (namespace, name)),
            kind: Kind::Hook,
        });
    }
}

/// What waits for a hook of a step that is in place.
pub(super) fn left(index: i32, release: &Release) -> String {
    format!("step {index} of {} is in place, and what follows", release.count())
}

fn said(place: &str, does: &str, message: &str) -> String {
    if message.is_empty() { format!("{place}: {does}") } else { format!("{place}: {does}: {message}") }
}

fn after(moment: Timestamp, seconds: i64) -> Timestamp {
    second_before(moment).checked_add(SignedDuration::from_secs(seconds)).unwrap_or(moment)
}
