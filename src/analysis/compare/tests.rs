use super::*;
use crate::analysis::metric::{Question, Wrong};
use crate::{
    analysis::{
        judge::{describe, is_mistaken, is_overdue, phase},
        metric,
    },
    api::{
        analysis::{self as api, MetricProvider, PodsProvider, Prometheus},
        comparison::{Compare, ValueRange, VersionQueries},
    },
};

fn spec(change: impl Fn(&mut api::Metric, &mut Compare)) -> api::Metric {
    let of = |version: &str| VersionQueries {
        failures: Some(format!("sum(increase({version}_failures[{{{{ interval }}}}])) or vector(0)")),
        requests: Some(format!("sum(increase({version}_requests[{{{{ interval }}}}]))")),
        ..VersionQueries::default()
    };
    let mut compare = Compare { canary: Some(of("canary")), stable: Some(of("stable")), ..Compare::default() };
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

fn comparison(metric: &Metric) -> &Comparison {
    match &metric.question {
        Question::Compare { comparison, .. } => comparison,
        other => panic!("{other:?}"),
    }
}

/// Asks both versions something else.
fn asks(compare: &mut Compare, of: fn(&str) -> VersionQueries) {
    (compare.canary, compare.stable) = (Some(of("canary")), Some(of("stable")));
}

fn of_buckets(version: &str) -> VersionQueries {
    let buckets = Some(format!("sum by (le) (increase({version}_bucket[1m]))"));
    VersionQueries { buckets, ..VersionQueries::default() }
}

fn of_value(version: &str) -> VersionQueries {
    VersionQueries { value: Some(format!("avg({version}_memory)")), ..VersionQueries::default() }
}

const START: i64 = 1_800_000_000;

fn look(at: i64, answers: &[Answer]) -> Vec<Sample> {
    let at = Timestamp::from_second(at).unwrap();
    answers.iter().map(|answer| Sample { at, answer: answer.clone() }).collect()
}

fn numbers<const N: usize>(of: [f64; N]) -> [Answer; N] {
    of.map(Answer::Value)
}

/// Requests that took at most 0.1 s, at most 0.5 s, and more.
fn histogram(of: [u64; 3]) -> Answer {
    let [fast, slow, most] = of;
    let counts = [(0.1, fast), (0.5, fast + slow), (f64::INFINITY, fast + slow + most)];
    Answer::Histogram(Histogram::cumulative(counts).unwrap())
}

/// Looks until there is a verdict or the answers are used up.
fn judged<const N: usize>(metric: &Metric, looks: &[[Answer; N]]) -> (usize, MetricStatus) {
    judged_in(metric, looks, false)
}

fn judged_in<const N: usize>(metric: &Metric, looks: &[[Answer; N]], is_background: bool) -> (usize, MetricStatus) {
    let mut status = MetricStatus::default();
    let mut at = START;
    for (i, answers) in looks.iter().enumerate() {
        // Through JSON each time, as a status goes.
        status = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
        take_in(&mut status, metric, comparison(metric), "q", &look(at, answers), is_background);
        status.phase = phase(&status, metric, is_background);
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

#[test]
fn in_the_background_a_good_canary_is_compared_anew_until_it_gets_worse() {
    let metric = reading(spec(|_, _| {}), true).unwrap();
    let (good, bad) = (numbers([10.0, 1e4, 90.0, 9e4]), numbers([30.0, 1e3, 90.0, 9e3]));
    let (looks, status) = judged_in(&metric, &vec![good.clone(); 40], true);
    assert_eq!((looks, status.phase), (40, AnalysisPhase::Running));
    assert_eq!(status.comparison.as_ref().unwrap().rounds, 40, "shown at each look");
    assert!(status.measurements.iter().all(|m| m.result == "Passed"), "{:?}", status.measurements);
    let all = [vec![good; 40], vec![bad; 40]].concat();
    let (looks, status) = judged_in(&metric, &all, true);
    assert_eq!(status.phase, AnalysisPhase::Failed, "{}", status.message);
    assert!(looks <= 43, "what was good for long does not outweigh it: {looks}");
    let text = describe(&status, &metric);
    assert!(text.contains("worse by at least"), "{text}");
}

#[test]
fn by_templates() {
    use crate::{analysis::templates, api::analysis::MetricTemplateSpec};
    let own = spec(|_, _| {});
    let template = MetricTemplateSpec {
        provider: own.provider.clone(),
        compare: Some(Compare { effect: Some(0.02), missed: Some(0.1), ..own.compare.clone().unwrap() }),
        ..MetricTemplateSpec::default()
    };
    let of = |compare: Option<Compare>, template: &MetricTemplateSpec| {
        let max = compare.is_none().then_some(1.0);
        let template_ref = Some(api::TemplateRef { name: "errors".into(), ..api::TemplateRef::default() });
        let metric = api::Metric { name: "m".into(), compare, max, template: template_ref, ..api::Metric::default() };
        let metric = reading(metric, false).unwrap();
        templates::resolve(&metric, &Default::default(), |_| Some(template.clone()))
    };
    let compare = Compare { effect: Some(0.05), ..Compare::default() };
    let rendered = of(Some(compare.clone()), &template).unwrap();
    let comparison = rendered.comparison.unwrap();
    assert_eq!(
        (comparison.limits.effect, comparison.limits.missed),
        (0.05, 0.1),
        "the metric's word, else the template's"
    );
    assert_eq!(comparison.queries[1], ("canary.requests".into(), "sum(increase(canary_requests[1m]))".into()));
    let plain = MetricTemplateSpec { compare: None, query: "up".into(), ..template.clone() };
    let nothing = MetricTemplateSpec { compare: None, ..template.clone() };
    let of_pods = Some(MetricProvider { pods: Some(PodsProvider {}), ..MetricProvider::default() });
    let slow = Compare { slow: Some(0.5), ..Compare::default() };
    for (compare, template, says) in [
        (Some(compare.clone()), plain, "MetricTemplate errors: compares nothing; give the metric bounds"),
        (None, template.clone(), "MetricTemplate errors: compares both versions; give the metric compare: {}"),
        (None, nothing, "MetricTemplate errors: query is missing, and so is compare"),
        (Some(compare), MetricTemplateSpec { provider: of_pods, ..template.clone() }, "provider counts nothing"),
        (Some(slow), template, "MetricTemplate errors: compare.slow has a meaning for buckets only"),
    ] {
        let problem = of(compare, &template).unwrap_err();
        assert!(problem.contains(says), "{problem}");
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

#[test]
fn what_is_wrong_names_its_field() {
    type Change = fn(&mut api::Metric, &mut Compare);
    let table: [(Change, &str); 24] = [
        (|m, _| m.query = Some("up".into()), "query"),
        (|m, _| m.template = Some(api::TemplateRef::default()), "compare.canary"),
        (|m, _| m.min = Some(1.0), "min"),
        (|m, _| m.max = Some(1.0), "max"),
        (|m, _| m.count = Some(1), "count"),
        (|m, _| m.failure_limit = Some(1), "failureLimit"),
        (|m, _| m.provider = None, "provider"),
        (
            |m, _| m.provider = Some(MetricProvider { pods: Some(PodsProvider {}), ..MetricProvider::default() }),
            "provider",
        ),
        (|_, c| c.canary.as_mut().unwrap().requests = Some(" ".into()), "compare.canary.requests"),
        (|_, c| c.canary = None, "compare.canary"),
        (|_, c| c.stable = None, "compare.stable"),
        (|_, c| c.stable.as_mut().unwrap().failures = None, "compare.stable"),
        (|_, c| c.stable = Some(of_value("stable")), "compare.stable"),
        (|_, c| c.quantile = Some(0.9), "compare.quantile"),
        (|_, c| c.range = Some(ValueRange::default()), "compare.range"),
        (|_, c| (asks(c, of_buckets), c.quantile = Some(1.0)).1, "compare.quantile"),
        (|_, c| (asks(c, of_buckets), (c.quantile, c.slow) = (Some(0.9), Some(0.5))).1, "compare.slow"),
        (|_, c| (asks(c, of_value), c.effect = Some(1.0)).1, "compare.range"),
        (|_, c| (asks(c, of_value), c.range = Some(ValueRange { min: 0.0, max: 9.0 })).1, "compare.effect"),
        (
            |_, c| {
                asks(c, of_value);
                (c.effect, c.range) = (Some(1.0), Some(ValueRange { min: 1.0, max: 1.0 }));
            },
            "compare.range",
        ),
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
    let (found, _) = reading(spec(|_, c| c.most = Some(100)), true).unwrap_err();
    assert_eq!(found, "a.metrics[0].compare.most", "in the background there is no end");
    assert!(reading(spec(|_, _| {}), true).is_ok());
}

#[test]
fn other_limits_begin_anew() {
    let (one, other) = (reading(spec(|_, _| {}), false), reading(spec(|_, c| c.effect = Some(0.02)), false));
    assert_ne!(one.unwrap().hash(), other.unwrap().hash());
}

fn several(count: usize) -> Answer {
    Answer::of((0..count).map(|_| 1.0))
}
