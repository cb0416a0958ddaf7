//! The shortest schedule that still shows a violation.

use super::{
    Barriers,
    script::{Gateway, Script, Style},
};

/// Takes away events, and makes the setup plainer, as long as `shows` says that the violation is still seen. At most
/// `tries` rehearsals are made.
pub fn shorten(script: &Script, tries: usize, mut shows: impl FnMut(&Script) -> bool) -> Script {
    let mut best = script.clone();
    let mut left = tries;
    let mut attempt = |candidate: Script, best: &mut Script| {
        if left == 0 || candidate == *best {
            return false;
        }
        left -= 1;
        let still = shows(&candidate);
        if still {
            *best = candidate;
        }
        still
    };
    // Chunks first, then one after the other, until nothing more can go.
    let mut size = best.events.len().div_ceil(2).max(1);
    loop {
        let mut start = 0;
        let mut is_shorter = false;
        while start < best.events.len() {
            let mut candidate = best.clone();
            candidate.events.drain(start..(start + size).min(best.events.len()));
            if attempt(candidate, &mut best) {
                is_shorter = true;
            } else {
                start += size;
            }
        }
        match (is_shorter, size) {
            (false, 1) => break,
            (false, _) => size = size.div_ceil(2),
            (true, _) => size = size.min(best.events.len().div_ceil(2).max(1)),
        }
    }
    let simpler: [fn(&mut Script); 12] = [
        |s| s.setup.is_slow = false,
        |s| s.setup.threshold = None,
        |s| s.setup.is_old_api = false,
        |s| s.setup.grace = None,
        |s| s.setup.lags = [0; 3],
        |s| (s.setup.deadline, s.setup.rolls_back) = (None, false),
        |s| s.setup.keeps_history = false,
        |s| s.setup.barriers = Barriers::default(),
        |s| (s.setup.surge, s.setup.unavailable) = ("1".to_owned(), "0".to_owned()),
        |s| s.setup.replicas = 1,
        |s| s.setup.replicas = 2,
        |s| {
            let by_subset = s.setup.style == Style::Canary;
            s.setup.gateway = if by_subset { Gateway::IstioSubset } else { Gateway::None };
        },
    ];
    for change in simpler {
        let mut candidate = best.clone();
        change(&mut candidate);
        attempt(candidate, &mut best);
    }
    while best.setup.steps.len() > 1 {
        let mut candidate = best.clone();
        candidate.setup.steps.pop();
        if !attempt(candidate, &mut best) {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::{draw, script::Kind};

    #[test]
    fn only_what_is_needed_stays() {
        let script = (0..).map(draw).find(|s| s.events.len() == 7 && s.setup.steps.len() > 2).unwrap();
        let needed: Vec<Kind> = script.events.iter().skip(2).take(2).map(|e| e.act.kind).collect();
        let shows = |s: &Script| needed.iter().all(|k| s.events.iter().any(|e| e.act.kind == *k));
        let short = shorten(&script, 1000, shows);
        assert!(short.events.len() <= 2, "{short}");
        assert_eq!((short.setup.replicas, short.setup.steps.len()), (2, 1), "{short}");
    }
}
