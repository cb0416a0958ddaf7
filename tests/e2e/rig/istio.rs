//! istiod, one stock Envoy as its ingress gateway, and another one as a client's sidecar.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    envoy, gateways,
    http::get,
    netns::Tools,
    objects::Objects,
    poll::{SOON, until},
    process::Daemon,
};

/// CRDs take seconds each to become served, so only those that a scenario or istiod needs.
const CRDS: [&str; 3] = ["virtualservices", "destinationrules", "gateways"];

/// Namespace and name of the Gateway of the Gateway API.
pub const PARENT: (&str, &str) = ("istio-system", "gateway");
/// The ingress gateway, and its Service.
const GATEWAY: &str = "istio-ingressgateway";
/// Where Envoy listens for port 80 of Gateways of the Gateway API.
pub const GATEWAY_API_PORT: u16 = 18091;
/// Where the sidecar takes requests of its client.
pub const MESH_PROXY: u16 = 15007;
/// Envoy's own statistics.
pub const ADMIN: u16 = 15000;

const MESH: &str = "
# With mutual TLS every cluster waits for secrets that a bare Envoy cannot fetch, and no listener ever comes.
enableAutoMtls: false
rootNamespace: istio-system
enablePrometheusMerge: false
# A retry would hide a request to a dead pod.
defaultHttpRetryPolicy: {attempts: 0}
# The simplest way into a sidecar.
proxyHttpPort: 15007
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
    // Only runs through the Gateway API pay for its definitions. istiod has to find them when it starts.
    if let Ok(file) = tools.path("gateway-api.yaml") {
        gateways::definitions(&objects, file).await?;
    }
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

    let labels = json!({"istio": "ingressgateway"});
    let id = format!("router~172.31.0.1~{GATEWAY}-0.istio-system~istio-system.svc.cluster.local");
    let boot = bootstrap(&id, GATEWAY, "istio-system", json!({"LABELS": labels}), ADMIN);
    let envoy = envoy::start(tools, dir, "envoy", &boot, &[], &format!("127.0.0.1:{ADMIN}")).await?;
    Ok(vec![istiod, envoy])
}

/// The Envoy beside a client in the mesh: what is sent to [`MESH_PROXY`] goes where the Host says.
pub async fn sidecar(tools: &Tools, dir: &Path) -> Result<Daemon> {
    let admin = ADMIN + 1;
    let id = "sidecar~10.244.255.250~client-0.istio-system~istio-system.svc.cluster.local";
    let metadata = json!({"LABELS": {"app": "client"}, "INTERCEPTION_MODE": "NONE"});
    let boot = bootstrap(id, "client", "istio-system", metadata, admin);
    envoy::start(tools, dir, "envoy-sidecar", &boot, &[], &format!("127.0.0.1:{admin}")).await
}

/// A Gateway of class `istio`, and its Service, which says where Envoy listens.
pub async fn gateway(objects: &Objects) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": GATEWAY, "namespace": PARENT.0},
        "spec": {"selector": {"istio": "ingressgateway"}, "ports": [{"name": "http", "port": 80, "targetPort": GATEWAY_API_PORT}]},
    });
    objects.apply(&service).await?;
    let mut gateway = gateways::gateway(PARENT, "istio", 80);
    let address = format!("{GATEWAY}.{}.svc.cluster.local", PARENT.0);
    gateway["spec"]["addresses"] = json!([{"type": "Hostname", "value": address}]);
    objects.apply(&gateway).await?;
    Ok(())
}

/// What Istio's own agent would write for one of its proxies, without TLS.
fn bootstrap(id: &str, name: &str, namespace: &str, more: Value, admin: u16) -> Value {
    let mut metadata = json!({
        "ISTIO_VERSION": "1.31.0", "CLUSTER_ID": "Kubernetes", "NAMESPACE": namespace, "SERVICE_ACCOUNT": "default",
        "WORKLOAD_NAME": name,
    });
    metadata.as_object_mut().into_iter().for_each(|m| m.extend(more.as_object().cloned().unwrap_or_default()));
    let tag = |name: &str, regex: &str| json!({"tag_name": name, "regex": regex});
    let socket = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let discovery = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
        "node": {"id": id, "cluster": name, "metadata": metadata},
        "admin": {"address": socket(admin)},
        // By default the tags cut Istio's names of clusters at their first dot.
        "stats_config": {"use_all_default_tags": false, "stats_tags": [
            tag("cluster_name", r"^cluster\.((outbound\|[^;]*|[^.;]+);?\.)"),
            tag("response_code", "(_([0-9]{3}))$"),
            tag("response_code_class", "(_([0-9]xx))$"),
        ]},
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
