//! Two means of bounded values, one value of each version an interval.

use super::{Judgement, LimitError, Limits, words};
use crate::api::comparison::{MeansState, Scales};

/// Compares the means of a value that is bad when it is high.
#[derive(Clone, Debug, PartialEq)]
pub struct Means {
    limits: Limits,
    low: f64,
    high: f64,
    state: MeansState,
}

/// No bet risks more than this part.
const BOLDEST: f64 = 0.9;

impl Means {
    /// Values lie from `low` to `high`; those outside count as the nearer end. The limits' differences have the
    /// values' unit, and their samples are intervals.
    pub fn new(low: f64, high: f64, limits: Limits) -> Result<Means, LimitError> {
        limits.check(high - low)?;
        let scales = Scales::new(limits.tolerance, limits.effect, high - low);
        Ok(Means { limits, low, high, state: MeansState { scales, ..MeansState::default() } })
    }

    /// Goes on from what was kept; anew if that was kept for other limits.
    pub fn resume(low: f64, high: f64, limits: Limits, state: MeansState) -> Result<Means, LimitError> {
        let fresh = Means::new(low, high, limits)?;
        Ok(if state.scales.fits(&fresh.state.scales) { Means { state, ..fresh } } else { fresh })
    }

    /// What to keep until the next look.
    pub fn state(&self) -> &MeansState {
        &self.state
    }

    /// Begins anew.
    pub fn renew(&mut self) {
        let scales = Scales::new(self.limits.tolerance, self.limits.effect, self.high - self.low);
        self.state = MeansState { scales, ..MeansState::default() };
    }

    /// Takes in the values of one interval. `false` if one is no number.
    pub fn look(&mut self, canary: f64, stable: f64) -> bool {
        if canary.is_nan() || stable.is_nan() {
            return false;
        }
        let (canary, stable) = (canary.clamp(self.low, self.high), stable.clamp(self.low, self.high));
        let (difference, range) = (canary - stable, self.high - self.low);
        let state = &mut self.state;
        let looks = f64::from(state.looks);
        let seen = Seen { looks, sum: state.canary - state.stable, squares: state.squares };
        state.looks = state.looks.saturating_add(1);
        for evidence in &mut state.scales.worse {
            let scale = range + evidence.margin;
            let stake = seen.stake(evidence.margin, scale, 1.0, self.limits.effect);
            evidence.take(state.looks, (stake * (difference - evidence.margin) / scale).ln_1p());
        }
        for evidence in &mut state.scales.harmless {
            let scale = range + evidence.margin;
            let stake = seen.stake(evidence.margin, scale, -1.0, evidence.margin);
            evidence.take(state.looks, (stake * (evidence.margin - difference) / scale).ln_1p());
        }
        state.canary += canary;
        state.stable += stable;
        state.squares += difference * difference;
        true
    }

    /// What is shown now.
    pub fn judge(&self, what: &str, unit: &str) -> Judgement {
        let (state, looks) = (&self.state, f64::from(self.state.looks.max(1)));
        words::judge(
            &self.limits,
            &state.scales,
            state.looks,
            &words::Seen {
                what,
                canary: (state.canary / looks, u64::from(state.looks)),
                stable: (state.stable / looks, u64::from(state.looks)),
                unit: words::Unit::Own(unit),
            },
        )
    }
}

/// Differences of earlier looks.
struct Seen {
    looks: f64,
    sum: f64,
    squares: f64,
}

impl Seen {
    /// The part to bet on the difference being above (`sign` 1) or below (-1) the margin: the one that would have
    /// grown fastest so far, to second order. Two looks with the hoped-for difference stand for what is not known yet.
    fn stake(&self, margin: f64, scale: f64, sign: f64, hope: f64) -> f64 {
        let n = self.looks + 2.0;
        let mean = (sign * (self.sum - self.looks * margin) + 2.0 * hope) / n / scale;
        let squares = self.squares - 2.0 * margin * self.sum + self.looks * margin * margin;
        let square = (squares + 2.0 * (0.1 * scale).powi(2)) / n / (scale * scale);
        (mean / square.max(mean * mean).max(1e-12)).clamp(0.0, BOLDEST)
    }
}
