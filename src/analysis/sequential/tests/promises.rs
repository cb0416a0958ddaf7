//! Proportions: rates of error, and requests needed.

use super::{
    super::{Counts, Limits, Proportions, Verdict},
    Chance,
};

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
fn a_comparison_without_an_end_raises_no_more_alarms_in_all_its_rounds() {
    let (mut alarms, mut rounds) = (0, 0);
    let mut chance = Chance(80);
    let limits = Limits { false_alarm: 0.05, missed: 0.05, effect: 0.05, round: 1, ..Limits::default() };
    for _ in 0..2_000 {
        let mut comparison = Proportions::bare(limits);
        let mut round = 1;
        for _ in 0..60 {
            comparison.look(chance.failures(30, 0.02), chance.failures(270, 0.02));
            match comparison.judge("errors").verdict {
                Verdict::Worse => {
                    alarms += 1;
                    break;
                }
                Verdict::NotWorse => {
                    round += 1;
                    comparison = Proportions::bare(Limits { round, ..limits });
                }
                Verdict::Undecided => {}
            }
        }
        rounds += round;
    }
    println!(
        "| without an end, 60 looks | 2,000 null releases, {rounds} rounds | called worse: {:.2} % | 5 % |",
        f64::from(alarms) / 20.0
    );
    assert!(rounds > 10_000, "there are rounds: {rounds}");
    assert!(alarms <= 100, "{alarms} of 2,000");
}
