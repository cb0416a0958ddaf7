//! `tidegate lua` as a user runs it: the real binary, its exit codes and what it prints.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod watch;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A working directory of its own.
struct Place(TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        for (path, text) in files {
            place.write(path, text);
        }
        place
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("lua").args(args).current_dir(self.0.path()).env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> (i32, String, String) {
        told(self.command(args).output().unwrap())
    }
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn example(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "examples", "istio", name].iter().collect();
    path.display().to_string()
}

/// A case for a script that counts `spec.size` up by the weight.
fn case(expected: &str) -> String {
    format!(
        "trafficRouting: {{spec: {{objectRef: [{{service: app}}], strategy: {{weight: 5}}}}}}\n\
         original: {{apiVersion: g.io/v1, kind: Thing, metadata: {{name: t}}, spec: {{keep: [], size: 1}}}}\n\
         expected:\n- {expected}\n"
    )
}

const COUNT: &str = "obj.data.spec.size = obj.data.spec.size + obj.canaryWeight\nreturn obj.data\n";
const SIX: &str = "{apiVersion: g.io/v1, kind: Thing, spec: {keep: [], size: 6}}";
const SEVEN: &str = "{apiVersion: g.io/v1, kind: Thing, spec: {keep: [], size: 7}}";

const SCRIPT: &str = "lua-scripts/g.io/Thing/trafficRouting.lua";
const CASE: &str = "testcases/g.io/Thing/a.yaml";

#[test]
fn all_passed_is_0() {
    let place = Place::new(&[(SCRIPT, COUNT), (CASE, &case(SIX)), ("testcases/decide/x.yaml", "whatever: 1")]);
    let (code, out, err) = place.run(&["test"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let (first, rest) = out.split_once('\n').unwrap();
    assert_eq!(first, "ok    testcases/g.io/Thing/a.yaml (1 step)");
    assert!(rest.starts_with("1 case passed; 1 step in "), "{rest}");
    assert!(rest.ends_with("not looked at, for lack of a script's layout: testcases/decide\n"), "{rest}");
}

#[test]
fn a_difference_is_1_and_shown_as_a_diff() {
    let place = Place::new(&[(SCRIPT, COUNT), (CASE, &case(SEVEN)), ("testcases/g.io/Thing/b.yaml", &case(SIX))]);
    let (code, out, _) = place.run(&["test", "--jobs", "1"]);
    assert_eq!(code, 1);
    let expected = "\
FAIL  testcases/g.io/Thing/a.yaml, step 1 of 1: the result differs from what is expected
      script lua-scripts/g.io/Thing/trafficRouting.lua
      --- expected
      +++ found
      @@ -1,3 +1,3 @@
       spec:
         keep: []
      -  size: 7
      +  size: 6
ok    testcases/g.io/Thing/b.yaml (1 step)
1 case passed, 1 failed; 2 steps in ";
    assert!(out.starts_with(expected), "{out}");
}

const MUTATED: &str = "\
local data = obj.data
if obj.canaryWeight > 0 then
  data.spec.size = data.spec.size + obj.canaryWeight
end
return data
";

#[test]
fn mutate_lists_what_no_case_notices() {
    let place = Place::new(&[(SCRIPT, MUTATED), (CASE, &case(SIX))]);
    let (code, out, err) = place.run(&["mutate"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let expected = "\
lua-scripts/g.io/Thing/trafficRouting.lua:2:21: `>` → `>=`
lua-scripts/g.io/Thing/trafficRouting.lua:2:23: `0` → `1`
SCRIPT                                     CHANGES  NOTICED  ALLOWED   SCORE
lua-scripts/g.io/Thing/trafficRouting.lua       13       11        0   84.6 %
";
    assert_eq!(out, expected);
    assert_eq!(place.run(&["mutate", "--jobs", "1"]).1, expected, "the same whatever runs beside it");

    let (code, _, err) = place.run(&["mutate", "--least", "90"]);
    assert_eq!((code, err.as_str()), (1, "error: lua-scripts/g.io/Thing/trafficRouting.lua: 84.6 % is below 90 %\n"));
    let (code, out, _) = place.run(&["mutate", SCRIPT, "--least", "84", "-o", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["scripts"][0]["noticed"]), (0, &json!(11)));
    assert_eq!(report["scripts"][0]["unnoticed"][1], json!({"line": 2, "column": 23, "change": "`0` → `1`"}));
}

#[test]
fn mutate_takes_excuses_with_a_reason() {
    const ALLOW: &str = "lua-scripts/mutate-allow.yaml";
    let entry = |change: &str, reason: &str| {
        format!(
            "- script: g.io/Thing/trafficRouting.lua\n  line: if obj.canaryWeight > 0 then\n  change: '{change}'\n  reason: '{reason}'\n"
        )
    };
    let place = Place::new(&[(SCRIPT, MUTATED), (CASE, &case(SIX)), (ALLOW, &entry("`>` → `>=`", "adding 0"))]);
    let (code, out, err) = place.run(&["mutate", "--least", "90"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(!out.contains(":2:21:") && out.contains(":2:23:"), "{out}");
    assert!(out.contains("     13       11        1   91.7 %\n"), "{out}");

    place.write(ALLOW, &entry("`>` → `<=`", "out of date"));
    let (code, _, err) = place.run(&["mutate"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("change `>` → `<=`: there is no such change, or a case notices it; remove the entry"),
        "{err}"
    );
    place.write(ALLOW, &entry("`>` → `>=`", " "));
    let (code, _, err) = place.run(&["mutate"]);
    assert_eq!(code, 2);
    assert!(err.contains("the reason is empty"), "{err}");
}

#[test]
fn mutate_changes_the_prelude() {
    let place = Place::new(&[
        (SCRIPT, "if tidegate.is_empty({}) then error('empty') end\nreturn obj.data\n"),
        (CASE, &case("{apiVersion: g.io/v1, kind: Thing, spec: {keep: [], size: 1}}")),
        ("lua-scripts/prelude/object.lua", "error('broken')\n"),
    ]);
    let (code, _, err) = place.run(&["mutate", "lua-scripts/prelude/object.lua"]);
    assert_eq!(code, 1);
    assert!(err.contains("fail without any change") && err.contains(CASE), "{err}");
    place.write(
        "lua-scripts/prelude/object.lua",
        "local tidegate = ...\nfunction tidegate.is_empty(t) return t == nil or #t == 1 end\nfunction tidegate.unused() return 1 end\n",
    );
    let (code, out, err) = place.run(&["mutate", "lua-scripts/prelude/object.lua"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("object.lua:3:35: `1` → `2`\n") && !out.contains("`==`"), "{out}");
}

#[test]
fn mutate_needs_passing_cases() {
    let place = Place::new(&[(SCRIPT, COUNT), (CASE, &case(SEVEN))]);
    let (code, out, err) = place.run(&["mutate"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("these cases fail without any change") && err.contains(CASE), "{err}");
    let place = Place::new(&[(SCRIPT, COUNT), ("testcases/none", "")]);
    let (code, _, err) = place.run(&["mutate"]);
    assert_eq!(code, 2);
    assert!(err.contains("no case in testcases is of lua-scripts/g.io/Thing/trafficRouting.lua"), "{err}");
}

#[test]
fn lint_tells_line_column_and_rule() {
    let place = Place::new(&[(SCRIPT, "total = obj.weigth\nfor k in pairs(obj) do print(os) end\nreturn obj.data\n")]);
    place.write("lua-scripts/types.d.lua", "obj = {}");
    let (code, out, err) = place.run(&["lint"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let expected = "\
lua-scripts/g.io/Thing/trafficRouting.lua:1:1: warning: `total` is a global: write `local` before it [leaked-global]
lua-scripts/g.io/Thing/trafficRouting.lua:1:9: error: `obj` has no `weigth` [undefined-field]
lua-scripts/g.io/Thing/trafficRouting.lua:2:30: error: scripts have no `os`, and this one sets none [undefined-global]
1 script: 2 errors, 1 warning
";
    assert_eq!(out, expected);
    let (_, out, _) = place.run(&["lint", "-o", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["errors"], &report["findings"][1]["column"]), (&json!(2), &json!(9)));
    assert_eq!(report["findings"][0]["level"], "warning");

    place.write(SCRIPT, "total = 1\nreturn obj.data\n");
    assert_eq!(place.run(&["lint", SCRIPT]).0, 0);
    assert_eq!(place.run(&["lint", SCRIPT, "--strict"]).0, 1);
    place.write(SCRIPT, "return obj.data end\n");
    let (code, out, _) = place.run(&["lint"]);
    assert_eq!(code, 1);
    assert!(out.contains("trafficRouting.lua:1:17: error: ") && out.contains("[syntax]"), "{out}");
    assert_eq!(place.run(&["lint", "none"]).0, 2);
}

#[test]
fn a_case_can_ask_for_words() {
    let said = |text: &str| case(&SIX.replace("spec:", &format!("prints: '{text}', spec:")));
    let place = Place::new(&[(SCRIPT, &format!("print('warning: odd')\n{COUNT}")), (CASE, &said("odd"))]);
    assert_eq!(place.run(&["test"]).0, 0);
    for (text, message) in [("even", "the script must print \"even\" and did not"), ("", "must print nothing and did")]
    {
        place.write(CASE, &said(text));
        let (code, out, _) = place.run(&["test"]);
        assert_eq!(code, 1);
        assert!(out.contains(message), "{out}");
    }
}

#[test]
fn colour_is_for_terminals_or_on_demand() {
    let place = Place::new(&[(SCRIPT, COUNT), (CASE, &case(SEVEN))]);
    assert!(!place.run(&["test"]).1.contains('\u{1b}'));
    let coloured = place.run(&["test", "--color", "always"]).1;
    assert!(coloured.contains("\u{1b}[32m+  size: 6\u{1b}[0m"), "{coloured:?}");
    assert!(coloured.contains("\u{1b}[31m-  size: 7\u{1b}[0m"), "{coloured:?}");
}

#[test]
fn a_script_error_shows_its_line() {
    let place = Place::new(&[(SCRIPT, "local x\nlocal y = x.z\nreturn obj.data\n"), (CASE, &case(SIX))]);
    let (code, out, _) = place.run(&["test"]);
    assert_eq!(code, 1);
    assert!(out.contains("step 1 of 1: lua-scripts/g.io/Thing/trafficRouting.lua:2: "), "{out}");
    assert!(out.contains("      > 2 | local y = x.z\n"), "{out}");

    place.write(SCRIPT, "local x = = 1\n");
    let (code, out, _) = place.run(&["test"]);
    assert_eq!(code, 1);
    assert!(out.contains("trafficRouting.lua:1: "), "{out}");
}

#[test]
fn steps_that_must_fail() {
    let place =
        Place::new(&[(SCRIPT, "error('no route to ' .. obj.stableService)"), (CASE, &case("error: no route to app"))]);
    assert_eq!(place.run(&["test"]).0, 0);
    place.write(CASE, &case("error: no pods"));
    let (code, out, _) = place.run(&["test"]);
    assert!(code == 1 && out.contains("failed with another error than \"no pods\""), "{out}");
    place.write(SCRIPT, COUNT);
    let (code, out, _) = place.run(&["test"]);
    assert!(code == 1 && out.contains("succeeded, but must fail with \"no pods\""), "{out}");
}

#[test]
fn scripts_are_found_in_the_documented_order() {
    let built_in = "\
trafficRouting: {spec: {objectRef: [{service: app}]}}
original: {apiVersion: networking.istio.io/v1, kind: DestinationRule, spec: {host: app}}
expected: [{apiVersion: v1, kind: X, spec: {host: app, subsets: [{name: canary, labels: {istio.service.tag: gray}}]}}]
";
    let place = Place::new(&[("c/testdata/a.yaml", built_in), ("c/trafficRouting.lua", ""), ("d/a.yaml", built_in)]);
    // A named folder's own files need no layout; nothing else is there, so the built-in script it is.
    let (code, out, _) = place.run(&["test", "d"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        place
            .run(&["test", "d", "-o", "json"])
            .1
            .contains("\"networking.istio.io/DestinationRule/trafficRouting.lua\"")
    );
    // The working directory's lua-scripts/ win over the built-in ones.
    place.write("lua-scripts/networking.istio.io/DestinationRule/trafficRouting.lua", "error('local')");
    let (code, out, _) = place.run(&["test", "d"]);
    assert!(code == 1 && out.contains("local"), "{out}");
    // The script beside testdata/ wins over both.
    place.write("c/trafficRouting.lua", "error('beside')");
    let (code, out, _) = place.run(&["test", "c"]);
    assert!(code == 1 && out.contains("c/trafficRouting.lua:1: beside"), "{out}");
    // And --script over all.
    place.write("mine.lua", "error('mine')");
    let (code, out, _) = place.run(&["test", "c", "d", "--script", "mine.lua"]);
    assert!(code == 1 && out.matches("mine.lua:1: mine").count() == 2, "{out}");
}

#[test]
fn unusable_input_is_2() {
    let place = Place::new(&[(SCRIPT, COUNT), (CASE, &case(SIX))]);
    fs::create_dir(place.0.path().join("empty")).unwrap();
    place.write("text/readme.txt", "");
    for (args, message) in [
        (&["test", "empty"][..], "error: no case in empty: cases are YAML files"),
        (&["test", "text"], "error: no case in text: "),
        (&["test", "nowhere"], "error: nowhere: "),
        (&["test", "--filter", "zzz"], "error: none of the 1 cases in testcases has \"zzz\" in its path"),
        (&["test", "--script", "gone.lua"], "error: script gone.lua cannot be read: "),
        (&["test", "--watch", "-o", "json"], "error: --watch reports as text"),
        (&["test", "--jobs", "0"], "error: invalid value '0'"),
        (&["test", "--nonsense"], "error: unexpected argument"),
    ] {
        let (code, out, err) = place.run(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?} {err}");
        assert!(err.starts_with(message), "{args:?}: {err}");
    }

    place.write("testcases/g.io/Thing/b.yaml", &format!("{}expect: []\n", case(SIX)));
    place.write("testcases/g.io/Other/c.yaml", &case(SIX).replace("Thing", "Other"));
    let (code, out, _) = place.run(&["test"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("ERROR testcases/g.io/Thing/b.yaml: unknown key \"expect\"; the keys are "), "{out}");
    assert!(
        out.contains("ERROR testcases/g.io/Other/c.yaml: no script for g.io/Other in lua-scripts/g.io/Other/"),
        "{out}"
    );
    assert!(out.contains("1 case passed, 2 unusable; 1 step in "), "{out}");
}

#[test]
fn json_report() {
    let place = Place::new(&[
        (SCRIPT, "print('hello', obj.canaryWeight)\n obj.data.spec.e = {} obj.data.spec.size = 6 return obj.data"),
        (CASE, &case(SEVEN)),
        ("testcases/g.io/Thing/bad.yaml", "[]"),
    ]);
    let (code, out, _) = place.run(&["test", "-o", "json"]);
    assert_eq!(code, 2);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["passed"], &report["failed"], &report["unusable"]), (&json!(0), &json!(1), &json!(1)));
    let step = &report["cases"][0]["steps"][0];
    assert_eq!(step["verdict"], "differs");
    assert_eq!(step["expected"]["spec"], json!({"keep": [], "size": 7}));
    assert_eq!(step["found"]["spec"], json!({"keep": [], "size": 6, "e": null}));
    assert_eq!(step["prints"], json!(["hello\t5"]));
    assert!(step["warnings"][0].as_str().unwrap().contains("spec.e"), "{step}");
    assert!(step["detail"].as_str().unwrap().contains("+  size: 6"));
    assert_eq!(report["cases"][1]["path"], "testcases/g.io/Thing/bad.yaml");
    assert!(report["cases"][1]["error"].as_str().unwrap().contains("is not a map"));
}

#[test]
fn junit_report() {
    let place = Place::new(&[
        (SCRIPT, "if obj.canaryWeight == 5 then error('a < b & \"c\"') end return obj.data"),
        (CASE, &case(SIX)),
        ("testcases/g.io/Thing/bad.yaml", "[]"),
        ("testcases/g.io/Thing/ok.yaml", &case("error: a <")),
    ]);
    let (code, out, _) = place.run(&["test", "-o", "junit", "-j1"]);
    assert_eq!(code, 2);
    assert!(out.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"tidegate lua test\" tests=\"3\" failures=\"1\" errors=\"1\" "), "{out}");
    assert!(
        out.contains("<failure message=\"lua-scripts/g.io/Thing/trafficRouting.lua:1: a &lt; b &amp; &quot;c&quot;\">"),
        "{out}"
    );
    assert!(out.contains("<error message=\"is not a map with the keys"), "{out}");
    assert!(out.contains("<testcase classname=\"testcases/g.io/Thing/ok.yaml\" name=\"step 1\" time=\"0."), "{out}");
    assert_eq!(out.matches("<testsuite ").count(), out.matches("</testsuite>").count());
    assert!(out.ends_with("</testsuites>\n"));
}

#[test]
fn verbose_shows_prints_of_passed_cases() {
    let place = Place::new(&[(SCRIPT, &format!("print('seen')\n{COUNT}")), (CASE, &case(SIX))]);
    assert!(!place.run(&["test"]).1.contains("seen"));
    assert!(place.run(&["test", "-v"]).1.contains("      step 1 printed: seen\n"));
}

#[test]
fn the_shipped_cases_pass() {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["lua", "test"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let (code, out, err) = told(output);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn run_plays_the_story() {
    let place = Place::new(&[]);
    let (vs, dr, rollout) = (example("virtualservice.yaml"), example("destinationrule.yaml"), example("rollout.yaml"));
    let step = |object: &str, n: &str| {
        let (code, out, err) =
            place.run(&["run", "--object", object, "--rollout", &rollout, "--step", n, "-o", "json"]);
        assert_eq!((code, err.as_str()), (0, ""));
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let base = json!({"destination": {"host": "nginx-service", "subset": "version-base"}});
    let canary = json!({"destination": {"host": "nginx-service", "subset": "canary"}});
    let weighted = |mut d: Value, w: u32| {
        d["weight"] = json!(w);
        d
    };
    let result = step(&vs, "1");
    assert_eq!(result["spec"]["http"], json!([{"route": [weighted(base.clone(), 80), weighted(canary.clone(), 20)]}]));
    assert_eq!((&result["labels"], &result["annotations"]), (&json!({}), &json!({})));
    assert_eq!(
        step(&vs, "2")["spec"]["http"],
        json!([{"match": [{"headers": {"version": {"exact": "canary"}}}], "route": [canary]}, {"route": [base]}])
    );
    for n in ["1", "2"] {
        assert_eq!(
            step(&dr, n)["spec"]["subsets"],
            json!([
                {"name": "version-base", "labels": {"version": "base"}},
                {"name": "canary", "labels": {"version": "canary"}}
            ])
        );
    }
}

#[test]
fn run_without_a_rollout() {
    let place = Place::new(&[("matches.yaml", "- headers: [{name: X-Canary, value: \"1\"}]\n")]);
    let vs = example("virtualservice.yaml");
    let services = ["--stable", "nginx-service", "--canary", "nginx-canary"];
    let run = |more: &[&str]| {
        let args: Vec<&str> = ["run", "--object", &vs].iter().chain(&services).chain(more).copied().collect();
        place.run(&args)
    };
    let (code, out, _) = run(&["--weight", "20"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("annotations: {}\nlabels: {}\nspec:\n"), "{out}");
    assert!(out.contains("        host: nginx-canary\n      weight: 20\n"), "{out}");
    let (code, out, _) = run(&["--matches", "matches.yaml"]);
    assert!(code == 0 && out.contains("        x-canary:\n          exact: \"1\"\n"), "{out}");

    let dr = example("destinationrule.yaml");
    let (code, out, _) = place.run(&[
        "run",
        "--object",
        &dr,
        "--stable",
        "nginx-service",
        "--canary",
        "nginx-service",
        "--weight",
        "5",
        "--pod-label",
        "version=v2",
    ]);
    assert!(code == 0 && out.contains("      version: v2\n    name: canary\n"), "{out}");
}

#[test]
fn run_reads_stdin_and_prints_warnings_aside() {
    let place = Place::new(&[("s.lua", "print('a', 1)\nobj.data.spec.e = {}\nreturn obj.data")]);
    let args = ["run", "--script", "s.lua", "--object", "-", "--weight", "1", "--stable", "a", "--canary", "b"];
    let mut child =
        place.command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{apiVersion: v1, kind: X, metadata: {labels: {l: m}}, spec: {size: 1}}")
        .unwrap();
    let (code, out, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "annotations: {}\nlabels:\n  l: m\nspec:\n  e: null\n  size: 1\n");
    assert!(err.starts_with("a\t1\nwarning: spec.e: "), "{err}");
}

#[test]
fn run_errors_name_script_and_line() {
    let place = Place::new(&[("rollout.yaml", &fs::read_to_string(example("rollout.yaml")).unwrap())]);
    let vs = example("virtualservice.yaml");
    let start = std::time::Instant::now();
    for (source, message) in [
        ("local a = nil\nreturn a.b", "error: s.lua:2: "),
        ("return (", "error: s.lua:1: "),
        ("while true do end", "error: s.lua:1: "),
        ("pcall(function() while true do end end) return obj.data", "error: s.lua:1: "),
        ("return ('x'):rep(2^30)", "error: s.lua:1: the script asked for more than its 64 MiB of memory"),
        ("return 5", "error: s.lua: "),
        ("return {}", "error: s.lua: spec of the script's result is "),
        ("obj.data.labels = {a = 1} return obj.data", "error: s.lua: labels[\"a\"] of the script's result is a number"),
    ] {
        place.write("s.lua", source);
        let (code, out, err) =
            place.run(&["run", "--script", "s.lua", "--object", &vs, "--rollout", "rollout.yaml", "--step", "1"]);
        assert_eq!((code, out.as_str()), (1, ""), "{source}: {err}");
        assert!(err.starts_with(message), "{source}: {err}");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn run_refuses_a_wrong_command_line() {
    let place = Place::new(&[
        ("two.yaml", "a: 1\n---\nb: 2\n"),
        ("typo.yaml", "- header: [{name: a, value: b}]\n"),
        ("nospec.yaml", "{apiVersion: g.io/v1, kind: K}"),
        ("unknown.yaml", "{apiVersion: g.io/v1, kind: K, spec: {}}"),
        ("pod.yaml", "{apiVersion: v1, kind: Pod, spec: {}}"),
    ]);
    let (vs, rollout) = (example("virtualservice.yaml"), example("rollout.yaml"));
    let services = ["--stable", "a", "--canary", "b"];
    let check = |args: &[&str], message: &str| {
        let (code, out, err) = place.run(&[&["run", "--object"], args].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{args:?} {err}");
        assert!(err.contains(message), "{args:?}: {err}");
    };
    check(&[&vs, "--rollout", &rollout], "has 2 steps: choose one with --step");
    check(&[&vs, "--rollout", &rollout, "--step", "3"], "has steps 1 to 2");
    check(&[&vs, "--rollout", &rollout, "--step", "0"], "has steps 1 to 2");
    check(&[&vs, "--rollout", &rollout, "--step", "1", "--weight", "5"], "cannot be used with");
    check(&[&vs, "--rollout", "pod.yaml"], "pod.yaml: kind: Pod is neither Rollout nor TrafficRouting");
    check(&[&vs, "--weight", "20"], "--stable <SERVICE>");
    check(&[&[vs.as_str()], &services[..]].concat(), "nothing to do");
    check(&[&[vs.as_str(), "--weight", "101"], &services[..]].concat(), "101 is not in 0..=100");
    check(&[&[vs.as_str(), "--matches", "typo.yaml"], &services[..]].concat(), "typo.yaml: unknown key [0].header");
    check(&[&["two.yaml", "--weight", "1"], &services[..]].concat(), "two.yaml: holds 2 documents instead of one");
    check(&[&["gone.yaml", "--weight", "1"], &services[..]].concat(), "gone.yaml: cannot be read: ");
    check(&[&["nospec.yaml", "--weight", "1"], &services[..]].concat(), "nospec.yaml: spec must be an object");
    check(
        &[&["unknown.yaml", "--weight", "1"], &services[..]].concat(),
        "no script for g.io/K in lua-scripts/g.io/K/trafficRouting.lua",
    );
    assert!(Path::new(&vs).is_file());
}

#[test]
fn help_documents_the_exit_codes() {
    let place = Place::new(&[]);
    for command in ["test", "run"] {
        let (code, out, _) = place.run(&[command, "--help"]);
        assert_eq!(code, 0);
        assert!(
            out.contains("Exit codes: 0 ") && out.contains("lua-scripts/<group>/<Kind>/trafficRouting.lua"),
            "{out}"
        );
    }
}

#[test]
fn coverage_tells_what_no_case_runs() {
    let script = format!("if obj.canaryWeight > 90 then\n  error('too much')\nend\n{COUNT}");
    let place = Place::new(&[(SCRIPT, &script), (CASE, &case(SIX))]);
    let (code, out, _) = place.run(&["test", "--coverage"]);
    let tail = "lua-scripts/g.io/Thing/trafficRouting.lua: 3 of 4 lines (75.0 %), 1 of 2 branches (50.0 %)\n  \
                never run: line 2\n  never true: 1:4\n";
    assert!(code == 0 && out.ends_with(tail), "{code}\n{out}");
    let (_, out, _) = place.run(&["test", "--coverage", "-o", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["coverage"][0]["neverTrue"], json!(["1:4"]));
    let (code, _, err) = place.run(&["test", "--coverage", "-o", "junit"]);
    assert!(code == 2 && err.contains("text or JSON"), "{err}");
}

#[test]
fn list_prints_scripts_and_features() {
    let place = Place::new(&[]);
    let (code, out, err) = place.run(&["list"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("OBJECT ") && !out.contains("prelude"), "{out}");
    let row = out.lines().find(|l| l.starts_with("networking.istio.io/VirtualService ")).unwrap();
    assert!(row.contains(" v1,v1beta1,v1alpha3 ") && row.contains(" A4 ") && row.contains(" weight header "), "{row}");
    let (code, out, _) = place.run(&["list", "-o", "json"]);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    let row = rows.iter().find(|r| r["script"] == "networking.istio.io/DestinationRule/trafficRouting.lua").unwrap();
    assert_eq!((code, &row["accept"], row["hash"].as_str().unwrap().len()), (0, &json!("A4"), 64));
    assert!(row["features"].as_array().unwrap().contains(&json!("subset")), "{row}");
}

/// A class's script as users of the original controller wrote them: its globals, and a table of annotations.
const CLASS: &str = "\
annotations = {}
if obj.annotations then annotations = obj.annotations end
annotations['gw/canary'] = 'true'
annotations['gw/weight'] = nil
annotations['gw/header'] = nil
if obj.weight ~= '-1' then annotations['gw/weight'] = obj.weight end
if obj.matches then
  for _, match in ipairs(obj.matches) do
    local header = match.headers[1]
    annotations['gw/header'] = header.name .. '=' .. header.value .. '@' .. obj.canaryService
  end
end
return annotations
";

const INGRESS: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {gw/timeout: 3s, cert-manager.io/issuer: x}
spec:
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}]
";

const INGRESS_ROLLOUT: &str = "\
apiVersion: rollouts.kruise.io/v1beta1
kind: Rollout
metadata: {name: web}
spec:
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  strategy:
    canary:
      steps:
      - {traffic: 20%}
      - {replicas: 1, matches: [{headers: [{name: a, value: b}]}]}
      trafficRoutings: [{service: web, ingress: {classType: mine, name: web}}]
";

fn ingress_case(expected: &str) -> String {
    let indented = |text: &str| text.lines().map(|l| format!("  {l}\n")).collect::<String>();
    format!("rollout:\n{}original:\n{}expected:\n{expected}", indented(INGRESS_ROLLOUT), indented(INGRESS))
}

#[test]
fn a_class_script_is_tested_by_the_canary_ingress_that_it_makes() {
    let annotations = "\
- {apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {annotations: {gw/canary: 'true', gw/weight: '20', gw/timeout: 3s}}}
- {apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {annotations: {gw/canary: 'true', gw/header: a=b@web-canary, gw/timeout: 3s}}}
";
    let place = Place::new(&[("lua-scripts/ingress/mine.lua", CLASS), ("rollout.yaml", INGRESS_ROLLOUT)]);
    place.write("testcases/ingress/mine/annotations.yaml", &ingress_case(annotations));
    // With a spec, the whole object is compared.
    let backend = |service: &str| {
        annotations.replace(
            "kind: Ingress,",
            &format!(
                "kind: Ingress, spec: {{rules: [{{http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, \
                 port: {{name: http}}}}}}}}]}}}}]}},"
            ),
        )
    };
    place.write("testcases/ingress/mine/whole.yaml", &ingress_case(&backend("web-canary")));
    let (code, out, err) = place.run(&["test"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("ok    testcases/ingress/mine/annotations.yaml (2 steps)\n"), "{out}");

    place.write("testcases/ingress/mine/whole.yaml", &ingress_case(&backend("web")));
    let (code, out, _) = place.run(&["test", "--filter", "whole"]);
    assert_eq!(code, 1);
    assert!(out.contains("-            name: web\n") && out.contains("+            name: web-canary\n"), "{out}");

    place.write("ingress.yaml", INGRESS);
    let (code, out, err) = place.run(&["run", "--object", "ingress.yaml", "--rollout", "rollout.yaml", "--step", "2"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("gw/header: a=b@web-canary\n") && out.contains("name: web-canary\n"), "{out}");
    let flags = ["--class", "mine", "--weight", "5", "--stable", "web", "--canary", "web-canary"];
    let (code, out, _) = place.run(&[&["run", "--object", "ingress.yaml"][..], &flags].concat());
    assert!(code == 0 && out.contains("gw/weight: \"5\"\n"), "{out}");

    let (code, out, _) = place.run(&[
        "run",
        "--object",
        "ingress.yaml",
        "--class",
        "none",
        "--weight",
        "5",
        "--stable",
        "a",
        "--canary",
        "b",
    ]);
    assert_eq!((code, out.as_str()), (2, ""));
}

/// docs/gateways/features.md has the table of the scripts' headers. `BLESS=1` writes it.
#[test]
fn the_features_are_those_of_the_headers() {
    let (code, table, _) = Place::new(&[]).run(&["list", "-o", "markdown"]);
    assert_eq!(code, 0);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gateways/features.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find("| Object |").unwrap();
    let end = begin + text[begin..].find("\n\n").map_or(text[begin..].len(), |at| at + 1);
    let made = format!("{}{table}{}", &text[..begin], &text[end..]);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(text == made || std::env::var_os("BLESS").is_some(), "run BLESS=1 cargo test --test lua_cli:\n{table}");
}

/// Plays a section of docs/scripts.md to the letter: files that it names are written, commands of tidegate are run in order,
/// and print what it says.
#[test]
fn the_first_script_is_written_as_the_page_says() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scripts.md")).unwrap();
    let section = page.split("\n## ").find(|s| s.starts_with("Write your own in ten minutes")).unwrap();
    let place = Place::new(&[]);
    let (mut before, mut commands) = ("", 0);
    for (i, part) in section.split("```").enumerate() {
        if i % 2 == 0 {
            before = part;
            continue;
        }
        let (kind, text) = part.split_once('\n').unwrap();
        let named = before.trim_end().lines().last().unwrap_or_default();
        match kind {
            "yaml" => {
                let file = named.split('`').nth(1).unwrap();
                place.write(file, text);
            }
            "console" => {
                for command in text.split("$ ").filter(|c| c.starts_with("tidegate lua ")) {
                    let (line, expected) = command.split_once('\n').unwrap();
                    let args: Vec<&str> = line.split_whitespace().skip(2).collect();
                    let (code, out, err) = place.run(&args);
                    let known = |text: &str| {
                        let words = text.lines().map(|l| l.split(" in ").next().unwrap_or_default().to_owned());
                        words.collect::<Vec<_>>().join("\n")
                    };
                    let (found, wanted) = if line.contains(" init ") {
                        (out.clone(), expected.to_owned())
                    } else {
                        (known(&out), known(expected))
                    };
                    assert_eq!(found.trim_end(), wanted.trim_end(), "{line}\n{err}");
                    assert_eq!(code, 0, "{line}\n{err}");
                    commands += 1;
                }
            }
            // What is shown of a file that a command has written.
            "lua" => {
                let file = named.split('`').nth(1).unwrap();
                let written = fs::read_to_string(place.0.path().join(file)).unwrap();
                assert!(written.contains(text), "{file}:\n{written}");
            }
            other => panic!("a block of {other}"),
        }
    }
    assert_eq!(commands, 5);
}

#[test]
fn init_writes_over_nothing() {
    let object = "apiVersion: mesh.example.com/v1\nkind: Route\nmetadata: {name: r}\nspec:\n  to: [{host: app.shop.svc, percent: 30}, {host: web, percent: 70}]\n";
    let place = Place::new(&[
        ("r.yaml", object),
        ("bare.yaml", &object.replace(", percent: 30", "").replace(", percent: 70", "")),
    ]);
    let (code, out, err) = place.run(&["init", "--from", "r.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("Service app in spec.to, by host, share in percent\n"), "{out}");
    assert_eq!(place.run(&["test"]).0, 0);
    let case = fs::read_to_string(place.0.path().join("testcases/mesh.example.com/Route/weight.yaml")).unwrap();
    assert!(case.contains("host: app-canary.shop.svc"), "{case}");
    let (code, _, err) = place.run(&["init", "--from", "r.yaml"]);
    assert!(code == 2 && err.contains("is there already; --force"), "{err}");
    let (code, _, err) = place.run(&["init", "--from", "bare.yaml", "--force"]);
    assert!(code == 2 && err.contains("name the Service by --service"), "{err}");
    assert_eq!(place.run(&["init", "--from", "bare.yaml", "--force", "--service", "app"]).0, 0);
    assert_eq!(place.run(&["test"]).0, 0);
}
