//! The command line: one file a command. Invoked as `kubectl-kruise` or `kubectl-tidegate` it is the kubectl plugin.

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

pub mod adopt;
pub mod analysis;
pub mod client;
pub mod controller;
pub mod crd;
pub mod demo;
pub mod doctor;
pub mod duration;
pub mod features;
pub mod generated;
pub mod lua;
pub mod migrate;
pub mod policy;
pub mod rbac;
pub mod rollout;
pub mod simulate;
pub mod traces;
pub mod uninstall;
pub mod webhooks;

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
    Controller(Box<controller::Args>),
    /// Print the custom resource definitions.
    Crd(crd::Args),
    /// Print the admission policy that holds changed workloads.
    Policy(policy::Args),
    /// Print the webhook configurations, for servers without admission policies.
    Webhooks(webhooks::Args),
    /// Print the rights that the controller needs.
    Rbac(rbac::Args),
    /// Take over releases that OpenKruise Rollouts has begun; without --apply only say how.
    Adopt(adopt::Args),
    /// Look whether an installation is sound.
    Doctor(doctor::Args),
    /// Store every object in the version that is written now.
    Migrate(migrate::Args),
    /// Say whether the controller may go, or let go of releases first.
    Uninstall(uninstall::Args),
    /// Play a story on an in-memory cluster.
    Demo(demo::Args),
    /// Rehearse generated releases with people and faults, and judge every write.
    Simulate(simulate::Args),
    /// Test and run traffic scripts.
    #[command(subcommand)]
    Lua(lua::Command),
    /// Try metrics that decide about releases, and list their templates.
    #[command(subcommand)]
    Analysis(analysis::Command),
    /// Approve and watch releases.
    Rollout(rollout::Args),
}

/// Releases with Tidegate or OpenKruise Rollouts, as a kubectl plugin.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Plugin {
    #[command(flatten)]
    kube: client::KubeArgs,
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Approve and watch releases.
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// List Rollouts (the same as `rollout get`).
    Get(rollout::get::Args),
    /// Show everything about a Rollout (the same as `rollout describe`).
    Describe(rollout::describe::Args),
}

impl From<Plugin> for rollout::Args {
    fn from(plugin: Plugin) -> Self {
        let command = match plugin.command {
            PluginCommand::Rollout(command) => command,
            PluginCommand::Get(args) => rollout::Command::Get(args),
            PluginCommand::Describe(args) => rollout::Command::Describe(args),
        };
        Self { kube: plugin.kube, command }
    }
}

/// The names under which kubectl finds the program as a plugin.
const PLUGIN_NAMES: [&str; 2] = ["kubectl-kruise", "kubectl-tidegate"];

/// How the program was called: a plugin's name, else `tidegate`.
pub fn program() -> String {
    program_of(std::env::args_os().next()).to_owned()
}

fn program_of(first: Option<OsString>) -> &'static str {
    let stem = first.as_deref().map(Path::new).and_then(Path::file_stem).and_then(|s| s.to_str());
    PLUGIN_NAMES.into_iter().find(|name| stem == Some(name)).unwrap_or("tidegate")
}

fn parse_plugin(arguments: impl IntoIterator<Item = OsString>, name: &'static str) -> Result<Plugin, clap::Error> {
    use clap::{CommandFactory as _, FromArgMatches as _};
    // `kubectl kruise` is how people call it; without this the help would say `kubectl-kruise`.
    let matches = Plugin::command().name(name).bin_name(name.replacen('-', " ", 1)).try_get_matches_from(arguments)?;
    Plugin::from_arg_matches(&matches)
}

/// Parses the command line and runs the command. Exit code 2 is a wrong command line, 1 a failure.
pub fn main() -> ExitCode {
    let name = program_of(std::env::args_os().next());
    if PLUGIN_NAMES.contains(&name) {
        let plugin = parse_plugin(std::env::args_os(), name).unwrap_or_else(|error| error.exit());
        return finish(rollout::run(plugin.into()));
    }
    finish(match Cli::parse().command {
        Command::Controller(args) => controller::run(*args),
        Command::Crd(args) => crd::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Webhooks(args) => webhooks::run(args),
        Command::Rbac(args) => rbac::run(args),
        Command::Adopt(args) => adopt::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Uninstall(args) => uninstall::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Lua(command) => lua::run(command),
        Command::Analysis(command) => analysis::run(command),
        Command::Rollout(args) => rollout::run(args),
    })
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
