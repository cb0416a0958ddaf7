//! Which script a case is run with.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::file::Case;
use crate::lua::{Library, Origin, Script, library};

/// The file name of every script of a networkRef.
pub const SCRIPT: &str = "trafficRouting.lua";
/// The file name of every script that reads a status.
pub const ACCEPTED: &str = "accepted.lua";
/// The folder of cases beside a script, in the original controller's layout.
pub const TESTDATA: &str = "testdata";

/// Finds the script of a case. The first of these that exists:
///
/// 1. the script given for all cases;
/// 2. `trafficRouting.lua` beside the `testdata` folder that holds the case;
/// 3. `lua-scripts/<group>/<Kind>/trafficRouting.lua`, or `lua-scripts/ingress/<class>.lua`, under `root`, so that an
///    author edits and tests without a build;
/// 4. the built-in script for the original's group and kind, or for its class.
#[derive(Debug, Default)]
pub struct ScriptSource {
    given: Option<Script>,
    root: PathBuf,
    files: Mutex<HashMap<PathBuf, Script>>,
}

impl ScriptSource {
    /// One script for all cases.
    pub fn one(script: Script) -> Self {
        ScriptSource { given: Some(script), ..Self::default() }
    }

    /// Scripts beside the cases, under `root`, or built in.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        ScriptSource { root: root.into(), ..Self::default() }
    }

    /// The script of this case.
    ///
    /// # Errors
    /// When there is none, or its file cannot be read; names the places that were looked at.
    pub fn script(&self, case: &Case) -> Result<Script, String> {
        let folder = case.path.parent().filter(|p| p.file_name().is_some_and(|n| n == TESTDATA));
        let beside = folder.and_then(Path::parent).map(|p| p.join(SCRIPT));
        match case.plan.class_for(&case.original) {
            Some(class) => self.for_class(class),
            None => self.find(beside, case.original.group(), &case.original.kind),
        }
    }

    /// The script for objects of this group and kind: given, under the root, or built in.
    ///
    /// # Errors
    /// As [`ScriptSource::script`].
    pub fn for_kind(&self, group: &str, kind: &str) -> Result<Script, String> {
        self.find(None, group, kind)
    }

    /// The script that reads the status of objects of this group and kind: given, under the root, or built in.
    ///
    /// # Errors
    /// As [`ScriptSource::script`].
    pub fn for_status(&self, group: &str, kind: &str) -> Result<Script, String> {
        if let Some(script) = &self.given {
            return Ok(script.clone());
        }
        let local = self.root.join("lua-scripts").join(group).join(kind).join(ACCEPTED);
        if local.is_file() {
            return self.file(&local);
        }
        Library::accepted(group, kind).ok_or_else(|| {
            format!("no script that reads the status of {group}/{kind} in {}, the built-in scripts", local.display())
        })
    }

    /// The script for Ingresses of this class: given, under the root, or built in.
    ///
    /// # Errors
    /// As [`ScriptSource::script`].
    pub fn for_class(&self, class: &str) -> Result<Script, String> {
        if let Some(script) = &self.given {
            return Ok(script.clone());
        }
        let local = self.root.join("lua-scripts").join(library::ingress_path(class));
        if local.is_file() {
            return self.file(&local);
        }
        Library::ingress(class).ok_or_else(|| {
            let local = local.display();
            format!("no script for Ingress class {class} in {local}, the built-in scripts; name one with --script")
        })
    }

    fn find(&self, beside: Option<PathBuf>, group: &str, kind: &str) -> Result<Script, String> {
        if let Some(script) = &self.given {
            return Ok(script.clone());
        }
        let local = self.root.join("lua-scripts").join(group).join(kind).join(SCRIPT);
        for path in beside.iter().chain([&local]) {
            if path.is_file() {
                return self.file(path);
            }
        }
        Library::builtin(group, kind).ok_or_else(|| {
            let mut places: Vec<String> = beside.iter().chain([&local]).map(|p| p.display().to_string()).collect();
            places.push("the built-in scripts".to_owned());
            let target = if group.is_empty() { kind.to_owned() } else { format!("{group}/{kind}") };
            format!("no script for {target} in {}; name one with --script", places.join(", "))
        })
    }

    fn file(&self, path: &Path) -> Result<Script, String> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(script) = files.get(path) {
            return Ok(script.clone());
        }
        let script = load_script(path)?;
        files.insert(path.to_owned(), script.clone());
        Ok(script)
    }
}

/// Reads a script from a file; errors call it by its path.
///
/// # Errors
/// When the file cannot be read.
pub fn load_script(path: &Path) -> Result<Script, String> {
    let name = path.strip_prefix(".").unwrap_or(path).display().to_string();
    let source = std::fs::read_to_string(path).map_err(|e| format!("script {name} cannot be read: {e}"))?;
    Ok(Script::new(name, source, Origin::File(path.to_owned())))
}
