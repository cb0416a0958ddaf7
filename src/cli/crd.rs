//! `tidegate crd`: prints the custom resource definitions, or writes them to files.

use std::{path::PathBuf, process::ExitCode};

use crate::{api, cli::generated};

/// Arguments of `tidegate crd`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one file a definition into this folder instead of printing them.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    generated::emit(&files()?, args.dir.as_deref())
}

/// The files: name and text.
pub fn files() -> anyhow::Result<Vec<generated::File>> {
    let mut files = Vec::new();
    for crd in api::crd::all()? {
        files.push(generated::File::of(&api::crd::file_name(&crd), &[crd])?);
    }
    Ok(files)
}
