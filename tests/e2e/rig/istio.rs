//! istiod and one stock Envoy as its ingress gateway.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    http::get,
    netns::Tools,
    objects::Objects,
    poll::{SOON, until},
    process::Daemon,
};

/// CRDs take seconds each to become served, so only those that a scenario or istiod needs.
const CRDS: [&str; 3] = ["virtualservices", "destinationrules", "gateways"];

const MESH: &str = "
# With mutual TLS every cluster waits for secrets that a bare Envoy cannot fetch, and no listener ever comes.
enableAutoMtls: false
rootNamespace: istio-system
enablePrometheusMerge: false
# A retry would hide a request to a dead pod.
defaultHttpRetryPolicy: {attempts: 0}
defaultConfig: {discoveryAddress: '127.0.0.1:15010'}
";

pub async fn start(tools: &Tools, cluster: &Cluster, dir: &Path) -> Result<Vec<Daemon>> {
    let objects = Objects::new(cluster.admin.clone());
    let all = tidegate::yaml::from_str_multi(&fs::read_to_string(tools.path("crds.yaml")?)?)?;
    let name = |crd: &Value| crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let crds: Vec<Value> =
        all.into_iter().filter(|crd| CRDS.iter().any(|c| name(crd) == format!("{c}.networking.istio.io"))).collect();
    ensure!(crds.len() == CRDS.len(), "Istio's crds.yaml lacks some of {CRDS:?}");
    objects.apply_crds(&crds).await?;
    objects.namespace("istio-system").await?;

    let mesh = dir.join("mesh.yaml");
    fs::write(&mesh, MESH)?;
    let istiod = Daemon::start(
        Command::new(tools.path("pilot-discovery")?)
            .arg("discovery")
            .arg(format!("--kubeconfig={}", cluster.pki.kubeconfig("admin").display()))
            .arg(format!("--meshConfig={}", mesh.display()))
            .args([
                "--registries=Kubernetes",
                "--domain=cluster.local",
                "--grpcAddr=127.0.0.1:15010",
                "--secureGRPCAddr=",
            ])
            .args(["--httpAddr=127.0.0.1:15080", "--httpsAddr=", "--monitoringAddr=127.0.0.1:15014"])
            .args(["--ctrlz_address=127.0.0.1", "--ctrlz_port=0"])
            .envs([("POD_NAMESPACE", "istio-system"), ("POD_NAME", "istiod-0")])
            .envs([("ENABLE_CA_SERVER", "false"), ("PILOT_CERT_PROVIDER", "none"), ("PILOT_ENABLE_AMBIENT", "false")])
            // Filters that only Istio's own build of Envoy has.
            .envs([("PILOT_ENABLE_ALPN_FILTER", "false"), ("PILOT_ENABLE_METADATA_EXCHANGE", "false")])
            .envs([("PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", "false")])
            .envs([("PILOT_DEBOUNCE_AFTER", "10ms"), ("PILOT_DEBOUNCE_MAX", "1s")])
            .current_dir(dir),
        "istiod",
        dir,
    )?;
    until("istiod is ready", SOON, async || {
        istiod.alive()?;
        get("127.0.0.1:15080", "/ready").await
    })
    .await?;

    let boot = dir.join("envoy.json");
    fs::write(&boot, bootstrap().to_string())?;
    let envoy = Daemon::start(
        // One worker thread: once one request has seen a new route, all later ones do.
        Command::new(tools.path("envoy")?)
            .arg("-c")
            .arg(&boot)
            .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warn"])
            .current_dir(dir),
        "envoy",
        dir,
    )?;
    until("Envoy is ready", SOON, async || {
        envoy.alive()?;
        get("127.0.0.1:15000", "/ready").await
    })
    .await?;
    Ok(vec![istiod, envoy])
}

/// What Istio's own agent would write for an ingress gateway, without TLS.
fn bootstrap() -> Value {
    let socket = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let discovery = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
        "node": {
            "id": "router~172.31.0.1~istio-ingressgateway-0.istio-system~istio-system.svc.cluster.local",
            "cluster": "istio-ingressgateway",
            "metadata": {
                "ISTIO_VERSION": "1.31.0", "CLUSTER_ID": "Kubernetes", "NAMESPACE": "istio-system",
                "LABELS": {"istio": "ingressgateway"}, "SERVICE_ACCOUNT": "default", "WORKLOAD_NAME": "istio-ingressgateway",
            },
        },
        "admin": {"address": socket(15000)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "lds_config": discovery, "cds_config": discovery,
        },
        "static_resources": {"clusters": [{
            "name": "xds-grpc", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {
                "cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(15010)}}]}],
            },
        }]},
    })
}
