//! Reading one case file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::plan::Plan;
use crate::traffic::{Original, Parts};
use crate::yaml;

/// One case file.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// The file.
    pub path: PathBuf,
    /// The Rollout's or TrafficRouting's traffic side.
    pub plan: Plan,
    /// The object before the release.
    pub original: Original,
    /// What must come of it, one for each step of the plan.
    pub expected: Vec<Expected>,
    /// For each step a text that the script must print, empty when it must print nothing; none where it may print anything.
    pub prints: Vec<Option<String>>,
}

/// What must come of one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// These parts.
    Parts(Parts),
    /// These annotations; for Ingresses, of which a script mostly makes nothing else.
    Annotations(BTreeMap<String, String>),
    /// An error whose message contains this text.
    Error(String),
}

/// Why a file is not a case: file, key and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct CaseError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub message: String,
}

const KEYS: [&str; 5] = ["rollout", "trafficRouting", "controller", "original", "expected"];

impl Case {
    /// Reads a case file.
    ///
    /// # Errors
    /// When the file cannot be read, is not YAML, has an unknown key, lacks one, or has not one expectation a step.
    pub fn read(path: &Path) -> Result<Case, CaseError> {
        let err = |message: String| CaseError { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| err(format!("cannot be read: {e}")))?;
        Case::parse(path, &text)
    }

    /// Reads the text of a case file.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Case, CaseError> {
        let result = yaml::from_str(text).map_err(|e| e.to_string()).and_then(parse);
        let (plan, original, expected, prints) =
            result.map_err(|message| CaseError { path: path.to_owned(), message })?;
        Ok(Case { path: path.to_owned(), plan, original, expected, prints })
    }
}

type Parsed = (Plan, Original, Vec<Expected>, Vec<Option<String>>);

fn parse(document: Value) -> Result<Parsed, String> {
    let Value::Object(mut map) = document else {
        return Err("is not a map with the keys rollout or trafficRouting, original, expected".to_owned());
    };
    if let Some(key) = map.keys().find(|k| !KEYS.contains(&k.as_str())) {
        return Err(format!(
            "unknown key {key:?}; the keys are rollout or trafficRouting, controller, original, and expected"
        ));
    }
    let mut plan = match (map.remove("rollout"), map.remove("trafficRouting")) {
        (Some(rollout), None) => Plan::of_rollout(&rollout).map_err(|e| format!("rollout.{e}"))?,
        (None, Some(routing)) => Plan::of_traffic_routing(&routing).map_err(|e| format!("trafficRouting.{e}"))?,
        (None, None) => return Err("rollout or trafficRouting is missing".to_owned()),
        (Some(_), Some(_)) => return Err("rollout and trafficRouting exclude each other: remove one".to_owned()),
    };
    plan.ingress_controller = match map.remove("controller") {
        None => None,
        Some(Value::String(controller)) => Some(controller),
        Some(_) => return Err("controller must be a text: spec.controller of the IngressClass".to_owned()),
    };
    let original = Original::from_object(&required(&mut map, "original")?).map_err(|e| format!("original.{e}"))?;
    let Value::Array(mut entries) = required(&mut map, "expected")? else {
        return Err("expected is not a list with one object for each step (or for the TrafficRouting)".to_owned());
    };
    if entries.len() != plan.steps.len() {
        return Err(format!(
            "expected has {} for {}: there must be one for each",
            counted(entries.len(), "entry", "entries"),
            counted(plan.steps.len(), "step", "steps")
        ));
    }
    let prints = entries.iter_mut().enumerate().map(|(i, e)| prints_of(i, e)).collect::<Result<_, _>>()?;
    let is_ingress = plan.class_for(&original).is_some();
    let expected = entries.into_iter().enumerate().map(|(i, e)| expectation(i, e, is_ingress));
    let expected = expected.collect::<Result<_, _>>()?;
    Ok((plan, original, expected, prints))
}

/// Takes the text that the script must print out of an expected entry.
fn prints_of(index: usize, entry: &mut Value) -> Result<Option<String>, String> {
    match entry.as_object_mut().and_then(|map| map.remove("prints")) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("expected[{index}].prints must be a text; empty for a script that must print nothing")),
    }
}

fn required(map: &mut Map<String, Value>, key: &str) -> Result<Value, String> {
    map.remove(key).ok_or_else(|| format!("{key} is missing"))
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn expectation(index: usize, mut entry: Value, is_ingress: bool) -> Result<Expected, String> {
    if let Some(map) = entry.as_object()
        && let Some(error) = map.get("error")
    {
        return match error.as_str() {
            Some(text) if map.len() == 1 && !text.is_empty() => Ok(Expected::Error(text.to_owned())),
            _ => Err(format!("expected[{index}].error must be the only key of its entry and a non-empty text")),
        };
    }
    let only_annotations = is_ingress && entry.get("spec").is_none();
    if let Some(map) = entry.as_object_mut().filter(|_| only_annotations) {
        map.insert("spec".to_owned(), Value::Object(Map::new()));
    }
    let parts = Original::from_object(&entry).map_err(|e| format!("expected[{index}].{e}"))?.into_parts();
    Ok(if only_annotations { Expected::Annotations(parts.annotations) } else { Expected::Parts(parts) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
trafficRouting: {spec: {objectRef: [{service: app}], strategy: {weight: 5}}}
original: {apiVersion: g/v1, kind: K, spec: {a: 1}}
expected: [{apiVersion: g/v1, kind: K, metadata: {labels: {a: b}}, spec: {a: 2}}]
";

    fn error(text: &str) -> String {
        Case::parse(Path::new("f.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn reads_a_case() {
        let case = Case::parse(Path::new("f.yaml"), GOOD).unwrap();
        assert_eq!(case.plan.names.canary_service, "app");
        assert_eq!((case.plan.ingress_controller, case.prints), (None, vec![None]));
        let more = GOOD
            .replace("original:", "controller: example.com/c\noriginal:")
            .replace("spec: {a: 2}", "prints: x, spec: {a: 2}");
        let more = Case::parse(Path::new("f.yaml"), &more).unwrap();
        assert_eq!(
            (more.plan.ingress_controller.as_deref(), more.prints),
            (Some("example.com/c"), vec![Some("x".to_owned())])
        );
        assert!(matches!(&case.expected[..], [Expected::Parts(p)] if p.labels["a"] == "b"));
    }

    #[test]
    fn errors_name_file_and_key() {
        let cut = |from: &str, to: &str| GOOD.replace(from, to);
        for (text, message) in [
            (
                format!("{GOOD}orignal: 1\n"),
                "f.yaml: unknown key \"orignal\"; the keys are rollout or trafficRouting, controller, original, and expected",
            ),
            (cut("original:", "rollout:"), "rollout and trafficRouting exclude each other"),
            (cut("trafficRouting", "rollout"), "rollout.spec: "),
            ("[1]".to_owned(), "is not a map"),
            ("expected: []\noriginal: {}".to_owned(), "rollout or trafficRouting is missing"),
            (cut("expected:", "original:"), "duplicate"),
            (cut("apiVersion: g/v1, kind: K, spec: {a: 1}", "kind: K"), "original.apiVersion must be a non-empty"),
            (cut("[{apiVersion", "[{error: x}, {apiVersion"), "expected has 2 entries for 1 step"),
            (cut("kind: K, metadata", "kind: K, error: 1, metadata"), "expected[0].error must be the only key"),
            (cut("spec: {a: 2}", "spec: 2"), "expected[0].spec must be an object"),
            (cut("kind: K, metadata", "kind: K, prints: 1, metadata"), "expected[0].prints must be a text"),
            (cut("original:", "controller: 1\noriginal:"), "controller must be a text"),
            ("a: [".to_owned(), "f.yaml: "),
        ] {
            let found = error(&text);
            assert!(found.starts_with("f.yaml: ") && found.contains(message), "{found}\n  wants {message}");
        }
    }
}
