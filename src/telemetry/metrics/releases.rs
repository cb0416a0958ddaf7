//! Series of single releases: where each one is, and since when. Only of those that go on, and of so many of them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Releases of which there are series at the same time; of others only how many they are.
const MOST: usize = 500;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    namespace: String,
    rollout: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InPhase {
    namespace: String,
    rollout: String,
    phase: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InState {
    namespace: String,
    rollout: String,
    state: String,
}

/// Where a release is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Phase of its Rollout, such as `Progressing`.
    pub phase: String,
    /// Its step, from 1.
    pub step: i32,
    /// State of the step, such as `StepPaused`.
    pub state: String,
    /// Since when it is in this state, in seconds since 1970.
    pub since: i64,
}

/// Labels of the series of one release.
type Shown = (InPhase, InState);

#[derive(Debug, Default)]
pub(super) struct Releases {
    phase: Family<InPhase, Gauge>,
    step: Family<Of, Gauge>,
    since: Family<InState, Gauge>,
    hidden: Gauge,
    shown: Mutex<BTreeMap<(String, String), Option<Shown>>>,
}

impl Releases {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("release_phase", "1 for the phase of a Rollout whose release goes on", self.phase.clone());
        registry.register("release_step", "Step of a release that goes on", self.step.clone());
        registry.register_with_unit(
            "release_state_since_timestamp",
            "Since when a release is in the state of its step, in seconds since 1970",
            Unit::Seconds,
            self.since.clone(),
        );
        registry.register(
            "releases_hidden",
            "Releases that go on and have no series of their own",
            self.hidden.clone(),
        );
    }

    /// A release of a Rollout (namespace and name) is here; `None` when none goes on.
    pub fn set(&self, key: &(String, String), standing: Option<&Standing>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let of = Of { namespace: key.0.clone(), rollout: key.1.clone() };
        let Some(standing) = standing else {
            match shown.remove(key) {
                Some(Some((phase, state))) => {
                    self.phase.remove(&phase);
                    self.since.remove(&state);
                    self.step.remove(&of);
                }
                Some(None) => drop(self.hidden.dec()),
                None => {}
            }
            return;
        };
        let is_full = shown.values().flatten().count() >= MOST;
        let old = match shown.get(key) {
            None if is_full => {
                self.hidden.inc();
                shown.insert(key.clone(), None);
                return;
            }
            Some(None) if is_full => return,
            // There is room for it again.
            Some(None) => {
                self.hidden.dec();
                None
            }
            Some(Some(old)) => Some(old.clone()),
            None => None,
        };
        let (namespace, rollout) = key.clone();
        let phase = InPhase { namespace, rollout, phase: standing.phase.clone() };
        let state = InState { namespace: key.0.clone(), rollout: key.1.clone(), state: standing.state.clone() };
        if let Some((old_phase, old_state)) = old {
            if old_phase != phase {
                self.phase.remove(&old_phase);
            }
            if old_state != state {
                self.since.remove(&old_state);
            }
        }
        self.phase.get_or_create(&phase).set(1);
        self.since.get_or_create(&state).set(standing.since);
        self.step.get_or_create(&of).set(standing.step.into());
        shown.insert(key.clone(), Some((phase, state)));
    }

    /// Nothing is known of any release.
    pub fn clear(&self) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.phase.clear();
        self.since.clear();
        self.step.clear();
        self.hidden.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(releases: &Releases) -> String {
        let mut registry = Registry::with_prefix("tidegate");
        releases.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    fn standing(state: &str, since: i64) -> Standing {
        let phase = if state == "Completed" { "Terminating" } else { "Progressing" };
        Standing { phase: phase.to_owned(), step: 2, state: state.to_owned(), since }
    }

    #[test]
    fn a_release_has_one_state_and_none_when_it_is_over() {
        let releases = Releases::default();
        let key = ("shop".to_owned(), "web".to_owned());
        releases.set(&key, Some(&standing("StepUpgrade", 100)));
        releases.set(&key, Some(&standing("StepPaused", 160)));
        let now = text(&releases);
        assert!(now.contains(r#"tidegate_release_step{namespace="shop",rollout="web"} 2"#), "{now}");
        let since =
            r#"tidegate_release_state_since_timestamp_seconds{namespace="shop",rollout="web",state="StepPaused"} 160"#;
        assert!(now.contains(since) && !now.contains("StepUpgrade"), "{now}");
        let phases = |text: &str| -> Vec<String> {
            let of = text.lines().filter_map(|l| l.strip_prefix("tidegate_release_phase"));
            of.map(str::to_owned).collect()
        };
        let phase = |phase: &str| format!(r#"{{namespace="shop",rollout="web",phase="{phase}"}} 1"#);
        assert_eq!(phases(&now), [phase("Progressing")]);
        releases.set(&key, Some(&standing("Completed", 170)));
        assert_eq!(phases(&text(&releases)), [phase("Terminating")]);
        releases.set(&key, None);
        releases.set(&key, None);
        assert!(!text(&releases).contains("web"));
    }

    #[test]
    fn there_never_are_more_series_than_promised() {
        let releases = Releases::default();
        let key = |i: usize| ("shop".to_owned(), format!("web-{i}"));
        let series = || text(&releases).lines().filter(|l| l.starts_with("tidegate_release_step{")).count();
        let hidden = || text(&releases).lines().find_map(|l| l.strip_prefix("tidegate_releases_hidden ")?.parse().ok());
        for i in 0..MOST + 3 {
            releases.set(&key(i), Some(&standing("StepPaused", 1)));
        }
        assert_eq!((series(), hidden()), (MOST, Some(3)));
        // One ends, and another has its place when it is looked at next.
        releases.set(&key(0), None);
        releases.set(&key(MOST), Some(&standing("StepPaused", 1)));
        assert_eq!((series(), hidden()), (MOST, Some(2)));
        releases.set(&key(MOST + 1), None);
        assert_eq!((series(), hidden()), (MOST, Some(1)));
        releases.clear();
        assert_eq!((series(), hidden()), (0, Some(0)));
    }
}
