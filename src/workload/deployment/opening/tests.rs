use super::*;
use crate::workload::{Kind, kind};

const UID: &str = "d";

fn row() -> &'static Kind {
    kind("apps", "Deployment").unwrap()
}

fn set(name: &str, replicas: i32, desired: i32) -> Arc<Value> {
    Arc::new(json!({"metadata": {"name": name, "labels": {"pod-template-hash": name},
            "annotations": {DESIRED_REPLICAS: desired.to_string()}, "ownerReferences": [{"controller": true, "uid": UID}]},
        "spec": {"replicas": replicas, "template": {"spec": name}},
        "status": {"replicas": replicas, "readyReplicas": replicas}}))
}

fn deployment(replicas: i32, strategy: Value) -> Arc<Value> {
    Arc::new(json!({"metadata": {"name": "web", "uid": UID}, "spec": {"replicas": replicas, "paused": true,
        "template": {"spec": "new"}, "strategy": strategy}}))
}

fn rolling(surge: &str, unavailable: &str) -> Value {
    let value = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |n| json!(n));
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": value(surge), "maxUnavailable": value(unavailable)}})
}

fn plain(opening: &Opening) -> String {
    let text = |bound: &Option<IntOrString>| json!(bound).to_string().replace('"', "");
    format!("{} {}", text(&opening.max_surge), text(&opening.max_unavailable))
}

#[test]
fn new_pods_beyond_an_opening_are_covered_by_its_surge() {
    // Of four pods with `maxSurge: 100%`: old and new ones, ready new ones, the target, and the size shared out last.
    for (old, new, ready, target, desired, expected) in [
        // Held late, in the middle of its own rolling update.
        (4, 4, 0, 1, 4, "4 0"),
        (4, 4, 4, 1, 4, "3 25%"),
        (3, 4, 4, 1, 4, "3 25%"),
        (2, 4, 4, 1, 4, "2 25%"),
        (0, 4, 4, 1, 4, "0 25%"),
        // Its own controller has not shared out the new size yet.
        (4, 4, 0, 1, 6, "1 0"),
        // As it rolls up to a step.
        (4, 0, 0, 2, 4, "2 0"),
        (4, 2, 1, 2, 4, "1 1"),
        (4, 2, 2, 2, 4, "0 50%"),
        (2, 2, 2, 2, 4, "0 50%"),
    ] {
        let sets = [set("old", old, desired), set("new", new, desired)];
        let surroundings = Surroundings { revisions: &sets, ..Surroundings::default() };
        let strategy = rolling("100%", "0");
        let workload = (row().read)(row(), &deployment(4, strategy.clone()), &surroundings);
        let opening = covering(partition(&workload, &strategy, target, ready), &workload, &surroundings);
        assert_eq!(plain(&opening), expected, "{old} old, {new} new, {ready} of them ready, {target} wanted");
    }
}

#[test]
fn a_share_that_allows_fewer_pods_leaves_no_room_for_more() {
    let sets = [set("old", 799, 999), set("new", 200, 999)];
    let surroundings = Surroundings { revisions: &sets, ..Surroundings::default() };
    let strategy = rolling("1", "0");
    let workload = (row().read)(row(), &deployment(999, strategy.clone()), &surroundings);
    let opening = covering(partition(&workload, &strategy, 200, 200), &workload, &surroundings);
    assert_eq!(plain(&opening), "0 20%");
}

#[test]
fn while_it_is_paused_its_surge_stays_as_it_is() {
    for (strategy, surge, unavailable, expected) in [
        (rolling("100%", "0"), 1, 0, "100% 0"),
        (rolling("3", "25%"), 1, 2, "3 2"),
        // The API server refuses two zeros.
        (rolling("0", "1"), 1, 0, "0 1"),
        (rolling("0%", "1"), 1, 0, "0% 1"),
        (rolling("0", "1"), 0, 2, "0 2"),
        (json!({"type": "Recreate"}), 0, 1, "0 1"),
    ] {
        let workload = (row().read)(row(), &deployment(4, strategy.clone()), &Surroundings::default());
        let bound = |pods| Some(IntOrString::Int(pods));
        let opening = Opening { max_surge: bound(surge), max_unavailable: bound(unavailable), partition: None };
        assert_eq!(plain(&as_paused(&opening, &workload)), expected, "{strategy}");
    }
}
