//! Reads the cluster into a snapshot.

pub mod cache;
pub mod collect;
pub mod pods;

pub use cache::Cache;
pub use collect::{Lookup, Objects, Settings, collect};
