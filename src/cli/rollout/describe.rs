//! `rollout describe`: everything about a Rollout on one page.

use std::fmt::Write as _;

use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    runtime::{WatchStreamExt as _, watcher},
};

use super::{
    output::Io,
    page::{Surroundings, describe, pod_selector},
    resources,
    view::View,
};
use crate::cli::client::explain;

/// Arguments of `rollout describe`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = super::EXIT_CODES)]
pub struct Args {
    /// Nothing for all of the namespace, rollout/NAME, or rollout NAME; several at once
    #[arg(value_name = "RESOURCE")]
    pub resources: Vec<String>,
    /// Go on and print the page again on each change
    #[arg(short, long)]
    pub watch: bool,
    /// No colours, also on a terminal
    #[arg(long)]
    pub no_color: bool,
}

/// Prints a page for each Rollout, and with `--watch` again on each change. False when one could not be read.
///
/// # Errors
/// A wrong command line, an API server that refuses the list, or a closed output.
pub async fn run(args: &Args, client: Client, namespace: &str, io: &mut Io<'_>) -> anyhow::Result<bool> {
    let mut names = resources::names(&args.resources)?;
    if args.watch && names.len() != 1 {
        return Err(resources::Usage("--watch goes with one Rollout: rollout/NAME or rollout NAME".to_owned()).into());
    }
    let api = resources::api(&client, namespace);
    if names.is_empty() {
        let list = api.list(&ListParams::default()).await.map_err(|e| resources::list_failure(&e))?;
        names = list.items.into_iter().filter_map(|o| o.metadata.name).collect();
        if names.is_empty() {
            io.note(&format!("No rollouts found in namespace {namespace:?}."))?;
        }
    }
    let colour = io.colour && !args.no_color;
    if let (true, Some(name)) = (args.watch, names.first()) {
        return watch(&client, &api, namespace, name, colour, io).await;
    }
    let mut all = true;
    for (i, name) in names.iter().enumerate() {
        match page(&client, &api, namespace, name, colour).await {
            Ok(page) => io.print(&if i > 0 { format!("\n{page}") } else { page })?,
            Err(error) => {
                all = false;
                io.note(&format!("error: {error:#}"))?;
            }
        }
    }
    Ok(all)
}

async fn page(
    client: &Client,
    api: &Api<DynamicObject>,
    namespace: &str,
    name: &str,
    colour: bool,
) -> anyhow::Result<String> {
    let object = api.get(name).await.map_err(|e| resources::failure(&e, namespace, name))?;
    let rollout = resources::typed(&object)?;
    let surroundings = surroundings(client, namespace, &View::of(&rollout)).await;
    Ok(describe(&rollout, &surroundings, Timestamp::now(), colour))
}

async fn surroundings(client: &Client, namespace: &str, view: &View<'_>) -> Surroundings {
    let pods = async {
        let Some(selector) = pod_selector(view) else { return Ok(Vec::new()) };
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let list = api.list(&ListParams::default().labels(&selector)).await.map_err(|e| explain(&e))?;
        Ok(list.items)
    };
    let events = async {
        let uid = view.rollout.metadata.uid.as_deref().unwrap_or_default();
        let mut fields = format!("involvedObject.kind=Rollout,involvedObject.name={}", view.name);
        if !uid.is_empty() {
            let _ = write!(fields, ",involvedObject.uid={uid}");
        }
        let api: Api<Event> = Api::namespaced(client.clone(), namespace);
        let list = api.list(&ListParams::default().fields(&fields)).await.map_err(|e| explain(&e))?;
        Ok(list.items)
    };
    let (pods, events) = futures::join!(pods, events);
    Surroundings { pods, events }
}

async fn watch(
    client: &Client,
    api: &Api<DynamicObject>,
    namespace: &str,
    name: &str,
    colour: bool,
    io: &mut Io<'_>,
) -> anyhow::Result<bool> {
    // Says at once what is wrong with the name or the cluster.
    api.get(name).await.map_err(|e| resources::failure(&e, namespace, name))?;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher::watcher(api.clone(), config).default_backoff();
    pin_mut!(events);
    let (mut version, mut is_troubled) = (None, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                is_troubled = false;
                if version == object.metadata.resource_version {
                    continue;
                }
                let rollout = resources::typed(&object)?;
                version = object.metadata.resource_version;
                let surroundings = surroundings(client, namespace, &View::of(&rollout)).await;
                let page = describe(&rollout, &surroundings, Timestamp::now(), colour);
                io.print(&if io.terminal { format!("\u{1b}[2J\u{1b}[H{page}") } else { format!("{page}\n") })?;
            }
            Ok(watcher::Event::Delete(_)) => anyhow::bail!("{} {name:?} was deleted", resources::RESOURCE),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => {
                if let Some(error) = super::fatal(&error) {
                    return Err(resources::failure(error, namespace, name));
                }
                if !std::mem::replace(&mut is_troubled, true) {
                    io.note(&super::trouble(&error))?;
                }
            }
        }
    }
    Ok(true)
}
