//! The script engine from outside: compatibility, fidelity, limits, determinism.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod basics;
mod compat;
mod determinism;
mod fidelity;
mod hostile;
mod inputs;
mod shared;

use serde_json::Value;
use tidegate::lua::{Engine, Limits, Origin, Outcome, Script, ScriptError};

pub fn script(source: &str) -> Script {
    Script::new("test.lua", source, Origin::BuiltIn)
}

pub fn run(source: &str, obj: &Value) -> Result<Outcome, ScriptError> {
    thread_local!(static ENGINE: Engine = Engine::new(1));
    ENGINE.with(|engine| engine.run(&script(source), obj))
}

/// One worker, and no results kept: every run is a run.
pub fn engine(change: impl FnOnce(&mut Limits)) -> Engine {
    let mut limits = Limits { results: 0, ..Limits::default() };
    change(&mut limits);
    Engine::with_limits(1, limits)
}
