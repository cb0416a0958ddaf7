//! The plain view of a workload, and what stands around it.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::Kind;
use crate::api::{
    keys::{self, InProgressing},
    object::{self, at},
};

/// A version of the template that the server knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// The value of its pods' revision label.
    pub hash: String,
    /// Grows with each version.
    pub number: i64,
    /// Pods that it should have.
    pub replicas: i32,
    /// Pods that it has.
    pub existing: i32,
    /// Of those, ready ones.
    pub ready: i32,
    /// It is made from the present template.
    pub is_present: bool,
    /// Which pods are its.
    pub pods: PodNames,
}

/// Names of pods.
#[derive(Clone, Debug, PartialEq)]
pub enum PodNames {
    /// Those that begin so and end in a suffix without a dash.
    Prefixed(String),
    /// These.
    Listed(BTreeSet<String>),
}

impl PodNames {
    /// Whether a pod is one of them.
    pub fn contains(&self, pod: &str) -> bool {
        match self {
            // `web-abc-` must not take the pods of `web-abc-def`.
            PodNames::Prefixed(prefix) => pod.strip_prefix(prefix.as_str()).is_some_and(|rest| !rest.contains('-')),
            PodNames::Listed(names) => names.contains(pod),
        }
    }
}

/// A workload as the state machine sees it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The object as it was read.
    pub object: Arc<Value>,
    /// Its kind.
    pub kind: &'static Kind,
    /// Pods wanted.
    pub replicas: i32,
    /// Versions that the server knows, oldest first.
    pub revisions: Vec<Revision>,
    /// Names the present template; another template has another name.
    pub template_name: String,
    /// Pods that exist.
    pub existing: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that have been ready for long enough.
    pub available: i32,
    /// Pods of the present template.
    pub updated: i32,
    /// Pods that may be missing at any time, by its own strategy.
    pub max_unavailable: i32,
    /// What its own controller says of trouble.
    pub trouble: Option<String>,
}

impl Workload {
    /// The object as it was read.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// Its name.
    pub fn name(&self) -> &str {
        object::name(&self.object)
    }

    /// Its kind, by name.
    pub fn kind_name(&self) -> &str {
        match object::text(&self.object, &["kind"]) {
            "" => self.kind.kind,
            kind => kind,
        }
    }

    /// `Kind name`, for people.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind_name(), self.name())
    }

    /// The API server holds it.
    pub fn is_switched_on(&self) -> bool {
        object::label(&self.object, self.kind.switch()).is_some()
    }

    /// The mark of a captured release; an unreadable one counts as one without details.
    pub fn mark(&self) -> Option<InProgressing> {
        object::annotation(&self.object, keys::IN_PROGRESSING)
            .map(|text| serde_json::from_str(text).unwrap_or_default())
    }

    /// The user's id of the release: the label, else the annotation of the same name.
    pub fn rollout_id(&self) -> Option<&str> {
        let annotation = object::annotation(&self.object, keys::ROLLOUT_ID);
        object::label(&self.object, keys::ROLLOUT_ID).into_iter().chain(annotation).find(|id| !id.is_empty())
    }

    /// The pod template.
    pub fn template(&self) -> Value {
        at(&self.object, &["spec", "template"]).map(object::without_nulls).unwrap_or(Value::Null)
    }

    /// The version of the present template, once the server knows it.
    pub fn current(&self) -> Option<&Revision> {
        self.revisions.iter().rev().find(|r| r.is_present)
    }

    /// The oldest version that has pods: what runs while a newer template is held.
    pub fn oldest_active(&self) -> Option<&Revision> {
        self.revisions.iter().find(|r| r.replicas > 0)
    }

    /// A version by its hash.
    pub fn revision(&self, hash: &str) -> Option<&Revision> {
        self.revisions.iter().find(|r| r.hash == hash)
    }

    /// Whether the present template is the one of a version.
    pub fn is_at(&self, hash: &str) -> bool {
        self.revisions.iter().any(|r| r.hash == hash && r.is_present)
    }

    /// Whether a version has pods.
    pub fn runs(&self, hash: &str) -> bool {
        self.revision(hash).is_some_and(|r| r.replicas > 0)
    }

    /// Its own controller has finished: every pod is of the present template and as many as its strategy demands are
    /// available.
    pub fn is_rolled_out(&self) -> bool {
        object::is_observed(&self.object)
            && self.updated >= self.replicas
            && self.existing <= self.updated
            && self.has_enough()
    }

    /// As many pods are available as its strategy promises, and one at least.
    pub fn has_enough(&self) -> bool {
        self.available + self.max_unavailable >= self.replicas && (self.replicas == 0 || self.available > 0)
    }

    /// The operation that puts a mark on it.
    pub fn set_mark(&self, mark: &InProgressing) -> Value {
        let value = serde_json::to_string(mark).unwrap_or_default();
        if at(&self.object, &["metadata", "annotations"]).is_some() {
            let path = format!("/metadata/annotations/{}", object::pointer_key(keys::IN_PROGRESSING));
            json!({"op": "add", "path": path, "value": value})
        } else {
            json!({"op": "add", "path": "/metadata/annotations", "value": {keys::IN_PROGRESSING: value}})
        }
    }

    /// The operation that takes the mark off, if there is one.
    pub fn drop_mark(&self) -> Option<Value> {
        self.mark()?;
        let path = format!("/metadata/annotations/{}", object::pointer_key(keys::IN_PROGRESSING));
        Some(json!({"op": "remove", "path": path}))
    }
}

/// What stands around a workload and says more of it than it does itself.
#[derive(Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// Objects of [`Kind::revisions`] in its namespace; those that it controls count.
    pub revisions: &'a [Arc<Value>],
    /// Its pods, while it is under release.
    pub pods: &'a [Arc<Value>],
    /// Where [`Kind::reads_nodes`], the nodes of these pods; those that may not be read are not among them.
    pub nodes: &'a [Arc<Value>],
}

impl<'a> Surroundings<'a> {
    /// Pods that a workload controls and that are not going.
    pub fn pods_of(&self, workload: &Value) -> impl Iterator<Item = &'a Arc<Value>> + use<'a> {
        let uid = object::uid(workload).to_owned();
        let is_its = move |pod: &&Arc<Value>| object::controller_uid(pod) == Some(&uid) && !object::is_deleting(pod);
        self.pods.iter().filter(is_its)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_apart_by_prefix() {
        let names = PodNames::Prefixed("web-abc-".to_owned());
        assert!(names.contains("web-abc-x1y2z") && !names.contains("web-abc-def-x1y2z") && !names.contains("web-x"));
    }
}
