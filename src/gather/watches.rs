//! How a kind is followed: where, from the first list on, until it is no longer served or readable.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt as _, TryStreamExt, future::select_all, pin_mut};
use kube::{
    Api,
    api::ApiResource,
    core::{GroupVersionKind, Status},
    discovery::{self, Scope},
    runtime::{
        WatchStreamExt,
        utils::{Backoff, ResetTimerBackoff},
        watcher,
    },
};
use serde_json::Value;

use super::{
    cache::{Cache, Kind},
    collect::{METRIC_TEMPLATE, NODE, WEBHOOKS},
    raw::Raw,
    shelf::{Name, name_of},
};
use crate::{
    api::keys,
    rollout::jobs::JOB,
    traffic::{ingress, routes::Missing},
    workload::hold,
};

/// How long until a kind that is not served, or not readable, is tried again.
const RETRY: Duration = Duration::from_secs(15);

/// Which namespaces are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    home: String,
    watched: BTreeSet<String>,
    /// Whether they may bring scripts.
    bring_scripts: bool,
}

/// Where one watch looks: in a namespace, or everywhere.
pub(super) type Place = Option<String>;

impl Namespaces {
    /// Those `watched`, or all if none is given. `home` is that of the controller, with its scripts and templates.
    pub fn new(home: &str, watched: impl IntoIterator<Item = String>) -> Namespaces {
        Namespaces { home: home.to_owned(), watched: watched.into_iter().collect(), bring_scripts: false }
    }

    /// With their own ConfigMaps of scripts.
    pub fn bringing_scripts(self, bring_scripts: bool) -> Namespaces {
        Namespaces { bring_scripts, ..self }
    }

    /// All.
    pub fn all(home: &str) -> Namespaces {
        Namespaces::new(home, [])
    }

    /// The places where objects of a kind are of interest.
    fn of(&self, (api_version, kind): &Kind, scope: &Scope) -> Vec<Place> {
        if kind == "ConfigMap" && !self.bring_scripts {
            return vec![Some(self.home.clone())];
        }
        if *scope == Scope::Cluster || self.watched.is_empty() {
            return vec![None];
        }
        let mut places = self.watched.clone();
        if kind == "ConfigMap" || (api_version.as_str(), kind.as_str()) == METRIC_TEMPLATE {
            // One of the controller's namespace is for all.
            places.insert(self.home.clone());
        }
        places.into_iter().map(Some).collect()
    }
}

/// Whether an object is in a place.
pub(super) fn is_in(place: &Place, name: &Name) -> bool {
    place.as_ref().is_none_or(|namespace| *namespace == name.0)
}

impl Cache {
    /// Follows a kind for as long as the cache is used.
    pub(super) async fn watch(self, key: Kind) {
        loop {
            match self.resolve(&key).await {
                Ok((resource, scope)) => {
                    let places = self.namespaces.of(&key, &scope);
                    if let Some(shelf) = self.filled(&mut self.lock(), &key) {
                        shelf.resource = Some(resource.clone());
                        shelf.awaited = places.iter().cloned().collect();
                    }
                    // Where one namespace cannot be read, nothing is known of the kind.
                    let follows = places.iter().map(|place| self.follow(&key, &resource, place).boxed());
                    select_all(follows).await;
                }
                Err(missing) => {
                    tracing::warn!(api_version = key.0, kind = key.1, ?missing, "kind cannot be watched");
                    self.set_missing(&key, missing);
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn resolve(&self, (api_version, kind): &Kind) -> Result<(ApiResource, Scope), Missing> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        loop {
            match discovery::pinned_kind(&self.client, &gvk).await {
                Ok((resource, capabilities)) => return Ok((resource, capabilities.scope)),
                Err(kube::Error::Api(status)) if is_unknown(&status) => return Err(Missing::Kind),
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    return Err(Missing::Forbidden(status.message));
                }
                Err(kube::Error::Discovery(_)) => return Err(Missing::Kind),
                Err(error) => {
                    tracing::warn!(kind, %error, "discovery failed; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Follows a kind in one place until it is no longer served or readable.
    async fn follow(&self, key: &Kind, resource: &ApiResource, place: &Place) {
        let api: Api<Raw> = match place {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let config = match key.1.as_str() {
            "ConfigMap" => config().fields(&format!("metadata.name={}", keys::SCRIPT_CONFIG_MAP)),
            // Of the cluster's webhooks only our own configuration may be read.
            kind if kind == WEBHOOKS.1 => config().fields(&format!("metadata.name={}", hold::WEBHOOKS)),
            // A cluster has many; ours alone are read.
            kind if kind == JOB.1 => config().labels(keys::JOB_OF),
            _ => config(),
        };
        let events = watcher(api, config).backoff(backoff());
        pin_mut!(events);
        let mut listed: BTreeSet<Name> = BTreeSet::new();
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => {
                    listed.clear();
                    if let Some(shelf) = self.filled(&mut self.lock(), key) {
                        shelf.written.retain(|name| !is_in(place, name));
                    }
                }
                Ok(Some(watcher::Event::InitApply(object))) => {
                    if let Some(object) = raw(key, object) {
                        listed.insert(name_of(&object));
                        self.put(object);
                    }
                }
                Ok(Some(watcher::Event::InitDone)) => self.end_of_list(key, place, &listed),
                Ok(Some(watcher::Event::Apply(object))) => {
                    if let Some(object) = raw(key, object) {
                        self.put(object);
                    }
                }
                Ok(Some(watcher::Event::Delete(object))) => {
                    if let Some(object) = raw(key, object) {
                        self.remove(&object);
                    }
                }
                Ok(None) => return,
                Err(
                    watcher::Error::InitialListFailed(kube::Error::Api(status))
                    | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
                ) if is_unknown(&status) => {
                    self.set_missing(key, Missing::Kind);
                    return;
                }
                Err(
                    watcher::Error::InitialListFailed(kube::Error::Api(status))
                    | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
                ) if status.code == 403 => {
                    self.set_missing(key, Missing::Forbidden(status.message));
                    return;
                }
                Err(error) => tracing::warn!(kind = key.1, %error, "watch failed; it goes on from where it was"),
            }
        }
    }
}

/// The object as JSON, without what no decision reads.
fn raw(key: &Kind, Raw { object: mut value, .. }: Raw) -> Option<Arc<Value>> {
    // Items of a list carry neither.
    let map = value.as_object_mut()?;
    if key.1 == ingress::KIND {
        // Addresses of load balancers, on every Ingress of the cluster.
        map.remove("status");
    }
    if key.1 == NODE.1 {
        // Heartbeats, and every image that is on it.
        map.retain(|field, _| field == "metadata" || field == "spec");
    }
    map.insert("apiVersion".to_owned(), key.0.clone().into());
    map.insert("kind".to_owned(), key.1.clone().into());
    Some(Arc::new(value))
}

/// Objects of a page of a list. A page is in memory as a whole, several times over, and all kinds are read at once.
const PAGE: u32 = 50;

/// How a kind is watched.
pub(super) fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// When a failed watch is tried again: as kube's own, without its jitter. One process does not storm a server, and a
/// run in virtual time repeats exactly.
#[derive(Default)]
pub(super) struct WatchBackoff {
    failures: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = Duration::from_millis(800).saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        Some(delay.min(Duration::from_secs(30)))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// By the code: a group that is not served is answered in plain text, without a reason.
fn is_unknown(status: &Status) -> bool {
    status.code == 404
}

pub(super) fn backoff() -> ResetTimerBackoff<WatchBackoff> {
    ResetTimerBackoff::new(WatchBackoff::default(), Duration::from_secs(120))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{api::object, cli::demo::world::install, gather::Objects as _, sim::Cluster};

    fn named(kind: &str, namespace: &str, name: &str) -> Value {
        let spec = match kind {
            "Service" => json!({"ports": [{"port": 80}]}),
            _ => {
                json!({"provider": {"address": "http://metrics:9090"}, "query": "up", "successCondition": "result > 0"})
            }
        };
        let api_version = if kind == "Service" { "v1" } else { METRIC_TEMPLATE.0 };
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    }

    #[tokio::test(start_paused = true)]
    async fn of_some_namespaces_nothing_else_is_seen() {
        let mut builder = install(Cluster::builder()).unwrap();
        for namespace in ["home", "shop", "team", "other"] {
            builder = builder.namespace(namespace).object(named("Service", namespace, "web"));
            builder = builder.object(named("MetricTemplate", namespace, "up"));
        }
        let cluster = builder.build().unwrap();
        let stop = CancellationToken::new();
        let namespaces = Namespaces::new("home", ["shop", "team"].map(str::to_owned));
        let (cache, _changes) = Cache::start(cluster.client("controller"), namespaces, stop.clone());
        let seen = async |kind: (&str, &str)| -> Vec<String> {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if let Some(found) = cache.list_all(kind.0, kind.1) {
                    return found.iter().map(|o| format!("{}/{}", object::namespace(o), object::name(o))).collect();
                }
            }
            panic!("{kind:?} was not read")
        };
        assert_eq!(seen(("v1", "Service")).await, ["shop/web", "team/web"]);
        // Those of the controller's namespace are for all.
        assert_eq!(seen(METRIC_TEMPLATE).await, ["home/up", "shop/up", "team/up"]);
        for namespace in ["team", "other"] {
            cluster.create(named("Service", namespace, "new")).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(seen(("v1", "Service")).await, ["shop/web", "team/new", "team/web"]);
        assert_eq!(cache.problem(), None);
        stop.cancel();
    }

    #[test]
    fn what_is_in_no_namespace_is_looked_at_everywhere() {
        let some = Namespaces::new("home", ["shop".to_owned()]);
        let of = |kind: (&str, &str), scope| some.of(&(kind.0.to_owned(), kind.1.to_owned()), &scope);
        assert_eq!(of(("networking.k8s.io/v1", "IngressClass"), Scope::Cluster), [None]);
        assert_eq!(of(("v1", "ConfigMap"), Scope::Namespaced), [Some("home".to_owned())]);
        assert_eq!(of(("apps/v1", "Deployment"), Scope::Namespaced), [Some("shop".to_owned())]);
        let key = ("v1".to_owned(), "ConfigMap".to_owned());
        let bringing = some.clone().bringing_scripts(true);
        assert_eq!(bringing.of(&key, &Scope::Namespaced), ["home", "shop"].map(|n| Some(n.to_owned())));
        assert_eq!(Namespaces::all("home").bringing_scripts(true).of(&key, &Scope::Namespaced), [None]);
        let all = Namespaces::all("home");
        assert_eq!(all.of(&("apps/v1".to_owned(), "Deployment".to_owned()), &Scope::Namespaced), [None]);
    }
}
