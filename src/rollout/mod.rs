//! The state machine of a release. Pure: [`decide`] takes a [`Snapshot`] and returns a [`Plan`].

mod finalise;
mod idle;
mod leave;
mod machine;
mod rolling;
mod routing;

pub mod plan;
pub mod release;
pub mod snapshot;

pub use machine::{decide, is_releasing};
pub use plan::{Effect, Event, Plan};
pub use snapshot::{Hold, Snapshot};
