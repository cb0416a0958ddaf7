//! `helm uninstall` in the middle of releases, on a cluster of its own whose controllers make and take pods.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tidegate::api::keys::IN_PROGRESSING;

use crate::rig::{
    Rig,
    controller::{Controller, NAMESPACE},
    helm::{chart, helm_on, uninstalled},
    image::Image,
    poll::{SOON, until},
    spare::{NODE, Spare},
};

const HEALTH: &str = "127.0.0.1:18092";
const WEBHOOKS: u16 = 19883;
const ROLLOUT: &str = "rollouts.kruise.io/v1beta1";
/// Kind, name, and what the release of it changes beside its pods.
const WORKLOADS: [(&str, &str); 3] = [("Deployment", "web"), ("Deployment", "api"), ("StatefulSet", "db")];

fn workload(kind: &str, name: &str) -> Value {
    let app = json!({"app": name});
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"},
        "spec": {"replicas": 4, "selector": {"matchLabels": app}, "template": {"metadata": {"labels": app},
                 "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "main:1"}]}}}});
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
    }
    object
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}

fn ingress(name: &str) -> Value {
    let backend = json!({"service": {"name": name, "port": {"number": 80}}});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": format!("{name}.example.com"),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
}

/// Steps that wait for a person; `web` by an Ingress in partition style, `api` with a Deployment beside it.
fn rollout(kind: &str, name: &str) -> Value {
    let mut strategy = json!({"canary": {"steps": [{"replicas": 1, "pause": {}}, {"replicas": "100%"}]}});
    if kind == "Deployment" {
        strategy["canary"]["steps"][0]["traffic"] = json!("20%");
        let routing = json!({"service": name, "ingress": {"classType": "nginx", "name": name}});
        strategy["canary"]["trafficRoutings"] = json!([routing]);
        strategy["canary"]["enableExtraWorkloadForCanary"] = json!(name == "api");
    }
    json!({"apiVersion": ROLLOUT, "kind": "Rollout", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": kind, "name": name}, "strategy": strategy}})
}

/// Names of everything of a kind in the namespace.
async fn names(spare: &Spare, api_version: &str, kind: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = spare
        .objects
        .list(api_version, kind, "shop", "")
        .await?
        .iter()
        .filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// What a user has written of workloads, Services and Rollouts, without what counts or names the release.
async fn written(spare: &Spare) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for (kind, name) in WORKLOADS {
        let mut spec = spare.objects.get("apps/v1", kind, "shop", name).await?["spec"].clone();
        spec["template"]["spec"]["containers"][0]["image"] = json!("any");
        // `false` and none are the same.
        if spec["paused"] == false {
            spec["paused"].take();
        }
        all.push(spec);
        all.push(spare.objects.get(ROLLOUT, "Rollout", "shop", name).await?["spec"].clone());
        if kind == "Deployment" {
            let service = spare.objects.get("v1", "Service", "shop", name).await?;
            all.push(service["spec"]["selector"].clone());
        }
    }
    Ok(all)
}

/// Every workload has rolled out this image.
async fn rolled_out(spare: &Spare, image: &str) -> Result<()> {
    for (kind, name) in WORKLOADS {
        until(&format!("{kind} {name} runs {image}"), 2 * SOON, async || {
            let object = spare.objects.get("apps/v1", kind, "shop", name).await?;
            let (status, runs) = (&object["status"], &object["spec"]["template"]["spec"]["containers"][0]["image"]);
            let is_seen = status["observedGeneration"] == object["metadata"]["generation"];
            let all = ["replicas", "readyReplicas", "updatedReplicas"].iter().all(|field| status[field] == 4);
            ensure!(is_seen && all && runs == image, "{runs}, {status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn released(spare: &Spare) -> Result<()> {
    for (kind, name) in WORKLOADS {
        let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "main:2"}]}}}});
        let api = spare.objects.api("apps/v1", kind, "shop");
        api.patch(name, &PatchParams::default(), &Patch::Strategic(change)).await?;
    }
    for (_, name) in WORKLOADS {
        until(&format!("Rollout {name} waits at its first step"), 2 * SOON, async || {
            let status = spare.objects.get(ROLLOUT, "Rollout", "shop", name).await?["status"].clone();
            ensure!(status["currentStepState"] == "StepPaused" && status["currentStepIndex"] == 1, "{status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Refused at first, then finished: nothing stays held, nothing of ours is left, and everything can be deleted.
pub async fn uninstalled_midway(rig: Arc<Rig>) -> Result<()> {
    let spare = rig.alive_cluster("leaving", 16454).await?;
    let image = Image::make(&rig, "leaving-image")?;
    image.identity("controller-token", &rig.cluster.pki.file("ca.crt"), NAMESPACE)?;
    let values = [
        &format!("webhooks.url=https://127.0.0.1:{WEBHOOKS}"),
        &format!("rollout.webhook.port={WEBHOOKS}"),
        "rollout.healthBindPort=18092",
        "hold.mode=policy",
        "log.format=human",
        "leaderElection.leaseDuration=6s,leaderElection.renewDeadline=4s,leaderElection.retryPeriod=1s",
    ]
    .join(",");
    let release = |verb: &'static str, more: &[&str]| {
        let chart = chart();
        let args = ["--namespace", NAMESPACE, "--set", &values];
        helm_on(&rig, &spare.name, &[&[verb, "tidegate", &chart][..], &args, more].concat())
    };
    release("install", &["--create-namespace"])?;
    let installed = spare.objects.get("apps/v1", "Deployment", NAMESPACE, "tidegate").await?;
    let controller = Controller::of_deployment(&rig, &image, HEALTH, &spare, &installed).await?;
    spare.objects.namespace("shop").await?;
    for (kind, name) in WORKLOADS {
        spare.objects.apply(&service(name)).await?;
        if kind == "Deployment" {
            spare.objects.apply(&ingress(name)).await?;
        }
        spare.objects.apply(&workload(kind, name)).await?;
        let rollout = rollout(kind, name);
        until("the Rollout is taken", SOON, async || spare.objects.apply(&rollout).await).await?;
    }
    rolled_out(&spare, "main:1").await?;
    for (_, name) in WORKLOADS {
        until(&format!("Rollout {name} is Healthy"), SOON, async || {
            let status = spare.objects.get(ROLLOUT, "Rollout", "shop", name).await?["status"].clone();
            ensure!(status["phase"] == "Healthy", "{status}");
            Ok(())
        })
        .await?;
    }
    let before = written(&spare).await?;
    released(&spare).await?;
    ensure!(names(&spare, "networking.k8s.io/v1", "Ingress").await? == ["api", "api-canary", "web", "web-canary"]);

    let midway = written(&spare).await?;
    let (answer, said) = uninstalled(&rig, &spare, &image, async || Ok(())).await?;
    answer.err().context("uninstalled in the middle of releases")?;
    for (kind, name) in WORKLOADS {
        let line = format!("Rollout shop/{name}: Progressing at step 1, StepPaused");
        ensure!(said.contains(&line), "{line:?} is not said: {said}");
        let line = format!("{}s.apps shop/{name} is held", kind.to_lowercase());
        ensure!(said.contains(&line), "{line:?} is not said: {said}");
    }
    ensure!(written(&spare).await? == midway, "a refusal has changed something");

    // Helm has marked the release as going, and upgrades it only after this.
    helm_on(&rig, &spare.name, &["rollback", "tidegate", "1", "--namespace", NAMESPACE])?;
    ensure!(written(&spare).await? == midway, "a rollback of the chart has changed something");
    release("upgrade", &["--set", "uninstall.onRelease=finish"])?;
    // Its pods end before its roles go, after which every request of theirs would be refused.
    let ends = async || controller.stop().await.map(drop);
    let (answer, said) = uninstalled(&rig, &spare, &image, ends).await?;
    answer.with_context(|| format!("the hook says: {said}"))?;
    ensure!(
        said.contains("3 releases were let go") && said.contains("3 objects had this controller's finalizer"),
        "{said}"
    );
    rolled_out(&spare, "main:2").await?;
    let after = written(&spare).await?;
    ensure!(after == before, "not as it was\nbefore: {before:?}\nafter: {after:?}");
    for (kind, name) in WORKLOADS {
        let object = spare.objects.get("apps/v1", kind, "shop", name).await?;
        ensure!(object["metadata"]["annotations"][IN_PROGRESSING].is_null(), "held: {}", object["metadata"]);
        let rollout = spare.objects.get(ROLLOUT, "Rollout", "shop", name).await?;
        ensure!(rollout["metadata"]["finalizers"].is_null(), "{}", rollout["metadata"]);
    }
    ensure!(names(&spare, "networking.k8s.io/v1", "Ingress").await? == ["api", "web"], "an Ingress is left");
    ensure!(names(&spare, "apps/v1", "Deployment").await? == ["api", "web"], "a Deployment is left");
    ensure!(names(&spare, "v1", "Service").await? == ["api", "db", "web"], "a Service is left");
    until("nothing is held any more", SOON, async || {
        let change = json!({"spec": {"template": {"metadata": {"annotations": {"changed": "yes"}}}}});
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let answer =
            spare.objects.api("apps/v1", "Deployment", "shop").patch("web", &params, &Patch::Merge(change)).await?;
        ensure!(answer.data["spec"]["paused"] != true, "still held");
        Ok(())
    })
    .await?;
    // No controller is there that a deletion could wait for.
    spare.objects.api("v1", "Namespace", "").delete("shop", &DeleteParams::default()).await?;
    until("the namespace has gone with all that is in it", SOON, async || {
        ensure!(spare.objects.get("v1", "Namespace", "", "shop").await.is_err(), "still there");
        Ok(())
    })
    .await
}
