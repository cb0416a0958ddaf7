//! Servers that speak Prometheus' HTTP API: `POST /api/v1/query`.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{
    Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, LOCATION, USER_AGENT},
};
use hyper::body::Bytes;
use serde::Deserialize;

use super::{
    Provider,
    http::{Failure, Http},
    login::{Login, Logins},
};
use crate::analysis::{Answer, ask::Ask};

/// By which Mimir, Cortex and Thanos tell tenants apart.
const TENANT: &str = "x-scope-orgid";
/// As much of what a server says as a message bears, in bytes.
const LONGEST: usize = 300;

/// Servers that speak Prometheus' HTTP API.
pub struct Servers {
    /// How they are reached.
    pub http: Arc<dyn Http>,
    /// How to log in.
    pub logins: Option<Logins>,
    /// The only addresses that may be asked; empty: all.
    pub allowed: Vec<String>,
}

impl Provider for Servers {
    fn ask<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let address = &ask.provider.address;
            self.exchange(ask).await.unwrap_or_else(|failure| match failure {
                Failure::Unavailable(why) => Answer::Unavailable(format!("{address}: {why}")),
                Failure::Mistake(why) => Answer::Mistake(format!("{address}: {why}")),
            })
        })
    }
}

impl Servers {
    async fn exchange(&self, ask: &Ask) -> Result<Answer, Failure> {
        let address = ask.provider.address.trim_end_matches('/');
        if !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| allowed.trim_end_matches('/') == address) {
            return Err(Failure::Mistake("is none of the servers that --metrics-servers allows".to_owned()));
        }
        let secret = ask.provider.secret_ref.as_ref().map(|secret| secret.name.as_str());
        let login = match (secret, &self.logins) {
            (None, _) => Login::default(),
            (Some(name), Some(logins)) => logins.get(&ask.namespace, name).await?,
            (Some(name), None) => return Err(Failure::Mistake(format!("Secret {name} cannot be read from here"))),
        };
        login.check(address).map_err(|why| Failure::Mistake(format!("Secret {} {why}", secret.unwrap_or_default())))?;
        let response = self.http.send(request(ask, address, &login)?, login.ca.as_deref()).await?;
        if let (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(name), Some(logins)) =
            (response.status(), secret, &self.logins)
        {
            logins.forget(&ask.namespace, name);
        }
        read(&response)
    }
}

fn request(ask: &Ask, address: &str, login: &Login) -> Result<Request<Bytes>, Failure> {
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("query", &ask.query).finish();
    let mut request = Request::post(format!("{address}/api/v1/query"))
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    if let Some(tenant) = &ask.provider.tenant {
        request = request.header(TENANT, tenant);
    }
    for (name, value) in &login.headers {
        request = request.header(name, value);
    }
    request.body(body.into()).map_err(|error| Failure::Mistake(format!("cannot be asked: {error}")))
}

/// What is common to all answers.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
}

/// An answer of a known kind.
#[derive(Deserialize)]
struct Of<T> {
    data: Found<T>,
}

#[derive(Deserialize)]
struct Found<T> {
    result: T,
}

#[derive(Deserialize)]
struct Series {
    /// Absent for a native histogram.
    #[serde(default)]
    value: Option<Point>,
}

/// Seconds since 1970, and a number as text.
#[derive(Deserialize)]
struct Point(serde::de::IgnoredAny, String);

fn read(response: &Response<Bytes>) -> Result<Answer, Failure> {
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        return Err(Failure::Mistake(format!(
            "redirects to {}, which is not followed; name the right address",
            part(to)
        )));
    }
    let reply: Option<Reply> = serde_json::from_slice(response.body()).ok();
    if !status.is_success() {
        // Of other bodies nothing is said: they are perhaps not for the reader of a Rollout.
        let said = reply.filter(|reply| !reply.error.is_empty());
        let said = said.map(|reply| format!(", {}: {}", part(&reply.error_type), part(&reply.error)));
        let text = format!("{}{}", status.as_u16(), said.unwrap_or_default());
        return Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failure::Mistake(format!("{text}: the server asks for another login; see secretRef"))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Failure::Unavailable(text),
            status if status.is_client_error() => Failure::Mistake(text),
            _ => Failure::Unavailable(text),
        });
    }
    let Some(data) = reply.and_then(|reply| reply.data) else {
        return Err(Failure::Mistake("the answer is none of Prometheus' HTTP API".to_owned()));
    };
    match data.kind.as_str() {
        "scalar" => number(&result::<Point>(response)?.1),
        "vector" => match result::<Vec<Series>>(response)?.as_slice() {
            [] => Ok(Answer::Empty),
            [Series { value: Some(point) }] => number(&point.1),
            [_] => Err(Failure::Mistake("the answer is a histogram, not a number".to_owned())),
            more => Ok(Answer::Several(more.len())),
        },
        other => Err(Failure::Mistake(format!("the answer is a {}, not a number at one moment", part(other)))),
    }
}

/// Read a second time, into what it is: into something general it would take ten times the space.
fn result<T: for<'a> Deserialize<'a>>(response: &Response<Bytes>) -> Result<T, Failure> {
    let of: Of<T> = serde_json::from_slice(response.body())
        .map_err(|error| Failure::Mistake(format!("the answer cannot be read: {error}")))?;
    Ok(of.data.result)
}

/// `NaN`, `+Inf` and `-Inf` are numbers here as there.
fn number(text: &str) -> Result<Answer, Failure> {
    text.parse().map(Answer::Value).map_err(|_| Failure::Mistake(format!("{:?} is no number", part(text))))
}

fn part(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
