//! Every known defect of the original has a test named by its ID, or a line in `tests/defects.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The last number that is given to a defect of the controller, D-nn.
const LAST: usize = 79;
/// The last one of a defect of its scripts, N-nn.
const LAST_OF_SCRIPTS: usize = 14;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, all) } else { all.push(path) }
    }
}

/// IDs in names of test functions and of test cases, `d_11_…` and `d-11-…`, with where they are.
fn tested(letter: &str) -> BTreeMap<usize, String> {
    let mut all = Vec::new();
    ["src", "tests", "testcases"].iter().for_each(|dir| files(&root().join(dir), &mut all));
    let (mut found, of_function, of_case) = (BTreeMap::new(), format!("fn {letter}_"), format!("{letter}-"));
    for file in all {
        let name = file.file_name().unwrap().to_string_lossy().to_lowercase();
        let is_rust = name.ends_with(".rs") && name != "defects.rs";
        let text = if is_rust { fs::read_to_string(&file).unwrap() } else { String::new() };
        let functions = text.split(&of_function).skip(1).map(|rest| rest.split('(').next().unwrap().split('_'));
        let ids = functions.flat_map(|words| {
            // `d_36_d_37_what_it_shows`.
            let words: Vec<String> = words.map(str::to_owned).collect();
            words.into_iter().filter(|w| w != letter).map_while(|w| w.parse().ok()).collect::<Vec<usize>>()
        });
        let case = name.strip_prefix(&of_case).and_then(|rest| rest.split('-').next()?.parse().ok());
        let of_cases = case.into_iter().filter(|_| file.starts_with(root().join("testcases")));
        for id in ids.chain(of_cases) {
            found.insert(id, file.strip_prefix(root()).unwrap().display().to_string());
        }
    }
    found
}

/// The lines of the table.
fn explained() -> BTreeMap<usize, String> {
    let text = fs::read_to_string(root().join("tests/defects.md")).unwrap();
    let row = |line: &str| {
        let (id, why) = line.strip_prefix("| D-")?.split_once(" | ")?;
        Some((id.parse().unwrap(), why.to_owned()))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn every_defect_has_a_test_or_a_reason() {
    let (tested, explained) = (tested("d"), explained());
    let missing: Vec<usize> = (1..=LAST).filter(|id| !tested.contains_key(id) && !explained.contains_key(id)).collect();
    assert!(missing.is_empty(), "neither tested nor explained: {missing:?}");
    let unknown: Vec<_> = tested.keys().chain(explained.keys()).filter(|id| !(1..=LAST).contains(*id)).collect();
    assert!(unknown.is_empty(), "no such defect: {unknown:?}");
}

#[test]
fn every_defect_of_a_script_has_a_test() {
    let ids: Vec<usize> = tested("n").into_keys().collect();
    assert_eq!(ids, (1..=LAST_OF_SCRIPTS).collect::<Vec<_>>());
}

#[test]
fn reasons_name_what_is_there() {
    for (id, why) in explained() {
        assert!(why.len() > 20, "D-{id:02} says {why:?}");
        for path in why.split('`').skip(1).step_by(2).filter(|p| p.contains('/') && !p.starts_with('/')) {
            assert!(root().join(path).exists(), "D-{id:02} names {path}, which is not there");
        }
    }
}
