//! A script of the administrator's in place of the built-in one.

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
