//! Sets of fields, as `metadata.managedFields` writes them (`FieldsV1`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::shape::{List, Shape};

/// A tree of path elements (`f:spec`, `k:{"name":"web"}`, `v:"x"`); a node may itself be a member.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Set {
    pub member: bool,
    pub kids: BTreeMap<String, Set>,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        !self.member && self.kids.values().all(Set::is_empty)
    }

    pub fn parse(fields: &Value) -> Self {
        let mut set = Self::default();
        let Some(map) = fields.as_object() else { return set };
        for (key, value) in map {
            if key == "." {
                set.member = true;
                continue;
            }
            let mut kid = Self::parse(value);
            if value.as_object().is_none_or(Map::is_empty) {
                kid.member = true;
            }
            set.kids.insert(key.clone(), kid);
        }
        set
    }

    pub fn write(&self) -> Value {
        let mut map = Map::new();
        for (key, kid) in &self.kids {
            if kid.is_empty() {
                continue;
            }
            let mut value = kid.write();
            if let (true, false, Value::Object(m)) = (kid.member, kid.kids.is_empty(), &mut value) {
                m.insert(".".into(), Value::Object(Map::new()));
            }
            map.insert(key.clone(), value);
        }
        Value::Object(map)
    }

    pub fn union(&mut self, other: &Set) {
        self.member |= other.member;
        for (key, kid) in &other.kids {
            self.kids.entry(key.clone()).or_default().union(kid);
        }
    }

    /// Takes out the members of `other`.
    pub fn subtract(&mut self, other: &Set) {
        if other.member {
            self.member = false;
        }
        for (key, kid) in &other.kids {
            if let Some(mine) = self.kids.get_mut(key) {
                mine.subtract(kid);
                if mine.is_empty() {
                    self.kids.remove(key);
                }
            }
        }
    }

    /// Takes out the members of `other` and everything below them.
    pub fn subtract_below(&mut self, other: &Set) {
        if other.member {
            *self = Self::default();
            return;
        }
        for (key, kid) in &other.kids {
            if let Some(mine) = self.kids.get_mut(key) {
                mine.subtract_below(kid);
                if mine.is_empty() {
                    self.kids.remove(key);
                }
            }
        }
    }

    /// Members of both.
    pub fn intersection(&self, other: &Set) -> Set {
        let mut result = Set { member: self.member && other.member, kids: BTreeMap::new() };
        for (key, kid) in &self.kids {
            if let Some(theirs) = other.kids.get(key) {
                let both = kid.intersection(theirs);
                if !both.is_empty() {
                    result.kids.insert(key.clone(), both);
                }
            }
        }
        result
    }

    /// Paths of all members, as conflict messages write them: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.write_paths(&mut String::new(), &mut out);
        out
    }

    fn write_paths(&self, path: &mut String, out: &mut Vec<String>) {
        if self.member {
            out.push(path.clone());
        }
        for (key, kid) in &self.kids {
            let length = path.len();
            path.push_str(&readable(key));
            kid.write_paths(path, out);
            path.truncate(length);
        }
    }

    fn add(&mut self, key: String) -> &mut Set {
        self.kids.entry(key).or_default()
    }
}

fn readable(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", parts.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        _ => format!("[{element}]"),
    }
}

/// The path element of a list's element; `None` if a key is missing, so that the list can only be one value.
pub(crate) fn element(shape: Shape<'_>, list: &List, item: &Value) -> Option<String> {
    match list {
        List::Atomic => None,
        List::Set => Some(format!("v:{item}")),
        List::Map(keys) => {
            let mut map = Map::new();
            for key in keys {
                let value = item.get(key.as_ref()).cloned().or_else(|| shape.key_default(key))?;
                map.insert(key.to_string(), value);
            }
            Some(format!("k:{}", Value::Object(map)))
        }
    }
}

/// The elements of a list that merges, by path element; `None` for lists that are one value.
pub(crate) fn elements<'v>(shape: Shape<'_>, list: &'v [Value]) -> Option<Vec<(String, &'v Value)>> {
    let kind = shape.list();
    if kind == List::Atomic {
        return None;
    }
    list.iter().map(|item| Some((element(shape, &kind, item)?, item))).collect()
}

/// All fields that a value sets.
pub(crate) fn of_value<'v>(shape: Shape<'v>, value: &'v Value, set: &mut Set) {
    collect(shape, value, set, false);
}

/// `containers`: objects and lists that were not there before are members themselves.
fn collect<'v>(shape: Shape<'v>, value: &'v Value, set: &mut Set, containers: bool) {
    let mark = containers && !shape.always_there();
    match value {
        Value::Object(map) if !map.is_empty() && !shape.atomic_map() => {
            set.member |= mark;
            for (key, value) in map {
                let kid = set.add(format!("f:{key}"));
                // A key that no schema declares is a member, whatever is in it.
                kid.member |= !shape.declares(key);
                collect(shape.child(key), value, kid, containers);
            }
        }
        Value::Array(list) if list.is_empty() && !containers && shape.list() != List::Atomic => {}
        Value::Array(list) if !list.is_empty() => match elements(shape, list) {
            Some(elements) => {
                set.member |= mark;
                for (key, item) in elements {
                    let kid = set.add(key);
                    kid.member = true;
                    if item.is_object() {
                        collect(shape.item(), item, kid, containers);
                    }
                }
            }
            None => set.member = true,
        },
        _ => set.member = true,
    }
}

/// What differs between two values: fields added or modified, and fields removed.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub changed: Set,
    pub removed: Set,
}

/// Compares two values.
pub(crate) fn compare<'v>(shape: Shape<'v>, old: &'v Value, new: &'v Value) -> Difference {
    let mut difference = Difference::default();
    walk(shape, old, new, &mut difference.changed, &mut difference.removed);
    difference
}

fn walk<'v>(shape: Shape<'v>, old: &'v Value, new: &'v Value, changed: &mut Set, removed: &mut Set) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) if !shape.atomic_map() => {
            for (key, value) in b {
                let path = format!("f:{key}");
                match a.get(key) {
                    Some(before) if before == value => {}
                    Some(before) => walk(shape.child(key), before, value, changed.add(path.clone()), removed.add(path)),
                    None => appeared(shape.child(key), value, changed.add(path)),
                }
            }
            for (key, value) in a.iter().filter(|(k, _)| !b.contains_key(*k)) {
                appeared(shape.child(key), value, removed.add(format!("f:{key}")));
            }
        }
        (Value::Array(a), Value::Array(b)) => match (elements(shape, a), elements(shape, b)) {
            (Some(a), Some(b)) => {
                let a: BTreeMap<String, &Value> = a.into_iter().collect();
                let b: BTreeMap<String, &Value> = b.into_iter().collect();
                for (path, value) in &b {
                    match a.get(path) {
                        Some(before) if before == value => {}
                        Some(before) => {
                            walk(shape.item(), before, value, changed.add(path.clone()), removed.add(path.clone()));
                        }
                        None => {
                            let set = changed.add(path.clone());
                            set.member = true;
                            appeared(shape.item(), value, set);
                        }
                    }
                }
                for (path, value) in a.iter().filter(|(k, _)| !b.contains_key(*k)) {
                    {
                        let set = removed.add(path.clone());
                        set.member = true;
                        appeared(shape.item(), value, set);
                    };
                }
            }
            _ => changed.member = true,
        },
        _ => changed.member = true,
    }
}

fn appeared<'v>(shape: Shape<'v>, value: &'v Value, set: &mut Set) {
    collect(shape, value, set, true);
    let container = value.as_object().is_some_and(|m| !m.is_empty()) || value.as_array().is_some_and(|l| !l.is_empty());
    set.member |= !(container && shape.always_there());
}
