//! Writes as a person reads them.

use std::{fmt::Write as _, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{judges::by_controller, world::is_ready};
use crate::{
    api::object::{int, text},
    sim::Write,
};

/// What one write changed, briefly.
fn line(write: &Write) -> String {
    let subresource = write.subresource.map(|s| format!("/{s}")).unwrap_or_default();
    let what = match (&write.before, &write.after) {
        (None, Some(after)) if write.gvr.resource == "events" => {
            format!("{}: {}", text(after, &["reason"]), text(after, &["note"]))
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
    let verb = write.verb.as_str();
    format!("{:<22} {verb:<7} {}{subresource}/{}  {what}", write.identity, write.gvr.resource, write.name)
}

/// Writes that tell the story; counts of controllers that follow it are left out.
pub fn is_telling(write: &Write) -> bool {
    let differs = |read: fn(&Arc<Value>) -> Option<i64>| {
        write.before.as_ref().and_then(read) != write.after.as_ref().and_then(read)
    };
    match (&*write.identity, write.gvr.resource.as_str()) {
        ("user" | "chaos" | "hpa", _) => true,
        _ if by_controller(write) => true,
        (_, "replicasets") => differs(|o| int(o, &["spec", "replicas"])),
        (_, "pods") => differs(|o| Some(i64::from(is_ready(o)))),
        (_, "deployments") => write.before.is_none() || write.after.is_none(),
        _ => false,
    }
}

/// The last lines of a story: writes, and what people said.
pub fn tell(writes: &[Write], said: &[(Timestamp, String)], start: Timestamp, lines: usize) -> String {
    let mut all: Vec<(Timestamp, String)> = writes.iter().map(|w| (w.time, line(w))).collect();
    all.extend(said.iter().map(|(time, what)| (*time, format!("*** {what}"))));
    all.sort_by_key(|(time, _)| *time);
    let skipped = all.len().saturating_sub(lines);
    let mut out = String::new();
    if skipped > 0 {
        let _ = writeln!(out, "  … {skipped} earlier writes");
    }
    for (time, what) in all.into_iter().skip(skipped) {
        let _ = writeln!(out, "  {:9.3}s  {what}", time.duration_since(start).as_secs_f64());
    }
    out
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn short(value: &Value) -> String {
    let text = plain(value);
    match text.char_indices().nth(90) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
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
