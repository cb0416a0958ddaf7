//! The machine that the rig runs on: a network of its own in which every pod address is local.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// Set in the process that runs inside the namespaces; its value is the output of `build.sh`.
const INSIDE: &str = "TIDEGATE_E2E_TOOLS";

/// Where each program is.
#[derive(Clone)]
pub struct Tools(BTreeMap<String, PathBuf>);

impl Tools {
    pub fn path(&self, name: &str) -> Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| format!("tests/e2e/tools/build.sh did not name {name}"))
    }
}

/// What every run needs.
const PROGRAMS: [&str; 6] = ["k8s", "etcd", "kwok", "istio", "envoy", "helm"];

/// Builds the programs, and `more` of them, then replaces this process by itself inside new network and process namespaces. Returns only
/// there.
pub fn enter(more: &BTreeSet<&str>) -> Result<Tools> {
    if let Ok(listing) = env::var(INSIDE) {
        let tools = listing.lines().filter_map(|l| l.split_once('\t')).map(|(n, p)| (n.to_owned(), p.into())).collect();
        network()?;
        return Ok(Tools(tools));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/tools/build.sh");
    let output = Command::new(&script)
        .args(PROGRAMS)
        .args(more)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}. Remedy: bash must be installed", script.display()))?;
    ensure!(output.status.success(), "the programs of the rig are not there; build.sh said why");

    let mut command = Command::new("unshare");
    // The process namespace ends all daemons with the rig, even after SIGKILL.
    command.args(["--net", "--pid", "--fork", "--kill-child"]);
    if !nix_root()? {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(env::current_exe()?).args(env::args_os().skip(1));
    command.env(INSIDE, String::from_utf8(output.stdout)?);
    Err(command.exec()).context("cannot run unshare. Remedy: tests/e2e/tools/deps.sh, and root or user namespaces")
}

fn nix_root() -> Result<bool> {
    Ok(std::fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|l| l.strip_prefix("Uid:"))
        .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0")))
}

fn network() -> Result<()> {
    for line in [
        "link set lo up",
        // AnyIP: one server on 0.0.0.0 answers for every pod and every service.
        "route add local 10.244.0.0/16 dev lo",
        "route add local 10.96.0.0/16 dev lo",
        // The API server advertises no loopback address.
        "addr add 172.31.0.1/32 dev lo",
    ] {
        let output = Command::new("ip")
            .args(line.split(' '))
            .output()
            .context("ip is missing. Remedy: tests/e2e/tools/deps.sh")?;
        if !output.status.success() {
            bail!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}
