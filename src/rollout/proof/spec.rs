//! The traffic proof of a Rollout's spec, read once into a form that cannot be wrong, and the requests that it sends.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Uri};
use serde::Serialize;

use crate::{
    api::{
        proof::{self as api, ProofPhase},
        v1beta1::{HttpRouteMatch, PathMatch, PathMatchType, ValueMatchType},
    },
    rollout::release::SpecError,
    traffic::Strategy,
};

const DEFAULT_COUNT: u32 = 5;
const MOST: u32 = 100;
const DEFAULT_TIMEOUT: i64 = 5;
/// Headers of the connection, which are nobody's to choose.
const OF_THE_CONNECTION: [&str; 8] =
    ["connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// A traffic proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Where the gateway is.
    pub url: Uri,
    /// Headers of every request.
    pub headers: Vec<(String, String)>,
    /// Statuses of good answers; empty: 200 to 399.
    pub expected: Vec<u16>,
    /// How many requests; absent: as many as the step's share needs.
    pub count: Option<u32>,
    /// Seconds in which each answer has to be there.
    pub timeout: i64,
    /// Name of the ConfigMap with a CA.
    pub trust: Option<String>,
}

/// What is sent at a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Where to.
    pub url: String,
    /// Headers, each name once.
    pub headers: Vec<(String, String)>,
    /// How many.
    pub count: u32,
}

/// Reads a traffic proof.
///
/// # Errors
/// The field, what is wrong, and what would be right.
pub fn read(field: &str, proof: &api::Proof) -> Result<Proof, SpecError> {
    let wrong = |name: &str, problem: String| SpecError { field: format!("{field}.{name}"), problem };
    let url: Option<Uri> = proof.url.parse().ok();
    let url = url.filter(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    let Some(url) = url else {
        let problem = format!("{:?} is none such as http://gateway.infra/healthz, without a login in it", proof.url);
        return Err(wrong("url", problem));
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    for (i, header) in proof.headers.iter().enumerate() {
        let name = header.name.to_ascii_lowercase();
        let at = |problem: String| wrong(&format!("headers[{i}]"), problem);
        if HeaderName::try_from(name.as_str()).is_err() || HeaderValue::from_str(&header.value).is_err() {
            return Err(at(format!("{:?} has characters that no header can have", header.name)));
        }
        if OF_THE_CONNECTION.contains(&name.as_str()) {
            return Err(at(format!("{name} is a header of the connection itself; leave it out")));
        }
        if headers.iter().any(|(known, _)| *known == name) {
            return Err(at(format!("{name} is there twice; name each header once")));
        }
        headers.push((name, header.value.clone()));
    }
    let expected = proof.expect_status.iter().map(|status| {
        let is_one = u16::try_from(*status).ok().filter(|status| (200..600).contains(status));
        is_one.ok_or_else(|| wrong("expectStatus", format!("{status} is none of 200 to 599")))
    });
    let expected = expected.collect::<Result<Vec<u16>, SpecError>>()?;
    let within = |name: &str, number: Option<i32>, most: i32| match number {
        Some(number) if !(1..=most).contains(&number) => Err(wrong(name, format!("{number} is not from 1 to {most}"))),
        number => Ok(number),
    };
    let count = within("count", proof.count, 100)?.and_then(|count| u32::try_from(count).ok());
    let timeout = within("timeoutSeconds", proof.timeout_seconds, 30)?.map_or(DEFAULT_TIMEOUT, i64::from);
    Ok(Proof { url, headers, expected, count, timeout, trust: proof.ca_config_map.clone() })
}

impl Proof {
    /// What is sent at a step: where it asks for requests that match, such requests.
    pub fn requests(&self, strategy: &Strategy) -> Requests {
        let path_and_query = self.url.path_and_query().map_or("/", |p| p.as_str());
        let (mut path, mut query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path.to_owned(), query.to_owned()),
            None => (path_and_query.to_owned(), String::new()),
        };
        let mut headers = self.headers.clone();
        if let Some(matched) = strategy.matches.iter().find(|m| is_exact(m)) {
            for header in &matched.headers {
                let name = header.name.to_ascii_lowercase();
                headers.retain(|(known, _)| *known != name);
                headers.push((name, header.value.clone()));
            }
            for param in &matched.query_params {
                let pair =
                    form_urlencoded::Serializer::new(String::new()).append_pair(&param.name, &param.value).finish();
                query = if query.is_empty() { pair } else { format!("{query}&{pair}") };
            }
            if let Some(wanted) = &matched.path
                && !is_below(&path, wanted)
            {
                path.clone_from(&wanted.value);
            }
        }
        let (scheme, authority) = (self.url.scheme_str(), self.url.authority());
        let place = format!("{}://{}", scheme.unwrap_or_default(), authority.map_or("", |a| a.as_str()));
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let share = strategy.weight.filter(|_| strategy.matches.is_empty());
        let count = self.count.unwrap_or_else(|| share.map_or(DEFAULT_COUNT, needed));
        Requests { url: format!("{place}{path}{query}"), headers, count }
    }

    /// Whether all of these answers are good. None is no proof.
    pub fn judge(&self, statuses: &BTreeMap<u16, u32>) -> ProofPhase {
        let is_good = |status: &u16| match self.expected.as_slice() {
            [] => (200..400).contains(status),
            expected => expected.contains(status),
        };
        let is_proven = !statuses.is_empty() && statuses.keys().all(is_good);
        if is_proven { ProofPhase::Proven } else { ProofPhase::Unproven }
    }
}

/// A request that it matches can be written.
fn is_exact(matched: &HttpRouteMatch) -> bool {
    matched.headers.iter().all(|header| header.r#type == ValueMatchType::Exact)
        && matched.query_params.iter().all(|param| param.r#type == ValueMatchType::Exact)
        && matched.path.as_ref().is_none_or(|path| path.r#type != PathMatchType::RegularExpression)
}

fn is_below(path: &str, wanted: &PathMatch) -> bool {
    match wanted.r#type {
        PathMatchType::PathPrefix => {
            let prefix = wanted.value.trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatchType::Exact | PathMatchType::RegularExpression => path == wanted.value,
    }
}

/// Requests of which, at this share, one reaches the new version 99 times out of 100.
fn needed(percent: u32) -> u32 {
    if percent == 0 {
        return DEFAULT_COUNT;
    }
    let misses = 1.0 - f64::from(percent.min(100)) / 100.0;
    let (mut count, mut none) = (0, 1.0);
    while none > 0.01 && count < MOST {
        (count, none) = (count + 1, none * misses);
    }
    count.max(DEFAULT_COUNT)
}
