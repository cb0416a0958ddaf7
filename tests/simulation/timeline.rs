//! Writes as a person reads them.

use std::fmt::Write as _;

use serde_json::Value;
use tidegate::sim::Write;

/// What one write changed, briefly.
pub fn line(write: &Write, start: jiff::Timestamp) -> String {
    let seconds = write.time.duration_since(start).as_secs_f64();
    let subresource = write.subresource.map(|s| format!("/{s}")).unwrap_or_default();
    let what = match (&write.before, &write.after) {
        (None, Some(after)) if write.gvr.resource == "events" => {
            format!("{}: {}", text(&after["reason"]), text(&after["note"]))
        }
        (None, _) => "created".to_owned(),
        (_, None) => "gone".to_owned(),
        (Some(before), Some(after)) => {
            let mut changes = Vec::new();
            diff("", before, after, &mut changes);
            let more = changes.len().saturating_sub(6);
            changes.truncate(6);
            if more > 0 {
                changes.push(format!("and {more} more"));
            }
            changes.join("; ")
        }
    };
    format!(
        "{seconds:9.3}s  {:<22} {:<7} {}{subresource}/{}  {what}",
        write.identity,
        write.verb.as_str(),
        write.gvr.resource,
        write.name,
    )
}

/// Writes that tell the story; counts of controllers that follow it are left out.
pub fn is_telling(write: &Write) -> bool {
    match (&*write.identity, write.gvr.resource.as_str()) {
        ("controller" | "user", _) => true,
        (_, "replicasets") => {
            let replicas = |o: &Option<std::sync::Arc<Value>>| o.as_ref().map(|o| o["spec"]["replicas"].clone());
            replicas(&write.before) != replicas(&write.after)
        }
        (_, "pods") => {
            let ready = |o: &Option<std::sync::Arc<Value>>| o.as_ref().is_some_and(|o| crate::world::is_ready(o));
            ready(&write.before) != ready(&write.after)
        }
        (_, "deployments") => write.before.is_none() || write.after.is_none(),
        _ => false,
    }
}

/// The last lines of a story.
pub fn tell(writes: &[Write], start: jiff::Timestamp, lines: usize) -> String {
    let telling: Vec<&Write> = writes.iter().filter(|w| is_telling(w)).collect();
    let skipped = telling.len().saturating_sub(lines);
    let mut out = String::new();
    if skipped > 0 {
        let _ = writeln!(out, "  … {skipped} earlier writes (TIMELINE=all shows them)");
    }
    for write in telling.into_iter().skip(skipped) {
        let _ = writeln!(out, "  {}", line(write, start));
    }
    out
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn short(value: &Value) -> String {
    let text = text(value);
    match text.char_indices().nth(90) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

const NOISE: [&str; 5] = ["resourceVersion", "managedFields", "generation", "observedGeneration", "lastUpdateTime"];

fn diff(path: &str, before: &Value, after: &Value, out: &mut Vec<String>) {
    match (before, after) {
        (a, b) if a == b => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))).collect();
            keys.sort();
            for key in keys.into_iter().filter(|k| !NOISE.contains(&k.as_str())) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => diff(&path, a, b, out),
                    (Some(a), None) => out.push(format!("{path}: {} → none", short(a))),
                    (None, Some(b)) => out.push(format!("{path}: none → {}", short(b))),
                    (None, None) => {}
                }
            }
        }
        (a, b) => out.push(format!("{path}: {} → {}", short(a), short(b))),
    }
}
