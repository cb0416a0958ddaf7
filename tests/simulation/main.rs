//! Releases under people, crashes and faults, in virtual time, judged after every write.
//!
//! `tidegate simulate` plays generated releases; here are the stories that people told, the deliberate bugs that the
//! judges must see, and a few generated ones.
//!
//! `SEEDS=1000 cargo test --test simulation` plays more of them. `MUTANTS=500 cargo test --test simulation mutant`
//! searches for each deliberate bug from seed 0, instead of playing a seed that is known to show it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod mutants;
mod stories;
mod suite;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let args = Arguments::from_args();
    let seeds = number("SEEDS").unwrap_or(8);
    let mut trials = vec![
        Trial::test("every_story_ends_well", suite::stories),
        Trial::test("what_was_found_ends_well", suite::found),
        Trial::test("a_script_repeats_exactly", suite::repeats),
        Trial::test("a_crash_after_every_write_is_harmless", suite::crashes),
        Trial::test("generated_releases_end_well", move || suite::generated(seeds)),
        Trial::test("a_violation_is_told_briefly", suite::told),
        Trial::test("who_leaves_gets_what_was_played", suite::interrupted),
        Trial::test("what_never_happened_is_named", suite::uncovered),
    ];
    let search = number("MUTANTS");
    trials.extend(mutants::MUTANTS.iter().map(|m| {
        Trial::test(format!("mutant_{}_is_caught", m.name.replace('-', "_")), move || suite::mutant(m, search))
    }));
    libtest_mimic::run(&args, trials).exit();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {n:?}")))
}
