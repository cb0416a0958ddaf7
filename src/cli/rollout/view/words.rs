//! A step of the plan in words.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::v1beta1::{HttpRouteMatch, Step, ValueMatchType};

/// What a step asks of the gateways: `20%`, `match` (these requests and no others), or `0%`.
pub fn step_share(step: &Step) -> String {
    if !step.matches.is_empty() {
        return "match".to_owned();
    }
    match (&step.traffic, step.weight) {
        (Some(traffic), _) => traffic.clone(),
        (None, Some(weight)) => format!("{weight}%"),
        (None, None) => "0%".to_owned(),
    }
}

/// A step in words: pods, requests, and what it waits for.
pub fn step_words(step: &Step) -> String {
    let mut words = Vec::new();
    match &step.replicas {
        Some(IntOrString::Int(1)) => words.push("1 pod".to_owned()),
        Some(IntOrString::Int(pods)) => words.push(format!("{pods} pods")),
        Some(IntOrString::String(percent)) => words.push(format!("{percent} of pods")),
        None => {}
    }
    if step.matches.is_empty() {
        if step.traffic.is_some() || step.weight.is_some() {
            words.push(format!("{} of requests", step_share(step)));
        }
    } else {
        let matches: Vec<String> = step.matches.iter().map(match_words).collect();
        words.push(format!("requests with {}", matches.join(" or ")));
    }
    words.push(match step.pause.as_ref().and_then(|p| p.duration) {
        None => "then approval".to_owned(),
        Some(0) => "then on".to_owned(),
        Some(seconds) => format!("then {seconds} s"),
    });
    words.join(", ")
}

fn match_words(entry: &HttpRouteMatch) -> String {
    let equals = |kind: &ValueMatchType| match kind {
        ValueMatchType::Exact => "=",
        ValueMatchType::RegularExpression => "~",
    };
    let mut parts = Vec::new();
    if let Some(path) = &entry.path {
        parts.push(format!("path {} ({:?})", path.value, path.r#type));
    }
    parts.extend(entry.headers.iter().map(|h| format!("header {}{}{}", h.name, equals(&h.r#type), h.value)));
    parts.extend(entry.query_params.iter().map(|q| format!("query {}{}{}", q.name, equals(&q.r#type), q.value)));
    if parts.is_empty() { "anything".to_owned() } else { parts.join(" and ") }
}
