//! `tidegate rollout`: what people do with a running release; also reached as `kubectl kruise rollout`.

use std::process::ExitCode;

/// Subcommands of `tidegate rollout`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {}
}
