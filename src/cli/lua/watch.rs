//! Waiting for cases and scripts to change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// An editor writes a file in several steps; what follows a change within this time belongs to it.
const SETTLE: Duration = Duration::from_millis(100);

pub(super) struct Watcher {
    events: Receiver<notify::Result<notify::Event>>,
    // Watching ends when it is dropped.
    _watcher: RecommendedWatcher,
}

impl Watcher {
    pub(super) fn new(folders: &BTreeMap<PathBuf, RecursiveMode>) -> Result<Self, String> {
        let (send, events) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(send).map_err(|e| format!("cannot watch files: {e}"))?;
        for (folder, mode) in folders {
            watcher.watch(folder, *mode).map_err(|e| format!("cannot watch {}: {e}", folder.display()))?;
        }
        Ok(Watcher { events, _watcher: watcher })
    }

    /// Blocks until a script or case changed, and says which.
    pub(super) fn wait(&self) -> anyhow::Result<PathBuf> {
        loop {
            let Some(changed) = relevant(self.events.recv()??) else { continue };
            while self.events.recv_timeout(SETTLE).is_ok() {}
            return Ok(as_said(&changed));
        }
    }
}

/// As a person in the working directory calls it.
fn as_said(path: &Path) -> PathBuf {
    let path: PathBuf = path.components().collect();
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).map_or_else(|_| path.clone(), Path::to_owned)
}

fn relevant(event: notify::Event) -> Option<PathBuf> {
    if event.kind.is_access() {
        return None;
    }
    let ours = |p: &PathBuf| p.extension().is_some_and(|e| e == "lua" || e == "yaml" || e == "yml");
    event.paths.into_iter().find(ours)
}

/// Folders rather than files: an editor replaces a file by another one.
pub(super) fn folders(paths: &[PathBuf], script: Option<&Path>) -> BTreeMap<PathBuf, RecursiveMode> {
    let mut folders = BTreeMap::new();
    for path in paths {
        if path.is_dir() {
            folders.insert(path.clone(), RecursiveMode::Recursive);
        }
        // For a folder, the script beside it.
        folders.entry(parent(path)).or_insert(RecursiveMode::NonRecursive);
    }
    if let Some(script) = script {
        folders.entry(parent(script)).or_insert(RecursiveMode::NonRecursive);
    }
    let scripts = Path::new("lua-scripts");
    if scripts.is_dir() {
        folders.insert(scripts.to_owned(), RecursiveMode::Recursive);
    }
    folders
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
