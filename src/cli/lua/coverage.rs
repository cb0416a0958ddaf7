//! What of a script its cases run: lines, and branches, the two ways that each condition can go.
//!
//! A case is run once more with a script in whose text every statement and condition says that it was reached. Nothing of
//! that run counts but what it says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use full_moon::{
    ast::{Ast, ElseIf, Expression, If, LastStmt, Repeat, Stmt, While},
    node::Node,
    tokenizer::Position,
    visitors::Visitor,
};
use serde::Serialize;

use crate::lua::{
    Engine, Script,
    testcase::{AnyCase, ScriptSource},
};

/// What a changed script prints in front of what was reached. No text of a script begins so.
const MARK: &str = "\u{1}reached";

/// Of one script.
#[derive(Debug, Serialize)]
pub(super) struct Coverage {
    script: String,
    /// Lines on which a statement begins.
    lines: usize,
    #[serde(rename = "linesRun")]
    lines_run: usize,
    /// Two for each condition.
    branches: usize,
    #[serde(rename = "branchesRun")]
    branches_run: usize,
    #[serde(rename = "neverRun")]
    never_run: Vec<usize>,
    /// `line:column` of conditions.
    #[serde(rename = "neverTrue")]
    never_true: Vec<String>,
    #[serde(rename = "neverFalse")]
    never_false: Vec<String>,
}

/// Runs the cases once more. Files that are no case, and scripts that cannot be read into, are left out.
pub(super) fn measure(engine: &Engine, files: &[PathBuf], scripts: &ScriptSource) -> Vec<Coverage> {
    let mut subjects: BTreeMap<String, Subject> = BTreeMap::new();
    for case in files.iter().filter_map(|path| AnyCase::read(path).ok()) {
        let Ok(script) = case.script(scripts) else { continue };
        if !subjects.contains_key(&script.name) {
            let Some(subject) = Subject::of(&script) else { continue };
            subjects.insert(script.name.clone(), subject);
        }
        let Some(subject) = subjects.get_mut(&script.name) else { continue };
        let said: Vec<String> = case.steps(engine, &subject.telling).flat_map(|step| step.prints).collect();
        said.iter().filter_map(|line| line.strip_prefix(MARK)).for_each(|ids| subject.note(ids));
    }
    subjects.into_iter().map(|(name, subject)| subject.coverage(name)).collect()
}

/// For people.
pub(super) fn text(all: &[Coverage]) -> String {
    let mut out = String::new();
    for of in all {
        let share = |part: usize, whole: usize| if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 };
        let _ = writeln!(
            out,
            "{}: {} of {} lines ({:.1} %), {} of {} branches ({:.1} %)",
            of.script,
            of.lines_run,
            of.lines,
            share(of.lines_run, of.lines),
            of.branches_run,
            of.branches,
            share(of.branches_run, of.branches),
        );
        let lines: Vec<String> = of.never_run.iter().map(usize::to_string).collect();
        for (what, places) in
            [("never run: line", &lines), ("never true:", &of.never_true), ("never false:", &of.never_false)]
        {
            if !places.is_empty() {
                let _ = writeln!(out, "  {what} {}", places.join(", "));
            }
        }
    }
    out
}

/// A place in a script that says when it is reached, by its number.
enum Place {
    /// A statement.
    Line(usize),
    /// A condition that was true, or false.
    Branch { line: usize, column: usize, is_true: bool },
}

struct Subject {
    telling: Script,
    places: Vec<Place>,
    reached: BTreeSet<usize>,
}

impl Subject {
    fn of(script: &Script) -> Option<Subject> {
        let ast = full_moon::parse(&script.source).ok()?;
        let mut collector = Collector::default();
        collector.visit_ast(&ast);
        let source = collector.telling(&ast, &script.source)?;
        let telling = Script::new(script.name.clone(), source, script.origin.clone());
        Some(Subject { telling, places: collector.places, reached: BTreeSet::new() })
    }

    fn note(&mut self, ids: &str) {
        self.reached.extend(ids.split_whitespace().filter_map(|id| id.parse::<usize>().ok()));
    }

    fn coverage(&self, script: String) -> Coverage {
        let mut lines: BTreeMap<usize, bool> = BTreeMap::new();
        let (mut branches, mut never_true, mut never_false) = (0, Vec::new(), Vec::new());
        for (i, place) in self.places.iter().enumerate() {
            let is_reached = self.reached.contains(&i);
            match place {
                Place::Line(line) => *lines.entry(*line).or_default() |= is_reached,
                Place::Branch { line, column, is_true } => {
                    branches += 1;
                    if !is_reached {
                        let never = if *is_true { &mut never_true } else { &mut never_false };
                        never.push(format!("{line}:{column}"));
                    }
                }
            }
        }
        let never_run: Vec<usize> = lines.iter().filter(|(_, reached)| !**reached).map(|(line, _)| *line).collect();
        Coverage {
            script,
            lines: lines.len(),
            lines_run: lines.len() - never_run.len(),
            branches,
            branches_run: branches - never_true.len() - never_false.len(),
            never_run,
            never_true,
            never_false,
        }
    }
}

#[derive(Default)]
struct Collector {
    places: Vec<Place>,
    /// What comes in, by the byte before which.
    added: Vec<(usize, String)>,
}

impl Collector {
    fn statement(&mut self, node: &dyn Node) {
        let Some(start) = node.start_position() else { return };
        self.added.push((start.bytes(), format!("_reached({});", self.places.len())));
        self.places.push(Place::Line(start.line()));
    }

    fn condition(&mut self, node: &Expression) {
        // Not its end position, which leaves a last bracket out.
        let end = node.tokens().map(|token| token.token().end_position().bytes()).max();
        let (Some(start), Some(end)) = (node.start_position(), end) else { return };
        self.added.push((start.bytes(), format!("_went({}, ", self.places.len())));
        self.added.push((end, ")".to_owned()));
        let (line, column) = (start.line(), start.character());
        self.places.extend([true, false].map(|is_true| Place::Branch { line, column, is_true }));
    }

    /// The text that tells. Lines stay where they are, and so does the comment in front, which is read as well.
    fn telling(&mut self, ast: &Ast, source: &str) -> Option<String> {
        let begin = ast.nodes().start_position().map_or(source.len(), Position::bytes);
        self.added.sort_by_key(|(at, _)| *at);
        let mut text = source.get(..begin)?.to_owned();
        text += "local _all, _said, _print = {}, {}, print local print = function() end ";
        text += "local function _reached(i) if not _said[i] then _said[i] = true _all[#_all + 1] = i end end ";
        text += "local function _went(i, value) _reached(value and i or i + 1) return value end ";
        text += "local _ok, _result = pcall(function() ";
        let mut at = begin;
        for (next, added) in &self.added {
            text += source.get(at..*next)?;
            text += added;
            at = *next;
        }
        text += source.get(at..)?;
        let _ = write!(text, "\nend) _print('{MARK} ' .. table.concat(_all, ' ')) return _ok and _result or {{}}");
        Some(text)
    }
}

impl Visitor for Collector {
    fn visit_stmt(&mut self, node: &Stmt) {
        self.statement(node);
    }

    fn visit_last_stmt(&mut self, node: &LastStmt) {
        self.statement(node);
    }

    fn visit_if(&mut self, node: &If) {
        self.condition(node.condition());
    }

    fn visit_else_if(&mut self, node: &ElseIf) {
        self.condition(node.condition());
    }

    fn visit_while(&mut self, node: &While) {
        self.condition(node.condition());
    }

    fn visit_repeat(&mut self, node: &Repeat) {
        self.condition(node.until());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::{Library, Origin};
    use serde_json::json;

    /// Which places inputs reach, as `never run / never true / never false`.
    fn gaps(source: &str, inputs: &[i64]) -> String {
        let script = Script::new("s.lua", source, Origin::BuiltIn);
        let mut subject = Subject::of(&script).unwrap();
        let engine = Engine::new(1);
        for input in inputs {
            let outcome = engine.run(&subject.telling, &json!({"n": input})).unwrap();
            outcome.prints.iter().filter_map(|l| l.strip_prefix(MARK)).for_each(|ids| subject.note(ids));
        }
        let of = subject.coverage("s.lua".to_owned());
        format!("{:?} / {} / {}", of.never_run, of.never_true.join(" "), of.never_false.join(" "))
    }

    #[test]
    fn lines_and_branches() {
        let source = "-- A header.\nlocal n = obj.n\nif n > 1 then\n  n = 2\nelseif n == 1 then\n  error('one')\nend\nreturn { n = n }";
        assert_eq!(gaps(source, &[]), "[2, 3, 4, 6, 8] / 3:4 5:8 / 3:4 5:8");
        assert_eq!(gaps(source, &[5]), "[6] / 5:8 / 3:4 5:8");
        // A script that fails says how far it came.
        assert_eq!(gaps(source, &[5, 1]), "[] /  / 5:8");
        assert_eq!(gaps(source, &[5, 1, 0]), "[] /  / ");
    }

    #[test]
    fn a_condition_ends_with_its_last_bracket() {
        assert_eq!(gaps("local t = { 1 }\nif t[obj.n] then return t end\nreturn {}", &[1, 2]), "[] /  / ");
    }

    /// Each can be read into, and then says what it reaches.
    #[test]
    fn built_in_scripts_tell() {
        let engine = Engine::new(1);
        for script in Library::list().into_iter().chain(Library::list_accepted()) {
            engine.check(&Subject::of(&script).unwrap().telling).unwrap();
        }
    }

    #[test]
    fn loops_functions_and_what_is_printed() {
        let source = "local function f(x) print(x) return x end\nlocal i = 0\nwhile i < obj.n do i = f(i) + 1 end\nrepeat local done = true until done\nreturn { i }";
        assert_eq!(gaps(source, &[0]), "[] / 3:7 / 4:32");
        assert_eq!(gaps(source, &[2]), "[] /  / 4:32");
    }
}
