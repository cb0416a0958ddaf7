//! `tidegate lua run`.

use std::{fs, io::Write, path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};

use crate::{Place, example, told};

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
