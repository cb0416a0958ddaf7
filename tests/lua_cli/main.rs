//! `tidegate lua` as a user runs it: the real binary, its exit codes and what it prints.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod authors;
mod classes;
mod mutate;
mod repl;
mod run;
mod watch;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
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
