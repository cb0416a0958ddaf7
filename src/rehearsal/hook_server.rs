//! A server of hooks that answers well or badly, and notes what it has let go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::object::{int, text},
    gather::desk::Answerer,
    rollout::calls::{Body, Call, Outcome, Reply},
    sim::Rng,
};

/// Seconds in which a hook has to answer.
const TIMEOUT: i64 = 5;

/// A hook of a rehearsal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// How it answers until people mend it.
    pub mood: Mood,
    /// The moment at which it is asked; `None`: at all of them. It is told of rollbacks in any case.
    pub moment: Option<Moment>,
}

/// How a hook answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It allows.
    Allow,
    /// It holds, and says why.
    Hold,
    /// It refuses.
    Refuse,
    /// With an error of its own.
    Error,
    /// It allows, late or too late.
    Slow,
    /// Not at all.
    Down,
    /// Now so, now so.
    Mixed,
}

impl Mood {
    const ALL: [Mood; 7] = {
        use Mood::*;
        [Allow, Hold, Refuse, Error, Slow, Down, Mixed]
    };

    fn as_str(self) -> &'static str {
        match self {
            Mood::Allow => "allow",
            Mood::Hold => "hold",
            Mood::Refuse => "refuse",
            Mood::Error => "error",
            Mood::Slow => "slow",
            Mood::Down => "down",
            Mood::Mixed => "mixed",
        }
    }

    /// What is counted when it so answered.
    fn counted(self) -> &'static str {
        match self {
            Mood::Allow => "hook-allow",
            Mood::Hold => "hook-hold",
            Mood::Refuse => "hook-refuse",
            Mood::Error => "hook-error",
            Mood::Slow => "hook-slow",
            Mood::Down => "hook-down",
            Mood::Mixed => "hook-mixed",
        }
    }
}

/// A moment at which a hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Before a step.
    Before,
    /// When it is in place.
    After,
    /// After the last one.
    Promotion,
}

impl Moment {
    const ALL: [Moment; 3] = [Moment::Before, Moment::After, Moment::Promotion];

    fn as_str(self) -> &'static str {
        match self {
            Moment::Before => "before",
            Moment::After => "after",
            Moment::Promotion => "promotion",
        }
    }

    /// As a Rollout spells it.
    fn spelled(self) -> &'static str {
        match self {
            Moment::Before => "BeforeStep",
            Moment::After => "AfterStep",
            Moment::Promotion => "BeforePromotion",
        }
    }
}

/// What is counted of hooks.
pub const ASKED: [&str; 10] = [
    "hook-allow",
    "hook-hold",
    "hook-refuse",
    "hook-error",
    "hook-slow",
    "hook-down",
    "hook-before-step",
    "hook-after-step",
    "hook-before-promotion",
    "hook-on-rollback",
];

impl Hook {
    /// The hook of some numbers.
    pub fn draw(dice: &mut Rng) -> Hook {
        let mut pick = |count: usize| usize::try_from(dice.below(count as u64)).unwrap_or_default();
        let mood = Mood::ALL.get(pick(Mood::ALL.len())).copied().unwrap_or(Mood::Allow);
        Hook { mood, moment: Moment::ALL.get(pick(Moment::ALL.len() + 2)).copied() }
    }

    /// Whether it is asked at a moment.
    pub fn is_for(self, moment: Moment) -> bool {
        self.moment.is_none_or(|own| own == moment)
    }

    /// As a Rollout spells it.
    pub fn spelled(self, rolls_back: bool) -> Value {
        let moments = Moment::ALL.into_iter().filter(|moment| self.is_for(*moment)).map(Moment::spelled);
        let when: Vec<&str> = moments.chain(["OnRollback"]).collect();
        json!({"name": "board", "url": "https://board.example/ask", "when": when, "timeout": format!("{TIMEOUT}s"),
            "retries": 2, "interval": "20s", "onRefusal": if rolls_back { "rollback" } else { "pause" }})
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.mood.as_str())?;
        self.moment.map_or(Ok(()), |moment| write!(f, "@{}", moment.as_str()))
    }
}

impl FromStr for Hook {
    type Err = String;

    fn from_str(text: &str) -> Result<Hook, String> {
        let (mood, moment) = text.split_once('@').map_or((text, None), |(mood, moment)| (mood, Some(moment)));
        let found = Mood::ALL.into_iter().find(|known| known.as_str() == mood);
        let mood = found.ok_or_else(|| format!("{mood:?} is no answer of a hook"))?;
        let moment = match moment {
            None => None,
            Some(text) => {
                let found = Moment::ALL.into_iter().find(|known| known.as_str() == text);
                Some(found.ok_or_else(|| format!("{text:?} is none of before, after, promotion"))?)
            }
        };
        Ok(Hook { mood, moment })
    }
}

/// The server. Clones are the same one.
#[derive(Clone)]
pub struct HookServer(Arc<Mutex<State>>);

struct State {
    mood: Mood,
    rng: Rng,
    /// Releases, moments and steps that it has let go on.
    allowed: BTreeSet<(String, String, i64)>,
    counts: BTreeMap<&'static str, u64>,
}

impl HookServer {
    /// One that answers so until it is mended.
    pub fn new(hook: Option<Hook>, seed: u64) -> HookServer {
        let mood = hook.map_or(Mood::Allow, |hook| hook.mood);
        let (rng, allowed, counts) = (Rng::new(seed ^ 0x400c), BTreeSet::new(), BTreeMap::new());
        HookServer(Arc::new(Mutex::new(State { mood, rng, allowed, counts })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it allows whatever it is asked.
    pub fn mend(&self) {
        self.lock().mood = Mood::Allow;
    }

    /// Whether it has let a step of a release go on, and was heard.
    pub fn has_allowed(&self, release: &str, moment: Moment, step: i64) -> bool {
        self.lock().allowed.contains(&(release.to_owned(), moment.spelled().to_owned(), step))
    }

    /// How often each answer was given, and each moment asked about.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// The server as one process of the controller reaches it.
    pub fn line(&self, asked: impl Fn() + Send + Sync + 'static) -> Box<dyn Answerer<Call>> {
        Box::new(Line { server: self.clone(), asked: Box::new(asked) })
    }

    /// How it answers this time, and how long it takes.
    fn answer(&self, moment: &str) -> (Mood, Duration) {
        let mut state = self.lock();
        let mut mood = state.mood;
        if mood == Mood::Mixed {
            let at = usize::try_from(state.rng.below(Mood::ALL.len() as u64 - 1)).unwrap_or_default();
            mood = Mood::ALL.get(at).copied().unwrap_or(Mood::Allow);
        }
        let wait = match mood {
            Mood::Slow => Duration::from_secs(1)..=Duration::from_secs(12),
            _ => Duration::from_millis(1)..=Duration::from_millis(300),
        };
        let wait = state.rng.duration(&wait);
        *state.counts.entry(mood.counted()).or_default() += 1;
        let of_moment = match moment {
            "BeforeStep" => "hook-before-step",
            "AfterStep" => "hook-after-step",
            "BeforePromotion" => "hook-before-promotion",
            _ => "hook-on-rollback",
        };
        *state.counts.entry(of_moment).or_default() += 1;
        (mood, wait)
    }
}

struct Line {
    server: HookServer,
    /// Counts a request.
    asked: Box<dyn Fn() + Send + Sync>,
}

impl Answerer<Call> for Line {
    fn answer<'a>(&'a self, call: &'a Call, at: Timestamp) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            (self.asked)();
            let body: Value = match &call.body {
                Body::Post(_, body) => serde_json::from_str(body).unwrap_or_default(),
                Body::Probe { .. } => Value::Null,
            };
            let moment = text(&body, &["moment"]);
            let (mood, wait) = self.server.answer(moment);
            let limit = Duration::from_secs(call.timeout.unsigned_abs());
            tokio::time::sleep(wait.min(limit)).await;
            if wait >= limit {
                let why = format!("no answer within {} seconds", call.timeout);
                return Reply { at, outcome: Outcome::Unavailable(why) };
            }
            let said =
                |status: u16, body: Value| Outcome::Answered { status, body: body.to_string(), retry_after: None };
            let outcome = match mood {
                Mood::Allow | Mood::Slow | Mood::Mixed => {
                    let step = int(&body, &["step"]).unwrap_or_default();
                    let release = text(&body, &["release", "id"]).to_owned();
                    self.server.lock().allowed.insert((release, moment.to_owned(), step));
                    said(200, json!({"result": "allow"}))
                }
                Mood::Hold => said(200, json!({"result": "hold", "message": "the board has not met yet"})),
                Mood::Refuse => said(403, json!({"message": "not in this week"})),
                Mood::Error => said(503, json!({})),
                Mood::Down => Outcome::Unavailable("connection refused".to_owned()),
            };
            Reply { at, outcome }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_its_text() {
        let mut dice = Rng::new(1);
        for _ in 0..100 {
            let hook = Hook::draw(&mut dice);
            assert_eq!(hook.to_string().parse(), Ok(hook));
        }
        assert_eq!("slow@promotion".parse(), Ok(Hook { mood: Mood::Slow, moment: Some(Moment::Promotion) }));
        assert_eq!("angry".parse::<Hook>(), Err(r#""angry" is no answer of a hook"#.to_owned()));
        assert_eq!("hold@noon".parse::<Hook>(), Err(r#""noon" is none of before, after, promotion"#.to_owned()));
    }
}
