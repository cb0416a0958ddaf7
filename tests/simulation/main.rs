//! The story under crashes and faults, in virtual time, judged after every write.
//!
//! `SEEDS=1000 cargo test --test simulation` (or `-- --seeds 1000`) plays more of it;
//! `REPLAY='story seed=7 crash=12 faults' cargo test --test simulation replay` plays one run again, exactly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    clippy::disallowed_methods
)]

mod case;
mod judges;
mod mutants;
mod person;
mod pool;
mod run;
mod scenario;
mod suite;
mod timeline;
mod wire;
mod world;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let (mut args, seeds) = arguments();
    // Every trial uses all cores by itself.
    args.test_threads.get_or_insert(1);
    let mut trials = vec![
        Trial::test("the_story_ends_well_and_quietly", suite::clean),
        Trial::test("a_seed_repeats_exactly", suite::repeats),
        Trial::test("every_scenario_ends_well", suite::scenarios),
        Trial::test("a_crash_after_every_write_is_harmless", move || suite::crashes(seeds)),
        Trial::test("crashes_and_faults_are_harmless", move || suite::faults(seeds)),
    ];
    trials.extend(
        mutants::MUTANTS.iter().map(|m| Trial::test(format!("mutant_{}_is_caught", m.name), || suite::mutant(m))),
    );
    if let Ok(case) = std::env::var("REPLAY") {
        trials = vec![Trial::test("replay", move || suite::replay(&case))];
    }
    libtest_mimic::run(&args, trials).exit();
}

/// The arguments of any test, and the number of seeds.
fn arguments() -> (Arguments, u64) {
    let mut seeds = std::env::var("SEEDS").ok();
    let mut rest = Vec::new();
    let mut words = std::env::args();
    while let Some(word) = words.next() {
        match word.strip_prefix("--seeds") {
            Some("") => seeds = words.next(),
            Some(value) => seeds = value.strip_prefix('=').map(str::to_owned),
            None => rest.push(word),
        }
    }
    let seeds = seeds.map_or(200, |s| s.parse().expect("the number of seeds is a number"));
    (Arguments::from_iter(rest), seeds)
}
