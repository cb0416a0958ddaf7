//! What surrounds a Rollout: its pods, and events about it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};

use super::{cell, field, section, since};
use crate::{
    api::keys,
    cli::{
        duration,
        rollout::view::{Release, View},
    },
};

/// Label that pods of kinds other than Deployment and CloneSet carry for their revision.
const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";

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

pub(super) fn pods(page: &mut String, view: &View<'_>, pods: &Result<Vec<Pod>, String>, now: Timestamp) {
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

pub(super) fn events(page: &mut String, events: &Result<Vec<Event>, String>, now: Timestamp) {
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
pub(in super::super) fn pod_selector(view: &View<'_>) -> Option<String> {
    let release = view.release?;
    let mut hashes = vec![release.stable_revision, release.pod_template_hash];
    hashes.retain(|h| !h.is_empty());
    hashes.dedup();
    if hashes.is_empty() {
        return None;
    }
    Some(format!("{} in ({})", revision_label(view), hashes.join(",")))
}
