//! `tidegate demo`: plays a story on an in-memory cluster, with the real controller.

mod compare;
mod istio;
mod kinds;
mod measured;
mod metrics;
mod screen;
pub mod world;

use std::process::ExitCode;

use crate::telemetry::logs::{self, Format};

/// Arguments of `tidegate demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which story
    #[arg(value_enum, default_value = "istio")]
    story: Story,
    /// Wait for Enter between the scenes
    #[arg(long)]
    interactive: bool,
    /// Show the controller's log: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "off")]
    log_level: String,
}

/// The stories that can be played.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Story {
    /// A canary behind an Istio VirtualService and DestinationRule
    Istio,
    /// A StatefulSet, from its last pod on
    Statefulset,
    /// A DaemonSet, node by node
    Daemonset,
    /// OpenKruise's CloneSet, with a full new set beside the old one
    Cloneset,
    /// OpenKruise's Advanced StatefulSet, with several pods at a time
    AdvancedStatefulset,
    /// OpenKruise's Advanced DaemonSet, whose new pods come before the old ones go
    AdvancedDaemonset,
    /// A kind that nobody knows by name, whose owner says that it behaves as a StatefulSet
    StatefulsetLike,
    /// Metrics promote a good version and roll back a bad one
    Metrics,
    /// The new version is compared with the one that runs
    Compare,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    logs::init(Format::Human, &args.log_level)?;
    // Virtual time: the cluster's minutes take no longer than the work that is done in them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let screen = screen::Screen::new(args.interactive);
    let example = match args.story {
        Story::Istio => {
            runtime.block_on(istio::play(screen))?;
            return Ok(ExitCode::SUCCESS);
        }
        Story::Metrics => {
            runtime.block_on(metrics::play(screen))?;
            return Ok(ExitCode::SUCCESS);
        }
        Story::Compare => {
            runtime.block_on(compare::play(screen))?;
            return Ok(ExitCode::SUCCESS);
        }
        Story::Statefulset => kinds::STATEFUL_SET,
        Story::Daemonset => kinds::DAEMON_SET,
        Story::Cloneset => kinds::CLONE_SET,
        Story::AdvancedStatefulset => kinds::ADVANCED_STATEFUL_SET,
        Story::AdvancedDaemonset => kinds::ADVANCED_DAEMON_SET,
        Story::StatefulsetLike => kinds::STATEFUL_SET_LIKE,
    };
    runtime.block_on(kinds::play(&example, screen))?;
    Ok(ExitCode::SUCCESS)
}
