//! Two quantiles, by counting what lies above a boundary.

use super::{Counts, Judgement, LimitError, Limits, Proportions, ProportionsState, words::grouped};
use crate::api::comparison::{Bucket, Histogram};

impl Histogram {
    /// From cumulative counts in any order, as Prometheus keeps them. A count that is lower than one of a smaller bound, as
    /// scrapes of several pods may make it, is raised to it. `None` without the infinite bound, or with a bound twice.
    pub fn cumulative(counts: impl IntoIterator<Item = (f64, u64)>) -> Option<Histogram> {
        let mut bounds: Vec<(f64, u64)> = counts.into_iter().collect();
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut least = 0;
        for (_, count) in &mut bounds {
            least = least.max(*count);
            *count = least;
        }
        let (last, requests) = bounds.pop()?;
        let is_sound = last == f64::INFINITY
            && bounds.iter().all(|(bound, _)| bound.is_finite())
            && bounds.iter().zip(bounds.iter().skip(1)).all(|(a, b)| a.0 < b.0);
        let buckets = bounds.into_iter().map(|(le, count)| Bucket { le, count }).collect();
        is_sound.then_some(Histogram { requests, buckets })
    }

    /// Adds what was counted later. `false`, and nothing added, if the bounds are others.
    fn add(&mut self, more: &Histogram) -> bool {
        let are_same = self.buckets.len() == more.buckets.len()
            && self.buckets.iter().zip(&more.buckets).all(|(ours, theirs)| is_same(ours.le, theirs.le));
        if are_same {
            self.requests = self.requests.saturating_add(more.requests);
            for (ours, theirs) in self.buckets.iter_mut().zip(&more.buckets) {
                ours.count = ours.count.saturating_add(theirs.count);
            }
        }
        are_same
    }

    /// The smallest finite bound at or below which at least this part of the requests lies.
    fn boundary(&self, quantile: f64) -> Option<f64> {
        let wanted = quantile * self.requests as f64;
        self.buckets.iter().find(|bucket| bucket.count as f64 >= wanted).map(|bucket| bucket.le)
    }

    /// Requests above the boundary. `None` if no bucket ends there.
    fn above(&self, boundary: f64) -> Option<Counts> {
        let bucket = self.buckets.iter().find(|bucket| is_same(bucket.le, boundary))?;
        Some(Counts::new(self.requests.saturating_sub(bucket.count), self.requests))
    }
}

/// Bounds may change in their last digit on their way through JSON.
fn is_same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs()
}

/// What is kept between looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantilesState {
    /// What counts as slow. Absent until the stable version had enough requests to tell.
    pub slow: Option<f64>,
    /// Until then, its requests so far.
    pub before: Option<Histogram>,
    /// Slow requests of all, of both versions.
    pub shares: Option<ProportionsState>,
}

/// What came of a look.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// It counts.
    Compared,
    /// What counts as slow is not known yet.
    Choosing(String),
    /// It cannot be used, for this reason.
    Unusable(String),
}

/// Compares a quantile. What counts as slow is fixed by the stable version's first requests, or by the user; from then on it
/// is the share of slow requests that is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    quantile: f64,
    /// Requests that tell what is slow.
    enough: u64,
    slow: Option<f64>,
    before: Histogram,
    shares: Proportions,
}

impl Quantiles {
    /// Before the first look. The limits' differences are of the share of slow requests: for the 99th percentile an effect
    /// of 0.01 is twice as many of them. What counts as `slow`, if given, must be the bound of a bucket.
    pub fn new(quantile: f64, slow: Option<f64>, limits: Limits) -> Result<Quantiles, LimitError> {
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(LimitError(format!("quantile is {quantile}; it must be between 0 and 1")));
        }
        if let Some(slow) = slow.filter(|slow| !slow.is_finite()) {
            return Err(LimitError(format!("slow is {slow}; it must be a bound of the histogram")));
        }
        // One slow request is expected among so many.
        let some = (1.0 / (1.0 - quantile)).ceil().min(1e6);
        let enough = limits.least.max(some as u64);
        Ok(Quantiles { quantile, enough, slow, before: Histogram::default(), shares: Proportions::new(limits)? })
    }

    #[cfg(test)]
    pub(super) fn bare(quantile: f64, limits: Limits) -> Quantiles {
        Quantiles { shares: Proportions::bare(limits), ..Quantiles::new(quantile, None, limits).unwrap() }
    }

    /// Goes on from what was kept.
    pub fn resume(
        quantile: f64,
        slow: Option<f64>,
        limits: Limits,
        state: QuantilesState,
    ) -> Result<Quantiles, LimitError> {
        let fresh = Quantiles::new(quantile, slow.or(state.slow), limits)?;
        let shares = state.shares.map_or(Ok(fresh.shares.clone()), |shares| Proportions::resume(limits, shares))?;
        Ok(Quantiles { shares, before: state.before.unwrap_or_default(), ..fresh })
    }

    /// What to keep until the next look.
    pub fn state(&self) -> QuantilesState {
        QuantilesState {
            slow: self.slow,
            before: Some(&self.before).filter(|before| before.requests > 0).cloned(),
            shares: Some(self.shares.state().clone()),
        }
    }

    /// Begins anew, with the same boundary.
    pub fn renew(&mut self) {
        self.shares.renew();
    }

    /// Takes in one interval.
    pub fn look(&mut self, canary: &Histogram, stable: &Histogram) -> Look {
        let Some(slow) = self.slow else { return self.choose(stable) };
        match canary.above(slow).zip(stable.above(slow)) {
            Some((canary, stable)) => {
                self.shares.look(canary, stable);
                Look::Compared
            }
            None => Look::Unusable(format!("no bucket of the histogram ends at {slow}")),
        }
    }

    /// Intervals that choose are not compared, so that the boundary does not depend on what is judged by it.
    fn choose(&mut self, stable: &Histogram) -> Look {
        if !self.before.add(stable) {
            self.before = stable.clone();
        }
        let seen = self.before.requests;
        if seen < self.enough {
            return Look::Choosing(format!(
                "{} of {} requests of the stable version that tell what is slow",
                grouped(seen),
                grouped(self.enough)
            ));
        }
        let Some(slow) = self.before.boundary(self.quantile) else {
            self.before = Histogram::default();
            let part = self.quantile * 100.0;
            return Look::Unusable(format!(
                "less than {part} % of the stable version's requests are within the last bound of the histogram"
            ));
        };
        (self.slow, self.before) = (Some(slow), Histogram::default());
        Look::Choosing(format!("slow is what takes longer than {slow}"))
    }

    /// What is shown now, of a metric of this name.
    pub fn judge(&self, what: &str) -> Judgement {
        match self.slow {
            Some(slow) => self.shares.judge(&format!("{what} above {slow}:")),
            None => self.shares.judge(what),
        }
    }
}
