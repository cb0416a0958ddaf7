//! What is proved, one file a subject.

pub mod adopt;
pub mod cases;
pub mod certificates;
pub mod chart;
pub mod cost;
pub mod crash;
pub mod examples;
pub mod generated;
pub mod hooks;
pub mod in_memory;
pub mod kinds;
pub mod leaders;
pub mod leaving;
pub mod mistakes;
pub mod operator;
pub mod plane;
pub mod policy;
pub mod schema;
pub mod script;
pub mod story;
pub mod styles;
pub mod traffic;
pub mod workloads;
