//! The one way in which commands reach an API server: kubectl's own flags, a deadline for every call, no hidden retries.

use std::{error::Error as _, path::PathBuf, sync::Once, time::Duration};

use anyhow::Context as _;
use futures::future::TryFutureExt as _;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams},
    client::{Body, ClientBuilder, DynBody},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;
use tower::{BoxError, ServiceExt as _, util::BoxService};

use super::duration;

/// A watch that stays silent for longer has lost its connection: the server ends healthy ones after at most 290 s.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// What [`ClientBuilder`] makes of a [`Config`].
type Stack = BoxService<http::Request<Body>, http::Response<Box<DynBody>>, BoxError>;

/// Which cluster and namespace, in kubectl's words.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct KubeArgs {
    /// Namespace [default: the context's, else `default`]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Path of the kubeconfig [default: $KUBECONFIG, ~/.kube/config, else the pod's service account]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How long to wait for one answer of the API server, such as 5s or 1m; 0 waits for ever
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub request_timeout: Duration,
}

/// Why the API server gave no answer.
#[derive(Debug, thiserror::Error)]
enum Unreachable {
    #[error("no answer from {server} within {} s (--request-timeout)", timeout.as_secs_f32())]
    Timeout { server: String, timeout: Duration },
    #[error("cannot reach {server}: {cause}; check the network, --context and --kubeconfig")]
    Connection { server: String, cause: String },
}

/// Makes aws-lc-rs the process's TLS provider. Safe to call again.
pub fn install_tls_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that the embedding program chose one before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

/// Connects to the cluster that the flags name, and says which namespace they mean.
///
/// Without flags: `$KUBECONFIG`, then `~/.kube/config`, then the pod's service account. No request is sent yet. Retries
/// are off: each caller has its own idea of when to try again.
///
/// # Errors
/// A kubeconfig that is missing, malformed, or without the context.
pub async fn connect(args: &KubeArgs) -> anyhow::Result<(Client, String)> {
    install_tls_provider();
    let mut config = config(args).await?;
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    // Otherwise the time that a pooled connection sat idle would count.
    config.reset_reader_on_write = true;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    config.default_namespace.clone_from(&namespace);
    let server = config.cluster_url.to_string();
    let timeout = Some(args.request_timeout).filter(|t| !t.is_zero());
    let builder = ClientBuilder::try_from(config).context("the kubeconfig cannot be used")?;
    let deadline = tower::layer::layer_fn(move |service: Stack| {
        let server = server.clone();
        service.map_future(move |answer| with_deadline(answer, timeout, server.clone()))
    });
    Ok((builder.with_layer(&deadline).build(), namespace))
}

/// Only the answer's head has the deadline: the body of a watch goes on for minutes.
async fn with_deadline<T>(
    answer: impl Future<Output = Result<T, BoxError>>,
    timeout: Option<Duration>,
    server: String,
) -> Result<T, BoxError> {
    let answer = answer.map_err(|error| -> BoxError {
        if error.downcast_ref::<kube::Error>().is_some() {
            return error;
        }
        Unreachable::Connection { server: server.clone(), cause: root_cause(error.as_ref()) }.into()
    });
    match timeout {
        None => answer.await,
        Some(timeout) => match tokio::time::timeout(timeout, answer).await {
            Ok(result) => result,
            Err(_) => Err(Unreachable::Timeout { server: server.clone(), timeout }.into()),
        },
    }
}

async fn config(args: &KubeArgs) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    if let Some(kubeconfig) = kubeconfig(args)? {
        return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| match &args.context {
            Some(context) => anyhow::anyhow!("context {context:?}: {error}; `kubectl config get-contexts` lists them"),
            None => anyhow::anyhow!("{error}; `kubectl config get-contexts` lists the contexts, --context chooses one"),
        });
    }
    if let Some(context) = &args.context {
        anyhow::bail!("context {context:?}: no kubeconfig found; name one with --kubeconfig or $KUBECONFIG");
    }
    Config::incluster().context("no kubeconfig found, and this is not a pod; name one with --kubeconfig or $KUBECONFIG")
}

/// As kubectl reads it: of the files that `$KUBECONFIG` lists, missing ones are skipped.
fn kubeconfig(args: &KubeArgs) -> anyhow::Result<Option<Kubeconfig>> {
    if let Some(path) = &args.kubeconfig {
        return Ok(Some(Kubeconfig::read_from(path)?));
    }
    let listed = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty());
    let paths: Vec<PathBuf> = match listed {
        Some(list) => std::env::split_paths(&list).collect(),
        None => std::env::home_dir().map(|home| home.join(".kube").join("config")).into_iter().collect(),
    };
    let mut merged: Option<Kubeconfig> = None;
    for path in paths.iter().filter(|p| p.is_file()) {
        let next = Kubeconfig::read_from(path)?;
        merged = Some(match merged {
            Some(first) => first.merge(next)?,
            None => next,
        });
    }
    Ok(merged)
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// All objects of a kind in these namespaces, or in all if none is given: with what items of a list leave out; none where
/// the kind is not served.
///
/// # Errors
/// What the API server answers otherwise.
pub async fn list_in(client: &Client, resource: &ApiResource, namespaces: &[String]) -> kube::Result<Vec<Value>> {
    let mut found = Vec::new();
    for namespace in namespaces {
        found.extend(list_of(Api::namespaced_with(client.clone(), namespace, resource), resource).await?);
    }
    if namespaces.is_empty() {
        found = list_all(client, resource).await?;
    }
    Ok(found)
}

/// All objects of a kind in all namespaces, as [`list_in`].
///
/// # Errors
/// What the API server answers otherwise.
pub async fn list_all(client: &Client, resource: &ApiResource) -> kube::Result<Vec<Value>> {
    list_of(Api::all_with(client.clone(), resource), resource).await
}

async fn list_of(api: Api<DynamicObject>, resource: &ApiResource) -> kube::Result<Vec<Value>> {
    let items = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error),
    };
    let whole = items.into_iter().filter_map(|item| {
        let mut value = serde_json::to_value(item).ok()?;
        let map = value.as_object_mut()?;
        map.insert("apiVersion".to_owned(), resource.api_version.clone().into());
        map.insert("kind".to_owned(), resource.kind.clone().into());
        Some(value)
    });
    Ok(whole.collect())
}

/// A client error in one line for a person.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered {} {}", status.code, status.reason),
        kube::Error::Service(cause) => cause.to_string(),
        kube::Error::SerdeError(cause) => format!("the API server's answer is not what was expected: {cause}"),
        other => match other.source() {
            Some(source) => root_cause(source),
            None => other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: blue
clusters:
- name: local
  cluster: {server: "http://127.0.0.1:1"}
users:
- name: me
  user: {}
contexts:
- name: blue
  context: {cluster: local, user: me, namespace: shop}
- name: green
  context: {cluster: local, user: me}
"#;

    fn args(dir: &tempfile::TempDir) -> KubeArgs {
        let path = dir.path().join("config");
        std::fs::write(&path, KUBECONFIG).unwrap();
        KubeArgs { kubeconfig: Some(path), request_timeout: Duration::from_secs(5), ..KubeArgs::default() }
    }

    #[tokio::test]
    async fn namespace_comes_from_the_flag_then_the_context_then_default() {
        let dir = tempfile::tempdir().unwrap();
        let context = args(&dir);
        assert_eq!(connect(&context).await.unwrap().1, "shop");
        let other = KubeArgs { context: Some("green".into()), ..context.clone() };
        assert_eq!(connect(&other).await.unwrap().1, "default");
        let flag = KubeArgs { namespace: Some("mine".into()), ..context };
        assert_eq!(connect(&flag).await.unwrap().1, "mine");
    }

    #[tokio::test]
    async fn an_unknown_context_and_a_missing_file_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let unknown = KubeArgs { context: Some("red".into()), ..args(&dir) };
        let message = connect(&unknown).await.err().unwrap().to_string();
        assert!(message.starts_with("context \"red\": ") && message.contains("get-contexts"), "{message}");
        let missing = KubeArgs { kubeconfig: Some("/nowhere/config".into()), ..KubeArgs::default() };
        let message = connect(&missing).await.err().unwrap().to_string();
        assert!(message.contains("/nowhere/config"), "{message}");
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let (client, _) = connect(&args(&dir)).await.unwrap();
        let error = client.apiserver_version().await.unwrap_err();
        let message = explain(&error);
        assert!(message.starts_with("cannot reach http://127.0.0.1:1/: Connection refused"), "{message}");
        assert!(message.contains("--kubeconfig"), "{message}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_runs_into_the_deadline() {
        // Accepts by its backlog and stays silent.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut silent = args(&dir);
        let path = silent.kubeconfig.clone().unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        std::fs::write(&path, KUBECONFIG.replace("http://127.0.0.1:1", &server)).unwrap();
        silent.request_timeout = Duration::from_millis(50);
        let (client, _) = connect(&silent).await.unwrap();
        let message = explain(&client.apiserver_version().await.unwrap_err());
        assert!(message.contains("no answer from") && message.contains("--request-timeout"), "{message}");
    }
}
