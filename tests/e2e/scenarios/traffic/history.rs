//! `tidegate analysis try` on what a real Prometheus has recorded of a version that runs.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Row, Via, metrics::measured, row, story::Story};
use crate::rig::{Rig, controller::BINARY, echo::FAILS_EVERY, prometheus};

pub const TRIED: Row = row("prometheus_tries_history", "gateway-api", Via::Istio);

/// How long the version runs well, and then badly; a few intervals of the metrics.
const WHILE: Duration = Duration::from_secs(40);

/// The last characters of the names of those pods that stand for a canary where versions are compared.
const FIRST_HALF: &str = "acegikmoqsuwy13579";

fn tried(object: &mut Value) {
    measured(object, Via::Istio);
    match object["kind"].as_str() {
        Some("Deployment") if object["metadata"]["name"] == TRIED.workload => object["spec"]["replicas"] = json!(6),
        Some("Rollout") => {
            let metrics = &mut object["spec"]["strategy"]["analysis"]["metrics"];
            let (provider, interval) = (metrics[0]["provider"].clone(), metrics[0]["interval"].clone());
            let compared = json!({"name": "compared", "template": {"name": "istio/compare-errors"}, "compare": {},
                "provider": provider, "interval": interval});
            metrics.as_array_mut().into_iter().for_each(|all| all.push(compared.clone()));
        }
        _ => {}
    }
}

/// What is printed about the time that has just passed, a paragraph a metric, and whether all was good.
fn history(rig: &Rig, story: &Story, since: Duration) -> Result<(Vec<String>, bool)> {
    let (namespace, since) = (&story.space.name, format!("{}s", since.as_secs()));
    let server = format!("http://{}", prometheus::ADDRESS);
    let output = Command::new(BINARY)
        .args(["analysis", "try", TRIED.workload, "-n", namespace, "--since", &since, "--server", &server])
        .env("KUBECONFIG", rig.cluster.pki.kubeconfig("admin"))
        .output()?;
    let (text, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    story.says(&format!("the past {since}:\n{text}{why}"));
    let mut paragraphs: Vec<String> = Vec::new();
    for line in text.lines() {
        match paragraphs.last_mut().filter(|_| line.starts_with(' ')) {
            Some(paragraph) => paragraph.push_str(line),
            None => paragraphs.push(line.to_owned()),
        }
    }
    let names: Vec<&str> = paragraphs.iter().filter_map(|p| p.split(' ').next()).collect();
    ensure!(names == ["at-the-pods", "at-the-gateway", "compared"], "{text}{why}");
    Ok((paragraphs, output.status.success()))
}

fn is_of_first_half(pod: &Pod) -> bool {
    pod.name_any().ends_with(|last| FIRST_HALF.contains(last))
}

/// A version that runs well is found good; when a part of its pods fails, every metric tells.
pub async fn play(rig: Arc<Rig>) -> Result<()> {
    rig.prometheus().await?;
    let _controller = rig.with_controller().await?;
    let story = Story::begin(&rig, &TRIED, tried).await?;
    let api: Api<Pod> = Api::namespaced(rig.objects.client.clone(), &story.space.name);
    let ours = async || {
        let all = api.list(&ListParams::default()).await?.items;
        anyhow::Ok(
            all.into_iter()
                .filter(|pod| pod.name_any().starts_with(&format!("{}-", TRIED.workload)))
                .collect::<Vec<_>>(),
        )
    };
    // Names are drawn: of six pods all may be of one half.
    for _ in 0..20 {
        let pods = ours().await?;
        let first = pods.iter().filter(|pod| is_of_first_half(pod)).count();
        if first > 0 && first < pods.len() {
            break;
        }
        api.delete(&pods.first().context("no pods")?.name_any(), &DeleteParams::default()).await?;
        story.space.complete(TRIED.workload).await?;
    }
    let load = story.load();
    tokio::time::sleep(WHILE).await;
    let (good, is_good) = history(&rig, &story, WHILE / 2)?;
    ensure!(is_good && good.iter().all(|metric| metric.contains("good: ")), "{good:#?}");

    let fails = Patch::Merge(json!({"metadata": {"annotations": {FAILS_EVERY: "3"}}}));
    for pod in ours().await?.iter().filter(|pod| is_of_first_half(pod)) {
        api.patch(&pod.name_any(), &PatchParams::default(), &fails).await?;
    }
    tokio::time::sleep(WHILE).await;
    let (bad, is_good) = history(&rig, &story, WHILE / 2)?;
    ensure!(!is_good && bad.iter().all(|metric| metric.contains("BAD: ")), "{bad:#?}");
    load.stop().await?;
    Ok(())
}
