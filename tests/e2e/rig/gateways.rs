//! Gateways beside Istio's own API. Each is started by the first scenario that needs it.

use std::{fs, path::Path, sync::Arc};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Once, Rig, contour, echo::Echo, istio, objects::Objects, prometheus, traefik};

#[derive(Default)]
pub struct Gateways {
    istio: Once,
    sidecar: Once,
    contour: Once,
    traefik: Once,
    prometheus: Once,
}

/// The CRDs in a file that comes with a program.
pub async fn definitions(objects: &Objects, file: &Path) -> Result<()> {
    let mut all = tidegate::yaml::from_str_multi(&fs::read_to_string(file)?)?;
    all.retain(|o: &Value| o["kind"] == "CustomResourceDefinition");
    objects.apply_crds(&all).await
}

/// A Gateway with one HTTP listener, for routes of any namespace.
pub fn gateway((namespace, name): (&str, &str), class: &str, port: u16) -> Value {
    let listener =
        json!({"name": "http", "protocol": "HTTP", "port": port, "allowedRoutes": {"namespaces": {"from": "All"}}});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"gatewayClassName": class, "listeners": [listener]},
    })
}

impl Rig {
    /// Istio's gateway serves the Gateway API too, with one Gateway.
    pub async fn istio_gateway_api(&self) -> Result<()> {
        let gateway = async || istio::gateway(&self.objects).await;
        self.gateways.istio.make("Istio's Gateway", gateway).await
    }

    /// A client in Istio's mesh, whose routes may be HTTPRoutes with a Service as parent.
    pub async fn istio_mesh(&self) -> Result<()> {
        let sidecar = async || istio::sidecar(&self.tools, &self.dir).await.map(|envoy| self.keep(envoy));
        self.gateways.sidecar.make("the sidecar", sidecar).await
    }

    /// Contour and its Envoy, with one Gateway.
    pub async fn contour(&self) -> Result<()> {
        let start = async || contour::start(self).await;
        self.gateways.contour.make("Contour", start).await
    }

    pub async fn traefik(&self) -> Result<()> {
        let start = async || traefik::start(self).await;
        self.gateways.traefik.make("Traefik", start).await
    }

    /// Prometheus, which scrapes the gateways, the pods that ask for it and the controller.
    pub async fn prometheus(&self) -> Result<()> {
        let echo: Arc<Echo> = self.echo.clone();
        let start = async || prometheus::start(self, echo).await;
        self.gateways.prometheus.make("Prometheus", start).await
    }
}
