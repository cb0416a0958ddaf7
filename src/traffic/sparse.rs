//! A script's result, kept as what differs from the original.
//!
//! A gateway's object may have hundreds of rules of which a step changes one. What is the same is never copied: results
//! of all steps of a release take little more room than one, and comparing them with the live object allocates nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Original, Parts,
    diff::{diff, diff_lists},
};

/// A result, to be read with its original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    /// Every field of `spec`.
    fields: BTreeMap<String, Field>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    /// As in the original.
    Same,
    /// A list that was one in the original, too.
    List(Vec<Entry>),
    New(Value),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// This entry of the original.
    Same(usize),
    New(Value),
}

/// A field of a result with its original.
enum View<'a> {
    Whole(&'a Value),
    List(Vec<&'a Value>),
}

impl Sparse {
    /// What differs. Equal parts of equal originals give equal results.
    pub fn of(original: &Original, parts: Parts) -> Sparse {
        let fields = match parts.spec {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let field = |(key, new): (String, Value)| {
            let field = match (original.spec.get(&key), new) {
                (Some(old), new) if *old == new => Field::Same,
                (Some(Value::Array(old)), Value::Array(new)) => Field::List(entries(old, new)),
                (_, new) => Field::New(new),
            };
            (key, field)
        };
        Sparse { fields: fields.into_iter().map(field).collect(), labels: parts.labels, annotations: parts.annotations }
    }

    /// What it does not share with the original.
    pub fn own(&self) -> impl Iterator<Item = &Value> {
        let entries = self.fields.values().flat_map(|field| match field {
            Field::List(entries) => entries.as_slice(),
            _ => &[],
        });
        let entries = entries.filter_map(|entry| match entry {
            Entry::New(value) => Some(value),
            Entry::Same(_) => None,
        });
        let fields = self.fields.values().filter_map(|field| match field {
            Field::New(value) => Some(value),
            _ => None,
        });
        fields.chain(entries)
    }

    fn views<'a>(&'a self, original: &'a Original) -> impl Iterator<Item = (&'a str, View<'a>)> {
        self.fields.iter().map(|(key, field)| {
            let old = original.spec.get(key).unwrap_or(&Value::Null);
            let view = match field {
                Field::Same => View::Whole(old),
                Field::New(value) => View::Whole(value),
                Field::List(entries) => View::List(
                    entries
                        .iter()
                        .map(|entry| match entry {
                            Entry::Same(i) => old.get(i).unwrap_or(&Value::Null),
                            Entry::New(value) => value,
                        })
                        .collect(),
                ),
            };
            (key.as_str(), view)
        })
    }

    /// The operations that make a `spec` the result's.
    pub fn diff(&self, original: &Original, from: Option<&Value>) -> Vec<Value> {
        let Some(Value::Object(live)) = from else { return diff("/spec", from, Some(&self.spec(original))) };
        let path = |key: &str| format!("/spec/{}", crate::api::object::pointer_key(key));
        let gone = live.keys().filter(|key| !self.fields.contains_key(*key));
        let mut operations: Vec<Value> = gone.map(|key| json!({"op": "remove", "path": path(key)})).collect();
        for (key, view) in self.views(original) {
            operations.extend(match (live.get(key), view) {
                (from, View::Whole(to)) => diff(&path(key), from, Some(to)),
                (Some(Value::Array(from)), View::List(to)) => diff_lists(&path(key), &refs(from), &to),
                (from, View::List(to)) => diff(&path(key), from, Some(&json!(to))),
            });
        }
        operations
    }

    /// Whether a `spec` is the result's.
    pub fn is(&self, original: &Original, spec: &Value) -> bool {
        let Value::Object(live) = spec else { return false };
        live.len() == self.fields.len()
            && self.views(original).all(|(key, view)| match (live.get(key), view) {
                (Some(live), View::Whole(value)) => live == value,
                (Some(Value::Array(live)), View::List(list)) => live.iter().eq(list),
                _ => false,
            })
    }

    /// The whole `spec`.
    pub fn spec(&self, original: &Original) -> Value {
        let fields = self.views(original).map(|(key, view)| {
            let value = match view {
                View::Whole(value) => value.clone(),
                View::List(list) => list.into_iter().cloned().collect(),
            };
            (key.to_owned(), value)
        });
        Value::Object(fields.collect())
    }
}

fn refs(list: &[Value]) -> Vec<&Value> {
    list.iter().collect()
}

/// An entry is looked for no farther ahead than the lists differ in length: that finds what was put in or taken out,
/// and never costs more than the lists are long times that.
fn entries(old: &[Value], new: Vec<Value>) -> Vec<Entry> {
    let window = old.len().abs_diff(new.len());
    let mut next = 0;
    new.into_iter()
        .map(|value| {
            let ahead = old.iter().enumerate().skip(next).take(window + 1);
            match ahead.into_iter().find(|(_, old)| **old == value) {
                Some((i, _)) => {
                    next = i + 1;
                    Entry::Same(i)
                }
                None => {
                    // A changed entry stands for the one in its place.
                    next += usize::from(window == 0);
                    Entry::New(value)
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(spec: Value) -> Original {
        Original { spec, ..Original::default() }
    }

    fn parts(spec: Value) -> Parts {
        Parts { spec, ..Parts::default() }
    }

    #[test]
    fn what_is_the_same_is_not_kept() {
        let rules: Vec<Value> = (0..100).map(|i| json!({"name": i})).collect();
        let first = original(json!({"hosts": ["a"], "http": rules}));
        let mut changed = rules.clone();
        changed[50] = json!({"name": "x"});
        let mut inserted = rules;
        inserted.insert(7, json!({"name": "y"}));
        for http in [changed, inserted] {
            let sparse = Sparse::of(&first, parts(json!({"hosts": ["a"], "http": http})));
            assert_eq!(sparse.fields["hosts"], Field::Same);
            let Field::List(entries) = &sparse.fields["http"] else { panic!() };
            assert_eq!(entries.iter().filter(|e| matches!(e, Entry::New(_))).count(), 1);
            assert_eq!(sparse.spec(&first)["http"], json!(http));
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(a in spec(), b in spec(), c in spec()) {
            let (first, result) = (original(a.clone()), Sparse::of(&original(a), parts(b.clone())));
            proptest::prop_assert_eq!(result.spec(&first), b.clone());
            proptest::prop_assert_eq!(result.is(&first, &c), b == c);
            proptest::prop_assert!(result.is(&first, &b));
            let patch: json_patch::Patch = serde_json::from_value(json!(result.diff(&first, Some(&c)))).unwrap();
            let mut object = json!({"spec": c});
            json_patch::patch(&mut object, &patch).unwrap();
            proptest::prop_assert_eq!(&object["spec"], &b);
        }
    }

    fn spec() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![(0i64..3).prop_map(Value::from), Just(json!({"a": 1})), Just(json!({"a": 2}))];
        let list = proptest::collection::vec(leaf.clone(), 0..6).prop_map(Value::from);
        proptest::collection::btree_map("[a-c/]", prop_oneof![leaf, list], 0..4)
            .prop_map(|m| Value::Object(m.into_iter().collect()))
    }
}
