use std::time::Duration;

use serde_json::json;
use tidegate::lua::{ErrorKind, Library, Origin, Script};

use crate::{engine, run, script};

#[test]
fn a_script_changes_what_it_names() {
    let obj =
        json!({"canaryWeight": 20, "data": {"spec": {"http": [{"weight": 1, "big": 9_007_199_254_740_993_u64}]}}});
    let source = "print('weight', obj.canaryWeight, nil, true)\nobj.data.spec.http[1].weight = obj.canaryWeight\nreturn obj.data";
    let outcome = run(source, &obj).unwrap();
    assert_eq!(outcome.value, json!({"spec": {"http": [{"weight": 20, "big": 9_007_199_254_740_993_u64}]}}));
    assert_eq!(outcome.prints, ["weight\t20\tnil\ttrue"]);
    assert!(outcome.fuel_used > 0 && outcome.fuel_used < 100, "{}", outcome.fuel_used);
    assert_eq!(outcome.warnings, [""; 0]);
}

#[test]
fn runtime_errors_name_line_and_message() {
    let source = "local function f(t)\n  return t.host.name\nend\nlocal a = 1\nf({})\nreturn {}";
    let e = run(source, &json!({})).unwrap_err();
    assert_eq!(e.kind, ErrorKind::Runtime);
    assert_eq!(e.to_string(), "test.lua:2: attempt to index nil with 'name'");
    assert!(e.snippet.contains("> 2 |   return t.host.name\n"), "{}", e.snippet);
    assert_eq!(e.traceback, "test.lua:2: in function 'f'\ntest.lua:5: in the script itself");
    let report = e.report();
    assert!(report.contains("called from:") && report.contains("^"), "{report}");
}

#[test]
fn error_table() {
    // (source, kind, line, part of the message)
    let table: &[(&str, ErrorKind, Option<u32>, &str)] = &[
        ("local x = = 1", ErrorKind::Syntax, Some(1), "got '='"),
        ("\n\nif x then\n\n", ErrorKind::Syntax, Some(5), "<eof>"),
        ("\nerror('stop here')", ErrorKind::Runtime, Some(2), "stop here"),
        ("\nerror('no position', 0)", ErrorKind::Runtime, Some(2), "no position"),
        ("local f = function()\n error('mine', 2)\nend\n\nf()", ErrorKind::Runtime, Some(5), "mine"),
        ("\nerror({code = 7, why = 'x'})", ErrorKind::Runtime, Some(2), r#"{"code":7,"why":"x"}"#),
        ("\nerror()", ErrorKind::Runtime, Some(2), "null"),
        ("\n\nlocal s = string.rep('x', 2^30 - 1)", ErrorKind::Memory, Some(3), "more than its 64 MiB of memory"),
        (
            "local t = {}\nwhile true do\n t[#t + 1] = {}\nend",
            ErrorKind::Memory,
            Some(3),
            "more than its 64 MiB of memory",
        ),
        ("\n\nassert(false, 'asserted')", ErrorKind::Runtime, Some(3), "asserted"),
        ("\nlocal t = {3, 'x', 1}\ntable.sort(t)", ErrorKind::Runtime, Some(3), "attempt to compare"),
        ("\njson.decode(nil)", ErrorKind::Runtime, Some(2), "bad argument #1 to 'decode' (string expected, got nil)"),
        ("\njson.encode()", ErrorKind::Runtime, Some(2), "value expected"),
        ("\ntable.concat({{}})", ErrorKind::Runtime, Some(2), "concat"),
        ("\nstring.gsub('a', '[a', 'b')", ErrorKind::Runtime, Some(2), "malformed pattern"),
        ("\nlocal function f() return 1 + f() end return f()", ErrorKind::Runtime, Some(2), "stack overflow"),
        ("return 'x'", ErrorKind::Output, None, "must return a table, but returned string"),
        ("local x = 1", ErrorKind::Output, None, "returned nothing"),
        ("return {a = {print}}", ErrorKind::Output, None, "cannot encode function to JSON, at a[0]"),
        ("return {a = 0/0}", ErrorKind::Output, None, "cannot encode NaN to JSON, at a"),
        ("return {spec = {[3] = 1}}", ErrorKind::Output, None, "cannot encode sparse array, at spec"),
        ("return {1, x = 2}", ErrorKind::Output, None, "cannot encode mixed or invalid key types, at the top"),
        ("return {[true] = 2}", ErrorKind::Output, None, "invalid key types"),
        ("return {x = '\\255'}", ErrorKind::Output, None, "not valid UTF-8, at x"),
        ("local t = {} t.t = {t} return t", ErrorKind::Output, None, "recursively nested tables to JSON, at t[0]"),
        ("os.exit()", ErrorKind::Runtime, Some(1), "attempt to index nil with 'exit'; scripts have no `os`"),
        ("require('x')", ErrorKind::Runtime, Some(1), "attempt to call a nil value; scripts have no `require`"),
    ];
    for (source, kind, line, message) in table {
        let e = run(source, &json!({})).expect_err(source);
        assert_eq!((e.kind, e.line), (*kind, *line), "{source}: {e:?}");
        assert!(e.message.contains(message), "{source}: {e:?}");
        assert!(!e.message.contains('\n') && !e.message.contains("0x"), "{source}: {e:?}");
    }
}

#[test]
fn a_stopped_script_shows_where_it_was() {
    let source = "local function spin()\n  while true do\n  end\nend\npcall(spin)\nreturn {}";
    let fuel = engine(|l| (l.fuel, l.wall) = (10_000, Duration::from_secs(60)));
    let e = fuel.run(&script(source), &json!({})).unwrap_err();
    assert_eq!((e.kind, e.line), (ErrorKind::Fuel, Some(2)));
    assert_eq!(e.message, "the script used up its 10000 steps; look for a loop without end");
    assert_eq!(e.traceback, "test.lua:2: in function 'spin'\ntest.lua:5: in the script itself");
    let time = engine(|l| (l.fuel, l.wall) = (u64::MAX, Duration::from_millis(20)));
    let e = time.run(&script(source), &json!({})).unwrap_err();
    assert_eq!((e.kind, e.line), (ErrorKind::Time, Some(2)));
    assert_eq!(e.message, "the script ran longer than 20ms");
}

#[test]
fn check_compiles_only() {
    let engine = engine(|_| ());
    assert_eq!(engine.check(&script("while true do end")), Ok(()));
    let e = engine.check(&script("x =")).unwrap_err();
    assert_eq!((e.kind, e.line), (ErrorKind::Syntax, Some(1)));
    // From the cache.
    assert_eq!(engine.check(&script("x =")).unwrap_err(), e);
    assert_eq!(engine.run(&script("x ="), &json!({})).unwrap_err(), e);
    let long = engine.check(&script(&" ".repeat(300 << 10))).unwrap_err();
    assert!(long.message.contains("262144"), "{long}");
}

#[test]
fn limits_of_the_input() {
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!({"a": [deep]});
    }
    let e = run("return {}", &deep).unwrap_err();
    assert_eq!(e.kind, ErrorKind::Input);
    assert!(e.message.contains("deeper than 128 levels, at a[0].a[0]"), "{e}");
    let e = run("return {}", &json!({"a": "x".repeat(3 << 20)})).unwrap_err();
    assert!(e.kind == ErrorKind::Input && e.message.contains("2097152"), "{e}");
}

#[test]
fn names_of_scripts_are_free() {
    for name in ["a:3: b", "", "x\ny", &"long".repeat(200), "[tidegate]"] {
        let e = engine(|_| ()).run(&Script::new(name, "\nerror('e')", Origin::BuiltIn), &json!({})).unwrap_err();
        assert_eq!((e.line, e.message.as_str(), e.script.as_str()), (Some(2), "e", name));
    }
}

#[test]
fn globals_end_with_the_run() {
    let engine = engine(|_| ());
    for _ in 0..3 {
        let outcome =
            engine.run(&script("local r = {was = leak} leak = 1 string.leak = 1 return r"), &json!({})).unwrap();
        assert_eq!(outcome.value, json!({}));
    }
}

#[test]
fn handles_are_shared_between_threads() {
    let engine = engine(|_| ());
    std::thread::scope(|scope| {
        for i in 0..8 {
            let engine = engine.clone();
            scope.spawn(move || {
                for n in 0..20 {
                    let value =
                        engine.run(&script("return {sum = obj.i + obj.n}"), &json!({"i": i, "n": n})).unwrap().value;
                    assert_eq!(value, json!({"sum": i + n}));
                }
            });
        }
    });
}

#[test]
fn an_observer_sees_every_run_and_no_known_result() {
    let engine = tidegate::lua::Engine::new(1);
    let (sender, runs) = std::sync::mpsc::channel();
    engine.observe(move |script, used, took| {
        assert!(took > Duration::ZERO);
        let _ = sender.send((script.name.clone(), used));
    });
    for source in ["return {}", "return {}", "error('no')", "return ="] {
        let _ = engine.run(&script(source), &json!({}));
    }
    let runs: Vec<(String, Result<u64, ErrorKind>)> = runs.try_iter().collect();
    let results: Vec<_> = runs.iter().map(|(name, used)| (name.as_str(), used.map(|fuel| fuel > 0))).collect();
    let name = "test.lua";
    assert_eq!(results, [(name, Ok(true)), (name, Err(ErrorKind::Runtime)), (name, Err(ErrorKind::Syntax))]);
}

#[test]
fn a_busy_engine_says_so() {
    let engine =
        engine(|l| (l.fuel, l.wall, l.queue) = (u64::MAX, Duration::from_millis(500), Duration::from_millis(50)));
    std::thread::scope(|scope| {
        let busy = engine.clone();
        let (started, wait) = std::sync::mpsc::channel();
        scope.spawn(move || {
            started.send(()).unwrap();
            assert_eq!(busy.run(&script("while true do end"), &json!({})).unwrap_err().kind, ErrorKind::Time);
        });
        wait.recv().unwrap();
        // Until the other one has the only worker, this one may still get through.
        let e = (0..1_000_000).find_map(|_| engine.run(&script("return {}"), &json!({})).err()).unwrap();
        assert_eq!((e.kind, e.message.as_str()), (ErrorKind::Time, "no script worker was free for 50ms"));
        assert!(!e.kind.is_deterministic());
    });
    assert!((0..100).any(|_| engine.run(&script("return {}"), &json!({})).is_ok()));
}

#[test]
fn the_built_in_scripts_compile() {
    let engine = engine(|_| ());
    let scripts = Library::list();
    assert!(!scripts.is_empty());
    for script in scripts {
        assert_eq!(engine.check(&script), Ok(()), "{}", script.name);
        assert_eq!(script.hash().len(), 64);
    }
    assert!(Library::builtin("networking.istio.io", "VirtualService").is_some());
    assert!(Library::builtin("networking.istio.io", "Nothing").is_none());
}
