//! What a script leaves alone comes back exactly.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate::lua::ErrorKind;

use crate::{engine, run};

fn object() -> Value {
    json!({
        "data": {
            "spec": {
                "gateways": [],
                "exportTo": {},
                "http": [
                    {
                        "name": "one", "match": [], "headers": {}, "retries": null, "big": 9_007_199_254_740_993_u64,
                        "most": u64::MAX, "least": i64::MIN, "one": 1.0, "tenth": 0.1, "ids": [1, 9_007_199_254_740_993_u64, 2.0],
                        "holes": [null, {"a": null}, null, "x"],
                    },
                    {"name": "two", "mirror": {"host": "m"}, "route": [{"weight": 100}]},
                ],
            },
            "labels": null,
        },
    })
}

#[test]
fn n_14_scripts_that_move_things_lose_nothing() {
    let data = object()["data"].clone();
    let http = data["spec"]["http"].clone();
    // (what the script does, the expected result)
    let with = |change: fn(&mut Value)| {
        let mut value = data.clone();
        change(&mut value);
        value
    };
    let table: Vec<(&str, Value)> = vec![
        ("return obj.data", data.clone()),
        ("return {spec = obj.data.spec}", json!({"spec": data["spec"]})),
        (
            "table.insert(obj.data.spec.http, 1, {name = 'new'}) return obj.data",
            with(|v| v["spec"]["http"].as_array_mut().unwrap().insert(0, json!({"name": "new"}))),
        ),
        ("return {again = {obj.data.spec.http[2], obj.data.spec.http[1]}}", json!({"again": [http[1], http[0]]})),
        ("return {twice = {obj.data.spec, obj.data.spec}}", json!({"twice": [data["spec"], data["spec"]]})),
        (
            "obj.data.spec.http[1].big = 5 obj.data.spec.http[1].one = 2 return obj.data",
            with(|v| {
                v["spec"]["http"][0]["big"] = json!(5);
                v["spec"]["http"][0]["one"] = json!(2);
            }),
        ),
        (
            "table.remove(obj.data.spec.http) table.remove(obj.data.spec.http) return obj.data",
            with(|v| v["spec"]["http"] = json!([])),
        ),
        (
            "obj.data.spec.http[2].mirror.host = nil return obj.data",
            with(|v| v["spec"]["http"][1]["mirror"] = json!({})),
        ),
        (
            "local ids = obj.data.spec.http[1].ids table.insert(ids, 1, 7) return obj.data",
            with(|v| v["spec"]["http"][0]["ids"] = json!([7, 1, 9_007_199_254_740_993_u64, 2.0])),
        ),
        // A list that lost its nulls for good: the script changed it.
        (
            "table.insert(obj.data.spec.http[1].holes, 'y') return obj.data",
            with(|v| v["spec"]["http"][0]["holes"] = json!([{"a": null}, "x", "y"])),
        ),
        // Luau and metatables do not come into it.
        (
            "setmetatable(obj.data, {__index = function() error('no') end, __len = error, __pairs = error}) return obj.data",
            data.clone(),
        ),
    ];
    for (source, expected) in table {
        let outcome = run(source, &object()).unwrap();
        assert_eq!(outcome.value, expected, "{source}");
        assert_eq!(outcome.warnings, [""; 0], "{source}");
    }
}

const COPY: &str = "local function copy(t) if type(t) ~= 'table' then return t end local c = {} for k, v in pairs(t) do \
                    c[k] = copy(v) end return c end ";

#[test]
fn copies_keep_their_shapes_by_place() {
    let source = format!("{COPY} return copy(obj.data)");
    let outcome = run(&source, &object()).unwrap();
    let mut expected = object()["data"].clone();
    // Nulls are gone from a copy: Lua never saw them.
    expected.as_object_mut().unwrap().remove("labels");
    let route = expected["spec"]["http"][0].as_object_mut().unwrap();
    route.remove("retries");
    route.insert("holes".into(), json!([{}, "x"]));
    assert_eq!(outcome.value, expected);
    assert_eq!(outcome.warnings, [""; 0]);
}

#[test]
fn empty_tables_take_the_shape_of_their_place() {
    // (script, expected, warns)
    let table: Vec<(&str, Value, bool)> = vec![
        ("return {spec = {gateways = {}, exportTo = {}}}", json!({"spec": {"gateways": [], "exportTo": {}}}), false),
        // Beside: another route has it.
        (
            "return {spec = {http = {{headers = {}, route = {}}}}}",
            json!({"spec": {"http": [{"headers": {}, "route": []}]}}),
            false,
        ),
        (
            "obj.data.spec.http[2].headers = {} obj.data.spec.http[2].match = {} return {spec = {http = {obj.data.spec.http[2]}}}",
            json!({"spec": {"http": [{"name": "two", "mirror": {"host": "m"}, "route": [{"weight": 100}], "headers": {}, "match": []}]}}),
            false,
        ),
        // It had contents in the original.
        ("return {spec = {http = {}}}", json!({"spec": {"http": []}}), false),
        (
            "return {spec = {http = {{}, {name = 'x', mirror = {}}}}}",
            json!({"spec": {"http": [{}, {"name": "x", "mirror": {}}]}}),
            false,
        ),
        ("return {labels = {}, annotations = {}}", json!({"labels": {}, "annotations": {}}), false),
        ("return {}", json!({}), false),
        ("return {spec = {unheardOf = {}}}", json!({"spec": {"unheardOf": null}}), true),
        (
            "return {spec = {unheardOf = json.array({}), more = json.object({})}}",
            json!({"spec": {"unheardOf": [], "more": {}}}),
            false,
        ),
    ];
    for (source, expected, warns) in table {
        let outcome = run(source, &object()).unwrap();
        assert_eq!(outcome.value, expected, "{source}");
        assert_eq!(!outcome.warnings.is_empty(), warns, "{source}: {:?}", outcome.warnings);
    }
    let warning = &run("return {spec = {http = {{odd = {}}}}}", &object()).unwrap().warnings[0];
    assert!(warning.starts_with("spec.http[0].odd: an empty table may be [] or {}"), "{warning}");
}

#[test]
fn numbers_that_a_script_makes() {
    let source = "return {a = 5/1, b = 0.5, c = 2^53, d = 1e15, e = 2^63, f = -2^63, g = 1e300, h = 7 % 4, i = 100 * 0.29, j = -0}";
    let value = run(source, &json!({})).unwrap().value;
    let expected = json!({"a": 5, "b": 0.5, "c": 9_007_199_254_740_992_u64, "d": 1_000_000_000_000_000_u64,
        "e": 9_223_372_036_854_775_808_u64, "f": i64::MIN, "g": 1e300, "h": 3, "i": 28.999_999_999_999_996, "j": 0});
    assert_eq!(value, expected);
}

#[test]
fn what_scripts_see_of_nulls() {
    let obj = json!({"a": null, "list": [null, 1, null, 2], "none": {"x": null}});
    let source = "return {absent = obj.a == nil, count = #obj.list, first = obj.list[1], next = next(obj.none) == nil}";
    assert_eq!(run(source, &obj).unwrap().value, json!({"absent": true, "count": 2, "first": 1, "next": true}));
}

#[test]
fn limits_of_the_output() {
    let engine = engine(|_| ());
    let table: &[(&str, &str)] = &[
        ("local t = {} for i = 1, 200000 do t[i] = i end return t", "more than 100000 values"),
        (
            "local t = {} for i = 1, 400 do t[i] = {} for j = 1, 400 do t[i][j] = j end end return t",
            "more than 100000 values",
        ),
        ("return {x = string.rep('x', 3000000)}", "larger than 2097152 bytes"),
        (
            "local s = string.rep('x', 30000) local t = {} for i = 1, 100 do t[i] = s end return t",
            "larger than 2097152 bytes",
        ),
        ("local t = {} for i = 1, 1000 do t = {t} end return t", "nested deeper than 128 levels"),
        ("local t = {} for i = 1, 60 do t = {t, t} end return t", "more than 100000 values"),
    ];
    for (source, message) in table {
        let e = engine.run(&crate::script(source), &json!({})).expect_err(source);
        assert_eq!(e.kind, ErrorKind::Output, "{source}: {e}");
        assert!(e.message.contains(message), "{source}: {e}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3_i32..4).prop_map(|n| Value::from(f64::from(n))),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-d]|\\PC{0,3}", inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_script_that_returns_its_input_changes_nothing(value in any_json()) {
        let obj = json!({"x": value});
        prop_assert_eq!(&run("return obj", &obj).unwrap().value, &obj);
        prop_assert_eq!(run("local t = {} t.moved = {{obj}} return t", &obj).unwrap().value, json!({"moved": [[obj]]}));
    }

    #[test]
    fn decode_of_encode_is_what_lua_can_hold(value in any_json()) {
        fn lua_view(value: &Value) -> Value {
            match value {
                Value::Number(n) => json!(n.as_f64()),
                Value::Array(items) => {
                    let items: Vec<Value> = items.iter().map(lua_view).filter(|v| !v.is_null()).collect();
                    if items.is_empty() { Value::Null } else { Value::Array(items) }
                }
                Value::Object(fields) => {
                    let fields: Map<_, _> =
                        fields.iter().map(|(k, v)| (k.clone(), lua_view(v))).filter(|(_, v)| !v.is_null()).collect();
                    if fields.is_empty() { Value::Null } else { Value::Object(fields) }
                }
                other => other.clone(),
            }
        }
        let seen = lua_view(&value);
        let outcome = run("return {decoded = json.decode(json.encode(obj.x))}", &json!({"x": seen})).unwrap();
        prop_assert_eq!(lua_view(&outcome.value["decoded"]), seen);
    }
}
