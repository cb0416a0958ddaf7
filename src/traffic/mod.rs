//! From a step's strategy to the objects that route traffic. Pure.

pub mod input;
pub mod strategy;

pub use input::{Names, Original, OutputError, Parts, output, script_input};
pub use strategy::{Strategy, StrategyError};
