//! Rollouts by phase, and those that a person should look at.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Phase {
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Warned {
    condition: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Rollouts {
    by_phase: Family<Phase, Gauge>,
    stalled: Family<Reason, Gauge>,
    warned: Family<Warned, Gauge>,
    known: Mutex<Known>,
}

/// What each Rollout is counted under.
#[derive(Debug, Default)]
struct Known {
    /// By `namespace/name`.
    phases: HashMap<String, String>,
    /// By `namespace/name`.
    reasons: HashMap<String, String>,
    /// By namespace and name.
    conditions: HashMap<(String, String), Vec<&'static str>>,
}

impl Rollouts {
    pub fn new(registry: &mut Registry) -> Self {
        let rollouts = Self::default();
        registry.register("rollouts", "Rollouts by phase", rollouts.by_phase.clone());
        registry.register(
            "rollouts_stalled",
            "Rollouts that wait for a person to mend something, by reason",
            rollouts.stalled.clone(),
        );
        registry.register(
            "rollouts_warned",
            "Rollouts that go on, with a condition that a person should know of",
            rollouts.warned.clone(),
        );
        rollouts
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn phase(&self, rollout: &str, phase: Option<&str>) {
        let label = |phase: &str| Phase { phase: phase.to_owned() };
        move_between(&mut self.known().phases, &self.by_phase, label, rollout, phase);
    }

    pub fn stalled(&self, rollout: &str, reason: Option<&str>) {
        let label = |reason: &str| Reason { reason: reason.to_owned() };
        move_between(&mut self.known().reasons, &self.stalled, label, rollout, reason);
    }

    pub fn warned(&self, rollout: &(String, String), conditions: &[&'static str]) {
        let mut known = self.known();
        let old = known.conditions.remove(rollout).unwrap_or_default();
        for condition in conditions.iter().filter(|c| !old.contains(c)) {
            self.warned.get_or_create(&Warned { condition }).inc();
        }
        for condition in old.iter().filter(|c| !conditions.contains(c)) {
            self.warned.get_or_create(&Warned { condition }).dec();
        }
        if !conditions.is_empty() {
            known.conditions.insert(rollout.clone(), conditions.to_vec());
        }
    }

    pub fn clear(&self) {
        *self.known() = Known::default();
        self.by_phase.clear();
        self.stalled.clear();
        self.warned.clear();
    }
}

/// Counts a Rollout under a word, and no longer under the one before.
fn move_between<L>(
    words: &mut HashMap<String, String>,
    family: &Family<L, Gauge>,
    label: impl Fn(&str) -> L,
    rollout: &str,
    word: Option<&str>,
) where
    L: Clone + std::hash::Hash + Eq,
{
    if words.get(rollout).map(String::as_str) == word {
        return;
    }
    let old = match word {
        Some(word) => {
            family.get_or_create(&label(word)).inc();
            words.insert(rollout.to_owned(), word.to_owned())
        }
        None => words.remove(rollout),
    };
    if let Some(old) = old {
        family.get_or_create(&label(&old)).dec();
    }
}
