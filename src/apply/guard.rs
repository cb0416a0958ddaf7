//! Judges every write before it is sent, from the write alone and from what was read.
//!
//! A decision that is wrong is a mistake of ours; here it ends at a condition that names the object and the rule, and not
//! at somebody's traffic. Nothing here asks why something is written.

mod reach;

use std::{fmt, sync::Arc};

use serde_json::Value;

pub use reach::Reach;

use crate::{
    api::{
        GROUP, keys,
        object::{self, ObjectRef, at, text},
    },
    gather::Objects,
    rollout::Effect,
    traffic::{
        judge::{Breach, judge},
        routes::Change,
    },
    workload::{self, Surroundings},
};

/// Judges a write before it is sent: [`check`], unless a test looks the other way.
pub type Guard = Arc<dyn Fn(&Effect, &Reach, &dyn Objects) -> Result<(), Violation> + Send + Sync>;

/// The guard of every controller.
pub fn guard() -> Guard {
    Arc::new(check)
}

/// A rule that a write would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Only what the Rollout names, or what carries its owner reference.
    Named,
    /// Only our own fields of somebody else's object.
    Fields,
    /// Only of the version that was read, and never a whole object.
    Version,
    /// What we create carries our owner reference; what we delete carries it, or is a pod of the workload, and has the
    /// uid that was read.
    Owned,
    /// Shares of routes add up, and other rules stay.
    Traffic,
    /// Only what a script changed.
    Leaves,
    /// What is put back is what was there.
    Restore,
}

impl Rule {
    /// For metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Named => "nothing hijacked",
            Rule::Fields => "only our fields",
            Rule::Version => "only what was read",
            Rule::Owned => "only our own objects",
            Rule::Traffic => "traffic adds up",
            Rule::Leaves => "only our leaves",
            Rule::Restore => "restore is exact",
        }
    }
}

/// A write that is not made. Names the object and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: not written, it would break the rule {:?}: {what}; this is a bug of the controller", rule.as_str())]
pub struct Violation {
    /// The object.
    pub object: Box<ObjectRef>,
    /// The rule.
    pub rule: Rule,
    /// What is wrong.
    pub what: String,
}

/// Fields of a workload's `spec` by which it is held and opened.
const WORKLOAD_FIELDS: [&str; 5] =
    ["paused", "strategy", "updateStrategy", "minReadySeconds", "progressDeadlineSeconds"];

/// Kinds that we create and delete.
const OWN_KINDS: [(&str, &str); 5] = [
    ("apps", "Deployment"),
    ("", "Service"),
    ("networking.k8s.io", "Ingress"),
    ("batch", "Job"),
    (GROUP, "RolloutHistory"),
];

/// Judges one effect.
///
/// # Errors
/// The rule that it would break.
pub fn check(effect: &Effect, reach: &Reach, objects: &dyn Objects) -> Result<(), Violation> {
    match effect {
        Effect::Patch { target, resource_version, operations, .. } => {
            let case = Case { target, reach, live: objects.get(target).ok() };
            case.is_of_a_version(resource_version)?;
            case.patch(operations, objects)
        }
        Effect::Apply { object, .. } => {
            let target = ObjectRef::new(
                text(object, &["apiVersion"]),
                text(object, &["kind"]),
                object::namespace(object),
                object::name(object),
            );
            Case { target: &target, reach, live: objects.get(&target).ok() }.apply(object)
        }
        Effect::Delete { target, uid, .. } => {
            Case { target, reach, live: objects.get(target).ok() }.delete(uid, objects)
        }
        // What follows later (`tried`) is judged when it is written; until then its object may change.
        Effect::Routes { writes, .. } => writes.iter().try_for_each(|write| {
            let case = Case { target: &write.target, reach, live: objects.get(&write.target).ok() };
            match &write.change {
                Change::Patch { resource_version, operations } => {
                    case.is_of_a_version(resource_version)?;
                    case.routes(resource_version, operations, write.is_definition)
                }
                Change::Apply { object } => case.apply(object),
                Change::Delete { uid } => case.delete(uid, objects),
            }
        }),
    }
}

/// Judges the write of a status: without a version it could overwrite a person's word.
///
/// # Errors
/// The rule that it would break.
pub fn status(target: &ObjectRef, resource_version: &str) -> Result<(), Violation> {
    if resource_version.is_empty() {
        let what = "the status names no version, so it would overwrite a newer approval".to_owned();
        return Err(Violation { object: Box::new(target.clone()), rule: Rule::Version, what });
    }
    Ok(())
}

struct Case<'a> {
    target: &'a ObjectRef,
    reach: &'a Reach,
    /// The object as it was read last.
    live: Option<Arc<Value>>,
}

impl Case<'_> {
    fn breaks(&self, rule: Rule, what: impl fmt::Display) -> Violation {
        Violation { object: Box::new(self.target.clone()), rule, what: what.to_string() }
    }

    fn must(&self, is_so: bool, rule: Rule, what: impl fmt::Display) -> Result<(), Violation> {
        if is_so { Ok(()) } else { Err(self.breaks(rule, what)) }
    }

    fn is(&self, other: &ObjectRef) -> bool {
        let same = |a: &ObjectRef, b: &ObjectRef| {
            (a.group(), &a.kind, &a.namespace, &a.name) == (b.group(), &b.kind, &b.namespace, &b.name)
        };
        same(self.target, other)
    }

    fn is_kind(&self, group: &str, kind: &str) -> bool {
        (self.target.group(), self.target.kind.as_str()) == (group, kind)
    }

    fn is_of_a_version(&self, version: &str) -> Result<(), Violation> {
        self.must(!version.is_empty(), Rule::Version, "the write names no version, so it would overwrite any")
    }

    /// Whether the object that was read is controlled by our owner.
    fn is_ours(&self) -> bool {
        let uid = self.live.as_ref().and_then(|live| object::controller_uid(live));
        uid.is_some() && uid == Some(self.reach.uid.as_str())
    }

    fn patch(&self, operations: &[Value], objects: &dyn Objects) -> Result<(), Violation> {
        self.in_namespace()?;
        let finalizer = self.reach.finalizers.iter().find(|(object, _)| self.is(object));
        if let Some((_, own)) = finalizer {
            return self.finalizers(operations, own);
        }
        if self.is_ours() {
            let frees = |op: &Value| text(op, &["path"]).starts_with("/metadata/ownerReferences");
            let whole = |op: &Value| ["", "/", "/metadata", "/status"].contains(&text(op, &["path"]));
            return self.must(
                !operations.iter().any(|op| frees(op) || whole(op)),
                Rule::Fields,
                "the owner, or the whole object, would change",
            );
        }
        let workloads = [&self.reach.workload, &self.reach.former_workload];
        let is_workload = workloads.into_iter().flatten().any(|w| self.is(w));
        let is_service = self.is_kind("", "Service")
            && self.reach.workload.is_some()
            && self.target.name == self.reach.names.stable_service;
        let is_part = self.is_part_of_the_workload(objects);
        self.must(is_workload || is_service || is_part, Rule::Named, "the Rollout neither names nor owns it")?;
        for operation in operations {
            let path: Vec<&str> = text(operation, &["path"]).split('/').skip(1).collect();
            let is_our_field = match path.as_slice() {
                ["spec", "template"] if is_workload => self.is_of_its_revisions(operation.get("value"), objects),
                ["spec", field, ..] if is_workload => WORKLOAD_FIELDS.contains(field),
                ["spec", "minReadySeconds"] => is_part && self.is_kind("apps", "ReplicaSet"),
                ["spec", "selector", key] => is_service && keys::REVISION_LABELS.contains(key),
                ["metadata", "labels" | "annotations", key] => !is_service && is_our_key(&key.replace("~1", "/")),
                // Where there are none yet.
                ["metadata", map @ ("labels" | "annotations")] => {
                    let is_first = self.live.as_ref().is_none_or(|live| at(live, &["metadata", map]).is_none());
                    let entries = operation.get("value").and_then(Value::as_object);
                    !is_service && is_first && entries.is_some_and(|e| e.keys().all(|key| is_our_key(key)))
                }
                _ => false,
            };
            let path = text(operation, &["path"]);
            self.must(is_our_field, Rule::Fields, format_args!("{path} is not ours to change"))?;
        }
        Ok(())
    }

    /// A template that the workload had before: what a release is rolled back to.
    fn is_of_its_revisions(&self, template: Option<&Value>, objects: &dyn Objects) -> bool {
        let (Some(live), Some(kind)) = (&self.live, workload::kind(self.target.group(), &self.target.kind)) else {
            return false;
        };
        let (api_version, of_kind) = kind.revisions;
        let revisions =
            objects.tied(api_version, of_kind, &self.target.namespace, object::uid(live)).unwrap_or_default();
        let surroundings = Surroundings { revisions: &revisions, ..Surroundings::default() };
        let workload = (kind.read)(kind, live, &surroundings);
        // The workload counts those that have pods; one without any is a revision of it all the same.
        let known = workload.revisions.iter().map(|r| r.hash.as_str());
        let mut known = known.chain(revisions.iter().map(|r| object::name(r)));
        template.is_some() && known.any(|r| kind.gate.template_of(&workload, &surroundings, r).as_ref() == template)
    }

    /// ReplicaSets and pods of the workload; that a pod is one is known by its labels alone.
    fn is_part_of_the_workload(&self, objects: &dyn Objects) -> bool {
        if self.is_kind("", "Pod") {
            return true;
        }
        let owner = self.live.as_ref().and_then(|live| object::controller_uid(live));
        let is_owner = |w: &ObjectRef| objects.get(w).is_ok_and(|workload| owner == Some(object::uid(&workload)));
        let workloads = [&self.reach.workload, &self.reach.former_workload];
        self.is_kind("apps", "ReplicaSet") && owner.is_some() && workloads.into_iter().flatten().any(is_owner)
    }

    /// Only our own finalizer comes or goes.
    fn finalizers(&self, operations: &[Value], own: &[String]) -> Result<(), Violation> {
        let [operation] = operations else {
            return Err(self.breaks(Rule::Fields, "more than the finalizers would change"));
        };
        self.must(
            text(operation, &["path"]) == "/metadata/finalizers",
            Rule::Fields,
            format_args!("{} is not ours to change", text(operation, &["path"])),
        )?;
        let is_own = |f: &str| own.iter().any(|own| f == own || (own.ends_with('/') && f.starts_with(own)));
        let others = |list: Option<&Value>| -> Vec<String> {
            let list = list.and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).filter(|f| !is_own(f)).map(str::to_owned).collect()
        };
        let live = self.live.as_ref().and_then(|live| at(live, &["metadata", "finalizers"]));
        self.must(
            self.live.is_none() || others(live) == others(operation.get("value")),
            Rule::Fields,
            "finalizers of others would change",
        )
    }

    fn in_namespace(&self) -> Result<(), Violation> {
        let namespace = &self.reach.owner.namespace;
        self.must(self.target.namespace == *namespace, Rule::Named, format_args!("it is not in namespace {namespace}"))
    }

    fn apply(&self, object: &Value) -> Result<(), Violation> {
        self.in_namespace()?;
        self.must(
            OWN_KINDS.iter().any(|(group, kind)| self.is_kind(group, kind)),
            Rule::Owned,
            "objects of this kind are never created",
        )?;
        let uid = object::controller_uid(object);
        self.must(
            !self.reach.uid.is_empty() && uid == Some(self.reach.uid.as_str()),
            Rule::Owned,
            "it would not carry our owner reference",
        )?;
        self.must(self.live.is_none() || self.is_ours(), Rule::Named, "an object of this name exists and is not ours")?;
        let is_history = self.is_kind(GROUP, "RolloutHistory");
        self.must(
            is_history || object.get("status").is_none(),
            Rule::Fields,
            "a status is written by its own controller",
        )
    }

    fn delete(&self, uid: &str, objects: &dyn Objects) -> Result<(), Violation> {
        self.in_namespace()?;
        self.must(!uid.is_empty(), Rule::Owned, "the deletion names no uid, so it would hit any object of this name")?;
        let Some(live) = &self.live else { return Ok(()) };
        // Another object by now: the API server refuses.
        let is_other = object::uid(live) != uid;
        if self.is_kind("", "Pod") {
            let workload = self.reach.workload.as_ref().and_then(|w| objects.get(w).ok());
            let is_its = workload.is_some_and(|w| object::controller_uid(live) == Some(object::uid(&w)));
            return self.must(
                is_other || is_its,
                Rule::Owned,
                "the workload that the Rollout names does not control it",
            );
        }
        self.must(is_other || self.is_ours(), Rule::Owned, "it does not carry our owner reference")
    }

    fn routes(&self, version: &str, operations: &[Value], is_definition: bool) -> Result<(), Violation> {
        self.in_namespace()?;
        let is_named = self.reach.networks.iter().any(|network| self.is(network));
        self.must(is_named || self.is_ours(), Rule::Named, "no networkRef names it")?;
        let Some(live) = &self.live else { return Ok(()) };
        if object::resource_version(live) != version {
            // It changed meanwhile: the API server refuses.
            return Ok(());
        }
        judge(live, operations, &self.reach.names, is_definition).map_err(|breach| match breach {
            Breach::Traffic(what) => self.breaks(Rule::Traffic, what),
            Breach::Leaves(what) => self.breaks(Rule::Leaves, what),
            Breach::Restore(what) => self.breaks(Rule::Restore, what),
        })
    }
}

fn is_our_key(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| domain.ends_with("rollouts.kruise.io"))
}

#[cfg(test)]
mod tests;
