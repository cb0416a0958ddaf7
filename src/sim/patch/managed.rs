//! Who set which field: `metadata.managedFields`.

use serde_json::{Value, json};

use super::super::core::Caller;
use super::super::json::{self, items, text};
use super::super::registry::{Kind, api_version};
use super::fields::{self, Set};
use super::shape::Shape;

/// One manager's entry.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    pub name: String,
    /// `Apply` or `Update`.
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    pub time: String,
    pub set: Set,
}

impl Manager {
    pub fn new(kind: &Kind, caller: &Caller, operation: &str, time: &str) -> Self {
        Self {
            name: caller.manager.clone(),
            operation: operation.to_owned(),
            api_version: api_version(&kind.group, &caller.version),
            subresource: caller.subresource.unwrap_or_default().to_owned(),
            // The server's scale handler leaves no time.
            time: if caller.subresource == Some("scale") { String::new() } else { time.to_owned() },
            set: Set::default(),
        }
    }

    /// The same writer: name, operation and subresource (and version, unless it applies).
    pub fn is(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == "Apply" || self.api_version == other.api_version)
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.name, "operation": self.operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.set.write(),
        });
        if !self.time.is_empty() {
            json::set(&mut entry, &["time"], self.time.clone());
        }
        if !self.subresource.is_empty() {
            json::set(&mut entry, &["subresource"], self.subresource.clone());
        }
        entry
    }
}

/// The managers of an object.
pub(crate) fn read(object: &Value) -> Vec<Manager> {
    items(object, "/metadata/managedFields")
        .iter()
        .map(|m| Manager {
            name: text(m, "/manager").to_owned(),
            operation: text(m, "/operation").to_owned(),
            api_version: text(m, "/apiVersion").to_owned(),
            subresource: text(m, "/subresource").to_owned(),
            time: text(m, "/time").to_owned(),
            set: m.get("fieldsV1").map(Set::parse).unwrap_or_default(),
        })
        .collect()
}

/// Writes the managers that own anything into an object.
pub(crate) fn write(object: &mut Value, managers: &[Manager]) {
    let mut sorted: Vec<&Manager> = managers.iter().filter(|m| !m.set.is_empty()).collect();
    sorted.sort_by_key(|m| (&m.operation, &m.time, &m.name, &m.api_version, &m.subresource));
    let list: Vec<Value> = sorted.into_iter().map(Manager::write).collect();
    if list.is_empty() {
        json::remove(object, &["metadata", "managedFields"]);
    } else {
        json::set(object, &["metadata", "managedFields"], list);
    }
}

/// True if the owners of fields differ, whatever the times say.
pub(crate) fn changed(new: &Value, old: &Value) -> bool {
    let plain = |o: &Value| -> Vec<(String, String, String, String, Set)> {
        read(o).into_iter().map(|m| (m.name, m.operation, m.api_version, m.subresource, m.set)).collect()
    };
    plain(new) != plain(old)
}

/// Fields that nobody owns: identity and what the server keeps.
pub(crate) fn strip(set: &mut Set) {
    for key in ["f:apiVersion", "f:kind"] {
        set.kids.remove(key);
    }
    set.member = false;
    if let Some(meta) = set.kids.get_mut("f:metadata") {
        for key in [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "selfLink",
            "managedFields",
        ] {
            meta.kids.remove(&format!("f:{key}"));
        }
        meta.member = false;
        if meta.is_empty() {
            set.kids.remove("f:metadata");
        }
    }
}

/// Owner of what was there when the first apply met an object that nobody had tracked.
pub(crate) fn before_first_apply(kind: &Kind, caller: &Caller, live: &Value, time: &str) -> Option<Manager> {
    let empty = json!({});
    let mut set = fields::compare(Shape::of(kind, &caller.version), &empty, live).changed;
    strip(&mut set);
    let manager = Manager::new(kind, caller, "Update", time);
    (!set.is_empty()).then(|| Manager { name: "before-first-apply".into(), set, ..manager })
}

/// Records a write that is not an apply: the writer owns what it changed, nobody owns what is gone.
pub(crate) fn track(kind: &Kind, caller: &Caller, old: Option<&Value>, new: &mut Value, time: &str) {
    // The server does not begin to track what it did not track.
    if old.is_some_and(|o| items(o, "/metadata/managedFields").is_empty()) {
        return;
    }
    let empty = json!({});
    let shape = Shape::of(kind, &caller.version);
    let mut difference = fields::compare(shape, old.unwrap_or(&empty), new);
    for set in [&mut difference.changed, &mut difference.removed] {
        strip(set);
        if kind.status && caller.subresource.is_none() {
            set.kids.remove("f:status");
        }
    }
    if difference.changed.is_empty() && difference.removed.is_empty() {
        return;
    }
    // A patch may have handed fields over to another manager.
    let mut managers = match read(new) {
        managers if managers.is_empty() => old.map(read).unwrap_or_default(),
        managers => managers,
    };
    // A Scale has owners only if its replicas had one: the server does not begin to track what it did not track.
    if caller.subresource == Some("scale")
        && managers.iter().all(|m| m.set.intersection(&difference.changed).is_empty())
    {
        return;
    }
    for manager in &mut managers {
        manager.set.subtract(&difference.changed);
        manager.set.subtract_below(&difference.removed);
    }
    let me = Manager::new(kind, caller, "Update", time);
    match managers.iter_mut().find(|m| m.is(&me)) {
        Some(mine) => {
            mine.set.union(&difference.changed);
            mine.time = me.time;
        }
        None => managers.push(Manager { set: difference.changed, ..me }),
    }
    write(new, &managers);
}
