//! The binary's command line: names under which it is the kubectl plugin, usage errors, exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");

/// Exit code, output and errors. There is no cluster: nothing listens on port 1.
fn run(program: &Path, arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("config");
    let config = "{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], \
                  contexts: [{name: c, context: {cluster: c, user: u}}], current-context: c}";
    std::fs::write(&kubeconfig, config).unwrap();
    let output = Command::new(program).args(arguments).env("KUBECONFIG", kubeconfig).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn linked(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::os::unix::fs::symlink(BINARY, &path).unwrap();
    path
}

#[test]
fn under_a_plugin_name_it_is_the_plugin() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kubectl-kruise", "kubectl-tidegate"] {
        let (code, help, _) = run(&linked(&dir, name), &["rollout", "--help"]);
        assert_eq!(code, 0);
        assert!(help.contains(&format!("Usage: {} rollout", name.replacen('-', " ", 1))), "{help}");
        for command in ["approve", "status", "get", "describe"] {
            assert!(help.contains(command), "{help}");
        }
        let (code, _, errors) = run(&dir.path().join(name), &["controller"]);
        assert_eq!(code, 2, "the plugin has no controller: {errors}");
    }
}

#[test]
fn a_copy_is_the_plugin_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubectl-kruise");
    // By another process: a test that forks meanwhile would inherit the copy open for writing, and it could not be run.
    assert!(Command::new("cp").arg(BINARY).arg(&path).status().unwrap().success());
    let (code, _, errors) = run(&path, &["rollout", "approve", "rollout/web"]);
    assert_eq!(code, 1);
    assert!(
        errors.starts_with("error: rollout.rollouts.kruise.io \"web\" in namespace \"default\": cannot reach"),
        "{errors}"
    );
}

#[test]
fn both_ways_to_call_it_do_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = linked(&dir, "kubectl-kruise");
    for arguments in [
        &["rollout", "approve", "rollout/web", "-n", "shop"][..],
        &["rollout", "-n", "shop", "status", "rollout", "web"],
        &["rollout", "get", "-n", "shop"],
        &["rollout", "describe", "ro/web", "--context", "nowhere"],
    ] {
        assert_eq!(run(&plugin, arguments), run(Path::new(BINARY), arguments), "{arguments:?}");
    }
    // As the original: flags before the command, and describe without `rollout`.
    let (code, _, errors) = run(&plugin, &["-n", "shop", "describe", "rollout", "web"]);
    assert_eq!(code, 1);
    assert!(errors.contains("\"web\" in namespace \"shop\""), "{errors}");
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_says_what_would_be_right() {
    for (arguments, part) in [
        (&["rollout"][..], "Usage:"),
        (&["rollout", "approve"], "<RESOURCE>..."),
        (&["rollout", "approve", "web"], "write rollout/web or rollout web"),
        (&["rollout", "approve", "deployment/web"], "\"deployment\" is not a Rollout"),
        (&["rollout", "approve", "rollout"], "name at least one Rollout"),
        (&["rollout", "approve", "rollout/web", "--step", "0"], "--step"),
        (&["rollout", "approve", "rollout/web", "--dry-run=maybe"], "[possible values: none, client, server]"),
        (&["rollout", "approve", "rollout/web", "-o", "wide"], "[possible values: json, yaml, name]"),
        (&["rollout", "status", "rollout/web", "--timeout", "soon"], "write such as 30s, 5m or 1h30m"),
        (&["rollout", "status", "rollout/web", "--until", "friday"], "[possible values: completed, paused]"),
        (&["rollout", "get", "rollout/A"], "cannot be the name of a Rollout"),
        (&["rollout", "abort", "rollout/web"], "unrecognized subcommand"),
        (&["controller", "--log-level", "tidegate=loud"], "such as info,tidegate=debug"),
        (&["controller", "--log-format", "xml"], "[possible values: human, json]"),
    ] {
        let (code, out, errors) = run(Path::new(BINARY), arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {errors}");
        assert!(errors.contains(part), "{arguments:?}: {errors}");
    }
}

#[test]
fn no_cluster_is_exit_code_1_with_the_remedy() {
    for arguments in [
        &["rollout", "approve", "rollout/web"][..],
        &["rollout", "status", "rollout/web"],
        &["rollout", "get"],
        &["rollout", "get", "-w"],
        &["rollout", "describe", "rollout/web"],
    ] {
        let arguments = [arguments, &["--request-timeout", "2s"]].concat();
        let (code, _, errors) = run(Path::new(BINARY), &arguments);
        assert_eq!(code, 1, "{arguments:?}: {errors}");
        assert!(errors.contains("cannot reach http://127.0.0.1:1/") && errors.contains("--kubeconfig"), "{errors}");
    }
    let (code, _, errors) = run(Path::new(BINARY), &["rollout", "get", "--context", "nowhere"]);
    assert_eq!(code, 1);
    assert!(errors.contains("context \"nowhere\"") && errors.contains("get-contexts"), "{errors}");
}
