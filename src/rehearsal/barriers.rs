//! What stands between a release and its next step beside people's approvals: metrics, gates, hours, other releases.

use std::fmt;

use serde_json::{Value, json};

use super::{
    hook_server::Hook,
    script::{Setup, number},
};
use crate::sim::Rng;

/// Name of the gate of every step, if steps have gates.
pub const GATE: &str = "load test";
/// Seconds between two questions to the metrics server.
pub const INTERVAL: i64 = 10;
/// Good answers with which a metric passes.
pub const COUNT: usize = 2;
/// A value up to this is good.
const BOUND: f64 = 0.1;

/// What stands in the way. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Barriers {
    /// How the metrics server answers until people mend it; `None`: nothing is measured.
    pub metric: Option<Reading>,
    /// The metric is watched behind the whole release instead of at each step.
    pub is_background: bool,
    /// Each step has a gate.
    pub has_gates: bool,
    /// From this minute of the first hour to that one no step begins.
    pub frozen: Option<(i64, i64)>,
    /// Steps begin only from this minute of each day on.
    pub opens: Option<i64>,
    /// Only one release may be in flight.
    pub is_limited: bool,
    /// A server has a say.
    pub hook: Option<Hook>,
    /// The new version is compared with the stable one, and does so well beside it until people mend it.
    pub compared: Option<Odds>,
}

/// How the new version does beside the stable one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odds {
    /// As well.
    Same,
    /// Worse.
    Worse,
    /// Nobody can tell: there are hardly any requests.
    Few,
}

impl Odds {
    /// All of them.
    pub const ALL: [Odds; 3] = [Odds::Same, Odds::Worse, Odds::Few];

    /// As a script spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Odds::Same => "same",
            Odds::Worse => "worse",
            Odds::Few => "few",
        }
    }

    /// What is counted when it was so measured.
    pub fn counted(self) -> &'static str {
        match self {
            Odds::Same => "compared-same",
            Odds::Worse => "compared-worse",
            Odds::Few => "compared-few",
        }
    }

    /// Of so many requests of the new version so many have failed within an interval.
    pub fn shares(self) -> (f64, f64) {
        match self {
            Odds::Same => (3000.0, 6.0),
            Odds::Worse => (3000.0, 600.0),
            Odds::Few => (2.0, 0.0),
        }
    }
}

/// Of so many requests of the stable version so many have failed within an interval.
pub const STABLE: (f64, f64) = (3000.0, 6.0);

/// How the metrics server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// With a value within the bounds.
    Good,
    /// With a value out of them.
    Bad,
    /// With the value of 0 requests among 0.
    Nan,
    /// With no series.
    Empty,
    /// With many series.
    Many,
    /// Late, or too late.
    Slow,
    /// Not at all.
    Down,
    /// Now so, now so.
    Mixed,
}

impl Reading {
    /// All of them.
    pub const ALL: [Reading; 8] = {
        use Reading::*;
        [Good, Bad, Nan, Empty, Many, Slow, Down, Mixed]
    };

    /// As a script spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reading::Good => "good",
            Reading::Bad => "bad",
            Reading::Nan => "nan",
            Reading::Empty => "empty",
            Reading::Many => "many",
            Reading::Slow => "slow",
            Reading::Down => "down",
            Reading::Mixed => "mixed",
        }
    }

    /// What is counted when it was so answered.
    pub fn counted(self) -> &'static str {
        match self {
            Reading::Good => "metric-good",
            Reading::Bad => "metric-bad",
            Reading::Nan => "metric-nan",
            Reading::Empty => "metric-empty",
            Reading::Many => "metric-many",
            Reading::Slow => "metric-slow",
            Reading::Down => "metric-down",
            Reading::Mixed => "metric-mixed",
        }
    }
}

/// What is counted of barriers that were met.
pub const MET: [&str; 17] = [
    "metric-good",
    "metric-bad",
    "metric-nan",
    "metric-empty",
    "metric-many",
    "metric-slow",
    "metric-down",
    "metric-passed",
    "metric-failed",
    "metric-unclear",
    "gate-passed",
    "outside-hours",
    "in-line",
    "background-metric",
    "compared-same",
    "compared-worse",
    "compared-few",
];

impl Barriers {
    /// Those of a number. Their dice are their own, so that they change nothing else that the number decides; and those of
    /// hooks and comparisons are others again.
    pub fn draw(seed: u64) -> Barriers {
        let mut dice = Rng::new(seed ^ 0x5e_1ec7);
        let hook = dice.chance(0.15).then(|| Hook::draw(&mut dice));
        let at = usize::try_from(dice.below(Odds::ALL.len() as u64)).unwrap_or_default();
        let compared = Odds::ALL.get(at).copied().filter(|_| dice.chance(0.08));
        Barriers { hook, compared, ..Barriers::draw_others(seed) }
    }

    fn draw_others(seed: u64) -> Barriers {
        let mut dice = Rng::new(seed ^ 0xba_221e);
        let mut barriers = Barriers::default();
        if !dice.chance(0.25) {
            return barriers;
        }
        if dice.chance(0.6) {
            let at = usize::try_from(dice.below(Reading::ALL.len() as u64)).unwrap_or_default();
            barriers.metric = Reading::ALL.get(at).copied();
            barriers.is_background = dice.chance(0.3);
        }
        barriers.has_gates = dice.chance(0.3);
        let minute = i64::try_from(1 + dice.below(3)).unwrap_or(1);
        match dice.below(6) {
            0 => barriers.frozen = Some((minute, minute + 2)),
            1 => barriers.opens = Some(minute),
            _ => {}
        }
        barriers.is_limited = dice.chance(0.25);
        barriers
    }

    /// Reads a word of a script; `None` if it is not about barriers.
    pub fn read(&mut self, word: &str) -> Option<Result<(), String>> {
        let read = match word.split_once('=') {
            Some(("metric", value)) => {
                let found = Reading::ALL.into_iter().find(|reading| reading.as_str() == value);
                self.metric = found;
                found.map(|_| ()).ok_or_else(|| format!("{value:?} is no answer of a metrics server"))
            }
            Some(("frozen", value)) => value
                .split_once('-')
                .ok_or_else(|| format!("{value:?} is not two minutes"))
                .and_then(|(from, to)| Ok((number(from)?, number(to)?)))
                .map(|minutes| self.frozen = Some(minutes)),
            Some(("hook", value)) => value.parse().map(|hook| self.hook = Some(hook)),
            Some(("compared", value)) => {
                self.compared = Odds::ALL.into_iter().find(|odds| odds.as_str() == value);
                self.compared.map(|_| ()).ok_or_else(|| format!("{value:?} is none of same, worse, few"))
            }
            Some(("opens", value)) => number(value).map(|minute| self.opens = Some(minute)),
            None if word == "background" => {
                self.is_background = true;
                Ok(())
            }
            None if word == "gates" => {
                self.has_gates = true;
                Ok(())
            }
            None if word == "limited" => {
                self.is_limited = true;
                Ok(())
            }
            _ => return None,
        };
        Some(read)
    }

    /// Whether there is any metric.
    pub fn are_measured(&self) -> bool {
        self.metric.is_some() || self.compared.is_some()
    }

    /// The analysis of a step or of the release, as a Rollout spells it.
    fn analysis(&self, setup: &Setup) -> Option<Value> {
        if !self.are_measured() {
            return None;
        }
        let provider = json!({"prometheus": {"address": "http://metrics.example:9090"}});
        let interval = format!("{INTERVAL}s");
        let metric = self.metric.map(|_| {
            json!({"name": "errors", "provider": provider, "query": "errors", "max": BOUND, "interval": interval,
                "count": COUNT, "inconclusiveLimit": 1, "noDataTimeout": "1m"})
        });
        let compared = self.compared.map(|_| {
            let queries =
                |of: &str| json!({"failures": format!("failures of {of}"), "requests": format!("requests of {of}")});
            json!({"name": "compared", "provider": provider, "interval": interval,
                "compare": {"canary": queries("canary"), "stable": queries("stable"), "effect": 0.05}})
        });
        let metrics: Vec<Value> = metric.into_iter().chain(compared).collect();
        let mut analysis =
            json!({"metrics": metrics, "onFailure": if setup.rolls_back { "rollback" } else { "pause" }});
        if self.is_background {
            json_patch::merge(&mut analysis, &json!({"background": true}));
        }
        Some(analysis)
    }

    /// What every step has of them.
    pub fn of_step(&self, setup: &Setup, step: &mut serde_json::Map<String, Value>) {
        if let Some(analysis) = self.analysis(setup).filter(|_| !self.is_background) {
            step.insert("analysis".to_owned(), analysis);
        }
        if self.has_gates {
            step.insert("gates".to_owned(), json!([{"name": GATE}]));
        }
    }

    /// What a `spec` has of them.
    pub fn of_spec(&self, setup: &Setup) -> Value {
        let mut spec = json!({});
        if let Some(analysis) = self.analysis(setup).filter(|_| self.is_background) {
            json_patch::merge(&mut spec, &json!({"strategy": {"analysis": analysis}}));
        }
        if let Some(hook) = self.hook {
            json_patch::merge(&mut spec, &json!({"strategy": {"hooks": [hook.spelled(setup.rolls_back)]}}));
        }
        if let Some((from, to)) = self.frozen {
            let at = |minute: i64| format!("2026-01-01T00:{minute:02}");
            json_patch::merge(&mut spec, &json!({"freezes": [{"name": "night", "from": at(from), "to": at(to)}]}));
        }
        if let Some(minute) = self.opens {
            let window = json!([{"from": format!("00:{minute:02}"), "to": "24:00"}]);
            json_patch::merge(&mut spec, &json!({"changeWindows": window}));
        }
        spec
    }

    /// Whether no step may begin at a moment.
    pub fn forbid(&self, now: jiff::Timestamp) -> bool {
        // The cluster's clock begins at midnight, UTC.
        let minute = now.as_second().div_euclid(60);
        let (of_day, first) =
            (minute.rem_euclid(24 * 60), jiff::Timestamp::constant(1_767_225_600, 0).as_second() / 60);
        self.frozen.is_some_and(|(from, to)| (from..to).contains(&(minute - first)))
            || self.opens.is_some_and(|opens| of_day < opens)
    }
}

impl fmt::Display for Barriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reading) = self.metric {
            write!(f, " metric={}", reading.as_str())?;
        }
        for (is, word) in [(self.is_background, "background"), (self.has_gates, "gates"), (self.is_limited, "limited")]
        {
            if is {
                write!(f, " {word}")?;
            }
        }
        if let Some((from, to)) = self.frozen {
            write!(f, " frozen={from}-{to}")?;
        }
        if let Some(hook) = self.hook {
            write!(f, " hook={hook}")?;
        }
        if let Some(odds) = self.compared {
            write!(f, " compared={}", odds.as_str())?;
        }
        if let Some(minute) = self.opens {
            write!(f, " opens={minute}")?;
        }
        Ok(())
    }
}
