use serde_json::json;

use super::{
    super::{RELEASED, WAS, is_open, is_released, label, mark, rule},
    *,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::keys::{InProgressing, Opening, WORKLOAD_TYPE};

fn hold(old: &Value, new: &Value) -> Option<Value> {
    rule("apps", "v1", "deployments").unwrap().hold(old, new)
}

const EMPTY: &str = r#"{"rolloutName":""}"#;
const NAMED: &str = r#"{"rolloutName":"web"}"#;
const OPEN: &str = r#"{"rolloutName":"web","paused":true,"released":true}"#;
const STEP: &str = r#"{"rolloutName":"web","open":{"maxUnavailable":"40%"}}"#;
const NEXT_STEP: &str = r#"{"rolloutName":"web","open":{"maxUnavailable":"60%"}}"#;
const SHUT_STEP: &str = r#"{"rolloutName":"web","was":{"maxUnavailable":"40%"}}"#;

/// As the controller leaves a Deployment at a step in place.
fn at_step(mark: &str, max_unavailable: &str) -> Value {
    let mut object = managed("b", false, mark);
    object["spec"]["minReadySeconds"] = json!(2_147_483_646);
    object["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max_unavailable}});
    object
}

#[test]
fn a_step_in_place_is_left_alone() {
    let step = at_step(STEP, "40%");
    let mut scaled = step.clone();
    scaled["spec"]["replicas"] = json!(9);
    let mut paused = step.clone();
    paused["spec"]["paused"] = json!(true);
    let mut restored = managed("b", false, OPEN);
    restored["spec"]["strategy"] = json!({"type": "Recreate"});
    let cases = [
        ("nothing changed", step.clone(), step.clone()),
        ("scaled", step.clone(), scaled),
        ("the controller opens it", managed("b", true, NAMED), step.clone()),
        ("the controller goes on", step.clone(), at_step(NEXT_STEP, "60%")),
        ("a person pauses it", step.clone(), paused),
        ("the controller ends the release", step.clone(), restored),
        ("the controller shuts it", step.clone(), managed("b", true, SHUT_STEP)),
    ];
    for (name, old, new) in cases {
        assert_eq!(hold(&old, &new), None, "{name}");
    }
}

fn wanted_of(object: &Value) -> Option<&str> {
    annotation(object, WANTED_FIELDS)
}

#[test]
fn nobody_moves_a_step_in_place() {
    let step = at_step(STEP, "40%");
    let mut faster = step.clone();
    faster["spec"]["minReadySeconds"] = json!(0);
    let mut put = deployment("b", 5, false, "", "");
    put["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "30%"}});
    let recreate = |mut object: Value| {
        object["spec"]["strategy"] = json!({"type": "Recreate"});
        object
    };
    let wanted = |unavailable: &str, surge: &str, ready: i64| {
        format!(
            r#"{{"strategy":{{"type":"RollingUpdate","rollingUpdate":{{"maxUnavailable":{unavailable},"maxSurge":{surge}}}}},"minReadySeconds":{ready},"progressDeadlineSeconds":600}}"#
        )
    };
    let cases = [
        ("pods would become available", step.clone(), faster, Some(wanted("\"40%\"", "\"25%\"", 0))),
        (
            "more old pods would go",
            step.clone(),
            at_step(STEP, "100%"),
            Some(wanted("\"100%\"", "\"25%\"", HELD_READY)),
        ),
        ("a PUT without mark", step.clone(), put.clone(), Some(wanted("0", "\"30%\"", 0))),
        ("a mark of before the step", step.clone(), at_step(NAMED, "40%"), None),
        (
            "a PUT that recreates",
            step.clone(),
            recreate(put.clone()),
            Some(r#"{"strategy":{"type":"Recreate"},"minReadySeconds":0,"progressDeadlineSeconds":600}"#.to_owned()),
        ),
    ];
    for (name, old, new, wanted) in cases {
        let held = hold(&old, &new).expect(name);
        assert!(!is_paused(&held), "{name}: {held}");
        assert_eq!(mark_of(&held), STEP, "{name}");
        assert_eq!(opening(&held), opening(&old), "{name}");
        assert_eq!(held["spec"]["replicas"], new["spec"]["replicas"], "{name}");
        assert_eq!(wanted_of(&held).map(str::to_owned), wanted, "{name}");
        // What was wanted is not lost to the next write of the same tool.
        let mut again = held.clone();
        again["metadata"] = new["metadata"].clone();
        let stored = hold(&held, &again).unwrap_or(again);
        assert_eq!(wanted_of(&stored).map(str::to_owned), wanted.filter(|_| mark_of(&new) != STEP), "{name}");
    }
}

#[test]
fn a_step_that_was_shut_keeps_its_bounds() {
    let step = at_step(STEP, "40%");
    let mut third = at_step(STEP, "100%");
    third["spec"]["template"] = json!({"spec": {}});
    let shut = hold(&step, &third).unwrap();
    assert!(is_paused(&shut));
    assert_eq!((mark_of(&shut), opening(&shut)), (SHUT_STEP, opening(&step)));
    // A paused Deployment's own controller still scales by them.
    let mut put = deployment("c", 3, true, SHUT_STEP, "deployment");
    for mark in [SHUT_STEP, ""] {
        put["metadata"]["annotations"] = json!({IN_PROGRESSING: mark});
        put["spec"]["template"] = third["spec"]["template"].clone();
        let held = hold(&shut, &put).unwrap();
        assert_eq!((mark_of(&held), opening(&held)), (SHUT_STEP, opening(&step)));
    }
    // Nor does the mark of the step open again what was shut.
    assert!(hold(&shut, &at_step(STEP, "100%")).is_none_or(|held| is_paused(&held)));
    // What a controller without the policy in force has left is brought in order by the controller.
    let mut moved = shut.clone();
    moved["spec"]["minReadySeconds"] = json!(0);
    assert_eq!(hold(&moved, &shut), None);
}

/// A Deployment with an image; `mark` and `label` are left out when empty.
fn deployment(image: &str, replicas: i64, paused: bool, mark: &str, label: &str) -> Value {
    let mut metadata = json!({"name": "web", "labels": {"app": "web"}});
    if !label.is_empty() {
        metadata["labels"][WORKLOAD_TYPE] = json!(label);
    }
    if !mark.is_empty() {
        metadata["annotations"] = json!({IN_PROGRESSING: mark});
    }
    let mut spec = json!({"replicas": replicas, "template": {"spec": {"containers": [{"name": "c", "image": image}]}}});
    if paused {
        spec["paused"] = json!(true);
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
}

fn managed(image: &str, paused: bool, mark: &str) -> Value {
    deployment(image, 3, paused, mark, "deployment")
}

fn mark_of(object: &Value) -> &str {
    mark(object)
}

#[test]
fn a_changed_template_is_held_with_a_new_mark() {
    let held = hold(&managed("a", false, ""), &managed("b", false, "")).unwrap();
    assert_eq!(held, managed("b", true, EMPTY));
}

#[test]
fn the_writers_own_pause_is_remembered() {
    let held = hold(&managed("a", true, ""), &managed("b", true, "")).unwrap();
    assert_eq!(mark_of(&held), r#"{"rolloutName":"","paused":true}"#);
    // What counts is the wish in this write, not the one before.
    let held = hold(&managed("a", true, ""), &managed("b", false, "")).unwrap();
    assert_eq!(mark_of(&held), EMPTY);
}

#[test]
fn what_is_left_alone() {
    let cases = [
        ("nothing changed", managed("a", false, ""), managed("a", false, "")),
        ("scaled", managed("a", false, ""), deployment("a", 9, false, "", "deployment")),
        ("not managed", deployment("a", 3, false, "", ""), deployment("b", 3, false, "", "")),
        ("changed while scaled to 0", managed("a", false, ""), deployment("b", 0, false, "", "deployment")),
        ("a person pauses", managed("a", false, ""), managed("a", true, "")),
        ("a person unpauses what is not held", managed("a", true, ""), managed("a", false, "")),
        ("the controller names itself", managed("b", true, EMPTY), managed("b", true, NAMED)),
        ("the controller opens", managed("b", true, NAMED), managed("b", false, OPEN)),
        ("the controller ends", managed("b", false, OPEN), managed("b", false, "")),
        ("the controller ends and pauses again", managed("b", false, OPEN), managed("b", true, "")),
        ("a person pauses what is open", managed("b", false, OPEN), managed("b", true, OPEN)),
        ("the controller ends what a person paused", managed("b", true, OPEN), managed("b", true, "")),
        ("the label goes by itself", managed("b", true, NAMED), deployment("b", 3, true, NAMED, "")),
        ("the way out", deployment("b", 3, true, NAMED, ""), deployment("b", 3, false, NAMED, "")),
        ("held, and scaled to 0", managed("b", true, NAMED), deployment("b", 0, true, NAMED, "deployment")),
    ];
    for (name, old, new) in cases {
        assert_eq!(hold(&old, &new), None, "{name}");
    }
}

#[test]
fn what_cannot_open_a_held_deployment() {
    let old = managed("b", true, NAMED);
    let cases = [
        ("a PUT that knows neither label nor mark", deployment("b", 3, false, "", "")),
        ("a PUT that knows the label only", managed("b", false, "")),
        ("an apply that says paused: false", managed("b", false, NAMED)),
        ("an unpause under another name", managed("b", false, EMPTY)),
        ("removal of the mark by itself", managed("b", true, "")),
    ];
    for (name, new) in cases {
        let held = hold(&old, &new).expect(name);
        assert!(is_paused(&held) && label(WORKLOAD_TYPE, &held).is_some(), "{name}: {held}");
        assert_eq!(mark_of(&held), NAMED, "{name}");
    }
    let mut empty = managed("b", true, "");
    empty["metadata"]["annotations"] = json!({IN_PROGRESSING: ""});
    assert_eq!(hold(&old, &empty).unwrap(), old);
}

#[test]
fn a_put_without_label_cannot_slip_through_in_two_writes() {
    let bare = deployment("b", 3, false, "", "");
    let first = hold(&managed("a", false, ""), &bare).unwrap();
    assert_eq!(first, managed("b", true, EMPTY));
    assert_eq!(hold(&first, &bare).unwrap(), first);
}

#[test]
fn a_newer_template_shuts_an_open_deployment_again() {
    let held = hold(&managed("b", false, OPEN), &managed("c", false, OPEN)).unwrap();
    assert_eq!(held, managed("c", true, r#"{"rolloutName":"web","paused":true}"#));
    let held = hold(&managed("b", false, OPEN), &deployment("c", 3, false, "", "")).unwrap();
    assert_eq!(held, managed("c", true, r#"{"rolloutName":"web","paused":true}"#));
    // A mark that the writer brings along cannot open either.
    let held = hold(&managed("b", false, ""), &managed("c", false, OPEN)).unwrap();
    assert_eq!(mark_of(&held), r#"{"rolloutName":"web","paused":true}"#);
}

#[test]
fn the_old_mark_wins_over_the_writers() {
    let held = hold(&managed("b", true, NAMED), &managed("c", true, EMPTY)).unwrap();
    assert_eq!(mark_of(&held), NAMED);
}

#[test]
fn absent_replicas_want_a_pod() {
    let mut new = managed("b", false, "");
    new["spec"].as_object_mut().unwrap().remove("replicas");
    assert!(hold(&managed("a", false, ""), &new).is_some());
}

#[test]
fn marks_are_written_as_the_rule_reads_them() {
    let text = |paused, released| {
        serde_json::to_string(&InProgressing {
            rollout_name: String::new(),
            paused,
            released,
            ..InProgressing::default()
        })
        .unwrap()
    };
    assert_eq!(text(false, false), MARK);
    assert_eq!(text(true, false), MARK_PAUSED);
    assert!(is_released(&text(false, true)) && is_released(&text(true, true)));
    assert_eq!(text(true, true).replace(RELEASED, ""), text(true, false));
    let opening = Opening { max_surge: Some(IntOrString::Int(1)), max_unavailable: None, partition: None };
    let open =
        InProgressing { open: Some(opening.clone()), original: Some(Default::default()), ..InProgressing::default() };
    let was = InProgressing { open: None, was: Some(opening), ..open.clone() };
    let text = |mark: &InProgressing| serde_json::to_string(mark).unwrap();
    assert!(is_open(&text(&open)) && !is_open(&text(&was)));
    assert_eq!(serde_json::from_str::<InProgressing>(&text(&open).replace(super::super::OPEN, WAS)).unwrap(), was);
}

#[test]
fn malformed_objects_do_no_harm() {
    for new in [json!(null), json!([]), json!({"metadata": {"labels": []}}), json!({"metadata": 1, "spec": 2})] {
        let _ = hold(&managed("a", true, NAMED), &new);
        let _ = hold(&new, &managed("a", true, NAMED));
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn a_mark() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", EMPTY, NAMED, OPEN, STEP, NEXT_STEP, SHUT_STEP, MARK_PAUSED, "not json"])
            .prop_map(str::to_owned)
    }

    prop_compose! {
        /// Any of the states that a Deployment can be in, as far as the hold is concerned, with more in it than that.
        fn any_deployment()(
            image in "[ab]", replicas in 0_i64..3, paused: bool, mark in a_mark(),
            label in prop::sample::select(vec!["", "deployment", "other"]), note: bool,
            ready in prop::sample::select(vec![0, 5, HELD_READY]), share in prop::sample::select(vec!["40%", "60%"]),
        ) -> Value {
            let mut object = deployment(&image, replicas, paused, &mark, label);
            if note {
                object["metadata"]["annotations"]["note"] = json!("x");
                object["metadata"]["annotations"][WANTED_FIELDS] = json!(share);
            }
            object["spec"]["minReadySeconds"] = json!(ready);
            object["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": share}});
            object
        }
    }

    /// The object without what the hold may write.
    fn rest(object: &Value) -> Value {
        let mut object = object.clone();
        let spec = object["spec"].as_object_mut().unwrap();
        let _ = ["paused", "strategy", "minReadySeconds"].map(|field| spec.remove(field));
        object["metadata"]["labels"].as_object_mut().unwrap().remove(WORKLOAD_TYPE);
        let annotations = object["metadata"]["annotations"].take();
        let mut annotations = annotations.as_object().cloned().unwrap_or_default();
        let _ = [IN_PROGRESSING, WANTED_FIELDS].map(|key| annotations.remove(key));
        object["metadata"]["annotations"] = json!(annotations);
        object
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_else_changes(old in any_deployment(), new in any_deployment()) {
            if let Some(held) = hold(&old, &new) {
                prop_assert_eq!(rest(&held), rest(&new));
                prop_assert!(!mark(&held).is_empty() && !is_released(mark(&held)));
                let is_kept = !is_paused(&old) && is_open(mark(&old)) && opening(&held) == opening(&old);
                prop_assert!(is_paused(&held) || (is_kept && mark(&held) == mark(&old)));
                prop_assert!(opening(&held) == opening(&new) || opening(&held) == opening(&old));
            }
        }

        #[test]
        fn twice_is_once(old in any_deployment(), new in any_deployment()) {
            if let Some(held) = hold(&old, &new) {
                prop_assert_eq!(hold(&old, &held), None);
            }
        }

        #[test]
        fn writing_the_same_again_changes_nothing(object in any_deployment()) {
            prop_assert_eq!(hold(&object, &object), None);
        }

        /// Whatever is written, and as often as they like: while the label is there, nobody but a writer of the released
        /// mark gets a new template to roll, and nobody who does not take the label away by itself gets rid of it.
        #[test]
        fn nobody_slips_through(start in "[ab]", writes in prop::collection::vec(any_deployment(), 1..8)) {
            let mut stored = managed(&start, false, "");
            let mut rolled = json!(start);
            for write in writes {
                if is_released(mark(&write)) || is_open(mark(&write)) {
                    continue;
                }
                let was_shut = is_paused(&stored) && !mark(&stored).is_empty();
                let held = hold(&stored, &write).unwrap_or(write);
                if label(WORKLOAD_TYPE, &held).is_none() {
                    // Not managed any more, which is anybody's right; but not in the write that also opens.
                    prop_assert!(!was_shut || (is_paused(&held) && !mark(&held).is_empty()), "{}", held);
                    break;
                }
                stored = held;
                let image = &stored["spec"]["template"]["spec"]["containers"][0]["image"];
                let runs = !is_paused(&stored) && stored["spec"]["replicas"] != 0;
                if stored["spec"]["replicas"] == 0 {
                    // Without pods there is nothing to protect.
                    rolled = image.clone();
                }
                prop_assert!(!runs || *image == rolled, "{} rolled out: {}", image, stored);
            }
        }
    }
}
