//! A second, empty cluster: an API server of its own on the same etcd, without any controller. What is installed there
//! disturbs nobody.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::{
    Rig,
    cluster::{self, api_server_arguments},
    objects::Objects,
    pki::SERVER,
    poll::{SOON, until},
    process::Daemon,
};

pub const PORT: u16 = 16444;

pub struct Spare {
    pub objects: Objects,
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
        Ok(Spare { objects: Objects::new(admin), _api: api })
    }

    /// Of a user on such a cluster: `admin` or `controller`.
    pub fn kubeconfig(&self, name: &str, user: &str) -> PathBuf {
        self.dir.join(format!("{name}-{user}.kubeconfig"))
    }
}
