//! Sends what plans want sent to servers of the user's: hooks, receivers of notifications, and gateways that are probed.

pub mod hosts;
mod probe;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::BoxFuture;
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use hyper::body::Bytes;
use jiff::Timestamp;

use self::hosts::Hosts;
use super::{
    desk::{Answerer, Question},
    measures::{
        http::{Failure, Http},
        login::{Login, Logins},
    },
};
use crate::{
    rollout::calls::{Body, Call, Kind, Outcome, Reply},
    telemetry::Metrics,
};

/// The largest answer that is read, in bytes.
const LARGEST: usize = 64 * 1024;
const AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

impl Question for Call {
    type Answer = Reply;

    fn id(&self) -> &str {
        &self.id
    }

    fn due(&self) -> Timestamp {
        self.due
    }
}

/// Where nobody is to be called, such as from a cluster in memory.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Answerer<Call> for Nobody {
    fn answer<'a>(&'a self, _: &'a Call, at: Timestamp) -> BoxFuture<'a, Reply> {
        let outcome = Outcome::Unavailable("nobody is called from here".to_owned());
        Box::pin(async move { Reply { at, outcome } })
    }
}

/// Sends to real servers.
pub struct Sender {
    /// How hooks and gateways are reached.
    pub hooks: Arc<dyn Http>,
    /// How receivers of notifications are reached.
    pub receivers: Arc<dyn Http>,
    /// Secrets and certificates.
    pub logins: Option<Logins>,
    /// Where hooks and traffic proofs of Rollouts may be.
    pub hosts: Hosts,
    /// Counts.
    pub metrics: Metrics,
}

impl Answerer<Call> for Sender {
    fn answer<'a>(&'a self, call: &'a Call, at: Timestamp) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let limit = match call.body {
                Body::Post(..) => limit(call),
                Body::Probe { .. } => Duration::from_secs(probe::LONGEST),
            };
            let outcome = match tokio::time::timeout(limit, self.exchange(call, at)).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(Failure::Unavailable(why))) => Outcome::Unavailable(why),
                Ok(Err(Failure::Mistake(why))) => Outcome::Mistake(why),
                Err(_) => Outcome::Unavailable(format!("no answer within {} seconds", limit.as_secs())),
            };
            self.metrics.called(call.kind.as_str(), word(&outcome));
            if let Outcome::Unavailable(why) | Outcome::Mistake(why) = &outcome {
                tracing::debug!(to = call.to, "{why}");
            }
            Reply { at, outcome }
        })
    }
}

impl Sender {
    async fn exchange(&self, call: &Call, at: Timestamp) -> Result<Outcome, Failure> {
        let login = match (&call.secret, &self.logins) {
            (None, _) => Login::default(),
            (Some(keys), Some(logins)) => logins.part(&keys.namespace, &keys.name, &keys.prefix).await?,
            (Some(keys), None) => {
                return Err(Failure::Mistake(format!("Secret {} cannot be read from here", keys.name)));
            }
        };
        let Some(url) = call.url.as_ref().or(login.url.as_ref()) else {
            let keys = call.secret.as_ref().map(|keys| format!("Secret {} has no {}url", keys.name, keys.prefix));
            return Err(Failure::Mistake(keys.unwrap_or_else(|| "it has no address".to_owned())));
        };
        if call.kind != Kind::Notification {
            self.hosts.check(url).map_err(Failure::Mistake)?;
            let name = call.secret.as_ref().map(|keys| keys.name.as_str()).unwrap_or_default();
            login.check(url).map_err(|why| Failure::Mistake(format!("Secret {name} {why}")))?;
        }
        let ca = match (&call.trust, &self.logins) {
            (Some((namespace, name)), Some(logins)) => Some(logins.trust(namespace, name).await?),
            (Some((_, name)), None) => {
                return Err(Failure::Mistake(format!("ConfigMap {name} cannot be read from here")));
            }
            (None, _) => login.ca.clone(),
        };
        let http = match call.kind {
            Kind::Hook | Kind::Proof => &self.hooks,
            Kind::Notification => &self.receivers,
        };
        let request = match &call.body {
            Body::Post(content_type, body) => request(call, url, &login, at, (content_type, body))?,
            Body::Probe { count } => {
                return probe::probe(http.as_ref(), call, (url, *count), limit(call), ca.as_deref()).await;
            }
        };
        let response = http.send(request, ca.as_deref()).await?;
        if let (401 | 403, Some(keys), Some(logins)) = (response.status().as_u16(), &call.secret, &self.logins) {
            logins.forget(&keys.namespace, &keys.name);
        }
        Ok(read(&response))
    }
}

/// How long one answer may take.
fn limit(call: &Call) -> Duration {
    Duration::from_secs(call.timeout.clamp(1, 60).unsigned_abs())
}

fn request(
    call: &Call,
    url: &str,
    login: &Login,
    at: Timestamp,
    (content_type, body): (&str, &str),
) -> Result<Request<Bytes>, Failure> {
    let seconds = at.as_second().to_string();
    let mut request = Request::post(url)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, content_type)
        .header(USER_AGENT, AGENT)
        .header("idempotency-key", &call.id)
        .header("webhook-id", &call.id)
        .header("webhook-timestamp", &seconds);
    for (name, value) in &call.headers {
        request = request.header(name.as_ref(), value);
    }
    for (name, value) in &login.headers {
        request = request.header(name, value);
    }
    if let Some(key) = &login.signing_key {
        request = request.header("webhook-signature", signature(key, &call.id, &seconds, body)?);
    }
    request.body(body.to_owned().into()).map_err(|error| Failure::Mistake(format!("cannot be called: {error}")))
}

/// As [Standard Webhooks](https://www.standardwebhooks.com) has it: HMAC-SHA256 over id, time and body. A key that begins
/// with `whsec_` is in base64, any other is taken as it is.
fn signature(key: &str, id: &str, seconds: &str, body: &str) -> Result<HeaderValue, Failure> {
    let key = match key.strip_prefix("whsec_") {
        Some(coded) => BASE64_STANDARD
            .decode(coded)
            .map_err(|_| Failure::Mistake("signing-key: what follows whsec_ is no base64".to_owned()))?,
        None => key.as_bytes().to_vec(),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let tag = hmac::sign(&key, format!("{id}.{seconds}.{body}").as_bytes());
    let value = format!("v1,{}", BASE64_STANDARD.encode(tag.as_ref()));
    HeaderValue::from_str(&value).map_err(|error| Failure::Mistake(format!("webhook-signature: {error}")))
}

fn read(response: &Response<Bytes>) -> Outcome {
    if response.body().len() > LARGEST {
        return Outcome::Mistake(format!("the answer is larger than {} KiB", LARGEST / 1024));
    }
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Outcome::Answered {
        status: response.status().as_u16(),
        body: String::from_utf8_lossy(response.body()).into_owned(),
        retry_after,
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { status: 200..300, .. } => "ok",
        Outcome::Answered { .. } => "refused",
        Outcome::Probed(statuses) if statuses.keys().all(|status| (200..400).contains(status)) => "ok",
        Outcome::Probed(_) => "refused",
        Outcome::Unavailable(_) => "unavailable",
        Outcome::Mistake(_) => "mistake",
    }
}
