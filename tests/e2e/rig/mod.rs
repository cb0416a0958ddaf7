//! A real control plane and a real gateway, without containers.

pub mod audit;
pub mod cluster;
pub mod collector;
pub mod contour;
pub mod controller;
pub mod echo;
pub mod envoy;
pub mod gateways;
pub mod helm;
pub mod http;
pub mod image;
pub mod install;
pub mod istio;
pub mod kruise;
pub mod ledger;
pub mod load;
pub mod netns;
pub mod objects;
pub mod pki;
pub mod poll;
pub mod process;
pub mod prometheus;
pub mod random;
pub mod space;
pub mod spare;
pub mod traefik;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;

use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::{
    cluster::Cluster, controller::Controller, echo::Echo, gateways::Gateways, netns::Tools, objects::Objects,
    process::Daemon, space::Space,
};

/// What is made once in a run, for all scenarios that need it.
#[derive(Default)]
pub struct Once(OnceCell<Result<(), String>>);

impl Once {
    /// Makes it, or says why that failed when somebody else tried.
    pub async fn make(&self, what: &str, make: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let made = self.0.get_or_init(async || make().await.map_err(|e| format!("{e:#}"))).await;
        made.clone().map_err(|e| anyhow::anyhow!("{what}: {e}"))
    }
}

/// One cluster with its gateway, for a whole run.
pub struct Rig {
    pub cluster: Cluster,
    pub objects: Objects,
    pub dir: PathBuf,
    pub tools: Tools,
    pub echo: Arc<Echo>,
    /// What runs beside the control plane.
    daemons: Mutex<Vec<Daemon>>,
    gateways: Gateways,
    crds: Once,
    installed: Once,
    stage: RwLock<Option<Controller>>,
    next_port: AtomicU16,
}

impl Rig {
    pub async fn start(tools: &Tools) -> Result<Arc<Rig>> {
        let begin = Instant::now();
        let dir = run_dir()?;
        eprintln!("e2e: logs in {}", dir.display());
        let cluster = cluster::start(tools, &dir).await?;
        let echo = Echo::start(cluster.admin.clone()).await?;
        let daemons = istio::start(tools, &cluster, &dir).await?;
        let objects = Objects::new(cluster.admin.clone());
        eprintln!("e2e: control plane and gateway up after {:.1} s", begin.elapsed().as_secs_f64());
        Ok(Arc::new(Rig {
            cluster,
            objects,
            dir,
            tools: tools.clone(),
            echo,
            daemons: Mutex::new(daemons),
            gateways: Gateways::default(),
            crds: Once::default(),
            installed: Once::default(),
            stage: RwLock::new(None),
            next_port: AtomicU16::new(18200),
        }))
    }

    /// An error when one of the programs has died.
    pub fn alive(&self) -> Result<()> {
        self.cluster.daemons.iter().try_for_each(Daemon::alive)?;
        self.daemons().iter().try_for_each(Daemon::alive)
    }

    fn daemons(&self) -> MutexGuard<'_, Vec<Daemon>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no scenario passes unless this program runs.
    pub fn keep(&self, daemon: Daemon) {
        self.daemons().push(daemon);
    }

    /// Returns when one of the programs has died, and says how.
    pub async fn dies(&self) -> anyhow::Error {
        loop {
            if let Err(error) = self.alive() {
                return error;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Removes the databases; the logs stay.
    pub fn forget_data(&self) {
        for database in ["etcd", "prometheus"] {
            // Only a matter of room: what cannot be removed now goes with its run.
            let _ = fs::remove_dir_all(self.dir.join(database));
        }
    }

    /// The running controller, shared with other scenarios: nobody stops it meanwhile.
    pub async fn with_controller(self: &Arc<Self>) -> Result<RwLockReadGuard<'_, Option<Controller>>> {
        self.installed().await?;
        loop {
            let stage = self.stage.read().await;
            if let Some(controller) = stage.as_ref() {
                controller.alive()?;
                return Ok(stage);
            }
            drop(stage);
            let mut stage = self.stage.write().await;
            if stage.is_none() {
                *stage = Some(Controller::start(self).await?);
            }
        }
    }

    /// Nobody stops the API server (or a controller) meanwhile.
    pub async fn undisturbed(&self) -> impl Drop + '_ {
        self.stage.read().await
    }

    /// The stage for one scenario alone; no controller runs when this returns.
    pub async fn alone(self: &Arc<Self>) -> Result<RwLockWriteGuard<'_, Option<Controller>>> {
        self.installed().await?;
        let mut stage = self.stage.write().await;
        if let Some(controller) = stage.take() {
            controller.stop().await?;
        }
        Ok(stage)
    }

    /// A namespace of its own, with a gateway port of its own.
    pub async fn space(self: &Arc<Self>, name: &str) -> Result<Space> {
        Space::create(self.clone(), name, self.next_port.fetch_add(1, Ordering::Relaxed)).await
    }
}

/// A new directory under the target directory's `e2e`, with `latest` pointing at it. The five newest are kept.
fn run_dir() -> Result<PathBuf> {
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("e2e");
    fs::create_dir_all(&base)?;
    let mut old: Vec<PathBuf> = fs::read_dir(&base)?.filter_map(|e| Some(e.ok()?.path())).collect();
    old.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("run-")));
    old.sort();
    for path in old.iter().rev().skip(4) {
        // Another user's logs are theirs to remove.
        fs::remove_dir_all(path).ok();
    }
    let name = format!("run-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis());
    let dir = base.join(&name);
    fs::create_dir(&dir)?;
    let latest = base.join("latest");
    fs::remove_file(&latest).ok();
    std::os::unix::fs::symlink(name, latest)?;
    Ok(dir)
}
