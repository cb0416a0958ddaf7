//! What the comparison promises, by simulation with fixed seeds and by properties. `--nocapture` prints the tables.

use proptest::prelude::*;

use super::{Buckets, Counts, Limits, Means, Proportions, Quantiles, Verdict};

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How many of `n` independent requests fail: by the gaps between failures, which is exact.
    fn failures(&mut self, n: u64, rate: f64) -> Counts {
        if rate > 0.5 {
            let kept = self.failures(n, 1.0 - rate);
            return Counts::new(n - kept.failures, n);
        }
        let (mut failures, mut at) = (0, 0.0);
        if rate <= 0.0 {
            return Counts::new(0, n);
        }
        loop {
            at += ((1.0 - self.unit()).ln() / (1.0 - rate).ln()).floor() + 1.0;
            if at > n as f64 {
                break;
            }
            failures += 1;
        }
        Counts::new(failures, n)
    }
}

/// Requests of (canary, stable) and their rates, at a look.
type World = fn(usize, &mut Chance) -> [(u64, f64); 2];

/// Of so many releases: how many were ever called worse and how many ever not worse, looking at every interval.
fn releases(count: usize, looks: usize, limits: Limits, seed: u64, world: World) -> (usize, usize) {
    let (mut worse, mut not_worse) = (0, 0);
    let mut chance = Chance(seed);
    for _ in 0..count {
        let mut comparison = Proportions::bare(limits);
        for look in 0..looks {
            let [canary, stable] = world(look, &mut chance).map(|(n, rate)| chance.failures(n, rate));
            comparison.look(canary, stable);
            match comparison.judge("errors").verdict {
                Verdict::Worse => worse += 1,
                Verdict::NotWorse => not_worse += 1,
                Verdict::Undecided => continue,
            }
            break;
        }
    }
    (worse, not_worse)
}

#[test]
fn false_alarms_stay_under_the_bound_over_ten_thousand_null_releases() {
    let worlds: [(&str, usize, World); 5] = [
        ("1 %, 10 of 100 requests", 10_000, |_, _| [(10, 0.01), (90, 0.01)]),
        ("0.1 %, 500 of 1,000", 2_000, |_, _| [(500, 0.001), (500, 0.001)]),
        ("30 %, 1 of 10", 2_000, |_, _| [(1, 0.3), (9, 0.3)]),
        ("worst moment: rate and share rise together", 2_000, |look, _| {
            let (share, rate) = if look < 5 { (5, 0.01) } else { (50, 0.08) };
            [(share, rate), (100 - share, rate)]
        }),
        ("rate drawn anew at every look", 2_000, |_, chance| {
            let rate = chance.unit() * 0.3;
            [(20, rate), (80, rate)]
        }),
    ];
    println!("| null releases, 20 looks | releases | called worse | bound |");
    // The effect is out of reach, so that no release ends early as not worse.
    let limits = Limits { false_alarm: 0.05, missed: 1e-6, effect: 0.02, ..Limits::default() };
    for (seed, (name, count, world)) in worlds.into_iter().enumerate() {
        let (worse, _) = releases(count, 20, limits, seed as u64 + 1, world);
        println!("| {name} | {count} | {:.2} % | 5 % |", worse as f64 * 100.0 / count as f64);
        assert!(worse * 20 <= count, "{name}: {worse} of {count}");
    }
}

#[test]
fn a_canary_that_is_worse_by_the_effect_is_seldom_called_not_worse() {
    let limits = Limits { missed: 0.05, effect: 0.02, ..Limits::default() };
    let (_, missed) = releases(1_000, 40, limits, 7, |_, _| [(50, 0.03), (450, 0.01)]);
    println!(
        "| worse by exactly the effect, 1 % to 3 %, 40 looks | called not worse: {:.2} % | 5 % |",
        missed as f64 / 10.0
    );
    assert!(missed <= 50, "{missed} of 1,000");
}

#[test]
fn differences_within_the_tolerance_raise_no_alarm() {
    let limits = Limits { false_alarm: 0.05, missed: 1e-6, effect: 0.03, tolerance: 0.01, ..Limits::default() };
    let (worse, _) = releases(1_000, 20, limits, 8, |_, _| [(100, 0.02), (400, 0.01)]);
    assert!(worse <= 50, "{worse} of 1,000");
}

/// Median and 90th percentile of the canary's requests until the verdict, and how many releases never came to it.
fn until(limits: Limits, wanted: Verdict, seed: u64, canary: (u64, f64), stable: (u64, f64)) -> (u64, u64, usize) {
    let mut chance = Chance(seed);
    let mut needed = Vec::new();
    let releases = 200;
    for _ in 0..releases {
        let mut comparison = Proportions::bare(limits);
        for _ in 0..400 {
            comparison.look(chance.failures(canary.0, canary.1), chance.failures(stable.0, stable.1));
            let judgement = comparison.judge("errors");
            if judgement.verdict == Verdict::Undecided {
                continue;
            }
            if judgement.verdict == wanted {
                needed.push(judgement.canary_samples);
            }
            break;
        }
    }
    let missing = releases - needed.len();
    needed.sort_unstable();
    let at = |part: f64| needed.get((part * releases as f64) as usize).copied().unwrap_or(u64::MAX);
    (at(0.5), at(0.9), missing)
}

#[test]
fn one_percent_to_three_is_found_within_so_many_requests() {
    println!("| stable → canary | share | verdict | median requests of the canary | 90 % | otherwise |");
    let limits = Limits::default();
    let rows = [
        ("1 % → 3 %", "10 %", Verdict::Worse, (20, 0.03), (180, 0.01), 700, 1_500),
        ("1 % → 3 %", "50 %", Verdict::Worse, (100, 0.03), (100, 0.01), 1_500, 2_700),
        ("1 % → 5 %", "10 %", Verdict::Worse, (20, 0.05), (180, 0.01), 270, 520),
        ("0.1 % → 50 %", "10 %", Verdict::Worse, (10, 0.5), (90, 0.001), 20, 30),
        ("0 % → 100 %", "10 %", Verdict::Worse, (10, 1.0), (90, 0.0), 20, 20),
        ("0.1 % → 0.1 %", "10 %", Verdict::NotWorse, (20, 0.001), (180, 0.001), 500, 1_100),
        ("1 % → 1 %", "10 %", Verdict::NotWorse, (20, 0.01), (180, 0.01), 1_500, 3_200),
    ];
    for (seed, (rates, share, wanted, canary, stable, median, nine)) in rows.into_iter().enumerate() {
        let (half, most, missing) = until(limits, wanted, seed as u64 + 20, canary, stable);
        println!("| {rates} | {share} | {wanted:?} | {half} | {most} | {missing} of 200 |");
        assert!(half <= median && most <= nine, "{rates} {share}: {half}, {most}");
        assert!(missing <= 10, "{rates} {share}: {missing}");
    }
}

#[test]
fn at_one_request_a_minute() {
    // A tenth for the canary: most minutes have no request of it at all and are judged together.
    let minutes = |rate: f64, wanted: Verdict| {
        let mut chance = Chance(99);
        let mut needed = Vec::new();
        for _ in 0..50 {
            let mut comparison = Proportions::bare(Limits { effect: 0.05, ..Limits::default() });
            for minute in 1..=2 * 24 * 60_u64 {
                let is_canary = chance.unit() < 0.1;
                let counts = chance.failures(1, if is_canary { rate } else { 0.01 });
                let nothing = Counts::default();
                if is_canary {
                    comparison.look(counts, nothing)
                } else {
                    comparison.look(nothing, counts)
                }
                let verdict = comparison.judge("errors").verdict;
                if verdict != Verdict::Undecided {
                    if verdict == wanted {
                        needed.push(minute);
                    }
                    break;
                }
            }
        }
        needed.sort_unstable();
        needed
    };
    println!("| 1 request a minute, a tenth to the canary, a look a minute | median minutes | never within two days |");
    for (rate, wanted, limit) in
        [(1.0, Verdict::Worse, 240), (0.2, Verdict::Worse, 900), (0.01, Verdict::NotWorse, 1_800)]
    {
        let needed = minutes(rate, wanted);
        println!("| {:.0} % errors, {wanted:?} | {} | {} of 50 |", rate * 100.0, needed[25], 50 - needed.len());
        assert!(needed[25] <= limit, "{rate}: {}", needed[25]);
    }

    println!(
        "| 1 request a minute, a tenth to the canary, intervals of an hour | median hours | never within a week |"
    );
    for (rate, wanted, limit) in [(0.5, Verdict::Worse, 6), (0.2, Verdict::Worse, 24), (0.01, Verdict::NotWorse, 72)] {
        let mut needed = Vec::new();
        let mut chance = Chance(5);
        for _ in 0..100 {
            let mut comparison = Proportions::bare(Limits { effect: 0.05, ..Limits::default() });
            for hour in 1..=7 * 24_u64 {
                comparison.look(chance.failures(6, rate), chance.failures(54, 0.01));
                let verdict = comparison.judge("errors").verdict;
                if verdict != Verdict::Undecided {
                    if verdict == wanted {
                        needed.push(hour);
                    }
                    break;
                }
            }
        }
        needed.sort_unstable();
        println!("| {:.0} % errors, {wanted:?} | {} | {} of 100 |", rate * 100.0, needed[50], 100 - needed.len());
        assert!(needed[50] <= limit, "{rate}: {}", needed[50]);
    }
}

#[test]
fn a_canary_that_gets_worse_later_is_found_after_a_bad_hour_of_both() {
    let mut comparison = Proportions::new(Limits { missed: 1e-6, effect: 0.02, ..Limits::default() }).unwrap();
    let mut chance = Chance(3);
    for look in 0..100 {
        let rate = if (40..45).contains(&look) { 0.6 } else { 0.01 };
        comparison.look(chance.failures(50, rate), chance.failures(450, rate));
        assert_ne!(comparison.judge("errors").verdict, Verdict::Worse, "look {look}");
    }
    let found = (0..60).position(|_| {
        comparison.look(chance.failures(50, 0.06), chance.failures(450, 0.01));
        comparison.judge("errors").verdict == Verdict::Worse
    });
    assert!(found.is_some_and(|looks| looks < 40), "{found:?}");
}

#[test]
fn messages_are_read_by_people() {
    let mut comparison = Proportions::new(Limits::default()).unwrap();
    comparison.look(Counts::new(0, 10), Counts::new(1, 100));
    assert_eq!(
        comparison.judge("errors").message,
        "errors 0.0 % of 10 against 1.0 % of 100; at least 20 requests of each version are needed"
    );
    comparison.look(Counts::new(1, 20), Counts::new(2, 200));
    assert_eq!(
        comparison.judge("errors").message,
        "errors 3.3 % of 30 against 1.0 % of 300; not clear yet; worse by less than 50.0 points at 95 %"
    );
    comparison.look(Counts::new(60, 400), Counts::new(18, 1_770));
    assert_eq!(
        comparison.judge("errors").message,
        "errors 14.2 % of 430 against 1.0 % of 2,070; worse by at least 5.0 points at 99 %"
    );
    let mut good = Proportions::new(Limits::default()).unwrap();
    good.look(Counts::new(10, 10_000), Counts::new(100, 100_000));
    assert_eq!(
        good.judge("errors").message,
        "errors 0.1 % of 10,000 against 0.1 % of 100,000; not worse by 0.2 points or more at 95 %"
    );
    let mut vain = Proportions::new(Limits { most: Some(50), ..Limits::default() }).unwrap();
    vain.look(Counts::new(1, 60), Counts::new(1, 60));
    assert!(vain.judge("errors").is_exhausted);
    assert!(vain.judge("errors").message.ends_with("not clear after 60 requests, which is the limit"));
}

#[test]
fn extremes_are_survived() {
    let most = u64::MAX;
    for (canary, stable, wanted) in [
        (Counts::new(most, most), Counts::new(0, most), Verdict::Worse),
        (Counts::new(0, most), Counts::new(most, most), Verdict::NotWorse),
        (Counts::new(most, most), Counts::new(most, most), Verdict::NotWorse),
        (Counts::new(0, most), Counts::new(0, most), Verdict::NotWorse),
        (Counts::new(1, 1), Counts::new(0, 1), Verdict::Undecided),
        (Counts::default(), Counts::new(0, most), Verdict::Undecided),
        // A thousandth of a point, seen beyond doubt, and far below what matters.
        (Counts::new(10_100_000, 1_000_000_000), Counts::new(10_000_000, 1_000_000_000), Verdict::NotWorse),
    ] {
        let mut comparison = Proportions::new(Limits::default()).unwrap();
        for _ in 0..3 {
            comparison.look(canary, stable);
        }
        let judgement = comparison.judge("errors");
        assert_eq!(judgement.verdict, wanted, "{canary:?} {stable:?}: {}", judgement.message);
        let kept = serde_json::to_string(comparison.state()).unwrap();
        assert!(kept.len() < 2_000, "{}", kept.len());
        let again = Proportions::resume(Limits::default(), serde_json::from_str(&kept).unwrap()).unwrap();
        assert_eq!(again.judge("errors"), judgement);
    }
}

#[test]
fn counters_that_were_reset_count_from_zero() {
    let earlier = Counts::new(50, 1_000);
    assert_eq!(Counts::new(60, 1_200).since(earlier), Counts::new(10, 200));
    assert_eq!(Counts::new(3, 40).since(earlier), Counts::new(3, 40));
    // Failures alone fell: the pods behind the two series differ, and neither difference means anything.
    assert_eq!(Counts::new(3, 1_100).since(earlier), Counts::new(3, 1_100));
    assert_eq!(Counts { requests: 5, failures: 9 }.since(Counts::default()), Counts::new(5, 5));
}

#[test]
fn numbers_that_are_no_counts_are_refused() {
    assert_eq!(Counts::from_numbers(3.4, 99.6), Some(Counts::new(3, 100)));
    assert_eq!(Counts::from_numbers(100.4, 100.0), Some(Counts::new(100, 100)));
    for (failures, requests) in
        [(f64::NAN, 1.0), (1.0, f64::NAN), (-1.0, 5.0), (1.0, f64::INFINITY), (1e300, 1e300), (50.0, 10.0)]
    {
        assert_eq!(Counts::from_numbers(failures, requests), None, "{failures} of {requests}");
    }
}

#[test]
fn limits_that_make_no_sense_are_named() {
    let of = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        Proportions::new(limits).unwrap_err().to_string()
    };
    assert_eq!(of(|l| l.false_alarm = 0.0), "falseAlarm is 0; it must be from 0.000001 to 0.5");
    assert_eq!(of(|l| l.missed = f64::NAN), "missed is NaN; it must be from 0.000001 to 0.5");
    assert_eq!(of(|l| l.effect = 2.0), "effect is 2; it must be from 0.000001 to 0.9");
    assert_eq!(of(|l| l.tolerance = 0.01), "tolerance is 0.01 and effect 0.01; the tolerance must be the smaller one");
    assert_eq!(of(|l| l.burst = 0), "burst is 0; it must be at least 1");
    let range = Means::new(1.0, 1.0, Limits::default()).unwrap_err().to_string();
    assert_eq!(range, "the range of the values is 0; its end must be above its beginning");
}

#[test]
fn a_state_of_other_limits_is_not_gone_on_with() {
    let mut comparison = Proportions::new(Limits::default()).unwrap();
    comparison.look(Counts::new(100, 100), Counts::new(0, 100));
    let other = Limits { effect: 0.05, ..Limits::default() };
    let resumed = Proportions::resume(other, comparison.state().clone()).unwrap();
    assert_eq!(resumed, Proportions::new(other).unwrap());
}

#[test]
fn requests_that_fail_together_count_once() {
    let verdict = |burst| {
        let mut comparison = Proportions::new(Limits { burst, ..Limits::default() }).unwrap();
        comparison.look(Counts::new(9, 30), Counts::new(0, 270));
        comparison.judge("errors").verdict
    };
    assert_eq!((verdict(1), verdict(10)), (Verdict::Worse, Verdict::Undecided));
}

#[test]
fn a_quantile_is_compared_at_the_stable_versions_boundary() {
    let histogram =
        |fast: u64, slow: u64| Buckets::cumulative([(0.1, fast), (0.5, fast + slow), (f64::INFINITY, fast + slow)]);
    let mut quantiles = Quantiles::new(0.99, None, Limits::default()).unwrap();
    assert!(!quantiles.look(&histogram(1, 0), &histogram(5, 0)), "too few requests to tell what is slow");
    assert!(quantiles.look(&histogram(100, 90), &histogram(995, 5)));
    assert_eq!(quantiles.boundary(), Some(0.1));
    assert_eq!(quantiles.judge("s").verdict, Verdict::Undecided, "the interval that chooses is not compared");
    for _ in 0..3 {
        quantiles = Quantiles::resume(0.99, Limits::default(), quantiles.state()).unwrap();
        assert!(quantiles.look(&histogram(92, 8), &histogram(990, 10)));
    }
    let judgement = quantiles.judge("s");
    assert_eq!(judgement.verdict, Verdict::Worse);
    assert_eq!(
        judgement.message,
        "slower than 0.1s: 8.0 % of 300 against 1.0 % of 3,000; worse by at least 2.0 points at 99 %"
    );
    assert!(!quantiles.look(&Buckets::cumulative([(1.0, 5)]), &histogram(1, 1)), "no bucket ends at the boundary");
}

#[test]
fn means_of_bounded_values() {
    let run = |seed: u64, worse_by: f64, limits: Limits| {
        let mut chance = Chance(seed);
        let mut means = Means::new(0.0, 100.0, limits).unwrap();
        for _ in 0..300 {
            // A load that both share, and noise of each.
            let load = 20.0 + 20.0 * chance.unit();
            means.look(load + worse_by + 10.0 * chance.unit(), load + 10.0 * chance.unit());
            let judgement = means.judge("memory", " MiB");
            if judgement.verdict != Verdict::Undecided {
                return (judgement.verdict, judgement.canary_samples, judgement.message);
            }
        }
        (Verdict::Undecided, 300, String::new())
    };
    let limits = Limits { effect: 5.0, least: 5, ..Limits::default() };
    let alarms = (0..1_000).filter(|seed| run(*seed, 0.0, Limits { false_alarm: 0.05, ..limits }).0 == Verdict::Worse);
    let alarms = alarms.count();
    let mut needed: Vec<u64> =
        (0..100).map(|seed| run(seed, 10.0, limits)).filter(|r| r.0 == Verdict::Worse).map(|r| r.1).collect();
    needed.sort_unstable();
    println!(
        "| means: 1,000 null releases, called worse: {alarms} | worse by 10 of 100: {} of 100 found, median {:?} looks |",
        needed.len(),
        needed.get(50)
    );
    assert!(alarms <= 50, "{alarms}");
    assert!(needed.len() >= 95 && needed[50] <= 60, "{needed:?}");
    let (verdict, looks, message) = run(1, 40.0, limits);
    assert_eq!(verdict, Verdict::Worse, "{message}");
    assert!(looks <= 20, "{looks}: {message}");
    assert!(message.starts_with("memory ") && message.contains(" MiB in "), "{message}");
    let mut means = Means::new(0.0, 1.0, limits_of_share()).unwrap();
    assert!(!means.look(f64::NAN, 0.5));
    assert!(means.look(f64::INFINITY, -1e300), "outside counts as the end");
}

fn limits_of_share() -> Limits {
    Limits { effect: 0.1, ..Limits::default() }
}

fn counts() -> impl Strategy<Value = Counts> {
    prop_oneof![(0_u64..30, 0_u64..30), (0_u64..5_000, 0_u64..200_000), (any::<u64>(), any::<u64>()),]
        .prop_map(|(failures, requests)| Counts::new(failures, requests))
}

fn limits() -> impl Strategy<Value = Limits> {
    (0.001_f64..0.3, 0.0_f64..0.99, 1_u32..20).prop_map(|(effect, part, burst)| Limits {
        effect,
        tolerance: if part < 0.3 { 0.0 } else { effect * part },
        burst,
        ..Limits::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_failures_of_the_canary_are_never_evidence_for_it(
        limits in limits(), past in prop::collection::vec((counts(), counts()), 0..4), last in (counts(), counts()), more in any::<u64>(),
    ) {
        let mut comparison = Proportions::bare(limits);
        past.iter().for_each(|(canary, stable)| comparison.look(*canary, *stable));
        let (mut worse, mut better) = (comparison.clone(), comparison);
        better.look(last.0, last.1);
        worse.look(Counts::new(last.0.failures.saturating_add(more), last.0.requests), last.1);
        prop_assert!(worse.evidence().0 >= better.evidence().0 - 2e-4);
        prop_assert!(worse.evidence().1 <= better.evidence().1 + 2e-4);
    }

    #[test]
    fn a_canary_that_was_never_worse_is_never_called_so(
        limits in limits(), looks in prop::collection::vec((counts(), 1_u64..100_000, 0.0_f64..1.0), 1..6),
    ) {
        let mut comparison = Proportions::new(limits).unwrap();
        for (stable, requests, part) in looks {
            // Rounded down: in no interval the canary's share of failures is above the stable one's.
            let failures = (stable.rate() * part * requests as f64).floor() as u64;
            comparison.look(Counts::new(failures, requests), stable);
            prop_assert!(comparison.evidence().0 <= 1e-3, "{}", comparison.evidence().0);
            let judgement = comparison.judge("errors");
            prop_assert!(judgement.verdict != Verdict::Worse && judgement.at_least.is_none());
        }
    }

    #[test]
    fn whatever_is_seen_gives_numbers(limits in limits(), looks in prop::collection::vec((counts(), counts()), 0..5)) {
        let mut comparison = Proportions::new(limits).unwrap();
        for (canary, stable) in looks {
            comparison.look(canary, stable);
            let (worse, harmless) = comparison.evidence();
            prop_assert!(worse.is_finite() && harmless.is_finite());
            let judgement = comparison.judge("errors");
            prop_assert!(!judgement.message.contains("NaN") && !judgement.message.contains("inf"));
            if judgement.verdict == Verdict::Worse {
                prop_assert!(judgement.at_least.is_some());
            }
            let text = serde_json::to_string(comparison.state()).unwrap();
            let back = Proportions::resume(limits, serde_json::from_str(&text).unwrap()).unwrap();
            prop_assert!((back.evidence().0 - worse).abs() < 1e-6 && (back.evidence().1 - harmless).abs() < 1e-6);
        }
    }
}
