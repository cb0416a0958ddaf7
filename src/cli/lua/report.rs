//! How results are told: for people, as JSON, as JUnit XML.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use owo_colors::{OwoColorize as _, Style};
use serde_json::{Value, json};

use super::coverage::Coverage;
use crate::lua::testcase::{CaseResult, Report, StepResult, Verdict};

pub(super) fn text(report: &Report, passed_over: &[PathBuf], colour: bool, verbose: bool) -> String {
    let paint = Paint(colour);
    let mut out = String::new();
    for case in &report.cases {
        let path = case.path.display();
        match &case.steps {
            Err(message) => {
                let _ = writeln!(out, "{} {path}: {message}", paint.bad("ERROR"));
            }
            Ok(steps) => {
                if case.passed() {
                    let _ = writeln!(out, "{}    {path} ({})", paint.good("ok"), counted(steps.len(), "step"));
                }
                for step in steps {
                    if step.verdict != Verdict::Passed {
                        failure(&mut out, paint, case, step, steps.len());
                    }
                    if verbose || step.verdict != Verdict::Passed {
                        said(&mut out, step);
                    }
                }
            }
        }
    }
    let (passed, failed, unusable) = (report.passed(), report.failed(), report.unusable());
    let mut summary = format!("{} passed", counted(passed, "case"));
    for (n, what) in [(failed, "failed"), (unusable, "unusable")] {
        if n > 0 {
            let _ = write!(summary, ", {n} {what}");
        }
    }
    let style = if failed + unusable == 0 { paint.good(&summary) } else { paint.bad(&summary) };
    let _ = writeln!(out, "{style}; {} in {}", counted(report.steps(), "step"), duration(report.elapsed));
    if !passed_over.is_empty() {
        const SHOWN: usize = 3;
        let folders = passed_over.iter().take(SHOWN).map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        let more = passed_over.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ = writeln!(out, "not looked at, for lack of a script's layout: {folders}{more}");
    }
    out
}

fn failure(out: &mut String, paint: Paint, case: &CaseResult, step: &StepResult, steps: usize) {
    let place = format!("{}, step {} of {steps}", case.path.display(), step.step);
    let _ = writeln!(out, "{}  {place}: {}", paint.bad("FAIL"), step.verdict.message());
    if let Some(script) = &case.script {
        let _ = writeln!(out, "      script {script}");
    }
    for line in step.verdict.detail().iter().flat_map(|d| d.lines()) {
        let _ = writeln!(out, "      {}", paint.diff(line));
    }
}

fn said(out: &mut String, step: &StepResult) {
    for warning in &step.warnings {
        let _ = writeln!(out, "      step {}: warning: {warning}", step.step);
    }
    for line in &step.prints {
        let _ = writeln!(out, "      step {} printed: {line}", step.step);
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn good(self, text: &str) -> String {
        self.style(text, Style::new().green().bold())
    }

    fn bad(self, text: &str) -> String {
        self.style(text, Style::new().red().bold())
    }

    /// A line of a unified diff, or of a script around its error.
    fn diff(self, line: &str) -> String {
        let style = match line.as_bytes().first() {
            Some(b'+') => Style::new().green(),
            Some(b'-') => Style::new().red(),
            Some(b'@') => Style::new().cyan(),
            Some(b'>') => Style::new().yellow(),
            _ => return line.to_owned(),
        };
        self.style(line, style)
    }

    fn style(self, text: &str, style: Style) -> String {
        if self.0 { text.style(style).to_string() } else { text.to_owned() }
    }
}

pub(super) fn json(report: &Report, coverage: Option<&[Coverage]>) -> String {
    let mut document = json!({
        "passed": report.passed(),
        "failed": report.failed(),
        "unusable": report.unusable(),
        "steps": report.steps(),
        "seconds": report.elapsed.as_secs_f64(),
        "cases": report.cases.iter().map(case_json).collect::<Vec<_>>(),
    });
    if let (Some(map), Some(coverage)) = (document.as_object_mut(), coverage) {
        map.insert("coverage".to_owned(), json!(coverage));
    }
    format!("{document:#}\n")
}

fn case_json(case: &CaseResult) -> Value {
    let mut map = json!({"path": case.path, "passed": case.passed(), "script": case.script});
    let (key, value) = match &case.steps {
        Ok(steps) => ("steps", steps.iter().map(step_json).collect()),
        Err(message) => ("error", json!(message)),
    };
    if let Some(map) = map.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
    map
}

fn step_json(step: &StepResult) -> Value {
    let (verdict, extra) = match &step.verdict {
        Verdict::Passed => ("passed", json!({})),
        Verdict::Differs { expected, found } => ("differs", json!({"expected": expected, "found": found})),
        Verdict::Failed(e) => ("failed", json!({"script": e.script, "line": e.line, "snippet": e.snippet})),
        Verdict::BadOutput(_) => ("bad-output", json!({})),
        Verdict::OtherWords { expected } => ("other-words", json!({"expectedText": expected})),
        Verdict::OtherAnswer { expected, found } => {
            ("other-answer", json!({"expectedAnswer": expected, "foundAnswer": found}))
        }
        Verdict::ErrorMissing { expected, found } => {
            ("error-missing", json!({"expectedError": expected, "found": found}))
        }
        Verdict::OtherError { expected, found: e } => (
            "other-error",
            json!({"expectedError": expected, "script": e.script, "line": e.line, "snippet": e.snippet}),
        ),
    };
    let mut value = json!({
        "step": step.step,
        "passed": step.verdict == Verdict::Passed,
        "verdict": verdict,
        "seconds": step.elapsed.as_secs_f64(),
        "fuel": step.fuel,
        "prints": step.prints,
        "warnings": step.warnings,
    });
    if let (Some(map), Value::Object(extra)) = (value.as_object_mut(), extra) {
        map.extend(extra);
        if step.verdict != Verdict::Passed {
            map.insert("message".to_owned(), json!(step.verdict.message()));
            map.insert("detail".to_owned(), json!(step.verdict.detail()));
        }
    }
    value
}

pub(super) fn junit(report: &Report) -> String {
    let broken =
        |c: &CaseResult| c.steps.as_ref().map_or(0, |s| s.iter().filter(|s| s.verdict != Verdict::Passed).count());
    let failures: usize = report.cases.iter().map(broken).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites name=\"tidegate lua test\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\" time=\"{:.6}\">",
        report.steps() + report.unusable(),
        report.unusable(),
        report.elapsed.as_secs_f64()
    );
    for case in &report.cases {
        suite(&mut out, case, broken(case));
    }
    out.push_str("</testsuites>\n");
    out
}

fn suite(out: &mut String, case: &CaseResult, failures: usize) {
    let name = attribute(&case.path);
    let steps = case.steps.as_deref().unwrap_or_default();
    let errors = usize::from(case.steps.is_err());
    let time: f64 = steps.iter().map(|s| s.elapsed.as_secs_f64()).sum();
    let tests = steps.len() + errors;
    let _ = writeln!(
        out,
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{time:.6}\">"
    );
    if let Err(message) = &case.steps {
        let _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"file\" time=\"0\">");
        let _ = writeln!(out, "      <error message=\"{}\"/>", escape(message));
        out.push_str("    </testcase>\n");
    }
    for step in steps {
        let time = step.elapsed.as_secs_f64();
        let _ = write!(out, "    <testcase classname=\"{name}\" name=\"step {}\" time=\"{time:.6}\"", step.step);
        if step.verdict == Verdict::Passed {
            out.push_str("/>\n");
            continue;
        }
        let message = escape(&step.verdict.message());
        let detail = escape(&step.verdict.detail().unwrap_or_default()).replace("&#10;", "\n");
        let _ = writeln!(out, ">\n      <failure message=\"{message}\">{detail}</failure>\n    </testcase>");
    }
    out.push_str("  </testsuite>\n");
}

fn attribute(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// For an attribute's value. Characters that XML 1.0 cannot hold become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\r' => out.push_str("&#13;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
