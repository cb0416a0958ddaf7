//! `tidegate lua run`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::Value;
use similar::TextDiff;

use super::{print, read_documents, usage, watch};
use crate::api::v1beta1::{HttpRouteMatch, PatchPodTemplateMetadata};
use crate::lua::testcase::{Plan, ScriptSource, load_script};
use crate::lua::{Engine, Script};
use crate::traffic::{Names, Original, Parts, Strategy};
use crate::yaml;

const HELP: &str = "\
The object is taken as the original, the state before the release. What the script prints and warnings go to stderr.

Script, the first that exists: --script; lua-scripts/<group>/<Kind>/trafficRouting.lua in the working directory (for
an Ingress of a Rollout, or with --class, lua-scripts/ingress/<class>.lua); the built-in script.

Exit codes: 0 the result was printed; 1 the script failed, with script:line on stderr; 2 wrong command line, or a file
that cannot be used.";

/// What a script is given, and which script it is.
#[derive(Debug, clap::Args)]
pub(super) struct Given {
    /// The script to run.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// The object to change, YAML or JSON; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    pub object: PathBuf,
    /// The Rollout or TrafficRouting whose step is applied.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weight", "matches", "stable", "canary", "pod_label", "class"])]
    pub rollout: Option<PathBuf>,
    /// Which step of the Rollout, from 1. May be left out when there is only one.
    #[arg(long, value_name = "N", requires = "rollout")]
    step: Option<usize>,
    /// The canary's share of requests in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    weight: Option<u32>,
    /// A YAML list of matches, as in a Rollout's step.
    #[arg(long, value_name = "FILE")]
    pub matches: Option<PathBuf>,
    /// Name of the stable Service.
    #[arg(long, value_name = "SERVICE", required_unless_present = "rollout")]
    stable: Option<String>,
    /// Name of the canary Service; the stable one's when there is none of its own.
    #[arg(long, value_name = "SERVICE", required_unless_present = "rollout")]
    canary: Option<String>,
    /// A label that the canary's pods are patched with; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pod_label: Vec<(String, String)>,
    /// The object is an Ingress of this class, such as nginx; the result is its canary Ingress.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
}

/// A script with all that it is given.
pub(super) struct Prepared {
    pub script: Script,
    original: Original,
    plan: Plan,
    strategy: Strategy,
}

impl Given {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used, or the step is none.
    pub fn prepare(&self) -> Result<Prepared, String> {
        let original = original(&self.object)?;
        let (plan, strategy) = plan(self)?;
        let scripts = match &self.script {
            Some(path) => ScriptSource::one(load_script(path)?),
            None => ScriptSource::under(""),
        };
        let script = match plan.class_for(&original) {
            Some(class) => scripts.for_class(class)?,
            None => scripts.for_kind(original.group(), &original.kind)?,
        };
        Ok(Prepared { script, original, plan, strategy })
    }
}

impl Prepared {
    /// What the script sees as `obj`.
    pub fn input(&self) -> Value {
        self.plan.input(&self.original, &self.script, &self.strategy)
    }

    /// What becomes of the object by a value that the script returned.
    ///
    /// # Errors
    /// The value is no result of a script.
    pub fn output(&self, value: Value) -> Result<Parts, String> {
        self.plan.output(&self.original, &self.script, value).map_err(|error| error.to_string())
    }
}

/// Arguments of `tidegate lua run`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    given: Given,
    /// Run again whenever the script, the object or the Rollout changes, and show what is different; until interrupted.
    #[arg(short, long)]
    watch: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// YAML.
    #[default]
    Yaml,
    /// JSON.
    Json,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not KEY=VALUE".to_owned()),
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.watch {
        return Ok(match once(args)? {
            Ran::Printed(text) => {
                print(&text)?;
                ExitCode::SUCCESS
            }
            Ran::Failed(message) => {
                eprint!("{message}");
                ExitCode::FAILURE
            }
            Ran::Unusable(message) => usage(&message),
        });
    }
    let given = &args.given;
    let files: Vec<PathBuf> = [Some(&given.object), given.rollout.as_ref(), given.matches.as_ref()]
        .into_iter()
        .flatten()
        .filter(|path| path.as_path() != Path::new("-"))
        .cloned()
        .collect();
    if files.len() < 1 + usize::from(given.rollout.is_some()) + usize::from(given.matches.is_some()) {
        return Ok(usage("--watch reads files: stdin can be read once only"));
    }
    let watcher = match watch::Watcher::new(&watch::folders(&files, given.script.as_deref())) {
        Ok(watcher) => watcher,
        Err(message) => return Ok(usage(&message)),
    };
    // Whatever is wrong now, the next change may mend it.
    let mut last: Option<String> = None;
    loop {
        match once(args)? {
            Ran::Printed(text) => {
                print(&match &last {
                    None => text.clone(),
                    Some(last) if *last == text => "the result is the same\n".to_owned(),
                    Some(last) => {
                        let diff = TextDiff::from_lines(last.as_str(), &text);
                        diff.unified_diff().context_radius(3).header("before", "now").to_string()
                    }
                })?;
                last = Some(text);
            }
            Ran::Failed(message) => eprint!("{message}"),
            Ran::Unusable(message) => drop(usage(&message)),
        }
        print("waiting for a change, stop with Ctrl-C\n")?;
        let changed = watcher.wait()?;
        print(&format!("\nchanged: {}\n", changed.display()))?;
    }
}

/// What came of one run.
enum Ran {
    /// The result, as it is to be printed.
    Printed(String),
    /// The script failed.
    Failed(String),
    /// The command line, or a file, cannot be used.
    Unusable(String),
}

fn once(args: &Args) -> anyhow::Result<Ran> {
    let prepared = match args.given.prepare() {
        Ok(prepared) => prepared,
        Err(message) => return Ok(Ran::Unusable(message)),
    };
    let outcome = match Engine::new(1).run(&prepared.script, &prepared.input()) {
        Ok(outcome) => outcome,
        Err(error) => return Ok(Ran::Failed(format!("error: {}", error.report()))),
    };
    for line in &outcome.prints {
        eprintln!("{line}");
    }
    for warning in &outcome.warnings {
        eprintln!("warning: {warning}");
    }
    let parts = match prepared.output(outcome.value) {
        Ok(parts) => parts,
        Err(error) => return Ok(Ran::Failed(format!("error: {}: {error}\n", prepared.script.name))),
    };
    Ok(Ran::Printed(match args.output {
        Output::Yaml => yaml::to_string(&parts)?,
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&parts)?),
    }))
}

fn one_document(path: &Path) -> Result<Value, String> {
    let mut documents = read_documents(path)?;
    match (documents.len(), documents.pop()) {
        (1, Some(document)) => Ok(document),
        (n, _) => Err(format!("{}: holds {n} documents instead of one", path.display())),
    }
}

fn original(path: &Path) -> Result<Original, String> {
    Original::from_object(&one_document(path)?).map_err(|e| format!("{}: {e}", path.display()))
}

fn plan(args: &Given) -> Result<(Plan, Strategy), String> {
    if let Some(path) = &args.rollout {
        let plan = Plan::read(&one_document(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
        let steps = plan.steps.len();
        let step = match args.step {
            None if steps == 1 => 1,
            None => return Err(format!("{} has {steps} steps: choose one with --step", path.display())),
            Some(step) => step,
        };
        let strategy = step.checked_sub(1).and_then(|i| plan.steps.get(i)).cloned();
        let strategy = strategy.ok_or_else(|| format!("--step {step}: {} has steps 1 to {steps}", path.display()))?;
        return Ok((plan, strategy));
    }
    let matches = args.matches.as_deref().map(matches_of).transpose()?.unwrap_or_default();
    let strategy = Strategy { weight: args.weight, matches, request_header_modifier: None };
    if strategy.is_empty() {
        return Err("nothing to do: give --rollout, --weight or --matches".to_owned());
    }
    let labels: BTreeMap<String, String> = args.pod_label.iter().cloned().collect();
    let patch = PatchPodTemplateMetadata { labels, ..PatchPodTemplateMetadata::default() };
    let names = Names {
        stable_service: args.stable.clone().unwrap_or_default(),
        canary_service: args.canary.clone().unwrap_or_default(),
        namespace: None,
    };
    Ok((Plan { names, ingress_class: args.class.clone(), patch: Some(patch), ..Plan::default() }, strategy))
}

fn matches_of(path: &Path) -> Result<Vec<HttpRouteMatch>, String> {
    let document = one_document(path)?;
    let matches: Vec<HttpRouteMatch> = serde_json::from_value(document.clone())
        .map_err(|e| format!("{}: not a list of matches: {e}", path.display()))?;
    let understood = serde_json::to_value(&matches).map_err(|e| e.to_string())?;
    match lost_key(&document, &understood, String::new()) {
        Some(key) => Err(format!("{}: unknown key {key}", path.display())),
        None => Ok(matches),
    }
}

/// The first key of what was written that was not understood. Empty lists may go.
fn lost_key(written: &Value, understood: &Value, path: String) -> Option<String> {
    match (written, understood) {
        (Value::Object(w), Value::Object(u)) => w.iter().find_map(|(key, value)| match u.get(key) {
            Some(known) => lost_key(value, known, format!("{path}.{key}")),
            None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => None,
            None => Some(format!("{path}.{key}")),
        }),
        (Value::Array(w), Value::Array(u)) => {
            w.iter().zip(u).enumerate().find_map(|(i, (w, u))| lost_key(w, u, format!("{path}[{i}]")))
        }
        _ => None,
    }
}
