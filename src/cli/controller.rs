//! `tidegate controller`: runs the controller, with a kubeconfig or inside the cluster.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::client::{self, KubeArgs};
use crate::{
    controller::{self, CACHES, Options},
    telemetry::{
        Health, Metrics, health,
        logs::{self, LogArgs},
    },
};

/// Arguments of `tidegate controller`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    health_addr: SocketAddr,
    /// Namespace of the ConfigMap kruise-rollout-configuration with scripts
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "kruise-rollout")]
    pod_namespace: String,
    /// Let the ConfigMap's scripts replace built-in ones
    #[arg(long)]
    config_map_scripts_first: bool,
    /// Rollouts worked on at the same time
    #[arg(long, value_name = "COUNT", default_value = "4")]
    workers: usize,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    logs::init(args.logs.log_format, &args.logs.log_level)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    let (client, _) = client::connect(&args.kube).await?;
    let stop = CancellationToken::new();
    let health = Health::new([CACHES]);
    let metrics = Metrics::new();
    let server =
        tokio::spawn(health::serve(args.health_addr, health.clone(), metrics.clone(), stop.clone().cancelled_owned()));
    let options = Options {
        clock: Arc::new(system_clock),
        decide: Arc::new(crate::rollout::decide),
        decides_in_place: false,
        namespace: args.pod_namespace,
        config_map_wins: args.config_map_scripts_first,
        workers: args.workers,
        script_workers: 2,
        health,
        metrics,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "controller starts");
    let controller = controller::run(client, options, stop.clone());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::pin!(controller);
    tokio::pin!(server);
    tokio::select! {
        () = &mut controller => anyhow::bail!("the controller ended by itself; this is a bug"),
        // Without its health port the process would be killed by its probes, for no visible reason.
        result = &mut server => result??,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; the write in hand is finished");
    stop.cancel();
    controller.await;
    Ok(ExitCode::SUCCESS)
}

/// The clock of the machine; the only place where the controller reads it.
fn system_clock() -> Timestamp {
    Timestamp::now()
}
