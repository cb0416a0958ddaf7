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

mod revisions;
mod rolling;
mod scaling;
mod status;

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
}
