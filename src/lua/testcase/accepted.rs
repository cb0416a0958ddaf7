//! Cases of scripts that read a status: one object, and what is made of each status that it may have.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{
    file::{Case, CaseError},
    run::{StepResult, Verdict, run_script, run_steps},
    scripts::ScriptSource,
};
use crate::{
    api::object,
    lua::{Engine, Script, ScriptError},
    traffic::acceptance::{Answer, Verdict as Word, answer, script_input},
    yaml,
};

/// A case file of either sort.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyCase {
    /// Of a script that changes an object.
    Route(Box<Case>),
    /// Of a script that reads an object's status; its steps are the statuses.
    Status(StatusCase),
}

/// A case file of a script that reads a status.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusCase {
    /// The file.
    pub path: PathBuf,
    /// API group of the object.
    pub group: String,
    /// Its kind.
    pub kind: String,
    entries: Vec<Entry>,
}

/// One status.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    object: Value,
    expected: Expected,
}

#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Answer(Answer),
    Error(String),
}

impl AnyCase {
    /// Reads a case file.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn read(path: &Path) -> Result<AnyCase, CaseError> {
        let err = |message: String| CaseError { path: path.to_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| err(format!("cannot be read: {e}")))?;
        AnyCase::parse(path, &text)
    }

    /// Reads the text of a case file: one with a key `object` is of a status.
    ///
    /// # Errors
    /// As [`Case::parse`].
    pub fn parse(path: &Path, text: &str) -> Result<AnyCase, CaseError> {
        match yaml::from_str::<Value>(text) {
            Ok(Value::Object(map)) if map.contains_key("object") => {
                parse(path, map).map(AnyCase::Status).map_err(|message| CaseError { path: path.to_owned(), message })
            }
            _ => Case::parse(path, text).map(|case| AnyCase::Route(Box::new(case))),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            AnyCase::Route(case) => &case.path,
            AnyCase::Status(case) => &case.path,
        }
    }

    /// Its script.
    ///
    /// # Errors
    /// As [`ScriptSource::script`].
    pub fn script(&self, scripts: &ScriptSource) -> Result<Script, String> {
        match self {
            AnyCase::Route(case) => scripts.script(case),
            AnyCase::Status(case) => scripts.for_status(&case.group, &case.kind),
        }
    }

    /// Runs its steps, each when it is asked for.
    pub fn steps<'a>(&'a self, engine: &'a Engine, script: &'a Script) -> Box<dyn Iterator<Item = StepResult> + 'a> {
        match self {
            AnyCase::Route(case) => Box::new(run_steps(engine, case, script)),
            AnyCase::Status(case) => {
                let entries = case.entries.iter().enumerate();
                Box::new(entries.map(|(i, entry)| {
                    let judge = |run: Result<Value, ScriptError>| judge(run, &entry.expected);
                    run_script(engine, script, i + 1, &script_input(&entry.object), judge)
                }))
            }
        }
    }
}

fn parse(path: &Path, mut map: Map<String, Value>) -> Result<StatusCase, String> {
    let object = map.remove("object").filter(Value::is_object).ok_or("object is not a map")?;
    let expected = map.remove("expected");
    if let Some(key) = map.keys().next() {
        return Err(format!("unknown key {key:?}; the keys of a status' case are object and expected"));
    }
    let Some(Value::Array(entries)) = expected else {
        return Err("expected is not a list with one entry for each status".to_owned());
    };
    if entries.is_empty() {
        return Err("expected is empty: it needs an entry for each status".to_owned());
    }
    let (api_version, kind) = (object::text(&object, &["apiVersion"]), object::text(&object, &["kind"]));
    if api_version.is_empty() || kind.is_empty() {
        return Err("object.apiVersion and object.kind must be non-empty texts".to_owned());
    }
    let (group, kind) = (object::group(api_version).to_owned(), kind.to_owned());
    let entries = entries.into_iter().enumerate();
    let entries = entries.map(|(i, entry)| read_entry(&object, entry).map_err(|e| format!("expected[{i}]{e}")));
    Ok(StatusCase { path: path.to_owned(), group, kind, entries: entries.collect::<Result<_, _>>()? })
}

/// What differs from the object is named by `status`, `spec` and `metadata`; the rest is what the script must say.
fn read_entry(object: &Value, entry: Value) -> Result<Entry, String> {
    let Value::Object(mut entry) = entry else { return Err(" is not a map".to_owned()) };
    let mut object = object.clone();
    for field in ["metadata", "spec", "status"] {
        if let (Some(value), Some(map)) = (entry.remove(field), object.as_object_mut()) {
            map.insert(field.to_owned(), value);
        }
    }
    let text = |entry: &mut Map<String, Value>, key: &str| match entry.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(format!(".{key} must be a non-empty text")),
    };
    // For people.
    text(&mut entry, "about")?;
    let error = text(&mut entry, "error")?;
    let verdict = text(&mut entry, "verdict")?;
    let reason = text(&mut entry, "reason")?.unwrap_or_default();
    let is_undated = match entry.remove("undated") {
        None => false,
        Some(Value::Bool(undated)) => undated,
        Some(_) => return Err(".undated must be true or false".to_owned()),
    };
    if let Some(key) = entry.keys().next() {
        return Err(format!(
            " has unknown key {key:?}; the keys are about, metadata, spec, status, and verdict, reason, undated, or error"
        ));
    }
    let expected = match (error, verdict) {
        (Some(error), None) if reason.is_empty() && !is_undated => Expected::Error(error),
        (None, Some(verdict)) => {
            let names = || Word::ALL.map(|(name, _)| name).join(", ");
            let verdict =
                Word::parse(&verdict).ok_or_else(|| format!(".verdict is {verdict:?}, none of {}", names()))?;
            Expected::Answer(Answer { verdict, reason, is_undated })
        }
        _ => return Err(" needs either verdict, with reason and undated where they are said, or error".to_owned()),
    };
    Ok(Entry { object, expected })
}

fn judge(run: Result<Value, ScriptError>, expected: &Expected) -> Verdict {
    let found = match (run, expected) {
        (Err(error), Expected::Error(text)) if error.message.contains(text) => return Verdict::Passed,
        (Err(error), Expected::Error(text)) => {
            return Verdict::OtherError { expected: text.clone(), found: Box::new(error) };
        }
        (Err(error), _) => return Verdict::Failed(Box::new(error)),
        (Ok(value), _) => match answer(&value) {
            Ok(found) => found,
            Err(bad) => return Verdict::BadOutput(bad),
        },
    };
    let wanted = match expected {
        Expected::Error(text) => format!("an error with {text:?}"),
        Expected::Answer(wanted) => {
            // A reason need not be told in full; where none is told there is none.
            let same_reason =
                if wanted.reason.is_empty() { found.reason.is_empty() } else { found.reason.contains(&wanted.reason) };
            if (wanted.verdict, wanted.is_undated) == (found.verdict, found.is_undated) && same_reason {
                return Verdict::Passed;
            }
            told(wanted)
        }
    };
    Verdict::OtherAnswer { expected: wanted, found: told(&found) }
}

fn told(answer: &Answer) -> String {
    let undated = if answer.is_undated { " (undated)" } else { "" };
    let reason = if answer.reason.is_empty() { String::new() } else { format!(": {}", answer.reason) };
    format!("{}{undated}{reason}", answer.verdict.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::Origin;

    const GOOD: &str = "
object: {apiVersion: g/v1, kind: K, metadata: {generation: 2}}
expected:
- {about: nothing yet, verdict: unreported, reason: no word}
- {status: {x: 1}, verdict: accepted, undated: true}
- {status: {x: 2}, error: 'no'}
";
    const SCRIPT: &str = "
local x = obj.status and obj.status.x
if not x then return {verdict = 'unreported', reason = 'no word at ' .. obj.metadata.generation} end
if x == 2 then error('no') end
return {verdict = 'accepted', undated = true}";

    fn results(case: &str, script: &str) -> Vec<Verdict> {
        let case = AnyCase::parse(Path::new("f.yaml"), case).unwrap();
        let script = Script::new("s.lua", script, Origin::BuiltIn);
        case.steps(&Engine::new(1), &script).map(|step| step.verdict).collect()
    }

    #[test]
    fn every_status_is_judged() {
        assert_eq!(results(GOOD, SCRIPT), [Verdict::Passed, Verdict::Passed, Verdict::Passed]);
        let wrong = results(&GOOD.replace("undated: true", "reason: fine"), SCRIPT);
        assert_eq!(
            wrong[1],
            Verdict::OtherAnswer { expected: "accepted: fine".into(), found: "accepted (undated)".into() }
        );
        let wrong = results(&GOOD.replace("{x: 2}", "{x: 1}"), SCRIPT);
        assert!(matches!(&wrong[2], Verdict::OtherAnswer { expected, .. } if expected == "an error with \"no\""));
        assert!(matches!(results(GOOD, "return {verdict = 1}")[0], Verdict::BadOutput(_)));
    }

    #[test]
    fn errors_name_file_and_key() {
        for (from, to, message) in [
            ("object:", "original: 1\nobject:", "unknown key \"original\""),
            ("kind: K", "kind: ''", "object.kind must be non-empty"),
            ("verdict: unreported", "verdict: perhaps", "expected[0].verdict is \"perhaps\", none of accepted, "),
            ("undated: true", "undated: 1", "expected[1].undated must be true or false"),
            ("error: 'no'", "error: 'no', verdict: accepted", "expected[2] needs either verdict"),
            ("about:", "abuot:", "expected[0] has unknown key \"abuot\""),
        ] {
            let found = AnyCase::parse(Path::new("f.yaml"), &GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(found.starts_with("f.yaml: ") && found.contains(message), "{found}\n  wants {message}");
        }
    }
}
