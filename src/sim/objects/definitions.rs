//! CustomResourceDefinitions: a kind comes and goes with its definition.

use super::*;

impl Core {
    /// A definition was written: serve its kind, and say so in its status.
    pub(super) fn define(&self, state: &mut State, definition: &mut Value) -> Result<(), Box<Status>> {
        let kind = registry::kind_of_definition(definition).map_err(status::bad_request)?;
        let stored = json!([kind.storage]);
        state.store.registry.add(kind);
        let now = self.timestamp();
        let condition = |kind: &str, reason: &str, message: &str| {
            json!({"type": kind, "status": "True",
            "lastTransitionTime": now, "reason": reason, "message": message})
        };
        let names = definition.pointer("/spec/names").cloned().unwrap_or_default();
        let before = definition.get("status").cloned();
        if before.as_ref().is_none_or(|s| s.pointer("/acceptedNames") != Some(&names)) {
            json::set(
                definition,
                &["status"],
                json!({
                "acceptedNames": names, "storedVersions": stored,
                "conditions": [
                    condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                    condition("Established", "InitialNamesAccepted", "the initial names have been accepted")]}),
            );
        }
        Ok(())
    }

    pub(super) fn undefine(&self, state: &mut State, kind: &Kind, object: &Value) {
        if kind.id != registry::DEFINITIONS {
            return;
        }
        let (group, plural) = (text(object, "/spec/group"), text(object, "/spec/names/plural"));
        let Some(id) = state.store.registry.find(group, plural).map(|k| k.id) else { return };
        let Some(of) = state.store.registry.get(id).cloned() else { return };
        let keys: Vec<Key> =
            state.store.list(id, None).map(|o| Key::new(id, json::namespace(o), json::name(o))).collect();
        let caller = Caller::controller("customresourcecleanup", &of.storage);
        for key in keys {
            self.remove(state, &caller, &of, key);
        }
        state.store.registry.remove(group, plural);
    }
}
