//! The state machine of a release. Pure: [`decide`] takes a [`Snapshot`] and returns a [`Plan`].

mod acceptance;
mod analysis;
mod asking;
mod barriers;
mod blue_green;
pub mod calls;
mod clock;
mod ending;
mod failing;
mod finalise;
pub mod gates;
mod going_back;
pub mod history;
pub mod hooks;
mod idle;
pub mod jobs;
mod leave;
pub mod line;
mod machine;
mod measuring;
pub mod notifications;
mod pinning;
mod pods;
mod proof;
mod rolling;
mod routing;
mod scripts;
mod sharing;
mod stepping;
mod turn;
mod unrouting;

pub mod plan;
pub mod release;
pub mod snapshot;
pub mod trace;
pub mod traffic_routing;
pub mod windows;

pub use machine::{decide, is_releasing};
pub use plan::{Effect, Event, Plan};
pub use snapshot::{Hold, Snapshot, UnknownKind};
