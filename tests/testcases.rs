//! Every case file under `testcases/` for a script is one test, named by its path.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod situations;

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use tidegate::lua::testcase::{CaseResult, ScriptSource, discover, run_case};
use tidegate::lua::{Engine, Library};

fn main() {
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = discover(&[root.join("testcases")], false).expect("testcases/ can be read");
    assert!(!found.cases.is_empty(), "no case found under testcases/");
    let every = Trial::test("every_script_has_twelve_cases", {
        let cases = found.cases.clone();
        move || every_script_has_twelve_cases(&root.join("testcases"), &cases)
    });
    let situations = Trial::test("every_script_is_shown_in_every_situation", {
        let cases = found.cases.clone();
        move || situations::every_script_is_shown_in_every_situation(&root.join("testcases"), &cases)
    });
    let engine = Engine::new(std::thread::available_parallelism().map_or(1, usize::from));
    let trials =
        found.cases.into_iter().map(|path| trial(root, path, engine.clone())).chain([every, situations]).collect();
    libtest_mimic::run(&args, trials).exit();
}

/// Those of the status' script, in `accepted`, and aliases of a class aside.
fn every_script_has_twelve_cases(folder: &Path, cases: &[PathBuf]) -> Result<(), Failed> {
    let few: Vec<String> = Library::list()
        .into_iter()
        .map(|script| script.name.trim_end_matches("/trafficRouting.lua").trim_end_matches(".lua").to_owned())
        .filter(|of| cases.iter().filter(|case| case.parent() == Some(&folder.join(of))).count() < 12)
        .collect();
    if few.is_empty() { Ok(()) } else { Err(format!("fewer than 12 cases: {}", few.join(", ")).into()) }
}

fn trial(root: &Path, path: PathBuf, engine: Engine) -> Trial {
    let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
    let root = root.to_owned();
    Trial::test(name, move || verdict(&run_case(&engine, &path, &ScriptSource::under(root))))
}

fn verdict(case: &CaseResult) -> Result<(), Failed> {
    let steps = case.steps.as_ref().map_err(|e| Failed::from(e.as_str()))?;
    let mut text = String::new();
    for step in steps {
        let message = step.verdict.message();
        if !message.is_empty() {
            text += &format!("step {}: {message}\n{}\n", step.step, step.verdict.detail().unwrap_or_default());
        }
        // A built-in script that returns something doubtful is wrong.
        for warning in &step.warnings {
            text += &format!("step {}: warning: {warning}\n", step.step);
        }
    }
    if text.is_empty() { Ok(()) } else { Err(text.into()) }
}
