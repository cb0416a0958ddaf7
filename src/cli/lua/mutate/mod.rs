//! `tidegate lua mutate`: would the cases notice if the script were another one?

use std::{path::PathBuf, process::ExitCode};

use super::{print, usage};
use crate::lua::Script;
use allow::Allowed;
use changes::Change;
use subjects::{Subject, Subjects, short_name};
use trial::Trial;

mod allow;
mod changes;
mod report;
mod subjects;
mod trial;

const HELP: &str = "\
Each change is one of: an operator, a number, true or false, a word in quotes or the name of a field becomes another one; a
condition its opposite; a statement or a field of a table is left out. The script's cases run with the engine and the
limits of production. A change is noticed when a case fails; a script that does not compile or runs out of its budget fails.
Parts of the prelude (lua-scripts/prelude) are changed as well, and run in all cases.

Allow file: a YAML list of {script, line, change, reason}, with the path below lua-scripts, the text of the line, the
change as it is printed, and why it makes no difference. An entry without such a change that stays unnoticed is an error.

Exit codes: 0 done; 1 a case fails without any change, a script's score is below --least, or an entry of the allow file is
out of date; 2 wrong command line or file, or a script without a case.";

/// Arguments of `tidegate lua mutate`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Scripts, and folders of them. Default: lua-scripts; where there is none, the built-in scripts.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Case files, and folders of them.
    #[arg(long, default_value = "testcases", value_name = "PATH")]
    cases: Vec<PathBuf>,
    /// Fail when less of a script's changes are noticed.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    least: Option<u8>,
    /// Changes that make no difference [default: lua-scripts/mutate-allow.yaml, if there is one].
    #[arg(long, value_name = "FILE")]
    allow: Option<PathBuf>,
    /// How to report.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    /// Changes tried at the same time. Default: one for each CPU.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line for each change that nothing notices, then a table.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// What came of one script.
struct Score<'s> {
    script: &'s Script,
    changes: usize,
    noticed: usize,
    allowed: usize,
    unnoticed: Vec<Change>,
}

impl Score<'_> {
    /// Per cent of the changes that make a difference.
    fn percent(&self) -> f64 {
        match self.changes - self.allowed {
            0 => 100.0,
            counted => self.noticed as f64 * 100.0 / counted as f64,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let all = Subjects::read(&args.paths, &args.cases);
    let (all, allowed) = match all.and_then(|all| Ok((all, allow::read(args.allow.as_deref())?))) {
        Ok(read) => read,
        Err(message) => return Ok(usage(&message)),
    };
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let trial = Trial::new(&all, jobs);
    let failing = trial.failing_unchanged();
    if !failing.is_empty() {
        eprintln!(
            "error: these cases fail without any change; `tidegate lua test` says why:\n  {}",
            failing.join("\n  ")
        );
        return Ok(ExitCode::FAILURE);
    }
    let changes = match all.subjects.iter().map(changes_of).collect::<Result<Vec<_>, _>>() {
        Ok(changes) => changes,
        Err(message) => return Ok(usage(&message)),
    };
    let noticed = trial.run(&changes);
    let (scores, used) = scores(&all, changes, &noticed, &allowed);
    let tried = |entry: &Allowed| all.subjects.iter().any(|s| short_name(&s.script) == entry.script);
    let stale: Vec<&Allowed> = allowed.iter().zip(used).filter(|(e, used)| !used && tried(e)).map(|(e, _)| e).collect();
    print(&match args.output {
        Output::Text => report::text(&scores),
        Output::Json => report::json(&scores),
    })?;
    for entry in &stale {
        eprintln!(
            "error: allow file: {}, line {:?}, change {}: there is no such change, or a case notices it; remove the entry",
            entry.script, entry.line, entry.change
        );
    }
    let mut is_low = false;
    for score in scores.iter().filter(|s| args.least.is_some_and(|least| s.percent() < f64::from(least))) {
        is_low = true;
        eprintln!(
            "error: {}: {:.1} % is below {} %",
            score.script.name,
            score.percent(),
            args.least.unwrap_or_default()
        );
    }
    Ok(if is_low || !stale.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn changes_of(subject: &Subject) -> Result<Vec<Change>, String> {
    let source = &subject.script.source;
    let ast = full_moon::parse(source).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        format!("{}: cannot be taken apart: {first}", subject.script.name)
    })?;
    Ok(changes::changes(&ast, source))
}

/// Scores, and for each entry of the allow file whether a change that nothing notices is the one that it speaks of.
fn scores<'s>(
    all: &'s Subjects,
    changes: Vec<Vec<Change>>,
    noticed: &[Vec<bool>],
    allowed: &[Allowed],
) -> (Vec<Score<'s>>, Vec<bool>) {
    let mut used = vec![false; allowed.len()];
    let mut score = |(subject, (changes, noticed)): (&'s Subject, (Vec<Change>, &Vec<bool>))| {
        let script = &subject.script;
        let total = changes.len();
        let mut unnoticed: Vec<Change> =
            changes.into_iter().zip(noticed).filter(|(_, n)| !**n).map(|(c, _)| c).collect();
        let survived = unnoticed.len();
        unnoticed.retain(|change| {
            let mut covered = false;
            for (entry, used) in allowed.iter().zip(&mut used) {
                if entry.covers(short_name(script), &script.source, change) {
                    (covered, *used) = (true, true);
                }
            }
            !covered
        });
        Score { script, changes: total, noticed: total - survived, allowed: survived - unnoticed.len(), unnoticed }
    };
    let scores = all.subjects.iter().zip(changes.into_iter().zip(noticed)).map(&mut score).collect();
    (scores, used)
}
