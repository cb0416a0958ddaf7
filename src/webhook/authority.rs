//! Who writes a Rollout may not reach further than himself: what it would make this process change, its author must be
//! allowed to patch. Asked of the API server by `SubjectAccessReview`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::try_join_all;
use k8s_openapi::api::{
    authentication::v1::{SelfSubjectReview, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{
    Api, Client,
    api::{ApiResource, GroupVersionKind},
    discovery,
};
use serde_json::Value;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};

use super::review::{AdmissionRequest, Refusal};
use crate::api::{GROUP, keys, object};

/// How long a granted right is taken for granted; a refusal is not kept, so that a new right counts at once.
const KEPT: Duration = Duration::from_secs(10);
/// Users and objects that are remembered at most.
const MOST_KEPT: usize = 4096;
/// The API server itself gives up after ten seconds.
const LIMIT: Duration = Duration::from_secs(4);

/// An object that a Rollout or TrafficRouting makes us change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// API version, such as `apps/v1`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name, in the namespace of the Rollout.
    pub name: String,
    /// Where it is named.
    pub field: String,
}

/// What a Rollout or TrafficRouting makes us change, in the order in which it is named.
pub fn targets(object: &Value) -> Vec<Target> {
    let mut targets = Targets(Vec::new());
    if object::text(object, &["kind"]) == "TrafficRouting" {
        targets.routings(object.pointer("/spec/objectRef"), "spec.objectRef");
        return targets.0;
    }
    for path in ["workloadRef", "objectRef.workloadRef"] {
        let pointer = format!("/spec/{}", path.replace('.', "/"));
        targets.reference(object.pointer(&pointer), &format!("spec.{path}"));
    }
    targets.metrics(object.pointer("/spec/strategy/analysis"), "spec.strategy.analysis");
    for style in ["canary", "blueGreen"] {
        let field = format!("spec.strategy.{style}.trafficRoutings");
        targets.routings(object.pointer(&format!("/spec/strategy/{style}/trafficRoutings")), &field);
        let steps = object.pointer(&format!("/spec/strategy/{style}/steps")).and_then(Value::as_array);
        for (i, step) in steps.into_iter().flatten().enumerate() {
            let gates = step.get("gates").and_then(Value::as_array).into_iter().flatten();
            targets.metrics(step.get("analysis"), &format!("spec.strategy.{style}.steps[{i}].analysis"));
            for (k, name) in
                gates.enumerate().map(|(k, gate)| (k, gate.pointer("/job/cronJob").and_then(Value::as_str)))
            {
                // Who may change it may run what he likes by it.
                let field = format!("spec.strategy.{style}.steps[{i}].gates[{k}].job.cronJob");
                targets.add("batch/v1", "CronJob", name, field);
            }
        }
        let shared = format!("/spec/strategy/{style}/trafficRoutingRef");
        let field = format!("spec.strategy.{style}.trafficRoutingRef");
        targets.shared(object.pointer(&shared).and_then(Value::as_str), &field);
    }
    let annotation = format!("metadata.annotations[{}]", keys::TRAFFIC_ROUTING);
    targets.shared(object::annotation(object, keys::TRAFFIC_ROUTING), &annotation);
    targets.0
}

struct Targets(Vec<Target>);

impl Targets {
    /// The CronJobs from which metrics make Jobs.
    fn metrics(&mut self, analysis: Option<&Value>, field: &str) {
        let metrics = analysis.and_then(|a| a.get("metrics")).and_then(Value::as_array).into_iter().flatten();
        for (i, metric) in metrics.enumerate().filter(|(_, metric)| metric.pointer("/provider/job").is_some()) {
            let name = metric.get("query").and_then(Value::as_str);
            self.add("batch/v1", "CronJob", name, format!("{field}.metrics[{i}].query"));
        }
    }

    fn add(&mut self, api_version: &str, kind: &str, name: Option<&str>, field: String) {
        if let Some(name) = name.filter(|n| !n.is_empty())
            && !self
                .0
                .iter()
                .any(|t| (t.api_version.as_str(), t.kind.as_str(), t.name.as_str()) == (api_version, kind, name))
        {
            let (api_version, kind, name) = (api_version.to_owned(), kind.to_owned(), name.to_owned());
            self.0.push(Target { api_version, kind, name, field });
        }
    }

    fn reference(&mut self, reference: Option<&Value>, field: &str) {
        let Some(reference) = reference else { return };
        let text = |key: &str| reference.get(key).and_then(Value::as_str);
        self.add(
            text("apiVersion").unwrap_or_default(),
            text("kind").unwrap_or_default(),
            text("name"),
            field.to_owned(),
        );
    }

    fn shared(&mut self, name: Option<&str>, field: &str) {
        self.add(&format!("{GROUP}/v1alpha1"), "TrafficRouting", name, field.to_owned());
    }

    fn routings(&mut self, routings: Option<&Value>, field: &str) {
        for (i, routing) in routings.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let text = |pointer: &str| routing.pointer(pointer).and_then(Value::as_str);
            let field = format!("{field}[{i}]");
            self.add("v1", "Service", text("/service"), format!("{field}.service"));
            self.add("networking.k8s.io/v1", "Ingress", text("/ingress/name"), format!("{field}.ingress.name"));
            let route = text("/gateway/httpRouteName");
            self.add("gateway.networking.k8s.io/v1", "HTTPRoute", route, format!("{field}.gateway.httpRouteName"));
            for list in ["customNetworkRefs", "networkRefs"] {
                let references = routing.get(list).and_then(Value::as_array).into_iter().flatten();
                references.enumerate().for_each(|(k, one)| self.reference(Some(one), &format!("{field}.{list}[{k}]")));
            }
        }
    }
}

/// Whether a write makes us do anything else than before. Metadata, status and deletion do not; nor does halting a
/// release, or letting it go on as it was.
pub fn is_asked(new: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return true };
    let style = |object| object::annotation(object, keys::ROLLING_STYLE).map(str::to_owned);
    let meant = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        if let Some(strategy) = spec.get_mut("strategy").and_then(Value::as_object_mut) {
            strategy.remove("paused");
        }
        spec
    };
    !object::is_deleting(new) && (targets(new) != targets(old) || meant(new) != meant(old) || style(new) != style(old))
}

/// Asks the API server, and remembers for a moment.
pub struct Authority {
    client: Client,
    /// The user that this process is.
    own: OnceCell<String>,
    granted: Mutex<HashMap<(String, String, Target), Instant>>,
    plurals: Mutex<BTreeMap<(String, String), String>>,
}

impl Authority {
    /// Asks with this client.
    pub fn new(client: Client) -> Self {
        Authority { client, own: OnceCell::new(), granted: Mutex::default(), plurals: Mutex::default() }
    }

    /// `None` when the author may change all that the object makes us change.
    pub async fn refuses(&self, request: &AdmissionRequest) -> Option<Refusal> {
        let new = request.object.as_ref()?;
        if !is_asked(new, request.old_object.as_ref()) {
            return None;
        }
        let name = if request.name.is_empty() { "(generated)" } else { &request.name };
        let kind = object::text(new, &["kind"]);
        let subject = format!("{kind} {}/{name}", request.namespace);
        let lacking = match timeout(LIMIT, self.lacking(request, &targets(new))).await {
            Ok(Ok(lacking)) => lacking,
            Ok(Err(error)) => return Some(unknown(&subject, &request.user_info, &error.to_string())),
            Err(_) => return Some(unknown(&subject, &request.user_info, "no answer in time")),
        };
        let first = lacking.first()?;
        let remedy = format!(
            "grant it (kubectl -n {} create role … --verb=patch --resource={}), or let somebody who has it write the {kind}",
            request.namespace, first.resource
        );
        let user = user_of(&request.user_info);
        let lacking: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        let message = format!("{subject}: user {user:?} may not {}: {remedy}", lacking.join("; nor "));
        Some(Refusal { code: 403, reason: "Forbidden", message })
    }

    async fn lacking(&self, request: &AdmissionRequest, targets: &[Target]) -> kube::Result<Vec<Lack>> {
        if self.is_own(&request.user_info).await {
            return Ok(Vec::new());
        }
        let asked = targets.iter().map(|target| self.may(&request.user_info, &request.namespace, target));
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// Our own writes change metadata and status; whatever else they were, they are decided elsewhere.
    async fn is_own(&self, user: &UserInfo) -> bool {
        let asks = async || {
            let api = Api::<SelfSubjectReview>::all(self.client.clone());
            let review = api.create(&Default::default(), &SelfSubjectReview::default()).await.ok();
            let name = review.and_then(|review| review.status?.user_info?.username);
            name.filter(|name| !name.is_empty()).ok_or(())
        };
        let own = self.own.get_or_try_init(asks).await;
        own.is_ok_and(|own| user.username.as_ref() == Some(own))
    }

    async fn may(&self, user: &UserInfo, namespace: &str, target: &Target) -> kube::Result<Option<Lack>> {
        let who = serde_json::to_string(user).unwrap_or_default();
        let key = (who, namespace.to_owned(), target.clone());
        let now = Instant::now();
        let is_kept = {
            let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
            granted.get(&key).is_some_and(|until| *until > now)
        };
        if is_kept {
            return Ok(None);
        }
        let group = object::group(&target.api_version).to_owned();
        let resource = self.plural(&target.api_version, &target.kind).await?;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some("patch".to_owned()),
                    group: Some(group.clone()),
                    resource: Some(resource.clone()),
                    name: Some(target.name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api = Api::<SubjectAccessReview>::all(self.client.clone());
        let status = api.create(&Default::default(), &review).await?.status.unwrap_or_default();
        if !status.allowed {
            let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
            let why = status.evaluation_error.or(status.reason).filter(|why| !why.is_empty());
            let target = target.clone();
            return Ok(Some(Lack { namespace: namespace.to_owned(), resource, target, why }));
        }
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        if granted.len() >= MOST_KEPT {
            granted.retain(|_, until| *until > now);
            if granted.len() >= MOST_KEPT {
                granted.clear();
            }
        }
        granted.insert(key, now + KEPT);
        Ok(None)
    }

    /// How the API server names a kind in roles. A kind that is not served is named as most are.
    async fn plural(&self, api_version: &str, kind: &str) -> kube::Result<String> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let guess = ApiResource::from_gvk(&gvk).plural;
        // Those of Kubernetes itself are as most are.
        if !group.contains('.') || group == "networking.k8s.io" || group == GROUP {
            return Ok(guess);
        }
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.plurals.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let found = match discovery::pinned_kind(&self.client, &gvk).await {
            Ok((resource, _)) => resource.plural,
            Err(kube::Error::Discovery(_)) => return Ok(guess),
            // Without a reason where not even the group is there, so `is_not_found` would not see it.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(guess),
            Err(error) => return Err(error),
        };
        self.plurals.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
        Ok(found)
    }
}

/// A right that the author has not.
struct Lack {
    namespace: String,
    /// With its group.
    resource: String,
    target: Target,
    why: Option<String>,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lack { namespace, resource, target, why } = self;
        write!(
            f,
            "patch {resource} {:?} in namespace {namespace:?}, which {} makes this controller do",
            target.name, target.field
        )?;
        why.as_ref().map_or(Ok(()), |why| write!(f, " ({why})"))
    }
}

fn user_of(user: &UserInfo) -> &str {
    user.username.as_deref().unwrap_or("(unknown)")
}

fn unknown(subject: &str, user: &UserInfo, why: &str) -> Refusal {
    let user = user_of(user);
    let message = format!(
        "{subject}: it is not known whether user {user:?} may change what it names ({why}): try again; if that stays so, give \
         the controller the right to create subjectaccessreviews.authorization.k8s.io, or switch the question off by \
         --check-authority=false (the chart's webhooks.checkAuthority)"
    );
    // Not 503: many clients would try again without a word.
    Refusal { code: 500, reason: "InternalError", message }
}

#[cfg(test)]
mod tests;
