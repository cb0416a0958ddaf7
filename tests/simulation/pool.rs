//! Plays many cases on all cores.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    time::{Duration, Instant},
};

use libtest_mimic::Failed;

use crate::{
    case::Case,
    run::{Outcome, run},
};

/// Sums over many runs.
#[derive(Default)]
pub struct Sums {
    pub runs: u64,
    pub writes: u64,
    pub controller_writes: u64,
    pub virtual_time: Duration,
    pub faults: BTreeMap<&'static str, u64>,
}

/// Plays all; gives the sums, or the report on those that went wrong.
pub fn play(cases: Vec<Case>) -> Result<Sums, Failed> {
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(cases.len().max(1));
    let queue = Mutex::new(cases.into_iter());
    let (sums, wrong) = (Mutex::new(Sums::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // A few examples are enough.
                    if wrong.lock().unwrap().len() >= limit() {
                        return;
                    }
                    let Some(case) = queue.lock().unwrap().next() else { return };
                    match catch_unwind(AssertUnwindSafe(|| run(&case))) {
                        Err(_) => wrong.lock().unwrap().push(format!("{case}: panicked\n{}", replay(&case))),
                        Ok(outcome) => {
                            let mut sums = sums.lock().unwrap();
                            sums.runs += 1;
                            sums.writes += outcome.writes;
                            sums.controller_writes += outcome.count();
                            sums.virtual_time += outcome.virtual_time;
                            for (fault, n) in &outcome.faults {
                                *sums.faults.entry(fault).or_default() += n;
                            }
                            drop(sums);
                            if let Some(report) = report(&case, &outcome) {
                                wrong.lock().unwrap().push(report);
                            }
                        }
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    let sums = sums.into_inner().unwrap();
    println!(
        "{} runs in {:.1} s: {} writes ({} by the controller), {:.1} virtual hours, faults: {}",
        sums.runs,
        began.elapsed().as_secs_f64(),
        sums.writes,
        sums.controller_writes,
        sums.virtual_time.as_secs_f64() / 3600.0,
        if sums.faults.is_empty() {
            "none".to_owned()
        } else {
            sums.faults.iter().map(|(f, n)| format!("{f} {n}")).collect::<Vec<_>>().join(", ")
        }
    );
    if wrong.is_empty() { Ok(sums) } else { Err(wrong.join("\n\n").into()) }
}

fn limit() -> usize {
    std::env::var("WRONG").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

/// What a person reads about a run that went wrong.
pub fn report(case: &Case, outcome: &Outcome) -> Option<String> {
    let violation = outcome.violation.as_ref()?;
    let write = if violation.write == 0 { String::new() } else { format!(", write {}", violation.write) };
    Some(format!(
        "{case}\njudge: {}\nat {}{write}: {}\n{}\n{}",
        violation.judge,
        violation.time,
        violation.what,
        outcome.told,
        replay(case)
    ))
}

fn replay(case: &Case) -> String {
    format!("replay: REPLAY='{case}' cargo test --test simulation")
}
