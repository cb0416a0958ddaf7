//! Child processes with their output in a file.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

/// A program that runs for as long as the rig. The rig is the first process of its own process namespace, so the kernel
/// kills whatever is left when the rig dies, in whichever way.
pub struct Daemon {
    pub name: String,
    pub log: PathBuf,
    child: Mutex<Child>,
}

impl Daemon {
    pub fn start(command: &mut Command, name: &str, logs: &Path) -> Result<Daemon> {
        let log = logs.join(format!("{name}.log"));
        let out =
            File::options().create(true).append(true).open(&log).with_context(|| format!("cannot open {log:?}"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Daemon { name: name.to_owned(), log, child: Mutex::new(child) })
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error with the end of the log when the program is no longer there.
    pub fn alive(&self) -> Result<()> {
        if let Some(status) = self.child().try_wait()? {
            bail!("{} ended by itself ({status}); the end of {}:\n{}", self.name, self.log.display(), self.tail(15));
        }
        Ok(())
    }

    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends a signal, such as `TERM`, `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.child().id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status()?;
        if !status.success() {
            bail!("cannot send SIG{signal} to {}", self.name);
        }
        Ok(())
    }

    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child().try_wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.kill();
    }
}
