//! The routes of the Gateway API, after its reference.

use std::cmp::Reverse;

use serde_json::Value;

use super::super::View;
use super::super::json::{self, int, items, text};
use super::{Destination, Failure, Request, Routed};

/// HTTPRoute.
pub(super) fn http(_: &View, object: &Value, request: &Request) -> Routed {
    by_matches(object, request, http_rank)
}

/// GRPCRoute: the path of a request is `/<service>/<method>`.
pub(super) fn grpc(_: &View, object: &Value, request: &Request) -> Routed {
    by_matches(object, request, grpc_rank)
}

/// TCPRoute, UDPRoute, and TLSRoute by server name.
pub(super) fn stream(_: &View, object: &Value, request: &Request) -> Routed {
    match items(object, "/spec/rules").first() {
        Some(rule) if has_host(object, request) => destinations(object, rule),
        _ => Routed::Failed(Failure::NoRoute),
    }
}

/// How specific a match is: of those that hold for a request, the highest wins. None: it does not hold.
type Rank = [usize; 5];

fn by_matches(object: &Value, request: &Request, rank: fn(&Value, &Request) -> Option<Rank>) -> Routed {
    if !has_host(object, request) {
        return Routed::Failed(Failure::NoRoute);
    }
    let every = [Value::Null];
    let rules = items(object, "/spec/rules").iter().enumerate();
    let matching = rules.flat_map(|(i, rule)| {
        let matches = items(rule, "/matches");
        let matches = if matches.is_empty() { &every[..] } else { matches };
        matches.iter().filter_map(move |m| Some((rank(m, request)?, Reverse(i), rule)))
    });
    // Of equally specific ones the first.
    let Some((_, _, rule)) = matching.max_by_key(|(rank, order, _)| (*rank, *order)) else {
        return Routed::Failed(Failure::NoRoute);
    };
    if items(rule, "/filters").iter().any(|f| text(f, "/type") == "RequestRedirect") {
        return Routed::Answered;
    }
    destinations(object, rule)
}

fn has_host(object: &Value, request: &Request) -> bool {
    let hosts = items(object, "/spec/hostnames");
    request.host.is_empty()
        || hosts.is_empty()
        || hosts.iter().filter_map(Value::as_str).any(|host| match host.strip_prefix('*') {
            Some(suffix) => request.host.ends_with(suffix),
            None => host == request.host,
        })
}

fn destinations(object: &Value, rule: &Value) -> Routed {
    let namespace = json::namespace(object);
    let to = items(rule, "/backendRefs").iter().map(|backend| {
        let is_service = matches!(text(backend, "/kind"), "" | "Service") && text(backend, "/group").is_empty();
        let name = text(backend, "/name");
        Destination {
            namespace: match text(backend, "/namespace") {
                "" => namespace.to_owned(),
                other => other.to_owned(),
            },
            // What is no Service is not there: its share of requests fails.
            service: if is_service { name.to_owned() } else { format!("{} {name}", text(backend, "/kind")) },
            subset: None,
            weight: int(backend, "/weight").map_or(1.0, |w| w as f64),
        }
    });
    Routed::To(to.collect())
}

fn http_rank(m: &Value, request: &Request) -> Option<Rank> {
    let value = match text(m, "/path/value") {
        "" => "/",
        value => value,
    };
    let (kind, length) = match text(m, "/path/type") {
        "Exact" => (request.path == value).then_some((2, value.len()))?,
        "RegularExpression" => whole(value, &request.path).then_some((1, value.len()))?,
        _ => starts_with_segments(&request.path, value).then_some((0, value.trim_end_matches('/').len()))?,
    };
    let method = text(m, "/method");
    let sent = if request.method.is_empty() { "GET" } else { &request.method };
    if !method.is_empty() && method != sent {
        return None;
    }
    let queries = items(m, "/queryParams");
    let queried = |q: &Value| request.query.get(text(q, "/name")).is_some_and(|v| value_matches(q, v));
    (has_headers(m, request) && queries.iter().all(queried)).then_some([
        kind,
        length,
        usize::from(!method.is_empty()),
        items(m, "/headers").len(),
        queries.len(),
    ])
}

fn grpc_rank(m: &Value, request: &Request) -> Option<Rank> {
    let (service, method) = request.path.trim_start_matches('/').split_once('/')?;
    let is_regex = text(m, "/method/type") == "RegularExpression";
    let fits = |pattern: &str, value: &str| match pattern {
        "" => true,
        _ if is_regex => whole(pattern, value),
        _ => pattern == value,
    };
    let (by_service, by_method) = (text(m, "/method/service"), text(m, "/method/method"));
    (fits(by_service, service) && fits(by_method, method) && has_headers(m, request)).then_some([
        by_service.len(),
        by_method.len(),
        items(m, "/headers").len(),
        0,
        0,
    ])
}

fn has_headers(m: &Value, request: &Request) -> bool {
    items(m, "/headers")
        .iter()
        .all(|h| request.headers.get(&text(h, "/name").to_lowercase()).is_some_and(|v| value_matches(h, v)))
}

fn value_matches(condition: &Value, value: &str) -> bool {
    let wanted = text(condition, "/value");
    if text(condition, "/type") == "RegularExpression" { whole(wanted, value) } else { wanted == value }
}

fn whole(pattern: &str, value: &str) -> bool {
    regex::Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|r| r.is_match(value))
}

/// `/a` and `/a/` are prefixes of `/a` and `/a/b`, but not of `/ab`.
fn starts_with_segments(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
