//! Change windows and freezes: when the next step may begin. A step that has begun is finished, and a rollback never
//! waits.

use std::sync::LazyLock;

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime, Time, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as MetaTime;

use super::{
    clock::whole_second_after,
    machine::Machine,
    release::{Release, SpecError},
    turn::{Turn, Wait},
};
use crate::api::{
    conditions::reasons,
    keys,
    v1beta1::Rollout,
    windows::{ChangeWindow, ClusterWindows, Day, Freeze, WindowOverride},
};

/// Compiled in: a decision depends on no file, and an image from scratch has none.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// How far ahead an opening is looked for.
const HORIZON_DAYS: i64 = 3 * 366;

/// Windows and freezes of one author, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Windows {
    windows: Vec<Window>,
    freezes: Vec<Frozen>,
}

#[derive(Clone, Debug, PartialEq)]
struct Window {
    name: Option<String>,
    days: Vec<Weekday>,
    from: Time,
    to: Time,
    zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq)]
struct Frozen {
    name: Option<String>,
    from: Timestamp,
    to: Timestamp,
    zone: TimeZone,
}

/// The administrator's windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForAll {
    /// When steps of any Rollout may begin.
    pub windows: Windows,
    /// No Rollout's annotation overrides them.
    pub is_binding: bool,
}

/// Whether a step may begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Opening {
    /// Now.
    Now,
    /// Not before a moment.
    At {
        /// The moment.
        time: Timestamp,
        /// In which zone a person reads it.
        zone: TimeZone,
        /// What is in the way now.
        why: String,
    },
    /// Not within three years.
    Never {
        /// What is in the way now.
        why: String,
    },
}

fn wrong<T>(field: String, problem: String) -> Result<T, SpecError> {
    Err(SpecError { field, problem })
}

fn zone(field: &str, name: Option<&str>) -> Result<TimeZone, SpecError> {
    let name = name.unwrap_or("UTC");
    ZONES.get(name).or_else(|_| {
        wrong(format!("{field}.timeZone"), format!("{name:?} is not known; use a name such as Europe/Berlin or UTC"))
    })
}

fn time(field: String, text: &str) -> Result<Time, SpecError> {
    let parts = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2);
    let parsed = parts.and_then(|(hour, minute)| Some((hour.parse().ok()?, minute.parse().ok()?)));
    match parsed.and_then(|(hour, minute)| Time::new(hour, minute, 0, 0).ok()) {
        Some(time) => Ok(time),
        None => wrong(field, format!("{text:?} is no time of the day; write it as 09:00")),
    }
}

/// A date stands for its beginning or, with `is_end`, for the beginning of the next one.
fn moment(field: String, text: &str, zone: &TimeZone, is_end: bool) -> Result<Timestamp, SpecError> {
    let by_date = || {
        let date: Date = text.parse().ok().filter(|_| text.len() == 10)?;
        let date = if is_end { date.tomorrow().ok()? } else { date };
        Some(date.to_datetime(Time::midnight()))
    };
    let by_time = || text.parse::<DateTime>().ok().filter(|_| text.len() == 16);
    let found = by_date().or_else(by_time).and_then(|local| local.to_zoned(zone.clone()).ok());
    match found {
        Some(zoned) => Ok(zoned.timestamp()),
        None => wrong(field, format!("{text:?} is no date or time; write it as 2026-12-20 or 2026-12-20T18:00")),
    }
}

const fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}

impl Windows {
    /// Reads them; `field` is the path at which both lists stand.
    ///
    /// # Errors
    /// Names the field and what it should say.
    pub fn read(field: &str, windows: &[ChangeWindow], freezes: &[Freeze]) -> Result<Windows, SpecError> {
        let window = |(i, window): (usize, &ChangeWindow)| {
            let field = format!("{field}changeWindows[{i}]");
            // The end of a day is the beginning of the next one.
            let to = if window.to == "24:00" { "00:00" } else { &window.to };
            Ok(Window {
                name: window.name.clone(),
                days: window.days.iter().copied().map(weekday).collect(),
                from: time(format!("{field}.from"), &window.from)?,
                to: time(format!("{field}.to"), to)?,
                zone: zone(&field, window.time_zone.as_deref())?,
            })
        };
        let freeze = |(i, freeze): (usize, &Freeze)| {
            let field = format!("{field}freezes[{i}]");
            let zone = zone(&field, freeze.time_zone.as_deref())?;
            let from = moment(format!("{field}.from"), &freeze.from, &zone, false)?;
            let to = moment(format!("{field}.to"), &freeze.to, &zone, true)?;
            if to <= from {
                return wrong(format!("{field}.to"), format!("{:?} is not after from, {:?}", freeze.to, freeze.from));
            }
            Ok(Frozen { name: freeze.name.clone(), from, to, zone })
        };
        Ok(Windows {
            windows: windows.iter().enumerate().map(window).collect::<Result<_, _>>()?,
            freezes: freezes.iter().enumerate().map(freeze).collect::<Result<_, _>>()?,
        })
    }

    /// Those of a Rollout.
    ///
    /// # Errors
    /// Names the field and what it should say.
    pub fn of(rollout: &Rollout) -> Result<Windows, SpecError> {
        Windows::read("spec.", &rollout.spec.change_windows, &rollout.spec.freezes)
    }

    /// What is in the way at a moment, in which zone it is told, and when that ends; the end may still be in the way of
    /// something else.
    fn obstacle(&self, now: Timestamp) -> Option<(String, TimeZone, Option<Timestamp>)> {
        let frozen = self.freezes.iter().find(|f| f.from <= now && now < f.to);
        if let Some(frozen) = frozen {
            let why = match &frozen.name {
                Some(name) => format!("the freeze {name:?}"),
                None => "a freeze".to_owned(),
            };
            return Some((why, frozen.zone.clone(), Some(frozen.to)));
        }
        if self.windows.is_empty() || self.windows.iter().any(|w| w.contains(now)) {
            return None;
        }
        let next = self.windows.iter().filter_map(|w| Some((w.next(now)?, w))).min_by_key(|(at, _)| *at);
        Some(match next {
            None => ("no change window is open".to_owned(), TimeZone::UTC, None),
            Some((at, window)) => {
                let why = match &window.name {
                    Some(name) => format!("no change window is open, the next one is {name:?}"),
                    None => "no change window is open".to_owned(),
                };
                (why, window.zone.clone(), Some(at))
            }
        })
    }
}

impl Window {
    /// Beginning and end on the day that begins it; `None` where the clocks are put forward over all of it.
    fn on(&self, date: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.is_empty() && !self.days.contains(&date.weekday()) {
            return None;
        }
        let last = if self.to > self.from { date } else { date.tomorrow().ok()? };
        let at = |date: Date, time| Some(date.to_datetime(time).to_zoned(self.zone.clone()).ok()?.timestamp());
        let (from, to) = (at(date, self.from)?, at(last, self.to)?);
        (from < to).then_some((from, to))
    }

    fn days_around(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = now.to_zoned(self.zone.clone()).date();
        // A week and a day: a window that fell into the hour that is left out comes again a week later.
        (-1..=15).filter_map(move |days| self.on(today.checked_add(days.days()).ok()?))
    }

    fn contains(&self, now: Timestamp) -> bool {
        self.days_around(now).any(|(from, to)| from <= now && now < to)
    }

    fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.days_around(now).map(|(from, _)| from).filter(|from| *from > now).min()
    }
}

/// When a step may begin, if all of these must allow it. Nothing forbids: at once.
pub fn next_allowed(all: &[&Windows], now: Timestamp) -> Opening {
    let obstacle = |at| all.iter().find_map(|windows| windows.obstacle(at));
    let Some((why, mut zone, mut end)) = obstacle(now) else { return Opening::Now };
    let last = now.checked_add((HORIZON_DAYS * 24).hours()).unwrap_or(Timestamp::MAX);
    // Every round ends a freeze or opens a window, of which there are few a day.
    while let Some(time) = end.filter(|time| *time <= last) {
        match obstacle(time) {
            None => return Opening::At { time, zone, why },
            Some((_, next_zone, next)) => (zone, end) = (next_zone, next.filter(|next| *next > time)),
        }
    }
    Opening::Never { why }
}

impl Machine<'_> {
    /// Nothing is in the way of the next step, or a person has passed over it.
    pub(super) fn wait_for_window(&mut self, what: &str, release: &Release) -> Turn {
        let rollout = &self.snap.rollout;
        let for_all = match &self.snap.windows {
            Ok(for_all) => for_all,
            Err(why) => {
                let why = format!("{what} waits, because the change windows for all Rollouts cannot be read: {why}");
                return Err(Wait::stall(reasons::CHANGE_WINDOWS_INVALID, why).barred());
            }
        };
        let both = [&release.windows, &for_all.windows];
        let mut opening = next_allowed(&both, self.snap.now);
        if opening == Opening::Now {
            return Ok(());
        }
        let annotation = rollout.metadata.annotations.as_ref().and_then(|a| a.get(keys::OVERRIDE_WINDOWS));
        let reason = annotation.map(|reason| reason.trim()).filter(|reason| !reason.is_empty());
        let mut hint =
            format!("to begin now, write the reason into annotation {} of the Rollout", keys::OVERRIDE_WINDOWS);
        if let Some(reason) = reason {
            let revision = self.sub().canary_revision.clone();
            let known = self.status.change_window_override.as_ref().filter(|known| known.reason == reason);
            if known.is_some_and(|known| known.revision != revision) {
                hint = format!(
                    "the reason in annotation {} was given for another release; write a new one",
                    keys::OVERRIDE_WINDOWS
                );
            } else {
                if for_all.is_binding {
                    opening = next_allowed(&[&for_all.windows], self.snap.now);
                    hint = "the windows for all Rollouts cannot be overridden".to_owned();
                } else {
                    opening = Opening::Now;
                }
                if opening == Opening::Now && known.is_none() {
                    self.note_override(what, reason, revision);
                }
            }
        } else if for_all.is_binding && next_allowed(&[&for_all.windows], self.snap.now) != Opening::Now {
            hint = "the windows for all Rollouts cannot be overridden".to_owned();
        }
        match opening {
            Opening::Now => Ok(()),
            Opening::At { time, zone, why } => {
                let local = time.to_zoned(zone);
                let local = local.strftime("%a %Y-%m-%d %H:%M %Q");
                Err(Wait::until(format!("{what} waits until {local}: {why}; {hint}"), time).barred())
            }
            Opening::Never { why } => Err(Wait::stall(
                reasons::CHANGE_WINDOWS_INVALID,
                format!("{what} waits, and no time within three years is allowed: {why}; change spec.changeWindows or spec.freezes, or {hint}"),
            )
            .barred()),
        }
    }

    fn note_override(&mut self, what: &str, reason: &str, revision: String) {
        // Somebody else's text: an event takes no more.
        let shown: String = reason.chars().take(500).collect();
        let annotations = self.snap.rollout.metadata.annotations.as_ref();
        let by = annotations.and_then(|a| a.get(keys::OVERRIDE_WINDOWS_BY)).cloned().unwrap_or_default();
        let who = if by.is_empty() { String::new() } else { format!(", says {by}") };
        self.warn(reasons::CHANGE_WINDOW_OVERRIDDEN, format!("{what} begins outside the change windows{who}: {shown}"));
        let time = Some(MetaTime(whole_second_after(self.snap.now)));
        self.status.change_window_override = Some(WindowOverride { reason: reason.to_owned(), by, revision, time });
    }
}

impl TryFrom<&ClusterWindows> for ForAll {
    type Error = SpecError;

    fn try_from(read: &ClusterWindows) -> Result<ForAll, SpecError> {
        let windows = Windows::read("", &read.change_windows, &read.freezes)?;
        Ok(ForAll { windows, is_binding: read.is_binding })
    }
}

#[cfg(test)]
mod tests;
