//! The identity of an input, and whether a script may be given it.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Limits,
    places::{Step, path},
};

/// Bytes hashed at a time.
const CHUNK: usize = 4096;

/// Checks size and depth of an input and returns a hash of its content.
///
/// # Errors
/// A message that names the place where the nesting is too deep, or the size limit.
pub(super) fn fingerprint(value: &Value, limits: &Limits) -> Result<[u8; 32], String> {
    struct Walk<'l> {
        hash: Sha256,
        /// What is still to be hashed: nodes are small, and each update has its price.
        pending: Vec<u8>,
        bytes: usize,
        limits: &'l Limits,
    }
    impl Walk<'_> {
        fn add(&mut self, tag: u8, bytes: &[u8]) {
            self.pending.push(tag);
            self.pending.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            self.pending.extend_from_slice(bytes);
            self.bytes += bytes.len() + 3;
            if self.pending.len() >= CHUNK {
                self.hash.update(&self.pending);
                self.pending.clear();
            }
        }

        fn walk(&mut self, value: &Value, depth: usize) -> Result<(), String> {
            if depth > self.limits.depth {
                return Err(String::new());
            }
            match value {
                Value::Null => self.add(b'n', &[]),
                Value::Bool(b) => self.add(b'b', &[u8::from(*b)]),
                Value::Number(n) => {
                    if let Some(n) = n.as_u64() {
                        self.add(b'u', &n.to_le_bytes());
                    } else if let Some(n) = n.as_i64() {
                        self.add(b'i', &n.to_le_bytes());
                    } else {
                        self.add(b'f', &n.as_f64().unwrap_or(f64::NAN).to_bits().to_le_bytes());
                    }
                }
                Value::String(s) => self.add(b's', s.as_bytes()),
                Value::Array(items) => {
                    self.add(b'[', &(items.len() as u64).to_le_bytes());
                    for (i, item) in items.iter().enumerate() {
                        self.walk(item, depth + 1).map_err(|below| above(Step::Index(i), &below))?;
                    }
                }
                Value::Object(fields) => {
                    self.add(b'{', &(fields.len() as u64).to_le_bytes());
                    for (key, item) in fields {
                        self.add(b'k', key.as_bytes());
                        self.walk(item, depth + 1).map_err(|below| above(Step::Key(key), &below))?;
                    }
                }
            }
            Ok(())
        }
    }
    fn above(step: Step<'_>, below: &str) -> String {
        let dot = if below.is_empty() || below.starts_with('[') { "" } else { "." };
        format!("{}{dot}{below}", path([step]))
    }
    let mut walk = Walk { hash: Sha256::new(), pending: Vec::with_capacity(2 * CHUNK), bytes: 0, limits };
    walk.walk(value, 0).map_err(|path| {
        let shown: String = path.chars().take(200).collect();
        format!("the input is nested deeper than {} levels, at {shown}", limits.depth)
    })?;
    if walk.bytes > limits.input_bytes {
        return Err(format!(
            "the input has about {} bytes, more than the {} that a script may be given",
            walk.bytes, limits.input_bytes
        ));
    }
    walk.hash.update(&walk.pending);
    Ok(walk.hash.finalize().into())
}
