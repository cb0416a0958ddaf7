//! `tidegate doctor`: looks whether an installation is sound, and says what would mend it. It stores nothing.

pub mod facts;
pub mod judge;
mod look;
mod used;

use std::process::ExitCode;

use self::{
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
    /// Namespaces bring scripts of their own [default: what the controller's Deployment says]
    #[arg(long)]
    namespace_scripts: bool,
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
        let namespace_scripts = args.namespace_scripts;
        let look =
            Look { client, namespace: args.controller_namespace, user, namespaces: Vec::new(), namespace_scripts };
        let facts = look.facts().await;
        let findings = judge(&facts);
        let text: String = findings.iter().map(|f| format!("{f}\n")).collect();
        print!("{text}");
        let worst = findings.iter().map(|f| f.level).max();
        Ok(if worst == Some(Level::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

#[cfg(test)]
mod tests;
