//! What a pass asks for: writes, questions and calls, another pass, and words for people.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    calls::Call,
    machine::Machine,
    plan::{Effect, Event, Purpose},
    turn::{Turn, Wait},
};
use crate::{
    analysis::ask::Ask,
    api::{
        conditions::{self, reasons, types},
        object::{self, ObjectRef},
    },
    workload::{Change, Workload},
};

impl<'a> Machine<'a> {
    pub(super) fn patch_rollout(&mut self, purpose: Purpose, operation: Value) -> Turn {
        let metadata = &self.snap.rollout.metadata;
        let target = ObjectRef::new(
            "rollouts.kruise.io/v1beta1",
            "Rollout",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        );
        let resource_version = metadata.resource_version.clone().unwrap_or_default();
        self.effect(Effect::Patch { purpose, target, resource_version, operations: vec![operation] })
    }

    /// Asks for a write and ends the pass: what follows is decided from what the cluster says then.
    pub(super) fn effect<T>(&mut self, effect: Effect) -> Turn<T> {
        self.effects.push(effect);
        Err(Wait::default())
    }

    /// Asks for a write in a pass that goes on.
    pub(super) fn write(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Whether this pass asked for writes.
    pub(super) fn is_writing(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Something else is to be done instead.
    pub(super) fn forget_writes(&mut self) {
        self.effects.clear();
    }

    /// Asks for writes and ends the pass.
    pub(super) fn effects<T>(&mut self, effects: impl IntoIterator<Item = Effect>) -> Turn<T> {
        self.effects.extend(effects);
        Err(Wait::default())
    }

    /// Asks for a JSON patch of an object that was read.
    pub(super) fn patch<T>(
        &mut self,
        purpose: Purpose,
        object: &Value,
        api_version: &str,
        kind: &str,
        operations: Vec<Value>,
    ) -> Turn<T> {
        let target = ObjectRef::new(api_version, kind, object::namespace(object), object::name(object));
        let resource_version = object::resource_version(object).to_owned();
        self.effect(Effect::Patch { purpose, target, resource_version, operations })
    }

    /// Asks for a JSON patch of the workload.
    pub(super) fn patch_workload<T>(
        &mut self,
        purpose: Purpose,
        workload: &Workload,
        operations: Vec<Value>,
    ) -> Turn<T> {
        let api_version = object::text(workload.object(), &["apiVersion"]).to_owned();
        self.patch(purpose, workload.object(), &api_version, workload.kind_name(), operations)
    }

    /// Asks for what opening a workload needs.
    pub(super) fn change<T>(&mut self, purpose: Purpose, change: Change) -> Turn<T> {
        let (api_version, kind) = &change.kind;
        self.patch(purpose, &change.object, api_version, kind, change.operations)
    }

    /// Asks for another pass at a moment, at the latest.
    pub(super) fn look_again(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }

    /// Asks a metrics server.
    pub(super) fn ask(&mut self, ask: Ask) {
        self.asks.push(ask);
    }

    /// Sends a request to a server of the user's, once however often the pass wants it.
    pub(super) fn call(&mut self, call: Call) {
        self.calls.retain(|other| other.id != call.id);
        self.calls.push(call);
    }

    /// What people are told so far.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Tells people.
    pub(super) fn event(&mut self, reason: &'static str, message: impl Into<String>) {
        self.events.push(Event { is_warning: false, reason, message: message.into() });
    }

    /// Warns people.
    pub(super) fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        self.events.push(Event { is_warning: true, reason, message: message.into() });
    }

    pub(super) fn set_condition(&mut self, r#type: &str, status: bool, reason: &str, message: &str) {
        conditions::set(&mut self.status.conditions, r#type, status, reason, message, self.snap.now);
    }

    pub(super) fn set_progressing(&mut self, reason: &'static str, message: &str) {
        self.set_condition(types::PROGRESSING, reason != reasons::COMPLETED, reason, message);
    }
}
