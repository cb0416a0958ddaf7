//! Helm, as an administrator uses it.

use std::{path::Path, process::Command, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    Rig,
    controller::NAMESPACE,
    image::Image,
    poll::{SOON, until},
    spare::Spare,
};

/// The chart under test.
pub fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/tidegate").display().to_string()
}

/// What `helm ARGS` prints on the cluster of [`Rig::spare`]; an error with what it says when it fails.
pub fn helm(rig: &Rig, args: &[&str]) -> Result<String> {
    helm_on(rig, "spare", args)
}

/// The same on a cluster of [`Rig::empty`].
pub fn helm_on(rig: &Rig, spare: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new("timeout");
    command.arg("120").arg(rig.tools.path("helm")?).args(args);
    // Nothing of whoever runs the test.
    for (key, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
        command.env(key, rig.dir.join("helm").join(folder));
    }
    command.env("KUBECONFIG", rig.kubeconfig(spare, "admin"));
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("helm {args:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// `helm uninstall`, and what its hook says: its container is run here, as the Deployment's is, and the Job's status is
/// written as its controller would. When the hook has agreed, `agreed` comes before Helm hears of it and takes anything away.
pub async fn uninstalled(
    rig: &Arc<Rig>,
    spare: &Spare,
    image: &Image,
    agreed: impl AsyncFnOnce() -> Result<()>,
) -> Result<(Result<String>, String)> {
    const JOB: &str = "tidegate-uninstall";
    let helm = {
        let (rig, name) = (rig.clone(), spare.name.clone());
        tokio::task::spawn_blocking(move || helm_on(&rig, &name, &["uninstall", "tidegate", "--namespace", NAMESPACE]))
    };
    let job = until("the hook's Job is there, and new", SOON, async || {
        let job = spare.objects.get("batch/v1", "Job", NAMESPACE, JOB).await?;
        ensure!(job["status"].get("conditions").is_none(), "of the last time");
        Ok(job)
    })
    .await?;
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().context("no arguments")?;
    let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
    let mut command = image.command(&args)?;
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", spare.port.to_string());
    // It waits for the controller.
    let ran = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let now = job["metadata"]["creationTimestamp"].clone();
    let is = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now});
    let status = if ran.status.success() {
        agreed().await?;
        json!({"startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [is("SuccessCriteriaMet"), is("Complete")], "uncountedTerminatedPods": {}})
    } else {
        json!({"startTime": now, "failed": 1, "conditions": [is("FailureTarget"), is("Failed")], "uncountedTerminatedPods": {}})
    };
    let api = spare.objects.api("batch/v1", "Job", NAMESPACE);
    api.patch_status(JOB, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok((helm.await?, said))
}
