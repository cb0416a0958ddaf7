//! Keeps in place what holds changed workloads: policies of the API server where it serves them, else our webhook. When
//! the server changes, the new one acts before the old one goes.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::object::{self, ObjectRef, text},
    apply::hold::{Failed, Holds},
    gather::{
        Cache, Lookup, Objects,
        collect::{BINDING, POLICY, WEBHOOKS},
    },
    telemetry::Health,
    traffic::routes::Missing,
    workload::hold::{self, is_ours},
};

/// Between two trials, and after a failure.
const AGAIN: Duration = Duration::from_secs(30);
/// How long the API server may take to act on policies that are new to it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the warning in `/readyz`.
const WARNING: &str = "hold kept";

/// What holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Policies where the API server serves them, else webhooks.
    Auto,
    /// Policies.
    Policy,
    /// Webhooks.
    Webhook,
}

/// How the hold is kept.
#[derive(Clone)]
pub struct KeepHold {
    /// What is to hold.
    pub wish: Wish,
    /// Policies and their bindings.
    pub policies: Arc<dyn Fn() -> Vec<Value> + Send + Sync>,
    /// The configuration of the webhooks, if this installation serves them; where they are is the API server's to say, by
    /// the configuration of the validation that [`KeepHold::sibling`] names.
    pub webhooks: Option<Arc<dyn Fn() -> Value + Send + Sync>>,
    /// Name of the ValidatingWebhookConfiguration of this installation.
    pub sibling: &'static str,
    /// How long the new one must have been seen to act before the old one goes: all API servers of a cluster need the
    /// time to be upgraded.
    pub settle: Duration,
}

/// What is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The API server serves policies.
    is_served: bool,
    /// A policy or a binding.
    has_policies: bool,
    /// All of them.
    has_all_policies: bool,
    /// The configuration of our webhooks.
    has_webhooks: bool,
    /// For every kind, and trusted.
    is_trusted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Rest,
    InstallPolicies,
    InstallWebhooks,
    /// Tries the policies, and again after a while.
    TryPolicies,
    /// Nothing is to be done until the webhooks have been there for long enough.
    Wait(Duration),
    RemoveWebhooks,
    RemovePolicies,
}

/// What was found out in this term.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// For how long the policies have been seen to act.
    acts: Option<Duration>,
    /// For how long they have been seen not to.
    fails: Option<Duration>,
    /// For how long the webhooks have been there, and trusted.
    trusted: Option<Duration>,
    /// The webhooks were taken away once. Who puts them back wants them.
    has_removed: bool,
}

fn next(wish: Wish, seen: Seen, known: Known, settle: Duration, can_serve: bool) -> Step {
    let by_policy = match wish {
        Wish::Policy => true,
        Wish::Webhook => false,
        Wish::Auto => seen.is_served,
    };
    match (by_policy, seen) {
        (true, Seen { is_served: false, .. }) => Step::Rest,
        (true, Seen { has_all_policies: false, .. }) => Step::InstallPolicies,
        (true, Seen { has_webhooks: true, .. }) if known.has_removed => Step::Rest,
        (true, Seen { has_webhooks: true, .. }) if known.acts.is_some_and(|time| time >= settle) => {
            Step::RemoveWebhooks
        }
        (true, Seen { has_webhooks: true, .. }) => Step::TryPolicies,
        (true, _) if known.acts.is_some() => Step::Rest,
        (true, _) if can_serve && known.fails.is_some_and(|time| time >= PATIENCE) => Step::InstallWebhooks,
        (true, _) => Step::TryPolicies,
        (false, Seen { has_webhooks: false, .. }) if can_serve => Step::InstallWebhooks,
        (false, Seen { has_policies: true, is_trusted: true, .. }) => match known.trusted {
            Some(time) if time >= settle => Step::RemovePolicies,
            time => Step::Wait(settle.saturating_sub(time.unwrap_or_default())),
        },
        (false, _) => Step::Rest,
    }
}

/// Keeps the hold of a cluster during a term.
pub(super) struct Keeper {
    pub cache: Cache,
    pub holds: Holds,
    pub options: KeepHold,
    pub health: Health,
    /// Something about the holds changed.
    pub changed: Arc<Notify>,
}

#[derive(Default)]
struct Memory {
    acts: Option<Instant>,
    fails: Option<Instant>,
    trusted: Option<Instant>,
    has_removed: bool,
}

impl Memory {
    fn known(&self) -> Known {
        let age = |since: Option<Instant>| since.map(|since| since.elapsed());
        let [acts, fails, trusted] = [self.acts, self.fails, self.trusted].map(age);
        Known { acts, fails, trusted, has_removed: self.has_removed }
    }
}

impl Keeper {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let work = async {
            loop {
                let wait = match self.pass(&mut memory).await {
                    Ok(wait) => wait,
                    Err(failed) => {
                        self.complain(&format!("what holds changed workloads is left as it is: {failed}"));
                        Some(AGAIN)
                    }
                };
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = async { sleep(wait.unwrap_or_default()).await }, if wait.is_some() => {}
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    fn complain(&self, why: &str) {
        if self.health.warn(WARNING, why) {
            tracing::warn!("{why}");
        }
    }

    /// One look, and one step; when to look again if nothing changes.
    async fn pass(&self, memory: &mut Memory) -> Result<Option<Duration>, Failed> {
        let Some((seen, found)) = self.look() else { return Ok(None) };
        if !(seen.is_served && seen.has_all_policies) {
            (memory.acts, memory.fails) = (None, None);
        }
        memory.trusted = memory.trusted.filter(|_| seen.is_trusted).or_else(|| seen.is_trusted.then(Instant::now));
        let KeepHold { wish, settle, .. } = self.options;
        match next(wish, seen, memory.known(), settle, self.options.webhooks.is_some()) {
            Step::Rest => {
                self.health.clear_warning(WARNING);
                Ok(None)
            }
            Step::Wait(time) => Ok(Some(time)),
            Step::InstallPolicies => {
                let mut policies = (self.options.policies)();
                let there: Vec<&Value> = found.policies.iter().map(|p| &**p).collect();
                policies.retain(|p| !there.iter().any(|t| is_same(p, t)));
                let owner = self.sibling().await?.or_else(|| found.webhooks.as_deref().cloned());
                policies.iter_mut().for_each(|policy| belong(policy, owner.as_ref()));
                self.holds.install(&policies).await?;
                Ok(Some(AGAIN))
            }
            Step::InstallWebhooks => self.install_webhooks().await.map(|()| Some(AGAIN)),
            Step::TryPolicies => self.try_policies(memory, seen).await,
            Step::RemoveWebhooks => {
                memory.has_removed = true;
                let webhooks: Vec<Value> = found.webhooks.iter().map(|w| Value::clone(w)).collect();
                self.holds.remove(&webhooks).await?;
                self.holds.forget_probe().await?;
                Ok(Some(AGAIN))
            }
            Step::RemovePolicies => {
                // Without its binding a policy does nothing.
                let mut policies: Vec<Value> = found.policies.iter().map(|p| Value::clone(p)).collect();
                policies.sort_by_key(|p| text(p, &["kind"]) != BINDING.1);
                self.holds.remove(&policies).await.map(|()| Some(AGAIN))
            }
        }
    }

    async fn try_policies(&self, memory: &mut Memory, seen: Seen) -> Result<Option<Duration>, Failed> {
        let now = Instant::now();
        if self.holds.is_held_by_policy().await? {
            (memory.acts, memory.fails) = (memory.acts.or(Some(now)), None);
            if !seen.has_webhooks {
                self.holds.forget_probe().await?;
            }
            self.health.clear_warning(WARNING);
        } else {
            (memory.acts, memory.fails) = (None, memory.fails.or(Some(now)));
            self.complain("the API server has the admission policies, but does not act on them");
        }
        let left = memory.acts.map(|since| self.options.settle.saturating_sub(since.elapsed()));
        // The last look is at the moment when it has been long enough.
        Ok(Some(left.unwrap_or(AGAIN).clamp(Duration::from_millis(100), AGAIN)))
    }

    /// The configuration of the webhooks, where those of the validation are, and everything that it says of them.
    async fn install_webhooks(&self) -> Result<(), Failed> {
        let (Some(make), Some(sibling)) = (&self.options.webhooks, self.sibling().await?) else { return Ok(()) };
        let mut configuration = make();
        let example = sibling.pointer("/webhooks/0").cloned().unwrap_or_default();
        let webhooks = configuration.get_mut("webhooks").and_then(Value::as_array_mut).into_iter().flatten();
        for webhook in webhooks.filter_map(Value::as_object_mut) {
            place(webhook, &example);
        }
        belong(&mut configuration, Some(&sibling));
        self.holds.install(&[configuration]).await
    }

    async fn sibling(&self) -> Result<Option<Value>, Failed> {
        self.holds.find(WEBHOOKS.0, "ValidatingWebhookConfiguration", self.options.sibling).await
    }

    /// What is there; `None` while it is being read.
    fn look(&self) -> Option<(Seen, Found)> {
        let (mut seen, mut found) =
            (Seen { is_served: true, has_all_policies: true, ..Seen::default() }, Found::default());
        for rule in hold::rules() {
            for (api_version, kind) in [POLICY, BINDING] {
                match self.cache.get(&ObjectRef::new(api_version, kind, "", rule.policy)) {
                    Ok(object) => {
                        seen.has_policies = true;
                        found.policies.push(object);
                    }
                    Err(Lookup::Pending) => return None,
                    Err(Lookup::Missing(why)) => {
                        seen.is_served &= why == Missing::Object;
                        seen.has_all_policies = false;
                    }
                }
            }
        }
        match self.cache.get(&ObjectRef::new(WEBHOOKS.0, WEBHOOKS.1, "", hold::WEBHOOKS)) {
            Ok(object) if is_ours(&object) => {
                seen.has_webhooks = true;
                seen.is_trusted = hold::rules().all(|rule| hold::is_served(&object, rule));
                found.webhooks = Some(object);
            }
            // OpenKruise's own has the name; it stays whoever's it is.
            Ok(_) => seen.has_webhooks = false,
            Err(Lookup::Pending) => return None,
            Err(Lookup::Missing(_)) => {}
        }
        Some((seen, found))
    }
}

#[derive(Default)]
struct Found {
    policies: Vec<Arc<Value>>,
    webhooks: Option<Arc<Value>>,
}

fn is_same(a: &Value, b: &Value) -> bool {
    (text(a, &["kind"]), object::name(a)) == (text(b, &["kind"]), object::name(b))
}

/// Whoever the installation belongs to, such as a release of Helm's, also has what was put in place here.
fn belong(object: &mut Value, owner: Option<&Value>) {
    const OF_KUBECTL: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["labels", "annotations"] {
        let Some(Value::Object(theirs)) = owner.and_then(|o| object::at(o, &["metadata", field])) else { continue };
        let mut theirs = theirs.clone();
        theirs.remove(OF_KUBECTL);
        if !theirs.is_empty() {
            metadata.insert(field.to_owned(), theirs.into());
        }
    }
}

/// Says where a webhook is: beside the example, on its own path.
fn place(webhook: &mut Map<String, Value>, example: &Value) {
    let path = webhook.get("clientConfig").map(path_of).unwrap_or_default();
    let Some(mut config) = example.get("clientConfig").cloned() else { return };
    let url = text(&config, &["url"]).strip_suffix(path_of(&config).as_str()).map(|base| format!("{base}{path}"));
    if let Some(fields) = config.as_object_mut() {
        if fields.contains_key("url") {
            fields.insert("url".to_owned(), url.into());
        } else if let Some(service) = fields.get_mut("service").and_then(Value::as_object_mut) {
            service.insert("path".to_owned(), path.into());
        }
    }
    webhook.insert("clientConfig".to_owned(), config);
    if let Some(selector) = example.get("namespaceSelector") {
        webhook.insert("namespaceSelector".to_owned(), selector.clone());
    }
}

fn path_of(config: &Value) -> String {
    let url = text(config, &["url"]);
    let of_url = url.find("://").and_then(|i| Some(url.get(i + 3..)?.find('/')? + i + 3)).and_then(|i| url.get(i..));
    of_url.unwrap_or_else(|| text(config, &["service", "path"])).to_owned()
}

#[cfg(test)]
mod tests;
