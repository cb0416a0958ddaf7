//! The Deployment controller.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::json::{self, condition, controller_of, deleting, flag, int, text};
use super::super::objects::DeleteOptions;
use super::super::registry::{DEPLOYMENTS, PODS, REPLICA_SETS};
use super::super::rng::{encode, hash};
use super::super::selector::Labels;
use super::super::store::{Change, Key, Store};
use super::pods::{generation, int_or_percent, owner_reference, set_condition};
use super::{Access, Reconcile};

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";
/// Annotations of a Deployment that its ReplicaSets do not get.
const NOT_COPIED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    DESIRED,
    MAX,
];

pub(crate) struct Controller;

/// A Deployment concerns itself; a ReplicaSet its Deployment; a pod that is gone too, for `Recreate`.
pub(crate) fn route(store: &Store, change: &Change, keys: &mut Vec<Key>) {
    match change.key.kind {
        DEPLOYMENTS => keys.push(change.key.clone()),
        REPLICA_SETS => {
            for set in [&change.before, &change.after].into_iter().flatten() {
                match controller_of(set).filter(|o| text(o, "/kind") == "Deployment") {
                    Some(owner) => {
                        let key = Key::new(DEPLOYMENTS, &change.key.namespace, text(owner, "/name"));
                        if !keys.contains(&key) {
                            keys.push(key);
                        }
                    }
                    None => keys.extend(
                        store
                            .list(DEPLOYMENTS, Some(&change.key.namespace))
                            .filter(|d| Labels::of_object(d.pointer("/spec/selector")).is_some_and(|s| s.selects(set)))
                            .map(|d| Key::new(DEPLOYMENTS, &change.key.namespace, json::name(d))),
                    ),
                }
            }
        }
        PODS if change.after.is_none() => {
            let owner = change.before.as_deref().and_then(controller_of);
            let set = owner.and_then(|o| store.get(REPLICA_SETS, &change.key.namespace, text(o, "/name")));
            if let Some(deployment) = set.and_then(|s| controller_of(s)) {
                keys.push(Key::new(DEPLOYMENTS, &change.key.namespace, text(deployment, "/name")));
            }
        }
        _ => {}
    }
}

/// A Deployment with its ReplicaSets, as they are now.
struct View<'a> {
    access: &'a Access<'a>,
    key: &'a Key,
    deployment: Arc<Value>,
    replicas: i64,
    surge: i64,
    unavailable: i64,
    /// The ReplicaSet of the current template.
    new: Option<Arc<Value>>,
    /// The others, oldest first.
    old: Vec<Arc<Value>>,
}

fn spec_replicas(set: &Value) -> i64 {
    int(set, "/spec/replicas").unwrap_or(0)
}

fn status_count(object: &Value, field: &str) -> i64 {
    int(object, &format!("/status/{field}")).unwrap_or(0)
}

fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &format!("/metadata/annotations/{}", key.replace('/', "~1")))
}

fn revision(set: &Value) -> i64 {
    annotation(set, REVISION).parse().unwrap_or(0)
}

/// The template without the label that the controller adds.
fn plain_template(owner: &Value) -> Value {
    let mut template = owner.pointer("/spec/template").cloned().unwrap_or_default();
    json::remove(&mut template, &["metadata", "labels", HASH]);
    template
}

impl Reconcile for Controller {
    fn reconcile(&mut self, access: &Access<'_>, key: &Key) -> Option<Duration> {
        let deployment = access.at(key)?;
        if deleting(&deployment) {
            let view = View::load(access, key)?;
            view.write_status(false);
            return None;
        }
        check_paused(access, &deployment);
        let mut view = View::load(access, key)?;
        if flag(&view.deployment, "/spec/paused") || view.is_scaling() {
            view.sync_revisions(false);
            view.scale();
            let mut view = View::load(access, key)?;
            if flag(&view.deployment, "/spec/paused") {
                view.clean_up();
            }
            view.reload();
            view.write_status(false);
            return None;
        }
        if text(&view.deployment, "/spec/strategy/type") == "Recreate" {
            view.recreate();
        } else {
            view.roll();
        }
        let mut view = View::load(access, key)?;
        if view.complete(&view.deployment.get("status").cloned().unwrap_or_default()) {
            view.clean_up();
            view.reload();
        }
        view.write_status(true)
    }
}

fn has_deadline(deployment: &Value) -> bool {
    int(deployment, "/spec/progressDeadlineSeconds").is_some_and(|d| d != i64::from(i32::MAX))
}

fn check_paused(access: &Access<'_>, deployment: &Value) {
    if !has_deadline(deployment) {
        return;
    }
    let reason = condition(deployment, "Progressing").map(|c| text(c, "/reason")).unwrap_or_default();
    let paused = flag(deployment, "/spec/paused");
    let (reason, message) = match (paused, reason) {
        (_, "ProgressDeadlineExceeded") => return,
        (true, r) if r != "DeploymentPaused" => ("DeploymentPaused", "Deployment is paused"),
        (false, "DeploymentPaused") => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let now = access.timestamp();
    access.update_status(DEPLOYMENTS, deployment, |d| {
        set_condition(d, "Progressing", "Unknown", reason, message, &now, true);
    });
}

impl<'a> View<'a> {
    fn load(access: &'a Access<'a>, key: &'a Key) -> Option<Self> {
        let deployment = access.at(key)?;
        let replicas = int(&deployment, "/spec/replicas").unwrap_or(1);
        let (mut surge, mut unavailable) = (0, 0);
        if text(&deployment, "/spec/strategy/type") == "RollingUpdate" {
            let rolling = deployment.pointer("/spec/strategy/rollingUpdate");
            surge = int_or_percent(rolling.and_then(|r| r.get("maxSurge")), replicas, true);
            unavailable = int_or_percent(rolling.and_then(|r| r.get("maxUnavailable")), replicas, false);
            if surge == 0 && unavailable == 0 {
                // Both may round to zero; then one pod may be missing, or nothing would ever move.
                unavailable = 1;
            }
            unavailable = unavailable.min(replicas);
        }
        let mut view = Self { access, key, deployment, replicas, surge, unavailable, new: None, old: Vec::new() };
        view.load_sets();
        Some(view)
    }

    fn reload(&mut self) {
        if let Some(deployment) = self.access.at(self.key) {
            self.deployment = deployment;
        }
        self.load_sets();
    }

    fn load_sets(&mut self) {
        self.adopt();
        let mut sets = self.access.controlled_by(&self.deployment, REPLICA_SETS);
        sets.sort_by(|a, b| {
            let created = |s: &Value| text(s, "/metadata/creationTimestamp").to_owned();
            created(a).cmp(&created(b)).then_with(|| json::name(a).cmp(json::name(b)))
        });
        let template = plain_template(&self.deployment);
        let at = sets.iter().position(|s| plain_template(s) == template);
        self.new = at.map(|i| sets.remove(i));
        self.old = sets;
    }

    fn adopt(&self) {
        let Some(selector) = Labels::of_object(self.deployment.pointer("/spec/selector")) else { return };
        if deleting(&self.deployment) {
            return;
        }
        let orphans: Vec<Arc<Value>> = self
            .access
            .core
            .lock()
            .store
            .list(REPLICA_SETS, Some(&self.key.namespace))
            .filter(|s| controller_of(s).is_none() && !deleting(s) && selector.selects(s))
            .cloned()
            .collect();
        for set in orphans {
            self.access.update(REPLICA_SETS, &self.key.namespace, json::name(&set), |s| {
                let refs = json::object_mut(s, &["metadata"]).entry("ownerReferences").or_insert_with(|| json!([]));
                if let Value::Array(refs) = refs {
                    refs.push(owner_reference(&self.deployment));
                }
            });
        }
    }

    fn sets(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.old.iter().chain(&self.new)
    }

    fn is_scaling(&self) -> bool {
        self.sets()
            .any(|s| spec_replicas(s) > 0 && annotation(s, DESIRED).parse::<i64>().is_ok_and(|d| d != self.replicas))
    }

    /// Finds or makes the ReplicaSet of the current template and numbers it.
    fn sync_revisions(&mut self, create: bool) {
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

    fn make_set(&mut self, number: i64) {
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

    fn progressing(&mut self, reason: &str, message: String) {
        let now = self.access.timestamp();
        let updated = self.access.update_status(DEPLOYMENTS, &self.deployment, |d| {
            set_condition(d, "Progressing", "True", reason, &message, &now, true);
        });
        if let Some(updated) = updated {
            self.deployment = updated;
        }
    }

    fn annotate(&self, set: &mut Value, number: i64, before: &Value) {
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

    fn annotate_size(&self, set: &mut Value) {
        json::set(set, &["metadata", "annotations", DESIRED], self.replicas.to_string());
        json::set(set, &["metadata", "annotations", MAX], (self.replicas + self.surge).to_string());
    }

    fn number(&mut self, number: i64) {
        let updated = self.access.update(DEPLOYMENTS, &self.key.namespace, &self.key.name, |d| {
            json::set(d, &["metadata", "annotations", REVISION], number.to_string());
        });
        if let Some(updated) = updated {
            self.deployment = updated;
        }
    }

    /// How many pods the new ReplicaSet may have now.
    fn new_replicas(&self, current: i64) -> i64 {
        if text(&self.deployment, "/spec/strategy/type") == "Recreate" {
            return self.replicas;
        }
        let total: i64 = self.sets().map(|s| spec_replicas(s)).sum();
        let room = self.replicas + self.surge - total;
        if room <= 0 { current } else { current + room.min(self.replicas - current) }
    }

    /// Sets the size of a ReplicaSet, and with it the size that the Deployment has now. A set that has its size already
    /// keeps its annotations: the next proportional scaling reckons with them.
    fn resize(&self, set: &Value, to: i64) -> bool {
        let scaled = spec_replicas(set) != to;
        if scaled {
            self.resize_and_annotate(set, to);
        }
        scaled
    }

    fn resize_and_annotate(&self, set: &Value, to: i64) {
        self.access.update(REPLICA_SETS, &self.key.namespace, json::name(set), |s| {
            json::set(s, &["spec", "replicas"], to);
            self.annotate_size(s);
        });
    }

    fn roll(&mut self) {
        self.sync_revisions(true);
        let Some(new) = self.new.clone() else { return };
        let current = spec_replicas(&new);
        let target = if current > self.replicas { self.replicas } else { self.new_replicas(current) };
        if current != self.replicas && self.resize(&new, target) {
            return;
        }
        self.shrink_old(&new);
    }

    fn shrink_old(&mut self, new: &Value) {
        let old_pods: i64 = self.old.iter().map(|s| spec_replicas(s)).sum();
        if old_pods == 0 {
            return;
        }
        let total = old_pods + spec_replicas(new);
        let min_available = self.replicas - self.unavailable;
        let new_unavailable = spec_replicas(new) - status_count(new, "availableReplicas");
        let most = total - min_available - new_unavailable;
        if most <= 0 {
            return;
        }
        // First the pods that are of no use, then those that the new ones replace.
        let mut sizes: Vec<i64> = self.old.iter().map(|s| spec_replicas(s)).collect();
        let mut cleaned = 0;
        for (set, size) in self.old.iter().zip(&mut sizes) {
            let available = status_count(set, "availableReplicas");
            if cleaned >= most || *size == 0 || *size == available {
                continue;
            }
            let down = (most - cleaned).min(*size - available).max(0);
            *size -= down;
            cleaned += down;
        }
        let available: i64 = self.sets().map(|s| status_count(s, "availableReplicas")).sum();
        let mut left = (available - min_available).max(0);
        for size in &mut sizes {
            let down = left.min(*size);
            *size -= down;
            left -= down;
        }
        for (set, size) in self.old.iter().zip(sizes) {
            self.resize(set, size);
        }
    }

    fn recreate(&mut self) {
        self.sync_revisions(false);
        let mut scaled = false;
        for set in &self.old {
            scaled |= spec_replicas(set) > 0 && self.resize(set, 0);
        }
        if scaled || self.old_pods_run() {
            return;
        }
        self.sync_revisions(true);
        if let Some(new) = &self.new {
            self.resize(new, self.replicas);
        }
    }

    fn old_pods_run(&self) -> bool {
        self.old.iter().any(|set| {
            let pods = self.access.controlled_by(set, PODS);
            pods.iter().any(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed"))
        })
    }

    /// Spreads a change of the size over the ReplicaSets, without rolling.
    fn scale(&self) {
        let active: Vec<&Arc<Value>> = self.sets().filter(|s| spec_replicas(s) > 0).collect();
        let single = match (active.as_slice(), &self.new) {
            ([], Some(new)) => Some(new),
            ([], None) => self.old.last(),
            ([one], _) => Some(*one),
            _ => None,
        };
        if let Some(set) = single {
            self.resize(set, self.replicas);
            return;
        }
        let saturated = self.new.as_ref().is_some_and(|s| {
            spec_replicas(s) == self.replicas
                && annotation(s, DESIRED) == self.replicas.to_string()
                && status_count(s, "availableReplicas") == self.replicas
        });
        if saturated {
            for set in self.old.iter().filter(|s| spec_replicas(s) > 0) {
                self.resize(set, 0);
            }
            return;
        }
        if text(&self.deployment, "/spec/strategy/type") != "RollingUpdate" {
            return;
        }
        let total: i64 = active.iter().map(|s| spec_replicas(s)).sum();
        let allowed = if self.replicas > 0 { self.replicas + self.surge } else { 0 };
        let add = allowed - total;
        let mut order = active.clone();
        // Growing starts with the newer of the biggest, shrinking with the older of the biggest.
        order.sort_by(|a, b| {
            let created = |s: &Value| text(s, "/metadata/creationTimestamp").to_owned();
            let by_age = created(a).cmp(&created(b)).then_with(|| revision(a).cmp(&revision(b)));
            spec_replicas(b).cmp(&spec_replicas(a)).then(if add > 0 { by_age.reverse() } else { by_age })
        });
        let mut added = 0;
        let mut sizes: Vec<i64> = Vec::new();
        for set in &order {
            let size = spec_replicas(set);
            let mut to = size;
            if add != 0 {
                let share = self.proportion(set, add, added);
                to += share;
                added += share;
            }
            sizes.push(to);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + add - added).max(0);
        }
        for (set, size) in order.iter().zip(sizes) {
            self.resize_and_annotate(set, size.max(0));
        }
    }

    fn proportion(&self, set: &Value, add: i64, added: i64) -> i64 {
        let size = spec_replicas(set);
        let allowed = add - added;
        if size == 0 || add == 0 || allowed == 0 {
            return 0;
        }
        let fraction = if self.replicas == 0 {
            -size
        } else {
            let before = match annotation(set, MAX).parse::<i64>() {
                Ok(max) if max > 0 => max,
                _ => status_count(&self.deployment, "replicas"),
            };
            if before == 0 {
                0
            } else {
                let grown = (size * (self.replicas + self.surge)) as f64 / before as f64;
                grown.round() as i64 - size
            }
        };
        if add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
    }

    fn clean_up(&self) {
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

    fn complete(&self, status: &Value) -> bool {
        let count = |field: &str| status.get(field).and_then(Value::as_i64).unwrap_or(0);
        count("updatedReplicas") == self.replicas
            && count("replicas") == self.replicas
            && count("availableReplicas") == self.replicas
            && count("observedGeneration") >= generation(&self.deployment)
    }

    /// Writes the status; gives the time until the progress deadline may pass.
    fn write_status(&self, rolling: bool) -> Option<Duration> {
        let sum = |field: &str| self.sets().map(|s| status_count(s, field)).sum::<i64>();
        let (total, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
        let updated = self.new.as_ref().map_or(0, |s| status_count(s, "replicas"));
        let mut status = json!({"observedGeneration": generation(&self.deployment)});
        for (field, count) in [
            ("replicas", total),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", (self.sets().map(|s| spec_replicas(s)).sum::<i64>() - available).max(0)),
        ] {
            if count > 0 {
                json::set(&mut status, &[field], count);
            }
        }
        let old = self.deployment.get("status").cloned().unwrap_or_else(|| json!({}));
        for field in ["collisionCount", "conditions"] {
            json::restore(&mut status, &old, &[field]);
        }
        let mut object = json!({"status": status});
        let now = self.access.timestamp();
        let (state, reason, message) = if available >= self.replicas - self.unavailable {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        let as_is = condition(&object, "Available")
            .is_some_and(|c| text(c, "/status") == state && text(c, "/reason") == reason);
        if !as_is {
            set_condition(&mut object, "Available", state, reason, message, &now, true);
        }
        let mut again = None;
        if rolling {
            again = self.progress(&mut object, &old, &now);
        }
        let status = object.get("status").cloned().unwrap_or_default();
        if status != old {
            self.access.update_status(DEPLOYMENTS, &self.deployment, |d| json::set(d, &["status"], status));
        }
        again
    }

    fn progress(&self, object: &mut Value, old: &Value, now: &str) -> Option<Duration> {
        if !has_deadline(&self.deployment) {
            if let Some(Value::Array(list)) = object.pointer_mut("/status/conditions") {
                list.retain(|c| text(c, "/type") != "Progressing");
            }
            return None;
        }
        let status = object.get("status").cloned().unwrap_or_default();
        let count = |s: &Value, field: &str| s.get(field).and_then(Value::as_i64).unwrap_or(0);
        let current = condition(object, "Progressing").cloned();
        let reason = current.as_ref().map(|c| text(c, "/reason")).unwrap_or_default();
        let done_before =
            count(&status, "replicas") == count(&status, "updatedReplicas") && reason == "NewReplicaSetAvailable";
        let what = match &self.new {
            Some(set) => format!("ReplicaSet \"{}\"", json::name(set)),
            None => format!("Deployment \"{}\"", self.key.name),
        };
        let outdated = |s: &Value| count(s, "replicas") - count(s, "updatedReplicas");
        let advanced = count(&status, "updatedReplicas") > count(old, "updatedReplicas")
            || outdated(&status) < outdated(old)
            || count(&status, "readyReplicas") > count(old, "readyReplicas")
            || count(&status, "availableReplicas") > count(old, "availableReplicas");
        if done_before {
            return None;
        }
        if self.complete(&status) {
            let message = format!("{what} has successfully progressed.");
            set_condition(object, "Progressing", "True", "NewReplicaSetAvailable", &message, now, true);
            return None;
        }
        if advanced {
            let message = format!("{what} is progressing.");
            set_condition(object, "Progressing", "True", "ReplicaSetUpdated", &message, now, true);
        }
        let current = condition(object, "Progressing").cloned()?;
        if matches!(text(&current, "/reason"), "NewReplicaSetAvailable" | "ProgressDeadlineExceeded") {
            return None;
        }
        let deadline = int(&self.deployment, "/spec/progressDeadlineSeconds").unwrap_or(600).max(0).unsigned_abs();
        let deadline = Duration::from_secs(deadline);
        let passed = self.access.since(text(&current, "/lastUpdateTime")).unwrap_or_default();
        if passed > deadline {
            let message = format!("{what} has timed out progressing.");
            set_condition(object, "Progressing", "False", "ProgressDeadlineExceeded", &message, now, true);
            return None;
        }
        Some(deadline - passed + Duration::from_secs(1))
    }
}
