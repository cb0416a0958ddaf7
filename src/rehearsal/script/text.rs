//! The text of a script, which replays it.

use std::{fmt, str::FromStr};

use super::{Act, Event, Gateway, Kind, Managed, Route, Row, Script, Setup, State, Step, Style, When};
use crate::rehearsal::draw;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.replicas)?;
        match self.route {
            Route::None => Ok(()),
            Route::Weight(w) => write!(f, "~{w}"),
            Route::Exact => f.write_str("~exact"),
            Route::Regex => f.write_str("~regex"),
        }?;
        match self.pause {
            None => Ok(()),
            Some(seconds) => write!(f, "+{seconds}"),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Step, String> {
        let (text, pause) = match text.split_once('+') {
            Some((head, seconds)) => (head, Some(number(seconds)?)),
            None => (text, None),
        };
        let (replicas, route) = match text.split_once('~') {
            None => (text, Route::None),
            Some((head, "exact")) => (head, Route::Exact),
            Some((head, "regex")) => (head, Route::Regex),
            Some((head, weight)) => (head, Route::Weight(number(weight)?)),
        };
        Ok(Step { replicas: replicas.to_owned(), route, pause })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::At(ms) => write!(f, "{ms}:")?,
            When::In(state, step, ms) => write!(f, "{}@{step}+{ms}:", state.as_str())?,
        }
        f.write_str(self.act.kind.as_str())?;
        match Row::of(self.act.kind) {
            Some(row) if row.low == row.high => Ok(()),
            _ => write!(f, "={}", self.act.arg),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(text: &str) -> Result<Event, String> {
        let (when, act) = text.split_once(':').ok_or_else(|| format!("{text:?} is no `when:what`"))?;
        let when = match when.split_once('@') {
            None => When::At(number(when)?),
            Some((state, rest)) => {
                let (step, ms) = rest.split_once('+').unwrap_or((rest, "0"));
                When::In(State::parse(state)?, number(step)?, number(ms)?)
            }
        };
        let (kind, arg) = act.split_once('=').unwrap_or((act, "0"));
        Ok(Event { when, act: Act { kind: Kind::parse(kind)?, arg: number(arg)? } })
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.setup;
        write!(f, "seed={}", self.seed)?;
        if s.workload != Managed::Deployment {
            write!(f, " {}", s.workload.as_str())?;
        }
        write!(f, " {} {}", s.style.as_str(), s.gateway.as_str())?;
        if s.is_old_api {
            f.write_str(" v1alpha1")?;
        }
        if s.is_slow {
            f.write_str(" slow-pods")?;
        }
        write!(f, " replicas={} surge={} unavailable={}", s.replicas, s.surge, s.unavailable)?;
        if let Some(grace) = s.grace {
            write!(f, " grace={grace}")?;
        }
        if s.lags != [0; 3] {
            let [routes, subsets, services] = s.lags;
            write!(f, " lags={routes}/{subsets}/{services}")?;
        }
        if let Some(threshold) = &s.threshold {
            write!(f, " threshold={threshold}")?;
        }
        if let Some(deadline) = s.deadline {
            write!(f, " deadline={deadline}")?;
        }
        if s.rolls_back {
            f.write_str(" rolls-back")?;
        }
        if s.keeps_history {
            f.write_str(" history")?;
        }
        write!(f, "{}", s.barriers)?;
        let steps: Vec<String> = s.steps.iter().map(Step::to_string).collect();
        write!(f, " steps={}", steps.join(","))?;
        for event in &self.events {
            write!(f, " {event}")?;
        }
        Ok(())
    }
}

pub fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

impl FromStr for Script {
    type Err = String;

    /// A number alone is the script that is drawn from it. What is not said is as in the plainest rehearsal.
    fn from_str(text: &str) -> Result<Script, String> {
        if let Ok(seed) = text.trim().parse() {
            return Ok(draw(seed));
        }
        let mut script = Script { seed: 0, setup: Setup::plain(), events: Vec::new() };
        let setup = &mut script.setup;
        for word in text.split_whitespace() {
            if word.contains(':') {
                script.events.push(word.parse().map_err(|e| format!("{word}: {e}"))?);
                continue;
            }
            let wrong = |e: String| format!("{word}: {e}");
            if let Some(read) = setup.barriers.read(word) {
                read.map_err(wrong)?;
                continue;
            }
            match word.split_once('=') {
                Some(("seed", value)) => script.seed = number(value).map_err(wrong)?,
                Some(("replicas", value)) => setup.replicas = number(value).map_err(wrong)?,
                Some(("surge", value)) => setup.surge = value.to_owned(),
                Some(("unavailable", value)) => setup.unavailable = value.to_owned(),
                Some(("grace", value)) => setup.grace = Some(number(value).map_err(wrong)?),
                Some(("lags", value)) => {
                    let lags: Vec<i64> = value.split('/').map(number).collect::<Result<_, _>>().map_err(wrong)?;
                    setup.lags = lags.try_into().map_err(|_| wrong("three numbers are needed".to_owned()))?;
                }
                Some(("threshold", value)) => setup.threshold = Some(value.to_owned()),
                Some(("deadline", value)) => setup.deadline = Some(number(value).map_err(wrong)?),
                Some(("steps", value)) => {
                    setup.steps = value.split(',').map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
                }
                None if word == "v1alpha1" => setup.is_old_api = true,
                None if word == "slow-pods" => setup.is_slow = true,
                None if word == "rolls-back" => setup.rolls_back = true,
                None if word == "history" => setup.keeps_history = true,
                None => match (Style::parse(word), Gateway::parse(word), Managed::parse(word)) {
                    (Ok(style), _, _) => setup.style = style,
                    (_, Ok(gateway), _) => setup.gateway = gateway,
                    (_, _, Ok(workload)) => setup.workload = workload,
                    (Err(style), Err(gateway), Err(workload)) => {
                        return Err(format!("{style}, and {gateway}, and {workload}"));
                    }
                },
                Some((key, _)) => return Err(format!("{key}: no such word")),
            }
        }
        Ok(script)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_its_text() {
        for seed in 0..300 {
            let script = draw(seed);
            let text = script.to_string();
            assert_eq!(text.parse::<Script>().as_ref(), Ok(&script), "{text}");
        }
        assert_eq!("7".parse::<Script>(), Ok(draw(7)));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("seed=x", "seed=x: \"x\" is no number"),
            ("cannary", "\"cannary\" is none of canary"),
            ("5:jumpp=1", "5:jumpp=1: \"jumpp\" is none of template"),
            ("colour=red", "colour: no such word"),
        ] {
            let error = text.parse::<Script>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
