//! Logs, metrics and health.

pub mod health;
pub mod logs;
pub mod metrics;
mod releases;

pub use health::Health;
pub use metrics::Metrics;
pub use releases::Standing;
