//! From a step's strategy to the objects that route traffic. Pure.

mod bookkeeping;
mod sparse;

pub mod acceptance;
pub mod checks;
pub mod diff;
pub mod ingress;
pub mod input;
pub mod judge;
pub mod memory;
pub mod merge;
pub mod routes;
pub mod services;
pub mod strategy;

pub use input::{Names, Original, OutputError, Parts, output, script_input};
pub use strategy::{Strategy, StrategyError};
