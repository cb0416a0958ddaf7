//! Changes that no case can notice because they change nothing, as a file says.

use std::path::Path;

use serde::Deserialize;

use super::changes::Change;
use crate::yaml;

/// The default place of the file.
pub(super) const FILE: &str = "lua-scripts/mutate-allow.yaml";

/// One entry of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allowed {
    /// Path of the script below the folder of scripts.
    pub script: String,
    /// The line's text, without the blanks around it.
    pub line: String,
    /// The change as it is reported, `before → after`.
    pub change: String,
    /// Why nobody can tell.
    pub reason: String,
}

impl Allowed {
    /// Whether it speaks of this change.
    pub fn covers(&self, script: &str, source: &str, change: &Change) -> bool {
        let line = source.lines().nth(change.line.saturating_sub(1)).unwrap_or_default();
        self.script == script && self.line == line.trim() && self.change == change.text(source)
    }
}

/// Reads the file; the default one need not exist.
pub(super) fn read(path: Option<&Path>) -> Result<Vec<Allowed>, String> {
    let path = match path {
        Some(path) => path,
        None if !Path::new(FILE).is_file() => return Ok(Vec::new()),
        None => Path::new(FILE),
    };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
    let entries: Vec<Allowed> = yaml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    match entries.iter().find(|e| e.reason.trim().is_empty()) {
        Some(entry) => Err(format!("{}: {}, line {:?}: the reason is empty", path.display(), entry.script, entry.line)),
        None => Ok(entries),
    }
}
