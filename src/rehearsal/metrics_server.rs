//! A metrics server that answers well or badly, and notes who asked when.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::barriers::{Barriers, INTERVAL, Odds, Reading, STABLE};
use crate::{
    analysis::{Answer, SERIES, ask::Ask},
    gather::measures::Provider,
    sim::{Clock, Rng},
};

/// The server. Clones are the same one.
#[derive(Clone)]
pub struct MetricsServer(Arc<Mutex<State>>);

struct State {
    clock: Clock,
    reading: Option<Reading>,
    odds: Odds,
    rng: Rng,
    /// What was answered, and when.
    given: Vec<(Timestamp, Reading)>,
    /// What was answered of the new version beside the stable one, and when.
    compared: Vec<(Timestamp, Odds)>,
    /// Somebody asked too often.
    misconduct: Option<String>,
}

impl MetricsServer {
    /// One that answers as barriers say until it is mended.
    pub fn new(clock: Clock, barriers: &Barriers, seed: u64) -> MetricsServer {
        let (reading, odds) = (barriers.metric, barriers.compared.unwrap_or(Odds::Same));
        let (rng, given, compared) = (Rng::new(seed ^ 0x3e77), Vec::new(), Vec::new());
        MetricsServer(Arc::new(Mutex::new(State { clock, reading, odds, rng, given, compared, misconduct: None })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on all is well.
    pub fn mend(&self) {
        let mut state = self.lock();
        (state.reading, state.odds) = (Some(Reading::Good), Odds::Same);
    }

    /// Whether the new version was as good as the stable one at some look since a moment.
    pub fn was_same_since(&self, moment: Timestamp) -> bool {
        self.lock().compared.iter().any(|(at, odds)| *at >= moment && *odds == Odds::Same)
    }

    /// Good answers since a moment.
    pub fn good_since(&self, moment: Timestamp) -> usize {
        let is_good = |(at, reading): &&(Timestamp, Reading)| *at >= moment && *reading == Reading::Good;
        self.lock().given.iter().filter(is_good).count()
    }

    /// Who asked too often, if anybody did.
    pub fn misconduct(&self) -> Option<String> {
        self.lock().misconduct.clone()
    }

    /// How often each answer was given.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for (_, reading) in &self.lock().given {
            *counts.entry(reading.counted()).or_default() += 1;
        }
        for (_, odds) in &self.lock().compared {
            *counts.entry(odds.counted()).or_default() += 1;
        }
        counts
    }

    /// The server as one process of the controller reaches it.
    pub fn line(&self, asked: impl Fn() + Send + Sync + 'static) -> Arc<dyn Provider> {
        Arc::new(Line { server: self.clone(), last: Mutex::default(), asked: Box::new(asked) })
    }

    fn answer(&self) -> (Reading, Duration, Answer) {
        let mut state = self.lock();
        let mut reading = state.reading.unwrap_or(Reading::Down);
        if reading == Reading::Mixed {
            let at = usize::try_from(state.rng.below(7)).unwrap_or_default();
            reading = Reading::ALL.get(at).copied().unwrap_or(Reading::Good);
        }
        let wait = match reading {
            Reading::Slow => Duration::from_secs(2)..=Duration::from_secs(30),
            _ => Duration::from_millis(1)..=Duration::from_millis(200),
        };
        let wait = state.rng.duration(&wait);
        let answer = match reading {
            Reading::Good | Reading::Slow | Reading::Mixed => Answer::Value(0.01),
            Reading::Bad => Answer::Value(0.5),
            Reading::Nan => Answer::Value(f64::NAN),
            Reading::Empty => Answer::Empty,
            Reading::Many => Answer::Several { count: 50_000, values: vec![0.01; SERIES] },
            Reading::Down => Answer::Unavailable("connection refused".to_owned()),
        };
        (reading, wait, answer)
    }

    /// How many requests of one of the versions there were, or how many have failed.
    fn compared(&self, query: &str) -> Option<Answer> {
        let (what, version) = query.split_once(" of ")?;
        let mut state = self.lock();
        let (requests, failures) = if version == "canary" { state.odds.shares() } else { STABLE };
        if what == "requests" {
            return Some(Answer::Value(requests));
        }
        if version == "canary" {
            let look = (state.clock.now(), state.odds);
            state.compared.push(look);
        }
        Some(Answer::Value(failures))
    }

    fn gave(&self, reading: Reading) {
        let mut state = self.lock();
        let now = state.clock.now();
        state.given.push((now, reading));
    }
}

struct Line {
    server: MetricsServer,
    /// The moments for which each question was last asked, and whether it had its answer.
    last: Mutex<BTreeMap<String, (Timestamp, bool)>>,
    /// Counts a question.
    asked: Box<dyn Fn() + Send + Sync>,
}

impl Line {
    fn note(&self, ask: &Ask, is_answered: bool) -> Option<(Timestamp, bool)> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.insert(ask.id.clone(), (ask.due, is_answered))
    }
}

impl Provider for Line {
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            (self.asked)();
            let last = self.note(ask, false);
            // Who was interrupted before the answer may ask for the same moment again; and after a clock that was set
            // back, an earlier moment is asked for anew.
            if let Some((last, is_answered)) = last
                && (last < ask.due || (last == ask.due && is_answered))
                && ask.due.duration_since(last).as_secs() < INTERVAL
            {
                let why = format!("{:?} was asked for {last}, and again for {}", ask.query, ask.due);
                self.server.lock().misconduct.get_or_insert(why);
            }
            if let Some(answer) = self.server.compared(&ask.query) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.note(ask, true);
                return answer;
            }
            let (reading, wait, answer) = self.server.answer();
            if reading == Reading::Slow {
                // Counted at once: who asks may give up.
                self.server.gave(reading);
                tokio::time::sleep(wait).await;
                self.server.gave(Reading::Good);
                self.note(ask, true);
                return answer;
            }
            tokio::time::sleep(wait).await;
            self.server.gave(reading);
            self.note(ask, true);
            answer
        })
    }
}
