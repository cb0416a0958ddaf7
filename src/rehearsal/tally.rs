//! Many rehearsals on all cores, counted.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    barriers::MET,
    hook_server::ASKED,
    judges::Violation,
    process::Mind,
    run::{Outcome, rehearse},
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
    /// What went wrong.
    pub wrong: Vec<Wrong>,
}

/// A rehearsal that went wrong.
#[derive(Debug)]
pub struct Wrong {
    /// The script as it was drawn.
    pub script: Script,
    /// What a judge saw; absent where it could not be played.
    pub violation: Option<Violation>,
    /// What a person reads at the end.
    pub told: String,
}

/// Who follows many rehearsals while they are played. The methods are called from all threads, and are not to wait.
pub trait Audience: Sync {
    /// One more was played: the sums so far.
    fn played(&self, _sums: &Tally) {}

    /// One went wrong, in one line, before it is looked into.
    fn wrong(&self, _line: &str) {}

    /// No more is to be begun.
    fn has_left(&self) -> bool {
        false
    }
}

/// Nobody.
impl Audience for () {}

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
    /// Who follows.
    pub audience: &'a dyn Audience,
}

impl Tally {
    /// Adds what came of one; returns what a judge saw.
    fn add(&mut self, outcome: Outcome) -> Option<Violation> {
        self.runs += 1;
        self.writes.0 += outcome.writes.0;
        self.writes.1 += outcome.writes.1;
        self.virtual_time += outcome.took;
        self.digest = self.digest.wrapping_add(outcome.hash);
        for (name, count) in outcome.exercised {
            *self.exercised.entry(name).or_default() += count;
        }
        for (key, count) in outcome.states {
            *self.states.entry(key).or_default() += count;
        }
        outcome.violation
    }

    /// Everything that can happen or be on stage.
    pub fn expected() -> impl Iterator<Item = &'static str> {
        let acts = ACTS.iter().map(|r| r.kind.as_str());
        let stages = Style::ALL.iter().map(|s| s.as_str());
        let stages = stages.chain(Gateway::ALL.iter().map(|g| g.as_str()));
        let stages = stages.chain(Managed::ALL.iter().map(|m| m.as_str()));
        acts.chain(stages).chain(MORE.iter().copied()).chain(MET.iter().copied()).chain(ASKED.iter().copied())
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
                    if manner.audience.has_left() || sums().wrong.len() >= manner.most_wrong {
                        return;
                    }
                    let Some(script) = next() else { return };
                    let played = catch_unwind(AssertUnwindSafe(|| rehearse(&script, manner.mind, None)));
                    let failed = match played {
                        Ok(Ok(outcome)) => {
                            let mut sums = sums();
                            let violation = sums.add(outcome);
                            manner.audience.played(&sums);
                            drop(sums);
                            match violation {
                                Some(violation) => Ok(violation),
                                None => continue,
                            }
                        }
                        Ok(Err(error)) => Err(format!("{error:#}")),
                        Err(_) => Err("panicked".to_owned()),
                    };
                    manner.audience.wrong(&line(&script, &failed));
                    let wrong = match failed {
                        Ok(violation) => {
                            let told = report(&script, &violation, manner);
                            Wrong { script, violation: Some(violation), told }
                        }
                        Err(why) => {
                            let told = format!("{why}\nreplay: {}", (manner.command)(&script));
                            Wrong { script, violation: None, told }
                        }
                    };
                    sums().wrong.push(wrong);
                }
            });
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.took = began.elapsed();
    tally
}

/// The longest line on what went wrong, in bytes: all of it comes at the end.
const LONGEST: usize = 400;

/// What went wrong, in one line: the seed, the judge, the virtual time, and what was seen.
fn line(script: &Script, failed: &Result<Violation, String>) -> String {
    let what = match failed {
        Ok(violation) => format!("judge {:?} at {}: {}", violation.judge, violation.time, violation.what),
        Err(why) => why.clone(),
    };
    let line = format!("seed {}: {}", script.seed, what.replace('\n', " "));
    match line.get(..line.floor_char_boundary(LONGEST)) {
        Some(part) if part.len() < line.len() => format!("{part}…"),
        _ => line,
    }
}

/// What a person reads about a violation: the shortened script, what the judge saw, the timeline, the command.
fn report(script: &Script, violation: &Violation, manner: &Manner<'_>) -> String {
    let same = |candidate: &Script| {
        // Who has left does not wait for the shortest script either.
        !manner.audience.has_left()
            && rehearse(candidate, manner.mind, None)
                .is_ok_and(|o| o.violation.is_some_and(|v| v.judge == violation.judge))
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
