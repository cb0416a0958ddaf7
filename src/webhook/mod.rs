//! The admission and conversion webhooks: what the API server asks this process.
//!
//! Every replica answers, leader or not. The answers are functions of the request; only the validation of a Rollout reads
//! the cluster, for other Rollouts with the same workload and for its author's rights.
//!
//! | path | answers |
//! |---|---|
//! | `/mutate-apps-v1-deployment` … | the hold of [`crate::workload::hold`], on servers without admission policies |
//! | `/mutate-rollouts-kruise-io-rollout-status` | who approves a step, or jumps: [`approver`] |
//! | `/mutate-rollouts-kruise-io-rollout` | who passes over change windows: [`approver`] |
//! | `/validate-rollouts-kruise-io-rollout` | what the schema of a Rollout cannot say: [`validate`], [`authority`] |
//! | `/validate-rollouts-kruise-io-trafficrouting` | whether its author may change what it names: [`authority`] |
//! | `/convert` | a Rollout in the words of the other version: [`crate::api::convert`] |
//!
//! The paths and the names of the configurations that OpenKruise has are the same, so that it and Tidegate never act on the same write.

pub mod approver;
pub mod authority;
pub mod certificates;
mod declared;
mod keeper;
pub mod review;
mod room;
mod routes;
mod server;
pub mod surroundings;
pub mod validate;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use routes::router;
pub use server::{Limits, Tls, serve};

use crate::telemetry::{Health, Metrics};

/// Name of the readiness check that holds while a certificate is served.
pub const WEBHOOKS: &str = "webhooks";

/// Path of the conversion.
pub const CONVERT_PATH: &str = "/convert";
/// Path of the webhook that notes who approves and jumps.
pub const APPROVER_PATH: &str = "/mutate-rollouts-kruise-io-rollout-status";
/// Path of the webhook that notes who passes over change windows.
pub const OVERRIDER_PATH: &str = "/mutate-rollouts-kruise-io-rollout";
/// Path of the validation of Rollouts.
pub const VALIDATE_PATH: &str = "/validate-rollouts-kruise-io-rollout";
/// Path of the validation of TrafficRoutings.
pub const VALIDATE_ROUTING_PATH: &str = "/validate-rollouts-kruise-io-trafficrouting";

/// Name of the configuration with the holds.
pub use crate::workload::hold::WEBHOOKS as MUTATING;
/// Name of the configuration of the webhook that notes who approves and jumps. Not that of the holds: theirs is only
/// there where the server has no policies.
pub const APPROVERS: &str = "tidegate-approvers";
/// Name of the configuration with the validation.
pub const VALIDATING: &str = "kruise-rollout-validating-webhook-configuration";

/// Where the serving certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Self-made, in a Secret of the controller's namespace; the CA is put into the configurations.
    Secret {
        /// Name of the Secret.
        name: String,
        /// Name of the Service in front of the webhooks.
        service: String,
        /// Host or IP under which the API server reaches the webhooks without that Service.
        host: Option<String>,
    },
    /// `tls.crt` and `tls.key` in a folder, written and renewed by somebody else, such as cert-manager.
    Folder(PathBuf),
}

/// What the webhooks need beside a client.
pub struct Options {
    /// Where to listen.
    pub address: SocketAddr,
    /// The controller's own namespace.
    pub namespace: String,
    /// Where the certificate comes from.
    pub source: Source,
    /// What is refused before it is read.
    pub limits: Limits,
    /// What a Rollout may say.
    pub rules: validate::Rules,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Readiness.
    pub health: Health,
    /// Counters.
    pub metrics: Metrics,
}

/// Serves the webhooks until `stop`.
///
/// # Errors
/// The address cannot be bound; the error names it.
pub async fn run(client: Client, options: Options, stop: CancellationToken) -> std::io::Result<()> {
    let listener = TcpListener::bind(options.address).await.map_err(|e| {
        std::io::Error::new(e.kind(), format!("cannot listen on {} for webhooks: {e}", options.address))
    })?;
    let tls = Tls::default();
    let keeper = keeper::Keeper::new(client.clone(), &options, tls.clone());
    let router = router(Some(client), options.rules, options.limits, options.metrics.clone());
    tokio::join!(keeper.run(stop.clone()), serve(listener, tls, router, options.limits, stop));
    Ok(())
}
