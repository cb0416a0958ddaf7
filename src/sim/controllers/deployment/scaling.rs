//! A change of the size in the middle of an update: spread in proportion, without rolling.

use super::*;

impl View<'_> {
    /// Spreads a change of the size over the ReplicaSets, without rolling.
    pub(super) fn scale(&self) {
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

    pub(super) fn proportion(&self, set: &Value, add: i64, added: i64) -> i64 {
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
}
