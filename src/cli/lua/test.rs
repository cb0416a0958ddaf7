//! `tidegate lua test`.

use std::{path::PathBuf, process::ExitCode};

use super::{Color, coverage, print, report, usage, watch};
use crate::lua::testcase::{Found, ScriptSource, discover, load_script, run as run_cases};
use crate::lua::{Engine, Limits};

const HELP: &str = "\
Cases: a YAML file with the keys rollout or trafficRouting, original, and expected (a list with one object for each
step; {error: TEXT} for a step that must fail with a message that contains TEXT; a key prints for what it must print). In a folder the files of
<group>/<Kind>/, of ingress/<class>/ and of testdata/ beside a trafficRouting.lua are cases, and those of the folder that is named itself.

Script of a case, the first that exists: --script; trafficRouting.lua beside the case's testdata/ folder;
lua-scripts/<group>/<Kind>/trafficRouting.lua in the working directory (for the Ingress of a Rollout that routes by one,
lua-scripts/ingress/<class>.lua); the built-in script.

Exit codes: 0 all cases passed; 1 a case failed; 2 wrong command line, a file that is no case, a script that cannot be
read, or no case found.";

/// Arguments of `tidegate lua test`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Case files, and folders of them.
    #[arg(default_value = "testcases", value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Test this script, whatever the cases' group and kind.
    #[arg(long, value_name = "FILE")]
    pub(super) script: Option<PathBuf>,
    /// Only cases whose path contains this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// How to report.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    /// Show what scripts print and engine warnings for passed cases too.
    #[arg(short, long)]
    verbose: bool,
    /// Tell which lines and branches of the scripts no case runs.
    #[arg(long)]
    coverage: bool,
    /// Run again whenever a case or script changes, until interrupted.
    #[arg(short, long)]
    watch: bool,
    /// Cases run at the same time. Default: one for each CPU.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// When to print in colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// JUnit XML: a suite for each file, a test for each step.
    Junit,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.watch && args.output != Output::Text {
        return Ok(usage("--watch reports as text: remove --output"));
    }
    if args.coverage && args.output == Output::Junit {
        return Ok(usage("--coverage reports as text or JSON: remove --output, or say json"));
    }
    let jobs = args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    // Every input is a new one: results are not kept. What a script may use is as in production.
    let engine = Engine::with_limits(jobs, Limits { results: 0, ..Limits::default() });
    if !args.watch {
        return once(args, &engine, jobs);
    }
    let watcher = match watch::Watcher::new(&watch::folders(&args.paths, args.script.as_deref())) {
        Ok(watcher) => watcher,
        Err(message) => return Ok(usage(&message)),
    };
    loop {
        // Whatever is wrong with the files, the next change may mend it.
        once(args, &engine, jobs)?;
        print("waiting for a change, stop with Ctrl-C\n")?;
        let changed = watcher.wait()?;
        print(&format!("\nchanged: {}\n", changed.display()))?;
    }
}

fn once(args: &Args, engine: &Engine, jobs: usize) -> anyhow::Result<ExitCode> {
    let scripts = match &args.script {
        Some(path) => load_script(path).map(ScriptSource::one),
        None => Ok(ScriptSource::under("")),
    };
    let found = scripts.and_then(|scripts| Ok((cases(args)?, scripts)));
    let (found, scripts) = match found {
        Ok(found) => found,
        Err(message) => return Ok(usage(&message)),
    };
    let report = run_cases(engine, &found.cases, &scripts, jobs);
    let coverage = args.coverage.then(|| coverage::measure(engine, &found.cases, &scripts));
    print(&match args.output {
        Output::Text => {
            report::text(&report, &found.passed_over, args.color.on(), args.verbose)
                + &coverage::text(&coverage.unwrap_or_default())
        }
        Output::Json => report::json(&report, coverage.as_deref()),
        Output::Junit => report::junit(&report),
    })?;
    Ok(match (report.unusable(), report.failed()) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::FAILURE,
        _ => ExitCode::from(super::USAGE),
    })
}

fn cases(args: &Args) -> Result<Found, String> {
    let mut found = discover(&args.paths, args.script.is_some())?;
    let all = found.cases.len();
    if let Some(text) = &args.filter {
        found.cases.retain(|path| path.to_string_lossy().contains(text.as_str()));
    }
    if found.cases.is_empty() {
        let places = args.paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(match &args.filter {
            Some(text) if all > 0 => format!("none of the {all} cases in {places} has {text:?} in its path"),
            _ => format!(
                "no case in {places}: cases are YAML files in <group>/<Kind>/, or in testdata/ beside a trafficRouting.lua"
            ),
        });
    }
    Ok(found)
}
