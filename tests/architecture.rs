//! The shape of the code: what the pure rooms may not name, how long a file may be, and that no path of a machine is in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PURE: [&str; 5] = ["src/analysis/", "src/api/", "src/rollout/", "src/traffic/", "src/workload/"];

/// What makes a function depend on more than its arguments. `kube::core` and its derives are types only.
const IMPURE: [&str; 17] = [
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::api::Api",
    "kube::runtime",
    "kube_runtime",
    "tokio",
    "futures",
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "rand::",
];

/// Places on the machine of whoever wrote it. What a program looks for on every system (`/proc`, `/etc`) is none.
const MACHINE: [&str; 6] = ["/home/", "/root/", "/work/", "/Users/", "/mnt/", "C:\\"];

const SMELL: usize = 400;
const LIMIT: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that are kept in the repository, or, without git, all that are not built.
fn files() -> Vec<PathBuf> {
    let git = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    if let Ok(output) = git
        && output.status.success()
        && !output.stdout.is_empty()
    {
        let names = String::from_utf8(output.stdout).unwrap();
        return names
            .split('\0')
            .filter(|n| !n.is_empty())
            .map(PathBuf::from)
            .filter(|p| root().join(p).is_file())
            .collect();
    }
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if path != Path::new("target") && path != Path::new(".git") {
                    folders.push(path);
                }
            } else {
                found.push(path);
            }
        }
    }
    found
}

/// Path and text of the Rust files of the repository.
fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let sources: Vec<_> =
        rust.map(|p| (p.to_str().unwrap().replace('\\', "/"), fs::read_to_string(root().join(&p)).unwrap())).collect();
    assert!(sources.iter().any(|(path, _)| path == "src/lib.rs"), "the sources were not found");
    sources
}

/// The lines that are compiled into the library: without comments and without what follows the file's tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
}

fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        boundary(line[..at].chars().next_back())
            && (word.ends_with(':') || boundary(line[at + word.len()..].chars().next()))
    })
}

/// `use a::{b, c::d};` as `a::b a::c::d`, so that a nested import hides nothing.
fn imports(text: &str) -> Vec<String> {
    fn expand(prefix: &str, tree: &str, out: &mut Vec<String>) {
        let (mut depth, mut start) = (0_i32, 0);
        let mut parts = Vec::new();
        for (i, c) in tree.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&tree[start..i]);
                    start = i + 1;
                }
                _ => {}
            }
        }
        parts.push(&tree[start..]);
        for part in parts.into_iter().map(str::trim).filter(|p| !p.is_empty()) {
            match part.split_once('{') {
                Some((head, rest)) => expand(&format!("{prefix}{head}"), rest.trim_end().trim_end_matches('}'), out),
                None => out.push(format!("{prefix}{part}")),
            }
        }
    }
    let text: String = code(text).map(|(_, line)| format!("{line} ")).collect();
    let mut out = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let is_word = text[..at].chars().next_back().is_none_or(|c| c.is_whitespace());
        if let (true, Some((tree, _))) = (is_word, text[at + 4..].split_once(';')) {
            let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
            expand("", &tree.replace(" {", "{"), &mut out);
        }
    }
    out
}

#[test]
fn pure_rooms_name_nothing_impure() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !PURE.iter().any(|room| path.starts_with(room)) || path.ends_with("/tests.rs") || path.contains("/tests/") {
            continue;
        }
        for word in IMPURE {
            wrong.extend(code(&text).filter(|(_, l)| names(l, word)).map(|(n, _)| format!("{path}:{n} names {word}")));
            wrong.extend(imports(&text).iter().filter(|i| names(i, word)).map(|i| format!("{path} imports {i}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn arrows_point_one_way() {
    // What a room may not use, for each room.
    let outer = ["gather", "apply", "controller", "cli", "sim", "telemetry", "webhook", "rehearsal"];
    let mut forbidden: Vec<(&str, Vec<&str>)> = vec![
        ("src/api/", [&outer[..], &["rollout", "workload", "traffic", "lua", "analysis"]].concat()),
        ("src/analysis/", [&outer[..], &["rollout", "workload", "traffic", "lua"]].concat()),
        ("src/workload/", [&outer[..], &["rollout", "traffic", "lua"]].concat()),
        ("src/traffic/", [&outer[..], &["rollout"]].concat()),
        ("src/rollout/", outer.to_vec()),
        ("src/lua/", [&outer[..], &["rollout", "workload"]].concat()),
    ];
    forbidden.push(("src/gather/", vec!["controller", "cli", "sim", "rehearsal"]));
    forbidden.push(("src/apply/", vec!["controller", "cli", "sim", "rehearsal"]));
    forbidden.push(("src/controller/", vec!["cli", "sim", "webhook", "rehearsal"]));
    forbidden.push(("src/webhook/", vec!["apply", "cli", "controller", "gather", "sim", "rehearsal"]));
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (room, others) in forbidden.iter().filter(|(room, _)| path.starts_with(room)) {
            let paths = imports(&text).into_iter().chain(code(&text).map(|(_, l)| l.to_owned()));
            for line in paths {
                for other in others.iter().filter(|o| names(&line, &format!("crate::{o}"))) {
                    wrong.push(format!("{path}: {room} uses {other}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let mut lengths: Vec<_> = sources().into_iter().map(|(path, text)| (text.lines().count(), path)).collect();
    lengths.sort();
    for (lines, path) in lengths.iter().filter(|(lines, _)| *lines > SMELL) {
        eprintln!("{path} has {lines} lines: look for a joint");
    }
    let long: Vec<_> = lengths.iter().filter(|(lines, _)| *lines > LIMIT).collect();
    assert!(long.is_empty(), "more than {LIMIT} lines: {long:?}");
}

#[test]
fn no_path_of_a_machine() {
    let mut wrong = Vec::new();
    for path in files() {
        // This file says what it looks for.
        if path == Path::new("tests/architecture.rs") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (n, line) in text.lines().enumerate() {
            wrong.extend(
                MACHINE.iter().filter(|m| line.contains(**m)).map(|m| format!("{}:{} has {m}", path.display(), n + 1)),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_looking_glass_sees() {
    assert!(names("let t = Timestamp::now();", "Timestamp::now"));
    assert!(!names("let tokios = 1;", "tokio"));
    assert!(names("tokio::spawn(x)", "tokio"));
    assert_eq!(
        imports(
            "use std::{env, fs::{self, File}};\nuse kube::{\n    Api,\n    api::{ListParams, Patch},\n};\n// use tokio::x;\n"
        ),
        ["std::env", "std::fs::self", "std::fs::File", "kube::Api", "kube::api::ListParams", "kube::api::Patch"]
    );
    assert_eq!(code("a // tokio\n#[cfg(test)]\nmod tests {}\n").collect::<Vec<_>>(), [(1, "a ")]);
}
