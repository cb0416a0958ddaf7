//! The tests.

use std::collections::BTreeMap;

use libtest_mimic::Failed;
use tidegate::sim::{Fault, Rng};

use crate::{
    case::Case,
    mutants::Mutant,
    pool::{play, report},
    run::run,
    scenario::SCENARIOS,
    wire::Requests,
};

/// The story without crashes and faults; says what it costs.
pub fn clean() -> Result<(), Failed> {
    let case = Case::clean(&SCENARIOS[0], 1);
    let outcome = run(&case);
    if let Some(report) = report(&case, &outcome) {
        return Err(report.into());
    }
    let total = |requests: &Requests| requests.values().sum::<u64>();
    let list = |requests: &BTreeMap<String, u64>| {
        requests.iter().map(|(k, n)| format!("{n} {k}")).collect::<Vec<_>>().join(", ")
    };
    let release: Requests = outcome
        .requests
        .iter()
        .map(|(k, n)| (k.clone(), n - outcome.first_requests.get(k).unwrap_or(&0)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let (watches, work): (Requests, Requests) = release.into_iter().partition(|(k, _)| k.starts_with("watch "));
    println!("until healthy: {} requests: {}", total(&outcome.first_requests), list(&outcome.first_requests));
    println!("the release: {} requests: {}", total(&work), list(&work));
    println!("its watches, and those of the ten minutes after it: {}", total(&watches));
    println!("committed writes: {}: {}", outcome.count(), list(&outcome.controller_writes));
    Ok(())
}

/// The same seed gives the same story, write for write.
pub fn repeats() -> Result<(), Failed> {
    for seed in 0..4 {
        let mut case = Case::clean(&SCENARIOS[seed as usize * 5], seed);
        case.faults = true;
        case.crashes = vec![7, 5];
        let (first, second) = (run(&case), run(&case));
        if first.hash != second.hash {
            return Err(format!("{case} differs from itself\n{}\n---\n{}", first.told, second.told).into());
        }
    }
    Ok(())
}

/// Every scenario, undisturbed.
pub fn scenarios() -> Result<(), Failed> {
    play(SCENARIOS.iter().zip(100..).map(|(s, seed)| Case::clean(s, seed)).collect()).map(|_| ())
}

/// How many writes the controller makes in a scenario.
fn length(scenario: usize) -> u64 {
    run(&Case::clean(&SCENARIOS[scenario], 0)).count()
}

/// The controller dies after each of its writes of the story, under several seeds: three quarters of all.
pub fn crashes(seeds: u64) -> Result<(), Failed> {
    let writes = length(0);
    let seeds = seeds.div_ceil(4) * 3;
    let cases: Vec<Case> = (0..seeds)
        .map(|seed| {
            let mut rng = Rng::new(seed ^ 0xc4);
            // The second and the third strike what the first left behind.
            let crashes = vec![1 + seed % writes, 1 + rng.below(6), 1 + rng.below(20)];
            Case { crashes, ..Case::clean(&SCENARIOS[0], seed) }
        })
        .collect();
    let mut hit: BTreeMap<u64, u64> = BTreeMap::new();
    for case in &cases {
        *hit.entry(case.crashes[0]).or_default() += 1;
    }
    let fewest = (1..=writes).map(|n| hit.get(&n).copied().unwrap_or_default()).min().unwrap_or_default();
    let runs = cases.len() as u64;
    let sums = play(cases)?;
    let crashes = sums.faults.get("crash").copied().unwrap_or_default();
    println!("{crashes} crashes, after each of {writes} writes under at least {fewest} seeds");
    // The last writes of the clean run may be one or two more than another run makes.
    if (fewest == 0 && seeds >= writes) || crashes < runs * 9 / 10 {
        return Err(format!("{crashes} crashes in {runs} runs; the rarest write was hit by {fewest} seeds").into());
    }
    Ok(())
}

/// All scenarios with faults, most with crashes: a quarter of the seeds.
pub fn faults(seeds: u64) -> Result<(), Failed> {
    let scenarios: Vec<_> = SCENARIOS.iter().collect();
    let cases = (0..seeds.div_ceil(4))
        .map(|seed| {
            let mut rng = Rng::new(seed ^ 0xfa);
            let crashes = (0..rng.below(4)).map(|_| 1 + rng.below(16)).collect();
            let scenario = scenarios[(seed % scenarios.len() as u64) as usize];
            Case { faults: seed % 4 != 3, crashes, ..Case::clean(scenario, seed) }
        })
        .collect();
    let sums = play(cases)?;
    let ms = std::time::Duration::from_millis;
    for fault in [
        Fault::Conflict,
        Fault::TooManyRequests,
        Fault::InternalError,
        Fault::TimeoutBefore,
        Fault::TimeoutAfter,
        Fault::WatchGap(0),
        Fault::WatchDelay(ms(0)..=ms(0)),
        Fault::Latency(ms(0)..=ms(0)),
    ] {
        if !sums.faults.contains_key(fault.name()) {
            return Err(format!("no {} has struck", fault.name()).into());
        }
    }
    if !sums.faults.contains_key("crash") {
        return Err("nothing has crashed".into());
    }
    Ok(())
}

/// A judge, and the right one, sees a deliberate bug.
pub fn mutant(mutant: &Mutant) -> Result<(), Failed> {
    let scenario = SCENARIOS.iter().find(|s| s.name == mutant.scenario).expect("a scenario");
    const SEEDS: u64 = 20;
    let mut seen = Vec::new();
    for seed in 0..SEEDS {
        let outcome = run(&Case { mutant: Some(mutant.name), ..Case::clean(scenario, seed) });
        match outcome.violation {
            Some(violation) if violation.judge == mutant.judge => {
                println!("{}: seed {seed}: {}: {}", mutant.name, violation.judge, violation.what);
                return Ok(());
            }
            other => seen.extend(other),
        }
    }
    Err(format!("{} was not seen by {:?} in {SEEDS} runs, but: {seen:?}", mutant.name, mutant.judge).into())
}

/// One case, from its text.
pub fn replay(text: &str) -> Result<(), Failed> {
    let case: Case = text.parse()?;
    let outcome = run(&case);
    match report(&case, &outcome) {
        Some(report) => Err(report.into()),
        None => {
            println!("{}{case} ends well, after {} s", outcome.told, outcome.virtual_time.as_secs());
            Ok(())
        }
    }
}
