//! ReplicaSets by revision: finding, making, numbering and forgetting them.

use super::*;

impl View<'_> {
    /// Finds or makes the ReplicaSet of the current template and numbers it.
    pub(super) fn sync_revisions(&mut self, create: bool) {
        let next = self.old.iter().map(|s| revision(s)).max().unwrap_or(0) + 1;
        match self.new.clone() {
            Some(set) => {
                let mut wanted = Value::clone(&set);
                self.annotate(&mut wanted, revision(&set).max(next), &set);
                json::restore(&mut wanted, &self.deployment, &["spec", "minReadySeconds"]);
                let updated = self.access.update(REPLICA_SETS, &self.key.namespace, json::name(&set), |s| *s = wanted);
                let number = updated.as_deref().map_or(next, revision);
                self.new = updated;
                self.number(number);
                let name = self.new.as_deref().map(json::name).unwrap_or_default().to_owned();
                if has_deadline(&self.deployment) && condition(&self.deployment, "Progressing").is_none() {
                    self.progressing("FoundNewReplicaSet", format!("Found new replica set \"{name}\""));
                }
            }
            None if create => self.make_set(next),
            None => {}
        }
    }

    pub(super) fn make_set(&mut self, number: i64) {
        let template = plain_template(&self.deployment);
        let collisions = int(&self.deployment, "/status/collisionCount").unwrap_or(0);
        let id = encode(hash(format!("{template}{collisions}").as_bytes()), 10);
        let mut template = template;
        json::set(&mut template, &["metadata", "labels", HASH], id.clone());
        let mut selector = self.deployment.pointer("/spec/selector").cloned().unwrap_or_default();
        json::set(&mut selector, &["matchLabels", HASH], id.clone());
        let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
        let mut set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": format!("{}-{id}", self.key.name), "namespace": self.key.namespace, "labels": labels,
                "ownerReferences": [owner_reference(&self.deployment)]},
            "spec": {"replicas": 0, "selector": selector, "template": template}});
        json::restore(&mut set, &self.deployment, &["spec", "minReadySeconds"]);
        json::set(&mut set, &["spec", "replicas"], self.new_replicas(0));
        let none = Value::Null;
        self.annotate(&mut set, number, &none);
        self.annotate_size(&mut set);
        let made = self.access.create(REPLICA_SETS, &self.key.namespace, set);
        match made {
            Some(made) => {
                let message = format!("Created new replica set \"{}\"", json::name(&made));
                self.new = Some(made);
                self.number(number);
                if has_deadline(&self.deployment) {
                    self.progressing("NewReplicaSetCreated", message);
                }
            }
            None => {
                // The name is taken by a set of another template: count the collision, so that the next hash differs.
                let updated = self.access.update_status(DEPLOYMENTS, &self.deployment, |d| {
                    json::set(d, &["status", "collisionCount"], collisions + 1);
                });
                if let Some(updated) = updated {
                    self.deployment = updated;
                }
            }
        }
    }

    pub(super) fn progressing(&mut self, reason: &str, message: String) {
        let now = self.access.timestamp();
        let updated = self.access.update_status(DEPLOYMENTS, &self.deployment, |d| {
            set_condition(d, "Progressing", "True", reason, &message, &now, true);
        });
        if let Some(updated) = updated {
            self.deployment = updated;
        }
    }

    pub(super) fn annotate(&self, set: &mut Value, number: i64, before: &Value) {
        for (key, value) in json::object_of(&self.deployment, "/metadata/annotations").into_iter().flatten() {
            if !NOT_COPIED.contains(&key.as_str()) {
                json::set(set, &["metadata", "annotations", key], value.clone());
            }
        }
        let old = annotation(before, REVISION);
        if old != number.to_string() {
            if !old.is_empty() {
                let history = annotation(before, "deployment.kubernetes.io/revision-history");
                let history = if history.is_empty() { old.to_owned() } else { format!("{history},{old}") };
                json::set(set, &["metadata", "annotations", "deployment.kubernetes.io/revision-history"], history);
            }
            json::set(set, &["metadata", "annotations", REVISION], number.to_string());
        }
    }

    pub(super) fn annotate_size(&self, set: &mut Value) {
        json::set(set, &["metadata", "annotations", DESIRED], self.replicas.to_string());
        json::set(set, &["metadata", "annotations", MAX], (self.replicas + self.surge).to_string());
    }

    pub(super) fn number(&mut self, number: i64) {
        let updated = self.access.update(DEPLOYMENTS, &self.key.namespace, &self.key.name, |d| {
            json::set(d, &["metadata", "annotations", REVISION], number.to_string());
        });
        if let Some(updated) = updated {
            self.deployment = updated;
        }
    }

    pub(super) fn clean_up(&self) {
        let Some(limit) = int(&self.deployment, "/spec/revisionHistoryLimit").filter(|l| *l != i64::from(i32::MAX))
        else {
            return;
        };
        let mut sets: Vec<&Arc<Value>> = self.old.iter().filter(|s| !deleting(s)).collect();
        let surplus = sets.len() as i64 - limit;
        if surplus <= 0 {
            return;
        }
        sets.sort_by_key(|s| revision(s));
        for set in sets.into_iter().take(surplus as usize) {
            let busy = spec_replicas(set) != 0
                || status_count(set, "replicas") != 0
                || generation(set) > status_count(set, "observedGeneration");
            if !busy {
                self.access.delete(REPLICA_SETS, &self.key.namespace, json::name(set), &DeleteOptions::default());
            }
        }
    }
}
