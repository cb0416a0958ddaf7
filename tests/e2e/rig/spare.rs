//! Further clusters: an API server of its own on the same etcd, empty, and without any controller unless they are asked for.
//! What is installed there disturbs nobody.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use serde_json::json;

use super::{
    Rig,
    cluster::{self, api_server_arguments},
    objects::Objects,
    pki::SERVER,
    poll::{SOON, until},
    process::Daemon,
};

pub const PORT: u16 = 16444;
/// The node of a cluster with pods.
pub const NODE: &str = "n0";
/// Their addresses. Nobody asks them anything.
const PODS: &str = "10.245.0.0/16";

pub struct Spare {
    pub name: String,
    pub port: u16,
    pub objects: Objects,
    // Whoever asks the API server goes before it.
    controllers: Vec<Daemon>,
    _api: Daemon,
}

impl Rig {
    /// Starts it; it ends with the result.
    pub async fn spare(&self) -> Result<Spare> {
        self.empty("spare", PORT).await
    }

    /// The same under another name and port, for a scenario that runs beside.
    pub async fn empty(&self, name: &str, port: u16) -> Result<Spare> {
        for user in ["admin", "controller"] {
            let config = std::fs::read_to_string(self.cluster.pki.kubeconfig(user))?;
            let server = SERVER.replace("16443", &port.to_string());
            std::fs::write(self.kubeconfig(name, user), config.replace(SERVER, &server))?;
        }
        let mut command = Command::new(self.tools.path("kube-apiserver")?);
        let prefix = format!("--etcd-prefix=/{name}");
        let arguments = api_server_arguments(&self.cluster.pki, port, &self.dir, name)?;
        command.args(arguments).arg(prefix).current_dir(&self.dir);
        let api = Daemon::start(&mut command, &format!("kube-apiserver-{name}"), &self.dir)?;
        let admin = cluster::client(&self.kubeconfig(name, "admin")).await?;
        until(&format!("the kube-apiserver {name} is ready"), SOON, async || {
            api.alive()?;
            Ok(admin.request_text(http::Request::get("/readyz").body(Vec::new())?).await?)
        })
        .await?;
        Ok(Spare { name: name.to_owned(), port, objects: Objects::new(admin), controllers: Vec::new(), _api: api })
    }

    /// The same with a node, and controllers that make pods, which become Ready. There is no scheduler: pods name the node.
    pub async fn alive_cluster(&self, name: &str, port: u16) -> Result<Spare> {
        let mut spare = self.empty(name, port).await?;
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig(name, "admin").display());
        let file = |name: &str| self.cluster.pki.file(name).display().to_string();
        spare
            .objects
            .apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "spec": {"podCIDR": PODS}}))
            .await?;
        let enabled = [
            "deployment",
            "replicaset",
            "statefulset",
            "endpointslice",
            "garbage-collector",
            "namespace",
            "serviceaccount",
            "root-ca-certificate-publisher",
            "clusterrole-aggregation",
        ];
        let mut manager = Command::new(self.tools.path("kube-controller-manager")?);
        manager.args([&kubeconfig, "--leader-elect=false", "--secure-port=0"]).args([
            format!("--service-account-private-key-file={}", file("sa.key")),
            format!("--root-ca-file={}", file("ca.crt")),
            format!("--controllers={}", enabled.map(|c| format!("{c}-controller")).join(",")),
        ]);
        let mut kwok = Command::new(self.tools.path("kwok")?);
        kwok.args([&kubeconfig, "--manage-all-nodes=true", "--node-ip=172.31.0.1", "--node-lease-duration-seconds=0"]);
        kwok.args([format!("--cidr={PODS}"), format!("--config={}", self.dir.join("stages.yaml").display())]);
        for (command, program) in [(&mut manager, "kube-controller-manager"), (&mut kwok, "kwok")] {
            let daemon = Daemon::start(command.current_dir(&self.dir), &format!("{program}-{name}"), &self.dir)?;
            spare.controllers.push(daemon);
        }
        Ok(spare)
    }

    /// Of a user on such a cluster: `admin` or `controller`.
    pub fn kubeconfig(&self, name: &str, user: &str) -> PathBuf {
        self.dir.join(format!("{name}-{user}.kubeconfig"))
    }
}
