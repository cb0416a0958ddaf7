//! Three-way merge: put an object back without losing what others changed meanwhile.
//!
//! `base` is what we last wrote, `theirs` is what is there now, `ours` is what we want (the original, to restore).
//! Where only one side differs from the base, that side wins; where both do, objects are merged key by key, lists entry
//! by entry, and a leaf that both changed is theirs: theirs is the latest word of somebody who saw our change.

use serde_json::{Map, Value};

/// Merges one value; `None` is absence.
pub fn merge(base: Option<&Value>, theirs: Option<&Value>, ours: Option<&Value>) -> Option<Value> {
    if base == theirs {
        return ours.cloned();
    }
    if base == ours || theirs == ours {
        return theirs.cloned();
    }
    match (base, theirs, ours) {
        (base, Some(Value::Object(theirs)), Some(Value::Object(ours))) => {
            let empty = Map::new();
            let base = base.and_then(Value::as_object).unwrap_or(&empty);
            let mut merged = Map::new();
            for key in ours.keys().chain(theirs.keys().filter(|k| !ours.contains_key(*k))) {
                if let Some(value) = merge(base.get(key), theirs.get(key), ours.get(key)) {
                    merged.insert(key.clone(), value);
                }
            }
            Some(Value::Object(merged))
        }
        (Some(Value::Array(base)), Some(Value::Array(theirs)), Some(Value::Array(ours))) => {
            Some(Value::Array(merge_lists(base, theirs, ours)))
        }
        // We added it and they changed it: ours to take back. They deleted what we changed: gone.
        (_, _, None) if base.is_some() => None,
        _ => theirs.cloned(),
    }
}

fn merge_lists(base: &[Value], theirs: &[Value], ours: &[Value]) -> Vec<Value> {
    let to_theirs = align(base, theirs);
    let to_ours = align(base, ours);
    let base_of = |alignment: &[Option<usize>], entry: usize| alignment.iter().position(|a| *a == Some(entry));

    let mut merged: Vec<Value> = Vec::new();
    // For every entry of theirs that stays: where it went.
    let mut placed: Vec<Option<usize>> = vec![None; theirs.len()];
    for (i, our) in ours.iter().enumerate() {
        match base_of(&to_ours, i) {
            None => merged.push(our.clone()),
            Some(b) => {
                if let Some(t) = to_theirs.get(b).copied().flatten()
                    && let Some(value) = merge(base.get(b), theirs.get(t), Some(our))
                {
                    if let Some(place) = placed.get_mut(t) {
                        *place = Some(merged.len());
                    }
                    merged.push(value);
                }
            }
        }
    }
    // Entries that they added follow the entry that they follow in their list.
    let mut after = 0;
    let mut shift = 0;
    for (t, their) in theirs.iter().enumerate() {
        if let Some(place) = placed.get(t).copied().flatten() {
            after = place + shift + 1;
        } else if base_of(&to_theirs, t).is_none() && !merged.contains(their) {
            merged.insert(after.min(merged.len()), their.clone());
            after += 1;
            shift += 1;
        }
    }
    merged
}

/// For every entry of `from`, its counterpart in `to`: equal entries first, then entries that are the same thing
/// changed, in order.
fn align(from: &[Value], to: &[Value]) -> Vec<Option<usize>> {
    let mut result: Vec<Option<usize>> = vec![None; from.len()];
    let mut taken = vec![false; to.len()];
    for same in [|a: &Value, b: &Value| a == b, is_same_thing] {
        let mut start = 0;
        for (i, a) in from.iter().enumerate() {
            if let Some(done) = result.get(i).copied().flatten() {
                start = start.max(done + 1);
                continue;
            }
            let found = (start..to.len())
                .chain(0..start)
                .find(|j| taken.get(*j) == Some(&false) && to.get(*j).is_some_and(|b| same(a, b)));
            if let Some(j) = found {
                if let (Some(slot), Some(mark)) = (result.get_mut(i), taken.get_mut(j)) {
                    *slot = Some(j);
                    *mark = true;
                }
                start = j + 1;
            }
        }
    }
    result
}

/// Two list entries that stand for the same thing: by name, else by most of their fields.
fn is_same_thing(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return false };
    for key in ["name", "destination", "host"] {
        if let (Some(x), Some(y)) = (a.get(key), b.get(key)) {
            return x == y;
        }
    }
    let keys = a.len().max(b.len());
    let equal = a.iter().filter(|(k, v)| b.get(*k) == Some(v)).count();
    // One entry of one key: the key itself has to do.
    equal * 2 >= keys || (keys == 1 && a.keys().eq(b.keys()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(base: Value, theirs: Value, ours: Value, expected: Value) {
        assert_eq!(merge(Some(&base), Some(&theirs), Some(&ours)), Some(expected));
    }

    fn route(hosts: &[(&str, i64)]) -> Value {
        json!(hosts.iter().map(|(h, w)| json!({"destination": {"host": h}, "weight": w})).collect::<Vec<_>>())
    }

    #[test]
    fn untouched_by_others_restores_exactly() {
        let written = json!({"http": [{"route": route(&[("s", 80), ("k", 20)])}]});
        let original = json!({"http": [{"route": [{"destination": {"host": "s"}}]}]});
        check(written.clone(), written, original.clone(), original);
    }

    #[test]
    fn their_edit_beside_ours_is_kept() {
        let original = json!({"hosts": ["a"], "http": [{"name": "x", "timeout": "1s", "route": route(&[("s", 100)])}]});
        let written =
            json!({"hosts": ["a"], "http": [{"name": "x", "timeout": "1s", "route": route(&[("s", 80), ("k", 20)])}]});
        let live = json!({"hosts": ["a", "b"], "http": [{"name": "x", "timeout": "2s", "route": route(&[("s", 80), ("k", 20)])}]});
        let want =
            json!({"hosts": ["a", "b"], "http": [{"name": "x", "timeout": "2s", "route": route(&[("s", 100)])}]});
        check(written, live, original, want);
    }

    #[test]
    fn their_new_rule_is_kept_in_its_place_and_ours_goes() {
        let original = json!([{"name": "a"}, {"name": "z"}]);
        let written = json!([{"name": "canary"}, {"name": "a"}, {"name": "z"}]);
        let live = json!([{"name": "canary"}, {"name": "a"}, {"name": "new"}, {"name": "z"}]);
        check(written, live, original, json!([{"name": "a"}, {"name": "new"}, {"name": "z"}]));
    }

    #[test]
    fn their_deletion_is_kept() {
        let original = json!([{"name": "a"}, {"name": "b"}]);
        let written = json!([{"name": "canary"}, {"name": "a"}, {"name": "b"}]);
        check(written, json!([{"name": "canary"}, {"name": "a"}]), original, json!([{"name": "a"}]));
    }

    #[test]
    fn a_tool_that_put_the_original_back_is_no_conflict() {
        let original = json!({"http": [{"route": route(&[("s", 100)])}]});
        let written = json!({"http": [{"route": route(&[("s", 80), ("k", 20)])}]});
        check(written, original.clone(), original.clone(), original);
    }

    #[test]
    fn our_rule_that_they_edited_goes_all_the_same() {
        let original = json!([{"name": "a"}]);
        let written = json!([{"name": "canary", "x": 1}, {"name": "a"}]);
        check(written, json!([{"name": "canary", "x": 2}, {"name": "a"}]), original, json!([{"name": "a"}]));
    }

    #[test]
    fn a_leaf_that_both_changed_is_theirs() {
        let original = json!({"route": route(&[("s", 100)])});
        let written = json!({"route": route(&[("s", 80), ("k", 20)])});
        let live = json!({"route": route(&[("s", 60), ("o", 40)])});
        check(written, live.clone(), original, live);
    }

    #[test]
    fn keys_come_and_go_with_their_side() {
        check(json!({"a": "1", "k": "x"}), json!({"a": "2", "k": "x"}), json!({"a": "1"}), json!({"a": "2"}));
        check(json!({"a": 1, "b": 1}), json!({"a": 1}), json!({"a": 0, "b": 1}), json!({"a": 0}));
    }

    proptest::proptest! {
        #[test]
        fn merging_is_exact_when_one_side_is_silent(a in value(3), b in value(3)) {
            proptest::prop_assert_eq!(merge(Some(&a), Some(&a), Some(&b)), Some(b.clone()));
            proptest::prop_assert_eq!(merge(Some(&a), Some(&b), Some(&a)), Some(b.clone()));
        }
    }

    fn value(depth: u32) -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0i64..5).prop_map(Value::from),
            "[a-c]".prop_map(Value::from)
        ];
        leaf.prop_recursive(depth, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }
}
