use super::*;

#[test]
fn verdicts() {
    use AnalysisPhase::{Failed, Inconclusive, Passed, Running};
    type Change = fn(&mut api::Metric, &mut Compare);
    let none: Change = |_, _| {};
    let all = |n: usize, of: [f64; 4]| vec![numbers(of); n];
    let with = |place: usize, answer: Answer| {
        let mut answers = numbers([1.0, 100.0, 9.0, 900.0]);
        answers[place] = answer;
        answers
    };
    #[allow(clippy::type_complexity)] // A table.
    let table: Vec<(&str, Change, Vec<[Answer; 4]>, usize, AnalysisPhase, &str)> = vec![
        (
            "worse",
            none,
            all(9, [30.0, 100.0, 9.0, 900.0]),
            1,
            Failed,
            "errors: errors 30.0 % of 100 against 1.0 % of 900; worse",
        ),
        (
            "good",
            none,
            all(99, [10.0, 1e4, 90.0, 9e4]),
            1,
            Passed,
            "errors passed: errors 0.1 % of 10,000 against 0.1 % of 90,000; not worse by",
        ),
        ("as good", none, all(3, [1.0, 100.0, 9.0, 900.0]), 3, Running, "not clear yet"),
        (
            "too few",
            none,
            all(1, [9.0, 9.0, 0.0, 900.0]),
            1,
            Running,
            "at least 20 requests of each version are needed",
        ),
        (
            "better and few",
            |_, c| c.most = Some(200),
            all(9, [2.0, 100.0, 9.0, 900.0]),
            2,
            Inconclusive,
            "not clear after 200 requests, which is the limit",
        ),
        (
            "no series of failures",
            none,
            vec![with(0, Answer::Empty)],
            1,
            Running,
            "no data since 2027-01-15T08:00:00Z: canary.failures: the answer is empty",
        ),
        (
            "one of them away",
            none,
            vec![with(3, Answer::Unavailable("timeout".into()))],
            1,
            Running,
            "stable.requests: timeout",
        ),
        ("NaN", none, vec![with(1, Answer::Value(f64::NAN))], 1, Running, "canary.requests: the value is NaN"),
        ("no requests", none, all(1, [0.0, 0.0, 9.0, 900.0]), 1, Running, "the canary had no requests"),
        ("none of the other", none, all(1, [0.0, 10.0, 0.0, 0.0]), 1, Running, "the stable version had no requests"),
        (
            "no requests for long",
            |m, _| m.on_no_data = Some(api::OnNoData::Fail),
            all(99, [0.0, 0.0, 9.0, 900.0]),
            11,
            Failed,
            "the canary had no requests",
        ),
        ("several", none, vec![with(2, several(3)); 9], 4, Inconclusive, "stable.failures: the answer has 3 series"),
        (
            "no counts",
            |m, _| m.inconclusive_limit = Some(0),
            all(9, [50.0, 10.0, 0.0, 9.0]),
            1,
            Inconclusive,
            "canary: 50 failures of 10 requests are no counts",
        ),
        (
            "negative",
            |m, _| m.inconclusive_limit = Some(0),
            all(9, [0.0, 10.0, -1.0, 9.0]),
            1,
            Inconclusive,
            "stable: -1 failures",
        ),
    ];
    for (name, change, looks, taken, wanted, says) in table {
        let metric = reading(spec(change), false).unwrap();
        let (n, status) = judged(&metric, &looks);
        let text = describe(&status, &metric);
        assert_eq!((n, status.phase), (taken, wanted), "{name}: {text}");
        assert!(text.contains(says), "{name}: {text}");
    }
}

#[test]
fn verdicts_on_latency_and_on_values() {
    use AnalysisPhase::{Failed, Inconclusive, Passed, Running};
    type Change = fn(&mut api::Metric, &mut Compare);
    let latency: Change = |_, c| asks(c, of_buckets);
    let bound: Change = |_, c| (asks(c, of_buckets), c.slow = Some(0.5)).1;
    let memory: Change = |_, c| {
        asks(c, of_value);
        (c.effect, c.range) = (Some(20.0), Some(ValueRange { min: 0.0, max: 500.0 }));
    };
    let same = |canary: [u64; 3], stable: [u64; 3]| vec![[histogram(canary), histogram(stable)]; 99];
    let other = Answer::Histogram(Histogram::cumulative([(0.2, 9), (f64::INFINITY, 10)]).unwrap());
    let good = [histogram([90, 10, 0]), histogram([900, 100, 0])];
    #[allow(clippy::type_complexity)] // A table.
    let table: Vec<(&str, Change, Vec<[Answer; 2]>, usize, AnalysisPhase, &str)> = vec![
        (
            "slower than the stable version was at first",
            latency,
            same([70, 20, 10], [900, 95, 5]),
            2,
            Failed,
            "errors above 0.5: 10.0 % of 100 against 0.5 % of 1,000; worse by at least 1.0 points at 99 %",
        ),
        ("as fast", latency, same([950, 50, 0], [9500, 500, 0]), 3, Passed, "not worse by"),
        ("above the user's bound", bound, same([70, 20, 10], [900, 95, 5]), 1, Failed, "errors above 0.5: 10.0 % of"),
        (
            "few requests, which choose together",
            latency,
            same([1, 0, 0], [3, 0, 0])[..6].to_vec(),
            6,
            Running,
            "18 of 20 requests of the stable version that tell what is slow",
        ),
        ("chosen", latency, same([1, 0, 0], [3, 0, 0])[..7].to_vec(), 7, Running, "slow is what takes longer than 0.1"),
        (
            "all above the last bound",
            latency,
            same([1, 1, 90], [1, 1, 90]),
            4,
            Inconclusive,
            "less than 95 % of the stable version's requests are within the last bound",
        ),
        (
            "no such bound",
            |_, c| (asks(c, of_buckets), c.slow = Some(0.3)).1,
            vec![good.clone(); 9],
            4,
            Inconclusive,
            "no bucket of the histogram ends at 0.3",
        ),
        (
            "other bounds than before",
            latency,
            [vec![good.clone()], vec![[other.clone(), other]; 9]].concat(),
            5,
            Inconclusive,
            "no bucket of the histogram ends at 0.5",
        ),
        (
            "no histogram",
            bound,
            vec![[several(3), good[1].clone()]; 9],
            4,
            Inconclusive,
            "canary.buckets: the answer is no histogram",
        ),
        ("no requests", bound, same([0, 0, 0], [9, 0, 0])[..1].to_vec(), 1, Running, "the canary had no requests"),
        (
            "none at first",
            latency,
            same([9, 0, 0], [0, 0, 0])[..1].to_vec(),
            1,
            Running,
            "the stable version had no requests",
        ),
        ("needs more memory", memory, vec![numbers([260.0, 200.0]); 99], 47, Failed, "errors 260.0 against 200.0 in"),
        ("needs no more", memory, vec![numbers([201.0, 200.0]); 99], 96, Passed, "errors 201.0 against 200.0 in"),
        ("of nothing", memory, vec![numbers([f64::NAN, 1.0])], 1, Running, "canary.value: the value is NaN"),
        ("a histogram", memory, vec![good; 9], 4, Inconclusive, "canary.value: the answer is a histogram"),
    ];
    let mut wrong = Vec::new();
    for (name, change, looks, taken, wanted, says) in table {
        let metric = reading(spec(change), false).unwrap();
        let (n, status) = judged(&metric, &looks);
        let text = describe(&status, &metric);
        if (n, status.phase) != (taken, wanted) || !text.contains(says) {
            wrong.push(format!("{name}: after {n} {:?}: {text}", status.phase));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
