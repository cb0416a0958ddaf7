//! Means.

use super::{
    super::{Limits, Means, Verdict},
    Chance,
};

#[test]
fn means_of_bounded_values() {
    let run = |seed: u64, looks: usize, worse_by: f64, limits: Limits| {
        let mut chance = Chance(seed);
        let mut means = Means::new(0.0, 100.0, limits).unwrap();
        for _ in 0..looks {
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
    let alarms =
        (0..10_000).filter(|seed| run(*seed, 60, 0.0, Limits { false_alarm: 0.05, ..limits }).0 == Verdict::Worse);
    let alarms = alarms.count();
    let mut needed: Vec<u64> =
        (0..100).map(|seed| run(seed, 300, 10.0, limits)).filter(|r| r.0 == Verdict::Worse).map(|r| r.1).collect();
    needed.sort_unstable();
    println!(
        "| means: 10,000 null releases, called worse: {alarms} | worse by 10 of 100: {} of 100 found, median {:?} looks |",
        needed.len(),
        needed.get(50)
    );
    assert!(alarms <= 500, "{alarms}");
    assert!(needed.len() >= 95 && needed[50] <= 60, "{needed:?}");
    let (verdict, looks, message) = run(1, 300, 40.0, limits);
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
