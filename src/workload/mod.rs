//! A plain view of a workload and the fields it is held by. Pure.

pub mod deployment;
pub mod hold;
pub mod replicas;
