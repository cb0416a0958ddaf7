//! The extra Deployment of canary style: Tidegate's own comes up beside the original's, and takes its place.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Adoption, Deed, Refused, Step, patch, reference};
use crate::{
    api::{
        keys,
        object::{self, ObjectRef, digest, int},
    },
    rollout::release::owner_reference,
    traffic::services,
    workload::{
        Surroundings,
        canary::{canary_deployment, canary_label, canary_name, canary_template},
        deployment,
    },
};

/// Where Tidegate's own extra Deployment stands.
pub(super) enum Canary {
    /// Nothing was brought up yet.
    Gone,
    Coming(Vec<Step>),
    Ready {
        hash: String,
        switch: Option<Step>,
    },
}

impl Adoption<'_> {
    /// The original's extra Deployments, which have served their time.
    pub(super) fn old_canaries(&self) -> Vec<Step> {
        let own = canary_name(self.workload.name());
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
    pub(super) fn canary(&self) -> Result<Canary, Refused> {
        let own = canary_name(self.workload.name());
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
