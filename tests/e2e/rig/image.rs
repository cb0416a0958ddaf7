//! The container image, run as a pod would be: its layers unpacked, mounted read-only, without rights.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    Rig,
    controller::{BINARY, output},
};

/// Where a pod finds its identity.
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// An unpacked image.
pub struct Image {
    pub rootfs: PathBuf,
    pub config: Value,
}

impl Image {
    /// Makes the image of the binary under test under this name and unpacks it, layer by layer, as a container engine does.
    pub fn make(rig: &Rig, name: &str) -> Result<Image> {
        let (out, rootfs) = (rig.dir.join(name), rig.dir.join(format!("{name}-rootfs")));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/image.py");
        output(Command::new("python3").arg(script).args(["--binary", BINARY, "--out"]).arg(&out).arg("--fast"))?;
        let blob = |reference: &Value| -> Result<PathBuf> {
            let digest = reference["digest"].as_str().and_then(|d| d.strip_prefix("sha256:")).context("no digest")?;
            let path = out.join("oci/blobs/sha256").join(digest);
            let content = fs::read(&path)?;
            ensure!(reference["size"] == content.len(), "{path:?} has another size");
            let sum: String = Sha256::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
            ensure!(sum == digest, "{path:?} is not what its name says");
            Ok(path)
        };
        let json = |path: PathBuf| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
        let index = json(out.join("oci/index.json"))?;
        let manifest = json(blob(&index["manifests"][0])?)?;
        let config = json(blob(&manifest["config"])?)?;
        let layers = manifest["layers"].as_array().context("no layers")?;
        ensure!(
            layers.len() == config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len),
            "layers without a diff_id"
        );
        fs::create_dir_all(rootfs.join(ACCOUNT))?;
        for layer in layers {
            output(Command::new("tar").arg("-xzf").arg(blob(layer)?).arg("-C").arg(&rootfs))?;
        }
        Ok(Image { rootfs, config })
    }

    /// What the kubelet mounts into a pod.
    pub fn identity(&self, token: &str, ca: &Path, namespace: &str) -> Result<()> {
        let account = self.rootfs.join(ACCOUNT);
        fs::write(account.join("token"), token)?;
        fs::write(account.join("namespace"), namespace)?;
        fs::copy(ca, account.join("ca.crt")).map(drop).context("the CA")
    }

    /// The entry point with these arguments, in the image's root file system, read-only, as the image's user. The process
    /// that is started becomes the program itself.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let config = &self.config["config"];
        let user = config["User"].as_str().context("no user")?;
        let entry = config["Entrypoint"][0].as_str().context("no entry point")?;
        // Where only one user is mapped, as in a user namespace without further rights, there is no other to become.
        let maps = fs::read_to_string("/proc/self/uid_map")?;
        let has_users =
            maps.lines().any(|l| l.split_whitespace().nth(2).is_some_and(|n| n.parse::<u64>().unwrap_or(0) > 65532));
        let user = if has_users { format!("--userspec={user}") } else { "--groups=".to_owned() };
        let script =
            "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec chroot \"$1\" \"$0\" \"${@:2}\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "bash", "-c", script]).arg(&self.rootfs).args([&user, entry]).args(args);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        for pair in config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let (key, value) = pair.split_once('=').context("not an environment variable")?;
            if key != "PATH" {
                command.env(key, value);
            }
        }
        Ok(command)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Only a matter of room.
        let _ = fs::remove_dir_all(&self.rootfs);
    }
}
