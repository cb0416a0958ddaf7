//! `--watch`: what is run again when a file changes.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use crate::{CASE, COUNT, Place, SCRIPT, SEVEN, case};

/// A command that goes on until it is stopped, and the lines that it prints.
struct Going {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Going {
    fn begin(mut command: Command) -> Going {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Going { child, lines }
    }

    fn wait_for(&self, text: &str) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(20));
            if line.unwrap_or_else(|_| panic!("waited for {text:?}")).contains(text) {
                return;
            }
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn watch_runs_again_when_a_script_changes() {
    let place = Place::new(&[(SCRIPT, COUNT), (CASE, &case(SEVEN))]);
    let going = Going::begin(place.command(&["test", "--watch"]));
    going.wait_for("FAIL  testcases/g.io/Thing/a.yaml");
    going.wait_for("waiting for a change");
    place.write(SCRIPT, &COUNT.replace("obj.canaryWeight", "obj.canaryWeight + 1"));
    going.wait_for("changed: ");
    going.wait_for("ok    testcases/g.io/Thing/a.yaml");
    going.wait_for("waiting for a change");
    place.write(CASE, "original: [");
    going.wait_for("ERROR testcases/g.io/Thing/a.yaml");
}

#[test]
fn run_shows_what_a_change_makes_different() {
    let thing = "{apiVersion: g.io/v1, kind: Thing, metadata: {name: t}, spec: {size: 1}}";
    let place = Place::new(&[(SCRIPT, COUNT), ("thing.yaml", thing)]);
    let options = ["run", "--object", "thing.yaml", "--weight", "5", "--stable", "a", "--canary", "b", "--watch"];
    let going = Going::begin(place.command(&options));
    going.wait_for("size: 6");
    going.wait_for("waiting for a change");
    place.write(SCRIPT, &COUNT.replace("obj.canaryWeight", "obj.canaryWeight + 1"));
    going.wait_for("changed: ");
    going.wait_for("-  size: 6");
    going.wait_for("+  size: 7");
    going.wait_for("waiting for a change");
    place.write("thing.yaml", &thing.replace("size: 1", "size: 2"));
    going.wait_for("+  size: 8");
    drop(going);
    let (code, _, err) =
        place.run(&["run", "--object", "-", "--weight", "5", "--stable", "a", "--canary", "b", "--watch"]);
    assert!(code == 2 && err.contains("stdin can be read once only"), "{err}");
}
