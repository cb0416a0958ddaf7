//! A real Prometheus: Debian's, which has no discovery by Kubernetes' API, so the pods are listed in a file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Rig, contour, controller,
    echo::Echo,
    http::get,
    istio,
    poll::{SOON, until},
    process::Daemon,
    traefik,
};

pub const ADDRESS: &str = "127.0.0.1:19090";

/// The alerts of the chart.
pub fn alerts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/tidegate/files/alerts.yaml")
}

pub async fn start(rig: &Rig, echo: Arc<Echo>) -> Result<()> {
    let pods = rig.dir.join("prometheus-pods.json");
    fs::write(&pods, "[]")?;
    let gateways = [
        ("istio", istio::ADMIN, "/stats/prometheus"),
        ("contour", contour::STATISTICS, "/stats/prometheus"),
        ("traefik", traefik::ADMIN, "/metrics"),
    ];
    let gateways = gateways.map(|(name, port, path)| {
        let filter = if name == "traefik" { json!({}) } else { json!({"filter": [r"cluster\..*upstream_rq"]}) };
        json!({"job_name": name, "metrics_path": path, "params": filter, "static_configs": [{"targets": [format!("127.0.0.1:{port}")]}]})
    });
    let jobs = [
        json!({"job_name": "pods", "file_sd_configs": [{"files": [pods]}]}),
        json!({"job_name": "tidegate", "static_configs": [{"targets": [controller::HEALTH]}]}),
    ];
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [alerts()],
        "scrape_configs": jobs.into_iter().chain(gateways).collect::<Vec<Value>>(),
    });
    let file = rig.dir.join("prometheus.yaml");
    fs::write(&file, tidegate::yaml::to_string(&config)?)?;
    let prometheus = Daemon::start(
        Command::new(rig.tools.path("prometheus")?)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", rig.dir.join("prometheus").display()))
            .args(["--storage.tsdb.retention.time=1h", "--log.level=warn"])
            .arg(format!("--web.listen-address={ADDRESS}"))
            .current_dir(&rig.dir),
        "prometheus",
        &rig.dir,
    )?;
    until("Prometheus is ready", SOON, async || {
        prometheus.alive()?;
        get(ADDRESS, "/-/ready").await
    })
    .await?;
    rig.keep(prometheus);
    tokio::spawn(list(echo, pods));
    Ok(())
}

/// Keeps the list of pods, for as long as the rig runs.
async fn list(echo: Arc<Echo>, file: PathBuf) {
    let mut listed = Vec::new();
    loop {
        let now = echo.scraped();
        if now != listed {
            let target = |(address, namespace, pod): &(std::net::IpAddr, String, String)| json!({"targets": [format!("{address}:8080")], "labels": {"namespace": namespace, "pod": pod}});
            let text = Value::from_iter(now.iter().map(target)).to_string();
            let new = file.with_extension("new");
            // Prometheus must never read half a file.
            if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &file)) {
                eprintln!("prometheus: {}: {error}", file.display());
            }
            listed = now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An answer of its API, under `/api/v1/`.
pub async fn api(path: &str) -> Result<Value> {
    let answer: Value = serde_json::from_str(&get(ADDRESS, &format!("/api/v1/{path}")).await?)?;
    ensure!(answer["status"] == "success", "{answer}");
    Ok(answer["data"].clone())
}
