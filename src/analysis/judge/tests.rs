use proptest::prelude::*;

use super::*;
use crate::{
    analysis::metric,
    api::analysis::{self as api, MetricProvider, Prometheus},
};

const START: i64 = 1_800_000_000;

fn metric(change: impl Fn(&mut api::Metric)) -> Metric {
    let prometheus = Prometheus { address: "http://prometheus:9090".into(), ..Prometheus::default() };
    let mut metric = api::Metric {
        name: "success".into(),
        provider: Some(MetricProvider { prometheus: Some(prometheus), ..MetricProvider::default() }),
        query: Some("q".into()),
        min: Some(0.99),
        interval: Some("30s".into()),
        count: Some(3),
        ..api::Metric::default()
    };
    change(&mut metric);
    let analysis = api::Analysis { metrics: vec![metric], ..api::Analysis::default() };
    metric::read("a", &analysis).unwrap().metrics.remove(0)
}

/// Asks as often as the metric says until it has a verdict or the answers are used up: seconds since the start, phase,
/// last sentence.
fn judge(metric: &Metric, answers: &[Answer]) -> (i64, AnalysisPhase, String) {
    let mut status = MetricStatus::default();
    let mut at = ask::due(Timestamp::from_second(START).unwrap(), metric.interval, "q");
    let start = at;
    for answer in answers {
        take_in(&mut status, metric, "q", &[Sample { at, answer: answer.clone() }]);
        status.phase = phase(&status, metric, false);
        if status.phase != AnalysisPhase::Running {
            break;
        }
        at = status.next_time.as_ref().unwrap().0;
    }
    let last = status.measurements.last().unwrap().time.as_ref().unwrap().0;
    (last.as_second() - start.as_second(), status.phase, describe(&status, metric))
}

fn down() -> Answer {
    Answer::Unavailable("connection refused".into())
}

#[test]
fn verdicts() {
    use AnalysisPhase::{Failed, Inconclusive, Passed, Running};
    type Change = fn(&mut api::Metric);
    let v = Answer::Value;
    let nothing: Change = |_| {};
    #[allow(clippy::type_complexity)] // A table.
    let table: Vec<(&str, Change, Vec<Answer>, i64, AnalysisPhase, &str)> = vec![
        ("all good", nothing, vec![v(1.0), v(0.995), v(0.99)], 60, Passed, "success passed: 3 measurements, 0 failed"),
        (
            "one bad",
            nothing,
            vec![v(1.0), v(0.93)],
            30,
            Failed,
            "value 0.93 is below min 0.99 (1 of 2 measurements failed, 0 forgiven)",
        ),
        (
            "one bad is forgiven",
            |m| m.failure_limit = Some(1),
            vec![v(0.9), v(1.0), v(1.0)],
            60,
            Passed,
            "3 measurements, 1 failed",
        ),
        (
            "two bad are not",
            |m| m.failure_limit = Some(1),
            vec![v(0.9), v(1.0), v(0.5)],
            60,
            Failed,
            "value 0.5 is below min 0.99 (2 of 3",
        ),
        ("above max", |m| m.max = Some(1.0), vec![v(1.5)], 0, Failed, "value 1.5 is above max 1"),
        ("within both", |m| (m.max, m.count) = (Some(1.0), Some(1)), vec![v(1.0)], 0, Passed, "1 measurements"),
        ("no number yet", nothing, vec![v(f64::NAN), Answer::Empty], 30, Running, "no data since 2027-01-15T"),
        ("no requests are no sign", nothing, vec![v(f64::NAN), v(1.0), v(1.0), v(1.0)], 90, Passed, "3 measurements"),
        (
            "several series",
            |m| m.inconclusive_limit = Some(1),
            vec![several(2), several(2)],
            30,
            Inconclusive,
            "has 2 series",
        ),
        (
            "infinite",
            |m| m.inconclusive_limit = Some(0),
            vec![v(f64::INFINITY)],
            0,
            Inconclusive,
            "value inf is no number",
        ),
        ("waits for data", nothing, vec![Answer::Empty; 40], 1170, Running, "(onNoData: wait)"),
        (
            "no data fail",
            |m| m.on_no_data = Some(OnNoData::Fail),
            vec![Answer::Empty; 40],
            300,
            Failed,
            "no data for 5m (onNoData: fail): the answer is empty",
        ),
        (
            "no data pass",
            |m| (m.on_no_data, m.no_data_timeout) = (Some(OnNoData::Pass), Some("1m".into())),
            vec![Answer::Empty; 40],
            60,
            Passed,
            "no data for 1m (onNoData: pass)",
        ),
        (
            "an outage is no bad release",
            nothing,
            vec![down(); 10],
            1950,
            Running,
            "connection refused (onNoData: wait)",
        ),
        (
            "an outage that lasts",
            |m| m.on_no_data = Some(OnNoData::Fail),
            vec![down(); 10],
            450,
            Failed,
            "connection refused",
        ),
        (
            "an outage that ends",
            |m| m.on_no_data = Some(OnNoData::Fail),
            vec![down(), down(), v(1.0), v(1.0), v(1.0)],
            150,
            Passed,
            "3 measurements",
        ),
        (
            "a mistake stands still",
            |m| m.on_no_data = Some(OnNoData::Pass),
            vec![Answer::Mistake("parse error".into()); 20],
            4950,
            Running,
            "parse error",
        ),
        (
            "out of bounds before no data",
            |m| m.on_no_data = Some(OnNoData::Pass),
            vec![v(0.1), Answer::Empty],
            0,
            Failed,
            "value 0.1",
        ),
    ];
    for (name, change, answers, seconds, phase, says) in table {
        let found = judge(&metric(change), &answers);
        assert_eq!((found.0, found.1), (seconds, phase), "{name}: {}", found.2);
        assert!(found.2.contains(says), "{name}: {}", found.2);
    }
}

#[test]
fn a_value_of_few_samples_is_no_data() {
    use Finding::{Failed, Inconclusive, Mistake, NoData, Passed, Unavailable};
    let metric = metric(|m| (m.min_samples, m.samples_query) = (Some(20), Some("n".into())));
    let v = Answer::Value;
    let table: [(Answer, Answer, Finding, &str); 14] = [
        (v(0.5), v(20.0), Failed, "value 0.5 is below min 0.99"),
        (v(1.0), v(400.0), Passed, "value 1 is not below"),
        (v(0.5), v(19.98), Failed, "value 0.5"),
        (v(0.5), v(19.0), NoData, "19 samples are fewer than minSamples 20"),
        (v(1.0), v(0.0), NoData, "0 samples are fewer"),
        (v(1.0), v(f64::NAN), NoData, "samplesQuery: the value is NaN"),
        (v(1.0), Answer::Empty, NoData, "samplesQuery: the answer is empty"),
        (v(f64::NAN), v(50.0), NoData, "the value is NaN: nothing was counted"),
        (Answer::Empty, v(50.0), NoData, "the answer is empty"),
        (v(1.0), v(-3.0), Inconclusive, "samplesQuery: -3 is no count"),
        (v(1.0), several(3), Inconclusive, "samplesQuery: the answer has 3 series"),
        (v(0.1), down(), Unavailable, "samplesQuery: connection refused"),
        (v(0.1), Answer::Mistake("parse error".into()), Mistake, "samplesQuery: parse error"),
        (Answer::Mistake("parse error".into()), v(0.0), Mistake, "parse error"),
    ];
    let at = Timestamp::from_second(START).unwrap();
    for (value, count, finding, says) in table {
        let look = [value, count].map(|answer| Sample { at, answer });
        let mut status = MetricStatus::default();
        let (found, text) = take_in(&mut status, &metric, "n", &look);
        assert_eq!(found, finding, "{look:?}: {text}");
        assert!(text.contains(says), "{look:?}: {text}");
        assert_eq!(status.failed + status.passed, i32::from(matches!(found, Failed | Passed)), "{look:?}");
    }
    let later = Sample { at: at.checked_add(SignedDuration::from_secs(4)).unwrap(), answer: v(100.0) };
    let apart = [Sample { at, answer: v(0.1) }, later];
    let mut status = MetricStatus::default();
    assert_eq!(take_in(&mut status, &metric, "n", &apart).0, Unavailable, "of other requests");
    assert!(status.next_time.unwrap().0 > apart[1].at);
}

#[test]
fn too_few_samples_obey_on_no_data() {
    for (on_no_data, phase) in [
        (OnNoData::Wait, AnalysisPhase::Running),
        (OnNoData::Fail, AnalysisPhase::Failed),
        (OnNoData::Pass, AnalysisPhase::Passed),
    ] {
        let metric = metric(|m| {
            (m.min_samples, m.samples_query, m.on_no_data) = (Some(20), Some("n".into()), Some(on_no_data));
        });
        let mut status = MetricStatus::default();
        let mut at = Timestamp::from_second(START).unwrap();
        for _ in 0..12 {
            let look = [0.5, 3.0].map(|value| Sample { at, answer: Answer::Value(value) });
            take_in(&mut status, &metric, "n", &look);
            at = status.next_time.as_ref().unwrap().0;
        }
        status.phase = super::phase(&status, &metric, false);
        assert_eq!(status.phase, phase);
        let said = describe(&status, &metric);
        assert!(said.contains("3 samples are fewer than minSamples 20") && said.contains("no data"), "{said}");
    }
}

#[test]
fn a_time_in_which_nobody_asked_is_no_time_without_data() {
    let metric = metric(|m| m.on_no_data = Some(OnNoData::Fail));
    let mut status = MetricStatus::default();
    let at = |second: i64| Timestamp::from_second(START + second).unwrap();
    for second in [0, 7200, 7230] {
        take_in(&mut status, &metric, "q", &[Sample { at: at(second), answer: Answer::Empty }]);
        assert_eq!(phase(&status, &metric, false), AnalysisPhase::Running, "after {second} s");
    }
    assert_eq!(status.no_data_since.unwrap().0, at(7200));
}

#[test]
fn behind_a_whole_release() {
    let metric = metric(|m| (m.failure_limit, m.on_no_data) = (Some(1), Some(OnNoData::Pass)));
    let mut status = MetricStatus::default();
    let mut at = Timestamp::from_second(START).unwrap();
    let mut take = |status: &mut MetricStatus, answer: Answer| {
        take_in(status, &metric, "q", &[Sample { at, answer }]);
        at = status.next_time.as_ref().unwrap().0;
        phase(status, &metric, true)
    };
    for _ in 0..50 {
        assert_eq!(take(&mut status, Answer::Value(1.0)), AnalysisPhase::Running, "count ends nothing");
    }
    for _ in 0..50 {
        assert_eq!(take(&mut status, Answer::Empty), AnalysisPhase::Running);
    }
    assert!(is_overdue(&status, &metric));
    assert_eq!(take(&mut status, Answer::Value(0.0)), AnalysisPhase::Running);
    assert_eq!(take(&mut status, Answer::Value(0.0)), AnalysisPhase::Failed);
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let answer = prop_oneof![
        any::<f64>().prop_map(Answer::Value),
        (0.9..1.0_f64).prop_map(Answer::Value),
        Just(Answer::Value(f64::NAN)),
        Just(Answer::Value(f64::NEG_INFINITY)),
        Just(Answer::Empty),
        (2_usize..100_000).prop_map(several),
        Just(down()),
        Just(Answer::Mistake("parse error".into())),
    ];
    prop::collection::vec(answer, 1..60)
}

proptest! {
    #[test]
    fn whatever_is_answered(answers in answers(), limit in 0..4_i32, count in 1..6_i32, on_no_data in 0..3_u8) {
        let metric = metric(|m| {
            (m.failure_limit, m.count) = (Some(limit), Some(count));
            m.on_no_data = Some([OnNoData::Wait, OnNoData::Fail, OnNoData::Pass][usize::from(on_no_data)]);
        });
        let mut status = MetricStatus::default();
        let mut at = Timestamp::from_second(START).unwrap();
        for answer in &answers {
            let before = status.clone();
            let (finding, text) = take_in(&mut status, &metric, "q", &[Sample { at, answer: answer.clone() }]);
            status.phase = phase(&status, &metric, false);
            prop_assert!(!text.is_empty() && describe(&status, &metric).contains("success"));
            prop_assert!(status.measurements.len() <= KEPT);
            let next = status.next_time.as_ref().unwrap().0;
            prop_assert!(next > at && next.duration_since(at).as_secs() <= 330);
            // Only what was measured, or missing for long, makes a release bad.
            if status.phase == AnalysisPhase::Failed {
                let is_bad = status.failed > limit && finding == Finding::Failed;
                let is_missing = on_no_data == 1 && is_overdue(&status, &metric)
                    && matches!(finding, Finding::NoData | Finding::Unavailable);
                prop_assert!(is_bad || is_missing);
            }
            if status.phase == AnalysisPhase::Passed && on_no_data != 2 {
                prop_assert!(status.passed + limit >= count && status.passed > before.passed || finding == Finding::Failed);
            }
            if finding == Finding::Mistake {
                prop_assert_eq!(status.phase, AnalysisPhase::Running);
            }
            if status.phase != AnalysisPhase::Running {
                break;
            }
            at = next;
        }
    }
}

fn several(count: usize) -> Answer {
    Answer::of((0..count).map(|_| 1.0))
}
