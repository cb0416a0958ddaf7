//! `tidegate rollout`: what people do with a running release; also reached as `kubectl kruise rollout`.
//!
//! Exit codes: 0 done, 1 failed (also: a release that was cancelled, a wait that timed out), 2 a wrong command line.

use std::{io::IsTerminal as _, process::ExitCode};

use kube::{Client, runtime::watcher};

use super::client::{KubeArgs, connect, explain};

pub mod approve;
pub mod describe;
pub mod get;
pub mod output;
pub mod page;
pub mod resources;
pub mod status;
pub mod table;
pub mod view;
#[cfg(test)]
mod wire_tests;

use output::Io;
use resources::Usage;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, also a release that was cancelled and a wait that timed out; \
                          2 a wrong command line.";

/// Arguments of `tidegate rollout`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Which cluster.
    #[command(flatten)]
    pub kube: KubeArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands of `tidegate rollout`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Approve the step at which a release waits
    Approve(approve::Args),
    /// Follow a release until it ends
    Status(status::Args),
    /// List Rollouts
    Get(get::Args),
    /// Show everything about a Rollout: steps, traffic, revisions, pods, events
    Describe(describe::Args),
}

impl Command {
    /// Refuses what no cluster is needed for.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Command::Approve(args) => resources::some_names(&args.resources).map(drop),
            Command::Status(args) => resources::some_names(&args.resources).map(drop),
            Command::Get(args) => resources::names(&args.resources).map(drop),
            Command::Describe(args) => resources::names(&args.resources).map(drop),
        }
    }
}

/// Runs the command on the cluster that the flags name.
///
/// # Errors
/// What kept the command from being tried at all; a result that is not good is an exit code.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { kube, command } = args;
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let terminal = out.is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let program = super::program();
    let mut io = Io { out: &mut out, err: &mut err, colour, terminal, program: &program };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        command.check()?;
        let (client, namespace) = connect(&kube).await?;
        execute(&command, client, &namespace, &mut io).await
    });
    Ok(ExitCode::from(code(result, &mut io)?))
}

/// Runs the command with a client. False when a part of it failed; that part has said so.
///
/// # Errors
/// A wrong command line, a cluster that refuses, or a closed output.
pub async fn execute(command: &Command, client: Client, namespace: &str, io: &mut Io<'_>) -> anyhow::Result<bool> {
    match command {
        Command::Approve(args) => approve::run(args, client, namespace, io).await,
        Command::Status(args) => status::run(args, client, namespace, io).await,
        Command::Get(args) => get::run(args, client, namespace, io).await,
        Command::Describe(args) => describe::run(args, client, namespace, io).await,
    }
}

fn code(result: anyhow::Result<bool>, io: &mut Io<'_>) -> anyhow::Result<u8> {
    match result {
        Ok(true) => Ok(0),
        Ok(false) => Ok(1),
        Err(error) if error.is::<Usage>() => {
            io.note(&format!("error: {error}\n\nSee --help."))?;
            Ok(2)
        }
        // `| head` has seen enough.
        Err(error) if is_closed(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A watch that failed for a reason that trying again does not mend.
fn fatal(error: &watcher::Error) -> Option<&kube::Error> {
    let cause = match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
            e
        }
        _ => return None,
    };
    matches!(cause, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404)).then_some(cause)
}

/// A note about a watch that goes on by itself.
fn trouble(error: &watcher::Error) -> String {
    let why = match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) | watcher::Error::WatchFailed(e) => {
            explain(e)
        }
        other => other.to_string(),
    };
    format!("note: the watch was interrupted and goes on: {why}")
}
