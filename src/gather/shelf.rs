//! The objects of one kind as a watch has told them. At rest they are kept as compressed text: parsed they take fifteen
//! times as much, and a cluster has thousands that nobody looks at for days.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use kube::api::ApiResource;
use lz4_flex::{compress_prepend_size, decompress_size_prepended};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{cache::version, collect::tie, watches::Place};
use crate::{api::object, traffic::routes::Missing};

/// Namespace and name.
pub(super) type Name = (String, String);

/// Objects of a kind that are at hand without parsing: those that were read or changed last.
const OPEN: usize = 32;

#[derive(Default)]
pub(super) struct Shelf {
    objects: BTreeMap<Name, Kept>,
    /// Namespace and [`tie`], and the names of the objects that have it, in order.
    ties: BTreeMap<(String, Box<str>), Vec<Box<str>>>,
    open: BTreeMap<Name, Arc<Value>>,
    /// The names of `open`, in the order in which they came there.
    order: VecDeque<Name>,
    /// Written by us since the last list began: such a list may lack them.
    pub written: BTreeSet<Name>,
    pub resource: Option<ApiResource>,
    /// Ends the watch that fills it.
    pub stop: CancellationToken,
    pub missing: Option<Missing>,
    pub is_synced: bool,
    /// Places whose first list is not there yet.
    pub awaited: BTreeSet<Place>,
}

struct Kept {
    form: Form,
    version: u64,
    uid: Box<str>,
    tie: Option<Box<str>>,
}

pub(super) enum Form {
    /// As JSON, compressed.
    Text(Box<[u8]>),
    /// What its text would not bring back to the last digit.
    Parsed(Arc<Value>),
}

impl Form {
    pub fn of(object: &Arc<Value>) -> Form {
        // Thresholds such as 0.99 come back; a number with all its digits may not.
        let comes_back = |text: &[u8]| serde_json::from_slice::<Value>(text).is_ok_and(|again| again == **object);
        match serde_json::to_vec(&**object) {
            Ok(text) if !has_fraction(object) || comes_back(&text) => {
                Form::Text(compress_prepend_size(&text).into_boxed_slice())
            }
            _ => Form::Parsed(object.clone()),
        }
    }

    pub fn parse(&self) -> Option<Arc<Value>> {
        match self {
            Form::Parsed(object) => Some(object.clone()),
            Form::Text(text) => {
                let text = decompress_size_prepended(text).ok()?;
                serde_json::from_slice(&text).ok().map(Arc::new)
            }
        }
    }
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(map) => map.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

pub(super) fn name_of(object: &Value) -> Name {
    (object::namespace(object).to_owned(), object::name(object).to_owned())
}

impl Shelf {
    /// The object of a name.
    pub fn get(&mut self, name: &Name) -> Option<Arc<Value>> {
        if let Some(object) = self.open.get(name) {
            return Some(object.clone());
        }
        let object = self.objects.get(name)?.form.parse()?;
        self.keep_open(name.clone(), object.clone());
        Some(object)
    }

    /// Puts an object in, unless a newer one has its name. Also of two objects that had the name one after the other: a
    /// late event of the first says nothing of the second.
    pub fn put(&mut self, object: &Arc<Value>) -> bool {
        let (name, version) = (name_of(object), version(object));
        if self.objects.get(&name).is_some_and(|known| version <= known.version) {
            return false;
        }
        self.take(&name);
        let tie: Option<Box<str>> = tie(object).map(Into::into);
        if let Some(tie) = &tie {
            let key = (name.0.clone(), tie.clone());
            let names = self.ties.entry(key).or_insert_with(|| Vec::with_capacity(1));
            if let Err(place) = names.binary_search_by(|other| (**other).cmp(name.1.as_str())) {
                names.insert(place, name.1.as_str().into());
            }
        }
        let kept = Kept { form: Form::of(object), version, uid: object::uid(object).into(), tie };
        self.objects.insert(name.clone(), kept);
        self.keep_open(name, object.clone());
        true
    }

    /// Takes out an object if it has this uid: one that was created anew under the name is another one.
    pub fn remove(&mut self, name: &Name, uid: &str) {
        if self.objects.get(name).is_some_and(|known| *known.uid == *uid) {
            self.take(name);
        }
    }

    /// Takes out what a list did not name, and returns it.
    pub fn retain(&mut self, is_listed: impl Fn(&Name) -> bool) -> Vec<Arc<Value>> {
        let is_gone = |name: &&Name| !is_listed(name) && !self.written.contains(*name);
        let gone: Vec<Name> = self.objects.keys().filter(is_gone).cloned().collect();
        gone.iter().filter_map(|name| self.take(name)?.form.parse()).collect()
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        self.objects.clear();
        self.ties.clear();
        self.open.clear();
        self.order.clear();
    }

    /// All objects, in the order of namespaces and names.
    pub fn all(&self) -> Vec<Arc<Value>> {
        self.objects.iter().filter_map(|(name, kept)| self.look(name, kept)).collect()
    }

    /// The objects of a namespace, in the order of names.
    pub fn of_namespace(&self, namespace: &str) -> Vec<Arc<Value>> {
        let from = (namespace.to_owned(), String::new());
        let objects = self.objects.range(from..).take_while(|((ns, _), _)| ns == namespace);
        objects.filter_map(|(name, kept)| self.look(name, kept)).collect()
    }

    /// The objects of a namespace with a [`tie`], in the order of names.
    pub fn tied(&mut self, namespace: &str, tie: &str) -> Vec<Arc<Value>> {
        let names = self.ties.get(&(namespace.to_owned(), tie.into())).cloned().unwrap_or_default();
        names.into_iter().filter_map(|name| self.get(&(namespace.to_owned(), name.into()))).collect()
    }

    fn look(&self, name: &Name, kept: &Kept) -> Option<Arc<Value>> {
        self.open.get(name).cloned().or_else(|| kept.form.parse())
    }

    fn take(&mut self, name: &Name) -> Option<Kept> {
        let kept = self.objects.remove(name)?;
        if self.open.remove(name).is_some() {
            self.order.retain(|other| other != name);
        }
        if let Some(tie) = &kept.tie {
            let key = (name.0.clone(), tie.clone());
            if let Some(names) = self.ties.get_mut(&key) {
                names.retain(|other| **other != *name.1);
                if names.is_empty() {
                    self.ties.remove(&key);
                }
            }
        }
        Some(kept)
    }

    fn keep_open(&mut self, name: Name, object: Arc<Value>) {
        self.order.push_back(name.clone());
        self.open.insert(name, object);
        if self.order.len() > OPEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(name: &str, uid: &str, version: u64, owner: &str) -> Arc<Value> {
        Arc::new(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "resourceVersion": version.to_string(),
            "ownerReferences": [{"uid": owner, "controller": true}]}}))
    }

    fn named(name: &str) -> Name {
        ("shop".to_owned(), name.to_owned())
    }

    #[test]
    fn an_object_comes_back_as_it_was_when_it_is_no_longer_open() {
        let mut shelf = Shelf::default();
        let precise = Arc::new(json!({"metadata": {"name": "precise", "namespace": "shop"}, "spec": {
            "percentage": 0.1 + 0.2, "small": 5e-324, "big": u64::MAX, "negative": i64::MIN, "text": "ä\u{0}\"\n"}}));
        assert!(shelf.put(&precise));
        let mut exact = Value::clone(&precise);
        exact["metadata"]["name"] = json!("exact");
        exact["spec"].as_object_mut().unwrap().retain(|key, _| key != "percentage" && key != "small");
        let exact = Arc::new(exact);
        assert!(shelf.put(&exact));
        let threshold =
            Arc::new(json!({"metadata": {"name": "threshold", "namespace": "shop"}, "spec": {"min": 0.99}}));
        assert!(shelf.put(&threshold));
        for i in 0..2 * OPEN {
            assert!(shelf.put(&set(&format!("set-{i}"), "u", 1, "owner")));
        }
        assert!(shelf.open.len() <= OPEN && shelf.order.len() == shelf.open.len());
        assert!(!shelf.open.contains_key(&named("exact")));
        assert!(matches!(shelf.objects[&named("exact")].form, Form::Text(_)));
        assert!(matches!(shelf.objects[&named("threshold")].form, Form::Text(_)));
        assert_eq!(shelf.get(&named("exact")), Some(exact));
        assert_eq!(shelf.get(&named("threshold")), Some(threshold));
        assert_eq!(shelf.get(&named("precise")), Some(precise));
        assert_eq!(shelf.all().len(), 2 * OPEN + 3);
        assert_eq!(shelf.of_namespace("shop").len(), 2 * OPEN + 3);
        assert!(shelf.of_namespace("sho").is_empty());
    }

    #[test]
    fn what_is_tied_to_an_owner_is_found_while_it_is() {
        let mut shelf = Shelf::default();
        let names = |shelf: &mut Shelf, owner: &str| -> Vec<String> {
            shelf.tied("shop", owner).iter().map(|o| object::name(o).to_owned()).collect()
        };
        for (name, owner) in [("b", "x"), ("a", "x"), ("c", "y")] {
            assert!(shelf.put(&set(name, name, 1, owner)));
        }
        assert_eq!((names(&mut shelf, "x"), names(&mut shelf, "y")), (vec!["a".into(), "b".into()], vec!["c".into()]));
        assert!(shelf.put(&set("a", "a", 2, "y")));
        assert!(!shelf.put(&set("a", "a", 1, "x")), "older");
        assert_eq!((names(&mut shelf, "x"), names(&mut shelf, "y")), (vec!["b".into()], vec!["a".into(), "c".into()]));
        shelf.remove(&named("b"), "another");
        assert_eq!(names(&mut shelf, "x"), ["b"]);
        shelf.remove(&named("b"), "b");
        assert!(names(&mut shelf, "x").is_empty() && shelf.get(&named("b")).is_none());
        shelf.written.insert(named("c"));
        let gone = shelf.retain(|_| false);
        assert_eq!(gone.iter().map(|o| object::name(o)).collect::<Vec<_>>(), ["a"]);
        assert_eq!(names(&mut shelf, "y"), ["c"]);
        shelf.clear();
        assert!(names(&mut shelf, "y").is_empty() && shelf.all().is_empty());
    }
}
