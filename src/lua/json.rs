//! `json.encode` and `json.decode` for scripts, with the text that Go's `encoding/json` writes: it ends up inside
//! annotations, where a migration must not change a byte.
//!
//! Both charge the run for their work, and neither raises: the prelude turns a failure into `nil, message`.

mod decode;
mod encode;

pub(super) use decode::decode;
pub(super) use encode::encode;

const STOPPED: &str = "the run was stopped";
