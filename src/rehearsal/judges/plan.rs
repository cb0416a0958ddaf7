//! The plan of a release, as judges need it.

use serde_json::Value;

use crate::{
    api::object::{at, int},
    rehearsal::{
        script::{Gateway, Setup, Style},
        world::strategy,
    },
};

/// A step, as judges need it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// Pods of the new version.
    pub replicas: Replicas,
    /// Percent of plain requests.
    pub weight: i64,
    /// Whether requests with the header are routed.
    pub by_header: bool,
    /// It routes nothing, so that pods of both versions answer for the Service.
    pub is_open: bool,
    /// It passes by itself: after seconds, or because it is the last with all pods.
    pub pause: Option<i64>,
    pub is_free: bool,
}

/// Pods, as a step asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    Count(i64),
    Percent(i64),
}

/// The plan of a Rollout.
pub fn plan_of(rollout: &Value, setup: &Setup) -> Vec<PlannedStep> {
    let steps = at(strategy(rollout), &["steps"]).and_then(Value::as_array);
    let steps: Vec<&Value> = steps.into_iter().flatten().collect();
    let count = steps.len();
    let routed = setup.gateway != Gateway::None;
    let percent = |value: &Value| value.as_str().and_then(|s| s.trim_end_matches('%').parse::<i64>().ok());
    steps
        .into_iter()
        .enumerate()
        .map(|(i, step)| {
            let weight = int(step, &["weight"]).or_else(|| percent(step.get("traffic")?));
            let by_header = step.get("matches").is_some();
            let pause = int(step, &["pause", "duration"]);
            let given = step.get("replicas").map(|v| (v.as_i64(), percent(v)));
            let replicas = match given {
                Some((Some(count), _)) => Replicas::Count(count),
                Some((_, Some(percent))) => Replicas::Percent(percent),
                _ => Replicas::Percent(weight.unwrap_or(100)),
            };
            // A number that happens to be all is no word that nobody need be asked.
            let is_all = replicas == Replicas::Percent(100);
            PlannedStep {
                replicas,
                weight: weight.filter(|_| routed).unwrap_or(0),
                by_header: by_header && routed,
                is_open: setup.has_canary_service() && !by_header && weight.is_none(),
                pause,
                is_free: i + 1 == count && pause.is_none() && is_all && setup.style != Style::BlueGreen,
            }
        })
        .collect()
}

impl PlannedStep {
    /// Percent of plain and of marked requests.
    pub fn shares(&self) -> (f64, f64) {
        if self.by_header { (0.0, 100.0) } else { (self.weight as f64, self.weight as f64) }
    }

    /// New pods for a workload of so many: in place, a share below all of them leaves one as it was.
    pub fn target(&self, style: Style, replicas: i64) -> i64 {
        match self.replicas {
            Replicas::Count(count) => count.min(replicas),
            Replicas::Percent(percent) => {
                let pods = (percent * replicas + 99) / 100;
                if style == Style::Partition && replicas > 1 && percent != 100 { pods.min(replicas - 1) } else { pods }
            }
        }
    }

    /// Nothing is left to tell apart.
    pub fn is_whole(&self, style: Style, replicas: i64) -> bool {
        style == Style::Partition && self.target(style, replicas) >= replicas
    }
}
