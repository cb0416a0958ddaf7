use serde_json::json;

use super::*;
use crate::{
    api::keys::{InProgressing, ORIGINAL_PARTITION, Opening, WORKLOAD_TYPE},
    workload::hold::{Rule, rule},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

const NAMED: &str = r#"{"rolloutName":"db"}"#;
const GONE: &str = r#"{"rolloutName":"db","released":true}"#;
const STEP: &str = r#"{"rolloutName":"db","open":{"partition":7}}"#;
const NEXT_STEP: &str = r#"{"rolloutName":"db","open":{"partition":4}}"#;
const SHUT_STEP: &str = r#"{"rolloutName":"db","was":{"partition":7}}"#;
const SHUT: i64 = 32767;

fn stateful_sets() -> &'static Rule {
    rule("apps", "v1", "statefulsets").unwrap()
}

fn hold(old: &Value, new: &Value) -> Option<Value> {
    stateful_sets().hold(old, new)
}

/// A StatefulSet; mark and memory are left out when they are `None`.
fn set(image: &str, partition: i64, mark: Option<&str>, own: Option<&str>) -> Value {
    let mut metadata = json!({"name": "db", "labels": {"app": "db", WORKLOAD_TYPE: "statefulset"}});
    for (key, value) in [(IN_PROGRESSING, mark), (ORIGINAL_PARTITION, own)] {
        if let Some(value) = value {
            metadata["annotations"][key] = json!(value);
        }
    }
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": {"replicas": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}},
        "template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// As somebody writes it who knows nothing of us.
fn bare(image: &str, partition: i64) -> Value {
    let mut object = set(image, partition, None, None);
    object["metadata"]["labels"].as_object_mut().unwrap().remove(WORKLOAD_TYPE);
    object
}

#[test]
fn a_changed_template_is_held_and_the_users_partition_remembered() {
    let held = hold(&set("a", 0, None, None), &set("b", 0, None, None)).unwrap();
    assert_eq!(held, set("b", SHUT, Some(MARK), Some("0")));
    // What counts is the wish in this write, not the one before.
    let held = hold(&set("a", 0, None, None), &set("b", 2, None, None)).unwrap();
    assert_eq!(held, set("b", SHUT, Some(MARK), Some("2")));
    // A PUT that drops the label too.
    assert_eq!(hold(&set("a", 2, None, None), &bare("b", 2)).unwrap(), held);
}

#[test]
fn d_28_a_third_version_is_held_at_once() {
    let held = hold(&set("b", 7, Some(STEP), Some("0")), &set("c", 7, Some(STEP), Some("0"))).unwrap();
    assert_eq!(held, set("c", SHUT, Some(SHUT_STEP), Some("0")));
    // Also after all steps, while the release is wound up (D-11).
    let held = hold(&set("b", 0, Some(GONE), Some("3")), &set("c", 0, Some(GONE), Some("3"))).unwrap();
    assert_eq!(held, set("c", SHUT, Some(NAMED), Some("3")));
    // By a tool that writes whole manifests.
    let held = hold(&set("b", 7, Some(STEP), Some("3")), &bare("c", 3)).unwrap();
    assert_eq!(held, set("c", SHUT, Some(SHUT_STEP), Some("3")));
}

#[test]
fn what_is_left_alone() {
    let mut by_hand = set("b", 0, None, None);
    by_hand["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let mut unlabelled = set("b", SHUT, Some(NAMED), Some("0"));
    unlabelled["metadata"]["labels"].as_object_mut().unwrap().remove(WORKLOAD_TYPE);
    let mut free = unlabelled.clone();
    free["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(0);
    let mut none = set("b", 0, None, None);
    none["spec"]["replicas"] = json!(0);
    let shut = set("b", SHUT, Some(NAMED), Some("0"));
    let step = set("b", 7, Some(STEP), Some("0"));
    let cases = [
        ("not managed", bare("a", 0), bare("b", 0)),
        ("its owner replaces pods by hand", set("a", 0, None, None), by_hand),
        ("changed while scaled to 0", set("a", 0, None, None), none),
        ("a person sets a partition", set("a", 0, None, None), set("a", 4, None, None)),
        ("the controller names itself", set("b", SHUT, Some(MARK), Some("0")), shut.clone()),
        ("the controller opens it", shut.clone(), step.clone()),
        ("the controller goes on", step.clone(), set("b", 4, Some(NEXT_STEP), Some("0"))),
        ("the controller shuts it", step.clone(), set("b", SHUT, Some(SHUT_STEP), Some("0"))),
        ("the controller ends", step, set("b", 0, Some(GONE), Some("0"))),
        ("the controller gives the partition back", set("b", 0, Some(GONE), Some("3")), set("b", 3, None, None)),
        ("the label goes by itself", shut, unlabelled.clone()),
        ("the way out", unlabelled, free),
    ];
    for (name, old, new) in cases {
        assert_eq!(hold(&old, &new), None, "{name}");
    }
}

#[test]
fn what_cannot_open_a_held_stateful_set() {
    let old = set("b", SHUT, Some(NAMED), Some("2"));
    for (name, new, own) in [
        ("a PUT that knows nothing of us", bare("b", 3), "3"),
        ("a PUT of the label only", set("b", 2, None, None), "2"),
        ("a partition by hand", set("b", 0, Some(NAMED), Some("2")), "0"),
        ("a partition under another name", set("b", 0, Some(MARK), Some("2")), "0"),
        ("removal of the mark by itself", set("b", SHUT, None, Some("2")), "2"),
    ] {
        assert_eq!(hold(&old, &new).expect(name), set("b", SHUT, Some(NAMED), Some(own)), "{name}");
    }
}

#[test]
fn a_step_stays_where_it_is_whatever_a_tool_writes() {
    let step = set("b", 7, Some(STEP), Some("2"));
    for (name, new, own) in [
        ("a PUT of the manifest", bare("b", 2), "2"),
        ("another wish", set("b", 5, Some(STEP), Some("2")), "5"),
        ("a mark of before the step", set("b", 7, Some(NAMED), Some("2")), "2"),
    ] {
        assert_eq!(hold(&step, &new).expect(name), set("b", 7, Some(STEP), Some(own)), "{name}");
    }
}

const BOTH: &str = r#"{"rolloutName":"db","open":{"maxSurge":"50%","maxUnavailable":0,"partition":0},"original":{}}"#;
const MORE: &str = r#"{"rolloutName":"db","open":{"maxSurge":"100%","maxUnavailable":0,"partition":0},"original":{}}"#;

/// A CloneSet of whose two sets `surge` may be new pods.
fn both(image: &str, surge: &str, mark: &str) -> Value {
    let mut object = set(image, 0, Some(mark), Some("3"));
    object["spec"]["updateStrategy"]["rollingUpdate"] = json!({"partition": 0, "maxSurge": surge, "maxUnavailable": 0});
    object["spec"]["minReadySeconds"] = json!(HELD_READY);
    object
}

#[test]
fn two_sets_stay_beside_each_other_whatever_a_tool_writes() {
    let rule = rule("apps.kruise.io", "v1beta1", "clonesets").unwrap();
    let with = |object: &Value, change: Value| {
        let mut object = object.clone();
        json_patch::merge(&mut object, &change);
        object
    };
    let step = both("b", "50%", BOTH);
    let mut manifest = bare("b", 3);
    manifest["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!("20%");
    for (name, new) in [
        ("a PUT of the manifest", manifest),
        ("pods would become available", with(&step, json!({"spec": {"minReadySeconds": 5}}))),
        ("the field is left out", with(&step, json!({"spec": {"minReadySeconds": null}}))),
        ("more pods would come", both("b", "100%", BOTH)),
        (
            "old pods would go",
            with(&step, json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}})),
        ),
    ] {
        assert_eq!(rule.hold(&step, &new).expect(name), step, "{name}");
    }
    // Held in the middle, by a third version.
    let held = rule.hold(&step, &both("c", "50%", BOTH)).unwrap();
    let shut = BOTH.replace("open", "was");
    let wanted =
        with(&both("c", "50%", &shut), json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": "100%"}}}}));
    assert_eq!(held, wanted);
    let parted = with(&held, json!({"spec": {"minReadySeconds": 0}}));
    assert_eq!(rule.hold(&held, &parted).unwrap(), held);
    // The controller goes on, and ends it.
    assert_eq!(rule.hold(&step, &both("b", "100%", MORE)), None);
    assert_eq!(rule.hold(&step, &set("b", 0, Some(GONE), Some("3"))), None);
}

#[test]
fn parents_are_made_and_taken_away() {
    let field = &super::super::super::stateful_set::HELD_BY;
    for (spec, set, unset) in [
        (json!({}), json!({"updateStrategy": {"rollingUpdate": {"partition": 3}}}), json!({})),
        (
            json!({"updateStrategy": {"type": "X"}}),
            json!({"updateStrategy": {"type": "X", "rollingUpdate": {"partition": 3}}}),
            json!({"updateStrategy": {"type": "X"}}),
        ),
        (
            json!({"updateStrategy": {"rollingUpdate": {"partition": 1, "maxUnavailable": 1}}}),
            json!({"updateStrategy": {"rollingUpdate": {"partition": 3, "maxUnavailable": 1}}}),
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}}}),
        ),
    ] {
        let patched = |object: &Value, operations: Vec<Value>| {
            let mut object = object.clone();
            let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
            json_patch::patch(&mut object, &patch).unwrap();
            object
        };
        let object = json!({"spec": spec});
        let there = patched(&object, field.set(&object, Some(json!(3))));
        assert_eq!(there["spec"], set);
        assert_eq!(patched(&there, field.set(&there, None))["spec"], unset);
    }
}

#[test]
fn marks_are_written_as_the_rule_reads_them() {
    let opening = Opening { partition: Some(IntOrString::Int(7)), ..Opening::default() };
    let open = InProgressing { rollout_name: "db".into(), open: Some(opening.clone()), ..Default::default() };
    let shut = InProgressing { open: None, was: Some(opening), ..open.clone() };
    assert_eq!(serde_json::to_string(&open).unwrap(), STEP);
    assert_eq!(serde_json::from_str::<InProgressing>(SHUT_STEP).unwrap(), shut);
}

mod properties {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::hold::{label, rules};

    fn a_rule() -> impl Strategy<Value = &'static Rule> {
        let by_field = |rule: &&Rule| matches!(rule.by, crate::workload::hold::By::Field(_));
        prop::sample::select(rules().filter(by_field).collect::<Vec<_>>())
    }

    fn a_mark() -> impl Strategy<Value = Option<String>> {
        prop::option::of(
            prop::sample::select(vec!["", MARK, NAMED, GONE, STEP, NEXT_STEP, SHUT_STEP, BOTH, MORE, "not json"])
                .prop_map(str::to_owned),
        )
    }

    prop_compose! {
        /// Any of the states that a workload can be in, as far as the hold is concerned.
        fn any_workload()(
            image in "[ab]", replicas in 0_i64..3, value in prop::sample::select(vec![0, 4, 7, SHUT]), mark in a_mark(),
            own in prop::option::of(prop::sample::select(vec!["", "0", "2"])), is_managed: bool,
            seconds in prop::option::of(prop::sample::select(vec![5, HELD_READY])),
        ) -> (Value, Option<i64>) {
            let mut object = set(&image, value, mark.as_deref(), own);
            object["spec"]["replicas"] = json!(replicas);
            if let Some(seconds) = seconds {
                object["spec"]["minReadySeconds"] = json!(seconds);
            }
            object["spec"].as_object_mut().unwrap().remove("updateStrategy");
            if !is_managed {
                object["metadata"]["labels"].as_object_mut().unwrap().remove(WORKLOAD_TYPE);
            }
            (object, (value != 4).then_some(value))
        }
    }

    /// The value in the field of the rule: shut, free, left out, or something else; and its label.
    fn with(rule: &'static Rule, (object, value): &(Value, Option<i64>)) -> Value {
        let (mut object, field) = (object.clone(), field(rule));
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        if let Some(label) = labels.remove(WORKLOAD_TYPE) {
            labels.insert(rule.switch.to_owned(), label);
        }
        if let Some(value) = value {
            let value = match *value {
                SHUT => field.shut.value(),
                0 => field.free.value(),
                other => json!(other),
            };
            put(object["spec"].as_object_mut().unwrap(), field.path, value).unwrap();
        }
        object
    }

    fn field(rule: &'static Rule) -> &'static Field {
        match &rule.by {
            crate::workload::hold::By::Field(field) => field,
            crate::workload::hold::By::Paused => unreachable!(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn twice_is_once(rule in a_rule(), old in any_workload(), new in any_workload()) {
            let (old, new) = (with(rule, &old), with(rule, &new));
            if let Some(held) = rule.hold(&old, &new) {
                prop_assert!(!mark(&held).is_empty() && !is_released(mark(&held)));
                prop_assert_eq!(rule.hold(&old, &held), None);
            }
        }

        #[test]
        fn writing_the_same_again_changes_nothing(rule in a_rule(), object in any_workload()) {
            let object = with(rule, &object);
            prop_assert_eq!(rule.hold(&object, &object), None);
        }

        /// Whatever is written, and as often as they like: while the label is there, nobody but a writer of an open or a
        /// released mark gets a new template to roll.
        #[test]
        fn nobody_slips_through(rule in a_rule(), writes in prop::collection::vec(any_workload(), 1..8)) {
            let field = field(rule);
            let mut stored = with(rule, &(set("a", 0, None, None), None));
            stored["spec"].as_object_mut().unwrap().remove("updateStrategy");
            let mut rolled = json!("a");
            for write in writes {
                let write = with(rule, &write);
                if is_released(mark(&write)) || is_open(mark(&write)) {
                    continue;
                }
                let was_shut = field.is_shut(&stored) && !mark(&stored).is_empty();
                let held = rule.hold(&stored, &write).unwrap_or(write);
                if label(rule.switch, &held).is_none() {
                    prop_assert!(!was_shut || (field.is_shut(&held) && !mark(&held).is_empty()), "{}", held);
                    break;
                }
                stored = held;
                let image = &stored["spec"]["template"]["spec"]["containers"][0]["image"];
                let runs = !field.is_shut(&stored) && stored["spec"]["replicas"] != 0;
                if stored["spec"]["replicas"] == 0 {
                    rolled = image.clone();
                }
                prop_assert!(!runs || *image == rolled, "{} rolled out: {}", image, stored);
            }
        }
    }
}
