//! The HTTP face: from a request to an operation and back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use kube::client::Body;
use kube::core::Status;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::core::{Caller, Core, State, Verb};
use super::discovery;
use super::faults::Fault;
use super::json::{self, text};
use super::objects::{DeleteOptions, Deleted};
use super::patch;
use super::registry::{Kind, api_version};
use super::scale;
use super::selector::{Fields, Labels};
use super::status;
use super::store::Key;
use super::watch::{Selection, Watch, line};

mod lists;
mod operate;

/// The bytes type of the client's bodies.
pub(crate) type Bytes = <Body as http_body::Body>::Data;
type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One client's connection to the cluster: a tower service for `kube::Client::new`.
#[derive(Clone)]
pub struct Connection {
    pub(crate) core: Arc<Core>,
    pub(crate) identity: Arc<str>,
    pub(crate) epoch: u64,
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = self.clone();
        Box::pin(async move { connection.serve(request).await })
    }
}

/// A request, taken apart.
struct Asked {
    verb: Verb,
    kind: Arc<Kind>,
    namespace: Option<String>,
    name: Option<String>,
    query: BTreeMap<String, String>,
    caller: Caller,
    content_type: String,
    metadata_only: bool,
}

enum Target {
    Plain(Value),
    Object(Box<Asked>),
}

fn json_answer(code: u16, body: &Value) -> Answer {
    let bytes = Bytes::from(serde_json::to_vec(body).unwrap_or_default());
    let mut response = Response::new(Full::new(bytes).map_err(|e| match e {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A status as the wire has it.
pub(crate) fn status_value(status: &Status) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    json::set(&mut value, &["kind"], "Status");
    json::set(&mut value, &["apiVersion"], "v1");
    json::default(&mut value, &["metadata"], json!({}));
    value
}

fn refuse(status: &Status) -> Answer {
    if status.code == 404 && status.message == status::NO_ROUTE {
        let bytes = Bytes::from(format!("{}\n", status.message));
        let mut response = Response::new(Full::new(bytes).map_err(|e| match e {}).boxed_unsync());
        *response.status_mut() = StatusCode::NOT_FOUND;
        let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        return response;
    }
    let mut answer = json_answer(status.code, &status_value(status));
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    answer
}

impl Connection {
    async fn serve(self, request: Request<Body>) -> Result<Answer, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let core = self.core.clone();
        let identity = self.identity.clone();
        if core.lock().faults.dead(&identity, self.epoch) {
            return std::future::pending().await;
        }
        let asked = match self.understand(&parts) {
            Ok(Target::Plain(value)) => return Ok(json_answer(200, &value)),
            Ok(Target::Object(asked)) => *asked,
            Err(status) => return Ok(refuse(&status)),
        };
        let struck = {
            let mut state = core.lock();
            *state.requests.entry((identity.clone(), asked.verb)).or_default() += 1;
            state.faults.strike(&identity, asked.verb, &asked.kind.plural)
        };
        for fault in &struck {
            if let Fault::Latency(range) = fault {
                let wait = core.lock().faults.duration(&identity, range);
                tokio::time::sleep(wait).await;
                if core.lock().faults.dead(&identity, self.epoch) {
                    return std::future::pending().await;
                }
            }
        }
        let name = asked.name.as_deref().unwrap_or_default();
        if struck.contains(&Fault::Conflict) {
            return Ok(refuse(&status::modified(&asked.kind, name)));
        }
        if struck.contains(&Fault::TooManyRequests) {
            return Ok(refuse(&status::too_many_requests(1)));
        }
        if struck.contains(&Fault::InternalError) {
            return Ok(refuse(&status::internal("injected fault")));
        }
        if struck.contains(&Fault::TimeoutBefore) {
            return self.time_out();
        }
        let (answer, died) = self.execute(&asked, &body, &struck);
        if died {
            return std::future::pending().await;
        }
        if struck.contains(&Fault::TimeoutAfter) {
            return self.time_out();
        }
        Ok(answer)
    }

    fn time_out(&self) -> Result<Answer, BoxError> {
        if self.core.lock().faults.coin(&self.identity) {
            return Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset by peer").into());
        }
        let why = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        Ok(refuse(&status::failure(504, "Timeout", why)))
    }

    fn understand(&self, parts: &http::request::Parts) -> Result<Target, Box<Status>> {
        let path: Vec<String> =
            parts.uri.path().split('/').filter(|s| !s.is_empty()).map(|s| decode(s, false)).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let state = self.core.lock();
        let registry = &state.store.registry;
        let (group, version, rest) = match path.as_slice() {
            ["version"] => return Ok(Target::Plain(discovery::version())),
            ["healthz" | "livez" | "readyz"] => return Ok(Target::Plain("ok".into())),
            ["api"] => return Ok(Target::Plain(discovery::core_versions())),
            ["apis"] => return Ok(Target::Plain(discovery::groups(registry))),
            ["apis", group] => {
                return discovery::one_group(registry, group).map(Target::Plain).ok_or_else(status::no_route);
            }
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(status::no_route()),
        };
        let (namespace, plural, name, sub) = match rest {
            [] => {
                return discovery::resources(registry, group, version).map(Target::Plain).ok_or_else(status::no_route);
            }
            ["namespaces", name, sub @ ("status" | "finalize")] => (None, "namespaces", Some(*name), Some(*sub)),
            ["namespaces", namespace, plural] => (Some(*namespace), *plural, None, None),
            ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name), None),
            ["namespaces", namespace, plural, name, sub] => (Some(*namespace), *plural, Some(*name), Some(*sub)),
            [plural] => (None, *plural, None, None),
            [plural, name] => (None, *plural, Some(*name), None),
            [plural, name, sub] => (None, *plural, Some(*name), Some(*sub)),
            _ => return Err(status::no_route()),
        };
        let kind = registry.find(group, plural).filter(|k| k.version(version).is_some()).cloned();
        let kind = kind.ok_or_else(status::no_route)?;
        drop(state);
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .map(|(k, v)| (decode(k, true), decode(v, true)))
            .collect();
        let watch = query.get("watch").is_some_and(|w| matches!(w.as_str(), "true" | "1"));
        let verb = match (&parts.method, name) {
            (&Method::GET, None) if watch => Verb::Watch,
            (&Method::GET, None) => Verb::List,
            (&Method::GET, Some(_)) => Verb::Get,
            (&Method::POST, None) => Verb::Create,
            (&Method::PUT, Some(_)) => Verb::Update,
            (&Method::PATCH, Some(_)) => Verb::Patch,
            (&Method::DELETE, None) => Verb::DeleteCollection,
            (&Method::DELETE, Some(_)) => Verb::Delete,
            (method, _) => {
                let what = sub.map_or_else(|| kind.qualified(), |s| format!("{}/{s}", kind.qualified()));
                return Err(status::unsupported(&method.to_string().to_lowercase(), &what));
            }
        };
        let subresource = match sub {
            None => None,
            Some("status") if kind.status => Some("status"),
            Some("scale") if kind.scale.is_some() => Some("scale"),
            Some("status" | "scale") => return Err(status::no_route()),
            Some(other) => {
                return Err(status::unsupported(verb.as_str(), &format!("{}/{other}", kind.qualified())));
            }
        };
        if subresource.is_some() && !matches!(verb, Verb::Get | Verb::Update | Verb::Patch) {
            let what = format!("{}/{}", kind.qualified(), subresource.unwrap_or_default());
            return Err(status::unsupported(verb.as_str(), &what));
        }
        let one = kind.namespaced && namespace.is_none() && !matches!(verb, Verb::List | Verb::Watch);
        if one || (!kind.namespaced && namespace.is_some()) {
            return Err(status::no_route());
        }
        let text_of = |name: header::HeaderName| {
            parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        let agent = text_of(header::USER_AGENT);
        let manager = match query.get("fieldManager") {
            Some(m) if !m.is_empty() => m.clone(),
            _ => match agent.split('/').next() {
                Some(a) if !a.is_empty() => a.to_owned(),
                _ => "unknown".to_owned(),
            },
        };
        let caller = Caller {
            identity: self.identity.clone(),
            verb,
            version: version.to_owned(),
            subresource,
            manager,
            dry_run: query.get("dryRun").is_some_and(|d| d == "All"),
            internal: false,
        };
        Ok(Target::Object(Box::new(Asked {
            verb,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            query,
            caller,
            content_type: text_of(header::CONTENT_TYPE),
            metadata_only: text_of(header::ACCEPT).contains("as=PartialObjectMetadata"),
            kind,
        })))
    }
}

/// Percent decoding; `+` is a space in a query.
fn decode(text: &str, query: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let hex = text.get(i + 1..i + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (b, hex) {
            (b'%', Some(value)) => {
                out.push(value);
                i += 3;
                continue;
            }
            (b'+', _) if query => out.push(b' '),
            _ => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
