//! A release's trace, as the OpenTelemetry collector takes it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::{
    rig::{
        Rig,
        collector::{self, Collector},
        controller::Controller,
        poll::{SOON, until},
    },
    scenarios::story::{CANARY, Story},
};

pub async fn play(rig: Arc<Rig>) -> Result<()> {
    let _stage = rig.alone().await?;
    let collector = Collector::start(&rig).await?;
    let authority = rig.cluster.pki.file("ca.crt").display().to_string();
    let args = ["--otlp-endpoint", collector::ENDPOINT, "--otlp-certificate", &authority];
    let controller = Controller::start_with(&rig, &args).await?;
    let story = Story::begin(&rig, "traced").await?;
    story.release().await?;
    story.paused_at(1).await?;
    let trace =
        story.rollout().await?["status"]["trace"]["traceID"].as_str().context("no trace in the status")?.to_owned();
    story.approve()?;
    story.paused_at(2).await?;
    story.approve()?;
    story.ended(CANARY).await?;
    let spans = until("the collector has the whole release", SOON, async || {
        let spans = collector.spans()?;
        ensure!(spans.len() >= 4, "{} spans", spans.len());
        Ok(spans)
    })
    .await?;
    let names: Vec<&str> = spans.iter().map(|span| span.field("Name")).collect();
    ensure!(names == ["step 1", "step 2", "wind up", "release"], "{names:?}");
    let root = spans[3].field("ID");
    for span in &spans {
        let parent = if span.field("Name") == "release" { "" } else { root };
        ensure!(span.field("Trace ID") == trace && span.field("Parent ID") == parent, "not of trace {trace}: {span:?}");
        ensure!(span.field("Status code") == "Ok", "{span:?}");
        let of = |key: &str| span.attributes.get(key).map_or("", String::as_str);
        ensure!(of("tidegate.rollout") == "rollouts-demo" && of("k8s.namespace.name") == "traced", "{span:?}");
        ensure!(of("tidegate.outcome") == "completed", "{span:?}");
    }
    let log = collector.log()?;
    ensure!(log.contains("service.name: Str(tidegate)"), "no name of the service:\n{log}");
    until("the controller counts them as exported", SOON, async || {
        let told = controller.metrics().await?;
        ensure!(told.contains("tidegate_trace_spans_total{result=\"exported\"} 4"), "{told}");
        Ok(())
    })
    .await?;
    controller.stop().await.map(drop)
}
