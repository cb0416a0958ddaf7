//! Traefik, which reads its own kinds, the Gateway API, and the annotations of ingress-nginx.

use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::{
    Rig,
    gateways::definitions,
    http::get,
    poll::{SOON, until},
    process::Daemon,
};

/// Where it listens.
pub const PORT: u16 = 18100;
/// Where it tells what it knows, and its statistics.
pub const ADMIN: u16 = 18101;

pub async fn start(rig: &Rig) -> Result<()> {
    definitions(&rig.objects, rig.tools.path("traefik-crds.yaml")?).await?;
    let classes = [
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "traefik"},
               "spec": {"controllerName": "traefik.io/gateway-controller"}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "nginx"},
               "spec": {"controller": "k8s.io/ingress-nginx"}}),
    ];
    for class in &classes {
        rig.objects.apply(class).await?;
    }
    let traefik = Daemon::start(
        Command::new(rig.tools.path("traefik")?)
            .env("KUBECONFIG", rig.cluster.pki.kubeconfig("admin"))
            .arg(format!("--entrypoints.web.address=:{PORT}"))
            .arg(format!("--entrypoints.traefik.address=127.0.0.1:{ADMIN}"))
            .args(["--ping=true", "--api.insecure=true", "--log.level=INFO"])
            .args(["--providers.kubernetesgateway=true", "--providers.kubernetescrd=true"])
            .args(["--providers.kubernetesingressnginx=true", "--providers.kubernetesingressnginx.httpentrypoint=web"])
            .args(["--providers.providersthrottleduration=100ms"])
            .args(["--metrics.prometheus=true", "--metrics.prometheus.addserviceslabels=true"])
            .args(["--global.checknewversion=false", "--global.sendanonymoususage=false"])
            .current_dir(&rig.dir),
        "traefik",
        &rig.dir,
    )?;
    until("Traefik is ready", SOON, async || {
        traefik.alive()?;
        get(&format!("127.0.0.1:{ADMIN}"), "/ping").await
    })
    .await?;
    rig.keep(traefik);
    Ok(())
}
