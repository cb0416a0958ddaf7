//! Contour and one stock Envoy. HTTPProxies and the one Gateway are served on the same port.

use std::{fs, process::Command};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Rig,
    controller::output,
    envoy,
    gateways::{definitions, gateway},
    http::get,
    poll::{SOON, until},
    process::Daemon,
};

/// Where its Envoy listens: a Gateway's port and 8000.
pub const PORT: u16 = 18080;
/// Where its Envoy tells its statistics.
pub const STATISTICS: u16 = 18002;
/// What its Envoy answers for the few milliseconds in which it knows a route and not yet the Service in it, flag `NC` in its
/// log: Contour sends the two on streams of their own.
pub const NO_CLUSTER: &str = "503 Service Unavailable";
/// Namespace and name of the Gateway.
pub const PARENT: (&str, &str) = ("projectcontour", "contour");

pub async fn start(rig: &Rig) -> Result<()> {
    definitions(&rig.objects, rig.tools.path("contour-crds.yaml")?).await?;
    let (namespace, name) = PARENT;
    rig.objects.namespace(namespace).await?;
    let class = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "contour"},
        "spec": {"controllerName": "projectcontour.io/gateway-controller"}});
    rig.objects.apply(&class).await?;
    rig.objects.apply(&gateway(PARENT, "contour", PORT - 8000)).await?;

    let config = rig.dir.join("contour.yaml");
    fs::write(&config, format!("gateway: {{gatewayRef: {{namespace: {namespace}, name: {name}}}}}\n"))?;
    let contour = Daemon::start(
        Command::new(rig.tools.path("contour")?)
            .arg("serve")
            .arg(format!("--config-path={}", config.display()))
            .arg(format!("--kubeconfig={}", rig.cluster.pki.kubeconfig("admin").display()))
            .args(["--no-incluster", "--insecure", "--disable-leader-election"])
            // It asks for versions of these that the definitions no longer have.
            .args(["tcproutes", "tlsroutes", "backendtlspolicies"].map(|f| format!("--disable-feature={f}")))
            .args(["--xds-address=127.0.0.1", "--xds-port=8001"])
            .args(["--http-address=127.0.0.1", "--http-port=18000"])
            .args(["--health-address=127.0.0.1", "--health-port=18000"])
            .args(["--debug-http-address=127.0.0.1", "--debug-http-port=16060"])
            .args(["--stats-address=127.0.0.1".into(), format!("--stats-port={STATISTICS}")])
            .args(["--envoy-service-http-address=127.0.0.1".into(), format!("--envoy-service-http-port={PORT}")])
            .args(["--envoy-service-https-address=127.0.0.1", "--envoy-service-https-port=18443"])
            .current_dir(&rig.dir),
        "contour",
        &rig.dir,
    )?;
    until("Contour is ready", SOON, async || {
        contour.alive()?;
        get("127.0.0.1:18000", "/healthz").await
    })
    .await?;
    rig.keep(contour);

    let file = rig.dir.join("contour-bootstrap.json");
    output(
        Command::new(rig.tools.path("contour")?)
            .args(["bootstrap", "--xds-address=127.0.0.1", "--xds-port=8001", "--xds-resource-version=v3"])
            .arg(format!("--admin-address={}", rig.dir.join("contour-envoy.sock").display()))
            .arg(&file),
    )?;
    let bootstrap: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let node = ["--service-cluster", "contour", "--service-node", "contour-envoy"];
    let ready = format!("127.0.0.1:{STATISTICS}");
    rig.keep(envoy::start(&rig.tools, &rig.dir, "contour-envoy", &bootstrap, &node, &ready).await?);
    Ok(())
}
