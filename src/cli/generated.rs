//! Files that are generated from the code and kept in the repository.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;

/// A generated file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Name within its folder.
    pub name: String,
    /// YAML documents, the first without a leading `---`.
    pub text: String,
}

impl File {
    /// A file of these documents.
    pub fn of(name: &str, documents: &[serde_json::Value]) -> anyhow::Result<File> {
        let texts = documents.iter().map(crate::yaml::to_string).collect::<Result<Vec<_>, _>>()?;
        Ok(File { name: name.to_owned(), text: texts.join("---\n") })
    }
}

/// Writes the files into `dir`, or prints them as one YAML stream.
pub fn emit(files: &[File], dir: Option<&Path>) -> anyhow::Result<ExitCode> {
    let Some(dir) = dir else {
        let text: String = files.iter().flat_map(|f| ["---\n", f.text.as_str()]).collect();
        // A reader that has seen enough, such as `head`, is no failure.
        return match io::stdout().lock().write_all(text.as_bytes()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(ExitCode::SUCCESS),
        };
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    for file in files {
        let path = dir.join(&file.name);
        fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
