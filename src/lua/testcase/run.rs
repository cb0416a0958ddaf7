//! Running cases and judging what came of them.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use similar::TextDiff;

use super::{
    accepted::AnyCase,
    file::{Case, Expected},
    scripts::ScriptSource,
};
use crate::lua::{Engine, Script, ScriptError};
use crate::traffic::Parts;
use crate::yaml;

/// What came of all cases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each file, in the order given.
    pub cases: Vec<CaseResult>,
    /// Wall-clock time of all.
    pub elapsed: Duration,
}

/// What came of one file.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The file.
    pub path: PathBuf,
    /// The script it was run with; absent when none was found.
    pub script: Option<String>,
    /// The steps, or why none could be run.
    pub steps: Result<Vec<StepResult>, String>,
}

/// What came of one step.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// From 1.
    pub step: usize,
    /// The judgement.
    pub verdict: Verdict,
    /// What the script printed, a line each.
    pub prints: Vec<String>,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// Steps of the engine's budget used; absent when the script failed.
    pub fuel: Option<u64>,
    /// Wall-clock time.
    pub elapsed: Duration,
}

/// The judgement of one step.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// The result is another one.
    Differs {
        /// What the case says.
        expected: Parts,
        /// What the script returned.
        found: Parts,
    },
    /// The script failed.
    Failed(Box<ScriptError>),
    /// The script returned something that is no object's spec, labels and annotations.
    BadOutput(String),
    /// The result is right, but the script did not print what it must.
    OtherWords {
        /// Text that the case wants printed; empty for none.
        expected: String,
    },
    /// What a status says is read as something else.
    OtherAnswer {
        /// What the case says.
        expected: String,
        /// What the script said.
        found: String,
    },
    /// The script must fail and did not.
    ErrorMissing {
        /// Text of the error that the case wants.
        expected: String,
        /// What the script returned instead.
        found: Parts,
    },
    /// The script must fail, and did with another message.
    OtherError {
        /// Text of the error that the case wants.
        expected: String,
        /// How it failed instead.
        found: Box<ScriptError>,
    },
}

impl Report {
    /// Number of files of which every step is as expected.
    pub fn passed(&self) -> usize {
        self.cases.iter().filter(|c| c.passed()).count()
    }

    /// Number of files with a step that is not as expected.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|c| c.steps.is_ok() && !c.passed()).count()
    }

    /// Number of files that could not be run.
    pub fn unusable(&self) -> usize {
        self.cases.iter().filter(|c| c.steps.is_err()).count()
    }

    /// Number of steps run.
    pub fn steps(&self) -> usize {
        self.cases.iter().filter_map(|c| c.steps.as_ref().ok()).map(Vec::len).sum()
    }
}

impl CaseResult {
    /// True when every step is as expected.
    pub fn passed(&self) -> bool {
        self.steps.as_ref().is_ok_and(|s| s.iter().all(|s| s.verdict == Verdict::Passed))
    }
}

impl Verdict {
    /// One line for people; empty when passed.
    pub fn message(&self) -> String {
        match self {
            Verdict::Passed => String::new(),
            Verdict::Differs { .. } => "the result differs from what is expected".to_owned(),
            Verdict::Failed(error) => error.to_string(),
            Verdict::BadOutput(message) => message.clone(),
            Verdict::OtherWords { expected } if expected.is_empty() => {
                "the script must print nothing and did".to_owned()
            }
            Verdict::OtherWords { expected } => format!("the script must print {expected:?} and did not"),
            Verdict::OtherAnswer { expected, found } => format!("the script must say {expected}, and says {found}"),
            Verdict::ErrorMissing { expected, .. } => {
                format!("the script succeeded, but must fail with {expected:?}")
            }
            Verdict::OtherError { expected, found } => {
                format!("the script failed with another error than {expected:?}: {found}")
            }
        }
    }

    /// What is to be seen beyond the message: a unified diff of YAML from expected to found, or the lines of the
    /// script around the error.
    pub fn detail(&self) -> Option<String> {
        match self {
            Verdict::Passed | Verdict::BadOutput(_) | Verdict::OtherWords { .. } | Verdict::OtherAnswer { .. } => None,
            Verdict::Differs { expected, found } => Some(diff(expected, found)),
            Verdict::ErrorMissing { found, .. } => Some(text(found)),
            Verdict::Failed(error) | Verdict::OtherError { found: error, .. } => {
                let report = error.report();
                // The first line is the message.
                let rest = report.split_once('\n').map(|(_, rest)| rest.trim_start_matches('\n').to_owned());
                rest.filter(|r| !r.is_empty())
            }
        }
    }
}

fn diff(expected: &Parts, found: &Parts) -> String {
    let (expected, found) = (text(expected), text(found));
    let diff = TextDiff::from_lines(&expected, &found);
    diff.unified_diff().context_radius(3).header("expected", "found").to_string()
}

/// YAML of what is there: empty labels and annotations are left out.
fn text(parts: &Parts) -> String {
    let mut map = serde_json::Map::new();
    if !parts.spec.is_null() {
        map.insert("spec".to_owned(), parts.spec.clone());
    }
    for (key, strings) in [("labels", &parts.labels), ("annotations", &parts.annotations)] {
        if !strings.is_empty() {
            map.insert(key.to_owned(), json!(strings));
        }
    }
    yaml::to_string(&map).unwrap_or_else(|e| format!("cannot be written as YAML: {e}\n"))
}

/// Runs case files on up to `jobs` threads. The engine should have as many workers.
pub fn run(engine: &Engine, files: &[PathBuf], scripts: &ScriptSource, jobs: usize) -> Report {
    let start = Instant::now();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(files.len()));
    let work = || {
        let mut mine = Vec::new();
        while let Some(path) = {
            let i = next.fetch_add(1, Ordering::Relaxed);
            files.get(i).map(|path| (i, path))
        } {
            mine.push((path.0, run_case(engine, path.1, scripts)));
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).extend(mine);
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs.min(files.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut cases = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    cases.sort_by_key(|(i, _)| *i);
    Report { cases: cases.into_iter().map(|(_, c)| c).collect(), elapsed: start.elapsed() }
}

/// Runs one case file.
pub fn run_case(engine: &Engine, path: &std::path::Path, scripts: &ScriptSource) -> CaseResult {
    let result = |script, steps| CaseResult { path: path.to_owned(), script, steps };
    let case = match AnyCase::read(path) {
        Ok(case) => case,
        Err(e) => return result(None, Err(e.message)),
    };
    let script = match case.script(scripts) {
        Ok(script) => script,
        Err(message) => return result(None, Err(message)),
    };
    let steps = case.steps(engine, &script).collect();
    result(Some(script.name), Ok(steps))
}

/// Runs the steps of a case, each when it is asked for.
pub fn run_steps<'a>(
    engine: &'a Engine,
    case: &'a Case,
    script: &'a Script,
) -> impl Iterator<Item = StepResult> + use<'a> {
    case.plan.steps.iter().zip(&case.expected).enumerate().map(move |(i, (strategy, expected))| {
        let input = case.plan.input(&case.original, script, strategy);
        let take = |value| case.plan.output(&case.original, script, value);
        let step = run_step(engine, script, i + 1, &input, take, expected);
        heard(step, case.prints.get(i).and_then(Option::as_deref))
    })
}

/// Not passed when the script did not print this text; or anything, when it is empty.
fn heard(step: StepResult, wanted: Option<&str>) -> StepResult {
    let Some(text) = wanted.filter(|_| step.verdict == Verdict::Passed) else { return step };
    let said =
        if text.is_empty() { step.prints.is_empty() } else { step.prints.iter().any(|line| line.contains(text)) };
    if said { step } else { StepResult { verdict: Verdict::OtherWords { expected: text.to_owned() }, ..step } }
}

fn run_step(
    engine: &Engine,
    script: &Script,
    step: usize,
    input: &Value,
    take: impl FnOnce(Value) -> Result<Parts, String>,
    expected: &Expected,
) -> StepResult {
    run_script(engine, script, step, input, |run| judge(run.map(take), expected))
}

/// Runs a script once, and judges what came of it.
pub(super) fn run_script(
    engine: &Engine,
    script: &Script,
    step: usize,
    input: &Value,
    judge: impl FnOnce(Result<Value, ScriptError>) -> Verdict,
) -> StepResult {
    let start = Instant::now();
    let run = engine.run(script, input);
    let (prints, warnings, fuel, run) = match run {
        Ok(outcome) => (outcome.prints, outcome.warnings, Some(outcome.fuel_used), Ok(outcome.value)),
        Err(error) => (Vec::new(), Vec::new(), None, Err(error)),
    };
    StepResult { step, verdict: judge(run), prints, warnings, fuel, elapsed: start.elapsed() }
}

fn judge(run: Result<Result<Parts, String>, ScriptError>, expected: &Expected) -> Verdict {
    let found = match (run, expected) {
        (Ok(Ok(found)), _) => found,
        (Ok(Err(bad)), Expected::Error(text)) if bad.contains(text) => return Verdict::Passed,
        (Ok(Err(bad)), _) => return Verdict::BadOutput(bad),
        (Err(error), Expected::Error(text)) if error.message.contains(text) => return Verdict::Passed,
        (Err(error), Expected::Error(text)) => {
            return Verdict::OtherError { expected: text.clone(), found: Box::new(error) };
        }
        (Err(error), _) => return Verdict::Failed(Box::new(error)),
    };
    let (expected, found) = match expected {
        Expected::Error(text) => return Verdict::ErrorMissing { expected: text.clone(), found },
        Expected::Parts(parts) => (parts.clone(), found),
        Expected::Annotations(annotations) => {
            // What the case does not speak of is not looked at.
            let only = |annotations| Parts { annotations, ..Parts::default() };
            (only(annotations.clone()), only(found.annotations))
        }
    };
    let equal = same(&expected.spec, &found.spec)
        && expected.labels == found.labels
        && expected.annotations == found.annotations;
    if equal { Verdict::Passed } else { Verdict::Differs { expected, found } }
}

/// Equality with numbers by value: 100 and 100.0 are one number in Kubernetes' JSON.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || ((a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::Origin;
    use crate::traffic::output;
    use std::collections::BTreeMap;

    fn verdict(source: &str, expected: &Expected) -> Verdict {
        let script = Script::new("s.lua", source, Origin::BuiltIn);
        let input = json!({"data": {"spec": {"a": 100, "l": [], "n": null}}});
        let take = |value| output(value).map_err(|e| e.to_string());
        run_step(&Engine::new(1), &script, 1, &input, take, expected).verdict
    }

    fn parts(spec: Value) -> Expected {
        Expected::Parts(Parts { spec, labels: BTreeMap::new(), annotations: BTreeMap::new() })
    }

    #[test]
    fn results_are_compared_by_value() {
        let same = parts(json!({"a": 100.0, "l": [], "n": null}));
        assert_eq!(verdict("return obj.data", &same), Verdict::Passed);
        assert!(matches!(verdict("obj.data.spec.a = 99 return obj.data", &same), Verdict::Differs { .. }));
        assert!(matches!(verdict("obj.data.labels = {a = 'b'} return obj.data", &same), Verdict::Differs { .. }));
    }

    #[test]
    fn failures_tell_what_and_where() {
        let any = parts(json!({}));
        let failed = verdict("local x\nreturn x.y", &any);
        assert!(failed.message().starts_with("s.lua:2: "), "{}", failed.message());
        assert!(failed.detail().unwrap().contains("> 2 | return x.y"), "{:?}", failed.detail());
        assert!(matches!(verdict("return 1", &any), Verdict::Failed(_)));
        let bad = verdict("return {spec = {}, labels = {a = 1}}", &any);
        assert!(bad.message().contains("labels[\"a\"]"), "{}", bad.message());
    }

    #[test]
    fn a_step_that_must_fail() {
        let wanted = Expected::Error("no route".to_owned());
        assert_eq!(verdict("error('there is no route to it')", &wanted), Verdict::Passed);
        assert!(matches!(verdict("error('other')", &wanted), Verdict::OtherError { .. }));
        assert!(matches!(verdict("return obj.data", &wanted), Verdict::ErrorMissing { .. }));
    }

    #[test]
    fn the_diff_is_of_yaml() {
        let differs = verdict("obj.data.spec.a = 99 return obj.data", &parts(json!({"a": 100, "l": [], "n": null})));
        let diff = differs.detail().unwrap();
        assert!(diff.contains("\n-  a: 100\n+  a: 99\n"), "{diff}");
        assert!(diff.starts_with("--- expected\n+++ found\n"), "{diff}");
    }
}
