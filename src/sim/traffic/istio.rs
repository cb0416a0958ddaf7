//! VirtualService and DestinationRule, after the Istio reference.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::View;
use super::super::json::{self, int, items, object_of, text};
use super::super::registry::Gvr;
use super::{Destination, Failure, Protocol, Request, Routed};

pub(super) fn route(view: &View, object: &Value, request: &Request) -> Routed {
    let hosts = items(object, "/spec/hosts");
    let namespace = json::namespace(object);
    let mine = request.host.is_empty()
        || hosts.is_empty()
        || hosts.iter().filter_map(Value::as_str).any(|h| host_matches(h, &request.host, namespace));
    if !mine {
        return Routed::Failed(Failure::NoRoute);
    }
    let rules = match request.protocol {
        Protocol::Http => "/spec/http",
        Protocol::Tls => "/spec/tls",
        Protocol::Tcp => "/spec/tcp",
    };
    for rule in items(object, rules) {
        let matches = items(rule, "/match");
        let fits = |m: &Value| match request.protocol {
            Protocol::Http => http_matches(m, request),
            Protocol::Tls | Protocol::Tcp => l4_matches(m, request),
        };
        if !matches.is_empty() && !matches.iter().any(fits) {
            continue;
        }
        if ["redirect", "directResponse"].iter().any(|k| rule.get(k).is_some_and(Value::is_object)) {
            return Routed::Answered;
        }
        return destinations(view, namespace, items(rule, "/route"));
    }
    Routed::Failed(Failure::NoRoute)
}

fn destinations(view: &View, namespace: &str, route: &[Value]) -> Routed {
    let mut list = Vec::new();
    for entry in route {
        // A single destination needs no weight; beside others, none is 0.
        let weight = int(entry, "/weight").map_or(if route.len() == 1 { 100.0 } else { 0.0 }, |w| w as f64);
        let (in_namespace, service) = resolve(text(entry, "/destination/host"), namespace);
        let subset = match text(entry, "/destination/subset") {
            "" => None,
            name => match subset_labels(view, &in_namespace, &service, name) {
                Some(labels) => Some((name.to_owned(), labels)),
                None if weight > 0.0 => return Routed::Failed(Failure::NoSubset(service, name.to_owned())),
                None => continue,
            },
        };
        list.push(Destination { namespace: in_namespace, service, subset, weight });
    }
    if list.is_empty() { Routed::Failed(Failure::NoRoute) } else { Routed::To(list) }
}

/// Namespace and name of the Service behind a host: short, or with its namespace.
fn resolve(host: &str, namespace: &str) -> (String, String) {
    let mut parts = host.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(other), Some("svc")) => (other.to_owned(), name.to_owned()),
        _ => (namespace.to_owned(), host.to_owned()),
    }
}

fn subset_labels(view: &View, namespace: &str, service: &str, subset: &str) -> Option<BTreeMap<String, String>> {
    let versions = ["v1", "v1beta1", "v1alpha3"];
    let rules = versions.iter().map(|v| Gvr::new("networking.istio.io", v, "destinationrules"));
    // Every version is served from the same objects; the first that is served tells all.
    let rules = rules.map(|gvr| view.list(&gvr, None)).find(|list| !list.is_empty())?;
    let wanted = (namespace.to_owned(), service.to_owned());
    rules
        .iter()
        .filter(|r| resolve(text(r, "/spec/host"), json::namespace(r)) == wanted)
        .flat_map(|r| items(r, "/spec/subsets"))
        .find(|s| text(s, "/name") == subset)
        .map(|s| {
            let labels = object_of(s, "/labels").into_iter().flatten();
            labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
        })
}

fn host_matches(pattern: &str, host: &str, namespace: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern == host || resolve(pattern, namespace) == resolve(host, namespace),
    }
}

fn http_matches(rule: &Value, request: &Request) -> bool {
    let ignore_case = json::flag(rule, "/ignoreUriCase");
    let field = |key: &str, value: Option<&str>| match rule.get(key) {
        Some(condition) => text_matches(condition, value, key == "uri" && ignore_case),
        None => true,
    };
    let method = if request.method.is_empty() { "GET" } else { &request.method };
    let all = |key: &str, have: &BTreeMap<String, String>, lower: bool| {
        object_of(rule, &format!("/{key}")).into_iter().flatten().all(|(name, condition)| {
            let name = if lower { name.to_lowercase() } else { name.clone() };
            text_matches(condition, have.get(&name).map(String::as_str), false)
        })
    };
    let none_of = object_of(rule, "/withoutHeaders").into_iter().flatten().all(|(name, condition)| {
        !text_matches(condition, request.headers.get(&name.to_lowercase()).map(String::as_str), false)
    });
    field("uri", Some(&request.path))
        && field("method", Some(method))
        && field("authority", Some(&request.host))
        && field("scheme", Some("http"))
        && all("headers", &request.headers, true)
        && all("queryParams", &request.query, false)
        && none_of
        && port_matches(rule, request)
}

fn l4_matches(rule: &Value, request: &Request) -> bool {
    let names = items(rule, "/sniHosts");
    let named = names.is_empty()
        || request.host.is_empty()
        || names.iter().filter_map(Value::as_str).any(|n| host_matches(n, &request.host, ""));
    named && port_matches(rule, request)
}

fn port_matches(rule: &Value, request: &Request) -> bool {
    request.port == 0 || int(rule, "/port").is_none_or(|p| p == i64::from(request.port))
}

/// `exact`, `prefix` or `regex` (which has to match the whole value); an empty condition asks for presence.
fn text_matches(condition: &Value, value: Option<&str>, ignore_case: bool) -> bool {
    let Some(value) = value else { return false };
    let fold = |s: &str| if ignore_case { s.to_lowercase() } else { s.to_owned() };
    let Some(condition) = condition.as_object() else { return true };
    let part = |key: &str| condition.get(key).and_then(Value::as_str);
    match (part("exact"), part("prefix"), part("regex")) {
        (Some(exact), _, _) => fold(exact) == fold(value),
        (_, Some(prefix), _) => fold(value).starts_with(&fold(prefix)),
        (_, _, Some(pattern)) => regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|r| r.is_match(value)),
        _ => Map::is_empty(condition),
    }
}
