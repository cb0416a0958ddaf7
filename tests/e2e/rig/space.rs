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

/// All manifests of `examples/<name>`.
pub fn example(name: &str) -> Result<Vec<Value>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let mut files: Vec<_> = fs::read_dir(&dir)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        objects.extend(tidegate::yaml::from_str_multi(&text).with_context(|| file.display().to_string())?);
    }
    objects.retain(|o| o["kind"] != "Kustomization");
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
