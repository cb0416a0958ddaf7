use super::*;

/// A pod as `node:version`, with `!` where it is not ready.
pub(in crate::workload) fn pod(said: &str) -> Arc<Value> {
    let is_ready = !said.ends_with('!');
    let (node, version) = said.trim_end_matches('!').split_once(':').unwrap();
    Arc::new(json!({"metadata": {"name": format!("pod-{node}"), "labels": {keys::CONTROLLER_REVISION_HASH: version},
            "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{"uid": "set", "controller": true}]},
        "spec": {"nodeName": node},
        "status": {"conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
}

/// A version whose template is named as it is.
pub(in crate::workload) fn revision(n: i64, name: &str) -> Arc<Value> {
    Arc::new(json!({"metadata": {"name": name, "labels": {keys::CONTROLLER_REVISION_HASH: name},
        "ownerReferences": [{"uid": "set", "controller": true}]}, "revision": n, "data": {"spec": {"template": {"image": name}}}}))
}

/// The nodes whose pods are to be replaced, in order. `closed`: those that are known to take no other pod.
fn replaced(status: (i32, i32), pods: &str, closed: &str, target: i32, unavailable: i32) -> String {
    look(status, pods, closed, (target, unavailable), 0).0
}

/// These, and when to look again where pods have to be ready for so many seconds; they have been for a day.
fn look(
    (desired, astray): (i32, i32),
    pods: &str,
    closed: &str,
    (target, unavailable): (i32, i32),
    seconds: i64,
) -> (String, Option<Timestamp>) {
    let object =
        Arc::new(json!({"metadata": {"uid": "set"}, "spec": {"template": {"image": "new"}, "minReadySeconds": seconds,
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": unavailable}}},
        "status": {"desiredNumberScheduled": desired, "numberMisscheduled": astray}}));
    let revisions = [revision(1, "old"), revision(2, "new")];
    let pods: Vec<_> = pods.split(' ').map(pod).collect();
    let taints = json!([{"key": "going", "effect": "NoSchedule"}]);
    let nodes: Vec<_> =
        closed.split(' ').map(|n| Arc::new(json!({"metadata": {"name": n}, "spec": {"taints": taints}}))).collect();
    let surroundings = Surroundings { revisions: &revisions, pods: &pods, nodes: &nodes };
    let workload = daemons(&KIND, &object, &surroundings);
    let wanted = IntOrString::Int(target);
    let goal =
        Goal { stable: "old", now: "2026-01-02T00:00:00Z".parse().unwrap(), ..Goal::to(target, &wanted, surroundings) };
    let (pods, next) = to_replace(&workload, &goal);
    let names: Vec<&str> = pods.iter().map(|pod| text(pod, &["spec", "nodeName"])).collect();
    (names.join(" "), next)
}

#[test]
fn pods_that_are_not_ready_for_long_enough_are_looked_at_again_in_time() {
    const DAY: i64 = 86_400;
    for (seconds, expected, next) in [(DAY, "a", None), (DAY + 10, "", Some("2026-01-02T00:00:10Z"))] {
        let found = look((2, 0), "a:old b:old", "", (1, 1), seconds);
        assert_eq!(found, (expected.to_owned(), next.map(|at| at.parse().unwrap())), "{seconds} s");
    }
}

#[test]
fn no_more_pods_go_than_may_and_none_where_no_other_comes() {
    const FOUR: &str = "a:old b:old c:old d:old";
    for (status, pods, closed, target, unavailable, expected) in [
        ((4, 0), FOUR, "", 1, 1, "a"),
        ((4, 0), FOUR, "", 3, 2, "a b"),
        ((4, 0), "a:old b:old! c:old! d:old", "", 3, 1, "b c"),
        ((4, 0), "a:new b:old c:old d:old", "", 1, 1, ""),
        ((4, 0), "a:new! b:old c:old d:old", "", 2, 1, ""),
        // One goes, also where the strategy says that none may be missing.
        ((4, 0), FOUR, "", 1, 0, "a"),
        // Three of the four are wanted; the one on the closed node is neither taken nor counted.
        ((3, 1), FOUR, "a", 1, 1, "b"),
        ((3, 1), FOUR, "a", 3, 1, "b"),
        ((3, 1), FOUR, "a", 3, 2, "b c"),
        ((3, 1), "a:old! b:old c:old d:old", "a", 1, 1, "b"),
        // Its own controller has not noticed yet.
        ((4, 0), FOUR, "a", 1, 1, "b"),
        ((4, 0), FOUR, "a", 4, 1, "b"),
        // Which one it is cannot be known where nodes may not be read; that it is one is.
        ((3, 1), FOUR, "", 3, 1, "a"),
        ((3, 1), FOUR, "", 3, 2, "a b"),
        ((3, 1), "a:new b:old c:old d:old", "", 1, 1, ""),
        // All of them.
        ((0, 4), FOUR, "a b c d", 1, 1, ""),
    ] {
        let found = replaced(status, pods, closed, target, unavailable);
        assert_eq!(found, expected, "{status:?} {pods}; closed {closed}; to {target}, {unavailable} at a time");
    }
}
