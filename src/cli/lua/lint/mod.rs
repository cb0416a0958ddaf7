//! `tidegate lua lint`: mistakes that a script shows without being run.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{
    print,
    sources::{SCRIPTS, lua_files},
    usage,
};
use crate::lua::{Engine, Script, testcase::load_script};
use host::Host;
use rules::{Finding, Level, check};
use schema::{SCHEMAS, Schemas};

mod flow;
mod host;
mod rules;
mod schema;
mod scopes;
mod walk;

const HELP: &str = "\
Errors:
  syntax            it does not compile
  undefined-global  a name that neither the host nor the script sets
  undefined-field   a field that obj, tidegate or a library does not have
  header            the comment at the beginning names a feature that there is not
Warnings:
  leaked-global     a variable without `local`
  changed-global    a function or table of the host is replaced
  pairs-order       a list or text grows in a loop over pairs, and nothing sorts it
  unknown-field     a field that the schema of the object's spec does not have
  shared-input      a table that more than one rule is made from is changed, or put into a list twice
  unreadable        it runs, but has statements that only gopher-lua knows

Values are followed through locals, loops and the script's own functions; of what is not clear nothing is said. Schemas are
those of --schemas for the group and kind that a script's folders name.

A comment `-- lint: allow RULE` on the line, or on the one before, silences a rule.

Exit codes: 0 nothing found, or warnings only; 1 errors, or warnings with --strict; 2 wrong command line or file.";

/// Arguments of `tidegate lua lint`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Scripts, and folders of them.
    #[arg(default_value = SCRIPTS, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// CustomResourceDefinitions, such as of `kubectl get crd NAME -o yaml`, or a folder of them [default:
    /// testcases/schemas, if it is there].
    #[arg(long, value_name = "PATH")]
    schemas: Option<PathBuf>,
    /// Fail on warnings too.
    #[arg(long)]
    strict: bool,
    /// How to report.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line for each finding.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Runs the command.
///
/// # Errors
/// When the output cannot be written, or the engine does not start.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let scripts = lua_files(&args.paths).and_then(|files| files.iter().map(|path| load_script(path)).collect());
    let scripts: Vec<Script> = match scripts {
        Ok(scripts) => scripts,
        Err(message) => return Ok(usage(&message)),
    };
    if scripts.is_empty() {
        return Ok(usage("no script in the folders given"));
    }
    let schemas = match &args.schemas {
        Some(path) => Schemas::read(path),
        None if Path::new(SCHEMAS).is_dir() => Schemas::read(Path::new(SCHEMAS)),
        None => Ok(Schemas::default()),
    };
    let schemas = match schemas {
        Ok(schemas) => schemas,
        Err(message) => return Ok(usage(&message)),
    };
    let engine = Engine::new(1);
    let host = Host::of(&engine).map_err(anyhow::Error::msg)?;
    let found: Vec<(&Script, Vec<Finding>)> = scripts.iter().map(|s| (s, check(&engine, &host, &schemas, s))).collect();
    let count = |level| found.iter().flat_map(|(_, f)| f).filter(|f| f.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    print(&match args.output {
        Output::Text => text(&found, errors, warnings),
        Output::Json => document(&found, errors, warnings),
    })?;
    let fails = errors > 0 || (args.strict && warnings > 0);
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(found: &[(&Script, Vec<Finding>)], errors: usize, warnings: usize) -> String {
    let mut out = String::new();
    for (script, findings) in found {
        for finding in findings {
            let column = finding.column.map(|c| format!(":{c}")).unwrap_or_default();
            let level = if finding.level == Level::Error { "error" } else { "warning" };
            let (line, rule, message) = (finding.line, finding.rule, &finding.message);
            let _ = writeln!(out, "{}:{line}{column}: {level}: {message} [{rule}]", script.name);
        }
    }
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (scripts, errors, warnings) =
        (counted(found.len(), "script"), counted(errors, "error"), counted(warnings, "warning"));
    let _ = writeln!(out, "{scripts}: {errors}, {warnings}");
    out
}

fn document(found: &[(&Script, Vec<Finding>)], errors: usize, warnings: usize) -> String {
    let findings: Vec<Value> = found
        .iter()
        .flat_map(|(script, findings)| findings.iter().map(move |finding| (script, finding)))
        .map(|(script, finding)| {
            let mut value = json!(finding);
            if let Some(map) = value.as_object_mut() {
                map.insert("script".to_owned(), json!(script.name));
            }
            value
        })
        .collect();
    let document = json!({"scripts": found.len(), "errors": errors, "warnings": warnings, "findings": findings});
    format!("{document:#}\n")
}
