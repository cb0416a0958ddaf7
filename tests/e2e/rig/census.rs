//! How many pods were Ready at every moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::space::Space;

#[derive(Default)]
struct Count {
    ready: BTreeMap<String, bool>,
    complete: bool,
    fewest: Option<usize>,
}

/// Counts the Ready pods of a selector after each change.
pub struct Census {
    count: Arc<Mutex<Count>>,
    _stop: DropGuard,
}

impl Census {
    pub fn of(space: &Space, labels: &str) -> Census {
        let api: Api<Pod> = Api::namespaced(space.rig.cluster.admin.clone(), &space.name);
        let count = Arc::new(Mutex::new(Count::default()));
        let stop = CancellationToken::new();
        let (shared, token, config) = (count.clone(), stop.clone(), watcher::Config::default().labels(labels));
        tokio::spawn(async move {
            let mut events = watcher(api, config).default_backoff().boxed();
            while let Some(Some(event)) = token.run_until_cancelled(events.next()).await {
                let mut count = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
                        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
                        let leaving = pod.metadata.deletion_timestamp.is_some();
                        count.ready.insert(pod.uid().unwrap_or_default(), ready && !leaving);
                    }
                    Ok(watcher::Event::Delete(pod)) => drop(count.ready.remove(&pod.uid().unwrap_or_default())),
                    Ok(watcher::Event::InitDone) => count.complete = true,
                    Ok(watcher::Event::Init) | Err(_) => count.complete = false,
                }
                if count.complete {
                    let ready = count.ready.values().filter(|r| **r).count();
                    count.fewest = Some(count.fewest.map_or(ready, |f| f.min(ready)));
                }
            }
        });
        Census { count, _stop: stop.drop_guard() }
    }

    /// Never fewer than `least` pods were Ready since the census began.
    pub fn never_below(&self, least: usize) -> Result<()> {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let fewest = count.fewest.unwrap_or(0);
        ensure!(fewest >= least, "only {fewest} pods were Ready at some moment, promised were {least}");
        Ok(())
    }
}
