//! Quantiles.

use super::super::{Buckets, Limits, Quantiles, Verdict};

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
