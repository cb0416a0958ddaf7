//! Pods, watched only while their workload is under release: one watch a Rollout, by the workload's selector. Where many of a
//! namespace are released at a time, the later ones share one watch of all its pods: each watch is a connection of its own.

mod kept;
mod selection;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::ApiResource,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::kept::stripped;
pub use self::selection::selector;
use self::state::{Begun, Place, State};
use super::{
    cache::Change,
    raw::Raw,
    watches::{backoff, config},
};
/// Namespace and name of a Rollout.
pub type Key = (String, String);

/// The watches. Cloning shares them.
#[derive(Clone)]
pub(super) struct Pods {
    client: Client,
    state: Arc<Mutex<State>>,
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
        Pods { client, state: Arc::default(), changes, stop, tasks }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods of a release, once they were read; the first call starts the watch, where there is none for it.
    pub(super) fn of(&self, key: &Key, selector: &str) -> Option<Vec<Arc<Value>>> {
        let mut state = self.lock();
        if let Some(begun) = state.attach(key, selector, &self.stop) {
            let (pods, stop) = (self.clone(), begun.stop.clone());
            self.tasks.spawn(async move { stop.run_until_cancelled(pods.follow(begun)).await });
        }
        state.read(key)
    }

    /// A pod of any release.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().get(namespace, name)
    }

    /// Puts in the answer to a write of ours.
    pub(super) fn put(&self, pod: &Value) {
        self.lock().put_written(&stripped(pod));
    }

    /// Takes out a pod of which the API server said that it is gone.
    pub(super) fn remove(&self, (namespace, name): (&str, &str), uid: &str) {
        self.lock().remove_gone(namespace, name, uid);
    }

    /// Ends the watch of a release that is over.
    pub(super) fn forget(&self, key: &Key) {
        self.lock().detach(key);
    }

    fn tell(&self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            // Nobody listens any more when the controller stops.
            let _ = self.changes.send(Change::Pods(key));
        }
    }

    async fn follow(self, Begun { place, id, selector, .. }: Begun) {
        let namespace = place.namespace();
        let api: Api<Raw> = Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<Pod>(&()));
        let config = match &place {
            Place::Own(_) => config().labels(&selector),
            Place::Shared(_) => config(),
        };
        let events = watcher(api, config).backoff(backoff());
        pin_mut!(events);
        loop {
            match events.try_next().await {
                Ok(Some(event)) => {
                    let told = self.lock().note(&place, id, event);
                    self.tell(told);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, namespace, selector, "pods cannot be watched; trying again");
                    if let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error
                        && status.code == 403
                    {
                        // What can be decided without pods goes on, such as the way back.
                        let told = self.lock().go_without(&place, id);
                        self.tell(told);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use kube::api::{DeleteParams, Patch, PatchParams};
    use serde_json::json;

    use super::{state::OWN, *};
    use crate::{
        api::object::{self, ObjectRef},
        cli::demo::world::install,
        gather::{Cache, Namespaces, Objects as _},
        sim::{Cluster, Verb},
    };

    fn pod(app: usize, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": format!("a{app}")}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}})
    }

    fn key(app: usize) -> Key {
        ("shop".to_owned(), format!("r{app}"))
    }

    fn names(cache: &Cache, app: usize) -> Option<Vec<String>> {
        let pods = cache.pods(&key(app), &format!("app=a{app}"))?;
        Some(pods.iter().map(|pod| object::name(pod).to_owned()).collect())
    }

    fn watches(cluster: &Cluster) -> u64 {
        let requests = cluster.requests().into_iter().filter(|((_, verb), _)| *verb == Verb::Watch);
        requests.map(|(_, count)| count).sum()
    }

    async fn told(changes: &mut mpsc::UnboundedReceiver<Change>) -> BTreeSet<Key> {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut told = BTreeSet::new();
        while let Ok(change) = changes.try_recv() {
            told.extend(match change {
                Change::Pods(key) => Some(key),
                _ => None,
            });
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn many_releases_of_a_namespace_share_one_watch_and_each_sees_its_own_pods() {
        const APPS: usize = OWN + 4;
        let mut builder = install(Cluster::builder()).unwrap().namespace("home").namespace("shop");
        for app in 0..APPS {
            builder = builder.object(pod(app, &format!("p{app}-x"))).object(pod(app, &format!("p{app}-y")));
        }
        let cluster = builder.object(pod(99, "others")).build().unwrap();
        let stop = CancellationToken::new();
        let (cache, mut changes) = Cache::start(cluster.client("controller"), Namespaces::all("home"), stop.clone());
        told(&mut changes).await;
        let before = watches(&cluster);
        for app in 0..APPS {
            assert_eq!(names(&cache, app), None, "not read yet");
        }
        assert_eq!(told(&mut changes).await, (0..APPS).map(key).collect());
        for app in 0..APPS {
            assert_eq!(names(&cache, app).unwrap(), [format!("p{app}-x"), format!("p{app}-y")]);
        }
        assert_eq!(watches(&cluster), before + OWN as u64 + 1);

        let (last, before) = (APPS - 1, APPS - 2);
        cluster.create(pod(last, "new")).unwrap();
        cluster.create(pod(98, "of-nobody")).unwrap();
        assert_eq!(told(&mut changes).await, BTreeSet::from([key(last)]));
        assert_eq!(names(&cache, last).unwrap().len(), 3);
        assert!(cache.get(&ObjectRef::new("v1", "Pod", "shop", "new")).is_ok());
        assert!(cache.get(&ObjectRef::new("v1", "Pod", "shop", "of-nobody")).is_err(), "of no release");

        let users: Api<Pod> = Api::namespaced(cluster.client("user"), "shop");
        let patch = json!({"metadata": {"labels": {"app": format!("a{before}")}}});
        users.patch("new", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        assert_eq!(told(&mut changes).await, BTreeSet::from([key(before), key(last)]));
        assert_eq!((names(&cache, before).unwrap().len(), names(&cache, last).unwrap().len()), (3, 2));

        assert_eq!(names(&cache, 98).unwrap(), ["of-nobody"], "one that comes later finds them at hand");
        cache.forget_pods(&key(0));
        cache.forget_pods(&key(last));
        users.delete("new", &DeleteParams::default().grace_period(0)).await.unwrap();
        assert_eq!(told(&mut changes).await, BTreeSet::from([key(before)]));
        assert_eq!(names(&cache, before).unwrap().len(), 2);
        for app in 0..APPS {
            cache.forget_pods(&key(app));
        }
        cache.forget_pods(&key(98));
        assert_eq!(names(&cache, last), None, "read anew");
        assert_eq!(told(&mut changes).await, BTreeSet::from([key(last)]));
        assert_eq!(names(&cache, last).unwrap().len(), 2);
        stop.cancel();
    }
}
