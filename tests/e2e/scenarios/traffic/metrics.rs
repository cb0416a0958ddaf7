//! A real Prometheus scrapes the gateways and the pods, and decides about releases that nobody approves.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Row, Via, row, story::Story};
use crate::rig::{
    Rig,
    controller::output,
    echo::{FAILS_EVERY, SCRAPE},
    load::SIGMAS,
    poll::{SOON, until},
    prometheus,
};

/// A release that metrics decide about.
pub struct Metered {
    pub row: Row,
    /// Every so many requests of the new version fail.
    fails_every: Option<usize>,
}

const fn bad(row: Row) -> Metered {
    Metered { row, fails_every: Some(20) }
}

const fn good(row: Row) -> Metered {
    Metered { row, fails_every: None }
}

pub const METRICS: &[Metered] = &[
    good(row("prometheus_promotes_good", "gateway-api", Via::Istio)),
    bad(row("prometheus_rolls_back_bad", "gateway-api", Via::Istio)),
    good(row("prometheus_promotes_good_by_contour", "contour", Via::Contour)),
    bad(row("prometheus_rolls_back_bad_by_contour", "contour", Via::Contour)),
    good(row("prometheus_promotes_good_by_traefik", "traefik", Via::Traefik)),
    bad(row("prometheus_rolls_back_bad_by_traefik", "traefik", Via::Traefik)),
    good(row("prometheus_promotes_good_by_traefik_http_route", "gateway-api", Via::TraefikGateway)),
    bad(row("prometheus_rolls_back_bad_by_contour_http_route", "gateway-api", Via::ContourGateway)),
];

impl Metered {
    pub fn programs(&self) -> Vec<&'static str> {
        [self.row.via.programs(), &["prometheus"]].concat()
    }
}

/// Between two measurements; also the time before the first one.
const INTERVAL: Duration = Duration::from_secs(5);
const SHARE: f64 = 0.2;

/// The share of good answers as the gateway's own counters have it.
fn at_the_gateway(via: Via) -> Value {
    match via {
        Via::Contour | Via::ContourGateway => json!({"template": {"name": "contour/request-success-rate"}}),
        Via::Traefik | Via::TraefikGateway => json!({"template": {"name": "traefik/request-success-rate"}}),
        Via::Istio | Via::Mesh => {
            let cluster =
                "cluster_name=~\"outbound[|]80[|][|]{{ canary-service }}[.]{{ namespace }}[.]svc[.]cluster[.]local\"";
            let rate =
                |more: &str| format!("sum(rate(envoy_cluster_upstream_rq{{{cluster}{more}}}[{{{{ interval }}}}]))");
            json!({"query": format!("1 - ({} or vector(0)) / {}", rate(", response_code=~\"5..\""), rate(""))})
        }
    }
}

/// The recipe's Rollout with metrics in place of approvals, and pods whose metrics are wanted.
pub fn measured(object: &mut Value, via: Via) {
    match object["kind"].as_str() {
        Some("Deployment") => object["spec"]["template"]["metadata"]["annotations"] = json!({SCRAPE: "true"}),
        Some("Rollout") => {
            let provider = json!({"prometheus": {"address": format!("http://{}", prometheus::ADDRESS)}});
            let common =
                json!({"provider": provider, "min": 0.99, "interval": format!("{}s", INTERVAL.as_secs()), "count": 2});
            let mut at_pods = json!({"name": "at-the-pods", "template": {"name": "istio/request-success-rate"}});
            let mut at_gateway = at_the_gateway(via);
            at_gateway["name"] = json!("at-the-gateway");
            for metric in [&mut at_pods, &mut at_gateway] {
                metric
                    .as_object_mut()
                    .into_iter()
                    .for_each(|m| m.extend(common.as_object().cloned().unwrap_or_default()));
            }
            // Where the gateway's own words are a built-in template's, they decide alone.
            let metrics = if via == Via::Istio { json!([at_pods, at_gateway]) } else { json!([at_gateway]) };
            let strategy = &mut object["spec"]["strategy"];
            strategy["analysis"] = json!({"onFailure": "rollback", "metrics": metrics});
            let steps = json!([{"traffic": format!("{}%", SHARE * 100.0), "replicas": "20%"}, {"traffic": "50%", "replicas": "50%"}]);
            strategy["canary"]["steps"] = steps;
        }
        _ => {}
    }
}

pub async fn play(rig: Arc<Rig>, metered: &'static Metered) -> Result<()> {
    rig.prometheus().await?;
    let _controller = rig.with_controller().await?;
    let story = Story::begin(&rig, &metered.row, |object| measured(object, metered.row.via)).await?;
    let load = story.load();
    let path = format!("/spec/template/metadata/annotations/{}", FAILS_EVERY.replace('/', "~1"));
    let fails = metered.fails_every.map(|every| json!({"op": "add", "path": path, "value": every.to_string()}));
    story.release(fails.as_slice()).await?;
    let Some(every) = metered.fails_every else {
        story.ended(&story.new).await?;
        let tally = load.stop().await?;
        story.says(&format!("promoted with no hand: {tally}"));
        return story.undisturbed(&tally);
    };
    story.ended(&story.old).await?;
    let tally = load.stop().await?;
    story.says(&format!("rolled back: {tally}"));

    let new = |s: &&crate::rig::load::Sample| match &s.answer {
        Ok(answer) => answer.version == story.new,
        Err(why) => why.starts_with("500 ") && why.contains(&story.new),
    };
    let (all, failed) = (tally.samples.iter().filter(new).count(), tally.failures().len());
    ensure!(tally.failures().iter().all(new), "others than the new version failed: {tally}");
    let first = tally.samples.iter().position(|s| new(&s)).context("nobody asked the new version")?;
    let last = tally.samples.iter().rposition(|s| new(&s)).unwrap_or(first);
    let (window, took) = ((last - first + 1) as f64, tally.samples[last].at - tally.samples[first].at);
    story.says(&format!(
        "the new version served for {:.1} s; {all} of {window} requests reached it, {failed} failed, {:.0} were expected to",
        took.as_secs_f64(),
        window * SHARE / every as f64
    ));
    // At the first step its share is known; later steps it must never see.
    let most = window * SHARE + SIGMAS * (window * SHARE * (1.0 - SHARE)).sqrt() + 1.0;
    ensure!(all as f64 <= most, "{all} of {window} requests reached the new version, at most {most:.0} were to");
    // Each pod fails exactly every so many requests, so more than that is somebody else's doing.
    ensure!(failed > 0 && failed <= all / every + 1, "{failed} of {all} requests failed");
    // The first measurement comes after at most two intervals; the rest is a slow machine's.
    ensure!(took < 2 * INTERVAL + SOON, "the new version served for {took:?}");
    Ok(())
}

/// Prometheus takes the chart's alerts, they fire when they should, and they can be computed from what the controller tells.
pub async fn alerts(rig: Arc<Rig>) -> Result<()> {
    let promtool = |args: &[&str], file: &Path| -> Result<()> {
        let said = output(Command::new(rig.tools.path("promtool")?).args(args).arg(file))?;
        ensure!(said.contains("SUCCESS"), "promtool {args:?} said: {said}");
        Ok(())
    };
    promtool(&["check", "rules"], &prometheus::alerts())?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    promtool(&["test", "rules"], &tests.join("alerts/fired.yaml"))?;
    promtool(&["check", "rules"], &tests.join("templates/rules.yaml"))?;
    promtool(&["test", "rules"], &tests.join("templates/series.yaml"))?;

    rig.prometheus().await?;
    let _controller = rig.with_controller().await?;
    until("Prometheus computes the alerts from the controller's metrics", SOON, async || {
        let leads = prometheus::api("query?query=sum(tidegate_leader)").await?;
        ensure!(leads["result"][0]["value"][1] == "1", "{leads}");
        let groups = prometheus::api("rules?type=alert").await?;
        let rules: Vec<&Value> =
            groups["groups"].as_array().into_iter().flatten().flat_map(|g| g["rules"].as_array()).flatten().collect();
        ensure!(!rules.is_empty() && rules.iter().all(|r| r["health"] == "ok"), "{rules:?}");
        let absent = rules.iter().find(|r| r["name"] == "TidegateNoLeader").context("no TidegateNoLeader")?;
        ensure!(absent["state"] == "inactive", "{absent}");
        Ok(())
    })
    .await
}
