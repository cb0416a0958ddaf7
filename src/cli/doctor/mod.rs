//! `tidegate doctor`: looks whether an installation is sound, and says what would mend it. It stores nothing.

pub mod facts;
pub mod judge;
mod look;
mod used;

use std::process::ExitCode;

use kube::Client;

use self::{
    facts::Facts,
    judge::{Level, judge},
    look::Look,
};
use super::{
    client::{self, KubeArgs},
    rbac,
};

/// Arguments of `tidegate doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace that the controller runs in
    #[arg(long, value_name = "NAME", default_value = "tidegate")]
    controller_namespace: String,
    /// Who the controller is to the API server [default: its ServiceAccount there]
    #[arg(long, value_name = "USER")]
    controller_user: Option<String>,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command. Exit code 1: something does not work.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, _) = client::connect(&args.kube).await?;
        let user = args.controller_user.clone();
        let user =
            user.unwrap_or_else(|| format!("system:serviceaccount:{}:{}", args.controller_namespace, rbac::NAME));
        let facts = look(client, args.controller_namespace, user).await;
        let findings = judge(&facts);
        let text: String = findings.iter().map(|f| format!("{f}\n")).collect();
        print!("{text}");
        let worst = findings.iter().map(|f| f.level).max();
        Ok(if worst == Some(Level::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

/// What there is of an installation whose controller runs in `namespace` and is `user` to the API server.
pub async fn look(client: Client, namespace: String, user: String) -> Facts {
    Look { client, namespace, user, namespaces: Vec::new() }.facts().await
}

#[cfg(test)]
mod tests;
