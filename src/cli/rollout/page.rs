//! The page of `rollout describe`: everything about a Rollout, from data.

mod around;
mod checks;

use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use owo_colors::OwoColorize as _;

use super::{
    table::{self, cell, one_line},
    view::{View, step_words},
};
use crate::{
    api::{
        conditions::{StepState, phases},
        keys,
        v1beta1::{Rollout, TrafficRoutingRef, Word},
    },
    cli::duration,
};

pub(super) use self::around::pod_selector;

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
    checks::all(&mut page, &view, now);
    conditions(&mut page, &view, now);
    around::pods(&mut page, &view, &surroundings.pods, now);
    around::events(&mut page, &surroundings.events, now);
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

#[cfg(test)]
mod tests;
