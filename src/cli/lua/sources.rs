//! Script files that a command line names.

use std::path::{Path, PathBuf};

/// The folder of scripts in a working directory.
pub(super) const SCRIPTS: &str = "lua-scripts";

/// The Lua files of these paths, folders searched, sorted. Definitions for editors (`*.d.lua`) are no scripts.
pub(super) fn lua_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        let what = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if what.is_dir() {
            walk(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, files)?;
        } else if name.ends_with(".lua") && !name.ends_with(".d.lua") {
            files.push(path);
        }
    }
    Ok(())
}
