//! Pods, watched only while their workload is under release: one watch a Rollout, by the workload's selector.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::ApiResource,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cache::{Change, version},
    raw::Raw,
    watches::{backoff, config},
};
use crate::api::{
    keys,
    object::{self, at},
};

/// Namespace and name of a Rollout.
pub type Key = (String, String);

struct Watched {
    selector: String,
    pods: BTreeMap<String, Arc<Value>>,
    /// Names seen by the list that is being read.
    listed: Option<Vec<String>>,
    is_synced: bool,
    stop: CancellationToken,
}

/// The watches. Cloning shares them.
#[derive(Clone)]
pub(super) struct Pods {
    client: Client,
    watches: Arc<Mutex<BTreeMap<Key, Watched>>>,
    changes: mpsc::UnboundedSender<Change>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Pods {
    pub(super) fn new(
        client: Client,
        changes: mpsc::UnboundedSender<Change>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Pods { client, watches: Arc::default(), changes, stop, tasks }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Watched>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods of a release, once they were read; the first call starts the watch.
    pub(super) fn of(&self, key: &Key, selector: &str) -> Option<Vec<Arc<Value>>> {
        let mut watches = self.lock();
        if let Some(watched) = watches.get(key).filter(|w| w.selector == selector) {
            return watched.is_synced.then(|| watched.pods.values().cloned().collect());
        }
        let stop = self.stop.child_token();
        let watched = Watched {
            selector: selector.to_owned(),
            pods: BTreeMap::new(),
            listed: None,
            is_synced: false,
            stop: stop.clone(),
        };
        if let Some(old) = watches.insert(key.clone(), watched) {
            old.stop.cancel();
        }
        let (pods, key, selector) = (self.clone(), key.clone(), selector.to_owned());
        self.tasks.spawn(async move { stop.run_until_cancelled(pods.follow(key, selector)).await });
        None
    }

    /// A pod of any release.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let watches = self.lock();
        watches.iter().filter(|(key, _)| key.0 == namespace).find_map(|(_, watched)| watched.pods.get(name)).cloned()
    }

    /// Puts in the answer to a write of ours.
    pub(super) fn put(&self, pod: &Value) {
        let mut watches = self.lock();
        let places = watches.iter_mut().filter(|((namespace, _), _)| namespace == object::namespace(pod));
        for known in places.filter_map(|(_, watched)| watched.pods.get_mut(object::name(pod))) {
            if object::uid(known) == object::uid(pod) {
                *known = Arc::new(stripped(pod));
            }
        }
    }

    /// Takes out a pod of which the API server said that it is gone.
    pub(super) fn remove(&self, (namespace, name): (&str, &str), uid: &str) {
        for (_, watched) in self.lock().iter_mut().filter(|(key, _)| key.0 == namespace) {
            if watched.pods.get(name).is_some_and(|known| object::uid(known) == uid) {
                watched.pods.remove(name);
            }
        }
    }

    /// Ends the watch of a release that is over.
    pub(super) fn forget(&self, key: &Key) {
        if let Some(watched) = self.lock().remove(key) {
            watched.stop.cancel();
        }
    }

    async fn follow(self, key: Key, selector: String) {
        let api: Api<Raw> = Api::namespaced_with(self.client.clone(), &key.0, &ApiResource::erase::<Pod>(&()));
        let events = watcher(api, config().labels(&selector)).backoff(backoff());
        pin_mut!(events);
        loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    if self.note(&key, &selector, event) {
                        let _ = self.changes.send(Change::Pods(key.clone()));
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, namespace = key.0, selector, "pods cannot be watched; trying again");
                    if let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error
                        && status.code == 403
                        && let Some(watched) = self.lock().get_mut(&key).filter(|w| w.selector == selector)
                    {
                        // What can be decided without pods goes on, such as the way back.
                        watched.is_synced = true;
                        let _ = self.changes.send(Change::Pods(key.clone()));
                    }
                }
            }
        }
    }

    /// Whether anything changed that a decision reads.
    fn note(&self, key: &Key, selector: &str, event: watcher::Event<Raw>) -> bool {
        let mut watches = self.lock();
        let Some(watched) = watches.get_mut(key).filter(|w| w.selector == selector) else { return false };
        match event {
            watcher::Event::Init => {
                watched.listed = Some(Vec::new());
                false
            }
            watcher::Event::InitApply(pod) | watcher::Event::Apply(pod) => {
                let pod = stripped(&pod.object);
                let name = object::name(&pod).to_owned();
                if let Some(listed) = &mut watched.listed {
                    listed.push(name.clone());
                }
                if watched.pods.get(&name).is_some_and(|known| version(known) > version(&pod)) {
                    // Of before a write of ours.
                    return false;
                }
                let is_news = watched.pods.get(&name).is_none_or(|known| !is_same(known, &pod));
                watched.pods.insert(name, Arc::new(pod));
                is_news && watched.listed.is_none()
            }
            watcher::Event::InitDone => {
                let listed = watched.listed.take().unwrap_or_default();
                watched.pods.retain(|name, _| listed.contains(name));
                watched.is_synced = true;
                true
            }
            watcher::Event::Delete(pod) => {
                let name = object::name(&pod.object);
                // A pod that was made anew under the name is another one.
                let is_known =
                    watched.pods.get(name).is_some_and(|known| object::uid(&pod.object) == object::uid(known));
                is_known && watched.pods.remove(name).is_some()
            }
        }
    }
}

/// What tells how a pod is.
const STATUS: [&str; 6] = ["phase", "reason", "message", "conditions", "initContainerStatuses", "containerStatuses"];

/// What decisions read of a pod: who it is and how it is, not what it is made of.
pub(crate) fn stripped(pod: &Value) -> Value {
    let part = |path: &[&str], keys: &[&str]| {
        let fields = at(pod, path).and_then(Value::as_object).into_iter().flatten();
        let kept = fields.filter(|(key, _)| keys.contains(&key.as_str()));
        Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
    };
    let metadata = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "labels",
        "ownerReferences",
        "creationTimestamp",
        "deletionTimestamp",
    ];
    let mut kept = part(&["metadata"], &metadata);
    let annotations = part(&["metadata", "annotations"], &[keys::DELETION_COST]);
    if let Some(kept) = kept.as_object_mut().filter(|_| annotations.as_object().is_some_and(|a| !a.is_empty())) {
        kept.insert("annotations".to_owned(), annotations);
    }
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": kept,
        "spec": part(&["spec"], &["nodeName"]),
        "status": part(&["status"], &[&STATUS[..], &["podIP"]].concat()),
    })
}

fn is_same(a: &Value, b: &Value) -> bool {
    let parts: [&[&str]; 4] =
        [&["metadata", "uid"], &["metadata", "labels"], &["metadata", "deletionTimestamp"], &["spec"]];
    parts.iter().all(|path| at(a, path) == at(b, path))
        && STATUS.iter().all(|field| at(a, &["status", field]) == at(b, &["status", field]))
}

/// The label selector of a workload, as a watch names it; `None` when it selects nothing or everything.
pub fn selector(workload: &Value) -> Option<String> {
    let selector = at(workload, &["spec", "selector"])?;
    let mut terms: Vec<String> = at(selector, &["matchLabels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for expression in at(selector, &["matchExpressions"]).and_then(Value::as_array).into_iter().flatten() {
        let key = object::text(expression, &["key"]);
        let values = at(expression, &["values"]).and_then(Value::as_array).into_iter().flatten();
        let values: Vec<&str> = values.filter_map(Value::as_str).collect();
        terms.push(match object::text(expression, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!terms.is_empty()).then(|| terms.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_a_selector_as_the_api_does() {
        let workload = json!({"spec": {"selector": {"matchLabels": {"app": "web", "tier": "front"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "b", "operator": "NotIn", "values": ["z"]},
            {"key": "c", "operator": "Exists"}, {"key": "d", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector(&workload).unwrap(), "app=web,tier=front,a in (x,y),b notin (z),c,!d");
        assert_eq!(selector(&json!({"spec": {"selector": {}}})), None);
        assert_eq!(selector(&json!({"spec": {}})), None);
    }

    #[test]
    fn keeps_of_a_pod_what_tells_its_state() {
        let pod = json!({"metadata": {"name": "a", "annotations": {"x": "y"}, "labels": {"l": "1"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}]}, "status": {"phase": "Running", "podIP": "1.2.3.4"}});
        let kept = stripped(&pod);
        assert_eq!(kept["metadata"], json!({"name": "a", "labels": {"l": "1"}}));
        let status = json!({"phase": "Running", "podIP": "1.2.3.4"});
        assert_eq!((&kept["spec"], &kept["status"]), (&json!({"nodeName": "n"}), &status));
        let mut moved = pod.clone();
        moved["status"]["podIP"] = json!("1.2.3.5");
        assert!(is_same(&kept, &stripped(&moved)));
        moved["status"]["phase"] = json!("Failed");
        assert!(!is_same(&kept, &stripped(&moved)));
    }
}
