//! The page of `rollout describe`: everything about a Rollout, from data.

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Event, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use owo_colors::OwoColorize as _;

use super::{
    table::{self, cell, one_line},
    view::{Release, View, step_words},
};
use crate::{
    api::{
        conditions::{StepState, phases},
        keys,
        v1beta1::{Rollout, TrafficRoutingRef, Word},
    },
    cli::duration,
};

/// Label that pods of kinds other than Deployment and CloneSet carry for their revision.
const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";

/// What surrounds a Rollout, or why it could not be read.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Pods of both revisions.
    pub pods: Result<Vec<Pod>, String>,
    /// Events about the Rollout.
    pub events: Result<Vec<Event>, String>,
}

/// The page about one Rollout.
pub fn describe(rollout: &Rollout, surroundings: &Surroundings, now: Timestamp, colour: bool) -> String {
    let view = View::of(rollout);
    let mut page = String::new();
    head(&mut page, &view, now);
    steps(&mut page, &view, colour);
    traffic(&mut page, &view);
    revisions(&mut page, &view);
    conditions(&mut page, &view, now);
    pods(&mut page, &view, &surroundings.pods, now);
    events(&mut page, &surroundings.events, now);
    page
}

/// `Key:  value`, aligned.
fn field(page: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{:<13} {}", format!("{key}:"), one_line(value));
}

fn section(page: &mut String, title: &str, rows: &[Vec<String>], none: &str) {
    if rows.len() < 2 {
        field(page, title, none);
        return;
    }
    let _ = writeln!(page, "{title}:");
    for line in table::render(rows).lines() {
        let _ = writeln!(page, "  {line}");
    }
}

fn since(time: Option<&Time>, now: Timestamp) -> String {
    time.map_or_else(|| "-".to_owned(), |t| duration::human(now.duration_since(t.0)))
}

fn head(page: &mut String, view: &View<'_>, now: Timestamp) {
    field(page, "Name", view.name);
    field(page, "Namespace", view.namespace);
    field(page, "Age", &since(view.rollout.metadata.creation_timestamp.as_ref(), now));
    let mut status =
        if view.phase.is_empty() { "not seen by the controller yet".to_owned() } else { view.phase.to_owned() };
    if view.is_frozen() {
        status.push_str(" (frozen by spec.strategy.paused)");
    }
    field(page, "Status", &status);
    field(page, "Message", &cell(view.message));
    if let Some(stalled) = view.stalled() {
        field(page, "Stalled", &format!("{}: {}", stalled.reason, stalled.message));
    }
    let workload = view.workload.map(|w| format!("{}/{} ({})", w.kind, w.name, w.api_version));
    field(page, "Workload", &workload.unwrap_or_else(|| "none: set spec.workloadRef".to_owned()));
    field(page, "Strategy", view.style);
}

fn steps(page: &mut String, view: &View<'_>, colour: bool) {
    if view.steps.is_empty() {
        field(page, "Steps", "none: the strategy needs at least one");
        return;
    }
    let is_running = view.phase == phases::PROGRESSING;
    let current = view.release.filter(|_| is_running).map_or(0, |r| r.step);
    let all_done = view.release.is_some() && view.state() == Some(StepState::Completed);
    match view.release.filter(|_| is_running) {
        Some(release) => field(page, "Step", &format!("{} {}", cell(&view.step_of()), cell(release.state))),
        None => field(page, "Step", &format!("-/{}", view.steps.len())),
    }
    let _ = writeln!(page, "Steps:");
    for (number, step) in (1i32..).zip(view.steps) {
        let is_current = number == current && !all_done;
        let mark = if is_current {
            "→"
        } else if all_done || number < current {
            "✓"
        } else {
            " "
        };
        let mut text = one_line(&format!("{mark} {number}  {}", step_words(step)));
        if let Some(release) = view.release.filter(|_| is_current) {
            text.push_str(&format!("  ({})", cell(&one_line(release.state))));
        }
        for word in view.release.iter().flat_map(|r| r.words).filter(|w| w.step == number) {
            let deed = match (word.deed.as_str(), word.to) {
                (Word::JUMPED, Some(to)) => format!("jumped to {to}"),
                _ => "approved".to_owned(),
            };
            text.push_str(&one_line(&format!("  {deed} by {}", word.by)));
        }
        let _ = if is_current && colour { writeln!(page, "  {}", text.green()) } else { writeln!(page, "  {text}") };
    }
}

fn traffic(page: &mut String, view: &View<'_>) {
    let annotation = view.rollout.metadata.annotations.as_ref().and_then(|a| a.get(keys::TRAFFIC_ROUTING));
    let strategy = &view.rollout.spec.strategy;
    let shared = strategy
        .canary
        .as_ref()
        .and_then(|c| c.traffic_routing_ref.as_ref())
        .or_else(|| strategy.blue_green.as_ref()?.traffic_routing_ref.as_ref())
        .or(annotation);
    if view.routings.is_empty() && shared.is_none() {
        field(page, "Traffic", "not routed: requests follow the number of pods");
        return;
    }
    let _ = writeln!(page, "Traffic:");
    if let Some(share) = Some(view.share()).filter(|s| !s.is_empty()) {
        let _ = writeln!(page, "  Canary share: {share}");
    }
    if let Some(shared) = shared {
        let _ = writeln!(page, "  TrafficRouting/{}", one_line(shared));
    }
    for routing in view.routings {
        for line in routing_lines(routing, view) {
            let _ = writeln!(page, "  {}", one_line(&line));
        }
    }
}

fn routing_lines(routing: &TrafficRoutingRef, view: &View<'_>) -> Vec<String> {
    let strategy = &view.rollout.spec.strategy;
    let without_service = routing.create_canary_service == Some(false)
        || strategy.canary.as_ref().is_some_and(|c| c.disable_generate_canary_service == Some(true))
        || strategy.blue_green.as_ref().is_some_and(|b| b.disable_generate_canary_service == Some(true));
    let canary =
        if without_service { "no canary Service".to_owned() } else { format!("canary: {}-canary", routing.service) };
    let mut lines = vec![format!("Service/{} ({canary})", routing.service)];
    if let Some(ingress) = &routing.ingress {
        let class = if ingress.class_type.is_empty() { "nginx" } else { &ingress.class_type };
        lines.push(format!("Ingress/{} (class {class})", ingress.name));
    }
    if let Some(route) = routing.gateway.as_ref().and_then(|g| g.http_route_name.as_ref()) {
        lines.push(format!("HTTPRoute/{route}"));
    }
    lines.extend(View::network_refs(routing).map(|r| format!("{}/{} ({})", r.kind, r.name, r.api_version)));
    if let Some(grace) = routing.grace_period_seconds {
        lines.push(format!("grace time after each change: {grace} s"));
    }
    lines
}

fn revisions(page: &mut String, view: &View<'_>) {
    let Some(release) = view.release else {
        field(page, "Release", "none yet");
        return;
    };
    if !release.id.is_empty() {
        field(page, "Release", release.id);
    }
    field(page, "Stable", &cell(release.stable_revision));
    let hash = release.pod_template_hash;
    let pods =
        if hash.is_empty() || hash == release.canary_revision { String::new() } else { format!(" (pods: {hash})") };
    field(page, "Canary", &format!("{}{pods}", cell(release.canary_revision)));
    field(page, "Canary pods", &format!("{} of {} ready", release.ready, release.replicas));
    if !release.finalising_step.is_empty() {
        field(page, "Finalising", release.finalising_step);
    }
}

fn conditions(page: &mut String, view: &View<'_>, now: Timestamp) {
    let mut rows = vec![["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"].map(str::to_owned).to_vec()];
    rows.extend(view.conditions.iter().map(|c| {
        let since = since(c.last_transition_time.as_ref(), now);
        vec![c.r#type.clone(), c.status.clone(), cell(&c.reason), since, cell(&c.message)]
    }));
    section(page, "Conditions", &rows, "none");
}

fn revision_label(view: &View<'_>) -> &'static str {
    match view.workload.map(|w| w.kind.as_str()) {
        None | Some("Deployment" | "CloneSet") => keys::POD_TEMPLATE_HASH,
        Some(_) => CONTROLLER_REVISION_HASH,
    }
}

/// Which of the two versions a pod is of.
fn version(release: &Release<'_>, hash: &str) -> &'static str {
    if hash == release.pod_template_hash {
        "canary"
    } else if hash == release.stable_revision {
        "stable"
    } else {
        "other"
    }
}

fn pods(page: &mut String, view: &View<'_>, pods: &Result<Vec<Pod>, String>, now: Timestamp) {
    let pods = match pods {
        Ok(pods) => pods,
        Err(why) => return field(page, "Pods", &format!("cannot be read: {why}")),
    };
    let label = revision_label(view);
    let mut rows = vec![["NAME", "READY", "REVISION", "AGE", "RESTARTS", "STATUS"].map(str::to_owned).to_vec()];
    let mut sorted: Vec<(String, Vec<String>)> = pods
        .iter()
        .map(|pod| {
            let hash = pod.metadata.labels.as_ref().and_then(|l| l.get(label)).map(String::as_str).unwrap_or_default();
            let version = view.release.as_ref().map_or("other", |r| version(r, hash));
            (format!("{version} {hash}"), pod)
        })
        .map(|(revision, pod)| {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let age = since(pod.metadata.creation_timestamp.as_ref(), now);
            let (ready, restarts) = containers(pod);
            (format!("{revision}/{name}"), vec![name, ready, revision, age, restarts, pod_status(pod)])
        })
        .collect();
    sorted.sort();
    rows.extend(sorted.into_iter().map(|(_, row)| row));
    section(page, "Pods", &rows, "none");
}

fn containers(pod: &Pod) -> (String, String) {
    let total = pod.spec.as_ref().map_or(0, |s| s.containers.len());
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let ready = statuses.iter().filter(|c| c.ready).count();
    let restarts: i64 = statuses.iter().map(|c| i64::from(c.restart_count)).sum();
    (format!("{ready}/{total}"), restarts.to_string())
}

/// The word that kubectl shows: why a container does not run, else the phase.
fn pod_status(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let Some(status) = &pod.status else { return "Unknown".to_owned() };
    if let Some(reason) = status.reason.as_ref().filter(|r| !r.is_empty()) {
        return reason.clone();
    }
    let waiting = |list: Option<&Vec<_>>| -> Option<String> {
        list.into_iter().flatten().find_map(|c: &ContainerStatus| {
            let state = c.state.as_ref()?;
            let waiting = state.waiting.as_ref().and_then(|w| w.reason.clone());
            let failed = state.terminated.as_ref().filter(|t| t.exit_code != 0);
            waiting.or_else(|| failed.map(|t| t.reason.clone().unwrap_or_else(|| "Error".to_owned())))
        })
    };
    if let Some(reason) = waiting(status.init_container_statuses.as_ref()).filter(|r| r != "PodInitializing") {
        return format!("Init:{reason}");
    }
    waiting(status.container_statuses.as_ref()).or_else(|| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned())
}

fn events(page: &mut String, events: &Result<Vec<Event>, String>, now: Timestamp) {
    let events = match events {
        Ok(events) => events,
        Err(why) => return field(page, "Events", &format!("cannot be read: {why}")),
    };
    let time = |event: &Event| {
        let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
        let last = event.last_timestamp.as_ref().map(|t| t.0);
        series
            .or(last)
            .or_else(|| event.event_time.as_ref().map(|t| t.0))
            .or_else(|| event.first_timestamp.as_ref().map(|t| t.0))
    };
    let mut sorted: Vec<&Event> = events.iter().collect();
    sorted.sort_by_key(|e| time(e));
    let mut rows = vec![["TYPE", "REASON", "AGE", "FROM", "MESSAGE"].map(str::to_owned).to_vec()];
    rows.extend(sorted.into_iter().map(|event| {
        let mut age = time(event).map_or_else(|| "-".to_owned(), |t| duration::human(now.duration_since(t)));
        if let Some(count) = event.series.as_ref().and_then(|s| s.count).or(event.count).filter(|c| *c > 1) {
            age.push_str(&format!(" (x{count})"));
        }
        let source = event.source.as_ref().and_then(|s| s.component.clone());
        let from = event.reporting_component.clone().filter(|c| !c.is_empty()).or(source).unwrap_or_default();
        let text = |value: &Option<String>| cell(value.as_deref().unwrap_or_default());
        vec![text(&event.type_), text(&event.reason), age, cell(&from), text(&event.message)]
    }));
    section(page, "Events", &rows, "none");
}

/// Selects the pods of both revisions; nothing while no revision is known.
pub(super) fn pod_selector(view: &View<'_>) -> Option<String> {
    let release = view.release?;
    let mut hashes = vec![release.stable_revision, release.pod_template_hash];
    hashes.retain(|h| !h.is_empty());
    hashes.dedup();
    if hashes.is_empty() {
        return None;
    }
    Some(format!("{} in ({})", revision_label(view), hashes.join(",")))
}

#[cfg(test)]
mod tests {
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
}
