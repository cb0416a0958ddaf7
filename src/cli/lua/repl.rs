//! `tidegate lua repl`: what a script would see, line by line.

use std::{
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::Value;

use super::{
    print,
    run::{Given, Prepared},
    usage,
};
use crate::{
    lua::{Engine, Origin, Script, ScriptError},
    yaml,
};

const HELP: &str = "\
An expression is printed; a statement is kept, so that later lines see what it did: each line runs after all kept ones, with
the object as it was. Lines of a statement that is not at its end yet are gathered, until an empty line gives it up.

  .run     what the script makes of the object
  .forget  begin anew, without the kept statements
  .quit    leave, as the end of the input does

Exit codes: 0 the end was reached; 2 wrong command line, or a file that cannot be used.";

/// Arguments of `tidegate lua repl`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    given: Given,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.given.object == Path::new("-") {
        return Ok(usage("--object must be a file: stdin has the lines"));
    }
    let prepared = match args.given.prepare() {
        Ok(prepared) => prepared,
        Err(message) => return Ok(usage(&message)),
    };
    let mut session = Session { engine: Engine::new(1), input: prepared.input(), kept: String::new(), told: 0 };
    let prompts = io::stdin().is_terminal();
    let mut gathered = String::new();
    if prompts {
        print("> ")?;
    }
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            gathered.clear();
        } else {
            gathered += &line;
        }
        match gathered.trim() {
            "" => {}
            ".quit" => break,
            ".forget" => {
                (session.kept, session.told) = (String::new(), 0);
                gathered.clear();
            }
            ".run" => {
                print(&result(&session.engine, &prepared)?)?;
                gathered.clear();
            }
            text => match session.say(text) {
                Some(answer) => {
                    print(&answer?)?;
                    gathered.clear();
                }
                None => gathered.push('\n'),
            },
        }
        if prompts {
            print(if gathered.is_empty() { "> " } else { ">> " })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the whole script makes of the object.
fn result(engine: &Engine, prepared: &Prepared) -> anyhow::Result<String> {
    let outcome = match engine.run(&prepared.script, &prepared.input()) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(format!("error: {}", error.report())),
    };
    let warnings = outcome.warnings.iter().map(|warning| format!("warning: {warning}"));
    let mut said: String = outcome.prints.iter().cloned().chain(warnings).map(|line| line + "\n").collect();
    said += &match prepared.output(outcome.value) {
        Ok(parts) => yaml::to_string(&parts)?,
        Err(error) => format!("error: {}: {error}\n", prepared.script.name),
    };
    Ok(said)
}

struct Session {
    engine: Engine,
    input: Value,
    /// Statements so far.
    kept: String,
    /// What these print, which was shown.
    told: usize,
}

impl Session {
    /// The answer to some lines; none when they are not at their end.
    fn say(&mut self, text: &str) -> Option<anyhow::Result<String>> {
        let expression = script(&format!("{}return {{ value = (\n{text}\n) }}", self.kept));
        if self.engine.check(&expression).is_ok() {
            return Some(self.shown(&expression, false));
        }
        let statement = script(&format!("{}{text}\nreturn {{}}", self.kept));
        match self.engine.check(&statement) {
            Ok(()) => {
                let answer = self.shown(&statement, true);
                if matches!(&answer, Ok(answer) if !answer.starts_with(ERROR)) {
                    self.kept += text;
                    self.kept.push('\n');
                }
                Some(answer)
            }
            Err(_) if !self.is_at_end(text) => None,
            Err(error) => Some(Ok(says(&error))),
        }
    }

    /// Whether nothing that could follow would make it right.
    fn is_at_end(&self, text: &str) -> bool {
        let alone = |text: &str| self.engine.check(&script(text)).err().map(|error| error.message);
        let ends = |message: Option<String>| message.is_some_and(|message| message.contains("<eof>"));
        !ends(alone(&format!("{}{text}", self.kept))) && !ends(alone(&format!("return ({text}")))
    }

    fn shown(&mut self, script: &Script, is_statement: bool) -> anyhow::Result<String> {
        let outcome = match self.engine.run(script, &self.input) {
            Ok(outcome) => outcome,
            Err(error) => return Ok(says(&error)),
        };
        let mut said: String = outcome.prints.iter().skip(self.told).map(|line| format!("{line}\n")).collect();
        if is_statement {
            self.told = outcome.prints.len();
            return Ok(said);
        }
        match outcome.value.get("value") {
            // What a function like print returns is nothing to show.
            None | Some(Value::Null) if !said.is_empty() => {}
            None | Some(Value::Null) => said += "nil\n",
            Some(value) => said += &yaml::to_string(value)?,
        }
        Ok(said)
    }
}

const ERROR: &str = "error: ";

fn script(text: &str) -> Script {
    Script::new("repl", text, Origin::File(PathBuf::new()))
}

/// Without the line, which counts the kept ones as well.
fn says(error: &ScriptError) -> String {
    format!("{ERROR}{}\n", error.message)
}
