//! What takes a release over that OpenKruise Rollouts has begun: from the objects as they are to the writes that are next.
//! Pure.
//!
//! No write makes or deletes a pod of a running version by itself, or moves a request: fields that keep the workload where
//! it is are replaced by those that Tidegate keeps it by, and the user's own values go into its mark. In canary style
//! Tidegate's own extra Deployment comes up first, beside the original's; only when it is ready the canary Service and the
//! rest follow. Asked again after a failure, it goes on.

use std::{collections::BTreeMap, fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::{
    api::{
        GROUP,
        conditions::{StepState, phases},
        keys::{self, InProgressing, Opening, OriginalFields},
        object::{self, ObjectRef, at, digest, int, text},
        v1beta1::Rollout,
    },
    rollout::release::{self, Release, Scope, owner_reference},
    traffic::services,
    workload::{
        Style, Surroundings, Workload,
        canary::{canary_deployment, canary_label, canary_template},
        deployment,
        hold::{By, HELD_DEADLINE, HELD_READY},
    },
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
    if let Some(object) = &found.workload {
        let around = Surroundings { revisions: &found.revisions, ..Surroundings::default() };
        let workload = (scope.kind.read)(scope.kind, object, &around);
        let adoption =
            Adoption { found, rollout: &rollout, scope: &scope, release: release.as_ref(), workload: &workload };
        steps = adoption.steps()?;
        if matches!(steps.last(), Some(Step { deed: Deed::Await { .. }, .. })) {
            return Ok(steps);
        }
    }
    steps.extend(found.batch_release.iter().flat_map(batch_release));
    Ok(steps)
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
        if self.scope.style == Style::BlueGreen && !is_deployment {
            return Err(Refused(format!(
                "a blue-green release of a {} goes on only with OpenKruise Rollouts: finish it or roll it back there first",
                self.scope.kind.kind
            )));
        }
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
        let (operations, why) = if is_deployment { self.deployment()? } else { self.by_field() };
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
        let releasing = [phases::PROGRESSING, phases::DISABLING, phases::TERMINATING];
        let Some((field, sub)) = self.sub().filter(|_| releasing.contains(&text(status, &["phase"]))) else {
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

    /// Deployments are kept by `minReadySeconds` and their own bounds instead of `Recreate`, or as they are in blue-green
    /// and canary style.
    fn deployment(&self) -> Result<(Vec<Value>, String), Refused> {
        let object = self.workload.object();
        let parsed = |key: &str| -> Result<Option<Value>, Refused> {
            let Some(annotation) = object::annotation(object, key).filter(|a| !a.is_empty()) else { return Ok(None) };
            let wrong = |e| Refused(format!("annotation {key} of {} cannot be read: {e}", self.workload.title()));
            serde_json::from_str(annotation).map(Some).map_err(wrong)
        };
        let spec = |field: &str| at(object, &["spec", field]);
        let is_paused = spec("paused") == Some(&Value::Bool(true));
        let mut operations = self.drop_left();
        let mut set = |field: &str, value: Value| {
            operations.push(json!({"op": "add", "path": format!("/spec/{field}"), "value": value}));
        };
        let number = |of: &Value, key: &str| int(of, &[key]);
        if let Some(original) = parsed(BLUE_GREEN)? {
            let opening = Opening {
                max_surge: bound(object, "maxSurge"),
                max_unavailable: bound(object, "maxUnavailable"),
                partition: None,
            };
            let rolling =
                json!({"maxSurge": original.get("maxSurge"), "maxUnavailable": original.get("maxUnavailable")});
            let original = OriginalFields {
                strategy: json!({"type": "RollingUpdate", "rollingUpdate": object::without_nulls(&rolling)}),
                min_ready_seconds: number(&original, "minReadySeconds").filter(|s| *s > 0),
                progress_deadline_seconds: number(&original, "progressDeadlineSeconds"),
            };
            let (open, was) = if is_paused { (None, Some(opening)) } else { (Some(opening), None) };
            let mark = InProgressing { open, was, original: Some(original), ..self.mark() };
            operations.push(self.workload.set_mark(&mark));
            return Ok((
                operations,
                "it stays as far open as it is; its own values go into Tidegate's mark".to_owned(),
            ));
        }
        let Some(strategy) = parsed(STRATEGY)?.filter(|_| text(object, &["spec", "strategy", "type"]) == "Recreate")
        else {
            operations.push(self.workload.set_mark(&self.mark()));
            return Ok((operations, "it stays paused, by Tidegate's mark".to_owned()));
        };
        let rolling = strategy.get("rollingUpdate").filter(|r| r.is_object()).cloned();
        let rolling = rolling.unwrap_or_else(|| json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
        let original = OriginalFields {
            strategy: json!({"type": "RollingUpdate", "rollingUpdate": rolling}),
            min_ready_seconds: int(object, &["spec", "minReadySeconds"]),
            progress_deadline_seconds: int(object, &["spec", "progressDeadlineSeconds"]),
        };
        // A paused Deployment that rolls is brought to `replicas + maxSurge` pods in proportion: exactly those that it has.
        let total: i32 = self.workload.revisions.iter().map(|r| r.replicas).sum();
        let new = self.workload.current().map_or(0, |r| r.replicas);
        let opening = Opening {
            max_surge: Some(IntOrString::Int((total - self.workload.replicas).max(0))),
            max_unavailable: Some(IntOrString::Int(new.max(1))),
            partition: None,
        };
        set("strategy", json!({"type": "RollingUpdate", "rollingUpdate": opening}));
        set("minReadySeconds", json!(HELD_READY));
        set("progressDeadlineSeconds", json!(HELD_DEADLINE));
        set("paused", json!(true));
        let mark = InProgressing { was: Some(opening), original: Some(original), ..self.mark() };
        operations.push(self.workload.set_mark(&mark));
        Ok((operations, "it stays where it is, with its own strategy instead of Recreate".to_owned()))
    }

    /// Kinds that are held by one field keep its value.
    fn by_field(&self) -> (Vec<Value>, String) {
        let object = self.workload.object();
        let mut operations = self.drop_left();
        let rule = self
            .scope
            .kind
            .holds
            .iter()
            .find(|rule| text(object, &["apiVersion"]) == format!("{}/{}", rule.group, rule.version));
        let mut mark = self.mark();
        let mut remembers = None;
        if let Some(By::Field(field)) = rule.map(|rule| &rule.by) {
            let is_count = field.remembers == keys::ORIGINAL_PARTITION;
            if let Some(value) = field.value(object).filter(|_| is_count && !field.is_shut(object)) {
                let partition = serde_json::from_value(value.clone()).ok();
                mark.open = Some(Opening { partition, ..Opening::default() });
            }
            // The original remembers no partition, and takes it away at the end.
            if is_count && object::annotation(object, field.remembers).is_none() {
                remembers = Some(
                    json!({"op": "add", "path": format!("/metadata/annotations/{}", object::pointer_key(field.remembers)), "value": ""}),
                );
            }
        }
        operations.push(self.workload.set_mark(&mark));
        operations.extend(remembers);
        (operations, "it stays as far open as it is, by Tidegate's mark".to_owned())
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

    /// The original's extra Deployments, which have served their time.
    fn old_canaries(&self) -> Vec<Step> {
        let own = crate::workload::canary::canary_name(self.workload.name());
        let old = self.found.canaries.iter().filter(|canary| object::name(canary) != own);
        old.flat_map(|canary| {
            let mut steps = Vec::new();
            if !object::finalizers(canary).is_empty() {
                let operations = vec![json!({"op": "remove", "path": "/metadata/finalizers"})];
                steps.push(patch(canary, false, operations, "its controller is gone".to_owned()));
            }
            let deed = Deed::Delete { target: reference(canary), uid: object::uid(canary).to_owned() };
            steps.push(Step { deed, why: "Tidegate's own canary Deployment has taken its place".to_owned() });
            steps
        })
        .collect()
    }

    /// Tidegate's extra Deployment has a name and a selector of its own, so it comes up beside the original's.
    fn canary(&self) -> Result<Canary, Refused> {
        let own = crate::workload::canary::canary_name(self.workload.name());
        let (ours, theirs): (Vec<&Arc<Value>>, Vec<_>) =
            self.found.canaries.iter().partition(|c| object::name(c) == own);
        let wanted = theirs.iter().map(|c| int(c, &["spec", "replicas"]).unwrap_or(1)).max().unwrap_or(0);
        let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
        let Some(ours) = ours.first() else {
            if theirs.is_empty() || wanted == 0 {
                return Ok(Canary::Gone);
            }
            let patch = self.release.and_then(|r| r.patch.as_ref());
            let mut object = canary_deployment(self.workload, patch, owner_reference(self.rollout), wanted);
            let made_with = digest(&canary_template(self.workload, patch));
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("annotations".to_owned(), json!({keys::CANARY_TEMPLATE: made_with}));
            }
            let target = ObjectRef::new("apps/v1", "Deployment", object::namespace(&object), &own);
            let why = format!(
                "the pods of the new version under Tidegate's name, beside the original's {}",
                canary_label(self.workload.name())
            );
            let wait = Step {
                deed: Deed::Await { target, ready: wanted },
                why: "before anything is routed to it, or taken away".to_owned(),
            };
            return Ok(Canary::Coming(vec![Step { deed: Deed::Create(object), why }, wait]));
        };
        let around = Surroundings { revisions: &self.found.revisions, ..Surroundings::default() };
        let canary = deployment::read(ours, &around);
        let ready = canary.current().filter(|r| r.ready >= wanted);
        let Some(current) = ready else {
            let deed = Deed::Await { target: reference(ours), ready: wanted };
            return Ok(Canary::Coming(vec![Step {
                deed,
                why: "before anything is routed to it, or taken away".to_owned(),
            }]));
        };
        let label = self.scope.kind.revision_label;
        let service =
            self.found.canary_service.as_ref().filter(|s| services::pinned_to(s, label) != Some(current.hash.as_str()));
        let why = "requests of the canary go to Tidegate's canary pods, which are ready".to_owned();
        let switch = service.map(|s| patch(s, false, services::pin(s, label, &current.hash), why));
        Ok(Canary::Ready { hash: current.hash.clone(), switch })
    }
}

enum Canary {
    /// Nothing was brought up yet.
    Gone,
    Coming(Vec<Step>),
    Ready {
        hash: String,
        switch: Option<Step>,
    },
}

fn bound(object: &Value, field: &str) -> Option<IntOrString> {
    at(object, &["spec", "strategy", "rollingUpdate", field]).and_then(|v| serde_json::from_value(v.clone()).ok())
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
