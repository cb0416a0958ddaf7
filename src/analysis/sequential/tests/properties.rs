//! Properties of proportions.

use proptest::prelude::*;

use super::super::{Counts, Limits, Proportions, Verdict};

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
