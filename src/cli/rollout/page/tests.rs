use serde_json::{Value, json};

use super::{super::view::fixtures::*, *};

fn now() -> Timestamp {
    "2026-11-22T05:15:00Z".parse().unwrap()
}

fn pod(name: &str, hash: &str, patch: &Value) -> Pod {
    let pod = json!({
        "metadata": {"name": name, "labels": {"pod-template-hash": hash}, "creationTimestamp": "2026-11-22T05:11:00Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 1},
            {"name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 2}]}
    });
    serde_json::from_value(with(pod, patch)).unwrap()
}

fn event(reason: &str, minute: u8, patch: &Value) -> Event {
    let event = json!({
        "metadata": {"name": reason}, "involvedObject": {}, "type": "Normal", "reason": reason,
        "message": format!("{reason} happened"), "lastTimestamp": format!("2026-11-22T05:{minute:02}:00Z"),
        "reportingComponent": "tidegate"
    });
    serde_json::from_value(with(event, patch)).unwrap()
}

fn nothing() -> Surroundings {
    Surroundings { pods: Ok(Vec::new()), events: Ok(Vec::new()) }
}

#[test]
fn the_page_of_a_release_that_waits() {
    let surroundings = Surroundings {
        pods: Ok(vec![
            pod("web-b", "stable1", &json!({})),
            pod("web-a", "stable1", &json!({"metadata": {"deletionTimestamp": "2026-11-22T05:14:00Z"}})),
            pod(
                "web-c",
                "canary1",
                &json!({"status": {"containerStatuses": [
                {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 7,
                 "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            ),
        ]),
        events: Ok(vec![
            event("StepPaused", 14, &json!({})),
            event("StepStarted", 10, &json!({"type": "Warning", "count": 3})),
        ]),
    };
    let page = describe(&typed(&at(2, "StepPaused")), &surroundings, now(), false);
    assert_eq!(
        page,
        "\
Name:         rollouts-demo
Namespace:    shop
Age:          15m
Status:       Progressing
Message:      Rollout is in step(2/2)
Workload:     Deployment/nginx-deployment (apps/v1)
Strategy:     Canary
Step:         2/2 StepPaused
Steps:
  ✓ 1  20% of requests, then approval
  → 2  1 pod, requests with header version=canary, then approval  (StepPaused)
Traffic:
  Canary share: match
  Service/nginx-service (no canary Service)
  VirtualService/nginx-vs (networking.istio.io/v1alpha3)
  DestinationRule/nginx-dr (networking.istio.io/v1beta1)
Stable:       stable1
Canary:       rev2 (pods: canary1)
Canary pods:  1 of 1 ready
Conditions:
  TYPE          STATUS   REASON      SINCE   MESSAGE
  Progressing   True     InRolling   5m      Rollout is in Progressing
Pods:
  NAME    READY   REVISION         AGE   RESTARTS   STATUS
  web-c   0/2     canary canary1   4m    7          CrashLoopBackOff
  web-a   2/2     stable stable1   4m    3          Terminating
  web-b   2/2     stable stable1   4m    3          Running
Events:
  TYPE      REASON        AGE       FROM       MESSAGE
  Warning   StepStarted   5m (x3)   tidegate   StepStarted happened
  Normal    StepPaused    60s       tidegate   StepPaused happened
"
    );
}

#[test]
fn the_current_step_is_green_on_a_terminal() {
    let page = describe(&typed(&at(1, "StepPaused")), &nothing(), now(), true);
    let green: Vec<_> = page.lines().filter(|l| l.contains("\u{1b}[32m")).collect();
    assert_eq!(green, ["  \u{1b}[32m→ 1  20% of requests, then approval  (StepPaused)\u{1b}[39m"]);
}

#[test]
fn a_page_with_nothing_known_says_so() {
    let empty = json!({"apiVersion": "rollouts.kruise.io/v1beta1", "kind": "Rollout",
                       "metadata": {"name": "new", "namespace": "shop"}});
    let refused = Surroundings { pods: Err("pods is forbidden".into()), events: Err("events is forbidden".into()) };
    assert_eq!(
        describe(&typed(&empty), &refused, now(), false),
        "\
Name:         new
Namespace:    shop
Age:          -
Status:       not seen by the controller yet
Message:      -
Workload:     none: set spec.workloadRef
Strategy:     Canary
Steps:        none: the strategy needs at least one
Traffic:      not routed: requests follow the number of pods
Release:      none yet
Conditions:   none
Pods:         cannot be read: pods is forbidden
Events:       cannot be read: events is forbidden
"
    );
}

#[test]
fn blue_green_with_a_route_and_a_healthy_end() {
    let healthy = with(
        blue_green(2, "Completed"),
        &json!({"status": {"phase": "Healthy", "blueGreenStatus": {"finalisingStep": "END", "observedRolloutID": "r-7"}}}),
    );
    let page = describe(&typed(&healthy), &nothing(), now(), true);
    for line in [
        "Strategy:     BlueGreen",
        "Step:         -/2",
        "  ✓ 1  100% of pods, 50% of requests, then approval",
        "  ✓ 2  100% of pods, 100% of requests, then 60 s",
        "  Service/web (canary: web-canary)",
        "  HTTPRoute/web-route",
        "Release:      r-7",
        "Canary:       u (pods: h)",
        "Canary pods:  2 of 3 ready",
        "Finalising:   END",
        "Pods:         none",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}

#[test]
fn pods_are_selected_by_the_label_of_their_kind() {
    let deployment = typed(&at(1, "StepPaused"));
    assert_eq!(pod_selector(&View::of(&deployment)).unwrap(), "pod-template-hash in (stable1,canary1)");
    let set = with(
        at(1, "StepPaused"),
        &json!({"spec": {"objectRef": {"workloadRef": {"kind": "StatefulSet"}}},
                   "status": {"canaryStatus": {"podTemplateHash": ""}}}),
    );
    assert_eq!(pod_selector(&View::of(&typed(&set))).unwrap(), "controller-revision-hash in (stable1)");
    let fresh = with(at(1, ""), &json!({"status": null}));
    assert_eq!(pod_selector(&View::of(&typed(&fresh))), None);
}

/// A release whose first step has a gate of each kind, metrics, and hooks that said all kinds of things.
fn checked() -> Value {
    with(
        at(1, "StepPaused"),
        &json!({
            "spec": {"strategy": {"canary": {"steps": [{"weight": 20, "gates": [
                {"name": "load test", "job": {"cronJob": "load-test"}}, {"name": "sign-off"}, {"name": "legal"}]}, {"weight": 50}]}}},
            "status": {
                "canaryStatus": {
                    "gates": [{"name": "load test", "isPassed": true, "time": "2026-11-22T05:14:00Z"}, {"name": "sign-off"}],
                    "analysis": {
                        "step": {"stepIndex": 1, "phase": "Running", "metrics": [
                            {"name": "errors", "passed": 2, "failed": 1, "message": "value 0.02 is above max 0.01",
                             "nextTime": "2026-11-22T05:15:20Z"},
                            {"name": "latency", "withoutData": 3, "noDataSince": "2026-11-22T05:13:00Z",
                             "nextTime": "2026-11-22T05:14:59Z", "message": "the answer is empty: no series matches"}]},
                        "background": {"stepIndex": 1, "phase": "Failed", "metrics": [
                            {"name": "restarts", "phase": "Failed", "failed": 1, "message": "value 3 is above max 0"}]}
                    }
                },
                "hooks": {"release": "r-1", "hooks": [
                    {"name": "board", "moment": "BeforeStep", "step": 1, "key": "k", "phase": "Allowed", "tries": 1,
                     "since": "2026-11-22T05:10:00Z"},
                    {"name": "smoke", "moment": "AfterStep", "step": 1, "key": "k", "phase": "Held", "tries": 4,
                     "since": "2026-11-22T05:12:00Z", "nextTime": "2026-11-22T05:15:30Z", "message": "12 of 40 tests\nare done"},
                    {"name": "slo", "moment": "AfterStep", "step": 1, "key": "k", "phase": "Asked",
                     "since": "2026-11-22T05:14:58Z", "nextTime": "2026-11-22T05:14:58Z"}]}
            }
        }),
    )
}

#[test]
fn what_has_a_say_is_shown_with_its_last_word_and_since_when() {
    let page = describe(&typed(&checked()), &nothing(), now(), false);
    let from = page.find("Metrics:").unwrap();
    let to = page.find("Conditions:").unwrap();
    assert_eq!(
        &page[from..to],
        "\
Metrics:
  METRIC     OF            STATE     GOOD   BAD   UNCLEAR   NO DATA   NEXT     SAID
  errors     step 1        Running   2      1     0         -         in 20s   value 0.02 is above max 0.01
  latency    step 1        Running   0      0     0         2m        now      the answer is empty: no series matches
  restarts   the release   Failed    0      1     0         -         -        value 3 is above max 0
Gates:
  GATE        PASSED BY                    STATE          SINCE
  load test   a Job of CronJob load-test   passed         60s
  sign-off    isPassed in the status       awaited        3m
  legal       isPassed in the status       not open yet   -
Hooks:
  HOOK    MOMENT       STEP   STATE     SINCE   TRIES   NEXT     SAID
  board   BeforeStep   1      Allowed   5m      1       -        -
  smoke   AfterStep    1      Held      3m      4       in 30s   12 of 40 tests are done
  slo     AfterStep    1      Asked     2s      0       now      -
"
    );
    // In blue-green style the same, from the other half of the status.
    let mut value = checked();
    let (sub, spec) = (value["status"]["canaryStatus"].take(), value["spec"]["strategy"]["canary"].take());
    value["status"]["blueGreenStatus"] = sub;
    value["spec"]["strategy"] = json!({"blueGreen": spec});
    let other = describe(&typed(&value), &nothing(), now(), false);
    assert!(other.contains(&page[from..to]), "{other}");
}
