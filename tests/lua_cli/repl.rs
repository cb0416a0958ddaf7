//! `tidegate lua repl`, with lines as a person types them.

use std::{io::Write, process::Stdio};

use crate::{Place, told};

const SPLIT: &str = "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {name: app}\n\
                     spec: {service: root, backends: [{service: app, weight: 100}]}\n";
const STEP: [&str; 8] = ["--object", "split.yaml", "--weight", "20", "--stable", "app", "--canary", "app-canary"];

fn said(lines: &str) -> (i32, String, String) {
    let place = Place::new(&[("split.yaml", SPLIT)]);
    let mut command = place.command(&[&["repl"], &STEP[..]].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    told(child.wait_with_output().unwrap())
}

#[test]
fn lines_see_what_a_script_sees() {
    for (lines, answer) in [
        ("obj.stableWeight\n", "80\n"),
        ("obj.data.spec.backends\n", "- service: app\n  weight: 100\n"),
        ("tidegate.names_service('app.shop.svc', 'app')\nnothing\n", "true\nnil\n"),
        // What was shown is not shown again.
        ("local a = 1 print('once')\na + 1\nprint(a)\na\n", "once\n2\n1\n1\n"),
        ("for i = 1, 2 do\n  print(i)\nend\n", "1\n2\n"),
        ("obj.data.spec.service = 'other'\nobj.data.spec.service\n.forget\nobj.data.spec.service\n", "other\nroot\n"),
        ("local a = 1\n.quit\na\n", ""),
    ] {
        assert_eq!(said(lines), (0, answer.to_owned(), String::new()), "{lines}");
    }
}

/// A line that is wrong changes nothing.
#[test]
fn mistakes_are_told_and_forgotten() {
    let (code, out, _) = said("local a = 1\na.b.c = 2\na = = 2\n(\n\na\ntidegate.fail('no')\n");
    assert_eq!(code, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("error: attempt to index number"), "{out}");
    assert!(lines[1].starts_with("error: "), "{out}");
    assert_eq!(lines[2..], ["1", "error: TrafficSplit app: no"], "{out}");
}

#[test]
fn the_script_can_be_run() {
    let (_, out, _) = said("obj.data.spec.service = 'other'\n.run\n");
    assert!(out.starts_with("annotations: {}\n") && out.contains("service: app-canary\n    weight: 20\n"), "{out}");
    assert!(out.contains("  service: root\n"), "the object as it was: {out}");
}

#[test]
fn the_object_is_a_file() {
    let place = Place::new(&[]);
    let (code, _, err) = place.run(&["repl", "--object", "-", "--weight", "20", "--stable", "a", "--canary", "b"]);
    assert_eq!((code, err.as_str()), (2, "error: --object must be a file: stdin has the lines\n"));
}
