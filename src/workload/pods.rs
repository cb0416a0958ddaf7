//! What the pods of a workload say of themselves.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::PodNames;
use crate::api::object::{self, at, text};

/// How many pods are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// For long enough.
    pub pods: i32,
    /// When the next one will be, if no readiness changes.
    pub next: Option<Timestamp>,
}

/// Pods with one of these names that have been ready for so many seconds and are not going.
pub fn ready_for<'a>(
    pods: impl IntoIterator<Item = &'a Value>,
    names: &PodNames,
    seconds: i64,
    now: Timestamp,
) -> Ready {
    let mut ready = Ready::default();
    for pod in pods.into_iter().filter(|p| names.contains(object::name(p)) && !object::is_deleting(p)) {
        let Some(since) = ready_since(pod) else { continue };
        let from = since.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(since);
        if from <= now {
            ready.pods += 1;
        } else {
            ready.next = Some(ready.next.map_or(from, |next| next.min(from)));
        }
    }
    ready
}

/// What keeps one of these pods from becoming ready, for a person: pod, container, and what it said last. The same trouble
/// is said in the same words from one restart to the next.
pub fn trouble<'a>(pods: impl IntoIterator<Item = &'a Value>, names: &PodNames) -> Option<String> {
    let mut troubled: Vec<(&str, String)> = pods
        .into_iter()
        .filter(|pod| names.contains(object::name(pod)) && !object::is_deleting(pod))
        .filter_map(|pod| Some((object::name(pod), trouble_of(pod)?)))
        .collect();
    troubled.sort();
    let (name, text) = troubled.first()?;
    Some(match troubled.len() - 1 {
        0 => format!("pod {name}: {text}"),
        1 => format!("pod {name}: {text} (and 1 more pod is in trouble)"),
        more => format!("pod {name}: {text} (and {more} more pods are in trouble)"),
    })
}

fn trouble_of(pod: &Value) -> Option<String> {
    if text(pod, &["status", "phase"]) == "Failed" {
        return Some(said(text(pod, &["status", "reason"]), text(pod, &["status", "message"])));
    }
    let list = |field: &str| at(pod, &["status", field]).and_then(Value::as_array).into_iter().flatten();
    let unscheduled =
        list("conditions").find(|c| text(c, &["type"]) == "PodScheduled" && text(c, &["status"]) == "False");
    if let Some(condition) = unscheduled {
        return Some(said(text(condition, &["reason"]), text(condition, &["message"])));
    }
    ["initContainerStatuses", "containerStatuses"].into_iter().flat_map(list).find_map(container_trouble)
}

/// Kubelets wait so before a container's first start.
const STARTING: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];
const CRASH_LOOP: &str = "CrashLoopBackOff";

fn container_trouble(status: &Value) -> Option<String> {
    if at(status, &["ready"]).and_then(Value::as_bool).unwrap_or(false) {
        return None;
    }
    let name = text(status, &["name"]);
    let waiting = text(status, &["state", "waiting", "reason"]);
    if !STARTING.contains(&waiting) && waiting != CRASH_LOOP {
        return Some(format!("container {name}: {}", said(waiting, text(status, &["state", "waiting", "message"]))));
    }
    let ended = [["state", "terminated"], ["lastState", "terminated"]]
        .iter()
        .filter_map(|path| at(status, path))
        .find(|end| object::int(end, &["exitCode"]).is_some_and(|code| code != 0));
    // The state goes round: waiting, running, ended. From the second restart on it is the same trouble all along.
    let is_loop = waiting == CRASH_LOOP || object::int(status, &["restartCount"]).is_some_and(|n| n > 1);
    let end = match ended {
        None if is_loop && waiting == CRASH_LOOP => String::new(),
        None => return None,
        Some(end) => {
            let code = object::int(end, &["exitCode"]).unwrap_or_default();
            format!("ended with exit code {code}, {}", said(text(end, &["reason"]), text(end, &["message"])))
        }
    };
    Some(match (is_loop, end.is_empty()) {
        (true, true) => format!("container {name}: {CRASH_LOOP}"),
        (true, false) => format!("container {name}: {CRASH_LOOP}, {end}"),
        (false, _) => format!("container {name} {end}"),
    })
}

/// Longest part of a message that is repeated, in bytes.
const LONGEST: usize = 300;

/// A reason with the last line of its message: of a log's tail, that is what it ended with.
fn said(reason: &str, message: &str) -> String {
    let line = message.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = line.get(..line.floor_char_boundary(LONGEST)).unwrap_or_default();
    match (reason, line) {
        ("", "") => "no reason is given".to_owned(),
        ("", text) | (text, "") => text.to_owned(),
        (reason, line) => format!("{reason}: {line}"),
    }
}

/// How often containers of these pods were started again; `None` without any pod.
pub fn restarts<'a>(pods: impl IntoIterator<Item = &'a Value>, names: &PodNames) -> Option<u32> {
    count(pods, names, |status| {
        object::int(status, &["restartCount"]).and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
    })
}

/// How many containers of these pods ended last because they used too much memory; `None` without any pod.
pub fn oom_kills<'a>(pods: impl IntoIterator<Item = &'a Value>, names: &PodNames) -> Option<u32> {
    let is_oom = |status: &Value, state: &str| text(status, &[state, "terminated", "reason"]) == "OOMKilled";
    count(pods, names, |status| u32::from(is_oom(status, "state") || is_oom(status, "lastState")))
}

fn count<'a>(pods: impl IntoIterator<Item = &'a Value>, names: &PodNames, of: impl Fn(&Value) -> u32) -> Option<u32> {
    let pods = pods.into_iter().filter(|pod| names.contains(object::name(pod)));
    pods.map(|pod| {
        let list = |field: &str| at(pod, &["status", field]).and_then(Value::as_array).into_iter().flatten();
        let all = ["initContainerStatuses", "containerStatuses"].into_iter().flat_map(list);
        all.map(&of).fold(0, u32::saturating_add)
    })
    .reduce(u32::saturating_add)
}

/// Whether a pod is ready now.
pub fn is_ready(pod: &Value) -> bool {
    ready_since(pod).is_some()
}

fn ready_since(pod: &Value) -> Option<Timestamp> {
    let conditions = at(pod, &["status", "conditions"])?.as_array()?;
    let ready = conditions.iter().find(|c| text(c, &["type"]) == "Ready")?;
    if text(ready, &["status"]) != "True" {
        return None;
    }
    text(ready, &["lastTransitionTime"]).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn pod(status: &Value) -> Value {
        json!({"metadata": {"name": "web-1"}, "status": status})
    }

    #[test]
    fn says_what_keeps_a_pod_from_becoming_ready() {
        let terminated =
            json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "starting\npanic: no config\n"}});
        let container = |status: Value| {
            let mut all = json!({"name": "c", "ready": false, "restartCount": 0});
            json_patch::merge(&mut all, &status);
            json!({"containerStatuses": [{"name": "sidecar", "ready": true, "lastState": terminated}, all]})
        };
        let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
        for (status, wanted) in [
            (container(json!({"ready": true, "state": {"running": {}}})), None),
            (container(json!({"state": {"running": {}}})), None),
            (container(json!({"state": waiting("ContainerCreating", "")})), None),
            (container(json!({"ready": true, "restartCount": 7, "lastState": terminated})), None),
            (
                container(json!({"state": terminated})),
                Some("container c ended with exit code 1, Error: panic: no config"),
            ),
            (
                container(
                    json!({"restartCount": 3, "state": waiting("CrashLoopBackOff", "back-off 40s"), "lastState": terminated}),
                ),
                Some("container c: CrashLoopBackOff, ended with exit code 1, Error: panic: no config"),
            ),
            (
                container(json!({"restartCount": 4, "state": {"running": {}}, "lastState": terminated})),
                Some("container c: CrashLoopBackOff, ended with exit code 1, Error: panic: no config"),
            ),
            (container(json!({"state": waiting("CrashLoopBackOff", "")})), Some("container c: CrashLoopBackOff")),
            (
                container(json!({"state": waiting("ImagePullBackOff", "Back-off pulling image \"web:v9\"")})),
                Some("container c: ImagePullBackOff: Back-off pulling image \"web:v9\""),
            ),
            (
                json!({"initContainerStatuses": [{"name": "init", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}),
                Some("container init ended with exit code 137, OOMKilled"),
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]}),
                Some("Unschedulable: 0/3 nodes are available: 3 Insufficient cpu."),
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}),
                Some("Evicted: The node was low on memory."),
            ),
            (json!({"phase": "Pending"}), None),
            (json!("what no API server stores"), None),
        ] {
            let names = PodNames::Listed(["web-1".to_owned()].into());
            let found = trouble([&pod(&status)], &names);
            assert_eq!(found.as_deref().map(|t| t.strip_prefix("pod web-1: ").unwrap()), wanted, "{status}");
        }
    }

    #[test]
    fn names_one_pod_and_counts_the_others() {
        let failed =
            |name: &str| json!({"metadata": {"name": name}, "status": {"phase": "Failed", "reason": "Evicted"}});
        let going = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-11-22T06:00:00Z"}, "status": {"phase": "Failed"}});
        let pods = [failed("c"), failed("b"), going, failed("other"), failed("d")];
        let names = PodNames::Listed(BTreeSet::from(["a", "b", "c", "d"].map(str::to_owned)));
        assert_eq!(trouble(&pods, &names).unwrap(), "pod b: Evicted (and 2 more pods are in trouble)");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(said("R", &"ü".repeat(400)).len(), 3 + LONGEST);
    }
}
