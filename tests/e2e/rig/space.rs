//! A namespace with the manifests of an example in it.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Rig,
    load::Target,
    poll::{SOON, until},
};

pub struct Space {
    pub rig: Arc<Rig>,
    pub name: String,
    port: u16,
}

/// All manifests of `examples/<name>`, as its kustomization lists them.
pub fn example(name: &str) -> Result<Vec<Value>> {
    resources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name))
}

fn resources(folder: &Path) -> Result<Vec<Value>> {
    let read = |file: &Path| fs::read_to_string(file).with_context(|| file.display().to_string());
    let kustomization: Value = tidegate::yaml::from_str(&read(&folder.join("kustomization.yaml"))?)?;
    let listed =
        kustomization["resources"].as_array().with_context(|| format!("{} lists nothing", folder.display()))?;
    let mut objects = Vec::new();
    for path in listed.iter().filter_map(Value::as_str).map(|name| folder.join(name)) {
        if path.is_dir() {
            objects.extend(resources(&path)?);
        } else {
            let manifests = tidegate::yaml::from_str_multi(&read(&path)?);
            objects.extend(manifests.with_context(|| path.display().to_string())?);
        }
    }
    Ok(objects)
}

impl Space {
    pub async fn create(rig: Arc<Rig>, name: &str, port: u16) -> Result<Space> {
        rig.objects.namespace(name).await?;
        Ok(Space { rig, name: name.to_owned(), port })
    }

    /// What listens on this space's port of the gateway.
    pub fn gateway(&self) -> Target {
        self.target(self.port)
    }

    /// What listens on a port of this machine, for requests that this space's pods may answer.
    pub fn target(&self, port: u16) -> Target {
        let address = ([127, 0, 0, 1], port).into();
        Target { address, namespace: self.name.clone(), headers: Vec::new(), path: "/".to_owned(), own_failure: None }
    }

    /// Applies a manifest without a namespace here. All spaces share one gateway, so a Gateway gets this space's port.
    pub async fn apply(&self, object: &Value) -> Result<Value> {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.name);
        if object["kind"] == "Gateway" && object["apiVersion"] == "networking.istio.io/v1beta1" {
            object["spec"]["servers"][0]["port"]["number"] = json!(self.port);
        }
        self.rig.objects.apply(&object).await
    }

    /// Applies the manifests of an example that are not of `except`, and waits until its first answer.
    pub async fn play(&self, name: &str, except: &[&str]) -> Result<()> {
        for object in example(name)? {
            if !except.iter().any(|kind| object["kind"] == *kind) {
                self.apply(&object).await?;
            }
        }
        self.complete("nginx-deployment").await?;
        self.gateway().settles("the gateway answers", |_| Ok(())).await
    }

    pub async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Value> {
        self.rig.objects.get(api_version, kind, &self.name, name).await
    }

    pub async fn merge(&self, api_version: &str, kind: &str, name: &str, patch: Value) -> Result<Value> {
        self.rig.objects.merge(api_version, kind, &self.name, name, patch).await
    }

    /// Waits until a Deployment has rolled out, as `kubectl rollout status` does.
    pub async fn complete(&self, name: &str) -> Result<Value> {
        until(&format!("Deployment {name} has rolled out"), SOON, async || {
            let deployment = self.get("apps/v1", "Deployment", name).await?;
            let (replicas, status) = (&deployment["spec"]["replicas"], &deployment["status"]);
            let current = deployment["metadata"]["generation"] == status["observedGeneration"];
            let all = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
            ensure!(current && all.iter().all(|field| status[field] == *replicas), "{status}");
            Ok(deployment.clone())
        })
        .await
    }

    /// The pods with these labels that are not being deleted.
    pub async fn pods(&self, labels: &str) -> Result<Vec<Value>> {
        let mut pods = self.rig.objects.list("v1", "Pod", &self.name, labels).await?;
        pods.retain(|p| p["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }
}
