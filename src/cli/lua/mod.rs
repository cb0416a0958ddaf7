//! `tidegate lua`: tools for script authors.

use std::process::ExitCode;

/// Subcommands of `tidegate lua`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {}
}
