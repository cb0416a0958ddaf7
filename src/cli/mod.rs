//! The command line: one file a command. Invoked as `kubectl-kruise` or `kubectl-tidegate` it is the kubectl plugin.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod client;
pub mod controller;
pub mod crd;
pub mod demo;
pub mod duration;
pub mod generated;
pub mod lua;
pub mod policy;
pub mod rbac;
pub mod rollout;

/// Progressive delivery for Kubernetes: any gateway, by a tested Lua script.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller.
    Controller(controller::Args),
    /// Print the custom resource definitions.
    Crd(crd::Args),
    /// Print the admission policy that holds changed workloads.
    Policy(policy::Args),
    /// Print the rights that the controller needs.
    Rbac(rbac::Args),
    /// Play a story on an in-memory cluster.
    Demo(demo::Args),
    /// Test and run traffic scripts.
    #[command(subcommand)]
    Lua(lua::Command),
    /// Approve and watch releases.
    #[command(subcommand)]
    Rollout(rollout::Command),
}

/// Parses the command line and runs the command. Exit code 2 is a wrong command line, 1 a failure.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Controller(args) => controller::run(args),
        Command::Crd(args) => crd::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Rbac(args) => rbac::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Lua(command) => lua::run(command),
        Command::Rollout(command) => rollout::run(command),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
