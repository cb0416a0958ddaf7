//! The hold: what the API server does to an update of a managed workload, so that a changed template does not roll out
//! by itself. Each kind's rule is said twice: here, and as the admission policy that `tidegate policy` prints. Pure.
//!
//! A workload is managed while it carries the label [`Rule::switch`]; an update is looked at when the old *or* the new
//! object carries it. The *mark* of an object is its annotation [`IN_PROGRESSING`]; an empty one counts as none. A mark
//! is *released* when it contains `,"released":true`, and *open* when it contains `,"open":{`: the controller has opened
//! the workload up to a step.
//!
//! What is common to the rules of all kinds:
//!
//! - The controller opens a workload up to a step by a write that changes the mark's `open`; nobody else can.
//! - A tool that writes its whole manifest again and again (a PUT, or an apply of the fields that hold it) can neither
//!   open a held workload nor take the mark away from it, with or without the controller running.
//! - The controller lets a workload go by *one* write that frees it and sets a released mark
//!   ([`InProgressing::released`]), and takes the mark (and the label) away by a *later* write. What the user wanted the
//!   holding field to be may come back in that later write.
//! - A person's way out without the controller: remove the label by itself, then free the workload.
//!
//! [`InProgressing::released`]: crate::api::keys::InProgressing::released

pub mod field;
pub mod paused;

use serde_json::{Map, Value};

pub use field::Field;

use super::{KINDS, like};
use crate::api::keys::IN_PROGRESSING;

/// How a released mark is told apart; it follows `rolloutName`, hence the comma.
pub const RELEASED: &str = r#","released":true"#;

/// How an open mark is told apart; see [`InProgressing::open`](crate::api::keys::InProgressing::open).
pub const OPEN: &str = r#","open":{"#;
/// What stands in its place when the workload was shut again; see [`InProgressing::was`](crate::api::keys::InProgressing::was).
pub const WAS: &str = r#","was":{"#;

/// A new mark. Kept as text because the policy has no serialiser.
pub const MARK: &str = r#"{"rolloutName":""}"#;

/// `minReadySeconds` that no pod reaches: one less than the greatest number, because a Deployment's
/// `progressDeadlineSeconds` has to be greater.
pub const HELD_READY: i64 = 2_147_483_646;
/// `progressDeadlineSeconds` that is never exceeded.
pub const HELD_DEADLINE: i64 = 2_147_483_647;

/// Every group, version or resource, in a rule.
pub const ANY: &str = "*";

/// The hold of one kind in one API version.
#[derive(Debug)]
pub struct Rule {
    /// Label of the workloads that it is for.
    pub switch: &'static str,
    /// Name of the admission policy that says it, and of its binding.
    pub policy: &'static str,
    /// API group.
    pub group: &'static str,
    /// API version, without the group.
    pub version: &'static str,
    /// Plural name of the kind.
    pub resource: &'static str,
    /// Path of the webhook that does the same on servers without such policies.
    pub path: &'static str,
    /// Name of that webhook in its configuration.
    pub webhook: &'static str,
    /// By what a workload is held.
    pub by: By,
}

/// By what a workload is held.
#[derive(Debug)]
pub enum By {
    /// `spec.paused`, and what an unpaused Deployment is kept by.
    Paused,
    /// One field.
    Field(Field),
}

/// Name of the configuration of the webhooks that hold on servers without such policies.
pub const WEBHOOKS: &str = "kruise-rollout-mutating-webhook-configuration";

/// Name of a Deployment on which the controller tries whether the policies act; our webhook leaves it alone.
pub const PROBE: &str = "tidegate-hold-probe";

/// Name of the match condition of each of our webhooks that hold. OpenKruise's, whose configuration has the same name,
/// have none.
pub const CONDITION: &str = "held";

/// Whether a configuration of webhooks is ours.
pub fn is_ours(configuration: &Value) -> bool {
    let conditions = |webhook: &Value| webhook.pointer("/matchConditions/0/name").is_some_and(|name| name == CONDITION);
    webhooks(configuration).next().is_some() && webhooks(configuration).all(conditions)
}

/// Whether the webhook for a kind is configured, and trusted: without a CA the API server reaches nobody.
pub fn is_served(configuration: &Value, rule: &Rule) -> bool {
    let is_its = |webhook: &&Value| webhook.get("name").is_some_and(|name| name == rule.webhook);
    let mut bundles =
        webhooks(configuration).filter(is_its).filter_map(|w| w.pointer("/clientConfig/caBundle")?.as_str());
    bundles.any(|bundle| !bundle.is_empty())
}

fn webhooks(configuration: &Value) -> impl Iterator<Item = &Value> {
    configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten()
}

/// The rules of all kinds.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    KINDS.iter().chain([&like::KIND]).flat_map(|kind| kind.holds)
}

/// The rule of a resource.
pub fn rule(group: &str, version: &str, resource: &str) -> Option<&'static Rule> {
    let is_its = |r: &&Rule| (r.group, r.version, r.resource) == (group, version, resource);
    rules().find(is_its).or_else(|| rules().find(|r| r.resource == ANY))
}

impl Rule {
    /// The object that is stored when a workload is updated from `old` to `new`, where the hold makes it differ from
    /// `new`. Applying it twice changes nothing more.
    pub fn hold(&self, old: &Value, new: &Value) -> Option<Value> {
        let label = label(self.switch, new).or_else(|| label(self.switch, old))?;
        if self.resource == ANY && [old, new].iter().any(|object| template(object).is_none()) {
            return None;
        }
        let mut held = match &self.by {
            By::Paused => paused::hold(old, new)?,
            By::Field(field) => field.hold(old, new)?,
        };
        object_at_map(object_at(&mut held, "metadata")?, "labels")?.insert(self.switch.to_owned(), label.clone());
        (held != *new).then_some(held)
    }
}

fn label<'a>(key: &str, object: &'a Value) -> Option<&'a Value> {
    object.get("metadata")?.get("labels")?.get(key)
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations").and_then(|a| a.get(key)).and_then(Value::as_str)
}

fn mark(object: &Value) -> &str {
    annotation(object, IN_PROGRESSING).unwrap_or("")
}

/// The mark of an update that is shut again: the old one, else the new one, without its release and with what was open
/// kept as such; else `fresh`.
fn shut_mark(old: &Value, new: &Value, fresh: &str) -> String {
    let kept = [mark(old), mark(new)].into_iter().find(|m| !m.is_empty()).unwrap_or(fresh);
    kept.replace(RELEASED, "").replace(OPEN, WAS)
}

fn is_released(mark: &str) -> bool {
    mark.contains(RELEASED)
}

fn is_open(mark: &str) -> bool {
    mark.contains(OPEN)
}

fn template(object: &Value) -> Option<&Value> {
    object.pointer("/spec/template")
}

/// An absent number is the API server's default, 1.
fn wants_pods(object: &Value) -> bool {
    object.pointer("/spec/replicas").and_then(Value::as_i64) != Some(0)
}

fn object_at<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    object_at_map(value.as_object_mut()?, key)
}

/// The object under `key`, made when there is none. `None` when something else is there, which no API server accepts.
fn object_at_map<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let entry = map.entry(key).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut()
}
