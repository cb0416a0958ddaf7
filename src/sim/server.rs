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

    /// Runs the operation; the flag says that the client died of its own write.
    fn execute(&self, asked: &Asked, body: &[u8], struck: &[Fault]) -> (Answer, bool) {
        if asked.verb == Verb::DeleteCollection {
            return self.delete_collection(asked, body);
        }
        self.core.run(|state| {
            let before = state.writes();
            let result = self.operate(state, asked, body, struck);
            let died = state.writes() > before && state.faults.wrote(&self.identity);
            (result.unwrap_or_else(|status| refuse(&status)), died)
        })
    }

    fn operate(&self, state: &mut State, asked: &Asked, body: &[u8], struck: &[Fault]) -> Result<Answer, Box<Status>> {
        let core = &self.core;
        let Asked { kind, caller, .. } = asked;
        let namespace = asked.namespace.as_deref().unwrap_or_default();
        let name = asked.name.as_deref().unwrap_or_default();
        let selection = || -> Result<Selection, Box<Status>> {
            let part = |key: &str| asked.query.get(key).map(String::as_str).unwrap_or_default();
            Ok(Selection {
                kind: kind.clone(),
                namespace: asked.namespace.clone(),
                labels: Labels::parse(part("labelSelector"))?,
                fields: Fields::parse(part("fieldSelector"), &kind.plural)?,
                metadata_only: asked.metadata_only,
            })
        };
        let shown = |object: &Arc<Value>, code: u16| {
            let view = if caller.subresource == Some("scale") {
                Arc::new(scale::view(kind, object))
            } else if asked.metadata_only {
                Arc::new(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": object.get("metadata")}))
            } else {
                core.view_version(kind, caller, object)
            };
            json_answer(code, &view)
        };
        match asked.verb {
            Verb::Get => {
                let key = Key::new(kind.id, namespace, name);
                let object = state.store.at(&key).ok_or_else(|| status::not_found(kind, name))?;
                Ok(shown(object, 200))
            }
            Verb::List => self.list(state, asked, &selection()?),
            Verb::Watch => self.watch(state, asked, selection()?, struck),
            Verb::Create => {
                let object = parse(body, &asked.content_type)?;
                core.create(state, caller, kind, namespace, object).map(|o| shown(&o, 201))
            }
            Verb::Update => {
                let object = parse(body, &asked.content_type)?;
                core.update(state, caller, kind, namespace, name, |old| {
                    if caller.subresource == Some("scale") {
                        return Ok((scale::set(kind, name, old, &object)?, false));
                    }
                    Ok((object, false))
                })
                .map(|o| shown(&o, 200))
            }
            Verb::Patch => self.patch(state, asked, body).map(|(o, code)| shown(&o, code)),
            Verb::Delete => {
                let options = delete_options(asked, body)?;
                match core.delete(state, caller, kind, namespace, name, &options)? {
                    Deleted::Waiting(object) => Ok(shown(&object, 200)),
                    Deleted::Gone(last)
                        if matches!(kind.plural.as_str(), "pods" | "services" | "serviceaccounts")
                            && kind.group.is_empty() =>
                    {
                        Ok(shown(&last, 200))
                    }
                    Deleted::Gone(last) => {
                        let mut details = json!({"name": name, "kind": kind.plural, "uid": json::uid(&last)});
                        if !kind.group.is_empty() {
                            json::set(&mut details, &["group"], kind.group.clone());
                        }
                        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
                        Ok(json_answer(200, &body))
                    }
                }
            }
            Verb::DeleteCollection => Err(status::unsupported("deletecollection", &kind.qualified())),
        }
    }

    fn patch(&self, state: &mut State, asked: &Asked, body: &[u8]) -> Result<(Arc<Value>, u16), Box<Status>> {
        let core = &self.core;
        let Asked { kind, caller, .. } = asked;
        let namespace = asked.namespace.as_deref().unwrap_or_default();
        let name = asked.name.as_deref().unwrap_or_default();
        let change = parse(body, &asked.content_type)?;
        let content = asked.content_type.split(';').next().unwrap_or_default().trim();
        let scaling = caller.subresource == Some("scale");
        let force = asked.query.get("force").is_some_and(|f| f == "true");
        if content == "application/apply-patch+yaml" {
            if asked.query.get("fieldManager").is_none_or(String::is_empty) {
                return Err(status::manager_required());
            }
            if scaling {
                return Err(status::unsupported("apply", &format!("{}/scale", kind.qualified())));
            }
            let time = core.timestamp();
            let key = Key::new(kind.id, namespace, name);
            if state.store.at(&key).is_none() {
                if caller.subresource.is_some() {
                    return Err(status::not_found(kind, name));
                }
                if !text(&change, "/metadata/uid").is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {}, and no existing object was found",
                        text(&change, "/metadata/uid")
                    );
                    return Err(status::conflict(kind, name, &why));
                }
                let mut config = change;
                json::default(&mut config, &["metadata", "name"], name);
                if json::name(&config) != name {
                    return Err(status::bad_request(format!(
                        "the name of the object ({}) does not match the name on the URL ({name})",
                        json::name(&config)
                    )));
                }
                let object = patch::apply::apply(kind, caller, &Value::Null, &config, force, &time)?;
                return core.create(state, caller, kind, namespace, object).map(|o| (o, 201));
            }
            return core
                .update(state, caller, kind, namespace, name, |old| {
                    let version = text(&change, "/metadata/resourceVersion");
                    if !version.is_empty() && version != text(old, "/metadata/resourceVersion") {
                        return Err(status::modified(kind, name));
                    }
                    Ok((patch::apply::apply(kind, caller, old, &change, force, &time)?, true))
                })
                .map(|o| (o, 200));
        }
        let patched = |target: &Value| match content {
            "application/json-patch+json" => patch::json::patch(target, &change),
            "application/merge-patch+json" => {
                if !change.is_object() {
                    return Err(status::bad_request("the merge patch is not an object"));
                }
                let mut result = target.clone();
                patch::merge::merge(&mut result, &change);
                Ok(result)
            }
            "application/strategic-merge-patch+json" => patch::strategic::patch(kind, target, &change),
            _ => Err(status::unsupported_media()),
        };
        core.update(state, caller, kind, namespace, name, |old| {
            if scaling {
                let scale = patched(&scale::view(kind, old))?;
                return Ok((scale::set(kind, name, old, &scale)?, false));
            }
            Ok((patched(old)?, false))
        })
        .map(|o| (o, 200))
    }

    fn list(&self, state: &State, asked: &Asked, selection: &Selection) -> Result<Answer, Box<Status>> {
        let kind = &asked.kind;
        let mut objects: Vec<Arc<Value>> = match (selection.fields.single_name(), &asked.namespace) {
            (Some(name), Some(namespace)) => state.store.get(kind.id, namespace, name).into_iter().cloned().collect(),
            _ => state.store.list(kind.id, asked.namespace.as_deref()).cloned().collect(),
        };
        objects.retain(|o| selection.selects(o));
        let mut meta = json!({"resourceVersion": state.store.version().to_string()});
        let limit = asked.query.get("limit").and_then(|l| l.parse::<usize>().ok()).filter(|l| *l > 0);
        let start = match asked.query.get("continue").filter(|c| !c.is_empty()) {
            Some(token) => Some(token.split_once('/').ok_or_else(|| status::bad_request("continue key is not valid"))?),
            None => None,
        };
        if let Some((namespace, name)) = start {
            objects.retain(|o| (json::namespace(o), json::name(o)) > (namespace, name));
        }
        if let Some(limit) = limit.filter(|l| *l < objects.len()) {
            let left = objects.len() - limit;
            objects.truncate(limit);
            if let Some(last) = objects.last() {
                json::set(&mut meta, &["continue"], format!("{}/{}", json::namespace(last), json::name(last)));
                json::set(&mut meta, &["remainingItemCount"], left);
            }
        }
        let (version, list) = if asked.metadata_only {
            ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned())
        } else {
            (api_version(&kind.group, &asked.caller.version), format!("{}List", kind.kind))
        };
        // Written by hand: the objects are not copied into one value first.
        let mut bytes = Vec::with_capacity(256 + objects.len() * 1024);
        bytes.extend_from_slice(b"{\"kind\":");
        let put = |value: &Value, bytes: &mut Vec<u8>| {
            let _ = serde_json::to_writer(bytes, value);
        };
        put(&list.into(), &mut bytes);
        bytes.extend_from_slice(b",\"apiVersion\":");
        put(&version.into(), &mut bytes);
        bytes.extend_from_slice(b",\"metadata\":");
        put(&meta, &mut bytes);
        bytes.extend_from_slice(b",\"items\":[");
        for (i, object) in objects.iter().enumerate() {
            if i > 0 {
                bytes.push(b',');
            }
            let shown = selection.show(&self.core, &asked.caller, object);
            if kind.custom || asked.metadata_only {
                put(&shown, &mut bytes);
            } else {
                // Elements of a list of a built-in kind do not repeat what the list says.
                let _ = serde_json::to_writer(&mut bytes, &Untyped(&shown));
            }
        }
        bytes.extend_from_slice(b"]}");
        let mut response = Response::new(Full::new(Bytes::from(bytes)).map_err(|e| match e {}).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(response)
    }

    fn watch(
        &self,
        state: &mut State,
        asked: &Asked,
        selection: Selection,
        struck: &[Fault],
    ) -> Result<Answer, Box<Status>> {
        let kind = asked.kind.id;
        let part = |key: &str| asked.query.get(key).map(String::as_str).unwrap_or_default();
        let head = state.store.version();
        let initial = part("sendInitialEvents") == "true";
        let bookmarks = part("allowWatchBookmarks") == "true";
        let asked_version = part("resourceVersion");
        let version = match asked_version {
            "" | "0" => None,
            text => Some(
                text.parse::<u64>().map_err(|_| status::bad_request(format!("invalid resource version \"{text}\"")))?,
            ),
        };
        let mut ready = VecDeque::new();
        let from_start = version.is_none() && part("sendInitialEvents") != "false";
        let cursor = match version {
            Some(version) if !initial => {
                let oldest =
                    state.store.table(kind).map_or(0, |t| t.oldest).max(state.faults.floor(&self.identity, kind));
                if version < oldest {
                    ready.push_back(line("ERROR", &status_value(&status::expired(version, oldest))));
                }
                version
            }
            _ => head,
        };
        let done = !ready.is_empty();
        if initial || from_start {
            for object in state.store.list(kind, asked.namespace.as_deref()).filter(|o| selection.selects(o)) {
                ready.push_back(line("ADDED", &selection.show(&self.core, &asked.caller, object)));
            }
            if initial {
                let mark = json!({"kind": asked.kind.kind, "apiVersion": api_version(&asked.kind.group, &asked.caller.version),
                    "metadata": {"resourceVersion": head.to_string(), "creationTimestamp": null,
                        "annotations": {"k8s.io/initial-events-end": "true"}}});
                ready.push_back(line("BOOKMARK", &mark));
            }
        }
        let seconds = part("timeoutSeconds").parse::<u64>().unwrap_or(1800).clamp(1, 86_400);
        let watch = Watch {
            core: self.core.clone(),
            caller: asked.caller.clone(),
            epoch: self.epoch,
            id: state.next_watch(),
            selection,
            cursor,
            ready,
            bookmarks,
            bookmarked: cursor,
            deadline: Instant::now() + Duration::from_secs(seconds),
            delay: struck.iter().find_map(|f| match f {
                Fault::WatchDelay(range) => Some(range.clone()),
                _ => None,
            }),
            due: None,
            events_left: struck.iter().find_map(|f| match f {
                Fault::WatchGap(n) => Some(*n),
                _ => None,
            }),
            sleep: None,
            done,
        };
        let mut response = Response::new(watch.map_frame(|f: Frame<Bytes>| f).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(response)
    }

    fn delete_collection(&self, asked: &Asked, body: &[u8]) -> (Answer, bool) {
        let part = |key: &str| asked.query.get(key).map(String::as_str).unwrap_or_default();
        let prepared = (|| {
            let labels = Labels::parse(part("labelSelector"))?;
            let fields = Fields::parse(part("fieldSelector"), &asked.kind.plural)?;
            Ok::<_, Box<Status>>((labels, fields, delete_options(asked, body)?))
        })();
        let (labels, fields, options) = match prepared {
            Ok(parts) => parts,
            Err(status) => return (refuse(&status), false),
        };
        let found: Vec<Arc<Value>> = {
            let state = self.core.lock();
            let all = state.store.list(asked.kind.id, asked.namespace.as_deref());
            all.filter(|o| labels.selects(o) && fields.selects(o)).cloned().collect()
        };
        for object in &found {
            let (namespace, name) = (json::namespace(object), json::name(object));
            let (result, died) = self.core.run(|state| {
                let before = state.writes();
                let result = self.core.delete(state, &asked.caller, &asked.kind, namespace, name, &options);
                (result, state.writes() > before && state.faults.wrote(&self.identity))
            });
            if died {
                return (refuse(&status::internal("crashed")), true);
            }
            if let Err(status) = result
                && status.code != 404
            {
                return (refuse(&status), false);
            }
        }
        let version = self.core.lock().store.version().to_string();
        let untyped = |o: &Arc<Value>| {
            let mut shown = Value::clone(o);
            if !asked.kind.custom {
                json::remove(&mut shown, &["apiVersion"]);
                json::remove(&mut shown, &["kind"]);
            }
            shown
        };
        let list: Vec<Value> = found.iter().map(untyped).collect();
        let body = json!({"kind": format!("{}List", asked.kind.kind),
            "apiVersion": api_version(&asked.kind.group, &asked.caller.version),
            "metadata": {"resourceVersion": version}, "items": list});
        (json_answer(200, &body), false)
    }
}

/// An object without `apiVersion` and `kind`.
struct Untyped<'a>(&'a Value);

impl serde::Serialize for Untyped<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.as_object().into_iter().flatten();
        serializer.collect_map(fields.filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind")))
    }
}

fn delete_options(asked: &Asked, body: &[u8]) -> Result<DeleteOptions, Box<Status>> {
    let body = if body.is_empty() { Value::Null } else { parse(body, &asked.content_type)? };
    let query = |key: &str| asked.query.get(key).cloned();
    let of_body = |pointer: &str| Some(text(&body, pointer).to_owned()).filter(|s| !s.is_empty());
    let grace = json::int(&body, "/gracePeriodSeconds").or_else(|| query("gracePeriodSeconds")?.parse().ok());
    Ok(DeleteOptions {
        uid: of_body("/preconditions/uid"),
        resource_version: of_body("/preconditions/resourceVersion"),
        grace,
        propagation: of_body("/propagationPolicy").or_else(|| query("propagationPolicy")),
    })
}

/// The body as JSON; YAML where the content type says so.
fn parse(body: &[u8], content_type: &str) -> Result<Value, Box<Status>> {
    let wrong = |e: &dyn std::fmt::Display| status::bad_request(format!("the object provided is unrecognized: {e}"));
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(e) if content_type.contains("yaml") => {
            let text = std::str::from_utf8(body).map_err(|_| wrong(&e))?;
            crate::yaml::from_str(text).map_err(|e| wrong(&e))
        }
        Err(e) => Err(wrong(&e)),
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
