use super::*;
use crate::{
    analysis::{
        judge::{describe, is_mistaken, is_overdue, phase},
        metric,
    },
    api::{analysis::PodsProvider, analysis::Prometheus, comparison::Compare},
};

fn spec(change: impl Fn(&mut api::Metric, &mut Compare)) -> api::Metric {
    let of = |version: &str| RequestQueries {
        failures: format!("sum(increase({version}_failures[{{{{ interval }}}}])) or vector(0)"),
        requests: format!("sum(increase({version}_requests[{{{{ interval }}}}]))"),
    };
    let mut compare = Compare { canary: of("canary"), stable: of("stable"), ..Compare::default() };
    let prometheus = Prometheus { address: "http://prometheus:9090".into(), ..Prometheus::default() };
    let mut metric = api::Metric {
        name: "errors".into(),
        provider: Some(MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }),
        interval: Some("30s".into()),
        ..api::Metric::default()
    };
    change(&mut metric, &mut compare);
    metric.compare = Some(compare);
    metric
}

fn reading(metric: api::Metric, background: bool) -> Result<Metric, Wrong> {
    let analysis = api::Analysis { metrics: vec![metric], background, ..api::Analysis::default() };
    metric::read("a", &analysis).map(|mut analysis| analysis.metrics.remove(0))
}

const START: i64 = 1_800_000_000;

fn look(at: i64, answers: &[Answer; 4]) -> Look {
    answers.clone().map(|answer| Sample { at: Timestamp::from_second(at).unwrap(), answer })
}

fn numbers(of: [f64; 4]) -> [Answer; 4] {
    of.map(Answer::Value)
}

/// Looks until there is a verdict or the answers are used up.
fn judged(metric: &Metric, looks: &[[Answer; 4]]) -> (usize, MetricStatus) {
    let mut status = MetricStatus::default();
    let mut at = START;
    for (i, answers) in looks.iter().enumerate() {
        // Through JSON each time, as a status goes.
        status = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
        take_in(&mut status, metric, metric.comparison().unwrap(), "q", &look(at, answers));
        status.phase = phase(&status, metric, false);
        if status.phase != AnalysisPhase::Running {
            return (i + 1, status);
        }
        at = status.next_time.as_ref().unwrap().0.as_second();
    }
    (looks.len(), status)
}

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
fn what_must_be_mended_is_said_before_what_may_pass() {
    let metric = reading(spec(|_, _| {}), false).unwrap();
    let answers = [Answer::Empty, Answer::Mistake("syntax".into()), Answer::Unavailable("away".into()), several(2)];
    let (_, status) = judged(&metric, &[answers]);
    assert!(is_mistaken(&status) && !is_overdue(&status, &metric));
    assert_eq!(status.message, "canary.requests: syntax");
    assert_eq!(status.comparison, None, "nothing was counted");
}

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
    let comparison = metric.comparison().unwrap();
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
        let (found, text) = take_in(&mut status, &metric, comparison, "q", &late(seconds));
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

#[test]
fn what_is_wrong_names_its_field() {
    type Change = fn(&mut api::Metric, &mut Compare);
    let table: [(Change, &str); 13] = [
        (|m, _| m.query = Some("up".into()), "query"),
        (|m, _| m.template = Some(api::TemplateRef::default()), "template"),
        (|m, _| m.min = Some(1.0), "min"),
        (|m, _| m.max = Some(1.0), "max"),
        (|m, _| m.count = Some(1), "count"),
        (|m, _| m.failure_limit = Some(1), "failureLimit"),
        (|m, _| m.provider = None, "provider"),
        (
            |m, _| m.provider = Some(MetricProvider { pods: Some(PodsProvider {}), ..MetricProvider::default() }),
            "provider",
        ),
        (|_, c| c.canary.requests = " ".into(), "compare.canary.requests"),
        (|_, c| c.effect = Some(0.0), "compare.effect"),
        (|_, c| c.tolerance = Some(0.02), "compare.tolerance"),
        (|_, c| c.false_alarm = Some(f64::NAN), "compare.falseAlarm"),
        (|_, c| c.burst = Some(-1), "compare.burst"),
    ];
    for (change, field) in table {
        let (found, problem) = reading(spec(change), false).unwrap_err();
        assert_eq!(found, format!("a.metrics[0].{field}"), "{problem}");
        assert!(!problem.is_empty());
    }
    let (found, _) = reading(spec(|_, _| {}), true).unwrap_err();
    assert_eq!(found, "a.metrics[0].compare");
}

#[test]
fn other_limits_begin_anew() {
    let (one, other) = (reading(spec(|_, _| {}), false), reading(spec(|_, c| c.effect = Some(0.02)), false));
    assert_ne!(one.unwrap().hash(), other.unwrap().hash());
}

fn several(count: usize) -> Answer {
    Answer::of((0..count).map(|_| 1.0))
}
