//! Situations of one gateway only: `own.yaml` says by which signs a case shows them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::Value;
use tidegate::yaml;

use super::plan;

const TABLE: &str = include_str!("own.yaml");
const PLACES: [&str; 5] = ["before", "step", "after", "error", "plan"];

/// By script and situation, the signs by where they are looked for.
type Table = BTreeMap<String, BTreeMap<String, Value>>;

/// What no case of the script shows.
pub fn missing(script: &str, cases: &[PathBuf]) -> Vec<String> {
    let table: Table = yaml::from_str(TABLE).unwrap();
    let Some(situations) = table.get(script) else { return Vec::new() };
    let steps: Vec<Step> = cases.iter().flat_map(|case| steps_of(case)).collect();
    let missing = situations.iter().filter(|(_, signs)| {
        let signs = signs_of(signs);
        !steps.iter().any(|step| signs.iter().all(|sign| sign.is_in(step)))
    });
    missing.map(|(what, _)| what.clone()).collect()
}

/// The scripts of the table.
pub fn scripts() -> Vec<String> {
    yaml::from_str::<Table>(TABLE).unwrap().into_keys().collect()
}

/// One step of a case, as texts of JSON by place. It has an object expected or an error.
type Step = BTreeMap<&'static str, String>;

fn steps_of(path: &Path) -> Vec<Step> {
    let case: Value = yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (steps, _) = plan(&case);
    let plan = Value::from(steps.clone()).to_string();
    let expected = case["expected"].as_array().cloned().unwrap_or_default();
    let of_step = |(step, expected): (&Value, &Value)| {
        let outcome = match expected["error"].as_str() {
            Some(error) => ("error", error.to_owned()),
            None => ("after", expected.to_string()),
        };
        Step::from([
            ("before", case["original"].to_string()),
            ("step", step.to_string()),
            ("plan", plan.clone()),
            outcome,
        ])
    };
    steps.iter().zip(&expected).map(of_step).collect()
}

struct Sign {
    place: String,
    pattern: Regex,
    is_absent: bool,
}

impl Sign {
    fn is_in(&self, step: &Step) -> bool {
        step.get(self.place.as_str()).is_some_and(|text| self.pattern.is_match(text) != self.is_absent)
    }
}

fn signs_of(situation: &Value) -> Vec<Sign> {
    let mut signs = Vec::new();
    for (place, wanted) in situation.as_object().unwrap() {
        assert!(PLACES.contains(&place.as_str()), "{place} is none of {PLACES:?}");
        for text in wanted.as_array().map_or(std::slice::from_ref(wanted), Vec::as_slice) {
            let text = text.as_str().unwrap();
            let absent = text.strip_prefix('!').filter(|rest| !rest.is_empty());
            let pattern = Regex::new(absent.unwrap_or(text)).unwrap();
            signs.push(Sign { place: place.clone(), pattern, is_absent: absent.is_some() });
        }
    }
    signs
}
