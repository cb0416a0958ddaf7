//! Follows many rehearsals: what goes wrong is told at once, on a terminal how far they are as well, and Ctrl-C ends them.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::rehearsal::{Audience, Tally};

/// Between two lines of progress.
const EVERY: Duration = Duration::from_millis(200);
/// Goes back to the beginning of the line and empties it.
const EMPTY: &str = "\r\x1b[K";

/// Tells a person at a terminal, or a file.
pub struct Follower {
    began: Instant,
    /// Releases that are to be played.
    runs: u64,
    is_interrupted: Arc<AtomicBool>,
    /// When progress was told last; `None` where nobody sees it.
    told: Option<Mutex<Instant>>,
}

impl Follower {
    /// One that listens for Ctrl-C from now on. The second one ends the process at once.
    pub fn new(runs: u64) -> anyhow::Result<Follower> {
        let is_interrupted = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn({
            let is_interrupted = is_interrupted.clone();
            move || {
                while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                    if is_interrupted.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                }
            }
        });
        let began = Instant::now();
        let told = std::io::stderr().is_terminal().then(|| Mutex::new(began));
        Ok(Follower { began, runs, is_interrupted, told })
    }

    /// Whether somebody pressed Ctrl-C.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Relaxed)
    }

    /// Takes the line of progress away.
    pub fn clear(&self) {
        if self.told.is_some() {
            eprint!("{EMPTY}");
        }
    }
}

impl Audience for Follower {
    fn played(&self, sums: &Tally) {
        let Some(told) = &self.told else { return };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() < EVERY {
            return;
        }
        *told = Instant::now();
        eprint!("{EMPTY}{}", progress(sums, self.runs, self.began.elapsed()));
        let _ = std::io::stderr().flush();
    }

    fn wrong(&self, line: &str) {
        self.clear();
        println!("{line}");
    }

    fn has_left(&self) -> bool {
        self.is_interrupted()
    }
}

/// How far it is, and how long it will take.
fn progress(sums: &Tally, runs: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(0.001);
    let speed = sums.runs as f64 / seconds;
    let left = Duration::from_secs_f64(runs.saturating_sub(sums.runs) as f64 / speed.max(0.001)).as_secs();
    let (hours, minutes, seconds) = (left / 3600, left / 60 % 60, left % 60);
    let left = if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") };
    format!("{} of {runs} releases, {speed:.1} a second, {} went wrong, {left} left", sums.runs, sums.wrong.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_short_line() {
        let sums = |runs| Tally { runs, ..Tally::default() };
        for (runs, of, seconds, line) in [
            (0, 10, 1, "0 of 10 releases, 0.0 a second, 0 went wrong, 2:46:40 left"),
            (150, 1_000, 10, "150 of 1000 releases, 15.0 a second, 0 went wrong, 0:56 left"),
            (1_000, 100_000, 50, "1000 of 100000 releases, 20.0 a second, 0 went wrong, 1:22:30 left"),
        ] {
            assert_eq!(progress(&sums(runs), of, Duration::from_secs(seconds)), line);
        }
    }
}
