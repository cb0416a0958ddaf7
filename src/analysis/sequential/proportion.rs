//! Two proportions, interval by interval.

use super::{Judgement, LimitError, Limits, evidence::add_logs, words};
use crate::api::comparison::{Counts, Past, ProportionsState, Scales};

/// Beyond this a number that a server sends is no count of requests.
const MOST_REQUESTS: f64 = 1e15;

impl Counts {
    /// As many as this; there are never more failures than requests.
    pub fn new(failures: u64, requests: u64) -> Counts {
        Counts { requests, failures: failures.min(requests) }
    }

    /// From numbers that a metrics server returned: they may have fractions, as `increase()` extrapolates. `None` for
    /// what is no count: NaN, infinity, negative or absurdly large numbers, clearly more failures than requests.
    pub fn from_numbers(failures: f64, requests: f64) -> Option<Counts> {
        let count = |n: f64| (0.0..=MOST_REQUESTS).contains(&n).then(|| n.round() as u64);
        let (few, all) = (count(failures)?, count(requests)?);
        (failures <= requests * 1.05 + 1.0).then(|| Counts::new(few, all))
    }

    /// What was counted since an earlier reading of the same counters. A counter that is lower than before was reset:
    /// all that it says is new.
    pub fn since(self, earlier: Counts) -> Counts {
        if self.requests < earlier.requests || self.failures < earlier.failures {
            return Counts::new(self.failures, self.requests);
        }
        Counts::new(self.failures - earlier.failures, self.requests - earlier.requests)
    }

    pub(super) fn add(&mut self, more: Counts) {
        self.requests = self.requests.saturating_add(more.requests);
        self.failures = self.failures.saturating_add(more.failures);
    }

    pub(super) fn rate(self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.failures as f64 / self.requests as f64 }
    }
}

/// Requests that are remembered.
const MEMORY: f64 = 5_000.0;

/// Rates are kept away from 0 and 1: nothing that was seen makes the other outcome impossible.
const EDGE: f64 = 1e-5;

impl Past {
    fn add(&mut self, counts: Counts) {
        self.requests += counts.requests as f64;
        self.failures += counts.failures as f64;
        if self.requests > MEMORY {
            let part = MEMORY / self.requests;
            // Few digits are enough, and status is read by people.
            self.requests = MEMORY;
            self.failures = (self.failures * part * 100.0).round() / 100.0;
        }
    }

    /// Before anything was seen, 1 %.
    fn rate(&self) -> f64 {
        ((self.failures + 0.2) / (self.requests + 20.0)).clamp(EDGE, 1.0 - EDGE)
    }

    /// Logarithm of how likely it is under a rate.
    fn likelihood(&self, rate: f64) -> f64 {
        self.failures * rate.ln() + (self.requests - self.failures) * (1.0 - rate).ln()
    }
}

/// Compares two shares of failed requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Proportions {
    limits: Limits,
    state: ProportionsState,
}

/// More requests of one interval say no more than so many: it is enough, and the arithmetic stays exact.
const BLOCK: f64 = 1e8;

impl Proportions {
    /// Before the first look.
    pub fn new(limits: Limits) -> Result<Proportions, LimitError> {
        limits.check(1.0)?;
        let scales = Scales::new(limits.tolerance, limits.effect, 1.0);
        Ok(Proportions { limits, state: ProportionsState { scales, ..ProportionsState::default() } })
    }

    /// Goes on from what was kept. A state of other limits is of no use; the comparison begins anew then.
    pub fn resume(limits: Limits, state: ProportionsState) -> Result<Proportions, LimitError> {
        let fresh = Proportions::new(limits)?;
        Ok(if state.scales.fits(&fresh.state.scales) { Proportions { limits, state } } else { fresh })
    }

    /// What to keep until the next look.
    pub fn state(&self) -> &ProportionsState {
        &self.state
    }

    /// Begins anew, knowing what rates to expect.
    pub fn renew(&mut self) {
        let (canary_past, stable_past) = (self.state.canary_past, self.state.stable_past);
        let scales = Scales::new(self.limits.tolerance, self.limits.effect, 1.0);
        self.state = ProportionsState { canary_past, stable_past, scales, ..ProportionsState::default() };
    }

    #[cfg(test)]
    pub(super) fn bare(limits: Limits) -> Proportions {
        let scales = Scales::bare(limits.tolerance, limits.effect);
        Proportions { limits, state: ProportionsState { scales, ..ProportionsState::default() } }
    }

    #[cfg(test)]
    pub(super) fn evidence(&self) -> (f64, f64) {
        let scales = &self.state.scales;
        (scales.worse[0].log(self.state.looks), scales.harmless[0].log(self.state.looks))
    }

    /// Takes in one interval. Both counts are of the same time.
    pub fn look(&mut self, canary: Counts, stable: Counts) {
        let (canary, stable) =
            (Counts::new(canary.failures, canary.requests), Counts::new(stable.failures, stable.requests));
        let state = &mut self.state;
        state.canary.add(canary);
        state.stable.add(stable);
        state.waiting_canary.add(canary);
        state.waiting_stable.add(stable);
        let (canary, stable) = (state.waiting_canary, state.waiting_stable);
        if canary.requests == 0 || stable.requests == 0 {
            return;
        }
        (state.waiting_canary, state.waiting_stable) = Default::default();
        state.looks = state.looks.saturating_add(1);
        let block = Block::new(canary, stable, self.limits.burst);
        let guess = Guess { effect: self.limits.effect, canary: state.canary_past, stable: state.stable_past };
        for evidence in &mut state.scales.worse {
            evidence.take(state.looks, guess.gain(&block, evidence.margin, Guess::worse));
        }
        for evidence in &mut state.scales.harmless {
            evidence.take(state.looks, guess.gain(&block, evidence.margin, Guess::harmless));
        }
        state.canary_past.add(canary);
        state.stable_past.add(stable);
    }

    /// What is shown now. `what` names the share in the message, as in "errors".
    pub fn judge(&self, what: &str) -> Judgement {
        let (limits, state) = (&self.limits, &self.state);
        words::judge(
            limits,
            &state.scales,
            state.looks,
            &words::Seen {
                what,
                canary: (state.canary.rate(), state.canary.requests),
                stable: (state.stable.rate(), state.stable.requests),
                unit: words::Unit::Share,
            },
        )
    }
}

/// The counts of one interval, weighed.
struct Block {
    canary: (f64, f64),
    stable: (f64, f64),
    weight: f64,
}

impl Block {
    fn new(canary: Counts, stable: Counts, burst: u32) -> Block {
        let floats = |c: Counts| (c.failures as f64, c.requests as f64);
        let largest = canary.requests.max(stable.requests) as f64;
        // A power below 1 of something that is expected to be at most 1 is expected to be at most 1, too.
        let weight = (BLOCK / largest).min(1.0) / f64::from(burst.max(1));
        Block { canary: floats(canary), stable: floats(stable), weight }
    }

    /// Logarithm of the e-variable for "the rates are `stable` and `canary`" against all pairs with a difference on
    /// the harmless side of `margin`: the likelihood ratio to the nearest of these pairs. They form a convex set, and
    /// the expected ratio is a concave function of the true rates with its maximum, 1, at that nearest pair; so it is
    /// at most 1 on the whole set, also where every request has a rate of its own.
    fn gain(&self, stable: f64, canary: f64, margin: f64) -> f64 {
        let Some(nearest) = nearest(self.stable.1, stable, self.canary.1, canary, margin) else { return 0.0 };
        let part = |(failures, requests): (f64, f64), rate: f64, null: f64| {
            let term = |n: f64, ratio: f64| if n > 0.0 { n * ratio } else { 0.0 };
            term(failures, (rate / null).ln()) + term(requests - failures, ((1.0 - rate) / (1.0 - null)).ln())
        };
        self.weight * (part(self.stable, stable, nearest) + part(self.canary, canary, nearest + margin))
    }
}

/// The stable rate of the pair on the line `canary = stable + margin` that is nearest to the pair `(a, c)` in weighted
/// Kullback-Leibler divergence. `None` where the line leaves the unit square.
fn nearest(stable_requests: f64, a: f64, canary_requests: f64, c: f64, margin: f64) -> Option<f64> {
    if margin == 0.0 {
        return Some((stable_requests * a + canary_requests * c) / (stable_requests + canary_requests));
    }
    // The divergence falls towards both ends' own rates, so that it is smallest between them.
    let (mut low, mut high) = if c - margin > a { (a, c - margin) } else { (c - margin, a) };
    (low, high) = (low.max(0.0), high.min(1.0 - margin));
    if low >= high {
        return (low == high && low > 0.0 && low + margin < 1.0).then_some(low);
    }
    let mut at =
        ((stable_requests * a + canary_requests * (c - margin)) / (stable_requests + canary_requests)).clamp(low, high);
    for _ in 0..80 {
        let (s, k) = (at * (1.0 - at), (at + margin) * (1.0 - at - margin));
        let (p, q) = (at - a, at + margin - c);
        let slope = stable_requests * p / s + canary_requests * q / k;
        if slope > 0.0 {
            high = at;
        } else if slope < 0.0 {
            low = at;
        } else {
            break;
        }
        let bend = stable_requests * (s - p * (1.0 - 2.0 * at)) / (s * s)
            + canary_requests * (k - q * (1.0 - 2.0 * (at + margin))) / (k * k);
        let newton = at - slope / bend;
        let next = if newton > low && newton < high { newton } else { f64::midpoint(low, high) };
        let is_there = (next - at).abs() <= 1e-14 * at || high - low <= 1e-15;
        at = next;
        if is_there {
            break;
        }
    }
    (at > 0.0 && at + margin < 1.0).then_some(at)
}

/// What is bet on, from earlier intervals alone.
struct Guess {
    effect: f64,
    canary: Past,
    stable: Past,
}

/// Logarithm of a weight and the pair of rates (stable, canary).
type Bet = (f64, f64, f64);

impl Guess {
    /// Rates of the stable version that are believed in.
    fn baselines(&self) -> Vec<f64> {
        let mut rates = vec![self.stable.rate()];
        if self.stable.requests < 200.0 {
            rates.extend([0.001, 0.01, 0.05, 0.2, 0.6]);
        }
        rates
    }

    /// Canaries that are worse by more than the margin.
    fn worse(&self, stable: f64, margin: f64) -> Vec<(f64, f64)> {
        let from = stable + margin;
        let room = 1.0 - from;
        let steps = [(0.25, 1.0), (0.3, 2.0), (0.25, 5.0), (0.1, 15.0)].map(|(weight, n)| (weight, n * self.effect));
        let all = steps.into_iter().filter(|(_, step)| *step < room).chain([(0.1, room * 0.6)]);
        all.filter(|_| room > EDGE).map(|(weight, step)| (weight, from + step)).collect()
    }

    /// Canaries that are as good as the stable version, or worse by far less than the margin.
    fn harmless(&self, stable: f64, margin: f64) -> Vec<(f64, f64)> {
        [(0.7, stable), (0.3, stable + margin / 3.0)].into_iter().filter(|(_, c)| *c < 1.0 - EDGE).collect()
    }

    /// The gain of all bets together: their mean by what earlier intervals made of them.
    fn gain(&self, block: &Block, margin: f64, canaries: fn(&Guess, f64, f64) -> Vec<(f64, f64)>) -> f64 {
        let bets: Vec<Bet> = (self.baselines().into_iter())
            .flat_map(|stable| {
                let belief = self.stable.likelihood(stable);
                let canaries = canaries(self, stable, margin).into_iter();
                canaries.map(move |(weight, c)| (weight.ln() + belief + self.canary.likelihood(c), stable, c))
            })
            .collect();
        let sum = |logs: &mut dyn Iterator<Item = f64>| logs.fold(f64::NEG_INFINITY, add_logs);
        let total = sum(&mut bets.iter().map(|(weight, ..)| *weight));
        if bets.is_empty() || !total.is_finite() {
            return 0.0;
        }
        sum(&mut bets.iter().map(|(weight, stable, canary)| weight - total + block.gain(*stable, *canary, margin)))
    }
}
