//! Replacing old pods by new ones: `RollingUpdate` and `Recreate`.

use super::*;

impl View<'_> {
    /// How many pods the new ReplicaSet may have now.
    pub(super) fn new_replicas(&self, current: i64) -> i64 {
        if text(&self.deployment, "/spec/strategy/type") == "Recreate" {
            return self.replicas;
        }
        let total: i64 = self.sets().map(|s| spec_replicas(s)).sum();
        let room = self.replicas + self.surge - total;
        if room <= 0 { current } else { current + room.min(self.replicas - current) }
    }

    /// Sets the size of a ReplicaSet, and with it the size that the Deployment has now. A set that has its size already
    /// keeps its annotations: the next proportional scaling reckons with them.
    pub(super) fn resize(&self, set: &Value, to: i64) -> bool {
        let scaled = spec_replicas(set) != to;
        if scaled {
            self.resize_and_annotate(set, to);
        }
        scaled
    }

    pub(super) fn resize_and_annotate(&self, set: &Value, to: i64) {
        self.access.update(REPLICA_SETS, &self.key.namespace, json::name(set), |s| {
            json::set(s, &["spec", "replicas"], to);
            self.annotate_size(s);
        });
    }

    pub(super) fn roll(&mut self) {
        self.sync_revisions(true);
        let Some(new) = self.new.clone() else { return };
        let current = spec_replicas(&new);
        let target = if current > self.replicas { self.replicas } else { self.new_replicas(current) };
        if current != self.replicas && self.resize(&new, target) {
            return;
        }
        self.shrink_old(&new);
    }

    pub(super) fn shrink_old(&mut self, new: &Arc<Value>) {
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
        let mut lags = false;
        for (set, size) in self.old.iter().zip(&mut sizes) {
            let available = status_count(set, "availableReplicas");
            if cleaned >= most || *size == 0 || *size == available {
                continue;
            }
            if *size < available {
                // Scaled down, and its status does not say so yet: the controller takes this for a mistake and waits.
                lags = true;
                break;
            }
            let down = (most - cleaned).min(*size - available);
            *size -= down;
            cleaned += down;
        }
        // What is left of sets that are to have no pods does not count.
        let active = self.old.iter().filter(|s| spec_replicas(s) > 0).chain([new]);
        let available: i64 = active.map(|s| status_count(s, "availableReplicas")).sum();
        let mut left = if lags { 0 } else { (available - min_available).max(0) };
        for size in &mut sizes {
            let down = left.min(*size);
            *size -= down;
            left -= down;
        }
        for (set, size) in self.old.iter().zip(sizes) {
            self.resize(set, size);
        }
    }

    pub(super) fn recreate(&mut self) {
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

    pub(super) fn old_pods_run(&self) -> bool {
        self.old.iter().any(|set| {
            let pods = self.access.controlled_by(set, PODS);
            pods.iter().any(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed"))
        })
    }
}
