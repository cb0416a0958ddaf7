//! Servers that are asked by HTTP. What is common to them is here: who may be asked, how one logs in, and what a status
//! means. What each kind says and understands is its [`Dialect`], one file each.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::{
    Request, Response, StatusCode,
    header::{ACCEPT, LOCATION, USER_AGENT},
};
use hyper::body::Bytes;

use super::{
    Provider,
    datadog::Datadog,
    http::{Failure, Http},
    login::{Login, Logins},
    prometheus::{Prometheus, Range, range_request, read_range},
    web::Web,
};
use crate::analysis::{Answer, ask::Ask};

/// As much of what a server says as a message bears, in bytes.
const LONGEST: usize = 300;

/// What one kind of server says and understands.
pub(super) trait Dialect: Send + Sync {
    /// The request, without login; `address` has no slash at its end.
    fn request(&self, ask: &Ask, address: &str) -> Result<Request<Bytes>, Failure>;

    /// The answer of a server that had no objection.
    fn read(&self, ask: &Ask, body: &[u8]) -> Result<Answer, Failure>;

    /// What a server says that objects, where that is meant for people.
    fn objection(&self, body: &[u8]) -> Option<String>;

    /// What is missing in a login.
    fn check(&self, _login: &Login) -> Result<(), String> {
        Ok(())
    }
}

/// Servers that are asked by HTTP.
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
            let address = ask.provider.address();
            self.exchange(ask).await.unwrap_or_else(|failure| match failure {
                Failure::Unavailable(why) => Answer::Unavailable(format!("{address}: {why}")),
                Failure::Mistake(why) => Answer::Mistake(format!("{address}: {why}")),
            })
        })
    }
}

impl Servers {
    async fn exchange(&self, ask: &Ask) -> Result<Answer, Failure> {
        let dialect = dialect(ask).ok_or_else(|| Failure::Mistake("the provider is no server".to_owned()))?;
        let body = self.send(ask, dialect, |address| dialect.request(ask, address)).await?;
        dialect.read(ask, &body)
    }

    /// What a Prometheus said to a question at each moment from one second to another, `step` seconds apart.
    ///
    /// # Errors
    /// As when it is asked once; also when the provider is no Prometheus.
    pub async fn range(&self, ask: &Ask, times: (i64, i64), step: i64) -> Result<Range, Failure> {
        let body = self.send(ask, &Prometheus, |address| range_request(ask, address, times, step)).await?;
        read_range(&body, ask.is_of_buckets)
    }

    /// One exchange with the server of a question; the answer of one that had no objection.
    async fn send(
        &self,
        ask: &Ask,
        dialect: &dyn Dialect,
        request: impl FnOnce(&str) -> Result<Request<Bytes>, Failure>,
    ) -> Result<Bytes, Failure> {
        let address = ask.provider.address();
        if !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| allowed.trim_end_matches('/') == address) {
            return Err(Failure::Mistake("is none of the servers that --metrics-servers allows".to_owned()));
        }
        let secret = ask.provider.secret_ref().map(|secret| secret.name.as_str());
        let login = match (secret, &self.logins) {
            (None, _) => Login::default(),
            (Some(name), Some(logins)) => logins.get(&ask.namespace, name).await?,
            (Some(name), None) => return Err(Failure::Mistake(format!("Secret {name} cannot be read from here"))),
        };
        let is_usable = login.check(address).and_then(|()| dialect.check(&login));
        is_usable.map_err(|why| Failure::Mistake(format!("Secret {} {why}", secret.unwrap_or_default())))?;
        let mut request = request(address)?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, http::HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
        headers.extend(login.headers.iter().cloned());
        let response = self.http.send(request, login.ca.as_deref()).await?;
        if let (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, Some(name), Some(logins)) =
            (response.status(), secret, &self.logins)
        {
            logins.forget(&ask.namespace, name);
        }
        check_status(&response, dialect)?;
        Ok(response.into_body())
    }
}

fn dialect(ask: &Ask) -> Option<&'static dyn Dialect> {
    let provider = &ask.provider;
    if provider.prometheus.is_some() {
        Some(&Prometheus)
    } else if provider.datadog.is_some() {
        Some(&Datadog)
    } else if provider.web.is_some() {
        Some(&Web)
    } else {
        None
    }
}

fn check_status(response: &Response<Bytes>, dialect: &dyn Dialect) -> Result<(), Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    if status.is_redirection() {
        let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        return Err(Failure::Mistake(format!(
            "redirects to {}, which is not followed; name the right address",
            part(to)
        )));
    }
    // Of other bodies nothing is said: they are perhaps not for the reader of a Rollout.
    let said = dialect.objection(response.body()).map(|said| format!(", {}", part(&said)));
    let text = format!("{}{}", status.as_u16(), said.unwrap_or_default());
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Failure::Mistake(format!("{text}: the server asks for another login; see secretRef"))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Failure::Unavailable(text),
        status if status.is_client_error() => Failure::Mistake(text),
        _ => Failure::Unavailable(text),
    })
}

pub(super) fn part(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LONGEST)).unwrap_or_default()
}

/// A request that cannot be made of what a user gave.
pub(super) fn impossible(error: http::Error) -> Failure {
    Failure::Mistake(format!("cannot be asked: {error}"))
}

#[cfg(test)]
mod tests;
