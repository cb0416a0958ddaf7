//! The status and its conditions.

use super::*;

impl View<'_> {
    pub(super) fn complete(&self, status: &Value) -> bool {
        let count = |field: &str| status.get(field).and_then(Value::as_i64).unwrap_or(0);
        count("updatedReplicas") == self.replicas
            && count("replicas") == self.replicas
            && count("availableReplicas") == self.replicas
            && count("observedGeneration") >= generation(&self.deployment)
    }

    /// Writes the status; gives the time until the progress deadline may pass.
    pub(super) fn write_status(&self, rolling: bool) -> Option<Duration> {
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

    pub(super) fn progress(&self, object: &mut Value, old: &Value, now: &str) -> Option<Duration> {
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
