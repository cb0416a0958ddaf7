use super::*;
use crate::api::v1beta1::WorkloadRef;

const BEGAN: i64 = 1_000;

fn meta() -> ObjectMeta {
    let text = |text: &str| Some(text.to_owned());
    ObjectMeta { name: text("web"), namespace: text("shop"), uid: text("u-1"), ..ObjectMeta::default() }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Phase, reason of Progressing (empty: it is over), step and revision.
type Row = (&'static str, &'static str, i32, &'static str);

fn status((phase, reason, step, revision): Row) -> RolloutStatus {
    let mut status = RolloutStatus { phase: phase.to_owned(), current_step_index: step, ..RolloutStatus::default() };
    let mut set = |r#type, is: bool, reason| conditions::set(&mut status.conditions, r#type, is, reason, "", at(BEGAN));
    match reason {
        "" => set(types::PROGRESSING, false, reasons::COMPLETED),
        reason => set(types::PROGRESSING, true, reason),
    }
    status.workload_ref = Some(WorkloadRef { kind: "Deployment".into(), name: "web".into(), ..WorkloadRef::default() });
    let canary_revision = revision.to_owned();
    status.canary_status =
        Some(CanaryStatus { canary_revision, last_update_time: Some(Time(at(900))), ..CanaryStatus::default() });
    status
}

/// Plays statuses a minute apart, each decided from the one before, and says what was told: name, from, to and outcome.
fn told(rows: &[Row], change: impl Fn(&mut RolloutStatus)) -> (Vec<String>, Vec<Span>) {
    let mut before: Option<RolloutStatus> = None;
    let mut spans = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let mut now = status(*row);
        change(&mut now);
        spans.extend(follow(&meta(), before.as_ref(), &mut now, at(BEGAN + 60 * i as i64)));
        before = Some(now);
    }
    assert!(before.unwrap().trace.is_none(), "nothing goes on");
    let outcome = |span: &Span| span.attributes.iter().find(|(key, _)| *key == "tidegate.outcome").unwrap().1.clone();
    let say =
        |s: &Span| format!("{} {}..{} {}", s.name, s.from.as_second() - BEGAN, s.to.as_second() - BEGAN, outcome(s));
    (spans.iter().map(say).collect(), spans)
}

const ROLLING: &str = reasons::IN_ROLLING;

#[test]
fn every_ending_is_told_with_its_steps() {
    let cases: &[(&[Row], &[&str])] = &[
        (
            &[
                ("Progressing", reasons::INITIALIZING, 1, "v2"),
                ("Progressing", ROLLING, 1, "v2"),
                ("Progressing", ROLLING, 2, "v2"),
                ("Progressing", reasons::FINALISING, 2, "v2"),
                ("Healthy", "", 2, "v2"),
                ("Healthy", "", 2, "v2"),
            ],
            &[
                "step 1 0..120 completed",
                "step 2 120..180 completed",
                "wind up 180..240 completed",
                "release 0..240 completed",
            ],
        ),
        (
            &[
                ("Progressing", ROLLING, 1, "v2"),
                ("Progressing", ROLLING, 3, "v2"),
                ("Progressing", ROLLING, 1, "v3"),
                ("Progressing", reasons::CANCELLING, 1, "v1"),
                ("Progressing", ROLLING, 1, "v4"),
                ("Initial", "", 0, ""),
            ],
            &[
                "step 1 0..60 jumped",
                "step 3 60..120 superseded",
                "step 1 120..180 rolled-back",
                "wind up 180..240 superseded",
                "step 1 240..300 abandoned",
                "release 0..300 abandoned",
            ],
        ),
        (
            &[("Progressing", ROLLING, 1, "v2"), ("Disabling", ROLLING, 1, "v2"), ("Disabled", "", 0, "")],
            &["step 1 0..60 disabled", "wind up 60..120 disabled", "release 0..120 disabled"],
        ),
    ];
    for (rows, expected) in cases {
        assert_eq!(told(rows, |_| {}).0, *expected);
    }
    let failed = |status: &mut RolloutStatus| {
        let sub = status.canary_status.as_mut().unwrap();
        sub.failed_revision = "v2".to_owned();
        let set = conditions::set;
        set(&mut status.conditions, types::SUCCEEDED, false, reasons::COMPLETED, "", at(BEGAN));
        set(&mut status.conditions, types::STALLED, true, reasons::STEP_FAILED, "pods do not come up", at(BEGAN));
    };
    let rows =
        [("Progressing", ROLLING, 1, "v2"), ("Progressing", reasons::CANCELLING, 1, "v1"), ("Healthy", "", 1, "v1")];
    let (said, spans) = told(&rows, failed);
    assert_eq!(said, ["step 1 0..60 failed", "wind up 60..120 failed", "release 0..120 failed"]);
    assert_eq!(spans[0].error.as_deref(), Some("pods do not come up"));
}

#[test]
fn a_trace_is_one_tree_and_the_same_for_whoever_tells_it() {
    let rows = [
        ("Progressing", ROLLING, 1, "v2"),
        ("Progressing", ROLLING, 2, "v2"),
        ("Progressing", reasons::FINALISING, 2, "v2"),
        ("Healthy", "", 2, "v2"),
    ];
    let approved = |status: &mut RolloutStatus| {
        let word = |step, second| Word {
            step,
            deed: Word::APPROVED.to_owned(),
            by: "jane".to_owned(),
            time: Some(Time(at(second))),
            to: None,
        };
        status.canary_status.as_mut().unwrap().words = vec![word(1, 10), word(1, BEGAN + 30), word(2, BEGAN + 90)];
    };
    let (_, spans) = told(&rows, approved);
    let root = spans.last().unwrap();
    assert_eq!(root.parent, None);
    assert!(spans.iter().all(|span| span.trace == root.trace && span.trace != 0));
    assert!(spans[..3].iter().all(|span| span.parent == Some(root.id)));
    let mut ids: Vec<u64> = spans.iter().map(|span| span.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len());
    // What was said to an earlier run of the step is not its.
    assert_eq!(spans[0].events, [Said { at: at(BEGAN + 30), deed: "Approved".to_owned(), by: "jane".to_owned() }]);
    assert_eq!(told(&rows, approved).1, spans);
    let attributes = [
        ("k8s.namespace.name", "shop"),
        ("tidegate.rollout", "web"),
        ("tidegate.workload", "Deployment web"),
        ("tidegate.revision", "v2"),
        ("tidegate.outcome", "completed"),
        ("tidegate.step", "1"),
    ];
    assert_eq!(spans[0].attributes, attributes.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn what_goes_on_is_known_from_the_status_alone() {
    let rolling = ("Progressing", ROLLING, 2, "v2");
    // Traces are switched on amid a step: all that is known of it is since when it is in its state.
    let (before, mut now) = (status(rolling), status(rolling));
    let paused = Some(Time(at(BEGAN + 40)));
    now.canary_status.as_mut().unwrap().last_update_time = paused;
    assert!(follow(&meta(), Some(&before), &mut now, at(BEGAN + 50)).is_empty());
    let open = now.trace.clone().unwrap();
    assert_eq!((open.since.0, open.step_since.0), (at(BEGAN), at(BEGAN + 40)));
    // Nothing happens, and nothing is written.
    let mut again = RolloutStatus { trace: None, ..now.clone() };
    assert!(follow(&meta(), Some(&now), &mut again, at(BEGAN + 70)).is_empty());
    assert_eq!(again, now);
    // The Rollout goes.
    let spans = close(&meta(), &now, at(BEGAN + 80));
    assert_eq!(spans.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["step 2", "release"]);
    // Another release has begun before anybody looked.
    let mut other = status(rolling);
    other.conditions[0].last_transition_time = Some(Time(at(BEGAN + 85)));
    let spans = follow(&meta(), Some(&now), &mut other, at(BEGAN + 90));
    assert_eq!(spans.len(), 2);
    let other = other.trace.unwrap();
    assert!(other.trace_id != open.trace_id && other.since.0 == at(BEGAN + 85), "{other:?}");
    assert!(follow(&meta(), None, &mut status(("Healthy", "", 1, "v2")), at(BEGAN)).is_empty());
}
