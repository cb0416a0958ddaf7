//! From a request to an answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use k8s_openapi::ByteString;
use kube::{Api, Client};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::time::Instant;

use super::{
    APPROVER_PATH, CONVERT_PATH, Limits, OVERRIDER_PATH, VALIDATE_PATH, VALIDATE_ROUTING_PATH, approver,
    authority::Authority,
    declared,
    review::{
        AdmissionAnswer, AdmissionRequest, AdmissionResponse, AdmissionReview, ConversionAnswer, ConversionRequest,
        ConversionResponse, ConversionReview, Refusal,
    },
    room::{Question, Room, unreadable, weighed},
    surroundings,
    validate::{self, Rules},
};
use crate::{
    api::{GROUP, convert, v1beta1::Rollout},
    telemetry::Metrics,
    workload::hold::{PROBE, Rule, rules as workload_rules},
};

/// The API server gives up after ten seconds.
const LIST_LIMIT: Duration = Duration::from_secs(5);
/// After the API server has asked to be asked later.
const LIST_AGAIN: Duration = Duration::from_millis(250);

struct Shared {
    client: Option<Client>,
    authority: Option<Authority>,
    rules: Rules,
    metrics: Metrics,
    room: Room,
    /// Largest body of a conversion.
    list: usize,
}

/// The webhooks. Without a client neither other Rollouts nor anybody's rights are looked at.
pub fn router(client: Option<Client>, rules: Rules, limits: Limits, metrics: Metrics) -> Router {
    let room = Room::new(limits);
    let authority = client.clone().filter(|_| rules.check_authority).map(Authority::new);
    let shared = Arc::new(Shared { client, authority, rules, metrics, room, list: limits.list });
    let mut router =
        Router::new()
            .route(
                VALIDATE_PATH,
                post(|State(shared): State<Arc<Shared>>, request| async move {
                    shared.admission(request, Asked::Rollout).await
                }),
            )
            .route(
                VALIDATE_ROUTING_PATH,
                post(|State(shared): State<Arc<Shared>>, request| async move {
                    shared.admission(request, Asked::Routing).await
                }),
            )
            .route(
                APPROVER_PATH,
                post(|State(shared): State<Arc<Shared>>, request| async move {
                    shared.admission(request, Asked::Word).await
                }),
            )
            .route(
                OVERRIDER_PATH,
                post(|State(shared): State<Arc<Shared>>, request| async move {
                    shared.admission(request, Asked::Override).await
                }),
            )
            .route(
                CONVERT_PATH,
                post(|State(shared): State<Arc<Shared>>, request| async move { shared.conversion(request).await }),
            );
    for held in workload_rules() {
        router = router.route(
            held.path,
            post(move |State(shared): State<Arc<Shared>>, request| async move {
                shared.admission(request, Asked::Hold(held)).await
            }),
        );
    }
    router.with_state(shared)
}

/// What a review is about.
#[derive(Clone, Copy)]
enum Asked {
    /// A workload that a rule may hold.
    Hold(&'static Rule),
    Rollout,
    Routing,
    /// Who approves a step, or jumps.
    Word,
    /// Who passes over change windows.
    Override,
}

/// Most memory that one object and its former state may take: of those that can be stored, even the largest take less.
const HEAVIEST: usize = 40 << 20;

/// A request that cannot be answered by a review.
pub(super) type Refused = (StatusCode, String);

pub(super) fn refused<T>(status: StatusCode, message: impl Into<String>) -> Result<T, Refused> {
    Err((status, message.into()))
}

impl Shared {
    /// The body as JSON, within all limits.
    async fn read<T: DeserializeOwned>(&self, request: Request<Body>) -> Result<Question<'_, T>, Refused> {
        let (length, body) = announced(request)?;
        self.room.read(length, body, HEAVIEST).await
    }

    /// Holds a workload, or validates a Rollout or TrafficRouting.
    async fn admission(&self, request: Request<Body>, asked: Asked) -> Response {
        let name = match asked {
            Asked::Hold(_) => "hold",
            Asked::Word | Asked::Override => "approver",
            Asked::Rollout | Asked::Routing => "validate",
        };
        self.timed(name, async {
            let question = self.read::<AdmissionReview>(request).await?;
            let AdmissionReview { api_version, request } = question.asked;
            if !["admission.k8s.io/v1", "admission.k8s.io/v1beta1"].contains(&api_version.as_str()) {
                return refused(
                    StatusCode::BAD_REQUEST,
                    format!("apiVersion {api_version:?}: send admission.k8s.io/v1"),
                );
            }
            let uid = request.uid.clone();
            let response = match asked {
                Asked::Hold(held) => hold(held, &request),
                Asked::Rollout => self.validate(request).await?,
                Asked::Word => patched(request.object.as_ref(), approver::note(&request)),
                Asked::Override => patched(request.object.as_ref(), approver::note_override(&request)),
                Asked::Routing => self.permit(&request, AdmissionResponse::default()).await,
            };
            let response = AdmissionResponse { uid, ..response };
            Ok((response.allowed, AdmissionAnswer { api_version, kind: "AdmissionReview", response }))
        })
        .await
    }

    async fn timed<T: Serialize>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(bool, T), Refused>>,
    ) -> Response {
        let begin = Instant::now();
        let answer = work.await;
        let result = match &answer {
            Ok((true, _)) => "allowed",
            Ok((false, _)) => "denied",
            Err(_) => "error",
        };
        self.metrics.webhook_called(name, result, begin.elapsed());
        match answer.map(|(_, answer)| serde_json::to_vec(&answer)) {
            Ok(Ok(body)) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            Err((status, message)) => {
                tracing::debug!(webhook = name, %status, message, "a review was not answered");
                (status, message + "\n").into_response()
            }
        }
    }

    /// The response as it is, unless its author may not change what the object makes us change.
    async fn permit(&self, request: &AdmissionRequest, response: AdmissionResponse) -> AdmissionResponse {
        let status = match &self.authority {
            Some(authority) if !is_free(request) => authority.refuses(request).await,
            _ => None,
        };
        AdmissionResponse { allowed: status.is_none(), status, ..response }
    }

    async fn validate(&self, request: AdmissionRequest) -> Result<AdmissionResponse, Refused> {
        if is_free(&request) {
            return Ok(AdmissionResponse { allowed: true, ..AdmissionResponse::default() });
        }
        let Some(new) = &request.object else { return refused(StatusCode::BAD_REQUEST, "the review has no object") };
        let old = request.old_object.as_ref();
        let others = match validate::asks_for_others(new, old) {
            true => self.rollouts(&request.namespace).await?,
            false => Vec::new(),
        };
        let mut verdict = validate::judge(new, old, &others, &self.rules);
        if let (true, true, Some(client)) = (
            verdict.errors.is_empty() && self.rules.filter_workload_type,
            validate::asks_for_others(new, old),
            &self.client,
        ) {
            let word = declared::look(client, &request.namespace, new).await;
            verdict.errors.extend(word.wrong);
            verdict.warnings.extend(word.warning);
        }
        let status = (!verdict.errors.is_empty()).then(|| {
            let name = if request.name.is_empty() { "(generated)" } else { &request.name };
            let errors: Vec<String> = verdict.errors.iter().map(ToString::to_string).collect();
            let message = format!("Rollout {}/{name}: {}", request.namespace, errors.join("; "));
            Refusal { code: 422, reason: "Invalid", message }
        });
        let response = AdmissionResponse { status, warnings: verdict.warnings, ..AdmissionResponse::default() };
        if response.status.is_some() {
            return Ok(response);
        }
        let mut response = self.permit(&request, response).await;
        if let (true, false, Some(client)) = (response.allowed, validate::is_settled(new, old), &self.client) {
            let around = surroundings::read(client, &request.namespace, new).await;
            response.warnings.extend(surroundings::warnings(new, &around));
        }
        Ok(response)
    }

    async fn rollouts(&self, namespace: &str) -> Result<Vec<Value>, Refused> {
        let Some(client) = &self.client else { return Ok(Vec::new()) };
        let api = Api::<Rollout>::namespaced(client.clone(), namespace);
        let params = Default::default();
        let wrong = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("other Rollouts cannot be listed: {why}"));
        let list = async {
            loop {
                match api.list(&params).await {
                    // Too busy, or it has just learnt of a change of the definition.
                    Err(kube::Error::Api(status)) if status.code == 429 => tokio::time::sleep(LIST_AGAIN).await,
                    answer => return answer,
                }
            }
        };
        match tokio::time::timeout(LIST_LIMIT, list).await {
            Ok(Ok(list)) => Ok(list.items.iter().filter_map(|r| serde_json::to_value(r).ok()).collect()),
            Ok(Err(error)) => Err(wrong(error.to_string())),
            Err(_) => Err(wrong("no answer in time".to_owned())),
        }
    }

    async fn conversion(&self, request: Request<Body>) -> Response {
        self.timed("convert", async {
            let (length, body) = announced(request)?;
            let body = self.room.body(length, body, self.list).await?;
            let review: ConversionReview<'_> =
                serde_json::from_slice(&body.asked).or_else(|error| unreadable(&error))?;
            let weights = review.request.objects.iter().map(|object| weighed(object.get().as_bytes(), HEAVIEST));
            let heaviest = weights.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or_default();
            // The answer is about as long as the question, and one object at a time is parsed.
            let _room = self.room.parsed(length + heaviest).await?;
            Ok(converted(review).await)
        })
        .await
    }
}

/// The body, and the length that it is said to have.
fn announced(request: Request<Body>) -> Result<(usize, Body), Refused> {
    let (parts, body) = request.into_parts();
    let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let kind = header(header::CONTENT_TYPE).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != "application/json" {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("content type {kind:?}: send application/json"));
    }
    match header(header::CONTENT_LENGTH).and_then(|l| l.parse::<usize>().ok()) {
        Some(length) => Ok((length, body)),
        None => refused(StatusCode::LENGTH_REQUIRED, "say the length of the body in Content-Length"),
    }
}

async fn converted(ConversionReview { api_version, request }: ConversionReview<'_>) -> (bool, ConversionAnswer) {
    let answer = all_converted(&request).await;
    let is_done = answer.is_ok();
    let (converted_objects, result) = match answer {
        Ok(objects) => (objects, json!({"status": "Success"})),
        Err(why) => (Vec::new(), failed(&why)),
    };
    let response = ConversionResponse { uid: request.uid, converted_objects, result };
    (is_done, ConversionAnswer { api_version, kind: "ConversionReview", response })
}

async fn all_converted(request: &ConversionRequest<'_>) -> Result<Vec<Box<RawValue>>, String> {
    let wanted = request.desired_api_version.as_str();
    let convert: fn(&Value) -> Value = match wanted.strip_prefix(GROUP).and_then(|w| w.strip_prefix('/')) {
        Some("v1beta1") => convert::to_v1beta1,
        Some("v1alpha1") => convert::to_v1alpha1,
        _ => return Err(format!("there is no {wanted}: ask for {GROUP}/v1beta1 or {GROUP}/v1alpha1")),
    };
    let mut converted = Vec::new();
    for object in &request.objects {
        let object: Value = serde_json::from_str(object.get()).map_err(|error| error.to_string())?;
        if object.get("kind").is_none_or(|kind| kind != "Rollout") {
            let kind = object.get("kind").unwrap_or(&Value::Null);
            return Err(format!("kind {kind} cannot be converted: only Rollout has two versions"));
        }
        converted.push(to_raw_value(&convert(&object)).map_err(|error| error.to_string())?);
        // Others are answered between two of a long list.
        tokio::task::yield_now().await;
    }
    Ok(converted)
}

fn failed(message: &str) -> Value {
    json!({"status": "Failure", "message": message})
}

/// Status, scale and deletion are nobody's to judge here.
fn is_free(request: &AdmissionRequest) -> bool {
    request.sub_resource.as_deref().is_some_and(|s| !s.is_empty()) || request.operation == "DELETE"
}

/// The hold refuses nothing, also not what it cannot read.
fn hold(held: &Rule, request: &AdmissionRequest) -> AdmissionResponse {
    let is_object = request.sub_resource.as_deref().is_none_or(str::is_empty);
    // The controller tries whether the API server's policies act.
    let is_trial = request.dry_run == Some(true) && request.name == PROBE;
    let stored = match (is_object && !is_trial, request.operation.as_str(), &request.old_object, &request.object) {
        (true, "UPDATE", Some(old), Some(new)) => held.hold(old, new),
        _ => None,
    };
    patched(request.object.as_ref(), stored)
}

/// Lets a write through, as `stored` where something is to be changed.
fn patched(new: Option<&Value>, stored: Option<Value>) -> AdmissionResponse {
    let mut response = AdmissionResponse { allowed: true, ..AdmissionResponse::default() };
    if let Some((new, stored)) = new.zip(stored)
        && let Ok(patch) = serde_json::to_vec(&json_patch::diff(new, &stored))
    {
        response.patch = Some(ByteString(patch));
        response.patch_type = Some("JSONPatch");
    }
    response
}
