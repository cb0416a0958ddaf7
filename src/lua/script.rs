//! What goes into the engine and what comes out.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Where a script was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Compiled into the binary, from `lua-scripts/`.
    BuiltIn,
    /// A key of a ConfigMap.
    ConfigMap {
        /// Namespace of the ConfigMap.
        namespace: String,
        /// Name of the ConfigMap.
        name: String,
        /// Key in its `data`.
        key: String,
    },
    /// A file, given on the command line.
    File(PathBuf),
}

/// One Lua script.
#[derive(Clone, Debug)]
pub struct Script {
    /// What errors call it, for example `networking.istio.io/VirtualService/trafficRouting.lua`.
    pub name: String,
    /// The Lua text; another text is another script.
    pub source: Arc<str>,
    /// Where it was read from.
    pub origin: Origin,
    /// Of the text, for all clones: it is asked for in every pass.
    digest: Arc<OnceLock<[u8; 32]>>,
}

impl Script {
    /// A script of this name and text.
    pub fn new(name: impl Into<String>, source: impl Into<Arc<str>>, origin: Origin) -> Self {
        Self { name: name.into(), source: source.into(), origin, digest: Arc::default() }
    }

    /// The SHA-256 of the text, in hexadecimal: equal for equal texts, whatever their names.
    pub fn hash(&self) -> String {
        self.digest().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The beginning of [`Script::hash`]: tells versions of a script apart.
    pub fn version(&self) -> String {
        self.digest().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }

    /// What the comment that the script begins with says after `-- FIELD:`, such as `weight,header` after `-- caps:`.
    pub fn header(&self, field: &str) -> Option<&str> {
        let comment = self.source.lines().map_while(|line| line.strip_prefix("--"));
        let said = comment.filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == field);
        said.and_then(|(_, value)| value.split(';').next()).map(str::trim)
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| Sha256::digest(self.source.as_bytes()).into())
    }
}

/// What a run gave back.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The table that the script returned, as JSON.
    pub value: Value,
    /// What the script printed, a line each.
    pub prints: Vec<String>,
    /// Steps used: calls, returns, loop turns, pattern steps. The same on every run of the same script and input.
    pub fuel_used: u64,
    /// What the script's author should know although the run succeeded.
    pub warnings: Vec<String>,
}
