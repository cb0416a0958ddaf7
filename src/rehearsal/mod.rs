//! Rehearsals: generated releases on the in-memory cluster, with people and faults, judged after every write.
//!
//! A [`Script`] says everything about one rehearsal: the setup, a seed, and what happens when. [`draw`] makes one from
//! a number; its text replays it exactly. [`rehearse`] plays it in virtual time with the real controller, and the
//! judges look at every committed write. [`shorten`] takes away whatever a violation does not need.
//!
//! A style, a gateway, a moment or a fault is one row in [`script`].

mod barriers;
mod deeds;
mod director;
mod draw;
mod hook_server;
mod judges;
mod metrics_server;
mod process;
mod run;
mod script;
mod shorten;
mod tally;
mod timeline;
mod world;

pub use self::{
    barriers::{Barriers, Odds, Reading},
    draw::draw,
    hook_server::{Hook, Moment, Mood},
    judges::Violation,
    process::{CONTROLLER, Mind, Wire},
    run::{Ending, Outcome, rehearse},
    script::{ACTS, Act, Event, Gateway, Kind, Managed, Route, Row, Script, Setup, State, Step, Style, When},
    shorten::shorten,
    tally::{Audience, Manner, Tally, Wrong, rehearse_all},
    world::{CANARY, NAMESPACE, SERVICE, WORKLOAD},
};
