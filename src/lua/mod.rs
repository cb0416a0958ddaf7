//! Scripts: the engine and its limits, JSON conversion, the library of scripts, and the test-case runner.
//!
//! An [`Engine`] runs a [`Script`] against one JSON value, which the script sees as its global `obj`, and hands back
//! the table that the script returned. The language is Lua 5.1 as users of OpenKruise know it, on the Luau VM.
//!
//! What a script leaves alone survives exactly: `[]`, `{}`, null, and integers of any size come out as they went in,
//! wherever the script moved the table that holds them. Every run has a budget of steps, time, memory and output
//! that a script cannot catch or extend, see [`Limits`]. A run depends on the script and the input alone: no clock,
//! no random seed, no addresses; so results are cached by content.

mod cache;
mod caps;
mod compile;
mod convert;
mod engine;
mod error;
mod fingerprint;
mod json;
pub mod library;
mod limits;
mod meter;
mod output;
mod places;
mod script;
mod source;
pub mod testcase;
mod vm;

pub use caps::{Acceptance, Caps, Feature};
pub use engine::Engine;
pub use error::{ErrorKind, ScriptError};
pub use library::{Library, NotFound, OfNamespace, resolve, resolve_ingress};
pub use limits::Limits;
pub use script::{Origin, Outcome, Script};
