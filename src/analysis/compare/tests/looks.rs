use jiff::SignedDuration;

use super::*;

#[test]
fn a_look_without_an_answer_counts_nothing_of_the_others() {
    let metric = reading(spec(|_, _| {}), false).unwrap();
    let good = numbers([1.0, 100.0, 9.0, 900.0]);
    let mut missing = numbers([50.0, 50.0, 0.0, 900.0]);
    missing[2] = Answer::Empty;
    let (_, with) = judged(&metric, &[good.clone(), missing, good.clone()]);
    let (_, without) = judged(&metric, &[good.clone(), good]);
    assert_eq!(with.comparison, without.comparison);
}

#[test]
fn answers_of_one_look_are_of_one_moment_and_no_request_is_in_two_looks() {
    let metric = reading(spec(|_, _| {}), false).unwrap();
    let comparison = comparison(&metric);
    let due = ask::due(Timestamp::from_second(START).unwrap(), 30, "q");
    let late = |seconds: [i64; 4]| {
        seconds
            .map(|s| Sample { at: due.checked_add(SignedDuration::from_secs(s)).unwrap(), answer: Answer::Value(1e3) })
    };
    for (seconds, finding, next) in [
        ([0, 0, 0, 0], Finding::Passed, 30),
        ([1, 2, 3, 3], Finding::Passed, 30),
        ([20, 20, 20, 20], Finding::Passed, 60),
        ([0, 0, 20, 0], Finding::Unavailable, 60),
    ] {
        let mut status = MetricStatus::default();
        let (found, text) = take_in(&mut status, &metric, comparison, "q", &late(seconds), false);
        let is_counted = status.comparison.is_some();
        assert_eq!(is_counted, finding != Finding::Unavailable, "{seconds:?}: {text}");
        assert_eq!(found == Finding::Unavailable, finding == Finding::Unavailable, "{seconds:?}: {text}");
        assert_eq!(status.next_time.unwrap().0.as_second() - due.as_second(), next, "{seconds:?}");
    }
    let samples = late([0, 0, 0, 0]);
    assert!(complete(due, samples.iter().map(Some)).is_some());
    assert!(complete(due, samples.iter().take(3).map(Some).chain([None])).is_none(), "one is not there yet");
    let early = due.checked_add(SignedDuration::from_secs(1)).unwrap();
    assert!(complete(early, samples.iter().map(Some)).is_none(), "of the look before");
}
