//! Two quantiles, by counting what lies above a boundary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Counts, Judgement, LimitError, Limits, Proportions, ProportionsState};

/// A histogram of one version in one interval, as Prometheus keeps it: how many requests took at most so long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Upper bound and number of requests at or below it; ascending, the last bound is infinite.
    bounds: Vec<(f64, u64)>,
}

impl Buckets {
    /// From cumulative counts in any order. A count that is lower than one of a smaller bound, as scrapes of several
    /// pods may make it, is raised to it.
    pub fn cumulative(counts: impl IntoIterator<Item = (f64, u64)>) -> Buckets {
        let mut bounds: Vec<(f64, u64)> = counts.into_iter().filter(|(bound, _)| !bound.is_nan()).collect();
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut least = 0;
        for (_, count) in &mut bounds {
            least = least.max(*count);
            *count = least;
        }
        Buckets { bounds }
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.bounds.last().map_or(0, |(_, count)| *count)
    }

    /// The smallest finite bound at or below which at least this part of the requests lies.
    fn boundary(&self, quantile: f64) -> Option<f64> {
        let wanted = quantile * self.requests() as f64;
        let found = self.bounds.iter().find(|(_, count)| *count as f64 >= wanted);
        found.map(|(bound, _)| *bound).filter(|bound| bound.is_finite())
    }

    /// Requests above the boundary. `None` if no bucket ends there.
    fn above(&self, boundary: f64) -> Option<Counts> {
        let (_, at_most) = self.bounds.iter().find(|(bound, _)| *bound == boundary)?;
        Some(Counts::new(self.requests() - at_most, self.requests()))
    }
}

/// Everything that is kept between looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuantilesState {
    /// What counts as slow. Absent until the stable version had enough requests to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boundary: Option<f64>,
    shares: ProportionsState,
}

/// Compares a quantile. What counts as slow is fixed by the stable version in the first interval with enough requests,
/// or by the user; from then on it is the share of slow requests that is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    quantile: f64,
    least: u64,
    boundary: Option<f64>,
    shares: Proportions,
}

impl Quantiles {
    /// The limits' differences are of the share of slow requests: for the 99th percentile an effect of 0.01 is twice as
    /// many of them. A boundary, if given, must be the bound of a bucket.
    pub fn new(quantile: f64, boundary: Option<f64>, limits: Limits) -> Result<Quantiles, LimitError> {
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(LimitError(format!("the quantile is {quantile}; it must be between 0 and 1")));
        }
        Ok(Quantiles { quantile, least: limits.least.max(1), boundary, shares: Proportions::new(limits)? })
    }

    /// Goes on from what was kept.
    pub fn resume(quantile: f64, limits: Limits, state: QuantilesState) -> Result<Quantiles, LimitError> {
        let fresh = Quantiles::new(quantile, state.boundary, limits)?;
        Ok(Quantiles { shares: Proportions::resume(limits, state.shares)?, ..fresh })
    }

    /// What to keep until the next look.
    pub fn state(&self) -> QuantilesState {
        QuantilesState { boundary: self.boundary, shares: self.shares.state().clone() }
    }

    /// What counts as slow, once it is known.
    pub fn boundary(&self) -> Option<f64> {
        self.boundary
    }

    /// Takes in one interval. `false` if it could not be used: too few requests to tell what is slow, the quantile lies
    /// above the last finite bound, or the histogram has no bucket that ends at the boundary.
    pub fn look(&mut self, canary: &Buckets, stable: &Buckets) -> bool {
        let Some(boundary) = self.boundary else {
            // The interval that chooses is not compared: its boundary was not known before it.
            self.boundary = (stable.requests() >= self.least).then(|| stable.boundary(self.quantile)).flatten();
            return self.boundary.is_some();
        };
        let Some((canary, stable)) = canary.above(boundary).zip(stable.above(boundary)) else { return false };
        self.shares.look(canary, stable);
        true
    }

    /// What is shown now. `unit` follows the boundary in the message, as in "s".
    pub fn judge(&self, unit: &str) -> Judgement {
        match self.boundary {
            Some(boundary) => self.shares.judge(&format!("slower than {boundary}{unit}:")),
            None => self.shares.judge("slow requests"),
        }
    }
}
