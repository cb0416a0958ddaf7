//! One stock Envoy.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use serde_json::Value;

use super::{
    http::get,
    netns::Tools,
    poll::{SOON, until},
    process::Daemon,
};

/// Starts it with a bootstrap and waits until `ready` (`address:port`) answers `/ready`.
pub async fn start(
    tools: &Tools,
    dir: &Path,
    name: &str,
    bootstrap: &Value,
    args: &[&str],
    ready: &str,
) -> Result<Daemon> {
    let file = dir.join(format!("{name}.json"));
    fs::write(&file, bootstrap.to_string())?;
    let envoy = Daemon::start(
        // One worker thread: once one request has seen a new route, all later ones do.
        Command::new(tools.path("envoy")?)
            .arg("-c")
            .arg(&file)
            .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warn"])
            .args(args)
            .current_dir(dir),
        name,
        dir,
    )?;
    until(&format!("{name} is ready"), SOON, async || {
        envoy.alive()?;
        get(ready, "/ready").await
    })
    .await?;
    Ok(envoy)
}
