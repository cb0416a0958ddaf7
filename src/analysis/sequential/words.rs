//! A verdict in words.

use super::{Judgement, Limits, Verdict};
use crate::api::comparison::Scales;

/// What was seen of both versions: mean or share, and samples.
pub(super) struct Seen<'a> {
    pub what: &'a str,
    pub canary: (f64, u64),
    pub stable: (f64, u64),
    pub unit: Unit<'a>,
}

/// How a value is printed.
pub(super) enum Unit<'a> {
    /// A part of one.
    Share,
    /// In the metric's own unit.
    Own(&'a str),
}

impl Unit<'_> {
    fn value(&self, value: f64) -> String {
        match self {
            Unit::Share => format!("{} %", number(value * 100.0)),
            Unit::Own(unit) => format!("{}{unit}", number(value)),
        }
    }

    fn difference(&self, value: f64) -> String {
        match self {
            Unit::Share => format!("{} points", number(value * 100.0)),
            Unit::Own(unit) => format!("{}{unit}", number(value)),
        }
    }

    fn samples(&self) -> &'static str {
        match self {
            Unit::Share => "requests",
            Unit::Own(_) => "intervals",
        }
    }
}

/// With as many digits as one reads: two of a small number, one decimal of others, and no zeros that say nothing.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 10.0 || v == 0.0 => 1,
        v if v >= 0.95 => 1,
        v if v >= 0.095 => 2,
        v if v >= 0.0095 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    // "1.0" tells of the precision; "0.40" tells no more than "0.4".
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

/// `2070` as `2,070`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.01` as `99 %`.
fn confidence(error: f64) -> String {
    format!("{} %", number((1.0 - error) * 100.0).trim_end_matches(".0"))
}

pub(super) fn judge(limits: &Limits, scales: &Scales, looks: u32, seen: &Seen<'_>) -> Judgement {
    let has_least = seen.canary.1 >= limits.least && seen.stable.1 >= limits.least;
    let verdict = match (scales.is_worse(looks, limits.alarm()), scales.is_harmless(looks, limits.missed)) {
        _ if !has_least => Verdict::Undecided,
        (_, true) => Verdict::NotWorse,
        (true, false) => Verdict::Worse,
        (false, false) => Verdict::Undecided,
    };
    let at_least = scales.at_least(looks, limits.alarm());
    let below = scales.below(looks, limits.missed);
    let is_exhausted = verdict == Verdict::Undecided && limits.most.is_some_and(|most| seen.canary.1 >= most);
    let unit = &seen.unit;
    let figures = match unit {
        Unit::Share => format!(
            "{} {} of {} against {} of {}",
            seen.what,
            unit.value(seen.canary.0),
            grouped(seen.canary.1),
            unit.value(seen.stable.0),
            grouped(seen.stable.1)
        ),
        Unit::Own(_) => format!(
            "{} {} against {} in {} intervals",
            seen.what,
            unit.value(seen.canary.0),
            unit.value(seen.stable.0),
            grouped(seen.canary.1)
        ),
    };
    let conclusion = match verdict {
        Verdict::Worse => match at_least.filter(|by| *by > 0.0) {
            Some(by) => format!("worse by at least {} at {}", unit.difference(by), confidence(limits.false_alarm)),
            None => format!("worse at {}", confidence(limits.false_alarm)),
        },
        Verdict::NotWorse => format!(
            "not worse by {} or more at {}",
            unit.difference(below.unwrap_or(limits.effect)),
            confidence(limits.missed)
        ),
        Verdict::Undecided if !has_least => {
            format!("at least {} {} of each version are needed", grouped(limits.least), unit.samples())
        }
        Verdict::Undecided if is_exhausted => {
            format!("not clear after {} {}, which is the limit", grouped(seen.canary.1), unit.samples())
        }
        Verdict::Undecided => match below {
            Some(below) => {
                format!("not clear yet; worse by less than {} at {}", unit.difference(below), confidence(limits.missed))
            }
            None => "not clear yet".to_owned(),
        },
    };
    Judgement {
        verdict,
        canary: seen.canary.0,
        stable: seen.stable.0,
        canary_samples: seen.canary.1,
        stable_samples: seen.stable.1,
        at_least,
        below,
        is_exhausted,
        message: format!("{figures}; {conclusion}"),
    }
}
