//! Files that are generated from the code and kept in the repository.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context as _;

/// A generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name within its folder.
    pub name: String,
    /// One YAML document, without a leading `---`.
    pub text: String,
}

/// Writes the files into `dir`, or prints them as one YAML stream.
pub fn emit(files: &[File], dir: Option<&Path>) -> anyhow::Result<ExitCode> {
    let Some(dir) = dir else {
        for file in files {
            print!("---\n{}", file.text);
        }
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    for file in files {
        let path = dir.join(&file.name);
        fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
