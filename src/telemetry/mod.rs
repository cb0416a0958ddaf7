//! Logs, metrics, health and traces.

pub mod health;
pub mod logs;
pub mod metrics;
pub mod traces;

pub use health::Health;
pub use metrics::{Metrics, Standing};
pub use traces::Traces;
