//! Finding case files.

use std::path::{Path, PathBuf};

use super::scripts::{SCRIPT, TESTDATA};

/// The folder of a kind's cases for the script that reads its status.
const STATUSES: &str = "accepted";

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Case files, sorted, each once.
    pub cases: Vec<PathBuf>,
    /// Folders with YAML files that are not laid out as cases and were not looked at.
    pub passed_over: Vec<PathBuf>,
}

/// Finds the case files of files and folders. A file that is named is a case. Below a named folder, the YAML files of
/// these folders are cases: the named folder itself, `<group>/<Kind>` (a group has a dot, a kind begins with a capital
/// letter) and its `accepted`, `ingress/<class>`, and `testdata` beside a `trafficRouting.lua`; with `any_folder`, every folder. Hidden folders are skipped.
///
/// # Errors
/// When a path does not exist or cannot be read.
pub fn discover(paths: &[PathBuf], any_folder: bool) -> Result<Found, String> {
    let mut found = Found::default();
    for path in paths {
        let what = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if what.is_dir() {
            walk(path, path, any_folder, &mut found)?;
        } else {
            found.cases.push(path.clone());
        }
    }
    found.cases.sort();
    found.cases.dedup();
    found.passed_over.sort();
    found.passed_over.dedup();
    Ok(found)
}

fn walk(top: &Path, folder: &Path, any_folder: bool, found: &mut Found) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("{}: {e}", folder.display());
    let takes = any_folder || folder == top || holds_cases(folder);
    let mut passed_over = false;
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            walk(top, &path, any_folder, found)?;
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            if takes { found.cases.push(path) } else { passed_over = true }
        }
    }
    if passed_over {
        found.passed_over.push(folder.to_owned());
    }
    Ok(())
}

fn holds_cases(folder: &Path) -> bool {
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let parent = folder.parent();
    if name(folder) == TESTDATA && parent.is_some_and(|p| p.join(SCRIPT).is_file()) {
        return true;
    }
    let is_kind = name(folder).starts_with(|c: char| c.is_ascii_uppercase());
    let of_kind = |p: &Path| name(p).contains('.');
    if name(folder) == STATUSES {
        return parent.and_then(Path::parent).is_some_and(of_kind);
    }
    parent.is_some_and(|p| name(p) == "ingress" || (is_kind && of_kind(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_case_folders_and_reports_the_others() {
        let root = tempfile::tempdir().unwrap();
        let files = [
            "networking.istio.io/VirtualService/a.yaml",
            "networking.istio.io/VirtualService/notes.txt",
            "networking.istio.io/VirtualService/accepted/a.yaml",
            "decide/canary/b.yaml",
            "ingress/nginx/a.yaml",
            "x/trafficRouting.lua",
            "x/testdata/c.yml",
            "y/testdata/d.yaml",
            ".git/g.io/K/e.yaml",
            "top.yaml",
        ];
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let names = |paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|p| p.strip_prefix(root.path()).unwrap().display().to_string()).collect()
        };
        let found = discover(&[root.path().to_owned()], false).unwrap();
        assert_eq!(
            names(&found.cases),
            [
                "ingress/nginx/a.yaml",
                "networking.istio.io/VirtualService/a.yaml",
                "networking.istio.io/VirtualService/accepted/a.yaml",
                "top.yaml",
                "x/testdata/c.yml"
            ]
        );
        assert_eq!(names(&found.passed_over), ["decide/canary", "y/testdata"]);

        let found = discover(&[root.path().to_owned()], true).unwrap();
        assert_eq!(found.cases.len(), 7);
        let named = root.path().join("decide/canary/b.yaml");
        assert_eq!(discover(&[named.clone(), named.clone()], false).unwrap().cases, [named]);
        assert!(discover(&[root.path().join("none")], false).unwrap_err().contains("none"));
    }
}
