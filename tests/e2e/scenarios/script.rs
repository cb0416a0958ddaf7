//! Scripts of ConfigMaps: the administrator's in place of a built-in one, and a namespace's own.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidegate::api::{conditions::reasons, keys::SCRIPT_CONFIG_MAP};

use super::{
    mistakes::stalled,
    story::{CANARY, Story, VIRTUAL_SERVICE},
};
use crate::rig::{
    Rig,
    controller::{Controller, NAMESPACE},
    kruise::grant_for,
    poll::{SOON, until},
};

const LABEL: &str = "routed-by";

/// The built-in script of VirtualServices, with one line that shows who it is.
fn marked_script() -> Result<String> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("lua-scripts/networking.istio.io/VirtualService/trafficRouting.lua");
    let script = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(format!(
        "local function builtin()\n{script}\nend\nlocal result = builtin()\nresult.labels = result.labels or {{}}\n\
         result.labels[\"{LABEL}\"] = \"the-administrator\"\nreturn result\n"
    ))
}

async fn write_script(rig: &Rig, script: &str) -> Result<()> {
    let scripts = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SCRIPT_CONFIG_MAP, "namespace": NAMESPACE},
        "data": {"lua.traffic.routing.VirtualService.networking.istio.io": script},
    });
    rig.objects.apply(&scripts).await.map(drop)
}

pub async fn config_map_script_wins(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.alone().await?;
    write_script(&rig, &marked_script()?).await?;
    let controller = Controller::start_with(&rig, &["--config-map-scripts-first"]).await?;
    let outcome = played(&rig).await;
    rig.objects.kill("v1", "ConfigMap", NAMESPACE, SCRIPT_CONFIG_MAP).await?;
    controller.stop().await?;
    outcome
}

/// With rights of its own for that, and no others.
pub async fn namespace_brings_a_script(rig: Arc<Rig>) -> Result<()> {
    const SWITCH: &str = "--namespace-scripts";
    let _stage = rig.alone().await?;
    grant_for(&rig.objects, SWITCH).await?;
    let controller = Controller::start_with(&rig, &[SWITCH]).await?;
    let outcome = told_by_its_own(&rig).await;
    controller.stop().await?;
    outcome
}

async fn told_by_its_own(rig: &Arc<Rig>) -> Result<()> {
    let story = Story::begin(rig, "own-script").await?;
    // Nothing that is built in reads what a VirtualService says.
    let write = async |verdict: &str| {
        let script = format!("return {{ verdict = \"{verdict}\", reason = \"the team looks first\" }}");
        let scripts = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": SCRIPT_CONFIG_MAP, "namespace": story.space.name},
            "data": {"lua.traffic.accepted.VirtualService.networking.istio.io": script},
        });
        rig.objects.apply(&scripts).await.map(drop)
    };
    write("waiting").await?;
    story.release().await?;
    until("the namespace's script is asked", SOON, async || {
        let status = story.rollout().await?["status"].clone();
        let message = status["message"].as_str().unwrap_or_default();
        ensure!(message.contains("the team looks first"), "status: {status}");
        Ok(())
    })
    .await?;
    write("accepted").await?;
    story.paused_at(1).await?;
    story.approve()?;
    story.paused_at(2).await?;
    story.approve()?;
    story.ended(CANARY).await
}

async fn played(rig: &Arc<Rig>) -> Result<()> {
    let story = Story::begin(rig, "script").await?;
    // Somebody breaks it in two ways, and mends it.
    write_script(rig, "return {").await?;
    story.release().await?;
    stalled(&story, reasons::SCRIPT_FAILED, &["nginx-vs", "lua.traffic.routing.VirtualService.networking.istio.io"])
        .await?;
    write_script(rig, "while true do end").await?;
    stalled(&story, reasons::SCRIPT_FAILED, &["nginx-vs", "loop without end"]).await?;
    write_script(rig, &marked_script()?).await?;
    story.paused_at(1).await?;
    let (version, kind, name) = VIRTUAL_SERVICE;
    let labels = story.space.get(version, kind, name).await?["metadata"]["labels"].clone();
    ensure!(labels[LABEL] == "the-administrator", "the built-in script was used: labels {labels}");
    story.a_fifth_goes_to_the_canary(500).await?;
    story.approve()?;
    story.paused_at(2).await?;
    story.the_header_goes_to_the_canary(200).await?;
    story.approve()?;
    story.ended(CANARY).await
}
