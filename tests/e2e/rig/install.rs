//! Tidegate on the cluster, once for a run: its CRDs, its policy, its role.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate::api::keys::WORKLOAD_TYPE;

use super::{
    Rig,
    controller::{NAMESPACE, documents},
    objects::Objects,
    pki::CONTROLLER,
    poll::{SOON, until},
};

/// CRDs and policies as the binary prints them, the role as the chart has it.
pub async fn install(rig: &Rig) -> Result<()> {
    roles(&rig.objects).await?;
    for policy in documents(&["policy"])? {
        rig.objects.apply(&policy).await?;
    }
    holds(rig).await
}

/// The chart's roles, as it has them.
pub fn chart_roles() -> Result<Vec<Value>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/tidegate/templates");
    let mut roles = Vec::new();
    for file in ["clusterrole.yaml", "clusterrole-jobs.yaml"] {
        let text = fs::read_to_string(dir.join(file)).with_context(|| format!("the chart's {file}"))?;
        // With every value that grants something.
        let plain: String =
            text.lines().filter(|line| !line.starts_with("{{-")).map(|line| format!("{line}\n")).collect();
        let documents = tidegate::yaml::from_str_multi(&plain).with_context(|| format!("{file} must be plain YAML"))?;
        ensure!(!documents.is_empty(), "{file} is empty");
        roles.extend(documents);
    }
    Ok(roles)
}

/// The chart's roles, for the controller's user.
pub async fn roles(objects: &Objects) -> Result<()> {
    objects.namespace(NAMESPACE).await?;
    for mut role in chart_roles()? {
        let kind = role["kind"].as_str().unwrap_or_default().to_owned();
        let name = role["metadata"]["name"].clone();
        let mut binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": CONTROLLER}],
        });
        if kind == "Role" {
            role["metadata"]["namespace"] = json!(NAMESPACE);
            binding["metadata"]["namespace"] = json!(NAMESPACE);
        }
        objects.apply(&role).await?;
        objects.apply(&binding).await?;
    }
    Ok(())
}

/// The server takes some seconds to act on a new policy.
async fn holds(rig: &Rig) -> Result<()> {
    let labels = json!({"app": "probe"});
    let probe = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "probe", "namespace": NAMESPACE, "labels": {WORKLOAD_TYPE: "deployment"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                 "spec": {"containers": [{"name": "main", "image": "probe:1"}]}}},
    });
    rig.objects.apply(&probe).await?;
    let api = rig.objects.api("apps/v1", "Deployment", NAMESPACE);
    let dry = kube::api::PatchParams { dry_run: true, ..Default::default() };
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "probe:2"}]);
    let image = kube::api::Patch::Json::<()>(serde_json::from_value(image)?);
    until("the policy holds a changed Deployment", SOON, async || {
        let answer: Value = serde_json::to_value(api.patch("probe", &dry, &image).await?)?;
        ensure!(answer["spec"]["paused"] == true, "not held yet");
        Ok(())
    })
    .await?;
    rig.objects.kill("apps/v1", "Deployment", NAMESPACE, "probe").await
}

impl Rig {
    /// Tidegate's CRDs are served when this returns.
    pub async fn crds(&self) -> Result<()> {
        let definitions = async || self.objects.apply_crds(&documents(&["crd"])?).await;
        self.crds.make("cannot install the CRDs", definitions).await
    }

    /// All of Tidegate's objects are on the cluster when this returns.
    pub async fn installed(&self) -> Result<()> {
        self.crds().await?;
        self.installed.make("cannot install Tidegate", async || install(self).await).await
    }
}

/// A promise that nothing happens can only be watched for a while. The controllers of the plane act within milliseconds.
pub const STANDSTILL: Duration = Duration::from_secs(4);
