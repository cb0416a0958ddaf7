//! The hold of a workload by one field of its strategy: `partition`, or the `type` of a DaemonSet.
//!
//! An update is looked at when its new object rolls by itself: a StatefulSet whose strategy is `OnDelete` does not, and
//! its pods are its owner's. It is **held** when
//!
//! 1. the template differs and the new object wants pods (`spec.replicas` is not 0), or
//! 2. the old object has a mark that is not released, is shut or open, and the new one
//!    - has no mark, or
//!    - has a mark that is neither released nor open, and is not shut, or
//!    - has an open mark that is the old one's, and another value of the field.
//!
//! A held update keeps the old object's mark and value of the field where it was open and the template is the same. Else
//! it is shut, with the old mark, else the new one, without its release and with `was` for `open`, else a new mark. The
//! label comes back, if the writer dropped it. What the writer wanted the field to be is kept in the annotation
//! [`Field::remembers`], unless it is only what was there already.
//!
//! While a full new set stands beside the old one ([`Field::surges`]), both are kept by a `minReadySeconds` that no pod
//! reaches and by the bounds beside the field. Such an update is also held when the new one has no released mark, and
//! another `minReadySeconds`, or the old one's mark with other bounds. Held, it keeps the old object's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    HELD_READY, MARK, annotation, is_open, is_released, mark, object_at, object_at_map, shut_mark, template, wants_pods,
};
use crate::api::{keys::IN_PROGRESSING, object};

/// The field by which a kind is held.
#[derive(Debug)]
pub struct Field {
    /// Where it is, below `spec`.
    pub path: &'static [&'static str],
    /// Its value in a workload that is held.
    pub shut: Scalar,
    /// Its value in a workload that rolls to the end.
    pub free: Scalar,
    /// Annotation that keeps what the user wants it to be; empty for a field that is left out.
    pub remembers: &'static str,
    /// A field below `spec`, and its value in a workload whose pods are replaced by whoever deletes them.
    pub by_hand: Option<(&'static [&'static str], &'static str)>,
    /// A switch below `spec` by which its owner stops it from rolling.
    pub pauses: Option<&'static [&'static str]>,
    /// Beside it are [`BOUNDS`], by which a full new set comes up beside the old one.
    pub surges: bool,
}

/// How many pods there may be beyond those that are wanted, and how many may be missing.
pub const BOUNDS: [&str; 2] = ["maxSurge", "maxUnavailable"];

/// A value that such a field may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A number.
    Count(i64),
    /// A word, or a percentage.
    Text(&'static str),
}

impl Scalar {
    /// As JSON.
    pub fn value(self) -> Value {
        match self {
            Scalar::Count(count) => count.into(),
            Scalar::Text(text) => text.into(),
        }
    }
}

impl Field {
    /// Its value.
    pub fn value<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        object::at(object.get("spec")?, self.path).filter(|v| !v.is_null())
    }

    /// It has the value of a workload that is held.
    pub fn is_shut(&self, object: &Value) -> bool {
        self.value(object) == Some(&self.shut.value())
    }

    /// The workload's own controller rolls it by itself.
    pub fn rolls(&self, object: &Value) -> bool {
        self.by_hand
            .is_none_or(|(path, by_hand)| object.get("spec").is_none_or(|spec| object::text(spec, path) != by_hand))
    }

    /// A field beside it.
    pub fn beside(&self, name: &'static str) -> Vec<&'static str> {
        let parents = self.path.split_last().map_or(&[][..], |(_, parents)| parents);
        parents.iter().copied().chain([name]).collect()
    }

    /// The value of a field beside it.
    pub fn value_beside<'a>(&self, object: &'a Value, name: &'static str) -> Option<&'a Value> {
        object::at(object.get("spec")?, &self.beside(name)).filter(|v| !v.is_null())
    }

    /// Two sets are kept beside each other: no pod of either counts as available.
    pub fn keeps_both(&self, object: &Value) -> bool {
        self.surges && object::int(object, &["spec", "minReadySeconds"]) == Some(HELD_READY)
    }

    /// What the user wants it to be, as the annotation says; `None` where there is none.
    pub fn remembered(&self, object: &Value) -> Option<Option<Value>> {
        annotation(object, self.remembers).map(|text| match text.parse::<i64>() {
            _ if text.is_empty() => None,
            Ok(count) => Some(count.into()),
            Err(_) => Some(text.into()),
        })
    }

    /// A value as the annotation says it.
    pub fn text(value: Option<&Value>) -> String {
        match value {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }

    pub(super) fn hold(&self, old: &Value, new: &Value) -> Option<Value> {
        if !self.rolls(new) {
            return None;
        }
        let template_changed = template(old) != template(new) && wants_pods(new);
        let moved = self.value(old) != self.value(new);
        let kept = !mark(old).is_empty() && !is_released(mark(old)) && (self.is_shut(old) || is_open(mark(old)));
        let keeps_both = kept && self.keeps_both(old);
        let bounds = |object| BOUNDS.map(|bound| self.value_beside(object, bound));
        let parts = keeps_both && (!self.keeps_both(new) || (mark(old) == mark(new) && bounds(old) != bounds(new)));
        let slips = mark(new).is_empty()
            || (!is_released(mark(new))
                && (parts
                    || (!is_open(mark(new)) && !self.is_shut(new))
                    || (is_open(mark(new)) && mark(old) == mark(new) && moved)));
        if !(template_changed || (kept && slips)) {
            return None;
        }

        let has = |object: &Value| !mark(object).is_empty() && annotation(object, self.remembers).is_some();
        let own = if has(new) && (self.is_shut(new) || !moved) {
            annotation(new, self.remembers).unwrap_or_default().to_owned()
        } else if has(old) && !moved {
            annotation(old, self.remembers).unwrap_or_default().to_owned()
        } else {
            Field::text(self.value(new))
        };
        let (mark, value) = match self.value(old) {
            Some(value) if !template_changed && is_open(mark(old)) => (mark(old).to_owned(), value.clone()),
            _ => (shut_mark(old, new, MARK), self.shut.value()),
        };
        let mut held = new.clone();
        let metadata = object_at(&mut held, "metadata")?;
        let annotations = object_at_map(metadata, "annotations")?;
        annotations.insert(IN_PROGRESSING.to_owned(), Value::String(mark));
        annotations.insert(self.remembers.to_owned(), Value::String(own));
        let spec = object_at(&mut held, "spec")?;
        put(spec, self.path, value)?;
        if keeps_both {
            spec.insert("minReadySeconds".to_owned(), HELD_READY.into());
            if let Some(deadline) = object::int(old, &["spec", "progressDeadlineSeconds"]) {
                spec.insert("progressDeadlineSeconds".to_owned(), deadline.into());
            }
            for (bound, value) in BOUNDS.into_iter().zip(bounds(old)).filter_map(|(b, v)| Some((b, v?))) {
                put(spec, &self.beside(bound), value.clone())?;
            }
        }
        Some(held)
    }

    /// The operations that give it a value, or take it away together with the maps that are empty then.
    pub fn set(&self, object: &Value, value: Option<Value>) -> Vec<Value> {
        set(object, self.path, value)
    }
}

fn put(spec: &mut Map<String, Value>, path: &[&str], value: Value) -> Option<()> {
    let (last, parents) = path.split_last()?;
    let parent = parents.iter().try_fold(spec, |map, key| object_at_map(map, key))?;
    parent.insert((*last).to_owned(), value);
    Some(())
}

/// The operations that give a field below `spec` a value, or take it away together with the maps that are empty then.
pub fn set(object: &Value, path: &[&str], value: Option<Value>) -> Vec<Value> {
    let Some(spec) = object.get("spec") else { return Vec::new() };
    let pointer = |depth: usize| -> String {
        path.iter().take(depth).fold("/spec".to_owned(), |to, key| format!("{to}/{}", object::pointer_key(key)))
    };
    let has = |depth: usize| {
        let place: Vec<&str> = path.iter().take(depth).copied().collect();
        object::at(spec, &place).is_some_and(|v| !v.is_null())
    };
    match value {
        Some(value) => {
            // The first map that is missing is added whole.
            let depth = (1..path.len()).find(|depth| !has(*depth)).unwrap_or(path.len());
            let inner = path.iter().skip(depth).rev().fold(value, |value, key| json!(BTreeMap::from([(*key, value)])));
            vec![json!({"op": "add", "path": pointer(depth), "value": inner})]
        }
        None if !has(path.len()) => Vec::new(),
        None => {
            let only_child = |depth: &usize| {
                let place: Vec<&str> = path.iter().take(*depth).copied().collect();
                object::at(spec, &place).and_then(Value::as_object).is_some_and(|map| map.len() == 1)
            };
            let depth = (1..path.len()).rev().take_while(only_child).last().unwrap_or(path.len());
            vec![json!({"op": "remove", "path": pointer(depth)})]
        }
    }
}

#[cfg(test)]
mod tests;
