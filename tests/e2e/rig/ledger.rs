//! Everything that happened to a namespace's pods and routes, in the order in which it happened.
//!
//! All objects of this cluster are in one etcd, so their resource versions are moments of one clock. What a promise says
//! about "every moment" is checked at every revision, not at the moments when a test happened to look.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::space::Space;

const KINDS: [(&str, &str); 3] = [
    ("v1", "Pod"),
    ("networking.istio.io/v1alpha3", "VirtualService"),
    ("networking.istio.io/v1beta1", "DestinationRule"),
];

struct Entry {
    kind: &'static str,
    object: Value,
    deleted: bool,
    /// There when the ledger was opened.
    initial: bool,
}

#[derive(Default)]
struct Book {
    entries: BTreeMap<u64, Entry>,
    listed: usize,
    lost: Option<String>,
}

pub struct Ledger {
    book: Arc<Mutex<Book>>,
    _stop: DropGuard,
}

impl Ledger {
    /// Opens the ledger; what is there now is its first page.
    pub async fn open(space: &Space) -> Result<Ledger> {
        let book = Arc::new(Mutex::new(Book::default()));
        let stop = CancellationToken::new();
        for (api_version, kind) in KINDS {
            let api = space.rig.objects.api(api_version, kind, &space.name);
            let (book, stop) = (book.clone(), stop.clone());
            tokio::spawn(async move {
                let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
                while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
                    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut write = |object: kube::api::DynamicObject, deleted, initial| {
                        let revision = object.metadata.resource_version.as_ref().and_then(|v| v.parse().ok());
                        match (revision, serde_json::to_value(object)) {
                            (Some(revision), Ok(object)) => {
                                book.entries.insert(revision, Entry { kind, object, deleted, initial });
                            }
                            _ => book.lost = Some(format!("a {kind} without a resource version")),
                        }
                    };
                    match event {
                        Ok(watcher::Event::InitApply(object)) => write(object, false, true),
                        Ok(watcher::Event::Apply(object)) => write(object, false, false),
                        Ok(watcher::Event::Delete(object)) => write(object, true, false),
                        Ok(watcher::Event::InitDone) => book.listed += 1,
                        Ok(watcher::Event::Init) if book.listed < KINDS.len() => {}
                        // A list in the middle may hide revisions.
                        Ok(watcher::Event::Init) => book.lost = Some(format!("the watch of {kind} began again")),
                        Err(error) => book.lost = Some(format!("the watch of {kind}: {error}")),
                    }
                }
            });
        }
        super::poll::until("the ledger is open", super::poll::SOON, async || {
            let listed = book.lock().unwrap_or_else(PoisonError::into_inner).listed;
            ensure!(listed == KINDS.len(), "{listed} of {} lists", KINDS.len());
            Ok(())
        })
        .await?;
        Ok(Ledger { book, _stop: stop.drop_guard() })
    }

    /// Goes through all moments. At each, at least `least` pods are Ready, and every subset that a route names is known and
    /// has a Ready pod. Returns how many moments there were.
    pub fn capacity_before_traffic(&self, least: usize) -> Result<usize> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &book.lost {
            anyhow::bail!("the ledger has a gap: {why}");
        }
        let mut now: BTreeMap<(&str, String), &Value> = BTreeMap::new();
        let mut moments = 0;
        for initial in [true, false] {
            for (revision, entry) in book.entries.iter().filter(|(_, e)| e.initial == initial) {
                let name = entry.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = (entry.kind, name);
                if entry.deleted {
                    now.remove(&key);
                } else {
                    now.insert(key.clone(), &entry.object);
                }
                if !initial {
                    moments += 1;
                    let after = format!(
                        "at revision {revision}, when {} {} {}",
                        key.0,
                        key.1,
                        if entry.deleted { "went" } else { "changed" }
                    );
                    check(&now, least).context(after)?;
                }
            }
        }
        Ok(moments)
    }
}

fn check(now: &BTreeMap<(&str, String), &Value>, least: usize) -> Result<()> {
    let of = |kind: &'static str| now.iter().filter(move |((k, _), _)| *k == kind).map(|(_, object)| *object);
    let ready: Vec<&Value> = of("Pod")
        .filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
            ready && pod["metadata"]["deletionTimestamp"].is_null()
        })
        .collect();
    ensure!(ready.len() >= least, "only {} pods are Ready, promised are {least}", ready.len());
    let subsets: Vec<&Value> = of("DestinationRule").flat_map(|r| r["spec"]["subsets"].as_array()).flatten().collect();
    let routes = of("VirtualService")
        .flat_map(|v| v["spec"]["http"].as_array())
        .flatten()
        .flat_map(|h| h["route"].as_array())
        .flatten();
    for route in routes.filter(|route| route["weight"] != 0) {
        let Some(name) = route["destination"]["subset"].as_str() else { continue };
        let subset = subsets.iter().find(|s| s["name"] == name);
        let subset = subset.with_context(|| format!("requests go to subset {name}, which no DestinationRule knows"))?;
        let labels = subset["labels"].as_object().cloned().unwrap_or_default();
        let serves = |pod: &&&Value| labels.iter().all(|(k, v)| pod["metadata"]["labels"][k] == *v);
        ensure!(ready.iter().any(|pod| serves(&pod)), "requests go to subset {name}, which has no Ready pod");
    }
    Ok(())
}
