//! The shared functions in the global `tidegate`.

use serde_json::{Value, json};
use tidegate::lua::{Caps, ErrorKind, ScriptError};

fn obj() -> Value {
    json!({
        "data": {"kind": "Route", "metadata": {"name": "r", "namespace": "shop"}, "spec": {"list": [], "map": {"a": 1}}},
        "canaryWeight": 20, "stableWeight": 80, "stableService": "app", "canaryService": "app-canary",
        "serviceNamespace": "shop",
    })
}

fn run(source: &str) -> Result<Value, ScriptError> {
    super::run(source, &obj()).map(|o| o.value)
}

/// The value of an expression.
fn value(expression: &str) -> Value {
    match run(&format!("return {{v = {expression}}}")) {
        Ok(value) => value["v"].clone(),
        Err(e) => json!(format!("error: {}", e.message)),
    }
}

#[test]
fn functions() {
    for (expression, expected) in [
        // Of other objects than the one that it copies.
        ("(function() local a = {b = {1}}; local c = tidegate.copy(a); c.b[1] = 2; return a.b[1] end)()", json!(1)),
        ("tidegate.is_empty({})", json!(true)),
        ("tidegate.is_empty(nil)", json!(true)),
        ("tidegate.is_empty({0})", json!(false)),
        ("tidegate.weight()", json!(20)),
        ("tidegate.gcd(12, 18)", json!(6)),
        ("tidegate.gcd(0, 5)", json!(5)),
        ("(function() local l = {1, 1, 1}; tidegate.rescale(l, 100); return l end)()", json!([33, 34, 33])),
        ("(function() local l = {40, 40, 20}; tidegate.reduce(l, 5, 100); return l end)()", json!([2, 2, 1])),
        ("(function() local l = {3, 1}; tidegate.reduce(l, 100, 100); return l end)()", json!([75, 25])),
        ("(function() local l = {1, 3000000}; tidegate.reduce(l, 1, 1000); return l end)()", json!([1, 1000])),
        ("tidegate.host_suffix('app', 'app')", json!("")),
        ("tidegate.host_suffix('app.shop.svc.cluster.local', 'app')", json!(".shop.svc.cluster.local")),
        ("tostring(tidegate.host_suffix('app.other', 'app'))", json!("nil")),
        ("tidegate.names_service('app.shop', 'app')", json!(true)),
        ("tidegate.names_service('app.example.com', 'app')", json!(false)),
        ("tidegate.names_service('apple', 'app')", json!(false)),
        ("tidegate.names_service('app..svc', 'app')", json!(false)),
        ("tidegate.names_service(nil, 'app')", json!(false)),
        ("tidegate.is_service({name = 'app'}, 'app')", json!(true)),
        ("tidegate.is_service({name = 'app', group = '', kind = 'Service', namespace = 'shop'}, 'app')", json!(true)),
        ("tidegate.is_service({name = 'app', namespace = 'other'}, 'app')", json!(false)),
        ("tidegate.is_service({name = 'app', kind = 'ServiceImport'}, 'app')", json!(false)),
        ("tidegate.is_service({name = 'app', group = 'gateway.example.com'}, 'app')", json!(false)),
        ("tidegate.same_header('X-User', 'x-user')", json!(true)),
        ("tidegate.find_header({{name = 'A'}, {name = 'B', v = 2}}, 'b').v", json!(2)),
        ("tidegate.header_key({['X-User'] = 1}, 'x-USER')", json!("X-User")),
        ("tidegate.escape_regex('a.b+(c)[d]{e}|f\\\\^$*?')", json!(r"a\.b\+\(c\)\[d\]\{e\}\|f\\\^\$\*\?")),
        ("tidegate.whole('a|b')", json!("^(?:a|b)$")),
        ("tidegate.names({})('web')", json!("web-canary")),
        ("tidegate.names({['web-canary'] = true, ['web-canary-2'] = true})('web')", json!("web-canary-3")),
        ("tidegate.names({}, 12)('long-name-of-it')", json!("long-canary")),
        (
            "(function() local n = tidegate.names({}, 12); return {n('longer'), n('longer'), n('longer')} end)()",
            json!(["longe-canary", "lon-canary-2", "lon-canary-3"]),
        ),
        (
            "tidegate.names({}, 7)('web')",
            json!("error: Route shop/r: no name of 7 characters is left for a copy of web"),
        ),
        ("tidegate.share(20, 100) .. tidegate.share(1, 10) .. tidegate.share(99, 10)", json!("2019")),
        ("tidegate.share(0, 1) .. tidegate.share(100, 1) .. tidegate.share(33, 1000)", json!("01330")),
        ("tidegate.more_lines('a\\n\\n', {'b', 'c'})", json!("a\nb\nc")),
        ("tidegate.more_lines('', {'b'}) .. tidegate.more_lines('a', {})", json!("ba")),
        ("tidegate.condition({type = 'RegularExpression', value = 'a+'}, '')", json!({"regex": "a+"})),
        ("tidegate.path_condition({}, '')", json!({"prefix": "/"})),
        ("tidegate.narrow({prefix = '/a'}, {exact = '/ab'}, 'path', 'm', {is_path = true})", json!({"exact": "/ab"})),
        (
            "tostring(tidegate.narrow({prefix = '/a/'}, {exact = '/ab'}, 'path', 'm', {is_path = true, segments = true}))",
            json!("nil"),
        ),
        ("tidegate.narrow({prefix = '/a/'}, {exact = '/a'}, 'path', 'm', {segments = true})", json!({"exact": "/a"})),
        (
            "tidegate.narrow({prefix = '/a'}, {prefix = '/a/b'}, 'path', 'm', {segments = true})",
            json!({"prefix": "/a/b"}),
        ),
        ("tidegate.narrow({exact = 'A'}, {exact = 'a'}, 'h', 'm', {any_case = true})", json!({"exact": "A"})),
        (
            "tidegate.narrow({regex = 'A'}, {exact = 'a'}, 'h', 'm')",
            json!(
                "error: Route shop/r: m: h is a regular expression in one of the rule and the step and cannot be combined"
            ),
        ),
    ] {
        assert_eq!(value(expression), expected, "{expression}");
    }
}

/// Backends `{n = name, w = weight}` of Service app.
const BACKEND: &str = "local B = {field = 'w', is_stable = function(e) return e.n == 'app' end, \
    is_canary = function(e) return e.n == 'app-canary' end, \
    canary = function(e) local c = tidegate.copy(e); c.n = 'app-canary'; return c end}\n\
    for k, v in pairs(OPTIONS) do B[k] = v end\n";

fn split(function: &str, options: &str, weight: u32, entries: &str) -> Value {
    let source = format!(
        "local OPTIONS = {options}\n{BACKEND}local list = {entries}\n\
         local named, canaries = tidegate.{function}(list, {weight}, B, 'rule')\n\
         local text = ''\n\
         for _, e in ipairs(list) do text = text .. e.n .. '=' .. tostring(e.w) .. ' ' end\n\
         return {{v = text .. tostring(named) .. ' ' .. (canaries and #canaries or 'none')}}"
    );
    match run(&source) {
        Ok(value) => value["v"].clone(),
        Err(e) => json!(format!("error: {}", e.message)),
    }
}

#[test]
fn relative_weights() {
    for (options, weight, entries, expected) in [
        ("{lone = true}", 20, "{{n='app'}}", "app=80 app-canary=20 true 1"),
        ("{default = 1}", 20, "{{n='app'}}", "app=80 app-canary=20 true 1"),
        ("{lone = true}", 0, "{{n='app', w=7}}", "app=100 app-canary=0 true 1"),
        ("{}", 100, "{{n='app', w=100}}", "app=0 app-canary=100 true 1"),
        ("{}", 50, "{{n='app', w=60}, {n='x', w=40}}", "app=30 x=40 app-canary=30 true 1"),
        ("{}", 20, "{{n='app', w=1}, {n='x', w=1}}", "app=4 x=5 app-canary=1 true 1"),
        ("{default = 1}", 50, "{{n='app'}, {n='x'}}", "app=1 x=2 app-canary=1 true 1"),
        // The share of a canary that is there already is ours too.
        ("{}", 10, "{{n='app', w=50}, {n='app-canary', w=50}}", "app=90 app-canary=10 true 1"),
        ("{}", 50, "{{n='app', w=1}, {n='app', w=1}}", "app=25 app=25 app-canary=25 app-canary=25 true 2"),
        ("{}", 10, "{{n='app', w=0}, {n='x', w=1}}", "app=0 x=1 true none"),
        ("{}", 10, "{{n='x', w=1}}", "x=1 false none"),
        ("{zero = 'even'}", 50, "{{n='app'}, {n='x'}}", "app=1 x=2 app-canary=1 true 1"),
        (
            "{refuses_zero = 'Mesh'}",
            50,
            "{{n='app'}, {n='x'}}",
            "error: Route shop/r: rule: the weights sum to 0, which Mesh refuses",
        ),
        // Neither the canary nor the rest may vanish when the largest number is small.
        ("{most = 100}", 1, "{{n='app', w=1}, {n='x', w=100}}", "app=1 x=100 app-canary=1 true 1"),
    ] {
        assert_eq!(split("split", options, weight, entries), json!(expected), "{options} {weight} {entries}");
    }
}

#[test]
fn per_cents() {
    for (weight, entries, expected) in [
        (20, "{{n='app'}}", "app=80 app-canary=20 true 1"),
        (50, "{{n='app', w=60}, {n='x', w=40}}", "app=30 x=40 app-canary=30 true 1"),
        (1, "{{n='app', w=2}, {n='x', w=98}}", "app=1 x=98 app-canary=1 true 1"),
        (99, "{{n='app', w=30}, {n='x', w=70}}", "app=1 x=70 app-canary=29 true 1"),
        (100, "{{n='app', w=1}, {n='x', w=99}}", "app=0 x=99 app-canary=1 true 1"),
        (
            50,
            "{{n='app', w=1}, {n='x', w=99}}",
            "error: Route shop/r: Service \"app\" has 1 per cent of a rule, which cannot be split; give it 2 or more",
        ),
    ] {
        assert_eq!(split("split_percent", "{}", weight, entries), json!(expected), "{weight} {entries}");
    }
}

#[test]
fn header_modifiers() {
    let lists = |modifier: &str| {
        value(&format!(
            "(function() local f = {{set = {{{{name='X-A', value='1'}}}}, remove = {{'x-b'}}}}; \
             tidegate.modify_header_lists(f, {modifier}); return f end)()"
        ))
    };
    let set_a = json!({"name": "x-a", "value": "2"});
    assert_eq!(lists("{set = {{name='x-a', value='2'}}}"), json!({"set": [set_a], "remove": ["x-b"]}));
    assert_eq!(lists("{add = {{name='x-a', value='2'}}}"), json!({"add": [set_a], "remove": ["x-b"]}));
    assert_eq!(
        lists("{remove = {'x-A', 'x-c'}, add = {{name='X-B', value='3'}}}"),
        json!({"remove": ["x-A", "x-c"], "add": [{"name": "X-B", "value": "3"}]})
    );
    let twice = lists("{set = {{name='x-a', value='2'}}, remove = {'X-A'}}");
    assert!(twice.as_str().unwrap().contains("names header \"x-a\" in set and remove"), "{twice}");
}

#[test]
fn errors_name_the_object_and_the_scripts_line() {
    for (source, message) in [
        ("local x = 1\ntidegate.fail('no rule')\nreturn obj.data", "Route shop/r: no rule"),
        (
            "local x = 1\ntidegate.refuse('Mesh', 'a path', 'leave it out')",
            "Route shop/r: Mesh cannot express a path; leave it out",
        ),
        (
            "local x = 1\ntidegate.at_most(3, 2, 'Mesh', 'rules')",
            "Route shop/r: Mesh takes at most 2 rules; this step would need 3",
        ),
        (
            "obj.canaryWeight = 1.5\ntidegate.weight()",
            "Route shop/r: canaryWeight 1.5 is not a whole number from 0 to 100",
        ),
        (
            "obj.matches = {{headers = {}}}\ntidegate.matches()",
            "Route shop/r: matches[1] has no condition: every request would go to the canary",
        ),
        (
            "obj.canaryService = 'app'\ntidegate.need_canary_service('Mesh')",
            "Route shop/r: Mesh tells versions apart by Service only",
        ),
        ("obj.data = nil\ntidegate.fail('no rule')", "no rule"),
        ("obj = 5\ntidegate.fail('no rule')", "no rule"),
    ] {
        let error = run(source).unwrap_err();
        assert_eq!((error.kind, error.line), (ErrorKind::Runtime, Some(2)), "{source}: {error}");
        assert!(error.message.starts_with(message), "{source}: {error}");
    }
}

/// Scripts written before there was such a global have the name to themselves.
#[test]
fn scripts_can_neither_change_it_nor_be_broken_by_it() {
    for source in [
        "tidegate.copy = nil",
        "rawset(tidegate, 'copy', 1)",
        "tidegate.VALUE_KINDS.Exact = 'x'",
        "setmetatable(tidegate, {})",
    ] {
        let error = run(&format!("{source}\nreturn obj.data")).unwrap_err();
        assert_eq!(error.line, Some(1), "{source}: {error}");
    }
    assert_eq!(value("(function() tidegate = {copy = 3}; return tidegate.copy end)()"), json!(3));
    assert_eq!(value("(function() local tidegate = 7; return tidegate end)()"), json!(7));
    // What it is made of stays its own.
    let replaced = "(function() string.lower = nil; table.insert = nil; type = nil; ipairs = nil; \
        return tidegate.same_header('A', 'a') end)()";
    assert_eq!(value(replaced), json!(true));
    // Luau's own functions do not come back through it.
    assert_eq!(value("table.clone == nil and table.freeze == nil"), json!(true));
}

/// The script that the README shows, to the letter.
#[test]
fn the_readme_example_works() {
    let readme = include_str!("../../lua-scripts/README.md");
    let source = readme.split("```lua\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(source.starts_with("-- Mesh routes."), "{source}");
    assert!(Caps::parse(source).unwrap().is_some());
    let mut input = obj();
    input["data"]["spec"] = json!({"rules": [
        {"backends": [{"host": "app.shop", "port": 80}]},
        {"redirect": "/x"},
        {"backends": [{"host": "app", "weight": 60}, {"host": "other", "weight": 40}]},
    ]});
    let run = |input: &Value| super::run(source, input).map(|o| o.value["spec"]["rules"].clone());
    assert_eq!(
        run(&input).unwrap(),
        json!([
            {"backends": [{"host": "app.shop", "port": 80, "weight": 80}, {"host": "app-canary.shop", "port": 80, "weight": 20}]},
            {"redirect": "/x"},
            {"backends": [{"host": "app", "weight": 48}, {"host": "other", "weight": 40}, {"host": "app-canary", "weight": 12}]},
        ])
    );
    for (change, message) in [
        (json!({"matches": [{"headers": [{"name": "a", "value": "b"}]}]}), "Mesh cannot express matches; use a weight"),
        (json!({"requestHeaderModifier": {"remove": ["a"]}}), "Mesh cannot express requestHeaderModifier"),
        (json!({"canaryService": "app"}), "Mesh tells versions apart by Service only"),
        (json!({"stableService": "web"}), "no rule routes to Service \"web\""),
    ] {
        let mut input = input.clone();
        input.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let error = run(&input).unwrap_err().message;
        assert!(error.starts_with(&format!("Route shop/r: {message}")), "{error}");
    }
}
