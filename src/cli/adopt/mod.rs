//! `tidegate adopt`: takes releases over that OpenKruise Rollouts has begun, with the rights of whoever runs it. Without
//! `--apply` it only says what it would change.

pub mod plan;

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
        Preconditions,
    },
};
use serde_json::Value;

use self::plan::{Deed, Found, Step, batch_release_of, plan};
use super::{
    client::{self, KubeArgs, explain},
    duration,
    rollout::resources,
};
use crate::{
    api::{
        keys::{CANARY_DEPLOYMENT, LEASE},
        object::{self, ObjectRef, text},
    },
    rollout::release,
    traffic::ingress,
    workload::canary::canary_label,
};

/// Arguments of `tidegate adopt`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of Rollouts [default: all of the namespace]
    #[arg(value_name = "ROLLOUT")]
    names: Vec<String>,
    /// Rollouts of all namespaces
    #[arg(short = 'A', long, conflicts_with = "names")]
    all_namespaces: bool,
    /// Make the changes; without it they are only printed
    #[arg(long)]
    apply: bool,
    /// How long to wait for the pods of a canary Deployment
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Between two looks at pods that come up.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the command. Exit code 1: a Rollout could not be taken over.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (client, namespace) = client::connect(&args.kube).await?;
        let rollouts = match args.all_namespaces {
            true => resources::api_all(&client).list(&ListParams::default()).await,
            false => resources::api(&client, &namespace).list(&ListParams::default()).await,
        };
        let rollouts = rollouts.map_err(|e| anyhow::anyhow!("Rollouts cannot be read: {}", explain(&e)))?.items;
        let keys: Vec<(String, String)> = rollouts
            .into_iter()
            .map(|r| (r.metadata.namespace.unwrap_or_default(), r.metadata.name.unwrap_or_default()))
            .filter(|(_, name)| args.names.is_empty() || args.names.contains(name))
            .collect();
        if let Some(missing) = args.names.iter().find(|n| !keys.iter().any(|(_, name)| name == *n)) {
            bail!("there is no Rollout {missing:?} in namespace {namespace:?}");
        }
        if args.apply {
            alone(&client).await?;
        }
        let mut out = std::io::stdout();
        let mut failed = false;
        for (namespace, name) in &keys {
            let result = match args.apply {
                true => apply(&client, namespace, name, args.timeout, &mut |line| writeln!(out, "{line}")).await,
                false => show(&client, namespace, name, &mut |line| writeln!(out, "{line}")).await,
            };
            if let Err(error) = result {
                failed = true;
                eprintln!("error: Rollout {namespace}/{name}: {error:#}");
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

/// The original must not go on meanwhile. Tidegate itself does not touch a workload that is marked as the original's.
///
/// # Errors
/// Its Lease is being renewed.
pub async fn alone(client: &Client) -> anyhow::Result<()> {
    let (api, named) =
        (Api::<Lease>::all(client.clone()), ListParams::default().fields(&format!("metadata.name={LEASE}")));
    let leases = api.list(&named).await.map_err(|e| anyhow::anyhow!("Leases cannot be read: {}", explain(&e)))?;
    for lease in leases {
        let namespace = lease.metadata.namespace.unwrap_or_default();
        let Some(spec) = lease.spec else { continue };
        let holder = spec.holder_identity.unwrap_or_default();
        let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(15));
        let is_held = spec.renew_time.is_some_and(|at| Timestamp::now().duration_since(at.0).as_secs() < lasts);
        if is_held && !holder.is_empty() && !is_ours(&holder) {
            bail!(
                "{holder} leads by Lease {namespace}/{LEASE}: stop the manager of OpenKruise Rollouts first (scale its Deployment \
                 to 0), so that it does not undo what is taken over"
            );
        }
    }
    Ok(())
}

/// Tidegate's identity ends in sixteen hexadecimal digits, that of the original in a UUID.
pub fn is_ours(holder: &str) -> bool {
    holder.rsplit_once('_').is_some_and(|(_, end)| end.len() == 16 && end.bytes().all(|b| b.is_ascii_hexdigit()))
}

type Tell<'a> = &'a mut dyn FnMut(&str) -> std::io::Result<()>;

async fn show(client: &Client, namespace: &str, name: &str, tell: Tell<'_>) -> anyhow::Result<()> {
    let steps = plan(&find(client, namespace, name).await?)?;
    if steps.is_empty() {
        tell(&format!("Rollout {namespace}/{name}: nothing to take over"))?;
        return Ok(());
    }
    tell(&format!("Rollout {namespace}/{name}: would"))?;
    for step in &steps {
        tell(&format!("- {step}"))?;
        if let Deed::Patch { operations, .. } = &step.deed {
            for operation in operations.iter().filter(|o| text(o, &["op"]) != "test") {
                let value = operation.get("value").map(|v| format!(" {v}")).unwrap_or_default();
                tell(&format!("    {} {}{value}", text(operation, &["op"]), text(operation, &["path"])))?;
            }
        }
    }
    if matches!(steps.last(), Some(Step { deed: Deed::Await { .. }, .. })) {
        tell("- and then change Service, status and workload, and remove what was the original's")?;
    }
    Ok(())
}

/// Takes a release over; asked again it goes on where it was.
///
/// # Errors
/// What cannot be taken over, or a write that was refused.
pub async fn apply(
    client: &Client,
    namespace: &str,
    name: &str,
    limit: Duration,
    tell: Tell<'_>,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut is_first = true;
    loop {
        let steps = plan(&find(client, namespace, name).await?)?;
        if steps.is_empty() {
            tell(&format!(
                "Rollout {namespace}/{name}: {}",
                if is_first { "nothing to take over" } else { "taken over" }
            ))?;
            return Ok(());
        }
        let is_late = tokio::time::Instant::now() >= deadline;
        if let (true, false, Some(step)) = (is_late, is_first, steps.first()) {
            bail!("not done in time (--timeout); run the command again once this can be done: {step}");
        }
        for step in &steps {
            if let Deed::Await { .. } = &step.deed {
                if is_first {
                    tell(&format!("{step}"))?;
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
            tell(&format!("{step}"))?;
            match perform(client, &step.deed).await {
                // Its own controller has written it meanwhile: what is next is asked anew, of what it is now.
                Err(error) if is_of_an_older_version(&error) && !is_late => break,
                done => done.map_err(|e| anyhow::anyhow!("{}", explain(&e))).with_context(|| step.to_string())?,
            }
        }
        is_first = false;
    }
}

fn api_of(client: &Client, target: &ObjectRef) -> Api<DynamicObject> {
    let version = target.api_version.rsplit('/').next().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(target.group(), version, &target.kind));
    Api::namespaced_with(client.clone(), &target.namespace, &resource)
}

/// A JSON patch whose test of the version fails is answered 422 with a reason, and no cause that names a field.
fn is_of_an_older_version(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let has_causes = status.details.as_ref().is_some_and(|details| !details.causes.is_empty());
    status.code == 409 || (status.code == 422 && !has_causes)
}

async fn perform(client: &Client, deed: &Deed) -> kube::Result<()> {
    let params = PatchParams { field_manager: Some("tidegate-adopt".to_owned()), ..PatchParams::default() };
    match deed {
        Deed::Create(object) => {
            let target =
                ObjectRef::new(text(object, &["apiVersion"]), text(object, &["kind"]), object::namespace(object), "");
            let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
            api_of(client, &target).create(&PostParams::default(), &object).await?;
        }
        Deed::Patch { target, is_status, operations } => {
            let patch = Patch::<()>::Json(
                serde_json::from_value(Value::Array(operations.clone())).map_err(kube::Error::SerdeError)?,
            );
            let api = api_of(client, target);
            match is_status {
                true => api.patch_status(&target.name, &params, &patch).await?,
                false => api.patch(&target.name, &params, &patch).await?,
            };
        }
        Deed::Delete { target, uid } => {
            // What a BatchRelease owns is not its any more; a Deployment takes its pods along.
            let params = if target.kind == "Deployment" { DeleteParams::background() } else { DeleteParams::orphan() };
            let params = params.preconditions(Preconditions { uid: Some(uid.clone()), resource_version: None });
            match api_of(client, target).delete(&target.name, &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Deed::Await { .. } => {}
    }
    Ok(())
}

/// Reads everything around a Rollout.
///
/// # Errors
/// An API server that does not answer, or refuses.
pub async fn find(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Found> {
    let said = |e: kube::Error| anyhow::anyhow!("{}", explain(&e));
    let one = async |target: &ObjectRef| -> anyhow::Result<Option<Value>> {
        let found = match api_of(client, target).get_opt(&target.name).await {
            Ok(found) => found,
            // Of a group that is not installed.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(said(error)),
        };
        Ok(found.map(serde_json::to_value).transpose()?)
    };
    let many = async |api_version: &str, kind: &str, labels: &str| -> anyhow::Result<Vec<Value>> {
        let api = api_of(client, &ObjectRef::new(api_version, kind, namespace, ""));
        let items = match api.list(&ListParams::default().labels(labels)).await {
            Ok(list) => list.items,
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Err(said(error)),
        };
        let typed = items.into_iter().map(|item| {
            let mut value = serde_json::to_value(item)?;
            // Items of a list carry neither.
            if let Some(map) = value.as_object_mut() {
                map.insert("apiVersion".to_owned(), api_version.into());
                map.insert("kind".to_owned(), kind.into());
            }
            Ok(value)
        });
        typed.collect()
    };
    let rollout = resources::api(client, namespace).get(name).await.map_err(said)?;
    let typed = resources::typed(&rollout)?;
    let mut found = Found { rollout: serde_json::to_value(rollout)?, ..Found::default() };
    let Ok(scope) = release::scope(&typed).or_else(|_| release::bare_scope(&typed)) else { return Ok(found) };
    let workload = ObjectRef::new(&scope.workload.api_version, &scope.workload.kind, namespace, &scope.workload.name);
    found.workload = one(&workload).await?.map(Arc::new);
    let (api_version, kind) = scope.kind.revisions;
    found.revisions = many(api_version, kind, "").await?.into_iter().map(Arc::new).collect();
    let label = format!("{CANARY_DEPLOYMENT}={}", canary_label(&scope.workload.name));
    let canaries = many("apps/v1", "Deployment", &label).await?;
    found.canaries = canaries.into_iter().filter(|d| !object::is_deleting(d)).map(Arc::new).collect();
    if let Some(traffic) = scope.traffic.as_ref().filter(|t| t.has_canary_service()) {
        found.canary_service = one(&ObjectRef::new("v1", "Service", namespace, &traffic.names.canary_service)).await?;
    }
    for network in scope.traffic.iter().flat_map(|t| &t.networks).filter(|n| n.kind == "HTTPRoute") {
        let route = one(&ObjectRef::new(&network.api_version, &network.kind, namespace, &network.name)).await?;
        found.routes.extend(route);
    }
    if let Some(stable) = scope.traffic.as_ref().and_then(|t| t.ingress.as_ref()) {
        let canary = ingress::canary_name(&stable.name);
        let canary = one(&ObjectRef::new(ingress::API_VERSION, ingress::KIND, namespace, &canary)).await?;
        let owner = typed.metadata.uid.as_deref().filter(|uid| !uid.is_empty());
        found.canary_ingress = canary.filter(|canary| owner.is_some() && object::controller_uid(canary) == owner);
    }
    found.autoscalers = many("autoscaling/v2", "HorizontalPodAutoscaler", "").await?;
    let release = one(&batch_release_of(namespace, name)).await?;
    found.batch_release = release.filter(|r| !object::is_deleting(r) || !object::finalizers(r).is_empty());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_others_wrote_meanwhile_is_told_from_what_is_refused() {
        let cluster = crate::sim::Cluster::builder().build().unwrap();
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "default"}});
        cluster.create(map).unwrap();
        let target = ObjectRef::new("v1", "ConfigMap", "default", "web");
        let stale = json!([{"op": "test", "path": "/metadata/resourceVersion", "value": "0"}]);
        let deed = Deed::Patch { target, is_status: false, operations: stale.as_array().unwrap().clone() };
        let error = perform(&cluster.client("adopt"), &deed).await.unwrap_err();
        assert!(is_of_an_older_version(&error), "{error}");
        for (code, causes, expected) in
            [(409, json!([]), true), (422, json!([{"field": "spec"}]), false), (403, json!([]), false)]
        {
            let status = json!({"status": "Failure", "code": code, "message": "m", "reason": "r", "details": {"causes": causes}});
            let error = kube::Error::Api(serde_json::from_value(status).unwrap());
            assert_eq!(is_of_an_older_version(&error), expected, "{error}");
        }
    }

    #[test]
    fn the_two_are_told_apart_by_their_identity() {
        for (holder, ours) in [
            ("tidegate-7d5f_0123456789abcdef", true),
            ("node_a_0123456789ABCDEF", true),
            ("kruise-rollout-controller-manager-5c_0f0e6a3c-2f1c-4a73-9d0b-2a6f6a1f5d11", false),
            ("tidegate", false),
            ("", false),
        ] {
            assert_eq!(is_ours(holder), ours, "{holder}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let workload = json!({"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "metadata": {"name": "web", "namespace": "shop",
            "annotations": {plan::CONTROL_INFO: "{}", "rollouts.kruise.io/original-deployment-strategy": "{"}},
            "spec": {"replicas": 2, "minReadySeconds": 2147483646, "template": {}}});
        let reference = json!({"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "name": "web"});
        let rollout = json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"workloadRef": reference, "strategy": {"blueGreen": {"steps": [{"replicas": "100%"}]}}}});
        let found = Found { rollout, workload: Some(Arc::new(workload)), ..Found::default() };
        let error = plan(&found).unwrap_err().to_string();
        assert!(error.contains("original-deployment-strategy of CloneSet web cannot be read"), "{error}");
        let nothing = Found { rollout: json!({"spec": {}}), ..Found::default() };
        assert!(plan(&nothing).is_err());
    }

    #[test]
    fn a_rollout_at_rest_loses_marks_and_its_batch_release() {
        let workload = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7",
            "labels": {"rollouts.kruise.io/stable-revision": "a", "app": "web"}}, "spec": {"replicas": 2, "template": {}}});
        let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let rollout = json!({"metadata": {"name": "web", "namespace": "shop"}, "status": {"phase": "Healthy", "canaryStatus": {"rolloutHash": "x"}},
            "spec": {"workloadRef": reference, "strategy": {"canary": {"steps": [{"replicas": "100%"}]}}}});
        let batch = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "BatchRelease", "metadata": {"name": "web", "namespace": "shop", "uid": "b"}});
        let found =
            Found { rollout, workload: Some(Arc::new(workload)), batch_release: Some(batch), ..Found::default() };
        let steps: Vec<String> = plan(&found).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(steps.len(), 2, "{steps:#?}");
        assert!(
            steps[0].starts_with("change Deployment shop/web: marks of") && steps[1].starts_with("delete BatchRelease"),
            "{steps:#?}"
        );
    }
}
