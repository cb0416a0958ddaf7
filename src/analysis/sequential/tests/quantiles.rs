//! Quantiles: what is slow is told by the stable version, and what the comparison of it promises.

use super::{
    super::{Histogram, Limits, Look, Quantiles, Verdict},
    Chance,
};

fn histogram(fast: u64, slow: u64) -> Histogram {
    Histogram::cumulative([(0.1, fast), (0.5, fast + slow), (f64::INFINITY, fast + slow)]).unwrap()
}

#[test]
fn a_quantile_is_compared_at_the_stable_versions_boundary() {
    let mut quantiles = Quantiles::new(0.99, None, Limits::default()).unwrap();
    let Look::Choosing(text) = quantiles.look(&histogram(1, 0), &histogram(5, 0)) else { panic!() };
    assert_eq!(text, "5 of 100 requests of the stable version that tell what is slow");
    assert!(matches!(quantiles.look(&histogram(100, 90), &histogram(990, 5)), Look::Choosing(_)));
    assert_eq!(quantiles.state().slow, Some(0.1), "of both intervals together");
    assert_eq!(quantiles.judge("times").verdict, Verdict::Undecided, "the interval that chooses is not compared");
    for _ in 0..3 {
        quantiles = Quantiles::resume(0.99, None, Limits::default(), quantiles.state()).unwrap();
        assert_eq!(quantiles.look(&histogram(92, 8), &histogram(990, 10)), Look::Compared);
    }
    let judgement = quantiles.judge("times");
    assert_eq!(judgement.verdict, Verdict::Worse);
    assert_eq!(
        judgement.message,
        "times above 0.1: 8.0 % of 300 against 1.0 % of 3,000; worse by at least 2.0 points at 99 %"
    );
    let other = Histogram::cumulative([(1.0, 5), (f64::INFINITY, 5)]).unwrap();
    assert!(matches!(quantiles.look(&other, &histogram(1, 1)), Look::Unusable(why) if why.contains("ends at 0.1")));
}

#[test]
fn what_is_no_histogram() {
    assert_eq!(Histogram::cumulative([(0.1, 1), (0.5, 2)]), None, "no infinite bound");
    assert_eq!(Histogram::cumulative([]), None);
    assert_eq!(Histogram::cumulative([(0.1, 1), (0.1, 2), (f64::INFINITY, 2)]), None, "of several pods");
    let uneven = Histogram::cumulative([(f64::INFINITY, 9), (0.5, 7), (0.1, 8)]).unwrap();
    assert_eq!(uneven.buckets.iter().map(|b| b.count).collect::<Vec<_>>(), [8, 8], "never less than below");
}

/// Bounds in seconds.
const BOUNDS: [f64; 4] = [0.1, 0.25, 0.5, 1.0];

/// Times of so many requests: log-logistic with this median, which has as long a tail as those of real services.
fn times(chance: &mut Chance, requests: u64, median: f64) -> Histogram {
    let mut above = (requests, 1.0);
    let cumulative: Vec<(f64, u64)> = BOUNDS
        .into_iter()
        .map(|bound| {
            let share = 1.0 / (1.0 + (bound / median).powi(3));
            above = (chance.failures(above.0, share / above.1).failures, share);
            (bound, requests - above.0)
        })
        .collect();
    Histogram::cumulative(cumulative.into_iter().chain([(f64::INFINITY, requests)])).unwrap()
}

/// The verdict of a release, after how many intervals, and after how many requests of the canary.
fn release(
    chance: &mut Chance,
    looks: usize,
    limits: Limits,
    requests: (u64, u64),
    medians: (f64, f64),
) -> (Verdict, usize, u64) {
    let mut quantiles = Quantiles::bare(0.95, limits);
    for look in 1..=looks {
        let canary = times(chance, requests.0, medians.0);
        quantiles.look(&canary, &times(chance, requests.1, medians.1));
        let judgement = quantiles.judge("times");
        if judgement.verdict != Verdict::Undecided {
            return (judgement.verdict, look, judgement.canary_samples);
        }
    }
    (Verdict::Undecided, looks, 0)
}

#[test]
fn false_alarms_of_latency_stay_under_the_bound_over_ten_thousand_null_releases() {
    // The effect is out of reach, so that no release ends early as not worse.
    let limits = Limits { false_alarm: 0.05, missed: 1e-6, effect: 0.05, ..Limits::default() };
    println!("| p95 of log-logistic times, 12 looks | releases | called worse | bound |");
    for (seed, (name, count, requests, rises)) in [
        ("10 of 100 requests", 10_000, (10, 90), false),
        ("a bad hour of both versions", 1_000, (20, 80), true),
        ("1 of 10 requests", 1_000, (1, 9), false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut chance = Chance(seed as u64 + 50);
        let mut worse = 0;
        for _ in 0..count {
            let mut quantiles = Quantiles::bare(0.95, limits);
            let is_worse = (0..12).any(|look| {
                let median = if rises && look > 4 { 0.12 } else { 0.04 };
                let canary = times(&mut chance, requests.0, median);
                quantiles.look(&canary, &times(&mut chance, requests.1, median));
                quantiles.judge("times").verdict == Verdict::Worse
            });
            worse += usize::from(is_worse);
        }
        println!("| {name} | {count} | {:.2} % | 5 % |", worse as f64 * 100.0 / count as f64);
        assert!(worse * 20 <= count, "{name}: {worse} of {count}");
    }
}

#[test]
fn a_slow_canary_is_found_within_so_many_requests() {
    // As the API has it: half as many slow requests again matter.
    let limits = Limits { effect: 0.025, ..Limits::default() };
    println!("| p95, a tenth of 200 requests to the canary | verdict | median requests of the canary | otherwise |");
    for (seed, (name, factor, wanted, most)) in [
        ("three times as slow", 3.0, Verdict::Worse, 150),
        ("twice as slow", 2.0, Verdict::Worse, 600),
        ("as fast", 1.0, Verdict::NotWorse, 1_500),
    ]
    .into_iter()
    .enumerate()
    {
        let mut chance = Chance(seed as u64 + 60);
        let runs: Vec<_> =
            (0..60).map(|_| release(&mut chance, 200, limits, (20, 180), (0.04 * factor, 0.04))).collect();
        let mut needed: Vec<u64> = runs.iter().filter(|run| run.0 == wanted).map(|run| run.2).collect();
        needed.sort_unstable();
        let median = needed.get(30).copied().unwrap_or(u64::MAX);
        println!("| {name} | {wanted:?} | {median} | {} of 60 |", 60 - needed.len());
        assert!(needed.len() >= 55 && median <= most, "{name}: {median}, {needed:?}");
    }
}

#[test]
fn latency_at_one_request_a_minute() {
    // Looks of an hour: six requests of the canary, 54 of the stable version.
    let limits = Limits { effect: 0.05, ..Limits::default() };
    println!("| p95 at 1 request a minute, a tenth to the canary, intervals of an hour | median hours | otherwise |");
    for (seed, (name, factor, wanted, most)) in
        [("four times as slow", 4.0, Verdict::Worse, 24), ("as fast", 1.0, Verdict::NotWorse, 72)]
            .into_iter()
            .enumerate()
    {
        let mut chance = Chance(seed as u64 + 70);
        let runs: Vec<_> =
            (0..60).map(|_| release(&mut chance, 7 * 24, limits, (6, 54), (0.04 * factor, 0.04))).collect();
        let mut needed: Vec<usize> = runs.iter().filter(|run| run.0 == wanted).map(|run| run.1).collect();
        needed.sort_unstable();
        let median = needed.get(30).copied().unwrap_or(usize::MAX);
        println!("| {name}, {wanted:?} | {median} | {} of 60 |", 60 - needed.len());
        assert!(median <= most, "{name}: {median}, {needed:?}");
    }
    // Looks of a minute choose together what is slow.
    let mut quantiles = Quantiles::new(0.95, None, limits).unwrap();
    let one = Histogram::cumulative([(0.1, 1), (f64::INFINITY, 1)]).unwrap();
    let none = Histogram::cumulative([(0.1, 0), (f64::INFINITY, 0)]).unwrap();
    let chosen = (1..).find(|_| (quantiles.look(&none, &one), quantiles.state().slow.is_some()).1);
    assert_eq!(chosen, Some(20));
    assert_eq!(quantiles.look(&one, &none), Look::Compared);
}
