//! What a workload itself is kept by: the original's fields are replaced by those that Tidegate keeps it by.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{Adoption, BLUE_GREEN, Refused, STRATEGY};
use crate::{
    api::{
        keys::{self, InProgressing, Opening, OriginalFields},
        object::{self, at, int, text},
    },
    workload::hold::{By, HELD_DEADLINE, HELD_READY, field::BOUNDS},
};

impl Adoption<'_> {
    /// Deployments are kept by `minReadySeconds` and their own bounds instead of `Recreate`, or as they are in blue-green
    /// and canary style.
    pub(super) fn deployment(&self) -> Result<(Vec<Value>, String), Refused> {
        let object = self.workload.object();
        let spec = |field: &str| at(object, &["spec", field]);
        let is_paused = spec("paused") == Some(&Value::Bool(true));
        let mut operations = self.drop_left();
        let mut set = |field: &str, value: Value| {
            operations.push(json!({"op": "add", "path": format!("/spec/{field}"), "value": value}));
        };
        if let Some(original) = self.parsed(BLUE_GREEN)? {
            let opening = Opening {
                max_surge: bound(object, "maxSurge"),
                max_unavailable: bound(object, "maxUnavailable"),
                partition: None,
            };
            let strategy = json!({"type": "RollingUpdate", "rollingUpdate": bounds(&original)});
            let original = originals(&original, strategy);
            let (open, was) = if is_paused { (None, Some(opening)) } else { (Some(opening), None) };
            let mark = InProgressing { open, was, original: Some(original), ..self.mark() };
            operations.push(self.workload.set_mark(&mark));
            return Ok((
                operations,
                "it stays as far open as it is; its own values go into Tidegate's mark".to_owned(),
            ));
        }
        let Some(strategy) =
            self.parsed(STRATEGY)?.filter(|_| text(object, &["spec", "strategy", "type"]) == "Recreate")
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

    /// An annotation of the original's.
    fn parsed(&self, key: &str) -> Result<Option<Value>, Refused> {
        let annotation = object::annotation(self.workload.object(), key).filter(|a| !a.is_empty());
        let wrong = |e| Refused(format!("annotation {key} of {} cannot be read: {e}", self.workload.title()));
        annotation.map(|text| serde_json::from_str(text).map_err(wrong)).transpose()
    }

    /// Kinds that are held by one field keep its value, and a CloneSet in blue-green style the bounds beside it.
    pub(super) fn by_field(&self) -> Result<(Vec<Value>, String), Refused> {
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
            if let Some(original) = self.parsed(BLUE_GREEN)?.filter(|_| field.keeps_both(object)) {
                let [max_surge, max_unavailable] = BOUNDS.map(|bound| {
                    field.value_beside(object, bound).and_then(|v| serde_json::from_value(v.clone()).ok())
                });
                let partition = field.value(object).and_then(|v| serde_json::from_value(v.clone()).ok());
                let opening = Opening { max_surge, max_unavailable, partition };
                mark.original = Some(originals(&original, bounds(&original)));
                // Shut, it has been opened by nobody yet.
                (mark.open, mark.was) =
                    if field.is_shut(object) { (None, Some(opening)) } else { (Some(opening), None) };
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
        Ok((operations, "it stays as far open as it is, by Tidegate's mark".to_owned()))
    }
}

/// The user's own fields, as the original has kept them for a blue-green release.
fn originals(kept: &Value, strategy: Value) -> OriginalFields {
    OriginalFields {
        strategy,
        min_ready_seconds: int(kept, &["minReadySeconds"]).filter(|s| *s > 0),
        progress_deadline_seconds: int(kept, &["progressDeadlineSeconds"]),
    }
}

/// What of these is kept.
fn bounds(kept: &Value) -> Value {
    BOUNDS
        .into_iter()
        .filter_map(|bound| Some((bound.to_owned(), kept.get(bound).filter(|v| !v.is_null())?.clone())))
        .collect()
}

fn bound(object: &Value, field: &str) -> Option<IntOrString> {
    at(object, &["spec", "strategy", "rollingUpdate", field]).and_then(|v| serde_json::from_value(v.clone()).ok())
}
