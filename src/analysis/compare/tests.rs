mod looks;
mod refused;
mod verdicts;

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
fn other_limits_begin_anew() {
    let (one, other) = (reading(spec(|_, _| {}), false), reading(spec(|_, c| c.effect = Some(0.02)), false));
    assert_ne!(one.unwrap().hash(), other.unwrap().hash());
}

fn several(count: usize) -> Answer {
    Answer::of((0..count).map(|_| 1.0))
}
