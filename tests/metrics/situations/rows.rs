//! The table.

use super::*;

fn metric(query: &str, more: Value) -> Value {
    let mut metric = json!({"name": query, "query": query, "min": 0.5, "interval": "10s", "count": 3,
        "provider": {"prometheus": {"address": "http://prometheus:9090"}}});
    metric.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    metric
}

fn of(metrics: &[Value], more: Value) -> Value {
    let mut analysis = json!({"metrics": metrics});
    analysis.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    analysis
}

fn good(_: &str, _: i64) -> Answer {
    Answer::Value(1.0)
}

fn bad(_: &str, _: i64) -> Answer {
    Answer::Value(0.0)
}

fn away(_: &str, _: i64) -> Answer {
    Answer::Unavailable("http://prometheus:9090: connection refused".into())
}

/// A person does not wait for the verdict, as by `approve --unmeasured`.
fn unmeasured() -> Deed {
    Status(json!({"currentStepState": "StepReady"}))
}

pub fn rows() -> Vec<Row> {
    let none = || json!({});
    let one = |more: Value| of(&[metric("a", json!({}))], more);
    let row = |name, analysis, says: Says, deeds: Vec<(i64, Deed)>, looks: Vec<Look>| {
        let steps = json!([{"replicas": 1}, {"replicas": "100%"}]);
        Row { name, analysis, steps, says, deeds, looks }
    };
    let mut rows = vec![
        row(
            "good metrics promote, at each step",
            one(none()),
            good,
            vec![],
            vec![(30, End::Measures(1), "of 3 measured"), (150, End::Done, "completed")],
        ),
        row(
            "a good step waits all the same",
            one(json!({"onSuccess": "wait"})),
            good,
            vec![(300, Approve)],
            // After the last step nothing would be left to try.
            vec![(290, End::Waits(1), ""), (500, End::Done, "")],
        ),
        row(
            "the first bad value is one too many",
            one(none()),
            bad,
            vec![(600, Approve), (1200, Approve)],
            vec![
                (90, End::Waits(1), "1 of 1 measurements failed, 0 forgiven"),
                (900, End::Waits(2), "1 of 1"),
                (1300, End::Done, ""),
            ],
        ),
        row("a bad value rolls back", one(json!({"onFailure": "rollback"})), bad, vec![], vec![(300, End::Back, "")]),
        row(
            "one that is forgiven, and one too many",
            of(&[metric("a", json!({"failureLimit": 1, "count": 5}))], json!({"onFailure": "rollback"})),
            |_, at| Answer::Value(if at > 40 { 0.0 } else { 1.0 }),
            vec![],
            vec![(300, End::Back, "")],
        ),
        row(
            "what cannot be judged never rolls back",
            of(&[metric("a", json!({"inconclusiveLimit": 1}))], json!({"onFailure": "rollback"})),
            |_, _| Answer::of([1.0, 1.0].into_iter()),
            vec![],
            vec![
                (25, End::Measures(1), "has 2 series"),
                (600, End::Waits(1), "2 measurements cannot be judged, 1 forgiven"),
            ],
        ),
        row(
            "approved while it is measured",
            of(&[metric("a", json!({"count": 100}))], none()),
            good,
            vec![(60, unmeasured()), (120, unmeasured())],
            vec![(50, End::Measures(1), ""), (110, End::Measures(2), ""), (200, End::Done, "")],
        ),
        row(
            "the step is edited while it is measured: executed again, and counted anew",
            of(&[metric("a", json!({"count": 6}))], none()),
            good,
            vec![(45, Spec(json!({"strategy": {"canary": {"steps": [{"replicas": 2}, {"replicas": "100%"}]}}})))],
            vec![
                (44, End::Measures(1), "of 6 measured"),
                (90, End::Measures(1), "of 6 measured"),
                (300, End::Done, ""),
            ],
        ),
        row(
            "a newer version while it is measured: begun anew with that",
            of(&[metric("a", json!({"count": 6}))], json!({"onFailure": "rollback"})),
            |_, at| Answer::Value(if at < 100 { 1.0 } else { 0.0 }),
            vec![(50, Release("3"))],
            vec![(99, End::Measures(1), ""), (400, End::Back, "")],
        ),
        row(
            "a metric without data is removed: the others decide",
            of(&[metric("a", none()), metric("b", none())], none()),
            |query, _| if query == "b" { Answer::Empty } else { Answer::Value(1.0) },
            vec![(400, Spec(json!({"strategy": {"analysis": {"metrics": [metric("a", none())]}}})))],
            vec![(390, End::Measures(1), "metric b: no data since"), (600, End::Done, "")],
        ),
        row(
            "a metric comes while others are measured: all must pass",
            of(&[metric("a", json!({"count": 8}))], none()),
            |query, _| if query == "b" { Answer::Empty } else { Answer::Value(1.0) },
            vec![(
                30,
                Spec(
                    json!({"strategy": {"analysis": {"metrics": [metric("a", json!({"count": 8})), metric("b", none())]}}}),
                ),
            )],
            vec![(900, End::Measures(1), "metric b: no data since")],
        ),
        row(
            "another bound is counted anew",
            of(&[metric("a", json!({"count": 20}))], none()),
            good,
            vec![(
                150,
                Spec(json!({"strategy": {"analysis": {"metrics": [metric("a", json!({"count": 20, "min": 0.6}))]}}})),
            )],
            vec![(140, End::Measures(1), ""), (300, End::Measures(1), "of 20 measured"), (800, End::Done, "")],
        ),
        row("set back while it is measured", one(none()), good, vec![(20, Release("1"))], vec![(120, End::Back, "")]),
        row(
            "frozen while it is measured, and gone on",
            of(&[metric("a", json!({"count": 5}))], none()),
            good,
            vec![
                (25, Spec(json!({"strategy": {"paused": true}}))),
                (900, Spec(json!({"strategy": {"paused": false}}))),
            ],
            vec![(890, End::Measures(1), ""), (1200, End::Done, "")],
        ),
        row(
            "one value, at once",
            of(&[metric("a", json!({"count": 1, "interval": "1s", "delay": "0s"}))], none()),
            good,
            vec![],
            vec![(60, End::Done, "")],
        ),
        row(
            "an interval of nothing is none",
            of(&[metric("a", json!({"interval": "0s"}))], none()),
            good,
            vec![(100, Spec(json!({"strategy": {"analysis": {"metrics": [metric("a", none())]}}})))],
            vec![(300, End::Done, "")],
        ),
        row(
            "too few requests are no data",
            of(
                &[metric(
                    "a",
                    json!({"minSamples": 20, "samplesQuery": "n", "onNoData": "fail", "noDataTimeout": "5m"}),
                )],
                json!({"onFailure": "rollback"}),
            ),
            |query, at| {
                Answer::Value(if query == "n" {
                    if at < 200 { 3.0 } else { 30.0 }
                } else if at < 200 {
                    0.0
                } else {
                    1.0
                })
            },
            vec![],
            vec![(190, End::Measures(1), "3 samples are fewer than minSamples 20"), (400, End::Done, "")],
        ),
        row(
            "too few requests for too long",
            of(
                &[metric(
                    "a",
                    json!({"minSamples": 20, "samplesQuery": "n", "onNoData": "fail", "noDataTimeout": "5m"}),
                )],
                json!({"onFailure": "rollback"}),
            ),
            |query, _| Answer::Value(if query == "n" { 3.0 } else { 1.0 }),
            vec![],
            vec![(250, End::Measures(1), "3 samples are fewer"), (600, End::Back, "")],
        ),
        row(
            "behind the release: good for ever, and no pause is over for it",
            one(json!({"background": true})),
            good,
            vec![(900, Approve)],
            vec![(890, End::Waits(1), ""), (1000, End::Done, "")],
        ),
        row(
            "behind the release: bad while it waits",
            one(json!({"background": true, "onFailure": "rollback"})),
            |_, at| Answer::Value(if at > 600 { 0.0 } else { 1.0 }),
            vec![],
            vec![(590, End::Waits(1), ""), (900, End::Back, "")],
        ),
        row(
            "behind the release: bad while it waits, and a person goes on, counting anew",
            one(json!({"background": true})),
            |_, at| Answer::Value(if at < 60 { 0.0 } else { 1.0 }),
            vec![(300, Approve)],
            vec![(290, End::Waits(1), "1 of 1 measurements failed"), (500, End::Done, "")],
        ),
    ];
    for (on_no_data, looks) in [
        (
            "wait",
            vec![
                (250, End::Measures(1), "connection refused"),
                (1800, End::Measures(1), "connection refused (onNoData: wait)"),
            ],
        ),
        ("fail", vec![(1200, End::Back, "")]),
        ("pass", vec![(250, End::Measures(1), "connection refused"), (2400, End::Done, "")]),
    ] {
        let metrics = [metric("a", json!({"onNoData": on_no_data, "noDataTimeout": "5m"}))];
        rows.push(row(
            "nobody answers during the whole release",
            of(&metrics, json!({"onFailure": "rollback"})),
            away,
            vec![],
            looks,
        ));
    }
    for (on_no_data, looks) in [
        ("wait", vec![(1800, End::Waits(1), "cannot go on unmeasured: metric a: no data since")]),
        ("fail", vec![(2400, End::Back, "")]),
        ("pass", vec![(1800, End::Done, "")]),
    ] {
        let metrics = [metric("a", json!({"onNoData": on_no_data, "noDataTimeout": "5m"}))];
        let analysis = of(&metrics, json!({"background": true, "onFailure": "rollback"}));
        let steps =
            json!([{"replicas": 1, "pause": {"duration": 600}}, {"replicas": "100%", "pause": {"duration": 600}}]);
        rows.push(Row { steps, ..row("nobody answers behind the release", analysis, away, vec![], looks) });
    }
    let steps = json!([{"replicas": 1}, {"replicas": 1}, {"replicas": "100%"}]);
    let fifty = of(&[metric("a", json!({"count": 50}))], none());
    let deeds = vec![(60, Status(json!({"nextStepIndex": 3})))];
    let looks = vec![(50, End::Measures(1), ""), (200, End::Measures(3), "of 50 measured"), (900, End::Done, "")];
    rows.push(Row { steps, ..row("a jump passes the metrics of the step that is left", fifty, good, deeds, looks) });
    let timed = |seconds: i64| json!([{"replicas": 1, "pause": {"duration": seconds}}, {"replicas": "100%", "pause": {"duration": seconds}}]);
    let late = of(&[metric("a", json!({"count": 1, "delay": "2m"}))], none());
    let looks = vec![(100, End::Measures(1), "not measured yet"), (200, End::Measures(2), ""), (400, End::Done, "")];
    rows.push(Row { steps: timed(10), ..row("measured for longer than the pause", late, good, vec![], looks) });
    let looks = vec![(590, End::Waits(1), ""), (700, End::Waits(2), ""), (1400, End::Done, "")];
    rows.push(Row {
        steps: timed(600),
        ..row("a pause that is longer lasts, from when the step was in place", one(none()), good, vec![], looks)
    });
    let own = json!([{"replicas": 1, "analysis": of(&[metric("b", json!({}))], json!({}))}, {"replicas": "100%", "pause": {"duration": 30}}]);
    for (name, says, looks) in [
        ("its own promotes, and what is behind looks on", good as Says, vec![(200, End::Done, "")]),
        (
            "its own is good, what is behind is bad",
            |query: &str, at: i64| Answer::Value(if query == "a" && at > 25 { 0.0 } else { 1.0 }),
            vec![(200, End::Back, "")],
        ),
        (
            "its own is bad, what is behind is good",
            |query: &str, _: i64| Answer::Value(if query == "b" { 0.0 } else { 1.0 }),
            vec![(500, End::Waits(1), "metric b: value 0 is below min 0.5")],
        ),
    ] {
        let behind = one(json!({"background": true, "onFailure": "rollback"}));
        rows.push(Row { steps: own.clone(), ..row(name, behind, says, vec![], looks) });
    }
    rows
}
