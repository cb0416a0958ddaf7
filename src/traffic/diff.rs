//! JSON patches (RFC 6902) between two values, as small as they can cheaply be made.
//!
//! Entries that stay the same are never part of a patch, also when others are put in front of them: a gateway's object
//! with 500 rules must not be written anew because a rule for the canary came first.

use serde_json::{Map, Value, json};

use crate::api::object::pointer_key;

/// The operations that turn one value at `path` into another; `None` is absence. None at all when they are equal.
pub fn diff(path: &str, from: Option<&Value>, to: Option<&Value>) -> Vec<Value> {
    let mut operations = Vec::new();
    compare(&mut path.to_owned(), from, to, &mut operations);
    operations
}

/// The same for two lists whose entries are elsewhere.
pub fn diff_lists(path: &str, from: &[&Value], to: &[&Value]) -> Vec<Value> {
    let mut operations = Vec::new();
    compare_lists(&mut path.to_owned(), from, to, &mut operations);
    operations
}

fn compare(path: &mut String, from: Option<&Value>, to: Option<&Value>, out: &mut Vec<Value>) {
    match (from, to) {
        (None, None) => {}
        (None, Some(to)) => out.push(json!({"op": "add", "path": path, "value": to})),
        (Some(_), None) => out.push(json!({"op": "remove", "path": path})),
        (Some(from), Some(to)) if std::ptr::eq(from, to) => {}
        (Some(Value::Object(from)), Some(Value::Object(to))) => compare_maps(path, from, to, out),
        (Some(Value::Array(from)), Some(Value::Array(to))) => {
            compare_lists(path, &from.iter().collect::<Vec<_>>(), &to.iter().collect::<Vec<_>>(), out);
        }
        (Some(from), Some(to)) if from == to => {}
        (Some(_), Some(to)) => out.push(json!({"op": "replace", "path": path, "value": to})),
    }
}

/// Values in the very same place need no comparing.
fn is_same(a: &Value, b: &Value) -> bool {
    std::ptr::eq(a, b) || a == b
}

fn below(path: &mut String, key: &str, work: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(key);
    work(path);
    path.truncate(length);
}

fn compare_maps(path: &mut String, from: &Map<String, Value>, to: &Map<String, Value>, out: &mut Vec<Value>) {
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        below(path, &pointer_key(key), |path| compare(path, Some(&Value::Null), None, out));
    }
    for (key, value) in to {
        let before = from.get(key);
        // Long lists are compared once, entry by entry.
        if value.is_array() || before.is_none_or(|before| !is_same(before, value)) {
            below(path, &pointer_key(key), |path| compare(path, before, Some(value), out));
        }
    }
}

/// What both lists begin and end with stays. In between an entry is looked for no farther away than the lists differ in
/// length; what is not found there is taken for the same entry, changed.
fn compare_lists(path: &mut String, from: &[&Value], to: &[&Value], out: &mut Vec<Value>) {
    let head = from.iter().zip(to).take_while(|(a, b)| is_same(a, b)).count();
    let (mut from, mut to) = (from.get(head..).unwrap_or_default(), to.get(head..).unwrap_or_default());
    let tail = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| is_same(a, b)).count();
    from = from.get(..from.len() - tail).unwrap_or_default();
    to = to.get(..to.len() - tail).unwrap_or_default();

    // Where the next operation acts, in the list as it is by then.
    let mut at = head;
    while let (Some((old, later)), Some((new, rest))) = (from.split_first(), to.split_first()) {
        let (more, fewer) = (to.len().saturating_sub(from.len()), from.len().saturating_sub(to.len()));
        if is_same(old, new) {
            (from, to) = (later, rest);
            at += 1;
        } else if let Some(added) = to.iter().take(more + 1).position(|new| is_same(new, old)) {
            for value in to.iter().take(added) {
                below(path, &at.to_string(), |path| out.push(json!({"op": "add", "path": path, "value": value})));
                at += 1;
            }
            to = to.get(added..).unwrap_or_default();
        } else if let Some(removed) = from.iter().take(fewer + 1).position(|old| is_same(old, new)) {
            for _ in 0..removed {
                below(path, &at.to_string(), |path| out.push(json!({"op": "remove", "path": path})));
            }
            from = from.get(removed..).unwrap_or_default();
        } else {
            below(path, &at.to_string(), |path| compare(path, Some(old), Some(new), out));
            (from, to) = (later, rest);
            at += 1;
        }
    }
    for _ in from {
        below(path, &at.to_string(), |path| out.push(json!({"op": "remove", "path": path})));
    }
    for value in to {
        below(path, &at.to_string(), |path| out.push(json!({"op": "add", "path": path, "value": value})));
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(from: &Value, operations: &[Value]) -> Value {
        let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
        let mut value = from.clone();
        json_patch::patch(&mut value, &patch).unwrap();
        value
    }

    #[test]
    fn says_only_what_changed() {
        for (from, to, count) in [
            (json!({"a": 1}), json!({"a": 1}), 0),
            (json!({"a": 1, "b/c": 2}), json!({"a": 1, "b/c": 3}), 1),
            (json!({"l": [1, 2, 3]}), json!({"l": [0, 1, 2, 3]}), 1),
            (json!({"l": [1, 2, 3]}), json!({"l": [1, 3]}), 1),
            (json!({"l": [{"n": 1}, {"n": 2}]}), json!({"l": [{"c": 1}, {"n": 1}, {"c": 2}, {"n": 2}]}), 2),
            (json!({"l": [{"c": 1}, {"n": 1}, {"c": 2}, {"n": 2}]}), json!({"l": [{"n": 1}, {"n": 2}]}), 2),
            (json!({"l": [{"n": 1, "w": 1}, {"n": 2}]}), json!({"l": [{"n": 1, "w": 2}, {"n": 2}]}), 1),
        ] {
            let operations = diff("", Some(&from), Some(&to));
            assert_eq!(operations.len(), count, "{operations:?}");
            assert_eq!(apply(&from, &operations), to);
        }
        assert_eq!(diff("/x", None, Some(&json!(1))), [json!({"op": "add", "path": "/x", "value": 1})]);
        assert_eq!(diff("/x", Some(&json!(1)), None), [json!({"op": "remove", "path": "/x"})]);
    }

    #[test]
    fn a_rule_in_front_of_500_is_one_operation() {
        let rules: Vec<Value> = (0..500).map(|i| json!({"name": i})).collect();
        let from = json!(rules);
        let to = json!([vec![json!({"name": "canary"})], rules].concat());
        assert_eq!(diff("", Some(&from), Some(&to)).len(), 1);
        assert_eq!(diff("", Some(&to), Some(&from)).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn applying_it_gives_the_other_value(a in value(), b in value()) {
            let operations = diff("", Some(&a), Some(&b));
            proptest::prop_assert_eq!(operations.is_empty(), a == b);
            proptest::prop_assert_eq!(apply(&a, &operations), b);
        }
    }

    fn value() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![Just(Value::Null), (0i64..4).prop_map(Value::from), "[a-b~/]".prop_map(Value::from)];
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[a-c~/]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }
}
