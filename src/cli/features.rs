//! `--feature-gates`: features under the names that OpenKruise gave them, so that its arguments go on working.

use std::str::FromStr;

/// What can be switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    /// Records every release that has ended as a RolloutHistory.
    pub rollout_history: bool,
}

/// Each with the only value that it can have here, and why.
const FIXED: [(&str, bool, &str); 3] = [
    ("AdvancedDeployment", true, "partition style of Deployments is always there"),
    ("AppendPodSelector", false, "a Service is pinned by the label of the revision alone"),
    ("KeepWorkloadPausedOnRolloutDeletion", false, "a workload goes on natively when its Rollout is deleted"),
];

impl FromStr for FeatureGates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut gates = FeatureGates::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (name, value) = entry.split_once('=').ok_or(format!("{entry}: write {entry}=true"))?;
            let is_on: bool = value.trim().parse().map_err(|_| format!("{name}: {value} is neither true nor false"))?;
            let name = name.trim();
            match FIXED.iter().find(|(known, ..)| *known == name) {
                Some((_, possible, _)) if *possible == is_on => {}
                Some((_, possible, why)) => return Err(format!("{name} can only be {possible}: {why}")),
                None if name == "RolloutHistory" => gates.rollout_history = is_on,
                None => {
                    let known: Vec<&str> = FIXED.iter().map(|(known, ..)| *known).collect();
                    return Err(format!("{name} is not known; known are RolloutHistory, {}", known.join(", ")));
                }
            }
        }
        Ok(gates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_original() {
        let on = Ok(FeatureGates { rollout_history: true });
        let off = Ok(FeatureGates { rollout_history: false });
        for (text, wanted) in [
            ("", off.clone()),
            ("RolloutHistory=true", on.clone()),
            ("AdvancedDeployment=true, RolloutHistory=true,", on),
            ("RolloutHistory=false,AppendPodSelector=false", off),
        ] {
            assert_eq!(text.parse::<FeatureGates>(), wanted, "{text}");
        }
        for (text, says) in [
            ("RolloutHistory", "write RolloutHistory=true"),
            ("RolloutHistory=on", "neither true nor false"),
            ("AdvancedDeployment=false", "always there"),
            ("KeepWorkloadPausedOnRolloutDeletion=true", "can only be false"),
            ("Rollouthistory=true", "known are RolloutHistory"),
        ] {
            let error = text.parse::<FeatureGates>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
