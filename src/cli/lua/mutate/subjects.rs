//! What is changed, and the cases that should notice it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    cli::lua::sources::{SCRIPTS, lua_files},
    lua::{
        Library, Origin, Script,
        testcase::{AnyCase, ScriptSource, discover, load_script},
    },
};

/// A case and the script that it is of.
pub(super) struct Run {
    pub case: AnyCase,
    pub script: Script,
}

/// A script, or a part of the prelude, that is changed.
pub(super) struct Subject {
    pub script: Script,
    /// Index in the prelude's parts, for one of them.
    pub part: Option<usize>,
    /// Indexes of the cases that it runs in.
    pub runs: Vec<usize>,
}

/// Everything that a command line asks for.
pub(super) struct Subjects {
    pub subjects: Vec<Subject>,
    pub runs: Vec<Run>,
    /// Parts of the prelude; those of the working directory before the built-in ones.
    pub prelude: Vec<Script>,
}

impl Subjects {
    /// Reads scripts and cases. Without paths: the folder `lua-scripts`, or the built-in scripts where there is none.
    pub fn read(paths: &[PathBuf], cases: &[PathBuf]) -> Result<Self, String> {
        let runs = runs(cases)?;
        let folder = PathBuf::from(SCRIPTS);
        let scripts = match paths {
            [] if !folder.is_dir() => {
                Library::list().into_iter().chain(Library::list_accepted()).chain(Library::shared()).collect()
            }
            [] => load(&[folder])?,
            paths => load(paths)?,
        };
        let prelude = prelude()?;
        let mut of: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (i, run) in runs.iter().enumerate() {
            of.entry(identity(&run.script)).or_default().push(i);
        }
        let subject = |script: Script| {
            let part = part_of(&script, &prelude);
            let runs = match part {
                Some(_) => (0..runs.len()).collect(),
                None => of.get(&identity(&script)).cloned().unwrap_or_default(),
            };
            if runs.is_empty() {
                let places = cases.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "no case in {places} is of {}: write one, or name its folder by --cases",
                    script.name
                ));
            }
            Ok(Subject { script, part, runs })
        };
        let subjects = scripts.into_iter().map(subject).collect::<Result<Vec<_>, String>>()?;
        if subjects.is_empty() {
            return Err("no script in the folders given".to_owned());
        }
        Ok(Self { subjects, runs, prelude })
    }
}

/// What an allow file calls the script: its path below the folder of scripts.
pub(super) fn short_name(script: &Script) -> &str {
    let name = script.name.as_str();
    let folder = name.find(SCRIPTS).map(|at| at + SCRIPTS.len());
    folder.and_then(|at| name.get(at..)).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

fn load(paths: &[PathBuf]) -> Result<Vec<Script>, String> {
    lua_files(paths)?.iter().map(|path| load_script(path)).collect()
}

fn runs(cases: &[PathBuf]) -> Result<Vec<Run>, String> {
    let found = discover(cases, false)?;
    let scripts = ScriptSource::under("");
    let run = |path: &PathBuf| {
        let case = AnyCase::read(path).map_err(|e| e.to_string())?;
        let script = case.script(&scripts).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Run { case, script })
    };
    found.cases.iter().map(run).collect()
}

fn prelude() -> Result<Vec<Script>, String> {
    let local = |part: Script| {
        let path = Path::new(SCRIPTS).join(&part.name);
        if path.is_file() { load_script(&path) } else { Ok(part) }
    };
    Library::shared().into_iter().map(local).collect()
}

fn part_of(script: &Script, prelude: &[Script]) -> Option<usize> {
    let wanted = identity(script);
    prelude.iter().position(|part| identity(part) == wanted)
}

fn identity(script: &Script) -> PathBuf {
    match &script.origin {
        Origin::File(path) => path.canonicalize().unwrap_or_else(|_| path.clone()),
        _ => PathBuf::from(&script.name),
    }
}
