//! Each kind and style, step by step on the in-memory cluster: what runs at each step, and what is put back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod deeds;
mod failing;
mod history;
mod kinds;
mod labels;
mod line;
mod moments;
mod of_the_original;
mod overlaps;
mod refused;
mod stage;
mod stories;
mod versions;
mod written;
