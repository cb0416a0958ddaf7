//! Compares the canary with the stable version so that one may look after every interval and stop at any of them.
//!
//! A test that is made for one look at the end is wrong far more often than it says when it is asked again and again.
//! Here the evidence of every margin is a *test martingale*: as long as the canary is no worse than the margin allows,
//! its expected value never grows, so by Ville's inequality it reaches `1/α` with probability at most `α`, over all
//! looks together and however the number of looks was chosen.
//!
//! - [`Proportions`]: requests that failed, of requests; one interval is one block of a stratified two-sample test.
//!   An interval is judged by itself, so a rate that changes for both versions (a bad hour, a share of traffic that was
//!   raised in between) is no evidence against either.
//! - [`Quantiles`]: requests slower than what was the quantile of the stable version when the comparison began. Nothing has to
//!   be assumed about how times are spread, and no sum of squares is needed, which no metrics server has.
//! - [`Means`]: one bounded value of each version an interval.
//!
//! What is watched without an end begins anew whenever the canary was shown to be no worse, and round `n` has
//! `α / (n (n + 1))` of the chance to be wrong, which is `α` in all: so what was good for long does not outweigh what is bad now.
//!
//! Sources: block-wise e-variables for two proportions and their null hypotheses with a margin: R. Turner, A. Ly,
//! P. Grünwald, *Generic E-variables for exact sequential k-sample tests that allow for optional stopping* (2021) and
//! R. Turner, P. Grünwald, *Exact anytime-valid confidence intervals for contingency tables and beyond* (2022). Bounded
//! means by betting: I. Waudby-Smith, A. Ramdas, *Estimating means of bounded random variables by betting* (2023).
//! What is assumed: within an interval requests fail independently of one another; [`Limits::burst`] is for those that
//! do not.

mod evidence;
mod mean;
mod proportion;
mod quantile;
#[cfg(test)]
mod tests;
mod words;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use mean::Means;
pub use proportion::Proportions;
pub use quantile::{Look, Quantiles, QuantilesState};

pub use crate::api::comparison::{Counts, Histogram, MeansState, ProportionsState};

/// What a comparison says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// The canary is worse than the tolerance allows.
    Worse,
    /// A difference as large as the effect is ruled out.
    NotWorse,
    /// Neither is shown yet.
    Undecided,
}

/// How sure one wants to be, and of what. Differences are parts of one (0.01 is one percentage point), for means the
/// metric's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Chance that a canary that is no worse is ever called [`Verdict::Worse`]. Default 0.01: one release in a hundred.
    pub false_alarm: f64,
    /// Chance that a canary that is worse by `effect` is ever called [`Verdict::NotWorse`]. Default 0.05.
    pub missed: f64,
    /// The smallest difference that matters. A canary that is shown to be worse, but by less, is called not worse.
    /// Default 0.01.
    pub effect: f64,
    /// How much worse a canary may be that still counts as no worse. Smaller than `effect`. Default 0.
    pub tolerance: f64,
    /// Samples of each version before there is any verdict: requests, for means intervals. Default 20.
    pub least: u64,
    /// Samples of the canary after which waiting longer is given up; the verdict may still be `Undecided`.
    pub most: Option<u64>,
    /// How many requests fail together, as by a client's retries: evidence counts so many times less. Default 1.
    pub burst: u32,
    /// The round of a comparison without an end, from 1, of which each has its part of `false_alarm`; 0: there is one only.
    #[serde(skip)]
    pub round: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            false_alarm: 0.01,
            missed: 0.05,
            effect: 0.01,
            tolerance: 0.0,
            least: 20,
            most: None,
            burst: 1,
            round: 0,
        }
    }
}

/// A limit that makes no sense. The message names it and what it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LimitError(String);

impl Limits {
    /// The part of `false_alarm` that this round may use.
    fn alarm(&self) -> f64 {
        match f64::from(self.round) {
            0.0 => self.false_alarm,
            round => self.false_alarm / (round * (round + 1.0)),
        }
    }

    /// Checks limits for differences up to `range`: 1 for proportions.
    pub fn check(&self, range: f64) -> Result<(), LimitError> {
        let between = |name: &str, value: f64, low: f64, high: f64| {
            (value >= low && value <= high)
                .then_some(())
                .ok_or_else(|| LimitError(format!("{name} is {value}; it must be from {low} to {high}")))
        };
        if !(range > 0.0 && range.is_finite()) {
            return Err(LimitError(format!("range is {range}; its max must be above its min")));
        }
        between("falseAlarm", self.false_alarm, 1e-6, 0.5)?;
        between("missed", self.missed, 1e-6, 0.5)?;
        between("effect", self.effect, range * 1e-6, range * 0.9)?;
        between("tolerance", self.tolerance, 0.0, range * 0.9)?;
        if self.tolerance >= self.effect {
            return Err(LimitError(format!(
                "tolerance is {} and effect {}; the tolerance must be the smaller one",
                self.tolerance, self.effect
            )));
        }
        if self.burst == 0 {
            return Err(LimitError("burst is 0; it must be at least 1".to_owned()));
        }
        Ok(())
    }
}

/// A verdict with what a person needs to believe it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// What is shown.
    pub verdict: Verdict,
    /// Mean or share of the canary so far.
    pub canary: f64,
    /// Mean or share of the stable version so far.
    pub stable: f64,
    /// Samples of the canary so far.
    pub canary_samples: u64,
    /// Samples of the stable version so far.
    pub stable_samples: u64,
    /// The canary is worse by at least this, with confidence `1 - falseAlarm`; absent while that is not shown of any
    /// difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The canary is worse by less than this, with confidence `1 - missed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// As many samples of the canary were seen as the user wants to wait for.
    pub is_exhausted: bool,
    /// All of it as a sentence.
    pub message: String,
}
