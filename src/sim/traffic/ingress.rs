//! Ingress, as ingress-nginx merges canary Ingresses and as the AWS controller reads actions and conditions.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::View;
use super::super::json::{self, int, items, object_of, text};
use super::super::registry::Gvr;
use super::{Destination, Failure, Request, Routed};

const NGINX: &str = "nginx.ingress.kubernetes.io/";
const ALB: &str = "alb.ingress.kubernetes.io/";

pub(super) fn route(view: &View, object: &Value, request: &Request) -> Routed {
    let Some(place) = place(object, request) else { return Routed::Failed(Failure::NoRoute) };
    let Some(backend) = place.backend else { return Routed::Failed(Failure::NoRoute) };
    let namespace = json::namespace(object);
    let destination = |service: &str, weight: f64| Destination {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        subset: None,
        weight,
    };
    if let Some(groups) = action(object, backend) {
        let weight = |group: &Value| match int(group, "/weight") {
            Some(weight) => weight as f64,
            None => f64::from(u8::from(groups.len() == 1)),
        };
        return Routed::To(groups.iter().map(|g| destination(text(g, "/serviceName"), weight(g))).collect());
    }
    let stable = text(backend, "/service/name");
    let mut share = 0.0;
    let mut canary = "";
    let ingresses = view.list(&Gvr::new("networking.k8s.io", "v1", "ingresses"), Some(namespace));
    for other in ingresses.iter().filter(|o| json::name(o) != json::name(object) && class(o) == class(object)) {
        let Some(backend) = same_place(other, &place) else { continue };
        if annotation(other, NGINX, "canary") != "true" {
            // Two Ingresses own one path: whoever is asked may win.
            return Routed::Failed(Failure::NoRoute);
        }
        canary = text(backend, "/service/name");
        share = canary_share(other, request);
    }
    if canary.is_empty() || canary == stable {
        return Routed::To(vec![destination(stable, 1.0)]);
    }
    Routed::To(vec![destination(stable, 1.0 - share), destination(canary, share)])
}

/// Where a request arrives: the host and path of a rule, or the default backend.
struct Place<'a> {
    host: Option<&'a str>,
    path: Option<(&'a str, &'a str)>,
    backend: Option<&'a Value>,
}

fn place<'a>(object: &'a Value, request: &Request) -> Option<Place<'a>> {
    let mut found: Option<(usize, Place<'a>)> = None;
    for rule in items(object, "/spec/rules").iter().filter(|r| host_matches(text(r, "/host"), &request.host)) {
        for path in items(rule, "/http/paths") {
            let (written, kind) = (text(path, "/path"), text(path, "/pathType"));
            let rank = match kind {
                "Exact" => usize::MAX,
                "Prefix" => written.len() + 1,
                _ => 1,
            };
            let is_better = found.as_ref().is_none_or(|(best, _)| rank > *best);
            if is_better
                && path_matches(kind, written, &request.path)
                && conditions_hold(object, path.get("backend"), request)
            {
                let place = Place {
                    host: Some(text(rule, "/host")),
                    path: Some((written, kind)),
                    backend: path.get("backend"),
                };
                found = Some((rank, place));
            }
        }
    }
    let default =
        || json::at(object, "/spec/defaultBackend").map(|b| Place { host: None, path: None, backend: Some(b) });
    found.map(|(_, place)| place).or_else(default)
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        _ if pattern.is_empty() || host.is_empty() => true,
        // One label.
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|label| !label.is_empty() && !label.contains('.')),
        None => pattern == host,
    }
}

fn path_matches(kind: &str, pattern: &str, path: &str) -> bool {
    match kind {
        "Exact" => pattern == path,
        "Prefix" => {
            let prefix = pattern.trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        _ => path.starts_with(pattern.trim_end_matches('*')),
    }
}

/// The backend that another Ingress has for the very same place.
fn same_place<'a>(object: &'a Value, place: &Place<'_>) -> Option<&'a Value> {
    let Some((written, kind)) = place.path else { return json::at(object, "/spec/defaultBackend") };
    items(object, "/spec/rules")
        .iter()
        .filter(|rule| Some(text(rule, "/host")) == place.host)
        .flat_map(|rule| items(rule, "/http/paths"))
        .find(|path| (text(path, "/path"), text(path, "/pathType")) == (written, kind))
        .and_then(|path| path.get("backend"))
}

fn annotation<'a>(object: &'a Value, prefix: &str, key: &str) -> &'a str {
    let annotations = object_of(object, "/metadata/annotations");
    annotations.and_then(|a| a.get(&format!("{prefix}{key}"))).and_then(Value::as_str).unwrap_or_default()
}

fn class(object: &Value) -> &str {
    match text(object, "/spec/ingressClassName") {
        "" => annotation(object, "kubernetes.io/", "ingress.class"),
        class => class,
    }
}

/// The canary's share of such requests, 0 to 1: header before cookie before weight.
fn canary_share(canary: &Value, request: &Request) -> f64 {
    let said = |key: &str| annotation(canary, NGINX, &format!("canary-{key}"));
    let word = |word: Option<&str>| match word {
        Some("always") => Some(1.0),
        Some("never") => Some(0.0),
        _ => None,
    };
    let header = request.headers.get(&said("by-header").to_lowercase()).map(String::as_str);
    let by_header = match (said("by-header-value"), said("by-header-pattern")) {
        ("", "") => word(header),
        ("", pattern) => {
            let is_match = |h: &&str| regex::Regex::new(pattern).is_ok_and(|r| r.is_match(h));
            header.filter(is_match).map(|_| 1.0)
        }
        (value, _) => header.filter(|h| *h == value).map(|_| 1.0),
    };
    let cookies = request.headers.get("cookie").map(String::as_str).unwrap_or_default();
    let cookies: BTreeMap<&str, &str> = cookies.split(';').filter_map(|c| c.trim().split_once('=')).collect();
    let number = |key: &str| said(key).parse::<f64>().unwrap_or(0.0);
    by_header
        .or_else(|| word(cookies.get(said("by-cookie")).copied()))
        .unwrap_or_else(|| (number("weight") / number("weight-total").max(100.0)).clamp(0.0, 1.0))
}

/// Target groups of an annotated backend.
fn action(object: &Value, backend: &Value) -> Option<Vec<Value>> {
    if text(backend, "/service/port/name") != "use-annotation" {
        return None;
    }
    let written = annotation(object, ALB, &format!("actions.{}", text(backend, "/service/name")));
    let action: Value = serde_json::from_str(written).unwrap_or_default();
    Some(items(&action, "/forwardConfig/targetGroups").to_vec())
}

fn conditions_hold(object: &Value, backend: Option<&Value>, request: &Request) -> bool {
    let name = backend.map(|b| text(b, "/service/name")).unwrap_or_default();
    let written = annotation(object, ALB, &format!("conditions.{name}"));
    let conditions: Value = serde_json::from_str(written).unwrap_or_default();
    items(&conditions, "").iter().all(|condition| {
        let header = text(condition, "/httpHeaderConfig/httpHeaderName").to_lowercase();
        let values = items(condition, "/httpHeaderConfig/values").iter().filter_map(Value::as_str);
        let mut pairs = items(condition, "/queryStringConfig/values").iter();
        match text(condition, "/field") {
            "http-header" => {
                request.headers.get(&header).is_some_and(|have| values.into_iter().any(|v| wildcard(v, have)))
            }
            "query-string" => pairs.any(|p| request.query.get(text(p, "/key")).is_some_and(|v| v == text(p, "/value"))),
            _ => false,
        }
    })
}

/// `*` is any text and `?` any character, unless a backslash stands before it.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut expression = String::from("^(?s:");
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '\\' => expression.push_str(&regex::escape(&characters.next().unwrap_or(c).to_string())),
            _ => expression.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex::Regex::new(&format!("{expression})$")).is_ok_and(|r| r.is_match(text))
}
