//! Many rehearsals on all cores, counted.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    barriers::MET,
    judges::Violation,
    process::Mind,
    run::rehearse,
    script::{ACTS, Gateway, Managed, Script, Style},
    shorten::shorten,
};

/// Sums over many rehearsals.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rehearsals.
    pub runs: u64,
    /// Committed writes, and those of the controller.
    pub writes: (u64, u64),
    /// Virtual time.
    pub virtual_time: Duration,
    /// Wall time.
    pub took: Duration,
    /// Of all stories, in whatever order they were played: the same for the same scripts, as long as behaviour is.
    pub digest: u64,
    /// Moments and faults that happened, and styles, kinds and gateways that were on stage.
    pub exercised: BTreeMap<&'static str, u64>,
    /// The same by the state of the release.
    pub states: BTreeMap<(&'static str, &'static str), u64>,
    /// What went wrong: the script as it was drawn, and what a person reads.
    pub wrong: Vec<(Script, Option<Violation>, String)>,
}

/// What a setup or a release may have beside its style, kind and gateway.
pub(super) const MORE: [&str; 6] =
    ["slow-pods", "v1alpha1", "failed-step", "failed-step-rolled-back", "history", "cloneset-blue-green"];

/// How to rehearse.
pub struct Manner<'a> {
    /// What the controller is made of.
    pub mind: &'a Mind,
    /// Threads.
    pub jobs: usize,
    /// After so many that went wrong, no more are begun.
    pub most_wrong: usize,
    /// Rehearsals that may be spent on shortening each.
    pub tries: usize,
    /// The command that plays a script again.
    pub command: fn(&Script) -> String,
}

impl Tally {
    /// Everything that can happen or be on stage.
    pub fn expected() -> impl Iterator<Item = &'static str> {
        let acts = ACTS.iter().map(|r| r.kind.as_str());
        let stages = Style::ALL.iter().map(|s| s.as_str());
        let stages = stages.chain(Gateway::ALL.iter().map(|g| g.as_str()));
        let stages = stages.chain(Managed::ALL.iter().map(|m| m.as_str()));
        acts.chain(stages).chain(MORE.iter().copied()).chain(MET.iter().copied())
    }

    /// What never happened, or was never on stage.
    pub fn missing(&self) -> Vec<&'static str> {
        Tally::expected().filter(|name| !self.exercised.contains_key(name)).collect()
    }
}

/// Plays scripts on several threads.
pub fn rehearse_all(scripts: impl Iterator<Item = Script> + Send, manner: &Manner<'_>) -> Tally {
    let began = Instant::now();
    let queue = Mutex::new(scripts);
    let tally = Mutex::new(Tally::default());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let sums = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..manner.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    if sums().wrong.len() >= manner.most_wrong {
                        return;
                    }
                    let Some(script) = next() else { return };
                    match catch_unwind(AssertUnwindSafe(|| rehearse(&script, manner.mind, None))) {
                        Ok(Ok(outcome)) => {
                            let mut sums = sums();
                            sums.runs += 1;
                            sums.writes.0 += outcome.writes.0;
                            sums.writes.1 += outcome.writes.1;
                            sums.virtual_time += outcome.took;
                            sums.digest = sums.digest.wrapping_add(outcome.hash);
                            for (name, count) in outcome.exercised {
                                *sums.exercised.entry(name).or_default() += count;
                            }
                            for (key, count) in outcome.states {
                                *sums.states.entry(key).or_default() += count;
                            }
                            drop(sums);
                            if let Some(violation) = outcome.violation {
                                let told = report(&script, &violation, manner);
                                self::lock(&tally).wrong.push((script, Some(violation), told));
                            }
                        }
                        Ok(Err(error)) => {
                            let told = format!("{error:#}\nreplay: {}", (manner.command)(&script));
                            sums().wrong.push((script, None, told));
                        }
                        Err(_) => {
                            let told = format!("panicked\nreplay: {}", (manner.command)(&script));
                            sums().wrong.push((script, None, told));
                        }
                    }
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.took = began.elapsed();
    tally
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a person reads about a violation: the shortened script, what the judge saw, the timeline, the command.
fn report(script: &Script, violation: &Violation, manner: &Manner<'_>) -> String {
    let same = |candidate: &Script| {
        rehearse(candidate, manner.mind, None).is_ok_and(|o| o.violation.is_some_and(|v| v.judge == violation.judge))
    };
    let short = shorten(script, manner.tries, same);
    let outcome = rehearse(&short, manner.mind, Some(60)).ok();
    let (seen, told) = match outcome {
        Some(outcome) => (outcome.violation, outcome.told),
        None => (None, String::new()),
    };
    let seen = seen.as_ref().unwrap_or(violation);
    format!(
        "judge: {}\nat {}: {}\nscript: {short}\n{told}\nreplay: {}\ndrawn:  {}\n",
        seen.judge,
        seen.time,
        seen.what,
        (manner.command)(&short),
        (manner.command)(script),
    )
}
