//! Releases through real gateways, each told by its own recipe under `examples/`.

mod gateways;
pub mod history;
pub mod metrics;
pub mod proof;
pub mod story;
pub mod traces;

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Result;

use crate::rig::Rig;

/// The scenario about the chart's alerts.
pub const ALERTS: &str = "chart_alerts";

/// The scenario about traces.
pub const TRACES: &str = "collector_takes_traces";

/// A gateway, and how a user asks it.
#[derive(Clone, Copy, PartialEq)]
pub enum Via {
    /// istiod and Envoy, as a gateway of the Gateway API.
    Istio,
    /// The sidecar of a client in Istio's mesh: HTTPRoutes whose parent is a Service.
    Mesh,
    /// HTTPProxies.
    Contour,
    /// Contour's Gateway.
    ContourGateway,
    /// IngressRoutes, TraefikServices, and Ingresses of class nginx.
    Traefik,
    /// Gateways of class traefik.
    TraefikGateway,
}

/// A recipe through a gateway.
pub struct Row {
    pub name: &'static str,
    /// The folder under `examples/`.
    pub example: &'static str,
    pub via: Via,
    /// Its Deployment and Rollout.
    workload: &'static str,
}

const fn row(name: &'static str, example: &'static str, via: Via) -> Row {
    Row { name, example, via, workload: "shop" }
}

pub const ROWS: &[Row] = &[
    row("istio_http_route", "gateway-api", Via::Istio),
    row("istio_mesh_http_route", "gateway-api", Via::Mesh),
    row("contour_http_proxy", "contour", Via::Contour),
    row("contour_http_route", "gateway-api", Via::ContourGateway),
    row("traefik_ingress_route", "traefik", Via::Traefik),
    row("traefik_service", "traefik-service", Via::Traefik),
    row("traefik_http_route", "gateway-api", Via::TraefikGateway),
    Row { workload: "web", ..row("traefik_nginx_ingress", "nginx", Via::Traefik) },
];

/// What a scenario of this folder is called in front of its own name: `make e2e` leaves all of them out.
pub const PREFIX: &str = "traffic_";

/// The programs that the wanted scenarios need beside those that every run has.
pub fn programs(wanted: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
    let rows = ROWS.iter().map(|r| (r.name, r.via.programs().to_vec()));
    let proof = [(proof::ROW.name, proof::ROW.via.programs().to_vec())];
    let tried = [(history::TRIED.name, [history::TRIED.via.programs(), &["prometheus"]].concat())];
    let metered = metrics::METRICS.iter().map(|m| (m.row.name, m.programs()));
    let beside = [(ALERTS, vec!["prometheus"]), (TRACES, vec!["otel"])];
    let all = rows.chain(proof).chain(tried).chain(metered).chain(beside);
    all.filter(|(name, _)| wanted(&format!("{PREFIX}{name}"))).flat_map(|(_, programs)| programs).collect()
}

impl Via {
    /// The programs of `build.sh` beside those that every run has.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Via::Istio | Via::Mesh => &["gateway-api"],
            Via::Contour | Via::ContourGateway => &["gateway-api", "contour"],
            Via::Traefik | Via::TraefikGateway => &["gateway-api", "traefik"],
        }
    }

    async fn up(self, rig: &Arc<Rig>) -> Result<()> {
        match self {
            Via::Istio => rig.istio_gateway_api().await,
            Via::Mesh => rig.istio_mesh().await,
            Via::Contour | Via::ContourGateway => rig.contour().await,
            Via::Traefik | Via::TraefikGateway => rig.traefik().await,
        }
    }
}
