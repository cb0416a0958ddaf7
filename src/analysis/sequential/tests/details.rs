//! Messages, extremes, limits and states.

use super::super::{Counts, Limits, Means, Proportions, Verdict};

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
    assert_eq!(range, "range is 0; its max must be above its min");
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
