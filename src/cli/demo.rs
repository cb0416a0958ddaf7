//! `tidegate demo`: plays a story on an in-memory cluster.

use std::process::ExitCode;

/// Arguments of `tidegate demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built")
}
