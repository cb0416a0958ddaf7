//! Writes what holds changed workloads: the policies of the API server, or the configuration of our webhooks. And tries
//! whether the API server acts on the policies.

use std::time::Duration;

use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::{Fence, within};
use crate::{
    api::{
        keys,
        object::{self, text},
    },
    workload::hold::{self, PROBE},
};

/// No call is waited for longer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Writes the holds, as long as its fence lets it.
#[derive(Clone)]
pub struct Holds {
    client: Client,
    fence: Fence,
    /// Namespace of the probe: the controller's own.
    home: String,
}

impl Holds {
    /// Of a controller in the namespace `home`.
    pub fn new(client: Client, fence: Fence, home: &str) -> Holds {
        Holds { client, fence, home: home.to_owned() }
    }

    async fn call<T>(&self, what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
        let Some(left) = self.fence.left() else { return Err(Failed::new(what, "this replica leads no longer")) };
        match within(left.min(TIMEOUT), call).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(kube::Error::Api(status))) => {
                Err(Failed { is_missing: status.code == 404, ..Failed::new(what, &status.message) })
            }
            Some(Err(error)) => Err(Failed::new(what, &error.to_string())),
            None => Err(Failed::new(what, "no answer from the API server in time")),
        }
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let (group, version) = text(object, &["apiVersion"]).split_once('/').unwrap_or_default();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text(object, &["kind"])));
        match object::namespace(object) {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    /// An object of the cluster as it is; `None` where it is not there.
    pub async fn find(&self, api_version: &str, kind: &str, name: &str) -> Result<Option<Value>, Failed> {
        let object = json!({"apiVersion": api_version, "kind": kind});
        match self.call(&format!("{kind} {name}"), self.api(&object).get(name)).await {
            Ok(found) => Ok(serde_json::to_value(found).ok()),
            Err(failed) if failed.is_missing => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Puts objects in place.
    pub async fn install(&self, objects: &[Value]) -> Result<(), Failed> {
        let params = PatchParams::apply(keys::FIELD_MANAGER).force();
        for object in objects {
            let (kind, name) = (text(object, &["kind"]), object::name(object));
            let (api, patch) = (self.api(object), Patch::Apply(object));
            self.call(&format!("{kind} {name}"), api.patch(name, &params, &patch)).await?;
            tracing::info!(kind, name, "the hold is put in place");
        }
        Ok(())
    }

    /// Takes objects away, if they are still those that were looked at.
    pub async fn remove(&self, objects: &[Value]) -> Result<(), Failed> {
        for object in objects {
            let (kind, name) = (text(object, &["kind"]), object::name(object));
            let uid = Some(object::uid(object)).filter(|uid| !uid.is_empty()).map(str::to_owned);
            let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
            let api = self.api(object);
            match self.call(&format!("{kind} {name}"), api.delete(name, &params)).await {
                Ok(_) => tracing::info!(kind, name, "the hold that is no longer needed is taken away"),
                Err(failed) if failed.is_missing => {}
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    /// Whether the API server itself holds a changed Deployment: tried on one of our own that never has a pod, and never
    /// stored. Our webhook leaves it alone.
    pub async fn is_held_by_policy(&self) -> Result<bool, Failed> {
        let probe = probe(&self.home);
        let api = self.api(&probe);
        let what = format!("the probe, Deployment {}/{PROBE}", self.home);
        let params = PatchParams::apply(keys::FIELD_MANAGER).force();
        let patch = Patch::Apply(&probe);
        self.call(&what, api.patch(PROBE, &params, &patch)).await?;
        let change = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "probe:2"}]);
        let change: json_patch::Patch =
            serde_json::from_value(change).map_err(|error| Failed::new(&what, &error.to_string()))?;
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::<Value>::Json(change);
        let answer = self.call(&what, api.patch(PROBE, &params, &patch)).await?;
        let answer = serde_json::to_value(answer).unwrap_or_default();
        Ok(object::annotation(&answer, keys::IN_PROGRESSING).is_some_and(|mark| !mark.is_empty()))
    }

    /// Takes the probe away.
    pub async fn forget_probe(&self) -> Result<(), Failed> {
        self.remove(&[probe(&self.home)]).await
    }
}

/// Paused from the beginning, so that it gets no pods; not scaled to nothing, because what has no pods is not held.
fn probe(namespace: &str) -> Value {
    let labels = json!({"app.kubernetes.io/name": PROBE});
    let switch = hold::rule("apps", "v1", "deployments").map_or("", |rule| rule.switch);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": PROBE, "namespace": namespace, "labels": {switch: "deployment"}},
        "spec": {"paused": true, "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "probe", "image": "probe:1"}]}}},
    })
}

/// Why something was not written.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Failed {
    what: String,
    why: String,
    is_missing: bool,
}

impl Failed {
    fn new(what: &str, why: &str) -> Failed {
        Failed { what: what.to_owned(), why: why.to_owned(), is_missing: false }
    }
}
