//! The only writer: executes a plan's effects in order, then stores the status. Every write asks the [`Fence`] and the
//! [`Guard`] first.

mod error;
mod fence;
pub mod guard;
pub mod hold;

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, Patch, PatchParams, Preconditions},
    core::GroupVersionKind,
};
use serde::Serialize;
use serde_json::{Value, json};

pub use error::{Class, Error};
pub use fence::Fence;
pub use guard::{Guard, Reach};

use crate::{
    api::{
        keys,
        object::{self, ObjectRef},
        v1beta1::{Rollout, RolloutStatus},
    },
    gather::{Cache, raw::Raw},
    rollout::{Effect, plan::Purpose},
    telemetry::Metrics,
    traffic::routes::{Change, RouteWrite},
};

/// No write is waited for longer than this.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Writes to the cluster. The answers go into the cache, so that the next decision sees them.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    cache: Cache,
    metrics: Metrics,
    fence: Fence,
    guard: Guard,
}

impl Writer {
    /// A writer that keeps `cache` up to date with its own writes, as long as `fence` lets it.
    pub fn new(client: Client, cache: Cache, metrics: Metrics, fence: Fence, guard: Guard) -> Self {
        Writer { client, cache, metrics, fence, guard }
    }

    /// Executes effects in order and stops at the first failure. Nothing is written beyond `reach`.
    pub async fn execute(&self, effects: &[Effect], reach: &Reach) -> Result<(), Error> {
        for effect in effects {
            tracing::info!(purpose = ?effect.purpose(), "writing");
            (self.guard)(effect, reach, &self.cache).map_err(|violation| {
                self.metrics.guarded(&violation.object.kind, violation.rule.as_str());
                Error::Guarded(violation)
            })?;
            match effect {
                Effect::Patch { purpose, target, resource_version, operations } => {
                    self.patch(*purpose, target, resource_version, operations, false).await?;
                }
                Effect::Apply { purpose, object } => self.apply(*purpose, object, false).await?,
                Effect::Delete { purpose, target, uid, foreground } => {
                    self.delete(*purpose, target, uid, *foreground).await?;
                }
                Effect::Routes { purpose, writes, tried } => self.routes(*purpose, writes, tried).await?,
            }
        }
        Ok(())
    }

    /// Asks the API server whether `owner` still is as it was decided on, before an effect for which the version of the
    /// object that it changes says too little: a process whose lease has passed to another, and which learns of Rollouts
    /// late, may well know the present Service or route.
    ///
    /// # Errors
    /// [`Error::Overtaken`] where it is another, and what keeps it from being read.
    pub async fn confirm(&self, effects: &[Effect], owner: &ObjectRef, resource_version: &str) -> Result<(), Error> {
        let Some(purpose) = effects.iter().map(Effect::purpose).find(|purpose| purpose.moves_requests()) else {
            return Ok(());
        };
        let api = self.api(owner);
        match within(self.time(owner)?, api.get(&owner.name)).await {
            Some(Ok(Raw { object, .. })) if object::resource_version(&object) == resource_version => Ok(()),
            Some(Ok(_)) => Err(Error::Overtaken { target: owner.clone() }),
            Some(Err(source)) => Err(Error::Write { purpose, target: owner.clone(), source: Box::new(source) }),
            None => Err(Error::Timeout { purpose, target: owner.clone() }),
        }
    }

    /// Nothing is written before the API server, with all its admission, has accepted everything. A later write that
    /// fails all the same leaves a step that is not done: the next pass writes what is missing.
    async fn routes(&self, purpose: Purpose, writes: &[RouteWrite], tried: &[RouteWrite]) -> Result<(), Error> {
        // A single write is all or nothing by itself.
        if writes.len() + tried.len() > 1 {
            for write in writes.iter().chain(tried) {
                self.route(purpose, write, true).await?;
            }
        }
        for write in writes {
            self.route(purpose, write, false).await?;
        }
        Ok(())
    }

    async fn route(&self, purpose: Purpose, write: &RouteWrite, dry_run: bool) -> Result<(), Error> {
        match &write.change {
            Change::Patch { resource_version, operations } => {
                self.patch(purpose, &write.target, resource_version, operations, dry_run).await
            }
            Change::Apply { object } => self.apply(purpose, object, dry_run).await,
            // What admission says to a deletion is all that could be tried, and a deletion is harmless to the others.
            Change::Delete { .. } if dry_run => Ok(()),
            Change::Delete { uid } => self.delete(purpose, &write.target, uid, false).await,
        }
    }

    async fn patch(
        &self,
        purpose: Purpose,
        target: &ObjectRef,
        resource_version: &str,
        operations: &[Value],
        dry_run: bool,
    ) -> Result<(), Error> {
        // Writing the version that was read makes the API server refuse the patch with a conflict if it is not the
        // present one. (A failed `test` would be an invalid request, not to be told from a refusal by admission.)
        let version = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version});
        let operations: Vec<Value> = std::iter::once(version).chain(operations.iter().cloned()).collect();
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations))
            .map_err(|source| Error::Encode { target: target.clone(), source })?;
        let params =
            PatchParams { dry_run, field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(target);
        let patch = Patch::<Value>::Json(patch);
        let call = api.patch(&target.name, &params, &patch);
        self.call(purpose, target, dry_run, call).await
    }

    async fn apply(&self, purpose: Purpose, object: &Value, dry_run: bool) -> Result<(), Error> {
        let target = ObjectRef::new(
            object::text(object, &["apiVersion"]),
            object::text(object, &["kind"]),
            object::namespace(object),
            object::name(object),
        );
        // Conflicts with other managers cannot be of interest: the object is ours by owner reference.
        let params = PatchParams { dry_run, ..PatchParams::apply(keys::FIELD_MANAGER).force() };
        let api = self.api(&target);
        let mut object = object.clone();
        let status = object.as_object_mut().and_then(|map| map.remove("status"));
        let patch = Patch::Apply(&object);
        self.call(purpose, &target, dry_run, api.patch(&target.name, &params, &patch)).await?;
        let Some(status) = status else { return Ok(()) };
        let patch = Patch::Apply(json!({"apiVersion": target.api_version, "kind": target.kind, "status": status}));
        self.call(purpose, &target, dry_run, api.patch_status(&target.name, &params, &patch)).await
    }

    async fn delete(&self, purpose: Purpose, target: &ObjectRef, uid: &str, foreground: bool) -> Result<(), Error> {
        let params = if foreground { DeleteParams::foreground() } else { DeleteParams::background() }
            .preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let api = self.api(target);
        let call = async {
            match api.delete(&target.name, &params).await {
                Ok(answer) => Ok(answer.left()),
                // Gone already, perhaps with its kind.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        };
        match self.timed(purpose, target, false, call).await? {
            Some(raw) if object::is_deleting(&raw.object) => self.remember(target, raw),
            _ => self.cache.forget(target, uid),
        }
        Ok(())
    }

    async fn call(
        &self,
        purpose: Purpose,
        target: &ObjectRef,
        dry_run: bool,
        call: impl Future<Output = kube::Result<Raw>>,
    ) -> Result<(), Error> {
        let object = self.timed(purpose, target, dry_run, call).await?;
        if !dry_run {
            self.remember(target, object);
        }
        Ok(())
    }

    async fn timed<T>(
        &self,
        purpose: Purpose,
        target: &ObjectRef,
        dry_run: bool,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let result = match within(self.time(target)?, call).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(source)) => Err(Error::Write { purpose, target: target.clone(), source: Box::new(source) }),
            None => Err(Error::Timeout { purpose, target: target.clone() }),
        };
        if !dry_run {
            self.metrics.wrote(&target.kind, result.as_ref().map_or_else(|e| e.class().as_str(), |_| "ok"));
        }
        result
    }

    /// How long a write may take. It is given up when the term ends: another leader may begin soon after, and finds by
    /// the object's version what came of it.
    fn time(&self, target: &ObjectRef) -> Result<Duration, Error> {
        match self.fence.left() {
            Some(left) => Ok(left.min(TIMEOUT)),
            None => Err(Error::NotLeading { target: target.clone() }),
        }
    }

    fn remember(&self, target: &ObjectRef, Raw { object: mut value, .. }: Raw) {
        if let Some(map) = value.as_object_mut() {
            map.insert("apiVersion".to_owned(), json!(target.api_version));
            map.insert("kind".to_owned(), json!(target.kind));
        }
        // A deletion is answered by the last state; only a watch event tells when the object is gone.
        self.cache.put_written(Arc::new(value));
    }

    fn api(&self, target: &ObjectRef) -> Api<Raw> {
        let (group, version) = target.api_version.split_once('/').unwrap_or(("", &target.api_version));
        let gvk = GroupVersionKind::gvk(group, version, &target.kind);
        let resource =
            self.cache.resource(&target.api_version, &target.kind).unwrap_or_else(|| ApiResource::from_gvk(&gvk));
        Api::namespaced_with(self.client.clone(), &target.namespace, &resource)
    }

    /// Stores a status, unless the Rollout changed since it was read: a person's approval or jump is never
    /// overwritten. Returns whether anything was written.
    pub async fn store_status(
        &self,
        rollout: &Rollout,
        resource_version: &str,
        status: &RolloutStatus,
    ) -> Result<bool, Error> {
        // A first status must say all its required fields, also those that are 0 or empty.
        self.store(&rollout_ref(rollout), resource_version, rollout.status.as_ref(), status).await
    }

    /// Stores a status of any object of ours in the same way.
    pub async fn store<T: Serialize>(
        &self,
        target: &ObjectRef,
        resource_version: &str,
        before: Option<&T>,
        status: &T,
    ) -> Result<bool, Error> {
        guard::status(target, resource_version).map_err(|violation| {
            self.metrics.guarded(&violation.object.kind, violation.rule.as_str());
            Error::Guarded(violation)
        })?;
        let encode = |source| Error::Encode { target: target.clone(), source };
        let before = before.map_or_else(|| Ok(json!({})), serde_json::to_value).map_err(encode)?;
        let after = serde_json::to_value(status).map_err(encode)?;
        let Some(diff) = merge_diff(&before, &after) else { return Ok(false) };
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": resource_version}, "status": diff}));
        let params = PatchParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(target);
        let call = api.patch_status(&target.name, &params, &patch);
        self.status_call(target, call).await?;
        Ok(true)
    }

    async fn status_call(
        &self,
        target: &ObjectRef,
        call: impl Future<Output = kube::Result<Raw>>,
    ) -> Result<(), Error> {
        let result = match within(self.time(target)?, call).await {
            Some(Ok(object)) => {
                self.remember(target, object);
                Ok(())
            }
            Some(Err(source)) => Err(Error::Status { target: target.clone(), source: Box::new(source) }),
            None => Err(Error::StatusTimeout { target: target.clone() }),
        };
        self.metrics
            .wrote(&format!("{}/status", target.kind), result.as_ref().map_or_else(|e| e.class().as_str(), |()| "ok"));
        result
    }
}

/// As a timeout, but the end is looked at first: a process that stood still does not go on with a call whose time is over.
async fn within<T>(time: Duration, call: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = tokio::time::sleep(time) => None,
        answer = call => Some(answer),
    }
}

/// Names a Rollout.
pub fn rollout_ref(rollout: &Rollout) -> ObjectRef {
    ObjectRef::new(
        "rollouts.kruise.io/v1beta1",
        "Rollout",
        rollout.metadata.namespace.as_deref().unwrap_or_default(),
        rollout.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// The JSON merge patch (RFC 7386) from one value to another; `None` when they are equal.
fn merge_diff(before: &Value, after: &Value) -> Option<Value> {
    match (before, after) {
        (a, b) if a == b => None,
        (Value::Object(a), Value::Object(b)) => {
            let gone = a.keys().filter(|k| !b.contains_key(*k)).map(|k| (k.clone(), Value::Null));
            let changed = b.iter().filter_map(|(k, v)| {
                let diff = match a.get(k) {
                    Some(old) => merge_diff(old, v)?,
                    None => v.clone(),
                };
                Some((k.clone(), diff))
            });
            Some(Value::Object(gone.chain(changed).collect()))
        }
        (_, b) => Some(b.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_diff_says_only_what_changed() {
        for (before, after, diff) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1, "b": 2}), json!({"a": 3}), Some(json!({"a": 3, "b": null}))),
            (json!({"a": {"x": 1, "y": [1]}}), json!({"a": {"x": 1, "y": []}}), Some(json!({"a": {"y": []}}))),
            (json!({}), json!({"a": {"x": 1}}), Some(json!({"a": {"x": 1}}))),
        ] {
            assert_eq!(merge_diff(&before, &after), diff);
            if let Some(diff) = diff {
                let mut patched = before.clone();
                json_patch::merge(&mut patched, &diff);
                assert_eq!(patched, after);
            }
        }
    }
}
