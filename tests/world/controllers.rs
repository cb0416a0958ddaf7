//! What the Deployment, ReplicaSet and EndpointSlice controllers and the kubelets do, one small move a tick.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::api::{keys, object};

use super::{Key, World, key};

fn number(value: &Value, path: &[&str], default: i64) -> i64 {
    object::int(value, path).unwrap_or(default)
}

/// A template without what the ReplicaSet's maker added.
fn plain(template: &Value) -> Value {
    let mut template = object::without_nulls(template);
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(keys::POD_TEMPLATE_HASH);
    }
    template
}

impl World {
    /// One move of every controller. Says whether anything changed.
    pub fn tick(&mut self) -> bool {
        let before = self.objects.clone();
        for deployment in self.keys("Deployment") {
            self.tick_deployment(&deployment);
        }
        for service in self.keys("Service") {
            self.tick_service(&service);
        }
        self.objects != before
    }

    /// Every pod is unready for a moment, and no endpoint.
    pub fn flap(&mut self) {
        for rs in self.keys("ReplicaSet") {
            let replicas = number(&self.objects[&rs], &["spec", "replicas"], 0);
            self.set_status(&rs, json!({"replicas": replicas, "readyReplicas": 0}));
        }
        for service in self.keys("Service") {
            self.tick_service(&service);
        }
    }

    /// Lets the cluster come to rest.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            if !self.tick() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    fn keys(&self, kind: &str) -> Vec<Key> {
        self.of_kind(kind).map(|o| key(o)).collect()
    }

    pub fn replica_sets(&self, deployment: &Value) -> Vec<Arc<Value>> {
        let mut sets: Vec<_> = self
            .of_kind("ReplicaSet")
            .filter(|rs| object::controller_uid(rs) == Some(object::uid(deployment)))
            .cloned()
            .collect();
        sets.sort_by_key(|rs| revision(rs));
        sets
    }

    fn tick_deployment(&mut self, at: &Key) {
        let d = self.objects[at].clone();
        let wanted = number(&d, &["spec", "replicas"], 1);
        let template = plain(&d["spec"]["template"]);
        // Pods of the last tick become ready.
        for rs in self.replica_sets(&d) {
            let ready = number(&rs, &["spec", "replicas"], 0);
            if object::annotation(&rs, "test/never-ready").is_none() {
                self.set_status(&key(&rs), json!({"replicas": ready, "readyReplicas": ready}));
            }
        }
        let sets = self.replica_sets(&d);
        let current = sets.iter().rev().find(|rs| plain(&rs["spec"]["template"]) == template).cloned();
        let total: i64 = sets.iter().map(|rs| number(rs, &["spec", "replicas"], 0)).sum();
        let paused = object::at(&d, &["spec", "paused"]) == Some(&json!(true));
        match (&current, paused) {
            (_, true) => {
                // Scaling only: the largest set takes the difference.
                if total != wanted
                    && let Some(rs) = sets.iter().max_by_key(|rs| (number(rs, &["spec", "replicas"], 0), revision(rs)))
                {
                    let now = number(rs, &["spec", "replicas"], 0);
                    self.scale(rs, (now + wanted - total).max(0));
                }
            }
            (None, false) => self.make_replica_set(
                &d,
                &template,
                sets.last().map_or(0, |rs| revision(rs)) + 1,
                if sets.is_empty() { wanted } else { 0 },
            ),
            (Some(rs), false) => {
                let newest = sets.last().map_or(0, |rs| revision(rs));
                if revision(rs) < newest {
                    let mut new = (**rs).clone();
                    new["metadata"]["annotations"][keys::DEPLOYMENT_REVISION] = json!((newest + 1).to_string());
                    self.update(new);
                }
                self.roll(&d, object::name(rs), wanted, total);
            }
        }
        self.deployment_status(at, &template);
    }

    /// One pod at a time: a new one beside the old, an old one away when a new one is ready.
    fn roll(&mut self, d: &Value, current: &str, wanted: i64, total: i64) {
        let sets = self.replica_sets(d);
        let rs = sets.iter().find(|rs| object::name(rs) == current).unwrap();
        let now = number(rs, &["spec", "replicas"], 0);
        let available: i64 = sets.iter().map(|rs| number(rs, &["status", "readyReplicas"], 0)).sum();
        let old = sets.iter().find(|rs| object::name(rs) != current && number(rs, &["spec", "replicas"], 0) > 0);
        if now > wanted || (now < wanted && old.is_none()) {
            self.scale(rs, wanted);
        } else if now < wanted && total <= wanted {
            self.scale(rs, now + 1);
        } else if let Some(old) = old
            && (total > wanted && available > wanted || now >= wanted && available >= total)
        {
            self.scale(old, number(old, &["spec", "replicas"], 0) - 1);
        }
    }

    fn scale(&mut self, rs: &Value, replicas: i64) {
        let mut new = rs.clone();
        new["spec"]["replicas"] = json!(replicas);
        let ready = number(rs, &["status", "readyReplicas"], 0).min(replicas);
        self.update(new);
        self.set_status(&key(rs), json!({"replicas": replicas, "readyReplicas": ready}));
    }

    fn make_replica_set(&mut self, d: &Value, template: &Value, revision: i64, replicas: i64) {
        let hash = object::digest(template);
        let name = format!("{}-{hash}", object::name(d));
        let mut template = template.clone();
        template["metadata"]["labels"][keys::POD_TEMPLATE_HASH] = json!(hash);
        let labels = template["metadata"]["labels"].clone();
        self.create(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": object::namespace(d), "labels": labels,
                "annotations": {keys::DEPLOYMENT_REVISION: revision.to_string()},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": object::name(d), "uid": object::uid(d), "controller": true}],
            },
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
            "status": {"replicas": replicas, "readyReplicas": 0},
        }));
    }

    fn deployment_status(&mut self, at: &Key, template: &Value) {
        let d = self.objects[at].clone();
        let sets = self.replica_sets(&d);
        let sum = |path: [&str; 2]| sets.iter().map(|rs| number(rs, &path, 0)).sum::<i64>();
        let ready = sum(["status", "readyReplicas"]);
        let updated = sets
            .iter()
            .filter(|rs| plain(&rs["spec"]["template"]) == *template)
            .map(|rs| number(rs, &["spec", "replicas"], 0))
            .sum::<i64>();
        let status = json!({
            "observedGeneration": d["metadata"]["generation"], "replicas": sum(["spec", "replicas"]),
            "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
        });
        self.set_status(at, status);
    }

    fn tick_service(&mut self, at: &Key) {
        let service = self.objects[at].clone();
        let Some(selector) = object::at(&service, &["spec", "selector"]).and_then(Value::as_object) else { return };
        let mut endpoints = Vec::new();
        for rs in self.of_kind("ReplicaSet").filter(|rs| object::namespace(rs) == at.2) {
            if selector.iter().all(|(k, v)| rs["spec"]["template"]["metadata"]["labels"].get(k) == Some(v)) {
                let ready = number(rs, &["status", "readyReplicas"], 0);
                for i in 0..number(rs, &["spec", "replicas"], 0) {
                    let pod = format!("{}-{i:05}", object::name(rs));
                    endpoints.push(json!({"addresses": [], "conditions": {"ready": i < ready}, "targetRef": {"kind": "Pod", "name": pod}}));
                }
            }
        }
        let name = format!("{}-slice", object::name(&service));
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "endpoints": endpoints,
            "metadata": {
                "name": name, "namespace": at.2, "labels": {keys::SERVICE_NAME: object::name(&service)},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": object::name(&service), "uid": object::uid(&service), "controller": true}],
            },
        });
        let key = key(&slice);
        match self.objects.get(&key) {
            None => self.create(slice),
            Some(old) => {
                let mut new = (**old).clone();
                new["endpoints"] = slice["endpoints"].clone();
                self.update(new);
            }
        }
    }
}

fn revision(rs: &Value) -> i64 {
    object::annotation(rs, keys::DEPLOYMENT_REVISION).and_then(|n| n.parse().ok()).unwrap_or(0)
}
