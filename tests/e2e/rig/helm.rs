//! Helm, as an administrator uses it.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::Rig;

/// The chart under test.
pub fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/tidegate").display().to_string()
}

/// What `helm ARGS` prints; an error with what it says when it fails.
pub fn helm(rig: &Rig, args: &[&str]) -> Result<String> {
    let mut command = Command::new("timeout");
    command.arg("120").arg(rig.tools.path("helm")?).args(args);
    // Nothing of whoever runs the test.
    for (key, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
        command.env(key, rig.dir.join("helm").join(folder));
    }
    command.env("KUBECONFIG", rig.dir.join("spare-admin.kubeconfig"));
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("helm {args:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}
