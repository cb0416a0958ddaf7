//! `tidegate controller`: runs the controller, with a kubeconfig or inside the cluster.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    client::{self, KubeArgs},
    duration,
    features::FeatureGates,
    traces::TraceArgs,
};
use crate::{
    api::keys::LEASE,
    controller::{
        self, CACHES, Options,
        hold::{KeepHold, Wish},
        lease::{ELECTION, Election},
    },
    gather::{
        calls::{Sender, hosts::Hosts},
        measures::{http::Web, login::Logins, servers::Servers},
    },
    lua::Engine,
    telemetry::{
        Health, Metrics, health,
        logs::{self, LogArgs},
    },
    webhook::{self, Limits, Source, WEBHOOKS, validate},
};

/// Arguments of `tidegate controller`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    health_addr: SocketAddr,
    /// Let durations in /metrics name the trace of the release as their exemplar (OpenMetrics)
    #[arg(long)]
    metrics_exemplars: bool,
    /// Namespace of the ConfigMap kruise-rollout-configuration with scripts
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "kruise-rollout")]
    pod_namespace: String,
    /// Namespaces of the Rollouts that are worked on; no other is looked into [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Let the ConfigMap's scripts replace built-in ones
    #[arg(long)]
    config_map_scripts_first: bool,
    /// Let a ConfigMap kruise-rollout-configuration in a Rollout's own namespace bring scripts for kinds and classes that
    /// have none
    #[arg(long)]
    namespace_scripts: bool,
    /// Rollouts worked on at the same time
    #[arg(long, value_name = "COUNT", default_value = "4")]
    workers: usize,
    /// Features to switch on, as OpenKruise names them, such as RolloutHistory=true
    #[arg(long, value_name = "NAME=BOOL,…", default_value = "", hide_default_value = true)]
    feature_gates: FeatureGates,
    /// Newest releases of each Rollout that RolloutHistory keeps
    #[arg(long, value_name = "COUNT", default_value = "10", value_parser = clap::value_parser!(u16).range(1..))]
    rollout_history_limit: u16,
    /// Releases in the whole cluster that may be in flight at the same time; the others wait before their first step
    /// [default: any number]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    max_releases_in_flight: Option<u16>,
    /// Addresses of metrics servers that Rollouts may name, such as http://prometheus.monitoring:9090 [default: any]
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',')]
    metrics_servers: Vec<String>,
    /// Hosts at which hooks and traffic proofs of Rollouts may be, such as gate.example.com, *.hooks.svc or 10.0.0.7:8443 [default: any but the
    /// controller's own machine and link]
    #[arg(long, value_name = "HOST,…", value_delimiter = ',')]
    hook_hosts: Vec<String>,
    #[command(flatten)]
    hold: HoldArgs,
    #[command(flatten)]
    leader: LeaderArgs,
    #[command(flatten)]
    webhooks: WebhookArgs,
    #[command(flatten)]
    traces: TraceArgs,
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

/// What holds changed workloads.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Hold")]
struct HoldArgs {
    /// What holds changed workloads, kept in place by the leader: admission policies, webhooks, or (auto) policies where the
    /// API server serves them [default: whatever was installed]
    #[arg(long, value_name = "WHAT")]
    hold: Option<HoldWith>,
    /// How long the new one must have been seen to act before the old one is taken away: all API servers of the cluster
    /// must have been upgraded by then
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    hold_settle: Duration,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum HoldWith {
    Auto,
    Policy,
    Webhook,
}

impl HoldArgs {
    fn options(&self, has_webhooks: bool) -> Option<KeepHold> {
        let wish = match self.hold? {
            HoldWith::Auto => Wish::Auto,
            HoldWith::Policy => Wish::Policy,
            HoldWith::Webhook => Wish::Webhook,
        };
        Some(super::policy::keep(wish, self.hold_settle, has_webhooks))
    }
}

/// What the API server asks this process.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Webhooks")]
struct WebhookArgs {
    /// Serve the webhooks at this address, such as 0.0.0.0:9876 [default: do not]
    #[arg(long, value_name = "ADDRESS")]
    webhook_addr: Option<SocketAddr>,
    /// Service in front of the webhooks
    #[arg(long, value_name = "NAME", env = "SERVICE_NAME", default_value = super::webhooks::SERVICE)]
    webhook_service: String,
    /// Secret with the self-made CA and certificate
    #[arg(long, value_name = "NAME", env = "SECRET_NAME", default_value = super::webhooks::SECRET)]
    webhook_secret: String,
    /// Host or IP under which the API server reaches the webhooks without the Service
    #[arg(long, value_name = "HOST", env = "WEBHOOK_HOST")]
    webhook_host: Option<String>,
    /// Folder with tls.crt and tls.key that somebody else renews, such as cert-manager [default: a self-made pair]
    #[arg(long, value_name = "DIR", env = "WEBHOOK_CERT_DIR")]
    webhook_cert_dir: Option<PathBuf>,
    /// Most pods, in percent, that a step in partition style may have while it routes requests
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = clap::value_parser!(u32).range(0..=100))]
    partition_percent_limit: u32,
    /// Refuse Rollouts for kinds of workload that are not known
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set,
          default_value_t = true, default_missing_value = "true")]
    filter_workload_type: bool,
    /// Refuse Rollouts and TrafficRoutings of those who may not themselves patch what they name
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set,
          default_value_t = true, default_missing_value = "true")]
    check_authority: bool,
}

impl WebhookArgs {
    fn options(&self, namespace: &str, health: &Health, metrics: &Metrics) -> Option<webhook::Options> {
        let source = match &self.webhook_cert_dir {
            Some(folder) => Source::Folder(folder.clone()),
            None => Source::Secret {
                name: self.webhook_secret.clone(),
                service: self.webhook_service.clone(),
                host: self.webhook_host.clone(),
            },
        };
        Some(webhook::Options {
            address: self.webhook_addr?,
            namespace: namespace.to_owned(),
            source,
            limits: Limits::default(),
            rules: validate::Rules {
                partition_percent_limit: self.partition_percent_limit,
                filter_workload_type: self.filter_workload_type,
                check_authority: self.check_authority,
            },
            clock: Arc::new(system_clock),
            health: health.clone(),
            metrics: metrics.clone(),
        })
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
    let checks = [Some(CACHES), election.as_ref().map(|_| ELECTION), args.webhooks.webhook_addr.map(|_| WEBHOOKS)];
    let health = Health::new(checks.into_iter().flatten());
    let metrics = if args.metrics_exemplars { Metrics::with_exemplars() } else { Metrics::new() };
    let server =
        tokio::spawn(health::serve(args.health_addr, health.clone(), metrics.clone(), stop.clone().cancelled_owned()));
    let webhooks = args.webhooks.options(&args.pod_namespace, &health, &metrics);
    // Not stopped with the rest: what the last pass tells is sent too.
    let told_all = CancellationToken::new();
    let (traces, sending) = args.traces.start(&metrics, told_all.clone())?.unzip();
    let sending = sending.map(tokio::spawn);
    let allowed = args.metrics_servers;
    let hosts = Hosts::new(args.hook_hosts);
    let options = Options {
        clock: Arc::new(system_clock),
        decide: Arc::new(crate::rollout::decide),
        provider: Arc::new(move |client| {
            let (http, logins) = (Arc::new(Web::default()), Some(Logins::new(client)));
            Arc::new(Servers { http, logins, allowed: allowed.clone() })
        }),
        caller: Arc::new(move |client, metrics| {
            let hooks = Arc::new(if hosts.is_any() { Web::guarded() } else { Web::default() });
            let (receivers, logins) = (Arc::new(Web::default()), Some(Logins::new(client)));
            Box::new(Sender { hooks, receivers, logins, hosts: hosts.clone(), metrics })
        }),
        guard: crate::apply::guard::guard(),
        decides_in_place: false,
        namespace: args.pod_namespace,
        namespaces: args.namespaces,
        config_map_wins: args.config_map_scripts_first,
        namespace_scripts: args.namespace_scripts,
        max_in_flight: args.max_releases_in_flight.map(usize::from),
        history_limit: args.feature_gates.rollout_history.then_some(args.rollout_history_limit.into()),
        hold: args.hold.options(webhooks.is_some()),
        names_people: webhooks.is_some(),
        workers: args.workers,
        engine: Arc::new(|| Engine::new(2)),
        health,
        metrics,
        traces,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "controller starts");
    let webhooks = {
        let (client, stop) = (client.clone(), stop.clone());
        async move {
            match webhooks {
                Some(options) => webhook::run(client, options, stop).await,
                None => {
                    stop.cancelled().await;
                    Ok(())
                }
            }
        }
    };
    let webhooks = tokio::spawn(webhooks);
    let controller = async {
        match election {
            Some(election) => controller::run_elected(client, options, election, stop.clone()).await,
            None => controller::run(client, options, stop.clone()).await,
        }
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::pin!(controller);
    tokio::pin!(server);
    tokio::pin!(webhooks);
    tokio::select! {
        () = &mut controller => anyhow::bail!("the controller ended by itself; this is a bug"),
        // Without its health port the process would be killed by its probes, for no visible reason.
        result = &mut server => result??,
        result = &mut webhooks => result??,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; the write in hand is finished");
    stop.cancel();
    controller.await;
    told_all.cancel();
    if let Some(sending) = sending {
        sending.await?;
    }
    if !webhooks.is_finished() {
        // Requests in hand are answered.
        webhooks.await??;
    }
    Ok(ExitCode::SUCCESS)
}

/// The clock of the machine; the only place where the controller reads it.
fn system_clock() -> Timestamp {
    Timestamp::now()
}
