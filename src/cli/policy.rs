//! `tidegate policy`: prints the admission policy that holds workloads.

use std::process::ExitCode;

/// Arguments of `tidegate policy`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built")
}
