//! `tidegate crd`: prints the custom resource definitions.

use std::process::ExitCode;

/// Arguments of `tidegate crd`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built")
}
