//! Reads the cluster into a snapshot.

pub mod cache;
pub mod calls;
pub mod collect;
pub mod desk;
pub mod measures;
pub mod pods;
pub mod raw;
mod routing;
mod shelf;
#[cfg(test)]
mod stand_ins;
mod watches;

pub use cache::Cache;
pub use collect::{Lookup, Objects, Settings, collect};
pub use routing::collect_routing;
pub use watches::Namespaces;
