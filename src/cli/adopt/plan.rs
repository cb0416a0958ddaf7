//! What takes a release over that OpenKruise Rollouts has begun: from the objects as they are to the writes that are next.
//! Pure.
//!
//! No write makes or deletes a pod of a running version by itself, or moves a request: fields that keep the workload where
//! it is are replaced by those that Tidegate keeps it by, and the user's own values go into its mark. In canary style
//! Tidegate's own extra Deployment comes up first, beside the original's; only when it is ready the canary Service and the
//! rest follow. Asked again after a failure, it goes on.

mod canary;
mod fields;
mod routes;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Value, json};

use self::canary::Canary;
use crate::{
    api::{
        GROUP,
        conditions::{StepState, phases},
        keys::{self, InProgressing},
        object::{self, ObjectRef, at, int, text},
        v1beta1::Rollout,
    },
    rollout::release::{self, Release, Scope},
    workload::{Style, Surroundings, Workload},
};

/// Annotation of the original on a workload that it is releasing.
pub const CONTROL_INFO: &str = keys::CONTROL_INFO;
const STRATEGY: &str = "rollouts.kruise.io/deployment-strategy";
const BLUE_GREEN: &str = "rollouts.kruise.io/original-deployment-strategy";
/// What the original leaves on a workload, annotations and labels.
const LEFT: [(&str, &[&str]); 2] = [
    (
        "annotations",
        &[
            CONTROL_INFO,
            STRATEGY,
            BLUE_GREEN,
            "rollouts.kruise.io/deployment-extra-status",
            "rollouts.kruise.io/daemonset-revision",
            "rollouts.kruise.io/daemonset-advanced-control",
        ],
    ),
    (
        "labels",
        &["rollouts.kruise.io/stable-revision", "rollouts.kruise.io/controlled-by-advanced-deployment-controller"],
    ),
];
const BATCH_RELEASE: &str = "BatchRelease";
/// How the original switches an autoscaler off.
const DISABLED: &str = "-DisableByRollout";

/// The objects around one Rollout.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The Rollout as it is stored.
    pub rollout: Value,
    /// Its workload.
    pub workload: Option<Arc<Value>>,
    /// ReplicaSets or ControllerRevisions of the namespace.
    pub revisions: Vec<Arc<Value>>,
    /// Deployments that carry the label of a canary of this workload.
    pub canaries: Vec<Arc<Value>>,
    /// The canary Service.
    pub canary_service: Option<Value>,
    /// HorizontalPodAutoscalers of the namespace.
    pub autoscalers: Vec<Value>,
    /// HTTPRoutes that the Rollout names.
    pub routes: Vec<Value>,
    /// The Ingress that the original has made beside the one that the Rollout names.
    pub canary_ingress: Option<Value>,
    /// The BatchRelease of the Rollout's name.
    pub batch_release: Option<Value>,
}

/// One write, or a wait between writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Creates an object.
    Create(Value),
    /// A JSON patch of the version that was read.
    Patch {
        /// The object.
        target: ObjectRef,
        /// Its status.
        is_status: bool,
        /// Begin with a test of the version.
        operations: Vec<Value>,
    },
    /// Deletes an object; what it owns stays.
    Delete {
        /// The object.
        target: ObjectRef,
        /// Only this very one.
        uid: String,
    },
    /// Until this Deployment has so many ready pods.
    Await {
        /// The Deployment.
        target: ObjectRef,
        /// Pods.
        ready: i32,
    },
}

/// A deed and what it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub deed: Deed,
    /// For a person.
    pub why: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.deed {
            Deed::Create(object) => {
                write!(f, "create {} {}/{}", text(object, &["kind"]), object::namespace(object), object::name(object))?;
            }
            Deed::Patch { target, is_status, .. } => {
                write!(f, "change {}{target}", if *is_status { "the status of " } else { "" })?;
            }
            Deed::Delete { target, .. } => write!(f, "delete {target}")?,
            Deed::Await { target, ready } => write!(f, "wait until {target} has {ready} ready pods")?,
        }
        write!(f, ": {}", self.why)
    }
}

/// Why a release cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What is next for a Rollout; nothing when all is Tidegate's.
///
/// # Errors
/// The Rollout cannot be read, or is of a kind that has to be finished by the original.
pub fn plan(found: &Found) -> Result<Vec<Step>, Refused> {
    let mut whole = found.rollout.clone();
    if let Some(root) = whole.as_object_mut() {
        root.entry("spec").or_insert_with(|| json!({"strategy": {}}));
    }
    let rollout: Rollout = serde_json::from_value(whole).map_err(|e| Refused(format!("it cannot be read: {e}")))?;
    let scope =
        release::scope(&rollout).or_else(|_| release::bare_scope(&rollout)).map_err(|e| Refused(e.to_string()))?;
    let release = release::release(&rollout).ok();
    let mut steps = Vec::new();
    let status = found.rollout.get("status").unwrap_or(&Value::Null);
    if let Some(traffic) = scope.traffic.as_ref().filter(|_| is_releasing(status)) {
        steps = routes::routes(found, &traffic.names);
    }
    if let Some(object) = &found.workload {
        let around = Surroundings { revisions: &found.revisions, ..Surroundings::default() };
        let workload = (scope.kind.read)(scope.kind, object, &around);
        let adoption =
            Adoption { found, rollout: &rollout, scope: &scope, release: release.as_ref(), workload: &workload };
        steps.extend(adoption.steps()?);
        if matches!(steps.last(), Some(Step { deed: Deed::Await { .. }, .. })) {
            return Ok(steps);
        }
    }
    steps.extend(found.batch_release.iter().flat_map(batch_release));
    Ok(steps)
}

fn is_releasing(status: &Value) -> bool {
    [phases::PROGRESSING, phases::DISABLING, phases::TERMINATING].contains(&text(status, &["phase"]))
}

/// The finalizer goes first: nobody is left who would take it away.
fn batch_release(object: &Value) -> Vec<Step> {
    let target = reference(object);
    let mut steps = Vec::new();
    if !object::finalizers(object).is_empty() {
        let operations = vec![json!({"op": "remove", "path": "/metadata/finalizers"})];
        steps.push(patch(object, false, operations, "its controller is gone, so that nothing waits for it".to_owned()));
    }
    let uid = object::uid(object).to_owned();
    steps.push(Step {
        deed: Deed::Delete { target, uid },
        why: "Tidegate has none: the Rollout's status says it all".to_owned(),
    });
    steps
}

struct Adoption<'a> {
    found: &'a Found,
    rollout: &'a Rollout,
    scope: &'a Scope,
    release: Option<&'a Release>,
    workload: &'a Workload,
}

impl Adoption<'_> {
    fn steps(&self) -> Result<Vec<Step>, Refused> {
        let object = self.workload.object();
        let is_begun = object::annotation(object, CONTROL_INFO).is_some();
        if !is_begun {
            // What a release that has ended leaves behind.
            let operations = self.drop_left();
            let tidied = (!operations.is_empty())
                .then(|| patch(object, false, operations, "marks of a release that has ended".to_owned()));
            let mut steps: Vec<Step> = self.status(None)?.into_iter().chain(tidied).collect();
            steps.extend(self.autoscalers());
            return Ok(steps);
        }
        let is_deployment = self.scope.kind.group == "apps" && self.scope.kind.kind == "Deployment";
        let mut steps = Vec::new();
        let mut canary_hash = None;
        if is_deployment && self.scope.style == Style::Canary {
            match self.canary()? {
                Canary::Gone => {}
                Canary::Coming(coming) => return Ok(coming),
                Canary::Ready { hash, switch } => {
                    steps.extend(switch);
                    canary_hash = Some(hash);
                }
            }
        }
        steps.extend(self.status(canary_hash.as_deref())?);
        steps.extend(self.old_canaries());
        let (operations, why) = if is_deployment { self.deployment()? } else { self.by_field()? };
        steps.push(patch(object, false, operations, why));
        steps.extend(self.autoscalers());
        Ok(steps)
    }

    fn sub(&self) -> Option<(&'static str, &Value)> {
        ["canaryStatus", "blueGreenStatus"]
            .into_iter()
            .find_map(|field| Some((field, self.found.rollout.get("status")?.get(field).filter(|v| v.is_object())?)))
    }

    /// The status in Tidegate's words: names of versions, and the step that waits for an approval.
    fn status(&self, canary_hash: Option<&str>) -> Result<Option<Step>, Refused> {
        let status = self.found.rollout.get("status").unwrap_or(&Value::Null);
        let Some((field, sub)) = self.sub().filter(|_| is_releasing(status)) else {
            return Ok(None);
        };
        let Some(release) = self.release else { return Ok(None) };
        if text(sub, &["rolloutHash"]) == release.hash {
            return Ok(None);
        }
        let index = int(sub, &["currentStepIndex"]).unwrap_or(1);
        let state = text(sub, &["currentStepState"]);
        let revision = if field == "blueGreenStatus" { "updatedRevision" } else { "canaryRevision" };
        let mut fields = BTreeMap::from([
            ("rolloutHash", json!(release.hash)),
            (revision, json!(self.workload.template_name)),
            ("finalisingStep", json!("")),
        ]);
        let recorded = text(sub, &["stableRevision"]);
        let stable = self.workload.revision(recorded).or_else(|| {
            // Of OpenKruise's kinds the original keeps the end of the name alone.
            self.workload.revisions.iter().find(|r| !recorded.is_empty() && r.hash.ends_with(&format!("-{recorded}")))
        });
        match stable.or_else(|| self.workload.oldest_active()) {
            Some(stable) => fields.insert("stableRevision", json!(stable.hash)),
            None => {
                return Err(Refused(format!("no pods of the stable version of {} are known", self.workload.title())));
            }
        };
        let new = match self.scope.style {
            Style::Canary => canary_hash.map(str::to_owned),
            _ => self.workload.current().map(|r| r.hash.clone()),
        };
        if let Some(new) = new {
            fields.insert("podTemplateHash", json!(new));
        }
        if [StepState::StepPaused.as_str(), StepState::StepReady.as_str()].contains(&state) {
            fields.insert("pausedStepIndex", json!(index));
        }
        let operations = fields
            .into_iter()
            .map(|(key, value)| json!({"op": "add", "path": format!("/status/{field}/{key}"), "value": value}));
        let why = format!("step {index} of {} goes on from {state}", release.count());
        Ok(Some(patch(&self.found.rollout, true, operations.collect(), why)))
    }

    /// Annotations and labels of the original.
    fn drop_left(&self) -> Vec<Value> {
        let object = self.workload.object();
        let present = LEFT.iter().flat_map(|(map, keys)| keys.iter().map(move |key| (*map, *key)));
        present
            .filter(|(map, key)| at(object, &["metadata", map, key]).is_some())
            .map(|(map, key)| json!({"op": "remove", "path": format!("/metadata/{map}/{}", object::pointer_key(key))}))
            .collect()
    }

    fn mark(&self) -> InProgressing {
        let name = self.rollout.metadata.name.clone().unwrap_or_default();
        InProgressing { rollout_name: name, ..InProgressing::default() }
    }

    /// Those that the original has switched off for a blue-green release.
    fn autoscalers(&self) -> Vec<Step> {
        let disabled = format!("{}{DISABLED}", self.workload.name());
        let is_its = |scaler: &&Value| {
            text(scaler, &["spec", "scaleTargetRef", "name"]) == disabled
                && text(scaler, &["spec", "scaleTargetRef", "kind"]) == self.workload.kind_name()
        };
        let name = json!([{"op": "replace", "path": "/spec/scaleTargetRef/name", "value": self.workload.name()}]);
        let operations = || name.as_array().cloned().unwrap_or_default();
        let why = "it scales its workload again: Tidegate leaves autoscalers alone".to_owned();
        self.found.autoscalers.iter().filter(is_its).map(|s| patch(s, false, operations(), why.clone())).collect()
    }
}

fn reference(object: &Value) -> ObjectRef {
    ObjectRef::new(
        text(object, &["apiVersion"]),
        text(object, &["kind"]),
        object::namespace(object),
        object::name(object),
    )
}

fn patch(object: &Value, is_status: bool, operations: Vec<Value>, why: String) -> Step {
    let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": object::resource_version(object)});
    let operations = std::iter::once(version).chain(operations).collect();
    Step { deed: Deed::Patch { target: reference(object), is_status, operations }, why }
}

/// The reference of a Rollout's BatchRelease.
pub fn batch_release_of(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::new(&format!("{GROUP}/v1beta1"), BATCH_RELEASE, namespace, name)
}
