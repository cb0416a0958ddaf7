//! The same script and input give the same bytes and the same fuel: in one VM after another, in any process.

use std::process::Command;

use serde_json::{Value, json};

use crate::{engine, script};

const CHILD: &str = "TIDEGATE_DETERMINISM";

const SCRIPTS: &[&str] = &[
    // Order of `pairs` over the input and over a table of the script's own.
    "local s = '' for k, v in pairs(obj.map) do s = s .. k .. '=' .. tostring(v) .. ',' end return {s = s}",
    "local t, s = {}, '' for i = 1, 40 do t['key' .. i * 7] = i end for k in pairs(t) do s = s .. k .. ',' end return {s = s}",
    "return {a = tostring({}), b = tostring(print), c = string.format('%s', {}), d = tostring(obj)}",
    "local t = {} for i = 1, 5 do t[i] = math.random(1000) end math.randomseed(7) t[6] = math.random() return t",
    "return {ok = select(2, pcall(error, {})), text = tostring(select(2, pcall(function() return nil + 1 end)))}",
    "for k, v in pairs(obj.map) do print(k, v, {}) end error({1, {}, x})",
    "local t = {} for w in ('the quick brown fox'):gmatch('%a+') do t[#t + 1] = w:upper() end table.sort(t) return t",
    "return {s = json.encode({b = {1, 2}, a = obj.map}), d = json.decode('{\"z\": [1, {\"y\": null}]}')}",
    "local function f(n) if n < 2 then return n end return f(n - 1) + f(n - 2) end return {f = f(15)}",
    "while true do end",
    "local t = {} while true do t[#t + 1] = {} end",
    "return nil",
];

/// A line for each script: all that a run gives back.
fn answers() -> Vec<String> {
    // So few steps that they are used up before the time, on any machine.
    let engine = engine(|limits| {
        limits.fuel = 50_000;
        limits.memory_bytes = 1 << 20;
        limits.wall = std::time::Duration::from_secs(30);
    });
    let map: Value = (0..30).map(|i| (format!("name-{}", i * 37), json!(i))).collect::<serde_json::Map<_, _>>().into();
    let obj = json!({"map": map, "list": [3, 1, 2]});
    SCRIPTS.iter().map(|source| format!("{:?}", engine.run(&script(source), &obj)).replace('\n', " ")).collect()
}

#[test]
fn answers_in_this_process() {
    if std::env::var_os(CHILD).is_some() {
        for answer in answers() {
            println!("\nANSWER {answer}");
        }
    }
}

#[test]
fn every_run_and_every_process_agrees() {
    let first = answers();
    assert!(first[9].contains("kind: Fuel") && first[9].contains("line: Some(1)"), "{}", first[9]);
    assert!(first[10].contains("kind: Memory"), "{}", first[10]);
    assert!(!first.iter().any(|a| a.contains("0x5") || a.contains("0x7")), "an address: {first:?}");
    for _ in 0..3 {
        assert_eq!(answers(), first);
    }
    for _ in 0..5 {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "determinism::answers_in_this_process", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let answers: Vec<&str> = stdout.lines().filter_map(|l| l.strip_prefix("ANSWER ")).collect();
        assert_eq!(answers, first);
    }
}

/// A new version of the VM may order `pairs` otherwise, which changes lists that scripts build: this tells.
#[test]
fn order_of_pairs() {
    let source = "local s = '' for k in pairs({one = 1, two = 2, three = 3, four = 4, five = 5, 6, 7}) do s = s .. k .. ' ' end return {s = s}";
    let value = engine(|_| ()).run(&script(source), &json!({})).unwrap().value;
    assert_eq!(value, json!({"s": "1 2 two one four five three "}));
}

#[test]
fn results_are_remembered() {
    use std::time::Instant;
    let engine = tidegate::lua::Engine::new(1);
    let slow = script("local n = 0 for i = 1, 300000 do n = n + i end print('ran') return {n = n, e = {}}");
    let first = engine.run(&slow, &json!({"a": 1}));
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(engine.run(&slow, &json!({"a": 1})), first);
    }
    let again = start.elapsed();
    let start = Instant::now();
    assert_eq!(engine.run(&slow, &json!({"a": 2})).unwrap().value, first.unwrap().value);
    assert!(again < start.elapsed() * 20, "100 remembered runs took {again:?}");
    // Another name is another script: errors would tell the wrong one.
    let failing = |name: &str| tidegate::lua::Script::new(name, "error('x')", tidegate::lua::Origin::BuiltIn);
    assert_eq!(engine.run(&failing("a"), &json!({})).unwrap_err().script, "a");
    assert_eq!(engine.run(&failing("b"), &json!({})).unwrap_err().script, "b");
}
