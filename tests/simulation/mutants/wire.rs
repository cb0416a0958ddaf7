//! Bugs around `gather` and `apply`, as the API server sees them.

use http::request::Parts;
use serde_json::{Value, json};

/// Stores the status, whatever became of the Rollout since it was read.
pub fn writes_over_a_persons_word(head: &mut Parts, body: &mut Value) {
    if head.uri.path().ends_with("/rollouts/web/status")
        && let Some(metadata) = body["metadata"].as_object_mut()
    {
        metadata.remove("resourceVersion");
    }
}

/// Asks for a dry run instead, whose answer is that of the write.
fn only_try(head: &mut Parts) {
    let uri = head.uri.to_string();
    let sign = if uri.contains('?') { '&' } else { '?' };
    head.uri = format!("{uri}{sign}dryRun=All").parse().unwrap();
}

pub fn reports_a_pin_that_was_not(head: &mut Parts, body: &mut Value) {
    if head.method == "PATCH"
        && head.uri.path().ends_with("/services/web")
        && body.to_string().contains("/spec/selector/")
        && body.to_string().contains("\"add\"")
    {
        only_try(head);
    }
}

pub fn reports_a_deletion_that_was_not(head: &mut Parts, body: &mut Value) {
    if head.method == "DELETE" {
        body["dryRun"] = json!(["All"]);
    }
}
