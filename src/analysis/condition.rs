//! What is true of a good answer, in CEL. Bounded: a short text, no loop in a loop, and [`super::SERIES`] values at most.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use cel::{
    Context, Env, ExecutionError, Value,
    common::ast::{Expr, IdedExpr, SourceInfo},
};
use serde::{Serialize, Serializer};

use super::{Answer, SERIES, judge::Finding};

/// Characters of a condition.
const LONGEST: usize = 512;
/// Signs that are no part of a word, brackets in one another, and `?`: parser and evaluation are recursive, and a pair of
/// brackets takes the parser up to 80 KiB of stack.
const MOST_SIGNS: usize = 100;
const DEEPEST: usize = 5;
const MOST_CHOICES: usize = 4;
/// Operations in one another.
const DEEPEST_TREE: usize = 40;
/// Conditions that are kept read.
const KEPT: usize = 1024;

const NAMES: [&str; 2] = ["value", "values"];
/// Functions beside the operators.
const FUNCTIONS: [&str; 7] = ["size", "double", "int", "string", "startsWith", "endsWith", "contains"];

/// A condition that was read. Cloning shares it.
#[derive(Clone)]
pub struct Condition(Arc<Parsed>);

struct Parsed {
    text: String,
    root: IdedExpr,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Condition({:?})", self.0.text)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Condition) -> bool {
        self.0.text == other.0.text
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.text)
    }
}

impl Condition {
    /// Reads a condition; the same text is read once.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Condition, String> {
        static KNOWN: Mutex<BTreeMap<String, Condition>> = Mutex::new(BTreeMap::new());
        let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(text) {
            return Ok(known.clone());
        }
        let read = guarded(|| read(text)).unwrap_or_else(|| Err(Problem::whole("it cannot be read")));
        let condition = read.map_err(|problem| problem.describe(text))?;
        let mut known = lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(text.to_owned(), condition.clone());
        Ok(condition)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// What an answer means, and a sentence that says it.
    pub fn assess(&self, answer: &Answer) -> Option<(Finding, String)> {
        let (said, found) = match answer {
            Answer::Value(value) if value.is_finite() => (format!("value {value}"), self.hold(Ok(*value), &[*value])),
            Answer::Text(text) => (format!("value {text:?}"), self.hold(Err(text), &[])),
            Answer::Several { count, values } if *count <= SERIES && self.names("values") => {
                // Of a ratio: nothing was counted.
                let values: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
                if values.is_empty() {
                    return None;
                }
                (format!("values {}", list(&values)), self.hold(Err(""), &values))
            }
            _ => return None,
        };
        Some(match found {
            Ok(true) => (Finding::Passed, format!("{said}: {} holds", self.text())),
            Ok(false) => (Finding::Failed, format!("{said}: {} does not hold", self.text())),
            Err(why) => (Finding::Inconclusive, format!("{said}: {} cannot be told: {why}", self.text())),
        })
    }

    fn names(&self, name: &str) -> bool {
        self.0.root.references().has_variable(name)
    }

    fn hold(&self, value: Result<f64, &str>, values: &[f64]) -> Result<bool, String> {
        match guarded(|| evaluate(&self.0.root, value, values)) {
            Some(Ok(Value::Bool(holds))) => Ok(holds),
            Some(Ok(other)) => Err(format!("it is a {}", other.type_of())),
            Some(Err(error)) => Err(short(&error.to_string())),
            None => Err("it cannot be evaluated".to_owned()),
        }
    }
}

/// The first few, for people.
pub(super) fn list(values: &[f64]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = values.iter().take(SHOWN).map(f64::to_string).collect();
    let more = if values.len() > SHOWN { format!(", … ({} in all)", values.len()) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.get(..line.floor_char_boundary(200)).unwrap_or_default().to_owned()
}

/// A library that gives up must not take the controller with it.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

fn env() -> Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    ENV.get_or_init(|| Arc::new(Env::stdlib())).clone()
}

fn evaluate(root: &IdedExpr, value: Result<f64, &str>, values: &[f64]) -> Result<Value, ExecutionError> {
    let mut context = Context::with_env(env());
    let value = match value {
        Ok(number) => Value::Float(number),
        Err(text) => Value::String(Arc::new(text.to_owned())),
    };
    context.add_variable_from_value("value", value);
    let values: Vec<Value> = values.iter().map(|value| Value::Float(*value)).collect();
    context.add_variable_from_value("values", Value::List(Arc::new(values)));
    context.resolve(root)
}

/// What is wrong with a condition.
struct Problem {
    /// The character, 1-based, where it is known.
    at: Option<usize>,
    what: String,
}

impl Problem {
    fn whole(what: impl Into<String>) -> Problem {
        Problem { at: None, what: what.into() }
    }

    fn describe(&self, text: &str) -> String {
        let place = self.at.map(|at| format!(" at character {at}")).unwrap_or_default();
        format!("`{}` is no condition{place}: {}", short(text), self.what)
    }
}

fn read(text: &str) -> Result<Condition, Problem> {
    check_size(text)?;
    let parser = env().parser().max_recursion_depth(32).error_recovery_limit(4);
    let (root, places) = parser.parse_with_source_info(text).map_err(|errors| {
        let first = errors.errors.first();
        let at = first.and_then(|error| place(text, error.pos));
        let what = first.map_or("it cannot be read", |error| error.msg.as_str());
        Problem { at, what: short(what) }
    })?;
    Walk { places: &places, bound: Vec::new(), loops: 0 }.visit(&root, 0)?;
    // Types are known when it runs; once is enough to see what is no condition at all.
    let trials = [evaluate(&root, Ok(0.5), &[0.5]), evaluate(&root, Err("x"), &[0.5])];
    let problem = |trial: &Result<Value, ExecutionError>| match trial {
        Ok(Value::Bool(_)) => None,
        Ok(other) => Some(format!("it is a {} instead of true or false", other.type_of())),
        // Of the trial's values, perhaps not of others.
        Err(
            ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::DivisionByZero(_)
            | ExecutionError::RemainderByZero(_)
            | ExecutionError::Overflow(..)
            | ExecutionError::FunctionError { .. },
        ) => None,
        Err(error) => Some(short(&error.to_string())),
    };
    match trials.each_ref().map(problem) {
        [Some(what), Some(_)] => Err(Problem::whole(what)),
        _ => Ok(Condition(Arc::new(Parsed { text: text.to_owned(), root }))),
    }
}

/// Before the parser sees it.
fn check_size(text: &str) -> Result<(), Problem> {
    if text.chars().count() > LONGEST {
        return Err(Problem::whole(format!("it has more than {LONGEST} characters")));
    }
    let (mut signs, mut depth, mut choices) = (0_usize, 0_usize, 0_usize);
    for (at, c) in text.chars().enumerate() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => choices += 1,
            _ => {}
        }
        if !c.is_alphanumeric() && !c.is_whitespace() && c != '_' {
            signs += 1;
        }
        if depth > DEEPEST || signs > MOST_SIGNS || choices > MOST_CHOICES {
            return Err(Problem { at: Some(at + 1), what: "it is too complicated; keep it short".to_owned() });
        }
    }
    Ok(())
}

/// Line and column, both 1-based or 0 where unknown, as a character of the text.
fn place(text: &str, (line, column): (isize, isize)) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?.checked_sub(1)?, usize::try_from(column).ok()?);
    let before: usize = text.split_inclusive('\n').take(line).map(|l| l.chars().count()).sum();
    Some(before + column.max(1))
}

/// Looks for what a condition may not have.
struct Walk<'a> {
    places: &'a SourceInfo,
    /// Names that loops bring.
    bound: Vec<String>,
    loops: usize,
}

impl Walk<'_> {
    fn wrong(&self, at: &IdedExpr, what: impl Into<String>) -> Problem {
        let start = self.places.offset_for(at.id).and_then(|(start, _)| usize::try_from(start).ok());
        Problem { at: start.map(|start| start + 1), what: what.into() }
    }

    fn visit(&mut self, at: &IdedExpr, depth: usize) -> Result<(), Problem> {
        if depth > DEEPEST_TREE {
            return Err(self.wrong(at, "it is too complicated; keep it short"));
        }
        match &at.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) if NAMES.contains(&name.as_str()) || self.bound.contains(name) => Ok(()),
            Expr::Ident(name) => Err(self.wrong(at, format!("{name} is not known; there are {}", NAMES.join(" and ")))),
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element, depth + 1)),
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if !name.contains(['_', '@']) && !FUNCTIONS.contains(&name) {
                    return Err(
                        self.wrong(at, format!("there is no function {name}; there are {}", FUNCTIONS.join(", ")))
                    );
                }
                call.target.iter().map(AsRef::as_ref).chain(&call.args).try_for_each(|e| self.visit(e, depth + 1))
            }
            Expr::Comprehension(each) => {
                if self.loops > 0 {
                    return Err(self.wrong(at, "a loop within a loop"));
                }
                self.visit(&each.iter_range, depth + 1)?;
                self.visit(&each.accu_init, depth + 1)?;
                let names = [Some(&each.iter_var), each.iter_var2.as_ref(), Some(&each.accu_var)];
                let before = self.bound.len();
                self.bound.extend(names.into_iter().flatten().cloned());
                self.loops += 1;
                [&each.loop_cond, &each.loop_step, &each.result]
                    .into_iter()
                    .try_for_each(|e| self.visit(e, depth + 1))?;
                self.loops -= 1;
                self.bound.truncate(before);
                Ok(())
            }
            Expr::Select(_) => Err(self.wrong(at, "numbers and texts have no fields")),
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Err(self.wrong(at, "no map is needed here")),
        }
    }
}

#[cfg(test)]
mod tests;
