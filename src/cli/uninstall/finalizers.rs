//! Takes this controller's finalizers off what stays in the cluster: without a controller nobody else would, and neither a
//! Rollout nor its namespace could be deleted.
//!
//! A running controller would put them back. So its Lease is taken first, by the rules of [`crate::controller::lease`]: after
//! the time that the Lease itself names no leader writes any more, and none comes until [`TERM`] is over.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{list, rollouts, routings, unfinished};
use crate::{
    api::{keys, object},
    cli::client::explain,
};

/// Who holds the Lease meanwhile.
const HOLDER: &str = "tidegate-uninstall";
/// How long no controller leads, unless the Lease is given back: enough for Helm to take the Deployment away.
const TERM: Duration = Duration::from_secs(120);
/// A controller puts a finalizer back as soon as its watch tells that it has gone.
const BACK: Duration = Duration::from_secs(2);

/// Takes them off in these namespaces, or in all if none is given; returns off how many objects.
///
/// # Errors
/// When a release has begun meanwhile, when a controller that needs no Lease puts them back, or the API server gives no answer.
pub(super) async fn remove(client: &Client, namespaces: &[String], lease_in: &str) -> anyhow::Result<usize> {
    let leases = Api::<Lease>::namespaced(client.clone(), lease_in);
    take(&leases).await.with_context(|| format!("Lease {lease_in}/{}", keys::LEASE))?;
    let removed = remove_all(client, namespaces).await;
    if removed.is_err() {
        // Whoever stays goes on at once.
        give_back(&leases).await.ok();
    }
    removed
}

async fn remove_all(client: &Client, namespaces: &[String]) -> anyhow::Result<usize> {
    let left = unfinished(client, namespaces).await?;
    if !left.is_empty() {
        bail!("meanwhile these have begun:{}\nThe controller goes on with them; try again", left.text());
    }
    let mut removed = 0;
    for resource in [rollouts(), routings()] {
        for holder in list(client, &resource, namespaces).await? {
            removed += usize::from(free(client, &resource, &holder).await?);
        }
    }
    if removed == 0 {
        return Ok(0);
    }
    tokio::time::sleep(BACK).await;
    for resource in [rollouts(), routings()] {
        let holders = list(client, &resource, namespaces).await?;
        if let Some(holder) = holders.iter().find(|holder| others(holder).is_some()) {
            bail!(
                "{} {}/{}: a controller without leader election has put its finalizer back: stop it, then run this again",
                resource.kind,
                object::namespace(holder),
                object::name(holder)
            );
        }
    }
    Ok(removed)
}

/// The finalizers of others, if ours is among them.
fn others(holder: &Value) -> Option<Vec<&str>> {
    let all = object::finalizers(holder);
    let (ours, others): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|f| {
        [keys::ROLLOUT_FINALIZER, keys::TRAFFIC_ROUTING_FINALIZER].contains(f)
            || f.starts_with(keys::PROGRESSING_FINALIZER)
    });
    (!ours.is_empty()).then_some(others)
}

/// Whether it is being deleted, and waits for this controller.
pub(super) fn holds(holder: &Value) -> bool {
    object::is_deleting(holder) && others(holder).is_some()
}

/// Whether there was something to take off.
async fn free(client: &Client, resource: &ApiResource, holder: &Value) -> anyhow::Result<bool> {
    let Some(others) = others(holder) else { return Ok(false) };
    let (namespace, name) = (object::namespace(holder), object::name(holder));
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, resource);
    // Only of the object that was looked at, with the finalizers that it had.
    let version = object::text(holder, &["metadata", "resourceVersion"]);
    let patch = json!({"metadata": {"uid": object::uid(holder), "resourceVersion": version, "finalizers": others}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => bail!("{} {namespace}/{name}: {}", resource.kind, explain(&error)),
    }
}

/// Holds the Lease when it returns, and no controller that minds it writes.
async fn take(leases: &Api<Lease>) -> anyhow::Result<()> {
    // A leader renews it every few seconds.
    for _ in 0..10 {
        let found = leases.get_opt(keys::LEASE).await.map_err(|e| anyhow::anyhow!(explain(&e)))?;
        let wait = found.as_ref().and_then(|lease| lease.spec.as_ref()).map_or(Duration::ZERO, writes_for);
        let is_new = found.is_none();
        let metadata = ObjectMeta { name: Some(keys::LEASE.to_owned()), ..ObjectMeta::default() };
        let mut lease = found.unwrap_or(Lease { metadata, spec: None });
        let now = Some(MicroTime(jiff::Timestamp::now()));
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(HOLDER.to_owned());
        spec.lease_duration_seconds = i32::try_from(TERM.as_secs()).ok();
        (spec.acquire_time, spec.renew_time) = (now.clone(), now);
        let params = PostParams { field_manager: Some(keys::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match is_new {
            true => leases.create(&params, &lease).await,
            false => leases.replace(keys::LEASE, &params, &lease).await,
        };
        match written {
            Ok(_) => {
                tokio::time::sleep(wait).await;
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => bail!(explain(&error)),
        }
    }
    bail!("it changes all the time: try again")
}

/// How long its holder may still write.
fn writes_for(spec: &LeaseSpec) -> Duration {
    if spec.holder_identity.as_ref().is_none_or(|holder| holder.is_empty() || holder == HOLDER) {
        return Duration::ZERO;
    }
    Duration::from_secs(spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(15))
}

async fn give_back(leases: &Api<Lease>) -> kube::Result<()> {
    let Some(mut lease) = leases.get_opt(keys::LEASE).await? else { return Ok(()) };
    if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(HOLDER)) {
        (spec.holder_identity, spec.lease_duration_seconds) = (Some(String::new()), Some(1));
        leases.replace(keys::LEASE, &PostParams::default(), &lease).await?;
    }
    Ok(())
}
