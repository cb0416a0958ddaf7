//! Releases that OpenKruise Rollouts has begun go on, with the Deployment controller's own hand on the pods: the objects of
//! `testcases/adopt`, taken over by the command.

#[path = "../../adopt_case/mod.rs"]
mod adopt_case;

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::rig::{
    Rig,
    controller::{BINARY, kruise, output},
    poll::{SOON, until},
    space::Space,
};

const ROLLOUT: &str = "rollouts.kruise.io/v1beta1";

/// The original's own definition, as far as anybody needs it who takes it away.
fn batch_releases() -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "batchreleases.rollouts.kruise.io"},
        "spec": {"group": "rollouts.kruise.io", "scope": "Namespaced",
            "names": {"plural": "batchreleases", "singular": "batchrelease", "kind": "BatchRelease", "listKind": "BatchReleaseList"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}]}})
}

pub async fn taken_over_midway(rig: Arc<Rig>) -> Result<()> {
    let _controller = rig.with_controller().await?;
    rig.objects.apply_crds(&[batch_releases()]).await?;
    tokio::try_join!(
        taken_over(&rig, "deployment-partition"),
        taken_over(&rig, "deployment-canary"),
        taken_over(&rig, "deployment-canary-ingress"),
        taken_over(&rig, "deployment-blue-green"),
    )?;
    Ok(())
}

async fn taken_over(rig: &Arc<Rig>, name: &str) -> Result<()> {
    let space = rig.space(&format!("adopt-{name}")).await?;
    let story = async || -> Result<()> {
        let case = begun(&space, name).await?;
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let names = async || -> Result<Vec<String>> {
            let mut names: Vec<String> =
                space.pods("app=web").await?.iter().map(|p| p["metadata"]["name"].to_string()).collect();
            names.sort();
            Ok(names)
        };
        let before = names().await?;
        let ingress = async || space.get("networking.k8s.io/v1", "Ingress", "web-canary").await.ok();
        let uid = |ingress: Option<Value>| ingress.map(|ingress| ingress["metadata"]["uid"].clone());
        let stood = uid(ingress().await);
        let kubeconfig = rig.cluster.pki.kubeconfig("admin");
        let adopt = |more: &[&str]| {
            let mut command = Command::new("timeout");
            command.arg("120").arg(BINARY).args(["adopt", "-n", &space.name, "web"]).args(more);
            output(command.env("KUBECONFIG", &kubeconfig))
        };
        let says = adopt(&[])?;
        ensure!(says.contains("would") && names().await? == before, "a dry run: {says}");
        // It waits for pods: other scenarios must not wait for it.
        let says = tokio::task::block_in_place(|| adopt(&["--apply"]))?;
        ensure!(says.contains("taken over"), "{says}");
        waits(&space, 1, &text("after")).await?;
        if case["samePods"] == true {
            ensure!(names().await? == before, "pods were replaced: {before:?}, now {:?}", names().await?);
        }
        let steps: Vec<String> =
            case["steps"].as_array().into_iter().flatten().filter_map(|s| s.as_str()).map(str::to_owned).collect();
        for (i, pods) in steps.iter().enumerate() {
            kruise(rig, &space.name, &["rollout", "approve", "rollout/web"])?;
            waits(&space, 2 + i as i64, pods).await?;
        }
        ensure!(uid(ingress().await) == stood, "the Ingress was made anew");
        for edit in case["routed"].as_array().into_iter().flatten() {
            let word = |key: &str| edit[key].as_str().unwrap_or_default();
            let route = space.get(word("apiVersion"), word("kind"), word("name")).await?;
            let mut wanted = route.clone();
            json_patch::merge(&mut wanted, &edit["merge"]);
            ensure!(route == wanted, "{route} is not as {edit} says");
        }
        kruise(rig, &space.name, &["rollout", "approve", "rollout/web"])?;
        until(&format!("the end with {}", text("end")), SOON, async || {
            let rollout = space.get(ROLLOUT, "Rollout", "web").await?;
            ensure!(rollout["status"]["phase"] == "Healthy", "{}", rollout["status"]);
            ensure!(versions(&space).await? == text("end"), "{}", versions(&space).await?);
            let web = space.get("apps/v1", "Deployment", "web").await?;
            ensure!(
                web["metadata"]["annotations"]["rollouts.kruise.io/in-progressing"].is_null(),
                "{}",
                web["metadata"]
            );
            ensure!(web["spec"]["strategy"] == case["workload"]["spec"]["strategy"], "{}", web["spec"]["strategy"]);
            ensure!(space.get(ROLLOUT, "BatchRelease", "web").await.is_err(), "the BatchRelease is left");
            ensure!(ingress().await.is_none(), "the canary Ingress is left");
            Ok(())
        })
        .await
    };
    story().await.with_context(|| name.to_owned())
}

async fn versions(space: &Space) -> Result<String> {
    let mut count = BTreeMap::<String, usize>::new();
    for pod in space.pods("app=web").await? {
        let conditions = pod["status"]["conditions"].as_array();
        if conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
            *count.entry(image.rsplit(':').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    Ok(count.iter().map(|(version, n)| format!("{n} {version}")).collect::<Vec<_>>().join(" + "))
}

async fn waits(space: &Space, step: i64, pods: &str) -> Result<()> {
    until(&format!("step {step} waits with {pods}"), SOON, async || {
        let status = space.get(ROLLOUT, "Rollout", "web").await?["status"].clone();
        let sub = ["canaryStatus", "blueGreenStatus"].into_iter().find_map(|k| status.get(k)).context("no status")?;
        ensure!(sub["currentStepIndex"] == step && sub["pausedStepIndex"] == step, "{status}");
        ensure!(versions(space).await? == pods, "{}", versions(space).await?);
        Ok(())
    })
    .await
}

/// The objects of a case, as the original has left them.
async fn begun(space: &Space, name: &str) -> Result<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("testcases/adopt").join(format!("{name}.yaml"));
    let case = adopt_case::whole(&file).map_err(anyhow::Error::msg)?;
    let mut uids = BTreeMap::<String, String>::new();
    let mut objects = case["objects"].as_array().context("no objects")?.clone();
    if name == "deployment-partition" {
        // A Deployment that sees one of its two sets gives it all pods. It takes both that it finds.
        objects.sort_by_key(|object| object["kind"] != "ReplicaSet");
        for set in objects.iter_mut().filter(|object| object["kind"] == "ReplicaSet") {
            set["metadata"]["ownerReferences"] = json!([]);
        }
    }
    for object in &objects {
        let mut text = object.to_string();
        for (key, uid) in &uids {
            text = text.replace(&format!("${{{key}}}"), uid);
        }
        let mut object: Value = serde_json::from_str(&text)?;
        let status = object.as_object_mut().and_then(|o| o.remove("status"));
        let made = space.apply(&object).await?;
        let field = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        uids.insert(
            format!("{}/{name}", field("kind")),
            made["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        );
        if let Some(status) = status {
            let api = space.rig.objects.api(&field("apiVersion"), &field("kind"), &space.name);
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
        }
    }
    let before = case["before"].as_str().unwrap_or_default();
    let runs = async || {
        until(&format!("{before} run"), SOON, async || {
            ensure!(versions(space).await? == before, "{}", versions(space).await?);
            Ok(())
        })
        .await
    };
    runs().await?;
    for edit in case["later"].as_array().into_iter().flatten() {
        let field = |key: &str| edit[key].as_str().unwrap_or_default();
        space.merge(field("apiVersion"), field("kind"), field("name"), edit["merge"].clone()).await?;
    }
    runs().await?;
    Ok(case)
}
