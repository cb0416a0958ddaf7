//! Evidence against one hypothesis, gathered look by look.

use crate::api::comparison::{Evidence, Scales};

/// Part of the evidence that is staked from the first look; the rest is kept for canaries that get worse later.
const AT_ONCE: f64 = 0.8;

/// The part that is kept from betting at each look, so that one bad hour of both versions does not end all hope.
const KEPT: f64 = 0.02;

/// Far more than any threshold; keeps the stored number finite.
const CEILING: f64 = 1e4;

impl Evidence {
    pub(super) fn new(margin: f64) -> Evidence {
        Evidence { margin, staked: None }
    }

    /// Takes in the look with this number, counted from 1. `gain` is the logarithm of a value that is expected to be
    /// at most 1 if the hypothesis holds, whatever was seen before.
    pub(super) fn take(&mut self, look: u32, gain: f64) {
        let look = f64::from(look.max(1));
        let fresh = if look > 1.0 { (1.0 - AT_ONCE) / (look * (look - 1.0)) } else { AT_ONCE };
        let before = self.staked.unwrap_or(f64::NEG_INFINITY);
        let gain = add_logs(gain + (1.0 - KEPT).ln(), KEPT.ln());
        let sum = (add_logs(before, fresh.ln()) + gain).clamp(-CEILING, CEILING);
        // Stored with few digits, rounded to the safe side.
        self.staked = Some(if sum.is_finite() { (sum * 1e4).floor() / 1e4 } else { -CEILING });
    }

    /// Logarithm of the evidence after this number of looks: what is staked and what is kept for later.
    pub(super) fn log(&self, looks: u32) -> f64 {
        let kept = if looks == 0 { 1.0 } else { (1.0 - AT_ONCE) / f64::from(looks) };
        add_logs(self.staked.unwrap_or(f64::NEG_INFINITY), kept.ln())
    }

    /// The hypothesis may be dropped, at this rate of error.
    pub(super) fn is_enough(&self, looks: u32, error: f64) -> bool {
        self.log(looks) >= -error.ln()
    }
}

/// `ln(e^a + e^b)`.
pub(super) fn add_logs(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Margins for which evidence is kept beside the one that decides, as parts of the range: they say *how much* worse.
const MARGINS: [f64; 10] = [0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

impl Scales {
    pub(super) fn new(tolerance: f64, effect: f64, range: f64) -> Scales {
        let margins = MARGINS.map(|part| part * range);
        let above = margins.into_iter().filter(|m| *m > tolerance);
        let others = margins.into_iter().rev().filter(|m| *m > 0.0);
        Scales {
            worse: [tolerance].into_iter().chain(above).map(Evidence::new).collect(),
            harmless: [effect].into_iter().chain(others).map(Evidence::new).collect(),
        }
    }

    /// Whether it was gathered for the same margins.
    pub(super) fn fits(&self, other: &Scales) -> bool {
        // Numbers may change in their last digit on their way through JSON.
        let fit = |ours: &[Evidence], theirs: &[Evidence]| {
            let pairs = || ours.iter().zip(theirs);
            ours.len() == theirs.len() && pairs().all(|(a, b)| (a.margin - b.margin).abs() <= 1e-9 * a.margin.abs())
        };
        fit(&self.worse, &other.worse) && fit(&self.harmless, &other.harmless)
    }

    /// Only what decides.
    #[cfg(test)]
    pub(super) fn bare(tolerance: f64, effect: f64) -> Scales {
        Scales { worse: vec![Evidence::new(tolerance)], harmless: vec![Evidence::new(effect)] }
    }

    pub(super) fn is_worse(&self, looks: u32, error: f64) -> bool {
        self.worse.first().is_some_and(|e| e.is_enough(looks, error))
    }

    pub(super) fn is_harmless(&self, looks: u32, error: f64) -> bool {
        self.harmless.first().is_some_and(|e| e.is_enough(looks, error))
    }

    /// The difference is more than this. Margins are asked in order up to the first that stands, so that only one of
    /// them can be wrong.
    pub(super) fn at_least(&self, looks: u32, error: f64) -> Option<f64> {
        self.worse.iter().take_while(|e| e.is_enough(looks, error)).last().map(|e| e.margin)
    }

    /// The difference is less than this.
    pub(super) fn below(&self, looks: u32, error: f64) -> Option<f64> {
        let mut margins = self.harmless.iter();
        let decides = margins.next().filter(|e| e.is_enough(looks, error)).map(|e| e.margin);
        let told = margins.take_while(|e| e.is_enough(looks, error)).last().map(|e| e.margin);
        match (decides, told) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
