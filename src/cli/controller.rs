//! `tidegate controller`: runs the controller, with a kubeconfig or inside the cluster.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    client::{self, KubeArgs},
    duration,
};
use crate::{
    api::keys::LEASE,
    controller::{
        self, CACHES, Options,
        lease::{ELECTION, Election},
    },
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
    leader: LeaderArgs,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Several replicas, of which one decides.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Leader election")]
struct LeaderArgs {
    /// Decide only while holding a Lease; needed as soon as there may be two of this process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set,
          default_value_t = false, default_missing_value = "true")]
    leader_elect: bool,
    /// How long the others wait after the last renewal that they saw, in whole seconds
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    leader_elect_lease_duration: Duration,
    /// How long a leader that cannot renew the Lease goes on writing
    #[arg(long, value_name = "DURATION", default_value = "7s", value_parser = duration::parse)]
    leader_elect_renew_deadline: Duration,
    /// Between two renewals
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    leader_elect_retry_period: Duration,
    /// Name of the Lease; the default is OpenKruise's, so that the two never decide at the same time
    #[arg(long, value_name = "NAME", default_value = LEASE)]
    leader_elect_resource_name: String,
    /// Namespace of the Lease [default: --pod-namespace]
    #[arg(long, value_name = "NAME")]
    leader_elect_resource_namespace: Option<String>,
}

impl LeaderArgs {
    fn election(&self, pod_namespace: &str) -> anyhow::Result<Option<Election>> {
        if !self.leader_elect {
            return Ok(None);
        }
        let election = Election {
            namespace: self.leader_elect_resource_namespace.clone().unwrap_or_else(|| pod_namespace.to_owned()),
            name: self.leader_elect_resource_name.clone(),
            identity: identity()?,
            duration: self.leader_elect_lease_duration,
            deadline: self.leader_elect_renew_deadline,
            retry: self.leader_elect_retry_period,
        };
        election.check().map_err(anyhow::Error::msg)?;
        Ok(Some(election))
    }
}

/// The host, which in a pod is the pod's name, and something that no earlier process there had.
fn identity() -> anyhow::Result<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|h| !h.is_empty()).unwrap_or("tidegate");
    let mut random = [0; 8];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut random).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(format!("{host}_{:016x}", u64::from_be_bytes(random)))
}

/// Runs the command until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    logs::init(args.logs.log_format, &args.logs.log_level)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<ExitCode> {
    let election = args.leader.election(&args.pod_namespace)?;
    let (client, _) = client::connect(&args.kube).await?;
    let stop = CancellationToken::new();
    let health = Health::new([CACHES].into_iter().chain(election.as_ref().map(|_| ELECTION)));
    let metrics = Metrics::new();
    let server =
        tokio::spawn(health::serve(args.health_addr, health.clone(), metrics.clone(), stop.clone().cancelled_owned()));
    let options = Options {
        clock: Arc::new(system_clock),
        decide: Arc::new(crate::rollout::decide),
        guard: crate::apply::guard::guard(),
        decides_in_place: false,
        namespace: args.pod_namespace,
        config_map_wins: args.config_map_scripts_first,
        workers: args.workers,
        script_workers: 2,
        health,
        metrics,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "controller starts");
    let controller = async {
        match election {
            Some(election) => controller::run_elected(client, options, election, stop.clone()).await,
            None => controller::run(client, options, stop.clone()).await,
        }
    };
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
