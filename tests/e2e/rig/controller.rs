//! The controller and the plugin as a user runs them: the built binary, as a child process.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    Rig,
    http::get,
    image::Image,
    poll::{SOON, until},
    process::Daemon,
    spare::Spare,
};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");
/// Where the controller believes that it runs; its ConfigMap and its Lease are there.
pub const NAMESPACE: &str = "tidegate";
/// Where the controller of most scenarios tells how it is, and its metrics.
pub const HEALTH: &str = "127.0.0.1:18081";

/// What `tidegate ARGS` prints.
pub fn tidegate(args: &[&str]) -> Result<String> {
    output(Command::new(BINARY).args(args))
}

/// The YAML documents that `tidegate ARGS` prints.
pub fn documents(args: &[&str]) -> Result<Vec<Value>> {
    let text = tidegate(args)?;
    tidegate::yaml::from_str_multi(&text).with_context(|| format!("tidegate {args:?} printed\n{text}"))
}

/// What a command prints; an error with all that it says when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

/// `kubectl-kruise ARGS` as a cluster administrator: the same binary by another name.
pub fn kruise(rig: &Rig, namespace: &str, args: &[&str]) -> Result<String> {
    let plugin: PathBuf = rig.dir.join("bin/kubectl-kruise");
    if !plugin.exists() {
        std::fs::create_dir_all(rig.dir.join("bin"))?;
        // Another scenario may have been faster.
        std::os::unix::fs::symlink(BINARY, &plugin).or_else(|e| if plugin.exists() { Ok(()) } else { Err(e) })?;
    }
    let kubeconfig = rig.cluster.pki.kubeconfig("admin");
    // A command that goes on for ever is a mistake to be told, not a test that hangs.
    output(
        Command::new("timeout").arg("60").arg(plugin).args(args).args(["-n", namespace]).env("KUBECONFIG", kubeconfig),
    )
}

/// A running controller, ready.
pub struct Controller {
    daemon: Daemon,
    health: &'static str,
}

impl Controller {
    pub async fn start(rig: &Arc<Rig>) -> Result<Controller> {
        Controller::start_with(rig, &[]).await
    }

    pub async fn start_with(rig: &Arc<Rig>, args: &[&str]) -> Result<Controller> {
        Controller::start_named(rig, "controller", HEALTH, args).await
    }

    /// One of several replicas: with a log and an address of its own.
    pub async fn replica(rig: &Arc<Rig>, name: &str, health: &'static str) -> Result<Controller> {
        Controller::start_named(rig, name, health, &["--leader-elect"]).await
    }

    /// On a cluster of [`Rig::empty`].
    pub async fn of_spare(rig: &Arc<Rig>, spare: &str, health: &'static str, args: &[&str]) -> Result<Controller> {
        Controller::of_spare_named(rig, spare, spare, health, args).await
    }

    /// One of several there, by this name in its log.
    pub async fn of_spare_named(
        rig: &Arc<Rig>,
        spare: &str,
        name: &str,
        health: &'static str,
        args: &[&str],
    ) -> Result<Controller> {
        let kubeconfig = rig.dir.join(format!("{spare}-controller.kubeconfig"));
        Controller::start_at(rig, &kubeconfig, &format!("controller-{name}"), health, args).await
    }

    async fn start_named(rig: &Arc<Rig>, name: &str, health: &'static str, args: &[&str]) -> Result<Controller> {
        Controller::start_at(rig, &rig.cluster.pki.kubeconfig("controller"), name, health, args).await
    }

    async fn start_at(
        rig: &Arc<Rig>,
        kubeconfig: &Path,
        name: &str,
        health: &'static str,
        args: &[&str],
    ) -> Result<Controller> {
        let mut command = Command::new(BINARY);
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--health-addr", health])
            .args(args)
            .env("POD_NAMESPACE", NAMESPACE)
            .env("RUST_BACKTRACE", "1");
        let controller = Controller { daemon: Daemon::start(&mut command, name, &rig.dir)?, health };
        controller.ready().await?;
        Ok(controller)
    }

    pub async fn ready(&self) -> Result<()> {
        until("the controller is ready", SOON, async || {
            self.daemon.alive()?;
            get(self.health, "/readyz").await.map(drop)
        })
        .await
    }

    /// The container of a Deployment: its image with its own arguments, with a pod's identity, without a pod.
    pub async fn of_deployment(
        rig: &Arc<Rig>,
        image: &Image,
        health: &'static str,
        spare: &Spare,
        deployment: &Value,
    ) -> Result<Controller> {
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().context("no arguments")?;
        let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
        let mut command = image.command(&args)?;
        command
            .env("POD_NAMESPACE", NAMESPACE)
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", spare.port.to_string());
        let name = format!("controller-image-{}", spare.name);
        let controller = Controller { daemon: Daemon::start(&mut command, &name, &rig.dir)?, health };
        controller.ready().await?;
        Ok(controller)
    }

    /// Stands still from now on, or goes on.
    pub fn freeze(&self, on: bool) -> Result<()> {
        self.daemon.signal(if on { "STOP" } else { "CONT" })
    }

    /// A file of its folder under `/proc`.
    pub fn proc(&self, file: &str) -> Result<String> {
        // The mounted one is that of the machine, where the process has another number.
        let path = format!("/proc/{}/{file}", self.daemon.pid());
        output(Command::new("unshare").args(["--mount", "--mount-proc", "--", "cat", &path]))
    }

    /// What it has logged since it was started for the first time.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.daemon.log).with_context(|| format!("cannot read {:?}", self.daemon.log))
    }

    /// What it tells Prometheus.
    pub async fn metrics(&self) -> Result<String> {
        get(self.health, "/metrics").await
    }

    /// SIGKILL.
    pub fn kill(self) -> Result<()> {
        self.daemon.alive()?;
        self.daemon.kill()
    }

    /// SIGTERM; it must leave by itself, with success, within the default grace time of a pod.
    pub async fn stop(self) -> Result<Duration> {
        self.daemon.alive()?;
        let begin = Instant::now();
        self.daemon.signal("TERM")?;
        let status = until("the controller stops after SIGTERM", Duration::from_secs(30), async || {
            self.daemon.ended()?.context("still running")
        })
        .await?;
        ensure!(status.success(), "the controller left with {status}:\n{}", self.daemon.tail(15));
        Ok(begin.elapsed())
    }

    /// An error unless the process says that it is well; a server that is away is no reason to be restarted.
    pub async fn healthy(&self) -> Result<()> {
        self.daemon.alive()?;
        get(self.health, "/healthz").await.map(drop)
    }

    pub fn alive(&self) -> Result<()> {
        self.daemon.alive()
    }
}
