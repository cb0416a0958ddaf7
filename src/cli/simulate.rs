//! `tidegate simulate`: generated releases with people and faults on a cluster in memory, judged after every write.

mod follow;

use std::process::ExitCode;

use self::follow::Follower;
use crate::{
    rehearsal::{Manner, Mind, Script, Tally, draw, rehearse, rehearse_all},
    telemetry::logs::{self, Format},
};

/// Arguments of `tidegate simulate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What goes wrong is told in one line at once, and in full at the end. Ctrl-C ends it with what was played so far.
Exit code 1: a judge saw a broken promise, or a kind of fault or moment never happened. 130: it was interrupted."
)]
pub struct Args {
    /// Number of releases
    #[arg(long, value_name = "N", default_value_t = 1000)]
    runs: u64,
    /// The first seed; the others follow it
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Threads [default: the cores of this machine]
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Play one release again, by its seed or by its whole script, and tell it
    #[arg(long, value_name = "SCRIPT", conflicts_with_all = ["runs", "seed"])]
    replay: Option<String>,
    /// Show the controller's log while replaying: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "off", requires = "replay")]
    log_level: String,
    /// Stop after so many releases that went wrong
    #[arg(long, value_name = "N", default_value_t = 3)]
    most_wrong: usize,
}

/// The command that plays a script again.
pub fn command(script: &Script) -> String {
    format!("tidegate simulate --replay '{script}'")
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mind = Mind::real();
    if let Some(text) = &args.replay {
        logs::init(Format::Human, &args.log_level)?;
        let script: Script = text.parse().map_err(|e| anyhow::anyhow!("--replay: {e}"))?;
        println!("{script}");
        let outcome = rehearse(&script, &mind, Some(usize::MAX))?;
        print!("{}", outcome.told);
        return Ok(match outcome.violation {
            None => {
                println!("it ends well, after {} s", outcome.took.as_secs());
                ExitCode::SUCCESS
            }
            Some(violation) => {
                println!("judge: {}\nat {}: {}", violation.judge, violation.time, violation.what);
                ExitCode::FAILURE
            }
        });
    }
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let follower = Follower::new(args.runs)?;
    let manner = Manner { mind: &mind, jobs, most_wrong: args.most_wrong, tries: 200, command, audience: &follower };
    let seeds = args.seed..args.seed.saturating_add(args.runs);
    let tally = rehearse_all(seeds.map(draw), &manner);
    follower.clear();
    for wrong in &tally.wrong {
        println!("{}", wrong.told);
    }
    print!("{}", summary(&tally, jobs));
    println!("{}", coverage(&tally));
    if !tally.wrong.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if follower.is_interrupted() {
        println!("interrupted after {} of {} releases", tally.runs, args.runs);
        return Ok(ExitCode::from(130));
    }
    // A few runs cannot show everything.
    let is_covered = tally.runs < 1000 || tally.missing().is_empty();
    Ok(if is_covered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How much of what can happen did, and what never did.
pub fn coverage(tally: &Tally) -> String {
    let (missing, all) = (tally.missing(), Tally::expected().count());
    match missing.as_slice() {
        [] => format!("covered: each of {all} moments, faults, barriers, styles, kinds and gateways"),
        _ => format!("never happened, of {all}: {}", missing.join(", ")),
    }
}

/// What was played, and how often everything happened.
pub fn summary(tally: &Tally, jobs: usize) -> String {
    let seconds = tally.took.as_secs_f64();
    let counts: Vec<String> = tally.exercised.iter().map(|(name, count)| format!("{name} {count}")).collect();
    format!(
        "{} releases in {seconds:.1} s with {jobs} threads ({:.1} a second): {} writes ({} by the controller), {:.1} \
         virtual hours, {} went wrong; digest {:016x}\nhappened: {}\n",
        tally.runs,
        tally.runs as f64 / seconds.max(0.001),
        tally.writes.0,
        tally.writes.1,
        tally.virtual_time.as_secs_f64() / 3600.0,
        tally.wrong.len(),
        tally.digest,
        counts.join(", ")
    )
}
