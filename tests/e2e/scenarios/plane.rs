//! The rig itself: a claim about a release is worth no more than the rig that it is measured with.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::rig::{
    Rig,
    audit::INTRUDER,
    cluster::{self, NEVER_READY},
    http::get,
    ledger::Ledger,
    poll::{SOON, until},
};

/// Each pod answers for itself, on its own address, and only when it is Ready.
pub async fn pods_answer(rig: Arc<Rig>) -> Result<()> {
    let version = rig.cluster.admin.apiserver_version().await?;
    ensure!(version.git_version == "v1.36.3", "the API server is {}", version.git_version);
    let space = rig.space("pods-answer").await?;
    space.play("istio", &["Rollout"]).await?;
    let pods = space.pods("app=nginx").await?;
    ensure!(pods.len() == 5, "{} pods", pods.len());
    for pod in &pods {
        let address = pod["status"]["podIP"].as_str().context("no address")?;
        let answer: Value = serde_json::from_str(&get(&format!("{address}:80"), "/").await?)?;
        ensure!(answer["pod"] == pod["metadata"]["name"], "{address} answered {answer}");
        ensure!(answer["version"] == "nginx-configmap-base", "{answer}");
    }
    let slices = rig
        .objects
        .list("discovery.k8s.io/v1", "EndpointSlice", &space.name, "kubernetes.io/service-name=nginx-service")
        .await?;
    let ready =
        slices.iter().flat_map(|s| s["endpoints"].as_array()).flatten().filter(|e| e["conditions"]["ready"] == true);
    ensure!(ready.count() == 5, "EndpointSlices: {slices:?}");

    // A new template whose pods never become Ready: the surge pod must not answer, and the roll must stand still.
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {NEVER_READY: "true"}}}}});
    space.merge("apps/v1", "Deployment", "nginx-deployment", patch).await?;
    let address = until("a pod that is not Ready has an address", SOON, async || {
        let pods = space.pods("app=nginx").await?;
        let sick = pods.iter().find(|p| !p["metadata"]["annotations"][NEVER_READY].is_null()).context("none yet")?;
        ensure!(!sick["spec"]["nodeName"].is_null(), "not scheduled");
        Ok(sick["status"]["podIP"].as_str().map(str::to_owned))
    })
    .await?;
    if let Some(address) = address {
        ensure!(get(&format!("{address}:80"), "/").await.is_err(), "a pod that is not Ready answered");
    }
    space.gateway().send(200).await.only("nginx-configmap-base")
}

/// RBAC is enforced: the controller's token may do nothing that its role does not say.
pub async fn rbac_is_enforced(rig: Arc<Rig>) -> Result<()> {
    let client = cluster::client_as(&rig.cluster.pki.kubeconfig("controller"), INTRUDER).await?;
    let secrets = kube::Api::<k8s_openapi::api::core::v1::Secret>::all(client).list(&Default::default()).await;
    match secrets {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        other => anyhow::bail!("the controller may list all secrets: {other:?}"),
    }
}

/// Weights written by hand reach the traffic.
pub async fn gateway_splits(rig: Arc<Rig>) -> Result<()> {
    let space = rig.space("gateway-splits").await?;
    space.play("istio", &["Rollout"]).await?;
    let mut canary = space.get("apps/v1", "Deployment", "nginx-deployment").await?;
    canary = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "by-hand"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "nginx", "version": "canary"}}, "template": canary["spec"]["template"],
    }});
    canary["spec"]["template"]["metadata"]["labels"]["version"] = json!("canary");
    canary["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] = json!("nginx-configmap-canary");
    space.apply(&canary).await?;
    space.complete("by-hand").await?;
    let subset = |name: &str, label: &str| json!({"name": name, "labels": {"version": label}});
    let subsets = json!([subset("version-base", "base"), subset("canary", "canary")]);
    space
        .merge("networking.istio.io/v1beta1", "DestinationRule", "nginx-dr", json!({"spec": {"subsets": subsets}}))
        .await?;
    let to = |subset: &str, weight: u32| json!({"destination": {"host": "nginx-service", "subset": subset}, "weight": weight});
    let http = json!([
        {"match": [{"headers": {"version": {"exact": "canary"}}}], "route": [to("canary", 100)]},
        {"route": [to("version-base", 80), to("canary", 20)]},
    ]);
    space.merge("networking.istio.io/v1alpha3", "VirtualService", "nginx-vs", json!({"spec": {"http": http}})).await?;
    let gateway = space.gateway();
    gateway.reaches("nginx-configmap-canary").await?;
    let tally = gateway.send(2000).await;
    eprintln!("e2e: gateway_splits: 80/20 by hand: {tally}");
    tally.has_share("nginx-configmap-canary", 0.2)?;
    gateway.with("version", "canary").send(200).await.only("nginx-configmap-canary")
}

/// A Deployment that rolls by itself loses no request: a failed request is not the rig's own noise.
pub async fn graceful_roll_loses_nothing(rig: Arc<Rig>) -> Result<()> {
    let space = rig.space("graceful-roll").await?;
    space.play("istio", &["Rollout"]).await?;
    let load = space.gateway().steady(200);
    let volumes = json!([{"name": "nginx-config", "configMap": {"name": "nginx-configmap-canary"}}]);
    let patch = json!({"spec": {"template": {"spec": {"volumes": volumes}}}});
    space.merge("apps/v1", "Deployment", "nginx-deployment", patch).await?;
    space.complete("nginx-deployment").await?;
    space.gateway().settles("only the new version answers", |t| t.only("nginx-configmap-canary")).await?;
    let tally = load.stop().await?;
    eprintln!("e2e: graceful_roll_loses_nothing: {tally}");
    tally.none_failed()
}

/// Pods deleted under load without draining are seen as failed requests.
pub async fn dead_pods_are_seen(rig: Arc<Rig>) -> Result<()> {
    let space = rig.space("dead-pods").await?;
    space.play("istio", &["Rollout"]).await?;
    let load = space.gateway().steady(400);
    for round in 0..3 {
        let doomed: Vec<Value> = space.pods("app=nginx").await?.into_iter().take(3).collect();
        for pod in &doomed {
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            rig.objects.kill("v1", "Pod", &space.name, name).await.with_context(|| format!("round {round}"))?;
        }
        until("five other pods are Ready", SOON, async || {
            let pods = space.pods("app=nginx").await?;
            let ready = |pod: &Value| {
                let conditions = pod["status"]["conditions"].as_array();
                conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
            };
            let fresh =
                |pod: &&Value| doomed.iter().all(|d| d["metadata"]["uid"] != pod["metadata"]["uid"]) && ready(pod);
            ensure!(pods.iter().filter(fresh).count() == 5, "{} pods", pods.len());
            Ok(())
        })
        .await?;
    }
    let early = load.check("the deletions").await;
    let tally = load.stop().await?;
    eprintln!("e2e: dead_pods_are_seen: {tally}");
    ensure!(!tally.failures().is_empty(), "nine pods died under load and no request failed: {tally}");
    ensure!(tally.none_failed().is_err() && early.is_err(), "the load's own checks did not see it");
    ensure!(tally.of("nginx-configmap-base") > 0, "nothing was answered at all: {tally}");
    Ok(())
}

/// The ledger sees what lasts too short a time for any request: traffic to a subset that nobody is, and a missing pod.
pub async fn ledger_sees_wrong_order(rig: Arc<Rig>) -> Result<()> {
    let space = rig.space("wrong-order").await?;
    space.play("istio", &["Rollout"]).await?;
    let (version, kind, name) = ("networking.istio.io/v1alpha3", "VirtualService", "nginx-vs");
    let route = |subset: &str| json!({"spec": {"http": [{"route": [{"destination": {"host": "nginx-service", "subset": subset}}]}]}});
    let sees = async |ledger: &Ledger, what: &str| {
        until(&format!("the ledger sees {what}"), SOON, async || match ledger.capacity_before_traffic(5) {
            Err(error) if format!("{error:#}").contains(what) => Ok(()),
            other => anyhow::bail!("{other:?}"),
        })
        .await
    };

    let ledger = Ledger::open(&space).await?;
    space.merge(version, kind, name, route("canary")).await?;
    space.merge(version, kind, name, route("version-base")).await?;
    sees(&ledger, "no DestinationRule knows").await?;

    let ledger = Ledger::open(&space).await?;
    let pods = space.pods("app=nginx").await?;
    let pod = pods[0]["metadata"]["name"].as_str().context("no name")?;
    rig.objects.kill("v1", "Pod", &space.name, pod).await?;
    sees(&ledger, "only 4 pods are Ready").await
}
