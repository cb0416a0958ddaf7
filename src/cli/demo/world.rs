//! An in-memory cluster with Tidegate installed.

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    api::crd,
    cli::policy,
    controller::{self, CACHES, Options},
    lua::Engine,
    rollout,
    sim::{Base, Builder, Cluster},
    telemetry::{Health, Metrics},
};

/// Identity of the controller's client.
pub const CONTROLLER: &str = "controller";

/// Adds what an installation brings: the CRDs, and the hold with the policy that says so.
pub fn install(builder: Builder) -> anyhow::Result<Builder> {
    // The definitions are made from types by reflection.
    static BASE: OnceLock<Base> = OnceLock::new();
    let base = match BASE.get() {
        Some(base) => base,
        None => {
            let made = Base::new([crd::all()?, policy::all()].concat());
            let made = made.map_err(|status| anyhow::anyhow!("the cluster refuses our objects: {}", status.message))?;
            BASE.get_or_init(|| made)
        }
    };
    Ok(builder.base(base).hold())
}

/// Starts the controller on a cluster, with a client of its own.
pub fn start_controller(cluster: &Cluster, client: kube::Client, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(controller::run(client, options(cluster), stop))
}

/// Plays a story on a cluster of its own that begins with `objects`, beside the real controller.
pub async fn perform(
    mut builder: Builder,
    objects: Vec<Value>,
    equip: impl FnOnce(&Cluster, Options) -> Options,
    story: impl AsyncFnOnce(Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for object in objects {
        builder = builder.object(object);
    }
    let cluster = builder.build().map_err(|status| anyhow::anyhow!(status.message))?;
    let stop = CancellationToken::new();
    let options = equip(&cluster, options(&cluster));
    let controller = tokio::spawn(controller::run(cluster.client(CONTROLLER), options, stop.clone()));
    story(cluster).await?;
    stop.cancel();
    controller.await?;
    Ok(())
}

/// How a controller on a cluster in memory is set up.
pub fn options(cluster: &Cluster) -> Options {
    let clock = cluster.clock();
    Options {
        clock: Arc::new(move || clock.now()),
        decide: Arc::new(rollout::decide),
        guard: crate::apply::guard::guard(),
        provider: Arc::new(|_| Arc::new(crate::gather::measures::Nobody)),
        caller: Arc::new(|_, _| Box::new(crate::gather::calls::Nobody)),
        decides_in_place: true,
        namespace: "kruise-rollout".to_owned(),
        config_map_wins: false,
        namespace_scripts: false,
        history_limit: None,
        max_in_flight: None,
        namespaces: Vec::new(),
        hold: None,
        names_people: false,
        workers: 4,
        engine: Arc::new(|| Engine::new(1)),
        health: Health::new([CACHES]),
        metrics: Metrics::new(),
        traces: None,
    }
}

/// The objects of embedded manifests.
pub fn manifests(folder: &include_dir::Dir<'_>) -> anyhow::Result<Vec<Value>> {
    let mut files: Vec<_> = folder.files().filter(|f| f.path().extension().is_some_and(|e| e == "yaml")).collect();
    files.sort_by_key(|f| f.path().to_owned());
    let mut objects = Vec::new();
    for file in files {
        let text = file.contents_utf8().unwrap_or_default();
        objects.extend(crate::yaml::from_str_multi(text)?);
    }
    objects.retain(|o| o.get("kind").is_some_and(|k| k != "Kustomization"));
    Ok(objects)
}
