//! Differences that stay, each with its reason. What is listed here stands in docs/in-memory-cluster.md.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::requests::Step;

/// An answer: status code and body.
type Answer = (u16, Value);

struct Known {
    /// As the documentation names it.
    what: &'static str,
    /// Takes it out of both answers. True: from here on the servers hold different objects, so the sequence ends.
    excuse: fn(&Step, &mut Answer, &mut Answer) -> bool,
}

const KNOWN: &[Known] = &[
    Known { what: "CEL rules", excuse: rules },
    Known { what: "what of a pod's spec may change", excuse: fixed },
    Known { what: "what exactly is wrong with an apply that the schema cannot read", excuse: unread },
    Known { what: "status of a Service that is not there", excuse: absent },
    Known { what: "`StorageError`", excuse: storage },
];

/// Takes out of two answers what is known to differ; true if the sequence cannot go on.
pub fn excuse(step: &Step, real: &mut Answer, in_memory: &mut Answer) -> bool {
    KNOWN.iter().any(|known| (known.excuse)(step, real, in_memory))
}

/// Refused for rules of our definition.
fn rules(_: &Step, real: &mut Answer, in_memory: &mut Answer) -> bool {
    let definition = include_str!("../../../../crds/rollouts.kruise.io_rollouts.yaml");
    let causes = real.1["details"]["causes"].as_array().map_or(&[][..], Vec::as_slice);
    let rule = |cause: &Value| {
        let message = cause["message"].as_str().and_then(|m| m.rsplit(": ").next()).unwrap_or_default();
        definition.contains(message.split('\'').next().unwrap_or_default())
    };
    if real.0 != 422 || !causes.iter().any(rule) {
        return false;
    }
    let others: Vec<Value> = causes.iter().filter(|c| !rule(c)).cloned().collect();
    if others.is_empty() {
        return in_memory.0 < 300;
    }
    // The message strings all causes together.
    real.1["details"]["causes"] = others.into();
    for (_, answer) in [real, in_memory] {
        answer["message"] = "*".into();
    }
    false
}

/// The real server tries to make the object.
fn absent(step: &Step, real: &mut Answer, in_memory: &mut Answer) -> bool {
    step.path.contains("/services/") && step.path.ends_with("/status") && real.0 != 404 && in_memory.0 == 404
}

fn fixed(_: &Step, real: &mut Answer, in_memory: &mut Answer) -> bool {
    let message = real.1["message"].as_str().unwrap_or_default();
    message.contains("pod updates may not change fields other than") && in_memory.0 < 300
}

fn unread(_: &Step, real: &mut Answer, in_memory: &mut Answer) -> bool {
    for (_, answer) in [real, in_memory] {
        let message = answer["message"].as_str().unwrap_or_default();
        if message.starts_with("failed to create typed patch object") {
            answer["message"] = message.split("): ").next().unwrap_or_default().into();
        }
    }
    false
}

/// The real server says where the object lies.
fn storage(_: &Step, real: &mut Answer, _: &mut Answer) -> bool {
    let message = real.1["message"].as_str().unwrap_or_default();
    if let (Some(from), Some(to)) = (message.find("StorageError:"), message.find("AdditionalErrorMsg: ")) {
        real.1["message"] = format!("{}{}", &message[..from], &message[to + "AdditionalErrorMsg: ".len()..]).into();
    }
    false
}

pub fn is_documented() -> Result<()> {
    let page = include_str!("../../../../docs/in-memory-cluster.md");
    for known in KNOWN {
        ensure!(page.contains(known.what), "docs/in-memory-cluster.md does not say: {}", known.what);
    }
    Ok(())
}
