//! Runs the controllers of OpenKruise's kinds over a client, for an API server that has their definitions but no
//! OpenKruise.
//!
//! A watch only says that something has changed. Each look then lists what the workload may own, so it never decides on
//! what its own writes have overtaken. That is simple and not cheap: for tests. Orphans are not adopted when they come,
//! but at the next look.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::super::super::json::{self, controller_of, text};
use super::{Dependent, Outcome, Owned, Workload, Write, advanced_daemon_set, advanced_stateful_set, clone_set};

const KINDS: [&Workload; 4] =
    [&clone_set::KIND, &advanced_stateful_set::KIND, &advanced_daemon_set::KIND, &advanced_stateful_set::LIKE];
/// Newest first.
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];
/// Until a kind that is not served, or a look that failed, is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A workload: its namespace and name.
type Key = (String, String);

/// Plays OpenKruise's controllers of CloneSets, Advanced StatefulSets and Advanced DaemonSets, and that of GameServerSets, with the rights of a client,
/// for as long as the future is polled. Kinds may come and go.
///
/// `now` tells the time by which pods become available.
pub async fn play_kruise(client: Client, now: impl Fn() -> Timestamp + Copy) {
    futures::future::join_all(KINDS.map(|kind| play(kind, client.clone(), now))).await;
}

async fn play(kind: &'static Workload, client: Client, now: impl Fn() -> Timestamp + Copy) {
    loop {
        for version in VERSIONS {
            let resource = resource(kind.group, version, kind.kind, kind.plural);
            let workloads: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            if workloads.list(&ListParams::default().limit(1)).await.is_ok() {
                let remote = Remote { kind, client: client.clone(), resource };
                let (due, keys) = unbounded_channel();
                // Ends when the kind is served no more.
                futures::future::select(Box::pin(remote.watch(due.clone())), Box::pin(remote.work(due, keys, now)))
                    .await;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

struct Remote {
    kind: &'static Workload,
    client: Client,
    resource: ApiResource,
}

fn value(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

impl Remote {
    fn dependents(&self, of: Dependent, namespace: &str) -> Api<DynamicObject> {
        let resource = match of {
            Dependent::Pod => resource("", "v1", "Pod", "pods"),
            Dependent::Revision => resource("apps", "v1", "ControllerRevision", "controllerrevisions"),
        };
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    fn workloads(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &self.resource)
    }

    /// Tells whose turn it is. Errors of a watch are waited out by the watcher; the loss of the kind itself ends it.
    async fn watch(&self, due: UnboundedSender<Key>) {
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &self.resource);
        let of_workload = |w: &Value| vec![(json::namespace(w).to_owned(), json::name(w).to_owned())];
        let of_owner = |o: &Value| {
            let owner = controller_of(o).filter(|r| self.kind.is_named_by(r));
            owner.map(|r| (json::namespace(o).to_owned(), text(r, "/name").to_owned())).into_iter().collect()
        };
        let tell = |keys: Vec<Key>| keys.into_iter().for_each(|k| drop(due.send(k)));
        let own = listen(all.clone(), |w| tell(of_workload(w)));
        let pods = listen(self.dependents(Dependent::Pod, ""), |o| tell(of_owner(o)));
        let revisions = listen(self.dependents(Dependent::Revision, ""), |o| tell(of_owner(o)));
        let nodes = async {
            if self.kind.node_concerns.is_none() {
                return std::future::pending().await;
            }
            let nodes: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource("", "v1", "Node", "nodes"));
            let changed = tokio::sync::Notify::new();
            let watch = listen(nodes, |_| changed.notify_one());
            let spread = async {
                loop {
                    changed.notified().await;
                    let list = all.list(&ListParams::default()).await;
                    list.into_iter().flatten().for_each(|w| tell(of_workload(&value(w))));
                }
            };
            futures::future::select(Box::pin(watch), Box::pin(spread)).await;
        };
        let served = async {
            while all.list(&ListParams::default().limit(1)).await.is_ok_or_away() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        futures::future::select_all([
            Box::pin(own) as std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>,
            Box::pin(pods),
            Box::pin(revisions),
            Box::pin(nodes),
            Box::pin(served),
        ])
        .await;
    }

    async fn work(
        &self,
        due: UnboundedSender<Key>,
        mut keys: UnboundedReceiver<Key>,
        now: impl Fn() -> Timestamp + Copy,
    ) {
        while let Some(first) = keys.recv().await {
            let mut turn = BTreeSet::from([first]);
            while let Ok(next) = keys.try_recv() {
                turn.insert(next);
            }
            for key in turn {
                let again = match self.look(&key, now()).await {
                    Ok(again) => again,
                    Err(error) => {
                        tracing::debug!(kind = self.kind.kind, name = key.1, %error, "look failed");
                        Some(RETRY)
                    }
                };
                if let Some(after) = again {
                    let due = due.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        due.send(key).ok();
                    });
                }
            }
        }
    }

    /// One look at a workload; gives the time until the next one.
    async fn look(&self, (namespace, name): &Key, now: Timestamp) -> kube::Result<Option<Duration>> {
        let workloads = self.workloads(namespace);
        let Some(workload) = workloads.get_opt(name).await?.map(value) else { return Ok(None) };
        let list = async |api: Api<DynamicObject>| -> kube::Result<Vec<Arc<Value>>> {
            Ok(api.list(&ListParams::default()).await?.items.into_iter().map(|o| Arc::new(value(o))).collect())
        };
        let pods = list(self.dependents(Dependent::Pod, namespace)).await?;
        let revisions = list(self.dependents(Dependent::Revision, namespace)).await?;
        let nodes = match self.kind.node_concerns {
            Some(_) => list(Api::all_with(self.client.clone(), &resource("", "v1", "Node", "nodes"))).await?,
            None => Vec::new(),
        };
        let owned = Owned { workload: Arc::new(workload.clone()), revisions, pods, nodes, now };
        let Outcome { writes, status, again } = self.kind.look(owned);
        for write in writes {
            self.execute(namespace, &workload, write).await?;
        }
        if let Some(status) = status.filter(|s| workload.get("status") != Some(s)) {
            let mut new = workload;
            json::set(&mut new, &["status"], status);
            workloads.replace_status(name, &PostParams::default(), &object(new)?).await?;
        }
        Ok(again)
    }

    async fn execute(&self, namespace: &str, workload: &Value, write: Write) -> kube::Result<()> {
        let params = PatchParams::default();
        let fixed = |mut patch: Value, uid: String| {
            json::set(&mut patch, &["metadata", "uid"], uid);
            patch
        };
        match write {
            Write::Create(of, new) => {
                let made = self.dependents(of, namespace).create(&PostParams::default(), &object(new)?).await;
                if let (Err(kube::Error::Api(status)), Dependent::Revision) = (&made, of)
                    && status.is_already_exists()
                {
                    let collisions = json::int(workload, "/status/collisionCount").unwrap_or(0) + 1;
                    let patch = json!({"status": {"collisionCount": collisions}});
                    let name = json::name(workload);
                    self.workloads(namespace).patch_status(name, &params, &Patch::Merge(patch)).await?;
                }
                made.map(drop)
            }
            Write::Patch { of, name, uid, patch } => {
                let patch = Patch::Merge(fixed(patch, uid));
                self.dependents(of, namespace).patch(&name, &params, &patch).await.map(drop)
            }
            Write::PatchStatus { of, name, uid, patch } => {
                // Strategic: what the kubelet says meanwhile of other conditions stays.
                let patch = Patch::Strategic(fixed(patch, uid));
                self.dependents(of, namespace).patch_status(&name, &params, &patch).await.map(drop)
            }
            Write::Delete { of, name, uid } => {
                let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
                let params = DeleteParams { preconditions, ..DeleteParams::default() };
                match self.dependents(of, namespace).delete(&name, &params).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                    done => done.map(drop),
                }
            }
        }
    }
}

fn object(value: Value) -> kube::Result<DynamicObject> {
    serde_json::from_value(value).map_err(kube::Error::SerdeError)
}

/// Tells of every object that a watch brings, again from the start when it breaks.
async fn listen(api: Api<DynamicObject>, tell: impl Fn(&Value)) {
    let events = watcher(api, Config::default()).filter_map(|event| async { event.ok() });
    events
        .for_each(|event| {
            if let Event::Apply(o) | Event::InitApply(o) | Event::Delete(o) = event {
                tell(&value(o));
            }
            std::future::ready(())
        })
        .await;
}

trait Served {
    fn is_ok_or_away(&self) -> bool;
}

impl<T> Served for kube::Result<T> {
    /// Whether the server has the resource, as far as one can tell.
    fn is_ok_or_away(&self) -> bool {
        !matches!(self, Err(kube::Error::Api(status)) if status.is_not_found())
    }
}
