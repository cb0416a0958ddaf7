//! What one run plays: a scenario, a seed, crashes, and whether faults strike. Its text replays it exactly.

use std::{fmt, str::FromStr};

use crate::scenario::{SCENARIOS, Scenario};

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What the people in it do.
    pub scenario: &'static Scenario,
    /// Seed of everything.
    pub seed: u64,
    /// The controller dies after its so manieth committed write; each further number counts from its next start.
    pub crashes: Vec<u64>,
    /// Whether faults strike the controller's client.
    pub faults: bool,
    /// A deliberate bug.
    pub mutant: Option<&'static str>,
}

impl Case {
    /// A run without crashes and faults.
    pub fn clean(scenario: &'static Scenario, seed: u64) -> Case {
        Case { scenario, seed, crashes: Vec::new(), faults: false, mutant: None }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seed={}", self.scenario.name, self.seed)?;
        if !self.crashes.is_empty() {
            let crashes: Vec<String> = self.crashes.iter().map(u64::to_string).collect();
            write!(f, " crash={}", crashes.join(","))?;
        }
        if self.faults {
            write!(f, " faults")?;
        }
        if let Some(mutant) = self.mutant {
            write!(f, " mutant={mutant}")?;
        }
        Ok(())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let scenario = SCENARIOS.iter().find(|s| s.name == name).ok_or_else(|| {
            let known: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
            format!("no scenario {name:?}; there are {}", known.join(", "))
        })?;
        let mut case = Case::clean(scenario, 0);
        for word in words {
            let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{word}: {e}"));
            match word.split_once('=').unwrap_or((word, "")) {
                ("seed", value) => case.seed = number(value)?,
                ("crash", value) => case.crashes = value.split(',').map(number).collect::<Result<_, _>>()?,
                ("faults", _) => case.faults = true,
                ("mutant", value) => {
                    let known = crate::mutants::MUTANTS.iter().find(|m| m.name == value);
                    case.mutant = Some(known.ok_or_else(|| format!("no mutant {value:?}"))?.name);
                }
                _ => return Err(format!("{word:?} is none of seed=N, crash=N,N, faults, mutant=NAME")),
            }
        }
        Ok(case)
    }
}
